"""Settings of a compression: one frozen config for each stage, composed into a recipe.

    flags, or one step of a search -> [recipe_config] -> stages -> run_recipe

A setting is spelled once, here: the flags of `fastformers compress` are made from these fields, and
the kept result of a stage is named by a digest of its config. The meaning of a field stands beside
it. This module does not import torch, so that the command can show its flags without loading it.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fastformers.compression.token_config import TokenConfig
from fastformers.errors import InputError
from fastformers.models.training_config import TrainingConfig
from fastformers.models.variants.token_reduction import PoolHow
from fastformers.options import (
    check_at_least,
    check_option,
    check_positive,
    flag_of,
    option,
)

Budget = Literal["uniform", "latency"]
# The last is two graphs in one bundle.
Precision = Literal["int8", "int8-dynamic", "float16", "float32", "int8,float16"]


@dataclass(frozen=True, kw_only=True)
class TrimConfig:
    """Size of the vocabulary that stays."""

    trim_vocabulary: int | None = field(
        default=None,
        metadata=option(
            "largest size of the vocabulary; the most frequent tokens stay (all)", metavar="TOKENS"
        ),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 1, "trim_vocabulary")


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """Starting point of a student: a checkpoint of its own, or part of the teacher."""

    student: Path | None = field(
        default=None,
        metadata=option("directory of a checkpoint to distill into (none)", metavar="DIR"),
    )
    student_layers: int | None = field(
        default=None,
        metadata=option(
            "number of the teacher's layers that the student keeps; 0 for static vectors of tokens "
            "and a head on their mean (all)"
        ),
    )
    student_width: int | None = field(
        default=None,
        metadata=option(
            "number of the teacher's hidden dimensions that the student keeps; of static vectors, "
            "their number of values (all)"
        ),
    )
    keep_gelu: bool = field(
        default=False, metadata=option("keep GELU in the student instead of replacing it by ReLU")
    )
    pool_tokens: int | None = field(
        default=None,
        metadata=option(
            "number of neighboring tokens that the student pools into one, all but the first token "
            "(none)"
        ),
    )
    pool_how: PoolHow = field(
        default="mean", metadata=option("mean or maximum of the tokens that are pooled")
    )
    pool_before_layer: int = field(
        default=1,
        metadata=option("layer (from 0) that is the first to get pooled tokens", metavar="LAYER"),
    )

    def __post_init__(self) -> None:
        check_at_least(self, 0, "student_layers", "pool_before_layer")
        check_at_least(self, 1, "student_width")
        check_at_least(self, 2, "pool_tokens")
        if self.student is not None and (self.student_layers, self.student_width) != (None, None):
            raise InputError("--student is a model of its own; leave --student-layers/-width out")

    @property
    def is_wanted(self) -> bool:
        """Whether there is a student to distill."""
        origins = (self.student, self.student_layers, self.student_width, self.pool_tokens)
        return origins != (None, None, None, None)

    @property
    def is_static(self) -> bool:
        """Whether the student has no layers, only static vectors of tokens."""
        return self.student_layers == 0


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Losses and training of a student.

    Hidden states help most where rows are few, because every token gives a signal, not only the
    row. They are kept in a file of tokens x width x 2 bytes for each layer.

    Attributes:
        training: Epochs, learning rate and batches.
    """

    training: TrainingConfig = field(
        default=TrainingConfig(epochs=3.0, learning_rate=None, batch_rows=None)
    )
    temperature: float = field(
        default=2.0, metadata=option("temperature of both softmaxes in the loss on teacher outputs")
    )
    hard_weight: float = field(
        default=0.5,
        metadata=option(
            "share (0-1) of the loss on labels; the rest is on teacher outputs", metavar="SHARE"
        ),
    )
    hidden_weight: float = field(
        default=10.0,
        metadata=option("weight of the squared error of hidden states; 0 keeps no file of them"),
    )
    attention_weight: float = field(
        default=0.0, metadata=option("weight of the squared error of a token's attention")
    )

    def __post_init__(self) -> None:
        check_positive(self, "temperature")
        check_option(self, "hard_weight", 0 <= self.hard_weight <= 1, "0 to 1")
        check_at_least(self, 0, "hidden_weight", "attention_weight")

    def settled(self, *, is_static: bool) -> "DistillConfig":
        """The same, with a learning rate and batches that suit the student where none are given.

        Static vectors need steps a hundred times as large as layers do: most tokens are in few
        rows, so that their vectors are seldom moved (Banking77, three epochs: 91.95 by these).
        """
        training = (
            self.training.filled(learning_rate=1e-2, batch_rows=64)
            if is_static
            else self.training.filled(learning_rate=8e-5, batch_rows=32)
        )
        return replace(self, training=training)


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """How much of the layers to prune, and in how many rounds."""

    prune_heads: float = field(
        default=0.0,
        metadata=option("share (0-1) of attention heads to remove", metavar="SHARE"),
    )
    prune_ffn: float = field(
        default=0.0,
        metadata=option("share (0-1) of feed-forward neurons to remove", metavar="SHARE"),
    )
    prune_budget: Budget = field(
        default="uniform",
        metadata=option(
            "uniform: each layer loses the same share; latency: as fast as that by this machine's "
            "own table of times, but each layer keeps what its outputs need most"
        ),
    )
    prune_multiple_of: int = field(
        default=16,
        metadata=option("feed-forward widths become multiples of this", metavar="NEURONS"),
    )
    prune_rounds: int = field(
        default=1, metadata=option("rounds of measuring importance, pruning and distillation")
    )
    prune_epochs: float = field(
        default=2.0,
        metadata=option("epochs of distillation after each round, to recover; 0 leaves it out"),
    )
    prune_without_labels: bool = field(
        default=False, metadata=option("measure importance on texts alone, without their labels")
    )

    def __post_init__(self) -> None:
        for name in ("prune_heads", "prune_ffn"):
            share = getattr(self, name)
            check_option(self, name, 0 <= share < 1, "a share from 0 to below 1")
        check_at_least(self, 1, "prune_multiple_of", "prune_rounds")
        check_at_least(self, 0, "prune_epochs")

    @property
    def is_wanted(self) -> bool:
        """Whether anything is pruned."""
        return self.prune_heads > 0 or self.prune_ffn > 0


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """Precision that the graph computes in."""

    precision: Precision = field(
        default="int8",
        metadata=option(
            "int8: for CPUs, ranges observed on training rows; int8-dynamic: ranges of each batch, "
            "so that a row's score depends on the rows beside it; float16: for GPUs; float32: the "
            "tuned graph alone; int8,float16: both graphs in one bundle, for CPUs and GPUs",
            metavar="NAME",
        ),
    )
    # The agreement is measured on few rows, and where none are set apart on training rows, where a
    # model is surer than on new ones: the default is a little above what a bundle should reach.
    min_int8_agreement: float = field(
        default=99.0,
        metadata=option(
            "keep projections in float until int8 agrees with the float model on this share of "
            "the rows that choose; 0 for all in int8",
            metavar="PERCENT",
        ),
    )

    def __post_init__(self) -> None:
        check_option(self, "min_int8_agreement", 0 <= self.min_int8_agreement <= 100, "0 to 100")

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precision of each graph of the bundle, the one that it is named after first."""
        return tuple(self.precision.split(","))

    @property
    def is_dynamic(self) -> bool:
        """Whether activation ranges are taken from the batch at hand."""
        return self.precision == "int8-dynamic"


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """Settings of a whole recipe.

    Attributes:
        trim: Size of the vocabulary that stays.
        student: Starting point of the student, if there is one.
        distill: Training of the student, and of a pruned model that recovers.
        prune: How much is pruned, if anything.
        tokens: How many tokens the layers pass on.
        quantize: Precision that the graph computes in.
    """

    trim: TrimConfig = TrimConfig()
    student: StudentConfig = StudentConfig()
    distill: DistillConfig = DistillConfig()
    prune: PruneConfig = PruneConfig()
    tokens: TokenConfig = field(default=TokenConfig())
    quantize: QuantizeConfig = QuantizeConfig()

    def __post_init__(self) -> None:
        for flag, is_wanted in (
            ("--keep-tokens", self.tokens.is_wanted),
            ("--pool-tokens", self.student.pool_tokens is not None),
        ):
            if is_wanted and self.distill.attention_weight:
                raise InputError(
                    f"--attention-weight {self.distill.attention_weight:g}: with {flag} there are "
                    "fewer tokens than the teacher's attention has; leave it out"
                )
        if self.prune.prune_budget == "latency" and self.quantize.precisions[0] == "float16":
            raise InputError(
                "--prune-budget latency measures this machine's CPU, and --precision float16 is "
                "for GPUs: give --prune-budget uniform, or --precision int8,float16"
            )
        if self.student.is_static:
            self._refuse_what_needs_layers()

    @property
    def has_student(self) -> bool:
        """Whether a smaller model than the teacher comes out."""
        return self.student.is_wanted or self.prune.is_wanted or self.tokens.is_wanted

    def _refuse_what_needs_layers(self) -> None:
        for flag, is_wanted in (
            ("--prune-heads", self.prune.prune_heads),
            ("--prune-ffn", self.prune.prune_ffn),
            ("--keep-tokens", self.tokens.is_wanted),
            ("--pool-tokens", self.student.pool_tokens),
        ):
            if is_wanted:
                what = "to prune" if "prune" in flag else "between which tokens could go"
                raise InputError(
                    f"{flag}: --student-layers 0 leaves no layers {what}; leave one of the two out"
                )

    def refuse_what_a_search_decides(self) -> None:
        """Raise unless everything that a search varies has its default.

        Raises:
            InputError: A field fixes what a search varies; names the flag.
        """
        for config, names in (
            (self.student, ("student", "student_layers", "student_width", "pool_tokens")),
            (self.prune, ("prune_heads", "prune_ffn")),
            (self.tokens, ("keep_tokens",)),
            (self.quantize, ("precision",)),
        ):
            for name in names:
                value = getattr(config, name)
                if value != getattr(type(config), name):
                    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                    raise InputError(
                        f"{flag_of(name)} {shown}: --search decides it; leave one of the two out"
                    )
