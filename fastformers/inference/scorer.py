"""Score texts with a bundle in this process: the whole online half without Ray.

    bundle + texts -> lengths -> batches -> [scorer] -> predictions

    with fastformers.Scorer("bundle/") as scorer:
        predictions = scorer.score(["a text", "another"])
    predictions.labels, predictions.probabilities

An actor of the cluster uses a Scorer on shards. A row that holds no text keeps its place with the
reason, as in a corpus. A row that the engine cannot score is found by halving its batch; the others
are scored as if it were not there. In a cascade, the rows that the first graph is unsure of are
batched anew for the second, whose logits they have alone: what it fails on keeps no answer of the
first. This module knows nothing of shards or files of predictions.

Shape suffixes: N rows, G good ones of them, U rows with different token ids, B rows of a batch,
C outputs of a row.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastformers.errors import BundleError, InputError
from fastformers.inference.autotune import tune
from fastformers.inference.batching import plan_batches
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.cascade.graphs import open_graphs
from fastformers.inference.cascade.margins import margins
from fastformers.inference.cascade.passes import Work, run_pass
from fastformers.inference.engine import Engine
from fastformers.inference.engines import REFERENCE_ENGINE
from fastformers.inference.outputs.predictions import Predictions
from fastformers.inference.outputs.progress_bar import OnProgress, showing_progress
from fastformers.inference.tokenizer import TokenizedRows, find_unique
from fastformers.texts import check_texts, is_missing, values_of


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """Results of U tokenized rows, and the batches that they were computed in.

    Attributes:
        logits_UC: Logits (U, C), NaN where a row failed.
        errors: Reason why a row failed, by its position among the U.
        batches: Positions (B,) of the rows of each planned batch.
        computed_tokens: Tokens that each batch computed: rows x longest row.
        second_batches: The same of the rows that went on to the second graph of a cascade.
        second_s: Seconds that the second graph took.
    """

    logits_UC: NDArray[np.float32]
    errors: dict[int, str]
    batches: list[NDArray[np.intp]]
    computed_tokens: list[int]
    second_batches: list[NDArray[np.intp]] = field(default_factory=list)
    second_s: float = 0.0


class Scorer:
    """An opened bundle with its tokenizer and engine.

    It pickles as the bundle's path and the engine's name, and opens the bundle anew where it is
    unpickled: in a Spark UDF, a process of `multiprocessing`, a class of Ray Data.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        num_threads: int = 1,
        engine: str | Engine = REFERENCE_ENGINE,
        second_engine: Engine | None = None,
    ) -> None:
        """Open a bundle for scoring.

        Args:
            bundle: A bundle or its directory.
            num_threads: Threads that compute one batch; 0 for all cores.
            engine: What runs the graph: "onnxruntime", another one by the name that `--engine`
                takes, or "auto" for the fastest; or an engine of your own. What is not ONNX
                Runtime is compared with it, and its best token budget is measured once a machine.
            second_engine: What runs the second graph of a cascade, where `engine` is your own.

        Raises:
            BundleError: The bundle is missing or damaged.
            InputError: The engine is not known, not installed, or computes other logits than the
                one with which the bundle was measured; or `num_threads` is out of range.
        """
        check_whole("num_threads", num_threads, least=0)
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self._cascade = self.bundle.cascade
        self.tokenizer = self.bundle.load_tokenizer()
        self._num_threads = num_threads
        self._max_batch_tokens = self.bundle.cost_profile.max_batch_tokens
        self._engine_name = engine if isinstance(engine, str) else None
        if isinstance(engine, str):
            if engine != REFERENCE_ENGINE:
                choice = tune(self.bundle, engine=engine)
                self._engine_name, self._max_batch_tokens = choice.engine, choice.max_batch_tokens
            name = self._engine_name or engine
            engine, second_engine = open_graphs(self.bundle, name, num_threads=num_threads)
        self.bundle.check_graph(engine.input_names, engine.num_outputs)
        if (second_engine is None) != (self._cascade is None):
            raise InputError(
                f"second_engine: {self.bundle} has {'one graph' if second_engine else 'two graphs'}"
                ", give an engine for each"
            )
        self._engine: Engine | None = engine
        self._second = second_engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine's memory and threads back; to score again, open another Scorer."""
        self._engine = self._second = None

    def __reduce__(self) -> tuple[Callable[..., "Scorer"], tuple[Any, ...]]:
        if self._engine_name is None:
            raise InputError(
                "a Scorer with an engine of your own does not pickle; give the engine by name"
            )
        path = str(self.bundle.path.absolute())
        settings = (self._num_threads, self._engine_name, self._max_batch_tokens)
        return _reopen, (path, self.bundle.digest, *settings)

    @property
    def engine(self) -> Engine:
        """What runs the graph.

        Raises:
            InputError: The Scorer is closed.
        """
        if self._engine is None:
            raise InputError(f"{self.bundle}: this Scorer is closed; open another one")
        return self._engine

    def score(
        self,
        texts: Iterable[Any],
        text_pairs: Iterable[Any] | None = None,
        *,
        max_batch_tokens: int | None = None,
        progress: bool | OnProgress = False,
    ) -> Predictions:
        """Score texts, or pairs of texts where the bundle's model reads pairs.

        A row whose text is None or NaN, empty, not UTF-8 or no text at all is not scored; its
        reason is in `Predictions.errors`, as `fastformers score` writes it.

        Args:
            texts: N texts, or N (text, text) pairs: a list, an iterable, or a column of numpy,
                pandas, polars or pyarrow.
            text_pairs: The N second texts, if `texts` are the first ones alone.
            max_batch_tokens: Token budget of a batch; the bundle's measured best by default.
            progress: Whether to show a bar on stderr; or a function that is called after each
                batch with how many texts are done, and how many there are.

        Raises:
            InputError: One text stands where a pair is needed, or the reverse; the texts are one
                text or a table; or a value is out of range.
        """
        columns = self._columns(texts, text_pairs)
        num_rows = len(columns[0])
        errors: dict[int, str] = {}
        places = ("first text: ", "second text: ") if self.bundle.text_pairs else ("",)
        checked = check_texts(columns, places, errors)
        good_G = np.array([row for row in range(num_rows) if row not in errors], np.intp)
        logits_NC = np.full((num_rows, self.bundle.num_outputs), np.nan, np.float32)
        if len(good_G):
            good = [[column[row] for row in good_G.tolist()] for column in checked]
            rows = self.tokenizer.encode(*good)
            unique_G, first_U = find_unique(rows)
            texts_U = np.bincount(unique_G)
            with showing_progress(progress, num_rows, done=len(errors)) as advance:
                scored = self.score_tokens(
                    rows,
                    rows_U=first_U,
                    max_batch_tokens=max_batch_tokens,
                    on_batch=lambda batch: advance(int(texts_U[batch].sum())),
                )
            logits_NC[good_G] = scored.logits_UC[unique_G]
            for row, u in zip(good_G.tolist(), unique_G.tolist(), strict=True):
                if u in scored.errors:
                    errors[row] = scored.errors[u]
        return Predictions(
            task=self.bundle.task,
            label_names=self.bundle.labels,
            logits_NC=logits_NC,
            errors=dict(sorted(errors.items())),
        )

    def score_tokens(
        self,
        rows: TokenizedRows,
        *,
        rows_U: NDArray[np.intp] | None = None,
        max_batch_tokens: int | None = None,
        on_batch: Callable[[NDArray[np.intp]], None] = lambda batch: None,
    ) -> ScoredRows:
        """Logits of tokenized rows, and the batches that they were computed in.

        Args:
            rows: Tokenized rows.
            rows_U: Indices of the rows to score, in this order; all by default.
            max_batch_tokens: Token budget of a batch; the bundle's measured best by default.
            on_batch: Called after each batch with the positions (B,) of its rows among the U.

        Raises:
            InputError: The token budget is out of range, or the Scorer is closed.
        """
        if max_batch_tokens is None:
            max_batch_tokens = self._max_batch_tokens
        check_whole("max_batch_tokens", max_batch_tokens, least=1)
        rows_U = np.arange(len(rows)) if rows_U is None else rows_U
        logits_UC = np.full((len(rows_U), self.bundle.num_outputs), np.nan, np.float32)
        work = Work(rows=rows, rows_U=rows_U, logits_UC=logits_UC, errors={})
        unsure_U = np.zeros(len(rows_U), bool)

        def after(batch: NDArray[np.intp]) -> None:
            unsure_U[batch] = self._is_unsure(logits_UC[batch])
            on_batch(batch[~unsure_U[batch]])

        every_U = np.arange(len(rows_U))
        batches = run_pass(
            self.engine, work, every_U, max_batch_tokens=max_batch_tokens, on_batch=after
        )
        start = time.perf_counter()
        second_batches: list[NDArray[np.intp]] = []
        if self._second is not None and unsure_U.any():
            logits_UC[unsure_U] = np.nan
            second_batches = run_pass(
                self._second,
                work,
                np.flatnonzero(unsure_U),
                max_batch_tokens=max_batch_tokens,
                on_batch=on_batch,
                name="the cascade's second model",
            )
        lengths_U = rows.lengths_N[rows_U]
        return ScoredRows(
            logits_UC=logits_UC,
            errors=work.errors,
            batches=batches,
            computed_tokens=[len(batch) * int(lengths_U[batch].max()) for batch in batches],
            second_batches=second_batches,
            second_s=time.perf_counter() - start if second_batches else 0.0,
        )

    def warm_up(self, rows: TokenizedRows) -> None:
        """Run each graph on tokenized rows, whether or not they would go on to the second."""
        every_U = np.arange(len(rows))
        logits_UC = np.empty((len(rows), self.bundle.num_outputs), np.float32)
        work = Work(rows=rows, rows_U=every_U, logits_UC=logits_UC, errors={})
        for engine in filter(None, (self.engine, self._second)):
            run_pass(engine, work, every_U, max_batch_tokens=self._max_batch_tokens)

    def plan(
        self, rows: TokenizedRows, *, max_batch_tokens: int
    ) -> list[tuple[Engine, NDArray[np.intp]]]:
        """Rows (B,) of each batch in which rows are scored, with the engine that runs it.

        Which rows a cascade's second graph scores is known when the first has scored them.
        """
        if self._second is None:
            plan = plan_batches(rows.lengths_N, max_batch_tokens=max_batch_tokens)
            return [(self.engine, batch) for batch in plan]
        scored = self.score_tokens(rows, max_batch_tokens=max_batch_tokens)
        of_second = [(self._second, batch) for batch in scored.second_batches]
        return [*((self.engine, batch) for batch in scored.batches), *of_second]

    def _is_unsure(self, logits_BC: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which rows go on to the second graph; none that the first failed on."""
        unsure_B = np.zeros(len(logits_BC), bool)
        if self._cascade is not None:
            good_B = np.isfinite(logits_BC).all(axis=1)
            margins_G = margins(self.bundle.task, logits_BC[good_B])
            unsure_B[good_B] = margins_G < self._cascade.threshold
        return unsure_B

    def _columns(self, texts: Iterable[Any], text_pairs: Iterable[Any] | None) -> list[list[Any]]:
        """Values of the one or two columns that a row has, unchecked."""
        values = values_of(texts)
        if text_pairs is not None:
            if not self.bundle.text_pairs:
                raise InputError(f"text_pairs: {self.bundle} reads one text a row; leave them out")
            seconds = values_of(text_pairs)
            if len(seconds) != len(values):
                raise InputError(
                    f"text_pairs: {len(seconds):,} for {len(values):,} texts; give as many"
                )
            return [values, seconds]
        reads_pairs = self.bundle.text_pairs
        for row, value in enumerate(values):
            is_several = isinstance(value, (tuple, list))
            if reads_pairs and is_missing(value):
                values[row] = (None, None)
            elif is_several != reads_pairs or (is_several and len(value) != 2):
                expected = "a pair of texts" if reads_pairs else "one text"
                raise InputError(f"row {row}: {value!r:.60} is not {expected}, as the bundle needs")
        return [[pair[at] for pair in values] for at in (0, 1)] if reads_pairs else [values]


def open_scorer(bundle: Bundle, engine: str, *, num_threads: int) -> Scorer:
    """A Scorer with an engine that was chosen before: nothing is measured or compared.

    Raises:
        BundleError: The engine cannot load a graph of the bundle.
        InputError: The engine is not known or not installed.
    """
    first, second = open_graphs(bundle, engine, num_threads=num_threads)
    return Scorer(bundle, num_threads=num_threads, engine=first, second_engine=second)


def check_whole(name: str, value: int, *, least: int) -> None:
    """Refuse a value that is no whole number, or too small.

    Raises:
        InputError: It is one of these; names the argument and the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} {value!r}: give a whole number of at least {least}")


def _reopen(path: str, digest: str, num_threads: int, engine: str, max_batch_tokens: int) -> Scorer:
    """The Scorer that was pickled, in another process; nothing is measured again.

    Raises:
        BundleError: The bundle is not there, or another one is.
        InputError: The engine is not installed.
    """
    bundle = open_bundle(path)
    if bundle.digest != digest:
        raise BundleError(f"{path}: another bundle than when the Scorer was pickled; open it anew")
    scorer = open_scorer(bundle, engine, num_threads=num_threads)
    scorer._engine_name, scorer._max_batch_tokens = engine, max_batch_tokens
    return scorer
