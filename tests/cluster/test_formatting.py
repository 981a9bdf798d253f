import pytest

from cluster.formatting import (
    format_count,
    format_duration,
    format_time,
)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (720, "12 min"), (11_520, "3.2 h")])
def test_durations_are_short(seconds, text):
    assert format_duration(seconds) == text


def test_counts_have_their_plural():
    assert [format_count(number, "row") for number in (0, 1, 1234)] == [
        "0 rows",
        "1 row",
        "1,234 rows",
    ]


def test_moments_are_in_utc():
    assert format_time(0.0) == "1970-01-01 00:00"
