"""Numbers as people read them, for all three packages: counts.

    numbers -> [formatting] -> text of tables, pages and notes

Dollars, durations and dates are in `cluster/formatting.py`. This module knows nothing of what is
counted.
"""


def format_count(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1: 1,234 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
