"""Measure the quality of a model, and check how far a smaller one is behind its teacher.

    logits + targets -> [quality] -> bundle.json, or QualityError

A model is judged by its measured quality, whatever the noise of the rows; how large that noise is
stands beside it. This module knows nothing of stages or of how a model was made.

Shape suffixes: N held-out rows, C outputs, R draws of the rows.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.atomic_file import whole_file
from fastformers.compression.artifact import ModelArtifact
from fastformers.data.examples import Examples
from fastformers.data.held_out import HeldOut, hold_out
from fastformers.data.resampling import Interval, interval_of, is_within_noise, resample_metric
from fastformers.errors import QualityError
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.models.forward import OnProgress
from fastformers.models.loading import label_names, task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of a model on some rows.

    Attributes:
        quality: Value of the task's metric (`Task.measure`), at most 1.
        agreement: Agreement with the teacher (`Task.measure_agreement`), at most 1.
        other_metrics: Further metrics that are shown beside it, by name.
    """

    quality: float
    agreement: float
    other_metrics: dict[str, float] = field(default_factory=dict)


def measure_quality(
    logits_NC: NDArray[np.float32],
    *,
    teacher_logits_NC: NDArray[np.float32],
    held_out: HeldOut,
) -> Quality:
    """Compare a model's outputs with the targets and with its teacher's outputs.

    Args:
        logits_NC: Outputs of the model.
        teacher_logits_NC: Outputs of the teacher.
        held_out: Targets of the rows.
    """
    return Quality(
        quality=held_out.measure(logits_NC, teacher_logits_NC),
        agreement=held_out.measure_agreement(logits_NC, teacher_logits_NC),
        other_metrics=held_out.measure_others(logits_NC),
    )


def quality_drop(quality: float, *, teacher_quality: float) -> float:
    """Points of 100 x the metric by which a quality (at most 1) is below the teacher's."""
    return round(100 * (teacher_quality - quality), 9)


@dataclass(frozen=True, kw_only=True, eq=False)
class Certainty:
    """How sure the quality of a model is, by 95% intervals over draws of the rows.

    Attributes:
        values_R: The metric on each draw.
        teacher_values_R: The teacher's on the same draws.
    """

    values_R: NDArray[np.float64]
    teacher_values_R: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        """Interval of the quality, at most 1."""
        return interval_of(self.values_R)

    @property
    def drop_interval(self) -> Interval:
        """Interval of the points of 100 x the metric that were lost."""
        return interval_of(100 * (self.teacher_values_R - self.values_R))

    @property
    def is_within_noise_of_teacher(self) -> bool:
        """Whether the rows cannot tell the model from its teacher."""
        return is_within_noise(self.values_R, self.teacher_values_R)

    def gain_interval_over(self, other: "Certainty") -> Interval:
        """Interval of the points above another model; both must be measured on the same rows."""
        return interval_of(100 * (self.values_R - other.values_R))

    def is_within_noise_of(self, other: "Certainty") -> bool:
        """Whether the rows cannot tell two models apart; both must be measured on the same."""
        return is_within_noise(self.values_R, other.values_R)

    def is_within_noise_of_drop(self, max_accuracy_drop: float) -> bool:
        """Whether the rows cannot tell that the loss is above or below a limit."""
        low, high = self.drop_interval
        return low <= max_accuracy_drop <= high


