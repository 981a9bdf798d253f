import pytest

from fastformers.cluster.formatting import (
    format_clock,
    format_long_duration,
    format_short_duration,
    format_time,
    format_usd,
)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (720, "12 min"), (11_520, "3.2 h")])
def test_durations_are_short(seconds, text):
    assert format_short_duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "0 USD"), (1234.5, "1,234.50 USD"), (9.876, "9.88 USD"), (0.00071234, "0.00071 USD")],
)
def test_amounts(usd, text):
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59, "59.0 s"), (61, "1 min 1 s"), (7384, "2 h 3 min")]
)
def test_lengths_of_time(seconds, text):
    assert format_long_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (3599.6, "1:00:00"), (7384, "2:03:04")]
)
def test_clocks(seconds, text):
    assert format_clock(seconds) == text


def test_moments_are_in_utc():
    assert format_time(0.0) == "1970-01-01 00:00"
