"""Choose int8 ranges of activations on the user's own data, and what stays in float.

    float graph + training rows -> [calibration] -> ranges
    candidates + rows that choose -> [calibration] -> one of them -> int8 graph

Ranges are fixed before scoring, so a row's score is the same in any batch; dynamic quantization,
which takes them from the batch at hand, has moved a probability by up to 0.13 between being scored
alone and in a batch of 16. How much of an activation's tail to clip is decided by measurement:
each candidate is run, and the one whose logits stay closest to the float model's is taken.
If int8 then still agrees too little with the float model, the projections that do the most harm
are left in float, again by measurement. This module knows nothing of labels or of PyTorch.

Shape suffixes: N rows, C classes.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fastformers.errors import StageError
from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import write_graph
from fastformers.export.int8 import ActivationRange
from fastformers.inference.batching import plan_batches
from fastformers.inference.engine import run_graph
from fastformers.inference.tokenizer import TokenizedRows

NUM_BINS = 4096
# Shares of values left outside the range, both tails together, tried besides plain min-max.
CLIPPED_SHARES = (1e-6, 1e-5, 1e-4, 1e-3)
# Largest share of projections that may stay in float; beyond it int8 gains little.
MAX_FLOAT_SHARE = 0.25
_BATCH_TOKENS = 1024

logger = logging.getLogger(__name__)

Ranges = Mapping[str, ActivationRange | None]  # as `write_graph` takes them
OnProgress = Callable[[str, int, int], None]
# Takes logits (N, C) and the float model's; returns their agreement, at most 1.
Agreement = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


def choose_ranges(
    encoder: EncoderWeights,
    rows: TokenizedRows,
    choosing: TokenizedRows,
    *,
    text_pairs: bool,
    scratch: Path,
    agreement_of: Agreement,
    dynamic: bool,
    min_agreement: float,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[dict[str, ActivationRange | None], tuple[str, ...]]:
    """Decide which projections are int8, and the ranges of their inputs.

    Args:
        encoder: Weights of the model.
        rows: Calibration rows, whose activations are observed; a few hundred are enough.
        choosing: As many rows on which candidates are run and compared with the float model.
        text_pairs: Whether rows are pairs, as for `write_graph`.
        scratch: Directory for candidate graphs.
        agreement_of: Measures the agreement of logits with the float model's.
        dynamic: Whether ranges are left to the batch at hand; a row's score then depends on the
            other rows of its batch.
        min_agreement: Agreement with the float model that int8 must reach, at most 1.
        on_progress: Called with the name of the work, candidates run, and how many there are at
            most.

    Returns:
        Ranges for `write_graph`, and the names of the projections that stay in float.

    Raises:
        StageError: An activation is not finite, or no calibration gives finite logits.
    """
    observed = scratch / "observed.onnx"
    names = write_graph(encoder, observed, text_pairs=text_pairs, observe=True)
    if not names:  # static vectors: the token embeddings alone are int8
        return {}, ()
    float_logits_NC = run_graph(observed, choosing, max_batch_tokens=_BATCH_TOKENS)
    ranges: dict[str, ActivationRange | None] = dict.fromkeys(names)
    most = 1 + len(names) + int(MAX_FLOAT_SHARE * len(names))
    if not dynamic:
        most += 1 + len(_kinds(names)) * len(CLIPPED_SHARES)
    numbers = itertools.count(1)

    def on_candidate() -> None:
        on_progress("int8 candidates", next(numbers), most)

    if not dynamic:
        ranges |= calibrate(
            encoder,
            collect_histograms(observed, rows),
            rows=choosing,
            float_logits_NC=float_logits_NC,
            text_pairs=text_pairs,
            scratch=scratch,
            on_candidate=on_candidate,
        )
    ranges = keep_in_float(
        encoder,
        ranges,
        rows=choosing,
        float_logits_NC=float_logits_NC,
        text_pairs=text_pairs,
        scratch=scratch,
        agreement_of=agreement_of,
        min_agreement=min_agreement,
        on_candidate=on_candidate,
    )
    return ranges, tuple(name for name in names if name not in ranges)


@dataclass
class Histogram:
    """Counts of an activation's values between its own minimum and maximum."""

    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))

    def widen(self, values: NDArray[np.float32]) -> None:
        """First pass: widen the range to hold the values."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def count(self, values: NDArray[np.float32]) -> None:
        """Second pass: count the values."""
        # In float32, values that differ by a few roundings would leave no room for the bins.
        self.counts += np.histogram(values.astype(np.float64), NUM_BINS, (self.low, self.high))[0]

    def clipped_range(self, share: float) -> ActivationRange:
        """Narrowest range around zero that leaves at most `share` of the values outside."""
        edges = np.linspace(self.low, self.high, NUM_BINS + 1)
        below = np.cumsum(self.counts) / self.counts.sum()
        first = np.searchsorted(below, share / 2, side="right")
        last = np.searchsorted(below, 1 - share / 2)
        return ActivationRange(low=float(min(edges[first], 0)), high=float(max(edges[last + 1], 0)))


def collect_histograms(observed_graph: Path, rows: TokenizedRows) -> dict[str, Histogram]:
    """Histogram of every projection's input over the rows, by the projection's name.

    Args:
        observed_graph: A float graph written with `observe=True`.
        rows: Calibration rows; a few hundred are enough.

    Raises:
        StageError: A value is not finite.
    """
    session = onnxruntime.InferenceSession(observed_graph, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs() if o.name.endswith(".input")]
    takes_types = len(session.get_inputs()) > 1
    histograms = {name.removesuffix(".input"): Histogram() for name in outputs}
    for step in (Histogram.widen, Histogram.count):
        for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=_BATCH_TOKENS):
            feed = {"input_ids": rows.batch_ids(rows_B)}
            if takes_types:
                feed["token_type_ids"] = rows.batch_types(rows_B)
            for name, values in zip(histograms, session.run(outputs, feed), strict=True):
                if not np.isfinite(values).all():
                    raise StageError(f"the input of {name} is not finite; is the teacher finite?")
                step(histograms[name], values)
    return histograms


def calibrate(
    encoder: EncoderWeights,
    histograms: dict[str, Histogram],
    *,
    rows: TokenizedRows,
    float_logits_NC: NDArray[np.float32],
    text_pairs: bool,
    scratch: Path,
    clipped_shares: Sequence[float] = CLIPPED_SHARES,
    on_candidate: Callable[[], None] = lambda: None,
) -> dict[str, ActivationRange]:
    """Choose how much to clip for each kind of projection, by running the candidates.

    The best share differs by kind: the inputs of `up` have a few huge values that the model relies
    on, those of `down` have equally huge ones that it does not need. So each kind in turn takes the
    share that brings the logits closest to the float model's, while the other kinds stay.

    Args:
        encoder: Weights of the model.
        histograms: Histogram of every projection's input, by the projection's name.
        rows: N rows to compare on.
        float_logits_NC: Logits of the float graph on these rows.
        text_pairs: Whether rows are pairs, as for `write_graph`.
        scratch: Directory for candidate graphs.
        clipped_shares: Shares of values to try to leave outside the range, both tails together.
        on_candidate: Called whenever a candidate has run.

    Returns:
        Range of every projection's input, by the projection's name.

    Raises:
        StageError: No candidate gives finite logits.
    """

    def error_of(ranges: Ranges) -> float:
        logits_NC = _int8_logits(encoder, ranges, rows=rows, text_pairs=text_pairs, scratch=scratch)
        on_candidate()
        return float(np.square(logits_NC - float_logits_NC).mean())

    ranges = {name: histogram.clipped_range(0.0) for name, histogram in histograms.items()}
    error = error_of(ranges)
    for kind in _kinds(histograms):
        for share in clipped_shares:
            clipped = {
                name: histogram.clipped_range(share)
                for name, histogram in histograms.items()
                if name.rpartition(".")[2] == kind
            }
            if (candidate_error := error_of({**ranges, **clipped})) < error:
                ranges, error = {**ranges, **clipped}, candidate_error
    if not np.isfinite(error):
        raise StageError("no calibration gives finite logits; is the teacher finite?")
    return ranges


def keep_in_float(
    encoder: EncoderWeights,
    ranges: Ranges,
    *,
    rows: TokenizedRows,
    float_logits_NC: NDArray[np.float32],
    text_pairs: bool,
    scratch: Path,
    agreement_of: Agreement,
    min_agreement: float,
    on_candidate: Callable[[], None] = lambda: None,
) -> dict[str, ActivationRange | None]:
    """Take projections out of int8, the most harmful first, until int8 agrees well enough.

    The harm of a projection is how much closer the logits come to the float model's when it alone
    is left in float. All are ranked once, one run each, and only if int8 throughout does not agree
    well enough; then they leave int8 in that order, one more run each, up to `MAX_FLOAT_SHARE` of
    them. If even those are not enough, the number of them that agreed best leaves.

    Args:
        encoder: Weights of the model.
        ranges: Range of every projection's input; None for the range of each batch.
        rows: N rows to compare on.
        float_logits_NC: Logits of the float graph on these rows.
        text_pairs: Whether rows are pairs, as for `write_graph`.
        scratch: Directory for candidate graphs.
        agreement_of: Measures the agreement of logits with the float model's.
        min_agreement: Agreement with the float model that int8 must reach, at most 1.
        on_candidate: As for `calibrate`.

    Returns:
        `ranges` without the projections that stay in float.
    """

    def logits_of(ranges: Ranges) -> NDArray[np.float32]:
        logits_NC = _int8_logits(encoder, ranges, rows=rows, text_pairs=text_pairs, scratch=scratch)
        on_candidate()
        return logits_NC

    agreement = agreement_of(logits_of(ranges), float_logits_NC)
    if agreement >= min_agreement:
        return dict(ranges)
    error_without = {
        name: float(np.square(logits_of(_without(ranges, [name])) - float_logits_NC).mean())
        for name in ranges
    }
    ranking = sorted(ranges, key=error_without.__getitem__)
    best = 0
    for count in range(1, int(MAX_FLOAT_SHARE * len(ranges)) + 1):
        candidate = agreement_of(logits_of(_without(ranges, ranking[:count])), float_logits_NC)
        if candidate > agreement:
            best, agreement = count, candidate
        if agreement >= min_agreement:
            break
    else:
        logger.warning(
            "int8 agrees with the float model to %.1f%% even with %s in float; asked for %.1f%%",
            100 * agreement,
            ", ".join(ranking[:best]) or "more",
            100 * min_agreement,
        )
    return _without(ranges, ranking[:best])


def _kinds(names: Iterable[str]) -> list[str]:
    """Kinds of projections, such as `up`, in the order of the names."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def _without(ranges: Ranges, names: Sequence[str]) -> dict[str, ActivationRange | None]:
    return {name: span for name, span in ranges.items() if name not in names}


def _int8_logits(
    encoder: EncoderWeights, ranges: Ranges, *, rows: TokenizedRows, text_pairs: bool, scratch: Path
) -> NDArray[np.float32]:
    path = scratch / "candidate.onnx"
    write_graph(encoder, path, text_pairs=text_pairs, ranges=ranges)
    return run_graph(path, rows, max_batch_tokens=_BATCH_TOKENS)
