"""What a user may set for a run, checked as it is set.

    command line -> [settings] -> job, cost -> run

What is read decides the predictions and is part of a run's identity; who does the work is not. This
module knows nothing of files, models or Ray.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

from fastformers.formats.readers import ReadOptions
from fastformers.formats.text_file_config import PLAIN_TEXT_FILES, TextFileConfig
from fastformers.options import check_at_least, check_option, check_positive, option

# Fewer rows say little of a corpus: a share of bad rows is judged from so many on, and fewer bad
# rows than these pass, unless they are all there are.
JUDGED_ROWS, PASSING_BAD_ROWS = 10_000, 10


@dataclass(frozen=True, kw_only=True)
class BadRowLimit:
    """How many rows of a corpus may be bad.

    Attributes:
        text: The limit as the user wrote it.
        count: Rows at most; None where a share is given.
        share: Share of the rows read at most, 0-1.
    """

    text: str
    count: int | None = None
    share: float = 1.0

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The limit that a text means: "100" rows, or a share as "5%" or "0.05"; else None."""
        if text.isdecimal():
            return cls(text=text, count=int(text))
        number, percent, rest = text.partition("%")
        try:
            share = float(number) / (100 if percent else 1)
        except ValueError:
            return None
        return cls(text=text, share=share) if 0 <= share <= 1 and not rest else None

    @property
    def bears_all(self) -> bool:
        """Whether a run may end well in which no row was good: 100% says so, no number does."""
        return self.count is None and self.share == 1

    def is_exceeded(self, num_bad: int, num_rows: int, *, are_all: bool) -> bool:
        """Whether there are too many bad rows.

        Args:
            num_bad, num_rows: Bad rows, and all rows that were read.
            are_all: Whether those are all rows of the corpus.
        """
        if are_all and num_bad == num_rows > 0:
            return not self.bears_all
        if self.count is not None:
            return num_bad > self.count
        if num_bad <= self.share * num_rows:
            return False
        return num_bad >= PASSING_BAD_ROWS and (are_all or num_rows >= JUDGED_ROWS)


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Which part of a corpus is read, and how it is cut into shards.

    Attributes:
        text_files: How its text files are written.
    """

    text_column: str = field(default="text", metadata=option("column with the text"))
    text_pair_column: str | None = field(
        default=None,
        metadata=option("column with the second text, where the bundle reads pairs (none)"),
    )
    keep_columns: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "columns to pass through to the predictions; * is all, __file__ and __row__ are where "
            "a row is from; repeat it for names with commas (none)",
            metavar="A,B",
        ),
    )
    limit: int | None = field(
        default=None, metadata=option("only the first rows of the corpus (all)", metavar="ROWS")
    )
    shard_seconds: float | None = field(
        default=None,
        metadata=option("predicted core-seconds of a shard (2 to 20, by the size of the corpus)"),
    )
    skip_unreadable_files: bool = field(
        default=False, metadata=option("leave out files that cannot be read or lack a column")
    )
    max_bad_rows: str = field(
        default="1%",
        metadata=option(
            "end with what is wrong when more rows than this cannot be scored, a number or a share "
            f"such as 5%; a share is judged from {JUDGED_ROWS:,} rows on and at the end, and fewer "
            f"than {PASSING_BAD_ROWS} bad rows pass unless all are bad",
            metavar="N|SHARE",
        ),
    )
    binary_text: bool = field(
        default=False, metadata=option("read Parquet columns of bytes as text in UTF-8")
    )
    text_files: TextFileConfig = PLAIN_TEXT_FILES

    def __post_init__(self) -> None:
        check_at_least(self, 1, "limit")
        check_positive(self, "shard_seconds")
        is_limit = BadRowLimit.parse(self.max_bad_rows) is not None
        check_option(
            self, "max_bad_rows", is_limit, "a number of rows, or a share such as 5% or 0.05"
        )

    @property
    def bad_row_limit(self) -> BadRowLimit:
        """How many rows may be bad."""
        limit = BadRowLimit.parse(self.max_bad_rows)
        assert limit is not None, "checked when it was set"
        return limit

    @property
    def read_options(self) -> ReadOptions:
        """How the files are read."""
        return ReadOptions(
            skip_unreadable=self.skip_unreadable_files,
            binary_text=self.binary_text,
            text_files=self.text_files,
        )


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """What scores; a part of a run's identity, because it decides predictions."""

    device: Literal["cpu", "cuda", "mixed"] = field(
        default="cpu",
        metadata=option(
            "who scores: actors on CPU cores, on GPUs (cores then tokenize for them), or both"
        ),
    )
    precision: Literal["int8", "int8-dynamic", "float16", "float32"] | None = field(
        default=None,
        metadata=option(
            "graph of the bundle that all actors run (int8 on cores, float16 on GPUs, as far as "
            "the bundle has them)"
        ),
    )

    @property
    def uses_gpus(self) -> bool:
        """Whether actors on GPUs score."""
        return self.device != "cpu"


