"""What `fastformers finetune` is told; fine-tuning itself is tested elsewhere."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fastformers.ablation.texts import TextsConfig
from fastformers.compression.compress_config import CompressConfig
from fastformers.data.examples import Columns
from fastformers.formats.text_file_config import TextFileConfig
from fastformers.jobs import ablate, compress, finetune, score
from fastformers.jobs.console.arguments import corpus_settings
from fastformers.jobs.console.flags import read_config
from fastformers.models.training_config import FinetuneConfig, TrainingConfig

FILES = ["--model", "m", "--train", "a", "--output", "o"]


def read(*flags):
    return read_config(FinetuneConfig, finetune.parse([*FILES, *flags]))


def test_every_setting_has_its_flag_and_default():
    training = TrainingConfig(epochs=3, learning_rate=5e-5, batch_rows=16, seed=0)
    assert read() == FinetuneConfig(training=training, max_length=None, num_layers=None)
    flags = (
        "--epochs 0.5 --learning-rate 1e-3 --batch-rows 8 --seed 1 --max-length 64 --num-layers 2"
    )
    training = TrainingConfig(epochs=0.5, learning_rate=1e-3, batch_rows=8, seed=1)
    expected = FinetuneConfig(training=training, max_length=64, num_layers=2)
    assert read(*flags.split()) == expected


@pytest.mark.parametrize(
    "flags", [("--epochs", "0"), ("--batch-rows", "0"), ("--max-length", "7")], ids=str
)
def test_a_training_that_makes_no_sense_is_refused_by_its_flag(capsys, flags):
    assert finetune.main([*FILES, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert " ".join(flags) in line


def test_what_is_said_at_the_end_names_the_rows_of_each_number():
    split, files = SimpleNamespace(select=[0] * 943), SimpleNamespace(eval=Path("val.csv"))
    best = SimpleNamespace(number=2, quality=0.7034)

    def said(**result):
        given = SimpleNamespace(**{"quality": None, "interval": None, **result})
        return finetune._describe(given, split, "accuracy", files)

    kept = "kept epoch 2, the best on the 943 rows that choose"
    assert said(best=best, quality=0.7, interval=(0.68, 0.72)) == [
        kept,
        "accuracy 70.00 (95% interval 68.00 to 72.00) on val.csv, which chose nothing",
    ]
    alone = (
        "accuracy 70.34 is of rows that chose the epoch, so it is slightly too high; give --eval"
    )
    assert said(best=best) == [kept, f"{alone} for a number to quote"]
    assert said(best=None) == ["kept the last epoch: no rows choose"]


TEXT_FILES = [
    "--encoding",
    "latin-1",
    "--csv-delimiter",
    "\\t",
    "--csv-quote",
    "none",
    "--max-row-bytes",
    "99",
]


def test_labeled_files_have_the_flags_of_text_files_in_every_command_that_reads_them():
    expected = TextFileConfig(
        encoding="latin-1", csv_delimiter="\\t", csv_quote="none", max_row_bytes=99
    )
    assert expected.delimiter == "\t"
    assert read_config(Columns, finetune.parse([*FILES, *TEXT_FILES])).text_files == expected
    given = compress.parse(["--teacher", "t", "--eval", "e", *FILES[2:], *TEXT_FILES])
    assert read_config(CompressConfig, given).columns.text_files == expected
    given = ablate.parse(["--output", "o", *TEXT_FILES])
    assert read_config(TextsConfig, given).columns.text_files == expected
    given = score.parse(["corpus", "--bundle", "b", "--output", "o", *TEXT_FILES])
    assert corpus_settings(given).read_options.text_files == expected
