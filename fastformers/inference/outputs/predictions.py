"""Predictions for texts, in the form that each user wants: lists, arrays, Arrow, pandas.

    scorer -> outputs, errors -> [predictions] -> labels, probabilities, scores, embeddings, table

Which of them there are is the task's: to ask a classifier for embeddings is refused. The table has
the columns that `fastformers score` writes. This module knows nothing of tokens or engines.

Shape suffixes: N texts, C labels (or other outputs), D numbers of an embedding.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.inference.tasks import EMBEDDING, Task, classify

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Predictions:
    """Predictions for N texts, in their order.

    It has a length, is iterated and indexed: a row is a dict of the columns of `to_arrow`, a slice
    is `Predictions`.

    Attributes:
        task: Task of the bundle, which says what its outputs mean.
        label_names: Names of the C labels; none for scores and embeddings.
        logits_NC: Outputs of the graph: logits of all labels, a score (N, 1) or an embedding
            (N, D); NaN where a text could not be scored.
        errors: Reason why a text could not be scored, by its index, ascending.
    """

    task: Task
    label_names: tuple[str, ...]
    logits_NC: NDArray[np.float32]
    errors: dict[int, str]

    def __len__(self) -> int:
        return len(self.logits_NC)

    def __repr__(self) -> str:
        errors = f", {len(self.errors):,} of them not scored" if self.errors else ""
        return f"<Predictions of {len(self):,} texts by {self.task}{errors}>"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self._table.to_pylist()

    @overload
    def __getitem__(self, where: SupportsIndex) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, where: slice) -> "Predictions": ...

    def __getitem__(self, where: SupportsIndex | slice) -> "dict[str, Any] | Predictions":
        if isinstance(where, slice):
            rows = range(len(self))[where]
            return Predictions(
                task=self.task,
                label_names=self.label_names,
                logits_NC=self.logits_NC[where],
                errors={at: self.errors[row] for at, row in enumerate(rows) if row in self.errors},
            )
        row = range(len(self))[operator.index(where)]
        values: dict[str, Any] = self._table.slice(row, 1).to_pylist()[0]
        return values

    @cached_property
    def labels(self) -> list[str | list[str] | None]:
        """Label of each text, or list of labels where several may be right.

        None where a text could not be scored.

        Raises:
            InputError: The task has no labels.
        """
        self._need(self.task.has_labels, "labels")
        cells = self.task.columns[0].read(self.logits_NC, self.label_names)
        return [None if row in self.errors else cell for row, cell in enumerate(cells)]

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability (N,), 0-1, of the label of each text; NaN where it could not be scored.

        Raises:
            InputError: The task has no labels, or several may be right.
        """
        self._need(self.task.targets == "class", "probability of one label")
        return np.asarray(classify(self.logits_NC)[1], np.float32)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability (N, C), 0-1, of every label, in the order of `label_names`.

        They add up to 1, unless several labels may be right. NaN where a text could not be scored.

        Raises:
            InputError: The task has no labels.
        """
        self._need(self.task.has_labels, "probabilities of labels")
        return np.asarray(self.task.probabilities_of(self.logits_NC), np.float32)

    def top_k(self, k: int) -> list[list[tuple[str, float]]]:
        """The k most probable labels of each text with their probabilities, the surest first.

        Args:
            k: How many, from 1 to C.

        Returns:
            One list for each text; an empty one where it could not be scored.

        Raises:
            InputError: There are not so many labels, or none.
        """
        self._need(self.task.has_labels, "labels")
        names = self.label_names
        if isinstance(k, bool) or not isinstance(k, SupportsIndex) or not 1 <= k <= len(names):
            raise InputError(f"top_k {k!r}: give 1 to {len(names)}, the number of labels")
        best_NK = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        values_NK = np.take_along_axis(self.probabilities, best_NK, axis=1)
        return [
            []
            if row in self.errors
            else [(names[label], value) for label, value in zip(labels, values, strict=True)]
            for row, (labels, values) in enumerate(
                zip(best_NK.tolist(), values_NK.tolist(), strict=True)
            )
        ]

    @property
    def scores(self) -> NDArray[np.float32]:
        """Score (N,) of each text, of a regression or of a choice; NaN where there is none.

        Raises:
            InputError: The task gives no score.
        """
        self._need(self.task.targets in ("number", "choice"), "scores")
        return self.logits_NC[:, 0]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """Embedding (N, D) of each text; NaN where there is none.

        Raises:
            InputError: The task gives no embeddings.
        """
        self._need(self.task == EMBEDDING, "embeddings")
        return self.logits_NC

    def to_arrow(self) -> "pa.Table":
        """A table of N rows with the columns that `fastformers score` writes for the task.

        The last one is `error`: the reason where a text could not be scored, and the others are
        null; else null.
        """
        return self._table

    def to_pandas(self, index: Any = None) -> "pd.DataFrame":
        """The table of `to_arrow` as a DataFrame.

        Args:
            index: Its index, such as that of the texts' own DataFrame; 0 to N - 1 by default.

        Raises:
            InputError: pandas is not installed, or the index is of another length.
        """
        try:
            frame = self._table.to_pandas()
        except ModuleNotFoundError as error:
            raise InputError(
                "to_pandas() needs pandas: pip install pandas; to_arrow() needs nothing further"
            ) from error
        if index is not None:
            if len(index) != len(frame):
                raise InputError(
                    f"to_pandas: the index has {len(index):,} entries for {len(frame):,} texts"
                )
            frame.index = index
        return frame

    @cached_property
    def _table(self) -> "pa.Table":
        import pyarrow as pa

        from fastformers.inference.outputs.arrow_columns import prediction_columns

        errors = pa.array([self.errors.get(row) for row in range(len(self))], pa.string())
        text_N = pa.array(np.arange(len(self)), mask=errors.is_valid().to_numpy(False))
        columns = prediction_columns(self.task, self.logits_NC, self.label_names, text_N)
        return pa.table({**columns, "error": errors})

    def _need(self, is_there: bool, what: str) -> None:
        if not is_there:
            raise InputError(
                f"no {what}: the bundle's task is {self.task}, whose predictions have "
                f"{' and '.join(self.task.column_names)}"
            )
