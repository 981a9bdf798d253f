import numpy as np
import pytest

from fastformers.cluster.shards.predictions import build_predictions
from fastformers.errors import InputError
from fastformers.inference.outputs.columns import choose_columns
from fastformers.inference.tasks import TASKS, TEXT_CLASSIFICATION
from tests.cluster.shards.test_predictions import make_shard

LABELS = ("no", "perhaps", "yes")
LOGITS_UC = np.array([[0, 1, 2], [5, 0, 0], [1, 1, 1]], np.float32)
CLASSES, SETS = "text-classification", "multi-label-classification"


def written(task, names, logits_UC=LOGITS_UC, rows=(0, None, 1, 2)):
    labels = LABELS if TASKS[task].has_labels else ()
    columns = choose_columns(names, TASKS[task], labels)
    return build_predictions(make_shard(list(rows)), logits_UC, columns, labels, {}, ())


def test_the_task_s_own_columns_are_written_unless_others_are_named():
    assert choose_columns((), TEXT_CLASSIFICATION, LABELS) == TEXT_CLASSIFICATION.columns
    table = written(CLASSES, ("logits,label",))
    assert table.column_names == ["logits", "label", "error"]
    assert table["logits"].to_pylist() == [[0, 1, 2], None, [5, 0, 0], [1, 1, 1]]


def test_probabilities_are_of_all_labels_and_the_largest_is_the_label_s():
    table = written(CLASSES, ("label,probability", "probabilities"))
    for line in table.to_pylist():
        if line["error"] is None:
            assert sum(line["probabilities"]) == pytest.approx(1)
            assert max(line["probabilities"]) == line["probability"]
            best = line["probabilities"].index(line["probability"])
            assert line["label"] == LABELS[best]


@pytest.mark.parametrize("task", [CLASSES, SETS])
def test_top_k_are_the_most_probable_labels_with_their_probabilities(task):
    table = written(task, ("probabilities", "top_k=2"))
    first, bad, second, equal = table.to_pylist()
    assert [one["label"] for one in first["top_k"]] == ["yes", "perhaps"]
    assert [one["label"] for one in second["top_k"]] == ["no", "perhaps"]
    assert [one["label"] for one in equal["top_k"]] == ["no", "perhaps"]  # the first of equals
    assert bad["top_k"] is None
    for line in (first, second, equal):
        found = [one["probability"] for one in line["top_k"]]
        assert found == sorted(line["probabilities"], reverse=True)[:2]


@pytest.mark.parametrize("task", [CLASSES, SETS])
def test_a_shard_without_good_rows_has_the_same_types(task):
    names = ("probabilities,logits,top_k=3",)
    empty = written(task, names, np.empty((0, 3), np.float32), rows=(None, None))
    assert empty.schema == written(task, names).schema
    assert empty["top_k"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("task", "names", "message"),
    [
        (CLASSES, ("label,score",), "--columns score: no column of the task text-classification; "),
        (CLASSES, ("labels",), "choose from label, probability, probabilities, logits, top_k=N"),
        (SETS, ("label",), "choose from labels, probabilities, logits, top_k=N"),
        (SETS, ("labels=2",), "--columns labels=2: no column"),
        ("regression", ("logits",), "no column of the task regression; choose from score$"),
        ("embedding", ("top_k=1",), "choose from embedding$"),
        ("multiple-choice", ("label",), "choose from score$"),
        (
            CLASSES,
            ("top_k",),
            "--columns top_k: say how many labels, from 1 to the 3 of the bundle",
        ),
        (CLASSES, ("top_k=4",), "from 1 to the 3 of the bundle, as in top_k=3"),
        (CLASSES, ("top_k=0",), "--columns top_k=0"),
        (CLASSES, ("label", "label"), "names the column 'label' twice"),
        (CLASSES, ("top_k=1,top_k=2",), "names the column 'top_k' twice"),
        (CLASSES, (",",), "names no column"),
    ],
)
def test_a_column_that_the_task_does_not_have_is_refused_by_name(task, names, message):
    labels = LABELS if TASKS[task].has_labels else ()
    with pytest.raises(InputError, match=message):
        choose_columns(names, TASKS[task], labels)
