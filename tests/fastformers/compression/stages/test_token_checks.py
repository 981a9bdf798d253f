import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra compress is not installed")

from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    RecipeConfig,
    StudentConfig,
)
from fastformers.compression.stages.token_checks import check_token_settings
from fastformers.compression.token_config import TokenConfig
from fastformers.errors import InputError
from fastformers.models.sentence_encoder import SentenceEncoder
from fastformers.models.variants.reduced_layers import change_reduction
from fastformers.models.variants.token_reduction import TokenPool, TokenReduction

POOL = TokenPool(before_layer=1, every=4, how="mean")


def recipe(keep=(), *, prune=0.0, attention=0.0, **student):
    return RecipeConfig(
        student=StudentConfig(**student),
        prune=PruneConfig(prune_heads=prune),
        tokens=TokenConfig(keep_tokens=keep),
        distill=DistillConfig(attention_weight=attention),
    )


def check(settings, model, lengths_N=None):
    check_token_settings(settings, model, Path("my-model"), lengths_N)


def reducing(model, **reduction):
    change_reduction(model, TokenReduction(**reduction))
    return model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            recipe((0.5, 0.5, 0.5)),
            r"^--keep-tokens 0\.5,0\.5,0\.5: of 3 layers, 2 may drop tokens \(of the last one, "
            r"only the first token is read anyway\); give no more than 2$",
        ),
        (
            recipe((0.5, 0.5), student_layers=2),
            "of 2 layers, 1 may drop tokens .* no more than 1$",
        ),
        (recipe(("auto",), student_layers=1), "of 1 layers, 0 may drop tokens .*; leave it out"),
        (recipe(pool_tokens=4, pool_before_layer=3), "--pool-before-layer 3: the student has 3"),
        (
            recipe((0.5,), pool_tokens=4),
            r"^--keep-tokens 0\.5: layer 0 drops tokens and stands before the pooling \(layer 1\)",
        ),
        (recipe(("auto",), pool_tokens=4, pool_before_layer=2), "3 layers, 0 may drop tokens"),
    ],
)
def test_what_the_student_cannot_do_is_said_before_it_is_there(make_teacher, settings, message):
    with pytest.raises(InputError, match=message):
        check(settings, make_teacher(num_hidden_layers=3))


@pytest.mark.parametrize(
    "settings",
    [
        recipe((0.5, 0.5)),
        recipe(("auto",)),
        recipe((1.0, 0.5), pool_tokens=4),
        recipe((0.5, 0.5), pool_tokens=2, pool_before_layer=0),
        recipe(pool_tokens=4, pool_before_layer=2),
    ],
)
def test_what_it_can_do_passes(make_teacher, settings):
    check(settings, make_teacher(num_hidden_layers=3))


def test_where_all_tokens_are_read_the_last_layer_may_drop_some(make_teacher):
    encoder = make_teacher(num_hidden_layers=2).base_model
    check(recipe((0.5, 0.5)), SentenceEncoder(encoder, pooling="mean"))
    with pytest.raises(InputError, match="of 2 layers, 1 may drop"):
        check(recipe((0.5, 0.5)), SentenceEncoder(encoder, pooling="first"))


@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2", "modernbert"])
def test_other_architectures_are_refused_by_name(make_model, model_type):
    refused = ((recipe((0.5,)), "--keep-tokens 0.5"), (recipe(pool_tokens=4), "--pool-tokens 4"))
    for settings, flag in refused:
        with pytest.raises(InputError, match=f"{flag}: architecture '{model_type}' can neither"):
            check(settings, make_model(model_type))


def test_a_student_of_its_own_is_asked_for_its_layers(make_teacher, save_teacher, tmp_path):
    path = save_teacher(tmp_path / "small", num_hidden_layers=2)
    settings = recipe((0.5, 0.5), student=path)
    with pytest.raises(InputError, match="of 2 layers, 1 may drop"):
        check(settings, make_teacher(num_hidden_layers=4))


@pytest.mark.parametrize(
    "settings", [recipe((0.5,)), recipe(prune=0.5), recipe(student_layers=1)], ids=str
)
def test_a_teacher_that_drops_tokens_teaches_nobody(make_teacher, settings):
    model = reducing(make_teacher(num_hidden_layers=3), keep_shares=(0.5,))
    with pytest.raises(InputError, match="my-model: drops tokens already"):
        check(settings, model)
    check(recipe(), model)  # it may be exported


def test_a_teacher_that_pools_teaches_students_that_pool_alike(make_teacher):
    model = reducing(make_teacher(num_hidden_layers=3), pool=POOL)
    check(recipe(prune=0.5), model)
    check(recipe((1.0, 0.5)), model)
    with pytest.raises(InputError, match="--pool-tokens 4: my-model pools tokens already"):
        check(recipe(pool_tokens=4), model)
    with pytest.raises(InputError, match="layer 0 drops tokens and stands before the pooling"):
        check(recipe((0.5,)), model)
    attention = replace(recipe(prune=0.5), distill=DistillConfig(attention_weight=1.0))
    with pytest.raises(InputError, match="--attention-weight 1: my-model drops or pools"):
        check(attention, model)


def test_a_student_of_its_own_is_asked_what_it_does_with_its_tokens(
    make_teacher, save_teacher, tmp_path
):
    def saved(name, **reduction):
        path = save_teacher(tmp_path / name, num_hidden_layers=3)
        settings = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(settings | reduction))
        return path

    teacher = make_teacher(num_hidden_layers=4)
    drops = saved("drops", keep_tokens=[0.5])
    pools = saved("pools", pool_tokens=vars(POOL))
    check(recipe(student=drops), teacher)  # it may learn, but what is made of it could not
    for settings in (recipe(prune=0.5, student=drops), recipe((0.5,), student=drops)):
        with pytest.raises(InputError, match="drops: drops tokens already"):
            check(settings, teacher)
    for path in (drops, pools):
        with pytest.raises(InputError, match=f"--attention-weight 1: .*{path.name} drops or pools"):
            check(recipe(attention=1.0, student=path), teacher)
    check(recipe((1.0, 0.5), student=pools), teacher)
    with pytest.raises(InputError, match=r"--pool-tokens 4: .*pools pools tokens already"):
        check(recipe(pool_tokens=4, student=pools), teacher)
    with pytest.raises(InputError, match="layer 0 drops tokens and stands before the pooling"):
        check(recipe((0.5,), student=pools), teacher)


def test_shares_by_which_no_text_loses_a_token_are_refused(make_teacher):
    model = make_teacher(num_hidden_layers=3)
    message = r"--keep-tokens 0\.9: no text loses a token: all are too short for these shares"
    with pytest.raises(InputError, match=message):
        check(recipe((0.9,)), model, np.array([3, 9]))
    check(recipe((0.9,)), model, np.array([3, 10]))
    with pytest.raises(InputError, match="no text loses a token"):
        check(recipe((1, 0.7), pool_tokens=4), model, np.array([5, 9]))
    check(recipe((1, 0.7), pool_tokens=4), model, np.array([5, 10]))  # of four groups one goes
    check(recipe(("auto",)), model, np.array([2]))
