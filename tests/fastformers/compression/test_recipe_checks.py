"""What cannot be made of a teacher is refused before anything is trained or measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.prune import prune_model
from fastformers.compression.pruning.pruning_plan import PruningPlan
from fastformers.compression.recipe_checks import check_recipe
from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    RecipeConfig,
    StudentConfig,
)
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Examples
from fastformers.errors import InputError
from fastformers.models.sentence_encoder import SentenceEncoder


@pytest.fixture
def teacher(make_teacher, tokenizer_json, make_texts, tmp_path):
    """Three layers of four heads and 64 neurons."""
    return ModelArtifact(
        key="teacher",
        model=make_teacher(num_hidden_layers=3, num_attention_heads=4),
        tokenizer_json=tokenizer_json,
        max_length=32,
        text_pairs=False,
        train=Examples(texts=make_texts(64), text_pairs=None, labels=["no"] * 64),
        train_path=Path("train.csv"),
        work=tmp_path / "work",
    )


def recipe(*, student=None, hard_weight=0.5, keep=(), **prune):
    return RecipeConfig(
        student=StudentConfig(**(student or {})),
        prune=PruneConfig(**prune),
        tokens=TokenConfig(keep_tokens=keep),
        distill=DistillConfig(hard_weight=hard_weight),
    )


def check(settings, teacher):
    check_recipe(settings, teacher, Path("my-model"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (recipe(student={"student_layers": 4}), "a student of 4 layers: its teacher has 3"),
        (
            recipe(student={"student_width": 20}),
            "hidden width 20: give a multiple of the head width 8 up to 32",
        ),
        (recipe(prune_ffn=0.5, prune_multiple_of=64), "nothing would be pruned: .* 4 heads and 64"),
        (
            recipe(student={"student_width": 8, "student_layers": 2}, prune_heads=0.5),
            "nothing would be pruned: a layer has 1 heads",
        ),
        (recipe(keep=(0.999,)), r"--keep-tokens 0\.999: no text loses a token"),
    ],
)
def test_what_no_student_or_layer_can_be_is_refused(teacher, settings, message):
    with pytest.raises(InputError, match=message):
        check(settings, teacher)


@pytest.mark.parametrize(
    "settings",
    [
        recipe(student={"student_layers": 3}),
        recipe(student={"student_width": 24}, prune_heads=0.01),
        recipe(prune_ffn=0.01, prune_multiple_of=63),
        recipe(prune_ffn=0.5, prune_multiple_of=64, prune_heads=0.1),
        recipe(keep=(0.9,)),
    ],
)
def test_what_can_be_made_is_not_refused(teacher, settings):
    check(settings, teacher)


def test_of_a_pruned_model_what_is_left_counts(teacher):
    heads = tuple(map(np.array, ([0, 1], [0, 1], [0, 1, 2])))
    plan = PruningPlan(heads=heads, neurons=(np.arange(64),) * 3)
    pruned = replace(teacher, model=prune_model(teacher.model, plan))
    check(recipe(prune_heads=0.5), pruned)  # the last layer has three heads of the two that stay
    with pytest.raises(InputError, match=r"nothing would be pruned: a layer has 3 heads"):
        check(recipe(prune_heads=0.25), pruned)
    with pytest.raises(InputError, match=r"nothing would be pruned: a layer has 2 heads"):
        check(recipe(student={"student_layers": 1}, prune_heads=0.25), pruned)


def test_a_checkpoint_is_looked_at_before_it_is_needed(teacher, save_teacher, tmp_path):
    own = {"student": {"student": save_teacher(tmp_path / "own", num_hidden_layers=1)}}
    check(recipe(**own), teacher)
    message = "nothing would be pruned: a layer has 2 heads and 64 neurons"
    with pytest.raises(InputError, match=message):
        check(recipe(**own, prune_ffn=0.5, prune_multiple_of=64), teacher)
    mpnet = save_teacher(tmp_path / "mpnet", "MPNet", max_position_embeddings=66)
    with pytest.raises(InputError, match="architecture 'mpnet' can be neither pruned nor cut"):
        check(recipe(student={"student": mpnet}, prune_heads=0.5), teacher)
    (mpnet / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"--student .*mpnet: no tokenizer\.json"):
        check(recipe(student={"student": mpnet}), teacher)


def test_an_embedder_has_no_labels_to_learn_from_alone(teacher):
    model = SentenceEncoder(teacher.model.base_model, pooling="mean").eval()
    embedder = replace(teacher, model=model)
    check(recipe(student={"student_layers": 0}), embedder)
    with pytest.raises(InputError, match="--hard-weight 1: my-model embeds texts"):
        check(recipe(student={"student_layers": 0}, hard_weight=1.0), embedder)
