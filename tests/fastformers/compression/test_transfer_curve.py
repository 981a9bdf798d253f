"""Quality of a recipe by number of texts without labels."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression import transfer_curve
from fastformers.compression.quality import Certainty
from fastformers.compression.recipe_config import DistillConfig, PruneConfig, RecipeConfig
from fastformers.compression.transfer_curve import CurvePoint, judge_curve, measure_curve
from fastformers.data.examples import Examples
from fastformers.data.held_out import HeldOut
from fastformers.data.resampling import resample_metric
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.tasks import TEXT_CLASSIFICATION
from fastformers.models.training_config import TrainingConfig

TEXTS = [f"text {n}" for n in range(8)]


NUM_ROWS = 1000
HELD_OUT = HeldOut(task=TEXT_CLASSIFICATION, targets_N=np.zeros(NUM_ROWS, np.int64))


def quality(value):
    return StageQuality(
        stage="quantize",
        quality=value,
        agreement=0.9,
        num_rows=NUM_ROWS,
        model_bytes=1,
        seconds=1.0,
    )


def point(num_texts, wrong):
    """A model that is wrong on these rows, and right on all others."""
    logits_NC = np.tile(np.array([1.0, 0.0], np.float32), (NUM_ROWS, 1))
    logits_NC[list(wrong), 1] = 2
    values_R = resample_metric(HELD_OUT, logits_NC, logits_NC)
    return CurvePoint(
        num_texts=num_texts,
        quality=quality(1 - len(wrong) / NUM_ROWS),
        certainty=Certainty(values_R=values_R, teacher_values_R=values_R),
    )


def test_the_recipe_runs_on_growing_parts_and_the_whole_is_not_run_again(monkeypatch):
    seen = []

    def run_recipe(teacher, stages, gate, *, on_progress):
        return f"of {len(stages)}", [quality(0.0), quality(0.5 + len(stages) / 10)]

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
        SimpleNamespace(
            outputs=lambda stage, artifact: f"{stage} {artifact}",
            certainty=lambda outputs: outputs,
        ),
        transfer,
        whole=("of all", quality(0.95)),
        on_point=seen.append,
    )
    assert points == seen
    assert steps == pytest.approx([20 * 1.5] * 3)
    assert [point.num_texts for point in points] == [0, 2, 4, 8]
    assert [point.quality.quality for point in points] == [0.5, 0.7, 0.9, 0.95]
    artifacts = ["of 0", "of 2", "of 4", "of all"]
    assert [point.certainty for point in points] == [f"quantize {one}" for one in artifacts]
    found = points[1].describe()
    assert found["low"] < found["quality"] == 0.7 < found["high"]


@pytest.mark.parametrize(
    ("before", "last", "said"),
    [
        # Of the rows that either is wrong on, the other one is wrong on most, too.
        (
            range(200),
            range(185),
            r"\+1\.50 \(95% interval \+0\.\d\d to \+2\.\d\d\): .* may bring more",
        ),
        (
            range(200),
            range(230),
            r"-3\.00 \(95% interval -4\.\d\d to -2\.\d\d\): more texts may harm",
        ),
        # What each is wrong on, the other one is right on.
        (
            range(200),
            range(185, 370),
            r"\+1\.50 \(.*\), within noise: more texts need not bring more",
        ),
        (range(2), range(10, 18), r"-0\.60 \(.*\), within noise: more texts need not bring more"),
        (range(200), range(200), r"\+0\.00 \(.*\), within noise: more texts need not bring more"),
    ],
)
def test_the_last_doubling_is_judged_row_by_row(before, last, said):
    points = [point(0, range(400)), point(4, before), point(8, last)]
    assert re.search(f"^from 4 to 8 texts accuracy changed by {said}$", judge_curve(points))
