"""Where a run stands while it goes.

    driver -> [progress] -> console, status, result of a run

`Counts` adds up what the driver tells, in a few numbers, whatever the size of the run; `Progress`
is what they say at one moment. This module knows nothing of Ray or prices.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fastformers.cluster.scheduling.node_books import NodeBooks
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt


@dataclass(kw_only=True)
class _Machine:
    """A machine that is paid for.

    Attributes:
        instance_type: Its type, where that is known.
        since: Clock reading from which it costs.
        num_nodes: Nodes that it is now.
    """

    instance_type: str | None
    since: float
    num_nodes: int = 0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a run, to be shown; all sums count from the start of this run, where all are 0.

    Attributes:
        elapsed_s: Seconds since the start of the run.
        num_done, num_known: Shards finished in this run; shards known to this run.
        num_rows, num_tokens, num_errors: Of the shards finished; errors are rows not scored.
            Where shards are only prepared, one that is cut is finished.
        num_retries: Leases that were lost with their worker.
        predicted_done_s: Core-seconds that were predicted of the shards finished.
        predicted_left_s: Core-seconds of the known shards that are not finished, and of the slices
            that are not cut yet, taken to be like those that are.
        num_slices_left: Slices that are not cut yet, those being cut included.
        node_s: Seconds that nodes were used so far, those that have left included, by the instance
            type; None for nodes of an unknown type.
        num_nodes, num_actors: Machines that work now, and their slots.
        doing: Number of slots by what they do: a phase of `receipts.PHASES`, "store" where storage
            does not answer, "wait" where there is nothing to do.
        notices: Lines that nodes want shown, such as storage that does not answer.
    """

    elapsed_s: float = 0.0
    num_done: int = 0
    num_known: int = 0
    num_rows: int = 0
    num_tokens: int = 0
    num_errors: int = 0
    num_retries: int = 0
    predicted_done_s: float = 0.0
    predicted_left_s: float = 0.0
    num_slices_left: int = 0
    node_s: Mapping[str | None, float] = field(default_factory=dict)
    num_nodes: int = 0
    num_actors: int = 0
    doing: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DriverResult:
    """When a run did what.

    Attributes:
        setup_s: Seconds from the run's start until the first node joined.
        work_end_s: Seconds from the run's start until the last job was done.
    """

    setup_s: float
    work_end_s: float


class Counts:
    """Sums over a run, from its start."""

    def __init__(self, *, scores: bool = True) -> None:
        """Begin with nothing.

        Args:
            scores: Whether shards are to be scored; if not, one that is cut is finished.
        """
        self._scores = scores
        self._num_known = self._num_done = self._num_cut = 0
        self._num_rows = self._num_tokens = self._num_errors = 0
        self._predicted_done_s = self._predicted_left_s = self._predicted_cut_s = 0.0
        self._left_node_s: dict[str | None, float] = {}
        self._machines: dict[str, _Machine] = {}

    @property
    def left_s(self) -> float:
        """Core-seconds predicted of the known shards that are not finished."""
        return self._predicted_left_s

    def add_known(self, shard: Shard) -> None:
        """Add a shard that is cut."""
        self._num_known += 1
        if self._scores:
            self._predicted_left_s += shard.predicted_s
            return
        self._num_done += 1
        self._num_rows += shard.num_rows
        self._num_tokens += shard.num_tokens
        self._predicted_done_s += shard.predicted_s

    def add_slice(self, receipt: SliceReceipt) -> None:
        """Add a slice that was cut."""
        self._num_cut += 1
        self._predicted_cut_s += sum(shard.predicted_s for shard in receipt.shards)

    def add_receipt(self, receipt: Receipt) -> None:
        """Add a shard that was scored."""
        self._num_done += 1
        self._num_rows += receipt.num_rows
        self._num_tokens += receipt.num_tokens
        self._num_errors += receipt.num_errors
        self._predicted_left_s -= receipt.predicted_s
        self._predicted_done_s += receipt.predicted_s

    def add_node(self, books: NodeBooks) -> None:
        """Count the time of a node that joins; a machine that is two nodes is paid for once."""
        machine = self._machines.setdefault(
            books.machine, _Machine(instance_type=books.node.instance_type, since=books.since)
        )
        machine.num_nodes += 1

    def remove_node(self, books: NodeBooks, now: float) -> None:
        """Count the time of a node that has left, if it was the last one of its machine."""
        machine = self._machines[books.machine]
        machine.num_nodes -= 1
        if not machine.num_nodes:
            del self._machines[books.machine]
            _add_seconds(self._left_node_s, machine, now)

    def at(
        self,
        now: float,
        start: float,
        nodes: Iterable[NodeBooks],
        *,
        num_slices_left: int,
        num_retries: int,
    ) -> Progress:
        """What they say at a moment.

        Args:
            now, start: Clock readings of the moment and of the start of the run.
            nodes: Nodes that work now.
            num_slices_left: Slices that are not cut yet.
            num_retries: Leases that were lost with their worker.
        """
        node_s = dict(self._left_node_s)
        doing: Counter[str] = Counter()
        notices: list[str] = []
        num_actors = 0
        for machine in self._machines.values():
            _add_seconds(node_s, machine, now)
        for books in nodes:
            doing.update(books.doing)
            notices += [f"node {books.node.name}: {line}" for line in books.notices]
            num_actors += books.num_slots
        per_slice_s = self._predicted_cut_s / self._num_cut if self._num_cut else 0.0
        return Progress(
            elapsed_s=now - start,
            num_done=self._num_done,
            num_known=self._num_known,
            num_rows=self._num_rows,
            num_tokens=self._num_tokens,
            num_errors=self._num_errors,
            num_retries=num_retries,
            predicted_done_s=self._predicted_done_s,
            predicted_left_s=self._predicted_left_s + per_slice_s * num_slices_left,
            num_slices_left=num_slices_left,
            node_s=node_s,
            num_nodes=len(self._machines),
            num_actors=num_actors,
            doing=doing,
            notices=tuple(notices),
        )


def _add_seconds(node_s: dict[str | None, float], machine: _Machine, now: float) -> None:
    """Add the time of a machine to that of its type."""
    seconds = node_s.get(machine.instance_type, 0.0) + now - machine.since
    node_s[machine.instance_type] = seconds
