"""Settings of a cost estimate: what they refuse, by the flags of the command."""

from datetime import date

import pytest

from fastformers.cluster.cost.bundle_cost import CostSettings
from fastformers.errors import InputError


@pytest.mark.parametrize("percent", [-1, 100, float("nan")])
def test_a_discount_that_makes_no_sense_is_refused(percent):
    message = f"--discount {percent:g}: give percent, at least 0 and below 100"
    with pytest.raises(InputError, match=message):
        CostSettings(today=date(2026, 7, 20), discount_percent=percent)


def test_no_rows_cannot_be_costed():
    with pytest.raises(InputError, match="--rows 0: give at least 1"):
        CostSettings(today=date(2026, 7, 20), rows=0)
