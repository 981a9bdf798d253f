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


def format_usd_range(usd: float, low: float, high: float) -> str:
    """An amount and its interval, short: 0.14 USD (0.12-0.17); without cents from 100 USD on."""
    places = usd_places(usd) if usd < 100 else 0
    return f"{usd:,.{places}f} USD ({low:,.{places}f}-{high:,.{places}f})"


def format_duration_range(seconds: float, low_s: float, high_s: float) -> str:
    """A duration and its interval, short: 3:05 (2:50-3:30); from an hour on 3.2 h (3.0-3.5)."""
    if high_s < 3600:
        low, middle, high = (format_clock(s) for s in (low_s, seconds, high_s))
        return f"{middle} ({low}-{high})"
    low, middle, high = (f"{s / 3600:,.1f}" for s in (low_s, seconds, high_s))
    return f"{middle} h ({low}-{high})"


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
