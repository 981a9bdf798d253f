"""What a user may set for a run, checked as it is set.

    command line -> [settings] -> job, cost -> run

What is read decides the predictions and is part of a run's identity; who does the work is not. This
module knows nothing of files, models or Ray.
"""

from dataclasses import dataclass, field

from fastformers.formats.readers import ReadOptions
from fastformers.options import check_at_least, check_option, option


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Which part of a corpus is read, and how it is cut into shards."""

    text_column: str = field(default="text", metadata=option("column with the text"))
    text_pair_column: str | None = field(
        default=None, metadata=option("column with the second text, where the bundle reads pairs")
    )
    keep_columns: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "columns to pass through to the predictions; * is all, __file__ and __row__ are where "
            "a row is from; repeat it for names with commas",
            metavar="A,B",
        ),
    )
    limit: int | None = field(
        default=None, metadata=option("only the first rows of the corpus", metavar="ROWS")
    )
    shard_seconds: float | None = field(
        default=None, metadata=option("predicted core-seconds of a shard (by corpus size, 2-20)")
    )
    skip_unreadable_files: bool = field(
        default=False, metadata=option("leave out files that cannot be read or lack a column")
    )
    binary_text: bool = field(
        default=False, metadata=option("read Parquet columns of bytes as text in UTF-8")
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "limit")
        is_positive = self.shard_seconds is None or self.shard_seconds > 0
        check_option(self, "shard_seconds", is_positive, "more than 0")

    @property
    def read_options(self) -> ReadOptions:
        """How the files are read."""
        return ReadOptions(skip_unreadable=self.skip_unreadable_files, binary_text=self.binary_text)


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """Who does the work; none of this changes a prediction.

    Attributes:
        cores_per_actor: Physical cores of each actor; None to measure which split scores fastest,
            which a run that only prepares refuses. Its flag is made by hand, because not every
            command can measure.
    """

    num_actors: int | None = field(
        default=None, metadata=option("actors over all nodes (as many as fit)")
    )
    num_nodes: int | None = field(
        default=None, metadata=option("nodes to use at once (all that have room)")
    )
    cores_per_actor: int | None = 1
    oversubscribe: bool = field(default=False, metadata=option("let actors share cores"))
    address: str | None = field(
        default=None,
        metadata=option(
            "HOST:PORT of a Ray cluster, auto for the one on this machine, or local for an own one "
            "(RAY_ADDRESS, else auto if one runs, else local)"
        ),
    )
    timeout_s: float | None = field(
        default=None,
        metadata=option("seconds that a shard may take (30 times its prediction, at least 300)"),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_nodes")
        is_positive = self.timeout_s is None or self.timeout_s > 0
        check_option(self, "timeout_s", is_positive, "more than 0")
