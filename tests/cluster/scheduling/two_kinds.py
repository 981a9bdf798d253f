"""A driver over nodes on cores and on GPUs that let time pass, by a clock that jumps."""

import heapq
from dataclasses import dataclass, field

from fastformers.cluster.devices.crew import Crew
from fastformers.cluster.scaling.sleeping_nodes import JumpingClock, SleepingNodes, SleepingPool
from fastformers.cluster.scheduling.driver import Driver
from fastformers.cluster.scheduling.nodes import Node
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import Comparison, Finished
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.predictions import Agreement
from fastformers.cluster.shards.shard_queue import Lease
from tests.cluster.conftest import ListJournal
from tests.cluster.scheduling.jobs import make_receipt, make_slice, make_slice_receipt

# Core-seconds of scoring a slice, and of cutting it; core-seconds of a large shard.
SLICE_S, CUT_S, LARGE_S = 100.0, 3.0, 25.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine of a run.

    Attributes:
        num_cores: Slots on cores.
        num_gpus: Slots on GPUs.
        gpu_speed: Core-seconds that a GPU does in a second.
        core_speed: Core-seconds, as predicted, that a core does in a second.
    """

    num_cores: int = 0
    num_gpus: int = 0
    gpu_speed: float = 50.0
    core_speed: float = 1.0


class WorkingPool(SleepingPool):
    """Slots in which a job takes the time of its kind; a slice becomes shards of equal size."""

    def __init__(self, slots, clock, speed, device):
        super().__init__(slots, clock)
        self.speed, self.device = speed, device

    def submit(self, slot, tasks):
        end = max(self._clock.now, self._free_at[slot])
        for task in tasks:
            result, seconds = self.do(task.job, slot.name)
            end += seconds
            outcome = Finished(ticket=task.ticket, result=result, seconds=seconds)
            heapq.heappush(self._ends, (end, task.ticket, outcome))
        self._free_at[slot] = end

    def do(self, job, actor):
        match job:
            case Lease():
                seconds = job.shard.predicted_s / self.speed
                return make_receipt(job, actor=actor, device=self.device), seconds
            case Comparison():
                return Agreement(num_texts=10, num_equal=9, largest_difference=0.5), 0.5
        shard_s = job.shard_seconds or LARGE_S
        count = round(SLICE_S / shard_s)
        shards = [make_sized(job.index, number, shard_s) for number in range(count)]
        return make_slice_receipt(job, *shards), CUT_S


def make_sized(index, number, predicted_s, *, mean_length=100):
    return Shard(
        name=f"{index:06d}-{number:05d}",
        num_rows=1,
        num_unique=1,
        num_tokens=mean_length,
        num_unique_tokens=mean_length,
        predicted_s=predicted_s,
        spans=(("a.csv", 1),),
    )


class TwoKindsOfNodes(SleepingNodes):
    """The nodes of some machines; those that are let go are gone."""

    def __init__(self, machines, clock, *, scorers):
        self.supervisor_s, self._clock = 0.0, clock
        self._supervisors, self._turns, self._events = {}, [], []
        self._nodes, self._pools, self.released = [], {}, []
        for number, machine in enumerate(machines):
            for device, count, speed in (
                ("cpu", machine.num_cores, machine.core_speed),
                ("cuda", machine.num_gpus, machine.gpu_speed),
            ):
                if not count:
                    continue
                name = f"host{number}:{device}"
                node = Node(
                    id=name,
                    name=name,
                    instance_type=None,
                    slots=tuple(Slot(name=f"{name}{slot}") for slot in range(count)),
                    num_cores=count,
                    self_check="",
                    device=device,
                    scores=device in scorers,
                    machine=f"host{number}",
                )
                self._nodes.append(node)
                self._pools[node.id] = WorkingPool(node.slots, clock, speed, device)

    def release(self, node, reason):
        self.released.append((node, reason))
        self._turns = [turn for turn in self._turns if turn[1] != node]
        heapq.heapify(self._turns)


@dataclass
class RunOfTwoKinds:
    """What a run did.

    Attributes:
        journal: Everything that the driver told.
        seconds: How long it took.
        released: Nodes that were let go, with the reason.
    """

    journal: ListJournal
    seconds: float
    released: list = field(default_factory=list)

    def jobs(self, kind, device):
        """Attempts of a kind on a device."""
        return [a for a in self.journal.attempts if a.job == kind and f":{device}" in a.actor]

    def busy_share(self, device):
        """Share of the run in which slots of a device did what counted."""
        own = [a for a in self.journal.attempts if f":{device}" in a.actor and not a.is_lost]
        num_slots = len({a.actor for a in own})
        return sum(a.end_s - a.start_s for a in own) / (num_slots * self.seconds)

    def idle_tail(self, device):
        """Share of the run in which slots of a device had ended and others had not."""
        ends = {}
        for attempt in self.journal.attempts:
            if f":{device}" in attempt.actor and not attempt.is_lost:
                ends[attempt.actor] = max(ends.get(attempt.actor, 0.0), attempt.end_s)
        return sum(self.seconds - end for end in ends.values()) / (len(ends) * self.seconds)


def run_two_kinds(*machines, scorers=("cpu", "cuda"), num_slices=0, shards=(), compares=False):
    """Run a corpus of so many slices, or of shards that are there."""
    clock, journal = JumpingClock(), ListJournal()
    nodes = TwoKindsOfNodes(machines, clock, scorers=scorers)
    driver = Driver(
        nodes,
        slices=[make_slice(number) for number in range(num_slices)],
        shards=shards,
        scores=True,
        journal=journal,
        clock=clock,
        start=0.0,
        crew=Crew(scorers, compares=compares, gpu_shard_s=LARGE_S),
    )
    nodes.start()
    result = driver.run()
    return RunOfTwoKinds(journal, result.work_end_s, nodes.released)
