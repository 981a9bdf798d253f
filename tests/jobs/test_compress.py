"""What `fastformers compress` is told and what it shows; compressing itself is tested elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.data.examples import Columns
from fastformers.data.splitting import SelectConfig
from fastformers.data.transfer_sample import TransferConfig
from fastformers.jobs import compress
from fastformers.jobs.console.flags import read_config
from fastformers.models.training_config import TrainingConfig

FILES = ["--teacher", "t", "--train", "a", "--eval", "b", "--output", "o"]
PATHS = {"teacher": Path("t"), "train": Path("a"), "eval": Path("b"), "output": Path("o")}


def read(*flags):
    options = compress.parse([*FILES, *flags])
    return read_config(CompressConfig, options)


def test_without_flags_the_recipe_is_int8_of_the_teacher():
    config = read()
    assert config == CompressConfig(**PATHS)
    assert not config.search and config.allowed_drop == 1
    assert not config.recipe.student.is_wanted and not config.recipe.prune.is_wanted
    assert config.recipe.quantize.precision == "int8"


def test_every_setting_has_its_flag():
    flags = """
        --work w --transfer x --transfer-rows 9 --transfer-text-column review
        --transfer-seed 4 --transfer-curve --max-length 64 --eval-limit 9 --max-accuracy-drop 0.5
        --text-column body --label-column topic --select-share 0.2
        --student-layers 4 --student-width 96 --keep-gelu
        --epochs 1.5 --learning-rate 1e-4 --batch-rows 16 --seed 3 --temperature 4
        --hard-weight 0.25 --hidden-weight 0 --attention-weight 2
        --prune-heads 0.33 --prune-ffn 0.5 --prune-budget latency --prune-multiple-of 8
        --prune-rounds 2 --prune-epochs 0 --prune-without-labels
        --precision int8-dynamic --min-int8-agreement 98 --trim-vocabulary 7000
    """
    training = TrainingConfig(epochs=1.5, learning_rate=1e-4, batch_rows=16, seed=3)
    assert read(*flags.split()) == CompressConfig(
        **PATHS,
        work=Path("w"),
        transfer=TransferConfig(corpus="x", rows=9, text_column="review", seed=4),
        transfer_curve=True,
        max_length=64,
        eval_limit=9,
        max_accuracy_drop=0.5,
        columns=Columns(text="body", label="topic"),
        select=SelectConfig(share=0.2),
        recipe=RecipeConfig(
            trim=TrimConfig(trim_vocabulary=7000),
            student=StudentConfig(student_layers=4, student_width=96, keep_gelu=True),
            distill=DistillConfig(
                training=training,
                temperature=4,
                hard_weight=0.25,
                hidden_weight=0,
                attention_weight=2,
            ),
            prune=PruneConfig(
                prune_heads=0.33,
                prune_ffn=0.5,
                prune_budget="latency",
                prune_multiple_of=8,
                prune_rounds=2,
                prune_epochs=0,
                prune_without_labels=True,
            ),
            quantize=QuantizeConfig(precision="int8-dynamic", min_int8_agreement=98),
        ),
    )
    assert read("--search", "--max-accuracy-drop", "1", "--max-hours", "2.5").max_hours == 2.5
    assert read("--student", "s").recipe.student == StudentConfig(student=Path("s"))


def test_only_the_flag_of_the_search_starts_one():
    assert not read("--max-accuracy-drop", "1").search
    for precision in ([], ["--precision", "int8"]):
        config = read("--search", "--max-accuracy-drop", "1", *precision)
        assert config.search and config.recipe == RecipeConfig()


@pytest.mark.parametrize("command", ["compress", "finetune"])
def test_help_and_refusals_do_not_wait_for_torch(command):
    code = f"""
import sys
from fastformers.jobs.{command} import main
try:
    main(["--help"])
finally:
    assert not {{"torch", "transformers", "onnx"}} & {{*sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
