"""Wishes that make no sense are refused by their flags."""

import pytest

from fastformers.cluster.cost.planning.offers import PlanSettings
from fastformers.errors import InputError


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"deadline_s": 0}, "--deadline 0"),
        ({"budget_usd": -5}, "--budget -5"),
        ({"max_instances": 0}, "--max-instances 0"),
        ({"startup_s": -1}, "--startup-s -1"),
        ({"interruptions_per_hour": -1}, "--interruptions-per-hour -1"),
        *(
            ({"confidence": chance}, "--confidence .*: give a chance from 0.5 to 0.99")
            for chance in (0.0, 0.4, 1.0, 95, float("nan"))
        ),
    ],
)
def test_wishes_that_make_no_sense_are_refused_by_their_flag(changes, flag):
    with pytest.raises(InputError, match=flag):
        PlanSettings(**changes)
