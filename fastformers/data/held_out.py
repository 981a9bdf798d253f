"""Measure outputs of models against the targets of held-out examples.

    Examples, task, class names -> [held_out] -> metric, agreement -> finetune, quality gate

Where a question is answered by the candidate that scores highest (ReCoRD), the metric is the F1 of
the words of that answer, whatever the task that the model was trained for. This module knows
nothing of models but their outputs.

Shape suffixes: N examples, C outputs, G questions, U questions where rows share one, or
else rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.data.examples import Examples
from fastformers.data.targets import encode_targets
from fastformers.inference.metrics import best_of_groups
from fastformers.inference.tasks import Task

_ANSWER_METRIC = "F1"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What outputs for N examples are compared with.

    Attributes:
        task: Task of the models.
        targets_N: Targets, as `targets.encode_targets` makes them.
        groups_N: Number of the question that a row belongs to, where several rows share one.
        overlaps_N: F1 of the words of each row's candidate against the right answers, where the
            row of a question that scores highest is its answer.
    """

    task: Task
    targets_N: NDArray[np.generic]
    groups_N: NDArray[np.int64] | None = None
    overlaps_N: NDArray[np.float64] | None = None

    @property
    def metric(self) -> str:
        """Name of what `measure` gives."""
        return self.task.metric if self.overlaps_N is None else _ANSWER_METRIC

    @property
    def num_judged(self) -> int:
        """Number of rows that the metric is over, or of questions where one row is the answer."""
        if self.groups_N is not None and (self.task.is_choice or self.overlaps_N is not None):
            return len(np.unique(self.groups_N))
        return len(self.targets_N)

    def measure(self, outputs_NC: Floats, teacher_outputs_NC: Floats) -> float:
        """The metric of a model, at most 1; embeddings are compared with the teacher's."""
        if self.overlaps_N is not None:
            return float(self.overlaps_N[self.answers(outputs_NC)].mean())
        return self.task.measure(
            outputs_NC,
            self.targets_N,
            teacher_outputs_NC=teacher_outputs_NC,
            groups_N=self.groups_N,
        )

    def measure_others(self, outputs_NC: Floats) -> dict[str, float]:
        """Metrics that are shown beside it, by name, each 0-1."""
        if self.overlaps_N is not None:
            is_right_G = self.targets_N[self.answers(outputs_NC)] == 1
            return {"exact match": float(is_right_G.mean())}
        return self.task.measure_others(outputs_NC, self.targets_N, groups_N=self.groups_N)

    def measure_agreement(self, outputs_NC: Floats, teacher_outputs_NC: Floats) -> float:
        """Agreement with the teacher, at most 1: for questions, the share of equal answers."""
        if self.overlaps_N is not None:
            return float((self.answers(outputs_NC) == self.answers(teacher_outputs_NC)).mean())
        return self.task.measure_agreement(outputs_NC, teacher_outputs_NC, groups_N=self.groups_N)

    def count_right(self, outputs_NC: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Parts (U,) of the metric where it is a ratio of sums over U questions, or else rows.

        Returns:
            What of each unit is right, and what it is right of: their sums' ratio is the metric.
            For micro-F1 these are twice the labels found, and the labels found or there.
        """
        if self.overlaps_N is not None:
            right_U = self.overlaps_N[self.answers(outputs_NC)]
            return right_U, np.ones(len(right_U))
        if self.task.is_choice:
            assert self.groups_N is not None
            answers_G = best_of_groups(outputs_NC[:, 0], self.groups_N)
            return (self.targets_N[answers_G] == 1).astype(np.float64), np.ones(len(answers_G))
        if self.task.targets == "label set":
            is_found_NC, is_true_NC = outputs_NC >= 0, self.targets_N != 0
            right_N = 2.0 * (is_found_NC & is_true_NC).sum(axis=1)
            judged_N = (is_found_NC.sum(axis=1) + is_true_NC.sum(axis=1)).astype(np.float64)
        else:
            assert self.task.targets == "class", self.task
            right_N = (outputs_NC.argmax(axis=1) == self.targets_N).astype(np.float64)
            judged_N = np.ones(len(right_N))
        if self.groups_N is None:
            return right_N, judged_N
        _, groups_N = np.unique(self.groups_N, return_inverse=True)
        right_G, judged_G = np.zeros((2, int(groups_N.max(initial=-1)) + 1))
        np.add.at(right_G, groups_N, right_N)
        np.add.at(judged_G, groups_N, judged_N)
        return right_G, judged_G

    def answers(self, outputs_NC: Floats) -> NDArray[np.intp]:
        """Row (G,) that answers each question: the one most surely of class 1, the right ones'."""
        assert self.groups_N is not None
        return best_of_groups(outputs_NC[:, 1] - outputs_NC[:, 0], self.groups_N)


def metric_of(examples: Examples, task: Task) -> str:
    """Name of the metric by which models are compared on examples."""
    return task.metric if examples.overlaps is None else _ANSWER_METRIC


def hold_out(examples: Examples, task: Task, names: Sequence[str], path: Path) -> HeldOut:
    """Encode the targets of held-out examples.

    Args:
        examples: N labeled examples.
        task: The models' task.
        names: Names of their classes, by class index.
        path: The file that the examples come from, for messages.

    Raises:
        InputError: The labels do not suit the task or the classes.
    """
    return HeldOut(
        task=task,
        targets_N=encode_targets(examples, task, names, path),
        groups_N=None if examples.groups is None else np.array(examples.groups),
        overlaps_N=None if examples.overlaps is None else np.array(examples.overlaps),
    )
