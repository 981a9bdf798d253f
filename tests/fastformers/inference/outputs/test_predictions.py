"""Predictions as lists, arrays, rows, Arrow and pandas, by task."""

import numpy as np
import pyarrow as pa
import pytest

from fastformers.errors import InputError
from fastformers.inference.outputs.predictions import Predictions
from fastformers.inference.tasks import TASKS

NAN = float("nan")
LABELS = ("bad", "fair", "good")
# The second text could not be scored.
LOGITS = [[1, 2, 4], [NAN, NAN, NAN], [3, 0, -1]]
# What a task has no answer to.
REFUSED = {
    "text-classification": ("scores", "embeddings"),
    "multi-label-classification": ("probability", "scores", "embeddings"),
    "regression": ("labels", "probability", "probabilities", "embeddings"),
    "multiple-choice": ("labels", "probability", "probabilities", "embeddings"),
    "embedding": ("labels", "probability", "probabilities", "scores"),
}


def predict(task="text-classification", logits=LOGITS):
    logits_NC = np.array(logits, np.float32)
    if task in ("regression", "multiple-choice"):
        logits_NC = logits_NC[:, :1]
    return Predictions(
        task=TASKS[task],
        label_names=LABELS if TASKS[task].has_labels else (),
        logits_NC=logits_NC,
        errors={1: "empty text"},
    )


def softmax(*logits):
    return np.exp(logits) / np.exp(logits).sum()


def test_every_label_has_its_probability():
    predictions = predict()
    assert predictions.labels == ["good", None, "bad"]
    expected = [softmax(1, 2, 4), [NAN] * 3, softmax(3, 0, -1)]
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-6)
    np.testing.assert_array_equal(
        predictions.probability,
        [predictions.probabilities[0, 2], NAN, predictions.probabilities[2, 0]],
    )


def test_several_labels_have_probabilities_that_do_not_add_up():
    predictions = predict("multi-label-classification", [[1, 2, -4], [NAN] * 3, [-1, -2, -3]])
    assert predictions.labels == [["bad", "fair"], None, []]
    expected = 1 / (1 + np.exp([-1, -2, 4]))
    np.testing.assert_allclose(predictions.probabilities[0], expected, rtol=1e-6)
    assert np.isnan(predictions.probabilities[1]).all()


def test_the_surest_labels_come_first_and_none_where_there_is_no_prediction():
    first, bad, third = predict().top_k(2)
    assert [one["label"] for one in first] == ["good", "fair"]
    assert [one["probability"] for one in first] == pytest.approx(softmax(4, 2, 1)[:2], rel=1e-6)
    assert bad == []
    assert [one["label"] for one in third] == ["bad", "fair"]
    assert [len(best) for best in predict().top_k(3)] == [3, 0, 3]


def test_other_columns_are_those_of_the_command():
    predictions = predict()
    table = predictions.to_arrow(["label,logits", "top_k=1"])
    assert table.column_names == ["label", "logits", "top_k", "error"]
    assert table["top_k"].to_pylist() == [predictions.top_k(1)[0], None, predictions.top_k(1)[2]]
    assert list(predictions.to_pandas(columns=["probabilities"]).columns) == [
        "probabilities",
        "error",
    ]
    with pytest.raises(InputError, match="embedding: no column of the task text-classification"):
        predictions.to_arrow(["embedding"])


@pytest.mark.parametrize("k", [0, 4, -1, 1.5, "2", True, None])
def test_more_labels_than_there_are_and_no_numbers_are_refused(k):
    with pytest.raises(InputError, match=rf"top_k {k!r}: give 1 to 3, the number of labels"):
        predict().top_k(k)


@pytest.mark.parametrize("task", TASKS)
def test_what_the_task_does_not_give_is_refused_in_one_line(task):
    predictions = predict(task)
    answers = {"labels", "probability", "probabilities", "scores", "embeddings"}
    for name in REFUSED[task]:
        with pytest.raises(InputError, match=f"no .*: the bundle's task is {task}, whose") as error:
            getattr(predictions, name)
        assert "\n" not in str(error.value)
    for name in answers - set(REFUSED[task]):
        assert len(getattr(predictions, name)) == 3
    if "labels" in REFUSED[task]:
        with pytest.raises(InputError, match=f"no labels: the bundle's task is {task}"):
            predictions.top_k(1)


@pytest.mark.parametrize("task", TASKS)
def test_rows_tables_and_slices_say_the_same(task):
    pd = pytest.importorskip("pandas")
    predictions = predict(task)
    rows = list(predictions)
    assert len(predictions) == len(rows) == 3
    assert list(rows[0]) == [*TASKS[task].column_names, "error"]
    assert rows[1] == {**dict.fromkeys(rows[0]), "error": "empty text"}
    assert [predictions[0], predictions[1], predictions[-1]] == rows
    assert predictions[np.int64(2)] == rows[2]
    assert list(predictions[1:]) == rows[1:]
    assert predictions[1:].errors == {0: "empty text"}
    assert list(predictions[::-1]) == rows[::-1]
    table = predictions.to_arrow()
    assert isinstance(table, pa.Table) and table.to_pylist() == rows
    frame = predictions.to_pandas(index=["x", "y", "z"])
    assert isinstance(frame, pd.DataFrame) and list(frame.index) == ["x", "y", "z"]
    assert list(frame.columns) == list(rows[0])
    assert frame.loc["y"].drop("error").isna().all()
    with pytest.raises(IndexError):
        predictions[3]


def test_a_row_is_what_a_person_expects():
    row = predict()[2]
    assert row == {
        "label": "bad",
        "probability": pytest.approx(softmax(3, 0, -1)[0]),
        "error": None,
    }
    assert type(row["probability"]) is float
    assert predict("embedding")[0]["embedding"] == [1, 2, 4]


def test_an_index_of_another_length_is_refused():
    with pytest.raises(InputError, match="the index has 2 entries for 3 texts"):
        predict().to_pandas(index=[0, 1])


def test_without_pandas_the_other_table_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match=r"pip install pandas; to_arrow\(\) needs nothing more"):
        predict().to_pandas()


def test_it_shows_how_many_were_not_scored():
    shown = "<Predictions of 3 texts by text-classification, 1 of them not scored>"
    assert repr(predict()) == shown
    assert repr(predict()[:1]) == "<Predictions of 1 texts by text-classification>"
