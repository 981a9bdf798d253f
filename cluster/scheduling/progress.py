"""Where a run stands while it goes.

    driver -> [progress] -> console, status, result of a run

`Counts` adds up what the driver tells, in a few numbers, whatever the size of the run; `Progress`
is what they say at one moment, with the time that is left. This module knows nothing of Ray or
prices.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fastformers.cluster.scheduling.forecast.time_left import (
    JobTimes,
    SlotKind,
    TimeLeft,
    WorkLeft,
)
from fastformers.cluster.scheduling.node_books import NodeBooks
from fastformers.cluster.scheduling.nodes import Ended
from fastformers.cluster.scheduling.work import Finished
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.inference.cpu import Machine
from fastformers.inference.engine import Device


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineKind:
    """What the price of a machine follows from.

    Attributes:
        instance_type: Its type, where that is known.
        num_cores: Physical cores that it lets the run use.
        seen: What the machine is; None where it was not looked at.
    """

    instance_type: str | None = None
    num_cores: int = 0
    seen: Machine | None = None


@dataclass(kw_only=True)
class _Machine:
    """A machine that is paid for.

    Attributes:
        instance_type: Its type, where that is known.
        seen: What it is; None where it was not looked at.
        since: Clock reading from which it costs.
        num_nodes: Nodes that it is now.
        num_cores: Cores that it lets the run use, by what computes for the node that has them.
    """

    instance_type: str | None
    seen: Machine | None
    since: float
    num_nodes: int = 0
    num_cores: dict[Device, int] = field(default_factory=dict)

    @property
    def kind(self) -> MachineKind:
        """What its price follows from."""
        num_cores = sum(self.num_cores.values())
        return MachineKind(instance_type=self.instance_type, num_cores=num_cores, seen=self.seen)


@dataclass(frozen=True, kw_only=True)
class Before:
    """What earlier sessions of the run have done.

    Attributes:
        predicted_s: Core-seconds predicted of the shards that they scored.
        num_cut: Slices that they cut.
        cut_s: Core-seconds predicted of these.
    """

    predicted_s: float = 0.0
    num_cut: int = 0
    cut_s: float = 0.0


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
        predicted_before_s: Core-seconds predicted of the shards that earlier sessions have scored.
        time_left: How long the rest takes on the slots that are there; None where that is not
            known.
        machine_s: Seconds that machines were used so far, those that have left included.
        machines: How many machines are there now, by their kind.
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
    predicted_before_s: float = 0.0
    time_left: TimeLeft | None = None
    machine_s: Mapping[MachineKind, float] = field(default_factory=dict)
    machines: Mapping[MachineKind, int] = field(default_factory=dict)
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

    def __init__(self, *, scores: bool = True, before: Before | None = None) -> None:
        """Begin with nothing.

        Args:
            scores: Whether shards are to be scored; if not, one that is cut is finished.
            before: What earlier sessions have done; None for nothing.
        """
        self._scores, self._before = scores, before or Before()
        self._times = JobTimes(num_cut=self._before.num_cut, cut_s=self._before.cut_s)
        self._num_known = self._num_done = 0
        self._num_rows = self._num_tokens = self._num_errors = 0
        self._predicted_done_s = self._predicted_left_s = 0.0
        self._left_machine_s: dict[MachineKind, float] = {}
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
        predicted_s = sum(shard.predicted_s for shard in receipt.shards)
        self._times.add_slice(predicted_s, is_rest=receipt.first_shard > 0)

    def add_receipt(self, receipt: Receipt) -> None:
        """Add a shard that was scored."""
        self._num_done += 1
        self._num_rows += receipt.num_rows
        self._num_tokens += receipt.num_tokens
        self._num_errors += receipt.num_errors
        self._predicted_left_s -= receipt.predicted_s
        self._predicted_done_s += receipt.predicted_s

    def add_finished(self, books: NodeBooks, ended: Ended) -> None:
        """Add what a job took that is done, whatever came out of it."""
        assert isinstance(ended.outcome, Finished)
        match ended.outcome.result:
            case Receipt() as receipt:
                seconds = books.take_slot_time(ended)
                self._times.add_shard(books.kind, receipt.predicted_s, seconds)
            case SliceReceipt() as receipt:
                self._times.add_cutting(
                    books.take_slot_time(ended),
                    is_rest=receipt.first_shard > 0,
                    by_scorer=self._scores and books.node.scores,
                )

    def add_node(self, books: NodeBooks) -> None:
        """Count the time of a node that joins; a machine that is two nodes is paid for once."""
        node = books.node
        machine = self._machines.setdefault(
            books.machine,
            _Machine(instance_type=node.instance_type, seen=node.machine_seen, since=books.since),
        )
        machine.num_nodes += 1
        machine.num_cores[node.device] = node.num_cores

    def remove_node(self, books: NodeBooks, now: float) -> None:
        """Count the time of a node that has left, if it was the last one of its machine."""
        machine = self._machines[books.machine]
        machine.num_nodes -= 1
        if not machine.num_nodes:
            del self._machines[books.machine]
            _add_seconds(self._left_machine_s, machine, now)

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
        machine_s = dict(self._left_machine_s)
        machines: Counter[MachineKind] = Counter()
        doing: Counter[str] = Counter()
        slots: Counter[SlotKind] = Counter()
        notices: list[str] = []
        num_actors = num_helpers = 0
        for machine in self._machines.values():
            _add_seconds(machine_s, machine, now)
            machines[machine.kind] += 1
        for books in nodes:
            doing.update(books.doing)
            notices += [f"node {books.node.name}: {line}" for line in books.notices]
            num_actors += books.num_slots
            if books.leaving:
                continue
            if self._scores and books.node.scores:
                slots[books.kind] += books.num_slots
            else:
                num_helpers += books.num_slots
        per_slice_s = self._times.predicted_of_slice_s
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
            predicted_before_s=self._before.predicted_s,
            time_left=self._time_left(slots, num_helpers, num_slices_left),
            machine_s=machine_s,
            machines=machines,
            num_nodes=len(self._machines),
            num_actors=num_actors,
            doing=doing,
            notices=tuple(notices),
        )

    def _time_left(
        self, slots: Mapping[SlotKind, int], num_helpers: int, num_slices: int
    ) -> TimeLeft | None:
        known_s = self._predicted_left_s + self._predicted_done_s
        return self._times.time_left(
            WorkLeft(
                known_s=max(0.0, self._predicted_left_s),
                num_shards=self._num_known - self._num_done,
                shard_s=known_s / self._num_known if self._num_known else 0.0,
                num_slices=num_slices,
                scoring=slots,
                num_helpers=num_helpers,
                scores=self._scores,
            )
        )


def _add_seconds(machine_s: dict[MachineKind, float], machine: _Machine, now: float) -> None:
    """Add the time of a machine to that of its kind."""
    kind = machine.kind
    machine_s[kind] = machine_s.get(kind, 0.0) + now - machine.since
