"""A pruned model and one that drops tokens learn from the teacher, not from what they were."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.keep_tokens import keep_tokens
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import (
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.stages import model_stages, reducing_stages
from fastformers.compression.stages.plan import plan_stages
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Examples
from fastformers.models.variants.token_reduction import reduction_of

RECIPE = RecipeConfig(
    student=StudentConfig(student_layers=2),
    prune=PruneConfig(prune_ffn=0.5),
    tokens=TokenConfig(keep_tokens=("0.5",)),
    quantize=QuantizeConfig(precision="float32"),
)


@pytest.fixture
def artifact(make_teacher, tokenizer_json, make_texts, tmp_path):
    return ModelArtifact(
        key="teacher",
        model=make_teacher(labels=("no", "yes")),
        tokenizer_json=tokenizer_json,
        max_length=32,
        text_pairs=False,
        train=Examples(texts=make_texts(64, seed=1), text_pairs=None, labels=["no", "yes"] * 32),
        train_path=Path("train.csv"),
        work=tmp_path / "work",
    )


@pytest.fixture
def taught(monkeypatch):
    """Teacher, and directory of its outputs, of each training; nothing is trained."""
    lessons = []

    def note(student, teacher, rows, targets_N, *, outputs, checkpoints, **others):
        lessons.append((teacher, outputs))
        checkpoints.mkdir(parents=True)
        return student

    monkeypatch.setattr(model_stages, "distill", note)
    return lessons


def run(artifact, recipe):
    gate = QualityGate(artifact, artifact.train, Path("eval.csv"), max_accuracy_drop=100.0)
    return run_recipe(artifact, plan_stages(recipe, None), gate)[0]


def test_every_training_has_the_teacher_that_the_student_was_made_of(artifact, taught):
    run(artifact, RECIPE)
    assert [teacher for teacher, _ in taught] == [artifact.model] * 3
    assert len({outputs for _, outputs in taught}) == 1  # it reads the rows once


def test_it_is_the_teacher_also_where_the_stages_before_are_kept(artifact, taught):
    run(artifact, RECIPE)
    (kept,) = artifact.work.glob("keep_tokens-*")
    shutil.rmtree(kept)
    taught.clear()
    run(artifact, RECIPE)
    assert [teacher for teacher, _ in taught] == [artifact.model]


def test_without_a_student_it_is_the_model_before_it_was_pruned(artifact, taught):
    run(artifact, replace(RECIPE, student=StudentConfig()))
    assert [teacher for teacher, _ in taught] == [artifact.model] * 2


def test_rounds_that_were_finished_are_not_trained_again(artifact, taught, monkeypatch):
    prune = PruneConfig(prune_ffn=0.5, prune_multiple_of=1, prune_rounds=3)
    recipe = replace(RECIPE, student=StudentConfig(), prune=prune)
    widths = []

    def train(student, *arguments, checkpoints, **others):
        widths.append(student.config.pruned_layers[0]["ffn_width"])
        checkpoints.mkdir(parents=True, exist_ok=True)
        if len(widths) == 3:
            raise KeyboardInterrupt
        student.classifier.bias.data += 1  # what was learned
        return student

    monkeypatch.setattr(model_stages, "distill", train)
    with pytest.raises(KeyboardInterrupt):
        run(artifact, recipe)
    resumed = run(artifact, recipe).model
    first, second, third, *again = widths
    assert first > second > third
    assert again == [third, third]  # of the last round, and of the stage after it
    learned = resumed.classifier.bias - artifact.model.classifier.bias
    assert learned.tolist() == pytest.approx([4, 4])


def test_shares_that_were_chosen_are_those_of_every_attempt(artifact, taught, monkeypatch):
    recipe = replace(RECIPE, tokens=TokenConfig(keep_tokens=("auto",)))
    monkeypatch.setattr(reducing_stages, "choose_shares_for", lambda *_, **__: (0.7,))
    monkeypatch.setattr(reducing_stages, "keep_tokens", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(artifact, recipe)
    monkeypatch.setattr(reducing_stages, "keep_tokens", keep_tokens)
    # Another machine rounds otherwise, and would choose others.
    monkeypatch.setattr(reducing_stages, "choose_shares_for", lambda *_, **__: (0.6,))
    assert reduction_of(run(artifact, recipe).model.config).keep_shares == (0.7,)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_teacher_whose_vocabulary_was_trimmed_teaches_its_own_tokens(artifact, taught):
    run(artifact, replace(RECIPE, trim=TrimConfig(trim_vocabulary=90)))
    sizes = {teacher.config.vocab_size for teacher, _ in taught}
    assert len(taught) == 3
    assert sizes == {90}
