"""Quote the whole run while it goes: USD and hours when it is done, with their 90% intervals.

    Progress, prices, earlier sessions -> [quoting] -> Quote -> progress line, quotes.json

The time left is the driver's forecast (`scheduling/forecast`); a quote adds what is spent already,
and what the machines that are there now cost for that time. It is made from the first hundredth of
the run on. This module shows nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import usd_of
from fastformers.cluster.records.quotes import MARKS, Quote, Quotes
from fastformers.cluster.records.sessions import Session
from fastformers.cluster.scheduling.progress import MachineKind, Progress

_HOUR_S = 3600.0


class Quoter:
    """Quotes one session of a run, and those before it with it.

    Attributes:
        quotes: Those that are kept, of earlier sessions, too.
    """

    def __init__(
        self,
        run: str,
        started_at: float,
        usd_of: Callable[[Mapping[MachineKind, float]], float],
        *,
        earlier: Sequence[Session] = (),
        quotes: Quotes | None = None,
    ) -> None:
        """Begin with nothing done in this session.

        Args:
            run: Identifier of the session.
            started_at: Its start, in seconds since the epoch.
            usd_of: What machines cost for so many seconds.
            earlier: The sessions before it.
            quotes: Their quotes.
        """
        self.quotes = quotes or Quotes()
        self._run, self._started_at, self._usd_of = run, started_at, usd_of
        self._earlier_usd = math.fsum(session.usd for session in earlier)
        self._earlier_s = math.fsum(session.wall_s for session in earlier)

    def quote(self, progress: Progress) -> Quote | None:
        """What the run will cost and take; None before enough of it is done to say.

        A quote at which the run has passed a mark is kept.
        """
        done_s = progress.predicted_before_s + progress.predicted_done_s
        total_s = done_s + progress.predicted_left_s
        left = progress.time_left
        share = done_s / total_s if total_s > 0 else 0.0
        if left is None or share < MARKS[0] or not progress.machines or left.seconds <= 0:
            return None
        now_s = progress.elapsed_s
        usd_so_far = self._earlier_usd + self._usd_of(progress.machine_s)
        usd_per_s = self._usd_of(dict(progress.machines))
        low_s, mid_s, high_s = (now_s + s for s in (left.low_s, left.seconds, left.high_s))
        quote = Quote(
            run=self._run,
            at=self._iso(now_s),
            share=share,
            actors=progress.num_actors,
            usd=usd_so_far + usd_per_s * left.seconds,
            usd_low=usd_so_far + usd_per_s * left.low_s,
            usd_high=usd_so_far + usd_per_s * left.high_s,
            hours=(self._earlier_s + mid_s) / _HOUR_S,
            hours_low=(self._earlier_s + low_s) / _HOUR_S,
            hours_high=(self._earlier_s + high_s) / _HOUR_S,
            ends_at=self._iso(mid_s),
            ends_at_low=self._iso(low_s),
            ends_at_high=self._iso(high_s),
        )
        if self.quotes.is_due(share):
            self.quotes = replace(self.quotes, history=(*self.quotes.history, quote))
        return quote

    def _iso(self, seconds: float) -> str:
        moment = datetime.fromtimestamp(self._started_at + seconds, UTC)
        return moment.isoformat(timespec="seconds")


def price_machines(prices: MachinePrices, seconds_by_kind: Mapping[MachineKind, float]) -> float:
    """USD of machines for some time, by what the price of each follows from."""
    usd = 0.0
    for kind, seconds in seconds_by_kind.items():
        price = prices.price_of(kind.instance_type, num_cores=kind.num_cores, seen=kind.seen)
        usd += usd_of(seconds, usd_per_hour=price.usd_per_hour)
    return usd
