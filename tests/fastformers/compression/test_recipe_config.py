"""Settings of a compression are refused before anything heavy is imported."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fastformers.compression.recipe_config import (
    CompressConfig,
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.token_config import TokenConfig
from fastformers.errors import InputError
from fastformers.models.training_config import TrainingConfig

PATHS = {name: Path(name) for name in ("teacher", "train", "eval", "output")}


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (partial(TrainingConfig, epochs=1, learning_rate=1), {"seed": -1}, "--seed -1: give 0 to"),
        (
            partial(TrainingConfig, epochs=1, learning_rate=1),
            {"seed": 2**32},
            "--seed 4294967296: give 0 to",
        ),
        (TrimConfig, {"trim_vocabulary": 0}, "--trim-vocabulary 0: give at least 1"),
        (StudentConfig, {"student_layers": 0}, "--student-layers 0: give at least 1"),
        (StudentConfig, {"student_width": 0}, "--student-width 0: give at least 1"),
        (
            StudentConfig,
            {"student": Path("x"), "student_layers": 2},
            "--student is a model of its own",
        ),
        (DistillConfig, {"temperature": 0.0}, "--temperature 0: give more than 0"),
        (DistillConfig, {"hard_weight": 1.5}, "--hard-weight 1.5: give 0 to 1"),
        (DistillConfig, {"hidden_weight": -1.0}, "--hidden-weight -1: give at least 0"),
        (DistillConfig, {"attention_weight": -1.0}, "--attention-weight -1: give at least 0"),
        (StudentConfig, {"pool_tokens": 1}, "--pool-tokens 1: give at least 2"),
        (StudentConfig, {"pool_before_layer": -1}, "--pool-before-layer -1: give at least 0"),
        (TokenConfig, {"keep_tokens": ("0.5,0",)}, "--keep-tokens 0: give shares above 0, to 1"),
        (TokenConfig, {"keep_tokens": ("0.5,1.2",)}, "--keep-tokens 1.2: give shares above 0"),
        (TokenConfig, {"keep_tokens": ("0.5,half",)}, "--keep-tokens half: give shares above 0"),
        (TokenConfig, {"keep_tokens": ("0.5,,0.5",)}, "--keep-tokens : give shares above 0"),
        (TokenConfig, {"keep_tokens": ("auto,0.5",)}, "--keep-tokens auto: give shares above 0"),
        (TokenConfig, {"keep_tokens": ("nan",)}, "--keep-tokens nan: give shares above 0"),
        (TokenConfig, {"keep_tokens": ("1,1.0",)}, "--keep-tokens 1,1.0: drops no token; give"),
        (TokenConfig, {"token_epochs": -1}, "--token-epochs -1: give at least 0"),
        (TokenConfig, {"token_soft_start": 1.5}, "--token-soft-start 1.5: give a share from 0"),
        (TokenConfig, {"min_token_agreement": 101}, "--min-token-agreement 101: give 0 to 100"),
        (
            partial(RecipeConfig, distill=DistillConfig(attention_weight=1.0)),
            {"student": StudentConfig(pool_tokens=4)},
            "--attention-weight 1: with --pool-tokens there are fewer tokens",
        ),
        (
            partial(RecipeConfig, distill=DistillConfig(attention_weight=1.0)),
            {"tokens": TokenConfig(keep_tokens=("auto",))},
            "--attention-weight 1: with --keep-tokens there are fewer tokens",
        ),
        (PruneConfig, {"prune_heads": 1.0}, "--prune-heads 1: give a share from 0 to below 1"),
        (PruneConfig, {"prune_ffn": -0.1}, "--prune-ffn -0.1: give a share from 0 to below 1"),
        (PruneConfig, {"prune_multiple_of": 0}, "--prune-multiple-of 0: give at least 1"),
        (PruneConfig, {"prune_rounds": 0}, "--prune-rounds 0: give at least 1"),
        (PruneConfig, {"prune_epochs": -1}, "--prune-epochs -1: give at least 0"),
        (QuantizeConfig, {"min_int8_agreement": 101}, "--min-int8-agreement 101: give 0 to 100"),
        (QuantizeConfig, {"min_int8_agreement": -1}, "--min-int8-agreement -1: give 0 to 100"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(config, changes, message):
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_time_on_a_cpu_is_no_budget_for_a_graph_that_is_for_gpus():
    prune = PruneConfig(prune_heads=0.5, prune_budget="latency")
    RecipeConfig(prune=prune, quantize=QuantizeConfig(precision="int8,float16"))
    with pytest.raises(InputError, match="--prune-budget latency measures this machine's CPU"):
        RecipeConfig(prune=prune, quantize=QuantizeConfig(precision="float16"))


@pytest.mark.parametrize(
    "given", [("0.8,0.6",), ("0.8", "0.6"), (0.8, 0.6), "0.8,0.6", (" 0.8 , 0.6",)], ids=repr
)
def test_shares_are_read_however_they_are_given(given):
    config = TokenConfig(keep_tokens=given)
    assert config.keep_tokens == config.shares == (0.8, 0.6)


def test_shares_that_are_to_be_chosen_are_no_shares_yet():
    for given in (("auto",), "auto"):
        config = TokenConfig(keep_tokens=given)
        assert (config.is_wanted, config.keep_tokens, config.shares) == (True, ("auto",), ())
    assert not TokenConfig().is_wanted


def test_a_search_needs_the_drop_that_is_allowed():
    with pytest.raises(InputError, match=r"--search: .* --max-accuracy-drop"):
        CompressConfig(**PATHS, search=True)
    assert CompressConfig(**PATHS, search=True, max_accuracy_drop=0.5).allowed_drop == 0.5
    assert CompressConfig(**PATHS).allowed_drop == 1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (RecipeConfig(student=StudentConfig(student=Path("small"))), "--student small: "),
        (RecipeConfig(student=StudentConfig(student_layers=4)), "--student-layers 4: "),
        (RecipeConfig(student=StudentConfig(student_width=64)), "--student-width 64: "),
        (RecipeConfig(student=StudentConfig(pool_tokens=4)), "--pool-tokens 4: "),
        (RecipeConfig(tokens=TokenConfig(keep_tokens=(0.8, 0.6))), "--keep-tokens 0.8,0.6: "),
        (RecipeConfig(prune=PruneConfig(prune_heads=0.5)), "--prune-heads 0.5: "),
        (RecipeConfig(prune=PruneConfig(prune_ffn=0.5)), "--prune-ffn 0.5: "),
        (RecipeConfig(quantize=QuantizeConfig(precision="float16")), "--precision float16: "),
    ],
)
def test_what_a_search_decides_is_refused_beside_it(recipe, message):
    CompressConfig(**PATHS, recipe=recipe, max_accuracy_drop=1)
    with pytest.raises(InputError, match=message + "--search decides it"):
        CompressConfig(**PATHS, recipe=recipe, max_accuracy_drop=1, search=True)


def test_a_search_takes_the_settings_that_its_candidates_share():
    recipe = RecipeConfig(
        trim=TrimConfig(trim_vocabulary=100),
        student=StudentConfig(keep_gelu=True),
        distill=DistillConfig(training=TrainingConfig(epochs=1, learning_rate=1e-3)),
        prune=PruneConfig(prune_rounds=2, prune_epochs=1),
        quantize=QuantizeConfig(precision="int8", min_int8_agreement=98),
    )
    assert CompressConfig(**PATHS, recipe=recipe, max_accuracy_drop=1, search=True).search


def test_configs_are_made_without_torch():
    modules = "fastformers.compression.recipe_config, fastformers.models.training_config"
    code = (
        f"import sys, {modules}; assert not {{'torch', 'transformers', 'onnx'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
