"""What a recipe may do to a teacher, and the stages that follow from it.

flags, or one step of a search -> RecipeConfig -> [recipe_config] -> stages -> run_recipe
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.distill import DistillConfig
from fastformers.compression.prune import measure_importance
from fastformers.compression.pruning_plan import Budget, check_share
from fastformers.compression.recipe import Stage
from fastformers.compression.stages import (
    IMPORTANCE_ROWS,
    distill_stage,
    export_stage,
    float16_stage,
    prune_stage,
    quantize_stage,
    trim_vocabulary_stage,
)
from fastformers.compression.student import cut_layers, cut_width, load_student, spread_layers
from fastformers.data.examples import Examples
from fastformers.errors import InputError
from fastformers.export.calibration import MIN_AGREEMENT
from fastformers.models.trainer import TrainingConfig

Precision = Literal["int8", "int8-dynamic", "float16", "float32"]


def _default_distill() -> DistillConfig:
    return DistillConfig(training=TrainingConfig(epochs=3, learning_rate=8e-5))


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """Which stages to run, and how far.

    Attributes:
        trim_vocabulary: Words to keep in the vocabulary; None for all.
        student: Directory of a checkpoint to distill into; None to cut the student from the
            teacher, if it is to have fewer layers or dimensions.
        student_layers: Layers of the teacher to keep.
        student_width: Hidden dimensions of the teacher to keep.
        use_relu: Whether a student has ReLU for GELU.
        distill: How a student learns.
        prune_heads, prune_ffn: Shares (0-1) to remove.
        prune_budget: Whether each layer loses the same share.
        prune_multiple_of: Feed-forward widths become multiples of it.
        prune_rounds: Rounds of importance, pruning and distillation.
        prune_labels: Whether importance is measured on labels.
        prune_epochs: Epochs of distillation after each round; 0 leaves it out.
        precision: "int8"; "int8-dynamic", whose scores depend on the batch; "float16" for GPUs; or
            "float32" for the tuned graph alone.
        min_int8_agreement: Percent of calibration rows on which int8 must agree with the float
            model; what it would spoil stays in float until it does.
    """

    trim_vocabulary: int | None = None
    student: Path | None = None
    student_layers: int | None = None
    student_width: int | None = None
    use_relu: bool = True
    distill: DistillConfig = field(default_factory=_default_distill)
    prune_heads: float = 0.0
    prune_ffn: float = 0.0
    prune_budget: Budget = "uniform"
    prune_multiple_of: int = 16
    prune_rounds: int = 1
    prune_labels: bool = True
    prune_epochs: float = 2.0
    precision: Precision = "int8"
    min_int8_agreement: float = 100 * MIN_AGREEMENT

    def __post_init__(self) -> None:
        check_share("--prune-heads", self.prune_heads)
        check_share("--prune-ffn", self.prune_ffn)
        if self.student is not None and (self.student_layers or self.student_width):
            raise InputError("--student is a model of its own; leave --student-layers/-width out")
        for flag, value in (
            ("--student-layers", self.student_layers),
            ("--student-width", self.student_width),
            ("--prune-multiple-of", self.prune_multiple_of),
            ("--prune-rounds", self.prune_rounds),
        ):
            if value is not None and value < 1:
                raise InputError(f"{flag} {value}: give at least 1")
        if not 0 <= self.min_int8_agreement <= 100:
            raise InputError(f"--min-int8-agreement {self.min_int8_agreement:g}: give 0 to 100")
        if self.prune_epochs < 0:
            raise InputError(f"--prune-epochs {self.prune_epochs:g}: give 0 or more")

    @property
    def has_student(self) -> bool:
        """Whether there is a student to distill."""
        return bool(self.student or self.student_layers or self.student_width)

    @property
    def prunes(self) -> bool:
        """Whether anything is pruned."""
        return self.prune_heads > 0 or self.prune_ffn > 0


def plan_stages(config: RecipeConfig, transfer: Examples | None) -> list[Stage]:
    """The stages of a recipe, in order."""
    stages = []
    if config.trim_vocabulary is not None:
        stages.append(trim_vocabulary_stage(config.trim_vocabulary))
    if config.has_student:
        stages.append(
            distill_stage(
                lambda artifact: _make_student(config, artifact),
                student=f"{config.student} {config.student_layers} {config.student_width}",
                use_relu=config.use_relu,
                config=config.distill,
                transfer=transfer,
            )
        )
    if config.prunes:
        stages.append(
            prune_stage(
                heads=config.prune_heads,
                ffn=config.prune_ffn,
                budget=config.prune_budget,
                multiple_of=config.prune_multiple_of,
                num_rounds=config.prune_rounds,
                use_labels=config.prune_labels,
                config=_redistill(config),
                transfer=transfer,
            )
        )
    stages.append(export_stage())
    if config.precision in ("int8", "int8-dynamic"):
        stages.append(
            quantize_stage(
                dynamic=config.precision == "int8-dynamic",
                min_agreement=config.min_int8_agreement / 100,
            )
        )
    elif config.precision == "float16":
        stages.append(float16_stage())
    return stages


def _redistill(config: RecipeConfig) -> DistillConfig | None:
    """How to distill after pruning: the layers stay what they are, so only their number counts."""
    if config.prune_epochs == 0:
        return None
    training = {**asdict(config.distill.training), "epochs": config.prune_epochs}
    fields = {**vars(config.distill), "training": TrainingConfig(**training)}
    return DistillConfig(**fields)


def _make_student(config: RecipeConfig, artifact: ModelArtifact) -> PreTrainedModel:
    """Where the student starts: a checkpoint, or what is left of the teacher."""
    if config.student is not None:
        return load_student(config.student, artifact.model, artifact.tokenizer_json)
    model = artifact.model
    num_layers = config.student_layers or model.config.num_hidden_layers
    model = cut_layers(model, spread_layers(model.config.num_hidden_layers, num_layers))
    if config.student_width is not None:
        rows = artifact.tokenize(artifact.train.sample(IMPORTANCE_ROWS))
        model = cut_width(model, config.student_width, measure_importance(model, rows))
    return model
