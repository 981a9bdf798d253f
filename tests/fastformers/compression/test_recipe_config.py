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
