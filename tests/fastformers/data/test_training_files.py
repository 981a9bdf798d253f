"""The files of a compression are read without a library that trains."""

import json

import pytest

from fastformers.compression.compress_config import CompressConfig
from fastformers.data.examples import Columns
from fastformers.data.splitting import SelectConfig
from fastformers.data.training_files import load_training_files
from fastformers.data.transfer_sample import TransferConfig
from fastformers.errors import InputError


@pytest.fixture
def file(tmp_path, write_rows):
    rows = [{"text": f"a cat {row}", "label": "yes" if row % 2 else "no"} for row in range(8)]
    return write_rows(tmp_path / "t.csv", rows)


def test_labels_are_read_where_the_teacher_learns_from_them(file):
    files = load_training_files(file, file, Columns(), SelectConfig(), eval_limit=2)
    assert files.split.train.labels == ["no", "yes"] * 4
    assert len(files.evaluation) == 2
    files = load_training_files(file, None, Columns(), SelectConfig(), has_labels=False)
    assert files.split.train.labels == [None] * 8
    assert files.evaluation is files.transfer is None


@pytest.mark.parametrize("values", [("1", "2", "3"), ("0.5", "1.5", "2")])
def test_a_label_map_does_not_move_the_split(tmp_path, write_rows, values):
    """`compress` may be told what classes are called, and `finetune` not: both must agree."""
    kinds = [values[min(row % 10, 2)] for row in range(600)]
    rows = [{"text": f"a cat {row}", "label": kind} for row, kind in enumerate(kinds)]
    file = write_rows(tmp_path / "t.csv", rows)
    names = tmp_path / "map.json"
    names.write_text(json.dumps(dict(zip(values, ("bad", "bad", "good"), strict=True))))
    plain = load_training_files(file, None, Columns(), SelectConfig()).split
    mapped = load_training_files(file, None, Columns(label_map=names), SelectConfig()).split
    assert mapped.select.texts == plain.select.texts and len(plain.select) == 60
    assert {*mapped.select.labels} == {"bad", "good"}
    assert mapped.select.cells == plain.select.labels


def test_no_row_of_the_labeled_files_is_taken_from_a_corpus(file, tmp_path, write_rows):
    held_out = write_rows(tmp_path / "e.csv", [{"text": "a dog", "label": "no"}] * 3)
    select = write_rows(tmp_path / "s.csv", [{"text": "a cow", "label": "no"}])
    texts = ["A  DOG", "a cat 3", "a cat 7", "a bird", "a bird ", "fish", "A cow"]
    corpus = write_rows(tmp_path / "c.csv", [{"text": text} for text in texts])
    found = load_training_files(
        file,
        held_out,
        Columns(),
        SelectConfig(file=select),
        eval_limit=1,
        transfer=TransferConfig(corpus=str(corpus)),
    ).transfer
    assert {text.strip() for text in found.examples.texts} == {"a bird", "fish"}
    assert found.examples.labels == [None, None]
    assert (found.num_read, found.num_known) == (7, {"--eval": 1, "--train": 2, "--select": 1})
    assert "2 texts out of 7 rows read of" in found.describe()
    assert "left out: 1 text of --eval, 2 texts of --train, 1 text of --select" in found.describe()


def test_places_are_looked_at_before_files_are_read(file, tmp_path):
    teacher = tmp_path / "teacher"
    paths = {"teacher": teacher, "train": tmp_path / "none.csv", "eval": file}
    with pytest.raises(InputError, match=r"teacher: no config\.json"):
        CompressConfig(**paths, output=tmp_path / "out").load_files()
    teacher.mkdir()
    (teacher / "modules.json").write_text("[]")
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        CompressConfig(**paths, output=tmp_path / "out").load_files()
    with pytest.raises(NotADirectoryError, match="out"):
        CompressConfig(**paths, output=file / "out").load_files()
    with pytest.raises(InputError, match="exists and is not a bundle"):
        CompressConfig(**paths, output=tmp_path).load_files()
