"""Measure what texts without labels bring: the same recipe with none, some and all of them.

    recipe + transfer sample -> [transfer_curve] -> quality by number of texts -> bundle.json

Each point is a training of its own, to its end: a student that has seen a part of its texts on the
way is one whose learning rate has not fallen yet, and says too little of more texts. All take as
many steps, those with fewer texts in more epochs, so that texts are compared and not the length of
the training. The smaller samples are parts of the larger ones, with the same spread of lengths.
Their stages are kept, so that an interrupted curve goes on. The evaluation rows choose nothing
here, so no point is better than it will be on other rows. This module knows nothing of what stages
do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.quality import Certainty, QualityGate
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.stages.plan import plan_stages
from fastformers.data.examples import Examples
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.models.forward import OnProgress

C = TypeVar("C")

# Parts of the sample below the whole. Quality grows about as much with each doubling, if at all.
SHARES = (0.0, 0.25, 0.5)


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A model that learned from so many texts without labels, beside all with labels.

    Attributes:
        num_texts: Number of texts.
        quality: Quality after the last stage.
        certainty: How sure that is.
    """

    num_texts: int
    quality: StageQuality
    certainty: Certainty

    def describe(self) -> dict[str, Any]:
        """The point as JSON holds it: quality, its 95% interval and agreement, at most 1."""
        interval = self.quality.interval
        return {
            "texts": self.num_texts,
            "quality": self.quality.quality,
            **({} if interval is None else dict(zip(("low", "high"), interval, strict=True))),
            "agreement": self.quality.agreement,
        }


def measure_curve(
    teacher: ModelArtifact,
    config: RecipeConfig,
    gate: QualityGate,
    transfer: Examples,
    *,
    whole: tuple[ModelArtifact, StageQuality],
    on_point: Callable[[CurvePoint], None] = lambda point: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[CurvePoint]:
    """Run a recipe on growing parts of a transfer sample.

    Args:
        teacher: The artifact that the recipe begins with.
        config: The recipe.
        gate: Measure of quality.
        transfer: The sample, any first of whose texts are a sample, too.
        whole: Result of the recipe with all of it, and its quality after the last stage.
        on_point: Called with each point as it is measured.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The points, from no text to all.
    """
    points: list[CurvePoint] = []

    def add(num_texts: int, artifact: ModelArtifact, quality: StageQuality) -> None:
        certainty = gate.certainty(gate.outputs(quality.stage, artifact))
        points.append(CurvePoint(num_texts=num_texts, quality=quality, certainty=certainty))
        on_point(points[-1])

    num_labeled = len(teacher.train)
    for num_texts in sorted({round(share * len(transfer)) for share in SHARES}):
        part = transfer.take(range(num_texts)) if num_texts else None
        times = (num_labeled + len(transfer)) / (num_labeled + num_texts)
        stages = plan_stages(_lengthen(config, times), part)
        artifact, qualities = run_recipe(teacher, stages, gate, on_progress=on_progress)
        add(num_texts, artifact, qualities[-1])
    add(len(transfer), *whole)
    return points


def _lengthen(config: C, times: float) -> C:
    """The same config with `times` as many epochs, wherever there are some in it."""
    changes: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = _lengthen(value, times)
        elif field.name.endswith("epochs"):
            changes[field.name] = value * times
    return replace(config, **changes)  # type: ignore[type-var]


def judge_curve(points: Sequence[CurvePoint]) -> str:
    """What the last doubling of the texts says of more of them, in one line.

    Both models are measured on the same rows, so their difference is surer than either of them.
    """
    before, last = points[-2:]
    gain = 100 * (last.quality.quality - before.quality.quality)
    low, high = last.certainty.gain_interval_over(before.certainty)
    said = (
        f"from {before.num_texts:,} to {last.num_texts:,} texts {last.quality.metric} changed by "
        f"{gain:+.2f} (95% interval {low:+.2f} to {high:+.2f})"
    )
    if last.certainty.is_within_noise_of(before.certainty):
        return f"{said}, within noise: more texts need not bring more"
    return f"{said}: more texts may {'bring more' if gain > 0 else 'harm'}"
