"""What a run did, as sums and nodes.

    journal -> [result] -> report

Plain values, which a report reads; this module knows nothing of drivers, pools or prices.
"""

from dataclasses import dataclass

from fastformers.cluster.records.tally import RunTally
from fastformers.cluster.scheduling.journal import NodeUse


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
