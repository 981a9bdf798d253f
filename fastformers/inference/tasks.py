"""What differs between tasks: what a model's output means, and how well it meets its targets.

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
question, and the one with the largest logit is the answer. Numpy alone, so that scoring can read
its outputs without torch; knows nothing of texts, models or files.

Shape suffixes: N rows, C classes (or other outputs), P pairs of rows.
"""

from typing import Literal, assert_never, get_args

import numpy as np
from numpy.typing import NDArray

TaskName = Literal[
    "text-classification",
    "multi-label-classification",
    "regression",
    "multiple-choice",
    "embedding",
]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
# Pairs of texts grow with the square of the texts: 1,000 texts make half a million.
MAX_COMPARED_TEXTS = 1000

Floats = NDArray[np.float32]


def metric_name(task: TaskName) -> str:
    """What `measure_metric` measures, as shown to the user."""
    match task:
        case "text-classification" | "multiple-choice":
            return "accuracy"
        case "multi-label-classification":
            return "micro-F1"
        case "regression":
            return "Spearman"
        case "embedding":
            return "rank agreement"
        case _:
            assert_never(task)


def prediction_columns(task: TaskName) -> tuple[str, ...]:
    """Columns that a prediction has, before `error`."""
    match task:
        case "text-classification":
            return ("label", "probability")
        case "multi-label-classification":
            return ("labels", "probabilities")
        case "regression" | "multiple-choice":
            return ("score",)
        case "embedding":
            return ("embedding",)
        case _:
            assert_never(task)


def has_labels(task: TaskName) -> bool:
    """Whether the model's outputs have names."""
    return task in ("text-classification", "multi-label-classification")


def measure_metric(
    task: TaskName,
    outputs_NC: Floats,
    targets_N: NDArray[np.generic],
    *,
    teacher_outputs_NC: Floats,
    groups_N: NDArray[np.int64] | None = None,
) -> float:
    """The task's metric, at most 1.

    Args:
        task: What the outputs mean.
        outputs_NC: Of the model.
        targets_N: See the module's table; (N, C) where several labels may be right.
        teacher_outputs_NC: Of the teacher; embeddings have no other target.
        groups_N: Question of each row, for multiple choice.
    """
    match task:
        case "text-classification":
            return float((outputs_NC.argmax(axis=1) == targets_N).mean())
        case "multi-label-classification":
            return _f1(outputs_NC >= 0, targets_N != 0)
        case "regression":
            return spearman(outputs_NC[:, 0], targets_N)
        case "multiple-choice":
            assert groups_N is not None
            return float((targets_N[best_of_groups(outputs_NC[:, 0], groups_N)] == 1).mean())
        case "embedding":
            return rank_agreement(outputs_NC, teacher_outputs_NC)
        case _:
            assert_never(task)


