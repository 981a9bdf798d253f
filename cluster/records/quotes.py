"""What a run said of its own bill while it went, and what was quoted before it began.

    report -> Quote -> [quotes] -> __run__/quotes.json -> next session, report

A quote is kept whenever the run passes one of some marks, by the share that is done of all
sessions, so there are few of them however long it is; a session that goes on with a run goes on
with its quotes. This module works out no quote, and knows nothing of prices or clocks.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError

QUOTES_FILE = "quotes.json"
# Shares of a run, by predicted work, at which its quote is kept.
_PERCENT = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, *range(20, 100, 5), 98, 99)
MARKS = tuple(percent / 100 for percent in _PERCENT)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What the whole run was expected to cost and take, at some moment of it.

    Attributes:
        run: Identifier of the session.
        at: ISO time of the moment, in UTC.
        share: Share of the predicted work of all sessions that was done, 0-1.
        actors: Actors that were there.
        usd, usd_low, usd_high: Price of all sessions when the run is done, with its 90% interval.
        hours, hours_low, hours_high: Hours of all sessions, from the start to the end of each.
        ends_at, ends_at_low, ends_at_high: ISO time at which the last job is done, in UTC.
    """

    run: str
    at: str
    share: float
    actors: int
    usd: float
    usd_low: float
    usd_high: float
    hours: float
    hours_low: float
    hours_high: float
    ends_at: str
    ends_at_low: str
    ends_at_high: str


@dataclass(frozen=True, kw_only=True)
class EarlyQuote:
    """What `fastformers cost` said before the run.

    Attributes:
        source: File that it was read from.
        instance_type: Type that it is for.
        machines: How many of them.
        usd: Price of the whole job.
        usd_low, usd_high: The price if the machine is faster or slower than estimated; None where
            the quote does not say.
        hours: Hours from start to end.
    """

    source: str
    instance_type: str
    machines: int
    usd: float
    usd_low: float | None
    usd_high: float | None
    hours: float


@dataclass(frozen=True, kw_only=True)
class Quotes:
    """All quotes of a run.

    Attributes:
        history: Those of all sessions, in their order; at most one for each mark.
        early: The one from before the run; None where none was given.
    """

    history: tuple[Quote, ...] = ()
    early: EarlyQuote | None = None

    def is_due(self, share: float) -> bool:
        """Whether a quote at this share of the run is to be kept."""
        passed = bisect_right(MARKS, share)
        before = max((quote.share for quote in self.history), default=0.0)
        return passed > bisect_right(MARKS, before)


def write_quotes(home: Directory, quotes: Quotes) -> None:
    """Write the quotes of a run, in place of those before.

    Raises:
        StorageError: They cannot be written.
    """
    home.write_json(QUOTES_FILE, to_plain(quotes))


def read_quotes(home: Directory) -> Quotes:
    """The quotes of earlier sessions; none where there are none.

    Raises:
        InputError: The file is not ours, or damaged.
    """
    content: Any = home.read_json(QUOTES_FILE)
    if content is None:
        return Quotes()
    try:
        quotes: Quotes = from_plain(Quotes, content)
    except ValueError as error:
        raise InputError(
            f"{home}/{QUOTES_FILE}: damaged: {error}; delete it, and the run quotes itself anew"
        ) from error
    return quotes
