"""What `fastformers compress` is told and what it shows; compressing itself is tested elsewhere."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.compression.recipe_config import (
    CompressConfig,
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.data.examples import Columns
from fastformers.installation import how_to_install
from fastformers.jobs import compress
from fastformers.jobs.console.flags import read_config
from fastformers.models.training_config import TrainingConfig

PRICE = HourlyPrice(usd_per_hour=0.36, label="0.36 USD per core-hour", is_estimate=True)


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
        --work w --transfer x --max-length 64 --eval-limit 9 --max-accuracy-drop 0.5
        --text-column body --label-column topic
        --student-layers 4 --student-width 96 --keep-gelu
        --epochs 1.5 --learning-rate 1e-4 --batch-rows 16 --seed 3 --temperature 4
        --hard-weight 0.25 --hidden-weight 0 --attention-weight 2
        --prune-heads 0.33 --prune-ffn 0.5 --prune-budget global --prune-multiple-of 8
        --prune-rounds 2 --prune-epochs 0 --prune-without-labels
        --precision int8-dynamic --min-int8-agreement 98 --trim-vocabulary 7000
    """
    training = TrainingConfig(epochs=1.5, learning_rate=1e-4, batch_rows=16, seed=3)
    assert read(*flags.split()) == CompressConfig(
        **PATHS,
        work=Path("w"),
        transfer=Path("x"),
        max_length=64,
        eval_limit=9,
        max_accuracy_drop=0.5,
        columns=Columns(text="body", label="topic"),
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
                prune_budget="global",
                prune_multiple_of=8,
                prune_rounds=2,
                prune_epochs=0,
                prune_without_labels=True,
            ),
            quantize=QuantizeConfig(precision="int8-dynamic", min_int8_agreement=98),
        ),
    )
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


def tried(name, quality, seconds, *, passes=True):
    return SimpleNamespace(
        name=name,
        quality=SimpleNamespace(quality=quality),
        seconds_per_million=seconds,
        passes=passes,
    )


@pytest.fixture
def result():
    candidates = [
        tried("teacher, int8", 0.91, 8000.0),
        tried("4 layers, int8", 0.905, 2000.0),
        tried("5 layers, int8", 0.90, 4000.0),
        tried("2 layers, int8", 0.80, 1000.0, passes=False),
    ]
    return SimpleNamespace(candidates=candidates, chosen=candidates[1])


def test_every_candidate_has_its_price_and_what_became_of_it(result):
    drawn = compress._drawn(result, PRICE)
    assert [one.usd for one in drawn] == pytest.approx([0.8, 0.2, 0.4, 0.1])
    assert [one.verdict for one in drawn] == ["", "chosen", "", "loses too much"]


def test_the_table_goes_from_cheap_to_dear_and_marks_the_frontier(result):
    table = compress._frontier_table(compress._drawn(result, PRICE), "accuracy")
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    lines = [line.split("│")[1:-1] for line in text.getvalue().splitlines() if "int8" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["2 layers, int8", "80.00", "1,000", "8.00", "loses too much, frontier"],
        ["4 layers, int8", "90.50", "2,000", "4.00", "chosen, frontier"],
        ["5 layers, int8", "90.00", "4,000", "2.00", ""],
        ["teacher, int8", "91.00", "8,000", "1.00", "frontier"],
    ]


def refuse(*_):
    raise OSError("disk full")


def test_the_page_lies_beside_the_bundle(result, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    drawn = compress._drawn(result, PRICE)
    path = compress._write_page(drawn, PRICE, tmp_path / "bundle", metric="accuracy")
    assert path == str(tmp_path / "bundle-search.html")
    page = Path(path).read_text(encoding="utf-8")
    assert "4 recipes for bundle" in page
    assert PRICE.label in page
    monkeypatch.setattr(os, "replace", refuse)  # what would have come last
    with pytest.raises(OSError, match="disk"):
        compress._write_page(drawn[:1], PRICE, tmp_path / "bundle", metric="accuracy")
    assert Path(path).read_text(encoding="utf-8") == page
    monkeypatch.setattr(compress, "can_draw", lambda: False)
    assert compress._write_page(drawn, PRICE, tmp_path / "other", metric="accuracy") is None
    assert how_to_install("report") in capsys.readouterr().err
