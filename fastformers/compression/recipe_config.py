"""Settings of a compression: one frozen config for each stage, composed into a recipe.

    flags, or one step of a search -> [recipe_config] -> stages -> run_recipe

A setting is spelled once, here: the flags of `fastformers compress` are made from these fields, and
the kept result of a stage is named by a digest of its config. The meaning of a field stands beside
it. This module does not import torch, so that the command can show its flags without loading it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastformers.atomic_file import check_writable
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Columns
from fastformers.data.training_files import TrainingFiles, load_training_files
from fastformers.errors import InputError
from fastformers.inference.bundle import check_output
from fastformers.models.model_files import check_model_directory, is_sentence_encoder
from fastformers.models.training_config import TrainingConfig
from fastformers.models.variants.token_reduction import PoolHow
from fastformers.options import (
    check_at_least,
    check_option,
    check_positive,
    flag_of,
    names_given,
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
        default=None, metadata=option("number of the teacher's layers that the student keeps (all)")
    )
    student_width: int | None = field(
        default=None,
        metadata=option("number of the teacher's hidden dimensions that the student keeps (all)"),
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
        check_at_least(self, 1, "student_layers", "student_width")
        check_at_least(self, 2, "pool_tokens")
        check_at_least(self, 0, "pool_before_layer")
        if self.student is not None and (self.student_layers or self.student_width):
            raise InputError("--student is a model of its own; leave --student-layers/-width out")

    @property
    def is_wanted(self) -> bool:
        """Whether there is a student to distill."""
        return bool(self.student or self.student_layers or self.student_width or self.pool_tokens)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Losses and training of a student.

    Hidden states help most where rows are few, because every token gives a signal, not only the
    row. They are kept in a file of tokens x width x 2 bytes for each layer.

    Attributes:
        training: Epochs, learning rate and batches.
    """

    training: TrainingConfig = field(default=TrainingConfig(epochs=3.0, learning_rate=8e-5))
    temperature: float = field(
        default=2.0, metadata=option("temperature of both softmaxes in the loss on teacher outputs")
    )
    hard_weight: float = field(
        default=0.5,
        metadata=option("share (0-1) of the loss on labels; the rest is on teacher outputs"),
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
            "int8: for CPUs, ranges fixed on training rows; int8-dynamic: ranges of each batch, so "
            "that a row's score depends on the rows beside it; float16: for GPUs; float32: the "
            "tuned graph alone; int8,float16: both graphs in one bundle, for CPUs and GPUs"
        ),
    )
    # The agreement is measured on training rows, where a model is surer than on new ones; so the
    # default is a little above the 98.5% that a bundle should reach.
    min_int8_agreement: float = field(
        default=99.0,
        metadata=option(
            "keep projections in float until int8 agrees with the float model on this share of "
            "training rows; 0 for all in int8",
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
        if self.prune.prune_budget == "latency" and self.quantize.precisions[0] == "float16":
            raise InputError(
                "--prune-budget latency measures this machine's CPU, and --precision float16 is "
                "for GPUs: give --prune-budget uniform, or --precision int8,float16"
            )
        for flag, is_wanted in (
            ("--keep-tokens", self.tokens.is_wanted),
            ("--pool-tokens", self.student.pool_tokens is not None),
        ):
            if is_wanted and self.distill.attention_weight:
                raise InputError(
                    f"--attention-weight {self.distill.attention_weight:g}: with {flag} there are "
                    "fewer tokens than the teacher's attention has; leave it out"
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


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """Settings of a compression: teacher, files, recipe and allowed loss.

    The teacher is a fine-tuned Hugging Face sequence classifier or multiple-choice model, or a
    sentence-transformers model, which needs no labels.

    Attributes:
        columns: Columns of the files.
        recipe: Settings of the stages; in a search, those that all candidates share.
    """

    teacher: Path = field(
        metadata=option(
            "Hugging Face or sentence-transformers directory, or org/name[@revision] of the hub"
        )
    )
    train: Path = field(metadata=option("labeled files to distill, rank and calibrate on"))
    eval: Path = field(metadata=option("labeled files that measure quality and nothing else"))
    output: Path = field(metadata=option("directory of the bundle"))
    work: Path | None = field(
        default=None,
        metadata=option(
            "keep the results of stages here, for other runs (removed at the end)", metavar="DIR"
        ),
    )
    transfer: Path | None = field(
        default=None,
        metadata=option("files of further, unlabeled texts to distill on (none)", metavar="FILE"),
    )
    columns: Columns = field(default=Columns())
    label_names: tuple[str, ...] = field(
        default=(),
        metadata=option(
            "names of the bundle's labels in the order of the teacher's outputs, in place of 0 or "
            "LABEL_0; repeat it for names with commas (the teacher's own)",
            metavar="A,B",
        ),
    )
    max_length: int | None = field(
        default=None, metadata=option("tokens to truncate to (the teacher's limit)")
    )
    eval_limit: int | None = field(
        default=None,
        metadata=option("number of rows to evaluate on, evenly spaced (all)", metavar="ROWS"),
    )
    max_accuracy_drop: float | None = field(
        default=None,
        metadata=option(
            "points of 100 x the task's metric that may be lost; no bundle is written if more is "
            "(1 for one recipe; a search has no default)",
            metavar="POINTS",
        ),
    )
    search: bool = field(
        default=False,
        metadata=option(
            "search for the cheapest recipe that loses no more than --max-accuracy-drop: students "
            "of fewer and fewer layers, then pruned, in int8"
        ),
    )
    recipe: RecipeConfig = RecipeConfig()

    def __post_init__(self) -> None:
        check_at_least(self, 4, "max_length")
        check_at_least(self, 1, "eval_limit")
        check_at_least(self, 0, "max_accuracy_drop")
        object.__setattr__(self, "label_names", names_given(self.label_names))
        if self.search:
            if self.max_accuracy_drop is None:
                raise InputError("--search: give --max-accuracy-drop, the points that may be lost")
            self.recipe.refuse_what_a_search_decides()

    def load_files(self) -> TrainingFiles:
        """Read the labeled files, after a look at output and teacher: all that needs no torch.

        Raises:
            InputError: The output holds something else, the teacher is no model's directory, or a
                file cannot be used.
        """
        check_output(self.output)
        check_writable(self.output)
        check_writable(self.work_directory)
        check_model_directory(self.teacher)
        if self.recipe.student.student is not None:
            check_model_directory(self.recipe.student.student)
        return load_training_files(
            self.train,
            self.eval,
            self.transfer,
            self.columns,
            has_labels=not is_sentence_encoder(self.teacher),
            eval_limit=self.eval_limit,
        )

    @property
    def allowed_drop(self) -> float:
        """Points of 100 x the task's metric that may be lost."""
        return 1.0 if self.max_accuracy_drop is None else self.max_accuracy_drop

    @property
    def work_directory(self) -> Path:
        """Directory for the results of stages; if unset, one beside the output while it is made."""
        return self.work or self.output.with_name(f".{self.output.name}.work")
