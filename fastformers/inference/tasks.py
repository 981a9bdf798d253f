"""The tasks: what the outputs of a model mean, and how well they meet their targets.

    graph -> outputs -> [tasks] -> prediction columns
    outputs + targets -> [tasks] -> metric, agreement with the teacher -> quality gate

| task | output of a row | target of a row | metric |
| --- | --- | --- | --- |
| text-classification | C logits, one right | class index | accuracy |
| multi-label-classification | C logits, any right | C zeros and ones | micro-F1 |
| regression | one number | number | Spearman |
| multiple-choice | one logit | 1 for the right choice of its group | accuracy |
| embedding | D numbers | none | rank agreement |

A row of multiple choice is one (text, choice) pair; rows of one group are the choices of one
question, and the one with the largest logit is the answer.

`TASKS` at the end of this module is the only list of tasks: code elsewhere asks a `Task`, and names
are for files and command lines. A new task needs an entry there, a line in models/losses.py if
a student can learn it, and code that recognizes it: in models/loading.py by the model, in
data/examples.py by the labels. This module uses NumPy alone, so that scoring can read outputs
without torch; it knows nothing of texts, models or files.

Shape suffixes: N rows, C classes (or other outputs).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.inference.metrics import (
    best_of_groups,
    f1,
    macro_f1,
    rank_agreement,
    spearman,
    unit_rows,
)

Targets = NDArray[np.generic]
Groups = NDArray[np.int64]
# Target of a row: a class index, the classes that hold, a number, whether the row is the right
# choice of its group, or nothing.
TargetKind = Literal["class", "label set", "number", "choice", "none"]
# Content of a cell of the predictions: a label, labels, a number, numbers, or labels with their
# probabilities; a vector has equally many numbers in every row.
CellKind = Literal["label", "labels", "number", "numbers", "vector", "ranked"]
Cells = NDArray[Any] | list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class PredictionColumn:
    """One column of the predictions.

    Attributes:
        name: Name of the column in the output.
        kind: Content of a cell.
        read: Function that makes the N cells from the outputs (N, C) and the names of the outputs.
    """

    name: str
    kind: CellKind
    read: Callable[[Floats, tuple[str, ...]], Cells]


def _no_others(outputs_NC: Floats, targets_N: Targets, groups_N: Groups | None) -> dict[str, float]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """The purpose of a model: its targets, prediction columns and metrics.

    Attributes:
        name: Name as written in bundle.json and on the command line.
        targets: Kind of target that a row is trained and evaluated with.
        columns: Columns that a prediction has, before `error`. Where outputs have names, the first
            holds labels and the second their probabilities.
        further: Columns that it has where they are asked for.
        metric: Name of the metric that `measure` computes, as shown to the user.
        metric_of: Function of outputs, targets, the teacher's outputs and groups: the metric.
        agreement: What `measure_agreement` computes, as shown to the user.
        agreement_of: Function of outputs, the teacher's outputs and groups: the agreement.
        others_of: Function of outputs, targets and groups: further metrics, by name.
    """

    name: str
    targets: TargetKind
    columns: tuple[PredictionColumn, ...]
    metric: str
    metric_of: Callable[[Floats, Targets, Floats, Groups | None], float]
    agreement: str
    agreement_of: Callable[[Floats, Floats, Groups | None], float]
    others_of: Callable[[Floats, Targets, Groups | None], dict[str, float]] = _no_others
    further: tuple[PredictionColumn, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def has_labels(self) -> bool:
        """Whether the model's outputs have names."""
        return self.targets in ("class", "label set")

    @property
    def has_targets(self) -> bool:
        """Whether there is something to train on: embeddings only have a teacher."""
        return self.targets != "none"

    @property
    def is_choice(self) -> bool:
        """Whether rows are right or wrong only beside the other choices of their question."""
        return self.targets == "choice"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of `columns`."""
        return tuple(column.name for column in self.columns)

    def measure(
        self,
        outputs_NC: Floats,
        targets_N: Targets,
        *,
        teacher_outputs_NC: Floats,
        groups_N: Groups | None = None,
    ) -> float:
        """The task's metric, at most 1.

        Args:
            outputs_NC: Outputs of the model.
            targets_N: Targets as in the module's table; (N, C) where several labels may be right.
            teacher_outputs_NC: Outputs of the teacher; embeddings have no other target.
            groups_N: Question of each row, for multiple choice.
        """
        return self.metric_of(outputs_NC, targets_N, teacher_outputs_NC, groups_N)

    def measure_others(
        self, outputs_NC: Floats, targets_N: Targets, *, groups_N: Groups | None = None
    ) -> dict[str, float]:
        """Metrics that are shown beside the task's own, by name, each 0-1."""
        return self.others_of(outputs_NC, targets_N, groups_N)

    def measure_agreement(
        self, outputs_NC: Floats, teacher_outputs_NC: Floats, *, groups_N: Groups | None = None
    ) -> float:
        """Agreement of a model with its teacher, at most 1.

        For labels it is the share of rows with the teacher's label (all labels, where there may be
        several), for choices the share of groups with the teacher's choice, for regression
        Spearman's correlation, for embeddings the mean cosine.
        """
        return self.agreement_of(outputs_NC, teacher_outputs_NC, groups_N)


