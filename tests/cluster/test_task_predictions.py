"""Whole cluster runs, without Ray, of bundles of every task: what their predictions look like."""

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from fastformers import Scorer
from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.settings import CorpusSettings
from fastformers.inference.tasks import TASKS

LABELS = ("a", "b", "c")
TYPES = {
    "text-classification": [pa.string(), pa.float32()],
    "multi-label-classification": [pa.list_(pa.string()), pa.list_(pa.float32())],
    "regression": [pa.float32()],
    "multiple-choice": [pa.float32()],
    "embedding": [pa.list_(pa.float32(), 5)],
}
WIDTHS = {"regression": 1, "multiple-choice": 1, "embedding": 5}


@pytest.fixture
def score(bundle_factory, write_rows, run_locally, tmp_path):
    """Score rows with a bundle of a task; returns the bundle and the predictions."""

    def run(task, texts):
        bundle = bundle_factory(
            tmp_path / "bundle",
            task=task,
            labels=LABELS if TASKS[task].has_labels else (),
            num_outputs=WIDTHS.get(task, 3),
            text_pairs=task == "multiple-choice",
        )
        rows = [{"id": i, "text": text, "other": "a cat"} for i, text in enumerate(texts)]
        run_locally(
            open_score_job(
                str(write_rows(tmp_path / "corpus.jsonl", rows)),
                bundle.path,
                str(tmp_path / "out"),
                CorpusSettings(
                    max_bad_rows="100%",
                    keep_columns=("id",),
                    text_pair_column="other" if bundle.text_pairs else None,
                    shard_seconds=0.01,
                ),
                max_batch_tokens=None,
            )
        )
        files = sorted((tmp_path / "out" / "predictions").glob("*.parquet"))
        return bundle, pa.concat_tables([pyarrow.parquet.read_table(file) for file in files])

    return run


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_those_of_the_scorer_in_the_columns_of_the_task(score, task):
    words = ["the cat", "good film", "a dog ran fast", "bad", "it is on the mat"]
    texts = [f"{words[row % 5]} {row % 7}" for row in range(60)]
    texts[7] = None
    bundle, table = score(task, texts)
    names = list(TASKS[task].column_names)
    assert table.column_names == ["id", *names, "error"]
    assert table.schema.types[1:-1] == TYPES[task]
    assert table["id"].to_pylist() == list(range(60))
    assert [row for row, e in enumerate(table["error"].to_pylist()) if e] == [7]

    good = [row for row in range(60) if row != 7]
    inputs = [(texts[row], "a cat") if bundle.text_pairs else texts[row] for row in good]
    expected = Scorer(bundle).score(inputs)
    assert expected.to_arrow().schema.types == table.schema.types[1:]
    for name in names:
        cells = table[name].to_pylist()
        assert cells[7] is None
        cells = [cells[row] for row in good]
        match name:
            case "label" | "labels":
                assert cells == expected.labels
            case "probability" | "probabilities":
                np.testing.assert_allclose(cells, getattr(expected, name), atol=1e-5)
                assert np.std(cells, axis=0).max() > 0.001
            case "score":
                np.testing.assert_allclose(cells, expected.scores, atol=1e-5)
                assert np.std(cells) > 0.01
            case "embedding":
                np.testing.assert_allclose(cells, expected.embeddings, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_corpus_of_bad_rows_only_has_the_same_columns(score, task):
    _, table = score(task, [None, None, None])
    assert table.schema.types[1:-1] == TYPES[task]
    for name in TASKS[task].column_names:
        assert table[name].to_pylist() == [None] * 3


def test_a_row_is_bad_for_python_where_it_is_bad_in_a_corpus(score):
    texts = ["the cat", None, "", " \t", 5, "good film", True, {"a": "dict"}, "half \ud800"]
    bundle, table = score("text-classification", texts)
    prefix = "column 'text': "
    found = {row: error for row, error in enumerate(table["error"].to_pylist()) if error}
    assert list(found) == [1, 2, 3, 4, 6, 7, 8]
    predictions = Scorer(bundle).score(texts)
    assert {row: prefix + reason for row, reason in predictions.errors.items()} == found
    assert predictions.to_arrow()["label"].to_pylist() == table["label"].to_pylist()
