"""Int8: find the range of every activation on the user's own data, and what int8 would spoil.

    float graph + training rows -> [calibration] -> ranges -> int8 graph

Ranges are fixed before scoring, so a row's score is the same in any batch; dynamic quantization,
which takes them from the batch at hand, moved a probability by up to 0.13 between being scored
alone and in a batch of 16. How much of an activation's tail to clip is decided by measurement:
each candidate is run, and the one whose logits stay closest to the float model's is taken.
If too many rows then still change their label, the projections that do the most harm are left in
float, again by measurement.

Shape suffixes: N calibration rows, C classes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
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
# Shares of values left outside the range, both tails together, tried beside plain min-max.
CLIPPED_SHARES = (1e-6, 1e-5, 1e-4, 1e-3)
# Beyond so many float projections int8 has little left to win.
MAX_FLOAT_SHARE = 0.25
_BATCH_TOKENS = 1024

logger = logging.getLogger(__name__)

Ranges = Mapping[str, ActivationRange | None]  # as `write_graph` takes them
# From logits (N, C) and the float model's to how far they say the same, at most 1.
Agreement = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


def choose_ranges(
    encoder: EncoderWeights,
    rows: TokenizedRows,
    *,
    text_pairs: bool,
    scratch: Path,
    agreement_of: Agreement,
    dynamic: bool,
    min_agreement: float,
) -> tuple[dict[str, ActivationRange | None], tuple[str, ...]]:
    """Decide what is int8, and the range of each activation there.

    Args:
        encoder: The classifier.
        rows: Calibration rows; a few hundred are enough.
        text_pairs: As for `write_graph`.
        scratch: Directory for candidate graphs.
        agreement_of: How far logits say what the float model's say.
        dynamic: Leave ranges to the batch at hand; a row's score then depends on its batch-mates.
        min_agreement: How far int8 must agree with the float model (1: wholly).

    Returns:
        Ranges for `write_graph`, and the names of the projections that stay in float.

    Raises:
        StageError: No calibration gives finite logits.
    """
    observed = scratch / "observed.onnx"
    names = write_graph(encoder, observed, text_pairs=text_pairs, observe=True)
    float_logits_NC = run_graph(observed, rows)
    ranges: dict[str, ActivationRange | None] = dict.fromkeys(names)
    if not dynamic:
        ranges |= calibrate(
            encoder,
            collect_histograms(observed, rows),
            rows=rows,
            float_logits_NC=float_logits_NC,
            text_pairs=text_pairs,
            scratch=scratch,
        )
    ranges = keep_in_float(
        encoder,
        ranges,
        rows=rows,
        float_logits_NC=float_logits_NC,
        text_pairs=text_pairs,
        scratch=scratch,
        agreement_of=agreement_of,
        min_agreement=min_agreement,
    )
    return ranges, tuple(name for name in names if name not in ranges)


@dataclass
class Histogram:
    """Counts of an activation's values between its own minimum and maximum."""

    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))

    def widen(self, values: NDArray[np.float32]) -> None:
        """First pass: take the values into the range."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def count(self, values: NDArray[np.float32]) -> None:
        """Second pass: count the values."""
        # In float64, or values that differ by a few roundings leave no room for the bins.
        self.counts += np.histogram(values.astype(np.float64), NUM_BINS, (self.low, self.high))[0]

    def clipped_range(self, share: float) -> ActivationRange:
        """Narrowest range around zero that leaves at most `share` of the values outside."""
        edges = np.linspace(self.low, self.high, NUM_BINS + 1)
        below = np.cumsum(self.counts) / max(1, self.counts.sum())
        first = int(np.searchsorted(below, share / 2, side="right")) if share else 0
        last = int(np.searchsorted(below, 1 - share / 2)) if share else NUM_BINS - 1
        return ActivationRange(
            low=float(min(edges[first], 0)), high=float(max(edges[min(last, NUM_BINS - 1) + 1], 0))
        )


def collect_histograms(observed_graph: Path, rows: TokenizedRows) -> dict[str, Histogram]:
    """Histogram of every projection's input over the rows, by the projection's name.

    Args:
        observed_graph: A float graph written with `observe=True`.
        rows: Calibration rows; a few hundred are enough.
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
) -> dict[str, ActivationRange]:
    """Choose how much to clip of each kind of projection, by running the candidates.

    Which share is best differs by kind: the inputs of `up` carry a few huge values that the model
    relies on, those of `down` carry as huge ones that it does not. So each kind in turn takes the
    share that brings the logits closest to the float model's, while the others stay.

    Args:
        encoder: The classifier.
        histograms: Of every projection's input.
        rows: N calibration rows.
        float_logits_NC: What the float graph says of them.
        text_pairs: As for `write_graph`.
        scratch: Directory for candidate graphs.
        clipped_shares: Candidates.

    Returns:
        Range of every projection's input, by the projection's name.

    Raises:
        StageError: No candidate gives finite logits.
    """

    def error_of(ranges: Ranges) -> float:
        logits_NC = _int8_logits(encoder, ranges, rows=rows, text_pairs=text_pairs, scratch=scratch)
        return float(np.square(logits_NC - float_logits_NC).mean())

    ranges = {name: histogram.clipped_range(0.0) for name, histogram in histograms.items()}
    error = error_of(ranges)
    for kind in dict.fromkeys(name.rpartition(".")[2] for name in histograms):
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
) -> dict[str, ActivationRange | None]:
    """Take projections out of int8, the most harmful first, until int8 agrees well enough.

    How much harm one does is how much closer to the float model's the logits come when it alone is
    left in float. All are ranked once, one run each, and only if int8 throughout is not good
    enough; then they leave int8 in that order, one more run each, up to `MAX_FLOAT_SHARE` of them.
    Where even those are not enough, as many leave as gave the best agreement.

    Args:
        encoder: The classifier.
        ranges: Of all projections.
        rows: N calibration rows.
        float_logits_NC: What the float graph says of them.
        text_pairs: As for `write_graph`.
        scratch: Directory for candidate graphs.
        agreement_of: How far logits say what the float model's say.
        min_agreement: How far int8 must agree with the float model (1: wholly).

    Returns:
        `ranges` without the projections that stay in float.
    """

    def logits_of(ranges: Ranges) -> NDArray[np.float32]:
        return _int8_logits(encoder, ranges, rows=rows, text_pairs=text_pairs, scratch=scratch)

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


def _without(ranges: Ranges, names: Sequence[str]) -> dict[str, ActivationRange | None]:
    return {name: span for name, span in ranges.items() if name not in names}


def _int8_logits(
    encoder: EncoderWeights, ranges: Ranges, *, rows: TokenizedRows, text_pairs: bool, scratch: Path
) -> NDArray[np.float32]:
    path = scratch / "candidate.onnx"
    write_graph(encoder, path, text_pairs=text_pairs, ranges=ranges)
    return run_graph(path, rows)