def classify(
    logits_NC: Floats,
) -> tuple[NDArray[np.intp], Floats]:
    """Most probable class (N,) of each row and its softmax probability (N,).

    Rows of NaN give class 0 and probability NaN.
    """
    if len(logits_NC) == 0:
        return np.empty(0, np.intp), np.empty(0, np.float32)
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    classes_N = logits_NC.argmax(axis=1)
    probabilities_N = 1 / np.exp(shifted_NC).sum(axis=1)
    return classes_N, probabilities_N.astype(np.float32)


def softmax(logits_NC: Floats) -> Floats:
    """Probability (N, C) of each class; the largest is exactly that of `classify`."""
    powers_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities_NC: Floats = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return probabilities_NC.astype(np.float32)


def sigmoid(logits_NC: Floats) -> Floats:
    """Probability of each label by itself; at least 0.5 exactly where the logit is not negative."""
    # exp of minus the magnitude cannot overflow.
    small_NC = np.exp(-np.abs(logits_NC))
    probabilities_NC: Floats = np.where(logits_NC >= 0, 1, small_NC) / (1 + small_NC)
    return probabilities_NC.astype(np.float32)


def label_sets(logits_NC: Floats, labels: tuple[str, ...]) -> list[list[str]]:
    """The labels of each row whose probability is at least 0.5; none for a row of NaN."""
    return [[labels[c] for c in np.flatnonzero(row_C)] for row_C in logits_NC >= 0]


def _accuracy(
    outputs_NC: Floats, targets_N: Targets, teacher_outputs_NC: Floats, groups_N: Groups | None
) -> float:
    return float((outputs_NC.argmax(axis=1) == targets_N).mean())


def _same_class(outputs_NC: Floats, teacher_outputs_NC: Floats, groups_N: Groups | None) -> float:
    return float((outputs_NC.argmax(axis=1) == teacher_outputs_NC.argmax(axis=1)).mean())


def _class_metrics(
    outputs_NC: Floats, targets_N: Targets, groups_N: Groups | None
) -> dict[str, float]:
    """Macro-F1; where rows come in groups, as the answers to one question do in MultiRC, also F1a
    (F1 of class 1 over all answers) and exact match (questions with no error).
    """
    classes_N = outputs_NC.argmax(axis=1)
    others = {"macro-F1": macro_f1(classes_N, targets_N)}
    if groups_N is not None:
        wrong = np.unique(groups_N[classes_N != targets_N])
        others["F1a"] = f1(classes_N == 1, targets_N == 1)
        others["exact match"] = 1 - len(wrong) / len(np.unique(groups_N))
    return others


def _micro_f1(
    outputs_NC: Floats, targets_N: Targets, teacher_outputs_NC: Floats, groups_N: Groups | None
) -> float:
    return f1(outputs_NC >= 0, targets_N != 0)


def _same_labels(outputs_NC: Floats, teacher_outputs_NC: Floats, groups_N: Groups | None) -> float:
    return float(((outputs_NC >= 0) == (teacher_outputs_NC >= 0)).all(axis=1).mean())