class QualityGate:
    """Held-out examples with the teacher's outputs, against which artifacts are measured.

    There is one of the selection rows, by which a search chooses, and one of the evaluation rows,
    which say how good the chosen one is.

    Attributes:
        examples: The examples, N rows.
        held_out: Their targets.
        max_accuracy_drop: Points of 100 x the task's metric that a recipe may cost.
        teacher: Quality of the teacher.
    """

    def __init__(
        self,
        teacher: ModelArtifact,
        examples: Examples,
        path: Path,
        *,
        max_accuracy_drop: float,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> None:
        """Run the teacher on the examples, unless its logits were kept.

        Args:
            teacher: The artifact that all later ones are compared with.
            examples: Held-out examples, N rows.
            path: The file that they come from, for messages.
            max_accuracy_drop: Points of 100 x the task's metric that a recipe may cost.
            on_progress: Called with rows done and in all.

        Raises:
            InputError: The labels do not match the model.
        """
        self.examples = examples
        self.max_accuracy_drop = max_accuracy_drop
        self._work = teacher.work
        names = label_names(teacher.model)
        self.held_out = hold_out(examples, task_of(teacher.model), names, path)
        self._teacher_logits_NC = self.outputs("teacher", teacher, on_progress)
        self.teacher = self.measure_logits(
            "teacher", self._teacher_logits_NC, model_bytes=_model_bytes(teacher), seconds=0.0
        )
        _warn_below_chance(self.held_out, self._teacher_logits_NC, names, path)

    def measure(
        self, stage: str, artifact: ModelArtifact, seconds: float, on_progress: OnProgress
    ) -> StageQuality:
        """Quality of an artifact that its stage took `seconds` to make."""
        outputs_NC = self.outputs(stage, artifact, on_progress)
        size = _model_bytes(artifact)
        return self.measure_logits(stage, outputs_NC, model_bytes=size, seconds=seconds)

    def outputs(
        self,
        stage: str,
        artifact: ModelArtifact,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> NDArray[np.float32]:
        """Outputs (N, C) for the examples of what a stage made; they are kept beside it."""
        kept = artifact.directory(stage) / f"logits-{self.examples.digest[:16]}.npy"
        if not kept.is_file():
            outputs_NC = artifact.logits(self.examples, on_progress)
            with whole_file(kept) as unfinished:
                np.save(unfinished, outputs_NC)
        kept_NC: NDArray[np.float32] = np.load(kept)
        return kept_NC

    def certainty(self, outputs_NC: NDArray[np.float32]) -> Certainty:
        """How sure the quality is of what gave these outputs for the examples."""
        values_R, teacher_values_R = (
            resample_metric(self.held_out, outputs, self._teacher_logits_NC)
            for outputs in (outputs_NC, self._teacher_logits_NC)
        )
        return Certainty(values_R=values_R, teacher_values_R=teacher_values_R)

    def drop(self, quality: StageQuality) -> float:
        """Points of 100 x the metric that were lost."""
        return quality_drop(quality.quality, teacher_quality=self.teacher.quality)

    def passes(self, quality: StageQuality) -> bool:
        """Whether no more was lost than allowed."""
        return self.drop(quality) <= self.max_accuracy_drop

    def check(self, quality: StageQuality) -> None:
        """Refuse a model that lost too much.

        Raises:
            QualityError: The model lost more than allowed.
        """
        if not self.passes(quality):
            raise QualityError(
                f"{quality.stage}: {quality.metric} {100 * quality.quality:.2f} is "
                f"{self.drop(quality):.2f} points below the teacher's "
                f"{100 * self.teacher.quality:.2f}, more than --max-accuracy-drop "
                f"{self.max_accuracy_drop:g}; allow more, or compress less{self.how_to_go_on}"
            )

    @property
    def how_to_go_on(self) -> str:
        """What is kept where no model passes, for the end of a message."""
        return (
            f"; the stages are kept in {self._work}: the same command with another "
            "--max-accuracy-drop, or with other settings of later stages, goes on from them"
        )

    def measure_logits(
        self, stage: str, logits_NC: NDArray[np.float32], *, model_bytes: int, seconds: float
    ) -> StageQuality:
        """Quality of what gave these logits for the held-out examples.

        Args:
            stage: Name of the stage that made it.
            logits_NC: Logits (N, C).
            model_bytes: Its size, weights included.
            seconds: Duration of the stage.
        """
        quality = measure_quality(
            logits_NC,
            teacher_logits_NC=self._teacher_logits_NC,
            held_out=self.held_out,
        )
        return StageQuality(
            stage=stage,
            quality=quality.quality,
            agreement=quality.agreement,
            num_rows=self.held_out.num_judged,
            model_bytes=model_bytes,
            seconds=seconds,
            metric=self.held_out.metric,
            other_metrics=quality.other_metrics,
        )


def warn_if_known(select: StageQuality, evaluated: StageQuality, path: Path) -> None:
    """Log one line where the teacher does better on selection rows than chance explains.

    Args:
        select: Its quality on the selection rows.
        evaluated: The same on the evaluation rows.
        path: The file that the selection rows come from.
    """
    if select.interval is None or evaluated.interval is None:
        return
    if select.interval[0] > evaluated.interval[1]:
        logger.warning(
            "%s: the teacher has %s %.2f on the rows that choose, and %.2f on the evaluation "
            "file: they are easier, or it was trained on them, and then others seem to lose more "
            "than they do; give rows that are new to it by --select, or make it by finetune, which "
            "sets the same rows of a file apart",
            path,
            select.metric,
            100 * select.quality,
            100 * evaluated.quality,
        )


def _warn_below_chance(
    held_out: HeldOut, teacher_logits_NC: NDArray[np.float32], names: tuple[str, ...], path: Path
) -> None:
    """Log one line where guessing would beat the teacher, as labels may be of other classes."""
    if held_out.task.targets != "class":
        return
    classes_N = teacher_logits_NC.argmax(axis=1)
    accuracy = float((classes_N == held_out.targets_N).mean())
    if accuracy >= 1 / len(names):
        return
    most = np.bincount(held_out.targets_N.astype(np.int64)).argmax()
    answer = np.bincount(classes_N[held_out.targets_N == most]).argmax()
    logger.warning(
        "%s: the teacher is right for %.1f%% of the rows, fewer than by chance (%.1f%%); most rows "
        "labeled %r are %r to it. If the labels mean other classes, give --label-map",
        path,
        100 * accuracy,
        100 / len(names),
        names[most],
        names[answer],
    )


def _model_bytes(artifact: ModelArtifact) -> int:
    if artifact.graph is not None:
        return measure_graph_bytes(artifact.graph)
    return sum(p.numel() * p.element_size() for p in artifact.model.parameters())
