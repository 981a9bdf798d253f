"""What a run tells: where it stands while it goes, and what it did.

    driver, run -> [result] -> report

These are plain values, which a report reads; this module knows nothing of drivers, pools or prices.
"""

from dataclasses import dataclass

from cluster.shards.layout import Shard
from cluster.shards.receipts import Attempt, Receipt


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did.

    Attributes:
        shards: All shards of the corpus, in corpus order.
        receipts: Receipts of the shards scored in this run.
        resumed: Receipts of the shards that earlier runs had scored.
        slice_phase_s: Seconds of preparing, by phase.
        dead_letters: Number of rows without a prediction.
        skipped_files: Unreadable files that were left out, with the reason.
        self_check: Lines that say which actors ran on which cores.
        num_actors, num_machines: Number of actors, and of the machines they ran on.
        num_retries: Number of leases that were lost with their actor.
        attempts: Jobs that actors were given, in the order in which they ended.
        actor_cores: Number of cores that each actor owned, by its name.
        num_idle_cores: Number of cores of the actors' nodes that no actor owned.
        started_at: Start of the run, in seconds since the epoch.
        wall_s: Seconds from start to end, starting Ray included.
        setup_s: Seconds from the start until the first job could be handed out.
        work_end_s: Seconds from the start until the last job was done.
    """

    shards: list[Shard]
    receipts: list[Receipt]
    resumed: list[Receipt]
    slice_phase_s: dict[str, float]
    dead_letters: int
    skipped_files: dict[str, str]
    self_check: list[str]
    num_actors: int
    num_machines: int
    num_retries: int
    attempts: list[Attempt]
    actor_cores: dict[str, int]
    num_idle_cores: int
    started_at: float
    wall_s: float
    setup_s: float
    work_end_s: float