def measure_other_metrics(
    task: TaskName,
    outputs_NC: Floats,
    targets_N: NDArray[np.generic],
    *,
    groups_N: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """What is shown beside the metric, by name, each 0-1.

    Macro-F1 for classes; where their rows come in groups, as the answers to one question do in
    MultiRC, also F1a (F1 of class 1 over all answers) and exact match (questions with no error).
    """
    if task != "text-classification":
        return {}
    classes_N = outputs_NC.argmax(axis=1)
    others = {"macro-F1": _macro_f1(classes_N, targets_N)}
    if groups_N is not None:
        wrong = np.unique(groups_N[classes_N != targets_N])
        others["F1a"] = _f1(classes_N == 1, targets_N == 1)
        others["exact match"] = 1 - len(wrong) / len(np.unique(groups_N))
    return others


def measure_agreement(
    task: TaskName,
    outputs_NC: Floats,
    teacher_outputs_NC: Floats,
    *,
    groups_N: NDArray[np.int64] | None = None,
) -> float:
    """How far a model still says what its teacher says, at most 1.

    The share of rows with the teacher's label (all labels, where there may be several) or of
    groups with its choice; for regression Spearman's correlation, for embeddings the mean cosine.
    """
    match task:
        case "text-classification":
            return float((outputs_NC.argmax(axis=1) == teacher_outputs_NC.argmax(axis=1)).mean())
        case "multi-label-classification":
            return float(((outputs_NC >= 0) == (teacher_outputs_NC >= 0)).all(axis=1).mean())
        case "regression":
            return spearman(outputs_NC[:, 0], teacher_outputs_NC[:, 0])
        case "multiple-choice":
            assert groups_N is not None
            best, teacher_best = (
                best_of_groups(scores_NC[:, 0], groups_N)
                for scores_NC in (outputs_NC, teacher_outputs_NC)
            )
            return float((best == teacher_best).mean())
        case "embedding":
            return float((_unit(outputs_NC) * _unit(teacher_outputs_NC)).sum(axis=1).mean())
        case _:
            assert_never(task)


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


def sigmoid(logits_NC: Floats) -> Floats:
    """Probability of each label by itself; at least 0.5 exactly where the logit is not negative."""
    # exp of minus the magnitude cannot overflow.
    small_NC = np.exp(-np.abs(logits_NC))
    probabilities_NC: Floats = np.where(logits_NC >= 0, 1, small_NC) / (1 + small_NC)
    return probabilities_NC.astype(np.float32)


def label_sets(logits_NC: Floats, labels: tuple[str, ...]) -> list[list[str]]:
    """The labels of each row whose probability is at least 0.5; none for a row of NaN."""
    return [[labels[c] for c in np.flatnonzero(row_C)] for row_C in logits_NC >= 0]


def best_of_groups(scores_N: Floats, groups_N: NDArray[np.int64]) -> NDArray[np.intp]:
    """Row of the largest score in each group, in the order of the groups; the first, if equal."""
    order_N = np.lexsort((-scores_N, groups_N))
    _, firsts = np.unique(groups_N[order_N], return_index=True)
    return order_N[firsts]


def spearman(first_N: NDArray[np.generic], second_N: NDArray[np.generic]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 if one is constant."""
    first_ranks_N, second_ranks_N = _ranks(first_N), _ranks(second_N)
    if np.array_equal(first_ranks_N, second_ranks_N):
        return 1.0
    first_ranks_N -= first_ranks_N.mean()
    second_ranks_N -= second_ranks_N.mean()
    norm = np.sqrt(np.square(first_ranks_N).sum() * np.square(second_ranks_N).sum())
    return float((first_ranks_N * second_ranks_N).sum() / norm) if norm else 0.0


def rank_agreement(embeddings_NC: Floats, teacher_embeddings_NC: Floats) -> float:
    """Whether two models rank the pairs of texts alike by similarity.

    Spearman's correlation of the cosines of all pairs of at most `MAX_COMPARED_TEXTS` rows, evenly
    spaced: a search with the one finds what a search with the other does.
    """
    num_rows = len(embeddings_NC)
    rows = np.linspace(0, num_rows - 1, min(num_rows, MAX_COMPARED_TEXTS)).astype(int)
    upper = np.triu_indices(len(rows), k=1)
    cosines_P, teacher_cosines_P = (
        (_unit(vectors[rows]) @ _unit(vectors[rows]).T)[upper]
        for vectors in (embeddings_NC, teacher_embeddings_NC)
    )
    return spearman(cosines_P, teacher_cosines_P)


def _ranks(values_N: NDArray[np.generic]) -> NDArray[np.float64]:
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return ranks[inverse_N]


def _unit(vectors_NC: Floats) -> Floats:
    norms_N = np.linalg.norm(vectors_NC, axis=1, keepdims=True).astype(np.float32)
    unit_NC: Floats = vectors_NC / np.maximum(norms_N, np.float32(1e-12))
    return unit_NC


def _f1(is_predicted: NDArray[np.bool_], is_true: NDArray[np.bool_]) -> float:
    """F1 over all entries; 1 where nothing is true and nothing was predicted."""
    num_marked = int(is_predicted.sum()) + int(is_true.sum())
    return 2 * int((is_predicted & is_true).sum()) / num_marked if num_marked else 1.0


def _macro_f1(classes_N: NDArray[np.intp], targets_N: NDArray[np.generic]) -> float:
    """Mean F1 of the classes that occur, in the targets or among the predictions."""
    occurring = np.union1d(classes_N, targets_N)
    return float(np.mean([_f1(classes_N == c, targets_N == c) for c in occurring]))
