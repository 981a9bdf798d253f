"""Predictions for texts, in the form that each user wants: lists, arrays, Arrow, pandas.

    scorer -> outputs, errors -> [predictions] -> labels, probabilities, scores, embeddings, table

Which of them there are is the task's: to ask a classifier for embeddings is refused. The table has
the columns that `fastformers score` writes. This module knows nothing of tokens or engines.

Shape suffixes: N texts, C labels (or other outputs), D numbers of an embedding.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import InputError
from fastformers.inference.outputs.columns import choose_columns
from fastformers.inference.tasks import EMBEDDING, Task
from fastformers.installation import pip_install

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
        return np.asarray(self._read("probability"), np.float32)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Probability (N, C), 0-1, of every label, in the order of `label_names`.

        They add up to 1, unless several labels may be right. NaN where a text could not be scored.

        Raises:
            InputError: The task has no labels.
        """
        return np.asarray(self._read("probabilities"), np.float32)

    def top_k(self, k: int) -> list[list[dict[str, Any]]]:
        """The k most probable labels of each text, the surest first.

        Args:
            k: How many, from 1 to C.

        Returns:
            For each text a list of {"label": ..., "probability": ...}; an empty one where it could
            not be scored.

        Raises:
            InputError: There are not so many labels, or none.
        """
        self._need(self.task.has_labels, "labels")
        if isinstance(k, bool) or not isinstance(k, SupportsIndex) or not 0 < k <= self._num_labels:
            raise InputError(f"top_k {k!r}: give 1 to {self._num_labels}, the number of labels")
        (column,) = choose_columns([f"top_k={k}"], self.task, self.label_names)
        cells: Any = column.read(self.logits_NC, self.label_names)
        return [[] if row in self.errors else cell for row, cell in enumerate(cells)]

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

    def to_arrow(self, columns: Sequence[str] = ()) -> "pa.Table":
        """A table of N rows: what `fastformers score` writes for the task, and `error`.

        Args:
            columns: Names of other columns, as for `--columns`: "label", "top_k=3".

        Returns:
            A table whose last column, `error`, holds the reason where a text could not be scored,
            and the others are null there.

        Raises:
            InputError: The task has no such column.
        """
        import pyarrow as pa

        from fastformers.inference.outputs.arrow_columns import prediction_columns

        chosen = choose_columns(columns, self.task, self.label_names)
        errors = pa.array([self.errors.get(row) for row in range(len(self))], pa.string())
        text_N = pa.array(np.arange(len(self)), mask=errors.is_valid().to_numpy(False))
        cells = prediction_columns(chosen, self.logits_NC, self.label_names, text_N)
        return pa.table({**cells, "error": errors})

    def to_pandas(self, index: Any = None, columns: Sequence[str] = ()) -> "pd.DataFrame":
        """The table of `to_arrow` as a DataFrame.

        Args:
            index: Its index, such as that of the texts' own DataFrame; 0 to N - 1 by default.
            columns: See `to_arrow`.

        Raises:
            InputError: pandas is not installed, the index is of another length, or the task has no
                such column.
        """
        try:
            frame = self.to_arrow(columns).to_pandas()
        except ModuleNotFoundError as error:
            raise InputError(
                f"to_pandas() needs pandas: {pip_install('pandas')}; to_arrow() needs nothing more"
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
        return self.to_arrow()

    @property
    def _num_labels(self) -> int:
        return len(self.label_names)

    def _read(self, name: str) -> Any:
        """Cells of a column, by name."""
        known = {column.name: column for column in (*self.task.columns, *self.task.further)}
        self._need(name in known, name)
        return known[name].read(self.logits_NC, self.label_names)

    def _need(self, is_there: bool, what: str) -> None:
        if not is_there:
            raise InputError(
                f"no {what}: the bundle's task is {self.task}, whose predictions have "
                f"{' and '.join(self.task.column_names)}"
            )
