"""What a user may set for a run, checked as it is set.

    command line -> [settings] -> plan -> run

What is read decides predictions and is part of a run's identity; who does the work is not.
"""

from dataclasses import dataclass

from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """What of a corpus is read, and how it is cut.

    Attributes:
        text_column: Column with the text.
        text_pair_column: Column with the second text of a pair, or None.
        keep_columns: Columns to pass through to the predictions.
        limit: Rows to take from the start of the corpus, or None for all.
        shard_seconds: Predicted seconds of a shard on one core; None to choose by corpus size.
        skip_unreadable_files: Leave out files that cannot be read.
    """

    text_column: str = "text"
    text_pair_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    limit: int | None = None
    shard_seconds: float | None = None
    skip_unreadable_files: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give at least 1")
        if self.shard_seconds is not None and self.shard_seconds <= 0:
            raise InputError(f"--shard-seconds {self.shard_seconds:g}: give more than 0")
        if len(set(self.keep_columns)) < len(self.keep_columns):
            raise InputError("--keep-columns names a column twice")


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """Who does the work; none of this changes a prediction.

    Attributes:
        num_actors: Over all nodes; None for as many as fit.
        cores_per_actor: Physical cores of each; None to measure which split is fastest.
        oversubscribe: Allow actors to share cores.
        address: Of a Ray cluster; None for RAY_ADDRESS, or a new one on this machine.
        timeout_s: Seconds that one shard may take; None for 30 times the prediction.
    """

    num_actors: int | None = None
    cores_per_actor: int | None = 1
    oversubscribe: bool = False
    address: str | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise InputError(f"--timeout-s {self.timeout_s:g}: give more than 0")
