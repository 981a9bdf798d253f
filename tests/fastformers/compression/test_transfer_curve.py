"""Quality of a recipe by number of texts without labels."""

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression import transfer_curve
from fastformers.compression.recipe_config import DistillConfig, PruneConfig, RecipeConfig
from fastformers.compression.transfer_curve import CurvePoint, judge_curve, measure_curve
from fastformers.data.examples import Examples
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.models.training_config import TrainingConfig

TEXTS = [f"text {n}" for n in range(8)]


def quality(value, *, metric="accuracy", num_rows=1000):
    return StageQuality(
        stage="quantize",
        quality=value,
        agreement=0.9,
        num_rows=num_rows,
        model_bytes=1,
        seconds=1.0,
        metric=metric,
    )


def test_the_recipe_runs_on_growing_parts_and_the_whole_is_not_run_again(monkeypatch):
    seen = []

    def run_recipe(teacher, stages, gate, *, on_progress):
        return None, [quality(0.0), quality(0.5 + len(stages) / 10)]

    def plan_stages(config, part):
        texts = part.texts if part else []
        steps.append((12 + len(texts)) * config.distill.training.epochs)
        assert config.prune.prune_epochs == 2 * config.distill.training.epochs
        return texts

    steps = []
    monkeypatch.setattr(transfer_curve, "plan_stages", plan_stages)
    monkeypatch.setattr(transfer_curve, "run_recipe", run_recipe)
    training = TrainingConfig(epochs=1.5, learning_rate=1e-4)
    recipe = RecipeConfig(
        distill=DistillConfig(training=training), prune=PruneConfig(prune_epochs=3)
    )
    transfer = Examples(texts=TEXTS, text_pairs=None, labels=[None] * 8)
    points = measure_curve(
        SimpleNamespace(train=range(12)),
        recipe,
        SimpleNamespace(),
        transfer,
        whole=quality(0.95),
        on_point=seen.append,
    )
    assert points == seen
    assert steps == pytest.approx([20 * 1.5] * 3)
    assert [point.num_texts for point in points] == [0, 2, 4, 8]
    assert [point.quality.quality for point in points] == [0.5, 0.7, 0.9, 0.95]
    found = points[1].describe()
    assert found["low"] < found["quality"] == 0.7 < found["high"]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (quality(0.85), r"by \+5\.00, more than the 2\.21 points .*: more texts may bring more"),
        (quality(0.81), r"by \+1\.00, within the 2\.43 points .*: more texts need not bring more"),
        (quality(0.79), r"by -1\.00, within the 2\.52 points .*: more texts need not bring more"),
        (quality(0.75), r"by -5\.00, more than the 2\.68 points .*: more texts may harm"),
        (quality(0.85, metric="micro-F1"), r"from 4 to 8 texts micro-F1 changed by \+5\.00"),
    ],
)
def test_the_last_doubling_is_judged_by_what_chance_does(last, said):
    points = [CurvePoint(num_texts=4, quality=quality(0.8)), CurvePoint(num_texts=8, quality=last)]
    assert re.search(f"{said}$", judge_curve(points))
