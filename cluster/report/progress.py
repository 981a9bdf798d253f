"""Sum up where a run stands while it goes: rows, rate, money spent.

    driver -> [progress] -> share done, one line -> console of the command

This module knows nothing of terminals or of the time left.
"""

from collections import deque

from cluster.pricing.machine_prices import MachinePrices
from cluster.pricing.prices import usd_of
from cluster.scheduling.progress import Progress

_RECENT_S = 60.0


class RunProgress:
    """Says what the driver's reports say, with the rate of the last minute, and in money."""

    def __init__(self, prices: MachinePrices) -> None:
        """Begin with a run of which nothing is done.

        Args:
            prices: Prices of the machines.
        """
        self._prices = prices
        self._recent: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, progress: Progress) -> float:
        """Take a report; returns the share of the run that is done, 0-1."""
        self._recent.append((progress.elapsed_s, progress.num_rows))
        while len(self._recent) > 2 and progress.elapsed_s - self._recent[1][0] >= _RECENT_S:
            self._recent.popleft()
        known_s = progress.predicted_done_s + progress.predicted_left_s
        return progress.predicted_done_s / known_s if known_s else 0.0

    def describe(self, progress: Progress) -> str:
        """One line: shards, rows, rows per second over the last minute and over all, USD so far."""
        since_s, rows_before = self._recent[0]
        recent_s = progress.elapsed_s - since_s
        recent = (progress.num_rows - rows_before) / recent_s if recent_s > 0 else 0.0
        overall = progress.num_rows / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
        parts = [f"{progress.num_done}/{progress.num_known} shards"]
        if progress.num_slices_left:
            parts.append(f"{progress.num_slices_left} slices to read")
        parts += [
            f"{progress.num_rows:,} rows",
            f"{recent:,.0f} rows/s now, {overall:,.0f} overall",
            f"{self.usd_so_far(progress):.4f} USD so far",
        ]
        return ", ".join(parts)

    def usd_so_far(self, progress: Progress) -> float:
        """Price of all machines until now, those that have left included.

        Machines of an unknown type count as this one, where the price is an estimate; the bill at
        the end counts their cores.
        """
        return sum(
            usd_of(seconds, usd_per_hour=self._prices.price_of(instance_type).usd_per_hour)
            for instance_type, seconds in progress.node_s.items()
        )
