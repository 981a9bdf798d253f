"""Track which shards are waiting or leased, and find the text that kills its actors.

    shards -> [shard_queue] -> leases -> actors

A pure state machine: the driver tells it what happened and asks what to do next. The costliest
shard goes first, so that none is left alone at the end; where two kinds of actors score, one takes
the longest and the other the shortest. A shard whose actor died goes back to the
queue; after `MAX_ATTEMPTS` deaths its texts are searched by halves, with leases that score a part
and write nothing, until the text that kills is found and left out. This module knows nothing of Ray
or files.
"""

import heapq
import math
from dataclasses import dataclass, field

from fastformers.cluster.shards.layout import Shard
from fastformers.errors import ScoringError

MAX_ATTEMPTS = 3
MAX_FALSE_ALARMS = 2
# A text is left out only if it kills twice when scored alone: machines fail on their own, too.
DEATHS_TO_BLAME = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One actor's claim on a shard.

    Attributes:
        shard: Shard to score.
        attempt: How many times the shard was leased, this time included.
        probe: Texts to score without writing anything; None to score and commit the shard.
        skip: Texts to leave out, with the reason.
        audits: Whether rows of it may be audited; not where it killed its actors and no text does:
            the audit, which no probe does, may be to blame.
    """

    shard: Shard
    attempt: int
    probe: range | None = None
    skip: dict[int, str] = field(default_factory=dict)
    audits: bool = True


@dataclass(slots=True)
class _Entry:
    shard: Shard
    attempts: int = 0
    deaths: int = 0
    total_deaths: int = 0
    suspect_deaths: int = 0
    false_alarms: int = 0
    suspects: range | None = None
    skip: dict[int, str] = field(default_factory=dict)


class ShardQueue:
    """Shards to score, waiting or leased.

    Attributes:
        num_large: Number of those that wait and are large.
    """

    def __init__(self, *, large_s: float | None = None) -> None:
        """Begin without shards.

        Args:
            large_s: Core-seconds from which a shard is large, where shards are leased from both
                ends: then they are in the order of their size, and among those of about one size in
                that of the mean length of their texts.
        """
        self._large_s = large_s
        self.num_large = 0
        self._first: list[tuple[float, float, str]] = []  # a heap, costliest first
        self._last: list[tuple[float, float, str]] = []  # the same shards from the other end
        self._waiting: set[str] = set()
        self._shards: dict[str, Shard] = {}  # that wait and were never leased
        self._entries: dict[str, _Entry] = {}  # of those that were
        self.num_retries = 0

    def __len__(self) -> int:
        """Number of shards that wait."""
        return len(self._waiting)

    def add(self, shard: Shard) -> None:
        """Add a shard that is ready to be scored."""
        self._shards[shard.name] = shard
        self._wait(shard)

    def peek_shortest(self) -> Shard | None:
        """The shard that `lease` would claim from the other end, or None if none waits."""
        while self._last and self._last[0][2] not in self._waiting:
            heapq.heappop(self._last)
        return self._shard_of(self._last[0][2]) if self._last else None

    def lease(self, *, shortest: bool = False) -> Lease | None:
        """Claim the costliest waiting shard, or the shortest one; None if none waits."""
        if not self._waiting:
            return None
        heap = self._last if shortest else self._first
        while (name := heapq.heappop(heap)[2]) not in self._waiting:
            pass  # it was claimed from the other end
        self._waiting.remove(name)
        self._count(self._shard_of(name), -1)
        if name in self._shards:
            self._entries[name] = _Entry(self._shards.pop(name))
        entry = self._entries[name]
        entry.attempts += 1
        suspects = entry.suspects
        if suspects is not None and len(suspects) > 1:
            suspects = suspects[: len(suspects) // 2]
        return Lease(
            shard=entry.shard,
            attempt=entry.attempts,
            probe=suspects,
            skip=dict(entry.skip),
            audits=not entry.false_alarms,
        )

    def give_back(self, lease: Lease) -> None:
        """Take back a lease that nobody has tried, or whose loss says nothing of the shard."""
        self._entries[lease.shard.name].attempts -= 1
        self._wait(lease.shard)

    def complete(self, lease: Lease) -> bool:
        """Record that an actor did what the lease asked; returns whether the shard is done.

        Raises:
            ScoringError: A shard kills its actors, but no text of it does alone.
        """
        entry = self._entries[lease.shard.name]
        if lease.probe is None:
            del self._entries[lease.shard.name]
            return True
        assert entry.suspects is not None
        if len(entry.suspects) > 1:  # no text of the first half kills
            entry.suspects = entry.suspects[len(entry.suspects) // 2 :]
            entry.suspect_deaths = 0
        else:
            self._false_alarm(entry)
        self._wait(entry.shard)
        return False

    def fail(self, lease: Lease, reason: str) -> None:
        """Record that an actor died or took too long.

        Raises:
            ScoringError: The shard kills its actors even with nothing to score.
        """
        entry = self._entries[lease.shard.name]
        self.num_retries += 1
        entry.total_deaths += 1
        if lease.probe is None:
            entry.deaths += 1
            if entry.deaths >= MAX_ATTEMPTS:
                entry.suspects = range(entry.shard.num_unique)
        elif len(lease.probe) > 1:
            entry.suspects = lease.probe
        else:
            self._suspect(entry, lease, reason)
        self._wait(entry.shard)

    def _suspect(self, entry: _Entry, lease: Lease, reason: str) -> None:
        """Record that an actor died on one text alone, or on none."""
        assert lease.probe is not None
        entry.suspect_deaths += 1
        if entry.suspect_deaths < DEATHS_TO_BLAME:
            return
        if set(lease.probe) <= entry.skip.keys():
            raise ScoringError(
                f"shard {entry.shard.name} killed its actor {entry.total_deaths} times, at last "
                "with nothing to score; the machine may lack memory: lower --num-actors"
            )
        entry.skip[lease.probe.start] = f"the text kills its actor: {reason}"
        entry.suspects, entry.deaths, entry.suspect_deaths = None, 0, 0

    def _false_alarm(self, entry: _Entry) -> None:
        entry.suspects, entry.deaths, entry.suspect_deaths = None, 0, 0
        entry.false_alarms += 1
        if entry.false_alarms > MAX_FALSE_ALARMS:
            raise ScoringError(
                f"shard {entry.shard.name} killed its actor {entry.total_deaths} times, but no "
                "text of it does alone; the machine may lack memory: lower --max-batch-tokens or "
                "--num-actors"
            )

    def _count(self, shard: Shard, change: int) -> None:
        if self._large_s is not None and shard.predicted_s >= self._large_s:
            self.num_large += change

    def _shard_of(self, name: str) -> Shard:
        return self._shards[name] if name in self._shards else self._entries[name].shard

    def _wait(self, shard: Shard) -> None:
        self._waiting.add(shard.name)
        self._count(shard, 1)
        if self._large_s is None:
            heapq.heappush(self._first, (-shard.predicted_s, 0.0, shard.name))
            return
        size = round(math.log2(max(shard.predicted_s, 1e-9)))
        length = shard.num_unique_tokens / max(1, shard.num_unique)
        heapq.heappush(self._first, (-size, -length, shard.name))
        heapq.heappush(self._last, (size, length, shard.name))
