"""What a run did, as sums and nodes, and what those before it left.

    journal -> [result] -> report, plan of the rest

Plain values, which a report reads; this module knows nothing of drivers, pools or prices.
"""

from dataclasses import dataclass

from fastformers.cluster.records.slice_table import CutSlices
from fastformers.cluster.records.tally import ReceiptSums, RunTally
from fastformers.cluster.scheduling.journal import NodeUse
from fastformers.cluster.shards.shard_set import ShardSet


@dataclass(frozen=True, kw_only=True)
class EarlierWork:
    """What earlier runs of a job left on disk.

    Attributes:
        done: Shards whose predictions are there and whole.
        with_errors: Those of them with rows that have no prediction.
        receipts: Sums over their receipts.
        cut: Slices that are cut, the shards of them that are still to be scored, and the slices
            still to cut.
        num_slices: Number of slices of the corpus, cut or not.
    """

    done: ShardSet
    with_errors: ShardSet
    receipts: ReceiptSums
    cut: CutSlices
    num_slices: int

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to do."""
        return not self.cut.slices and not self.cut.shards


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did.

    Attributes:
        tally: Sums over everything that happened, and over what earlier runs did.
        nodes: Nodes that the run paid for, in the order in which they joined; where nothing was
            left to do, this machine alone.
        dead_letters: Number of rows without a prediction.
        dead_letter_reasons: How many of them by kind of reason, the commonest first.
        skipped_files: Unreadable files that were left out, with the reason.
        started_at: Start of the run, in seconds since the epoch.
        wall_s: Seconds from start to end, starting Ray included.
        setup_s: Seconds from the start until the first job could be handed out.
        work_end_s: Seconds from the start until the last job was done.
        is_cut: Whether it went on, or was interrupted: jobs were under way at its end.
    """

    tally: RunTally
    nodes: tuple[NodeUse, ...]
    dead_letters: int
    dead_letter_reasons: dict[str, int]
    skipped_files: dict[str, str]
    started_at: float
    wall_s: float
    setup_s: float
    work_end_s: float
    is_cut: bool = False

    @property
    def num_actors(self) -> int:
        """Actors that worked, those of nodes that left included."""
        return sum(len(use.actor_cores) for use in self.nodes)

    @property
    def num_machines(self) -> int:
        """Machines that actors worked on; at least this one."""
        return max(1, len({use.machine or use.name for use in self.nodes if use.actor_cores}))
