"""Samples of a run that stay small however long it is: shards, attempts, tokens over time.

    attempts, receipts -> [samples] -> tally -> report

Everything is thinned out by fixed rules, never by chance: the same run gives the same samples. This
module knows nothing of files, nodes or prices.
"""

from array import array
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastformers.cluster.shards.receipts import Attempt, Receipt

Item = TypeVar("Item")

MAX_PREDICTIONS, MAX_NUMBERS = 10_000, 100_000
MAX_ATTEMPTS, MAX_LOST, MIN_ACTORS = 8000, 1000, 32
NUM_BINS, _LEAST_BIN_S = 128, 2.0**-6


class Thinned(Generic[Item]):
    """Every 2^k-th of what is added: all of it while it is little."""

    def __init__(self, limit: int) -> None:
        self.items: list[Item] = []
        self._limit = limit
        self._step, self._num_added = 1, 0

    def add(self, item: Item) -> None:
        """Add an item."""
        if self._num_added % self._step == 0:
            self.items.append(item)
            self._keep_within_limit()
        self._num_added += 1

    def join(self, other: "Thinned[Item]") -> None:
        """Add what another one was given; both are thinned alike, so that neither counts more."""
        step = max(self._step, other._step)
        own, others = self.items[:: step // self._step], other.items[:: step // other._step]
        self.items, self._step = [*own, *others], step
        self._num_added += other._num_added
        self._keep_within_limit()

    def _keep_within_limit(self) -> None:
        while len(self.items) > self._limit:
            self.items, self._step = self.items[::2], 2 * self._step


@dataclass(frozen=True, slots=True)
class TimedAttempt:
    """An attempt, and the receipt of the shard if it scored one."""

    attempt: Attempt
    receipt: Receipt | None


class AttemptSample:
    """All attempts while they are few; then those of some actors, then every 2^k-th of these.

    Actors are dropped before attempts are, so that what is kept of an actor has no gaps; the last
    `MIN_ACTORS` are thinned out evenly. The first attempts that were lost are all kept.
    """

    def __init__(self) -> None:
        self._number_of: dict[tuple[str, str], int] = {}
        self._num_of: dict[int, int] = {}
        self._kept: list[tuple[int, int, int, TimedAttempt]] = []
        self._lost: list[tuple[int, TimedAttempt]] = []
        self._actor_step = self._step = 1
        self.num_added = 0

    def add(self, timed: TimedAttempt) -> None:
        """Add an attempt; those of an actor come in the order of their ends."""
        place = self.num_added
        self.num_added += 1
        if timed.attempt.is_lost:
            if len(self._lost) < MAX_LOST:
                self._lost.append((place, timed))
            return
        key = timed.attempt.node, timed.attempt.actor
        actor = self._number_of.setdefault(key, len(self._number_of))
        if actor % self._actor_step:
            return
        number = self._num_of.get(actor, 0)
        self._num_of[actor] = number + 1
        if number % self._step:
            return
        self._kept.append((place, actor, number, timed))
        if len(self._kept) > MAX_ATTEMPTS:
            self._thin_out()

    def attempts(self) -> list[TimedAttempt]:
        """What was kept, in the order in which it was added."""
        kept = [(place, timed) for place, _, _, timed in self._kept]
        return [timed for _, timed in sorted([*kept, *self._lost], key=lambda entry: entry[0])]

    def _thin_out(self) -> None:
        if len({actor for _, actor, _, _ in self._kept}) >= 2 * MIN_ACTORS:
            self._actor_step *= 2
        else:
            self._step *= 2
        self._kept = [
            entry
            for entry in self._kept
            if entry[1] % self._actor_step == 0 and entry[2] % self._step == 0
        ]


class TimeBins:
    """Amounts spread over time, in at most `NUM_BINS` bins that get wider as time goes on.

    Attributes:
        bin_s: Width of a bin: a power of two of seconds.
        amounts: Amount in each bin, from second 0 on.
    """

    def __init__(self) -> None:
        self.bin_s = _LEAST_BIN_S
        self.amounts = array("d", bytes(8 * NUM_BINS))

    def add(self, amount: float, start_s: float, end_s: float) -> None:
        """Spread an amount evenly from `start_s` to `end_s`; nothing lies before second 0."""
        self.widen(end_s)
        start, end = start_s / self.bin_s, end_s / self.bin_s
        first, last = int(start), min(NUM_BINS - 1, int(end))
        if first >= last:
            self.amounts[last] += amount
            return
        share = amount / (end - start)
        self.amounts[first] += share * (first + 1 - start)
        for place in range(first + 1, last):
            self.amounts[place] += share
        self.amounts[last] += share * (end - last)

    def widen(self, end_s: float) -> None:
        """Make the bins as wide as it takes to reach `end_s`."""
        while end_s > NUM_BINS * self.bin_s:
            pairs = zip(self.amounts[::2], self.amounts[1::2], strict=True)
            self.amounts = array("d", [a + b for a, b in pairs])
            self.amounts.frombytes(bytes(4 * NUM_BINS))
            self.bin_s *= 2