def _score_metric(
    outputs_NC: Floats, targets_N: Targets, teacher_outputs_NC: Floats, groups_N: Groups | None
) -> float:
    return spearman(outputs_NC[:, 0], targets_N)


def _same_order(outputs_NC: Floats, teacher_outputs_NC: Floats, groups_N: Groups | None) -> float:
    return spearman(outputs_NC[:, 0], teacher_outputs_NC[:, 0])


def _choice_accuracy(
    outputs_NC: Floats, targets_N: Targets, teacher_outputs_NC: Floats, groups_N: Groups | None
) -> float:
    assert groups_N is not None
    return float((targets_N[best_of_groups(outputs_NC[:, 0], groups_N)] == 1).mean())


def _same_choice(outputs_NC: Floats, teacher_outputs_NC: Floats, groups_N: Groups | None) -> float:
    assert groups_N is not None
    best, teacher_best = (
        best_of_groups(scores_NC[:, 0], groups_N) for scores_NC in (outputs_NC, teacher_outputs_NC)
    )
    return float((best == teacher_best).mean())


def _embedding_metric(
    outputs_NC: Floats, targets_N: Targets, teacher_outputs_NC: Floats, groups_N: Groups | None
) -> float:
    return rank_agreement(outputs_NC, teacher_outputs_NC)


def _mean_cosine(outputs_NC: Floats, teacher_outputs_NC: Floats, groups_N: Groups | None) -> float:
    return float((unit_rows(outputs_NC) * unit_rows(teacher_outputs_NC)).sum(axis=1).mean())


def _read_label(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    labels_N: NDArray[np.object_] = np.array(names, object)[outputs_NC.argmax(axis=1)]
    return labels_N


def _read_probability(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    return classify(outputs_NC)[1]


def _read_probabilities(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    return sigmoid(outputs_NC)


def _read_softmax(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    return softmax(outputs_NC)


def _read_score(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    return outputs_NC[:, 0]


def _read_vector(outputs_NC: Floats, names: tuple[str, ...]) -> Cells:
    return outputs_NC


_LOGITS = PredictionColumn(name="logits", kind="numbers", read=_read_vector)
_SIGMOIDS = PredictionColumn(name="probabilities", kind="numbers", read=_read_probabilities)
TEXT_CLASSIFICATION = Task(
    name="text-classification",
    targets="class",
    columns=(
        PredictionColumn(name="label", kind="label", read=_read_label),
        PredictionColumn(name="probability", kind="number", read=_read_probability),
    ),
    metric="accuracy",
    metric_of=_accuracy,
    agreement="equal labels",
    agreement_of=_same_class,
    others_of=_class_metrics,
    further=(PredictionColumn(name="probabilities", kind="numbers", read=_read_softmax), _LOGITS),
)
MULTI_LABEL_CLASSIFICATION = Task(
    name="multi-label-classification",
    targets="label set",
    columns=(
        PredictionColumn(name="labels", kind="labels", read=label_sets),
        _SIGMOIDS,
    ),
    further=(_LOGITS,),
    metric="micro-F1",
    metric_of=_micro_f1,
    agreement="equal label sets",
    agreement_of=_same_labels,
)
_SCORE = PredictionColumn(name="score", kind="number", read=_read_score)
REGRESSION = Task(
    name="regression",
    targets="number",
    columns=(_SCORE,),
    metric="Spearman",
    metric_of=_score_metric,
    agreement="Spearman",
    agreement_of=_same_order,
)
MULTIPLE_CHOICE = Task(
    name="multiple-choice",
    targets="choice",
    columns=(_SCORE,),
    metric="accuracy",
    metric_of=_choice_accuracy,
    agreement="equal choices",
    agreement_of=_same_choice,
)
EMBEDDING = Task(
    name="embedding",
    targets="none",
    columns=(PredictionColumn(name="embedding", kind="vector", read=_read_vector),),
    metric="rank agreement",
    metric_of=_embedding_metric,
    agreement="mean cosine",
    agreement_of=_mean_cosine,
)
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TEXT_CLASSIFICATION,
        MULTI_LABEL_CLASSIFICATION,
        REGRESSION,
        MULTIPLE_CHOICE,
        EMBEDDING,
    )
}