SCORING_ON_CORES = ScoringSettings()


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What is written of each prediction, and what it is compared with."""

    columns: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "columns of predictions to write, of label, probability, probabilities, logits and "
            "top_k=N where there is one label; labels, probabilities, logits and top_k=N where "
            "there are several; score or embedding for other tasks (label,probability; "
            "labels,probabilities; score; embedding)",
            metavar="A,B",
        ),
    )
    label_column: str | None = field(
        default=None,
        metadata=option(
            "column of the corpus with the right labels: the report then has the task's metric and "
            "what was taken for what (none)",
            metavar="NAME",
        ),
    )


ITS_TASKS_COLUMNS = PredictionSettings()


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Which rows a second bundle scores, too, so that a run says what it loses on this corpus."""

    share: float | None = field(
        default=None,
        metadata=option(
            "share of the rows, drawn at random, that --audit-bundle scores, too: the report then "
            "has how much both agree on this corpus, with its 95% interval and its cost (none)",
            metavar="SHARE",
            name="audit",
        ),
    )
    bundle: str | None = field(
        default=None,
        metadata=option(
            "bundle that scores them, such as float32 of the teacher; of the same task, labels and "
            "tokenizer (none)",
            metavar="DIR",
            name="audit_bundle",
        ),
    )
    min_agreement_percent: float | None = field(
        default=None,
        metadata=option(
            "exit with status 1 where even the upper end of the interval is below this; the "
            "predictions are kept (none)",
            metavar="PERCENT",
            name="audit_min_agreement",
        ),
    )

    def __post_init__(self) -> None:
        share, percent = self.share, self.min_agreement_percent
        check_option(self, "share", share is None or 0 < share <= 1, "a share above 0, at most 1")
        is_percent = percent is None or 0 < percent <= 100
        check_option(self, "min_agreement_percent", is_percent, "percent, above 0 and at most 100")

    @property
    def min_agreement(self) -> float | None:
        """The least agreement that is borne, 0-1."""
        percent = self.min_agreement_percent
        return None if percent is None else percent / 100


NO_AUDIT = AuditSettings()


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """Who does the work; none of this changes a prediction.

    Attributes:
        cores_per_actor: Physical cores of each actor; None to measure which split scores fastest,
            which a run that only prepares refuses. Its flag is made by hand, because not every
            command can measure.
    """

    num_actors: int | None = field(
        default=None,
        metadata=option("actors that score, over all nodes, those on GPUs first (as many as fit)"),
    )
    num_nodes: int | None = field(
        default=None, metadata=option("nodes to use at once (all that have room)")
    )
    cores_per_actor: int | None = 1
    actors_per_gpu: int = field(
        default=1,
        metadata=option(
            "actors that share a GPU; each owns cores near it, too, as many as other actors"
        ),
    )
    oversubscribe: bool = field(default=False, metadata=option("let actors share cores"))
    address: str | None = field(
        default=None,
        metadata=option(
            "HOST:PORT of a Ray cluster, auto for the one on this machine, or local for an own one "
            "(RAY_ADDRESS, else auto if one runs, else local)",
            metavar="ADDRESS",
        ),
    )
    timeout_s: float | None = field(
        default=None,
        metadata=option("seconds that a shard may take (30 times its prediction, at least 300)"),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_actors", "num_nodes", "cores_per_actor", "actors_per_gpu")
        check_positive(self, "timeout_s")
