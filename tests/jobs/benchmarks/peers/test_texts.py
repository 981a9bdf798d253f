import numpy as np
import pyarrow.parquet
import pytest

from fastformers.cluster.settings import CorpusSettings
from fastformers.data.examples import Columns
from fastformers.errors import InputError
from fastformers.jobs.benchmarks.peers import texts as texts_module
from fastformers.jobs.benchmarks.peers.texts import (
    DifferentTexts,
    classes_of,
    read_different_texts,
    write_training_rows,
)


def written(part):
    tables = [pyarrow.parquet.read_table(file) for file in part.files]
    assert all(table.column_names == ["id", "text"] for table in tables)
    ids = [row for table in tables for row in table["id"].to_pylist()]
    assert ids == list(part.ids)
    return [table["text"].to_pylist() for table in tables]


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.csv.gz"])
def test_the_first_good_texts_that_differ_are_read_in_their_order(write_rows, tmp_path, name):
    texts = ["one", "two", "one", "", "three", "two", "four", "five", "six"]
    path = write_rows(tmp_path / name, [{"id": n, "body": text} for n, text in enumerate(texts)])
    settings = CorpusSettings(text_column="body")
    found = read_different_texts(str(path), settings, num_rows=5, directory=tmp_path / "texts")
    assert (found.texts, found.labels) == (["one", "two", "three", "four", "five"], None)


def test_texts_come_from_all_files_and_all_reads_of_a_file(write_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "READ_CHUNK_BYTES", 10)  # a CSV file is read bit by bit
    for number in range(3):
        rows = [{"text": f"text {number} {row}", "label": row} for row in range(4)]
        write_rows(tmp_path / "corpus" / f"{number}.csv", rows)
    found = read_different_texts(
        str(tmp_path / "corpus"),
        CorpusSettings(),
        num_rows=10,
        directory=tmp_path / "texts",
        label_column="label",
    )
    assert found.texts == [f"text {n // 4} {n % 4}" for n in range(10)]
    assert [str(label) for label in found.labels] == [str(n % 4) for n in range(10)]


@pytest.mark.parametrize(
    ("name", "missing"),
    [("c.parquet", None), ("c.parquet", float("nan")), ("c.jsonl", None), ("c.csv", "")],
)
def test_rows_without_a_label_are_left_out_and_counted(write_rows, tmp_path, name, missing):
    labels = [0 if name.endswith("csv") else 0.0, missing, 1, missing]
    rows = [{"text": f"text {row}", "label": label} for row, label in enumerate(labels)]
    settings = {"num_rows": 10, "directory": tmp_path, "label_column": "label"}
    path = str(write_rows(tmp_path / name, rows))
    found = read_different_texts(path, CorpusSettings(), **settings)
    assert (found.texts, found.num_unlabeled) == (["text 0", "text 2"], 2)
    assert classes_of(found.labels, ("bad", "good"), name) == [0, 1]
    none = write_rows(tmp_path / "none" / name, [{"text": "one", "label": missing}])
    with pytest.raises(InputError, match=r"no row has text in 'text' with a label in 'label'"):
        read_different_texts(str(none), CorpusSettings(), **settings)


def test_a_small_corpus_gives_what_it_has(write_rows, tmp_path):
    path = write_rows(tmp_path / "c.parquet", [{"text": f"text {n % 7}"} for n in range(20)])
    settings = CorpusSettings(limit=5)
    few = read_different_texts(str(path), settings, num_rows=100, directory=tmp_path)
    assert few.texts == [f"text {n}" for n in range(5)]
    some = read_different_texts(str(path), CorpusSettings(), num_rows=100, directory=tmp_path)
    assert some.texts == [f"text {n}" for n in range(7)]


def test_a_corpus_without_the_column_is_refused(write_rows, tmp_path):
    path = write_rows(tmp_path / "c.parquet", [{"text": "one"}])
    for settings, label in (
        (CorpusSettings(text_column="body"), None),
        (CorpusSettings(), "stars"),
    ):
        with pytest.raises(InputError, match=f"'{label or 'body'}'"):
            read_different_texts(
                str(path), settings, num_rows=1, directory=tmp_path, label_column=label
            )


def test_a_part_has_the_lengths_of_all_and_files_for_every_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "_FILE_ROWS", 10)
    lengths = np.random.default_rng(0).lognormal(4, 1, 1000).astype(int) + 1
    texts = DifferentTexts(texts=["x" * n for n in lengths], labels=None, directory=tmp_path)
    part = texts.part(50, num_workers=2)
    rows = [text for file in written(part) for text in file]
    assert rows == [texts.texts[row] for row in part.ids]
    assert list(part.ids) == sorted(set(part.ids))
    # Fifty texts drawn at random are off by a seventh; these are not.
    assert np.mean([len(row) for row in rows]) == pytest.approx(lengths.mean(), rel=0.05)
    assert [len(file) for file in written(part)] == [9, 9, 8, 8, 8, 8]
    assert {*part.directory.iterdir()} == {*map(part.directory.joinpath, part.files)}
    assert texts.part(50, num_workers=2) is part


def test_a_part_is_no_more_than_there_is(tmp_path):
    texts = DifferentTexts(texts=["b", "aa", "c"], labels=None, directory=tmp_path)
    assert written(texts.part(100, num_workers=4)) == [["b"], ["aa"], ["c"]]
    assert written(texts.part(3, num_workers=1)) == [["b", "aa", "c"]]


def test_a_label_is_a_class_by_name_or_place_or_refused():
    assert classes_of([1, 0, 1], ("bad", "good"), "c, column 'y'") == [1, 0, 1]
    assert classes_of(["good", "bad"], ("bad", "good"), "c, column 'y'") == [1, 0]
    with pytest.raises(InputError, match="c, column 'y'"):
        classes_of(["good", "fine"], ("bad", "good"), "c, column 'y'")


def test_what_a_classifier_learns_from_has_no_text_that_it_is_judged_on(write_rows, tmp_path):
    rows = [
        {"body": "one", "y": "good"},
        {"body": "two", "y": "bad"},
        {"body": "three", "y": "bad"},
    ]
    path = write_rows(tmp_path / "train.parquet", rows)
    columns = Columns(text="body", label="y")
    known = {"names": ("bad", "good"), "directory": tmp_path}
    file = write_training_rows(path, columns, without=["two"], **known)
    table = pyarrow.parquet.read_table(file)
    assert table.to_pydict() == {"text": ["one", "three"], "label": [1, 0]}
    with pytest.raises(InputError, match=r"--peer-train .*train\.parquet: has no text"):
        write_training_rows(path, columns, without=["one", "two", "three"], **known)
