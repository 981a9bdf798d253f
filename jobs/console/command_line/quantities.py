"""Numbers and times as people write them: 1e9 rows, 1h30m.

    text of a flag -> [quantities] -> number

This module knows nothing of what is counted.
"""

import argparse
import re

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(
    rf"(?:(?P<d>{_NUMBER})d)?(?:(?P<h>{_NUMBER})h)?(?:(?P<m>{_NUMBER})m(?:in)?)?(?:(?P<s>{_NUMBER})s)?",
    re.ASCII,
)
_SECONDS_OF_UNIT = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def whole_number(text: str) -> int:
    """A whole number that may be written as 1e9."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def duration(text: str) -> float:
    """Seconds of 45s, 90m, 90min, 1.5h, 2d or 1h30m: each unit once, from days to seconds."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 90m, 6h, 2d or 1h30m, always with the unit"
        )
    parts = match.groupdict(default="0")
    return sum(float(parts[unit]) * seconds for unit, seconds in _SECONDS_OF_UNIT.items())
