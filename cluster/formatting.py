"""Numbers as people read them: dollars, durations, dates.

    numbers -> [formatting] -> text of tables, pages and progress lines

Durations have three formats: short for plans, whose seconds mean nothing; long for reports; and as
a clock for the time left. This module knows nothing of what the numbers mean.
"""

import math
from datetime import UTC, datetime


def format_usd(usd: float) -> str:
    """USD with two significant digits, and to the cent from 10 cents on."""
    if usd == 0:
        return "0 USD"
    return f"{usd:,.{usd_places(usd)}f} USD"


def usd_places(usd: float) -> int:
    """Decimal places of an amount with two significant digits, two at least."""
    return 2 if usd == 0 else max(2, 1 - math.floor(math.log10(abs(usd))))


def format_short_duration(seconds: float) -> str:
    """A duration rounded to one unit: 45 s, 12 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_long_duration(seconds: float) -> str:
    """A duration in its two largest units: 9.5 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def format_clock(seconds: float) -> str:
    """A duration as a clock shows it, to the second: 3:05, 2:10:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_time(seconds: float) -> str:
    """Date and minute in UTC of a moment, given in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
