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
    encoding: str | None = field(
        default=None,
        metadata=option("encoding of text files, such as latin-1 (UTF-8, UTF-16 by its mark)"),
    )
    csv_delimiter: str | None = field(
        default=None,
        metadata=option(
            r"what separates fields of CSV, or \t (by name and header line)", metavar="CHARACTER"
        ),
    )
    csv_quote: str = field(
        default='"',
        metadata=option("what encloses fields of CSV, or none", metavar="CHARACTER"),
    )
    csv_escape: str | None = field(
        default=None,
        metadata=option("what escapes quotes in CSV (doubled quotes)", metavar="CHARACTER"),
    )
    max_row_bytes: int = field(
        default=ReadOptions.max_row_bytes,
        metadata=option("bytes of a row of text files; a longer one is a dead letter"),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "limit")
        is_positive = self.shard_seconds is None or self.shard_seconds > 0
        check_option(self, "shard_seconds", is_positive, "more than 0")
        check_at_least(self, 1, "max_row_bytes")
        _ = self.read_options

    @property
    def read_options(self) -> ReadOptions:
        """How the files are read."""
        return ReadOptions(
            skip_unreadable=self.skip_unreadable_files,
            binary_text=self.binary_text,
            encoding=self.encoding,
            max_row_bytes=self.max_row_bytes,
            csv_delimiter=None if self.csv_delimiter is None else _character(self.csv_delimiter),
            csv_quote=None if self.csv_quote == "none" else self.csv_quote,
            csv_escape=self.csv_escape,
        )


def _character(text: str) -> str:
    """A character as a shell can pass it."""
    return "\t" if text in ("\\t", "tab") else text


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
