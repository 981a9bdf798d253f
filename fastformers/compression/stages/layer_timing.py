"""Measure what a model's layers cost on this machine, by their heads and neurons.

    model + lengths of training rows -> one-layer graphs -> [layer_timing] -> layer_times -> plan

Each size is timed in a graph of one layer with weights of the model, in the precision that the
bundle will have, on one thread, in batches as a job makes them. Sizes take turns and CPU time
counts, so that other work on the machine slows all of them alike. Feed-forward widths are measured
a few and interpolated: int8 products take time in proportion to the width, and a multiple of 16 is
as good as one of 64. Heads are measured one by one: nodes of four heads make steps. The result is
kept beside the stages, so that a run that is resumed decides as it did. This module knows nothing
of importance or plans.

Shape suffixes: as in encoder.py, and N rows, B rows of a batch, T tokens of each.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.atomic_file import keep_json
from fastformers.clock import CpuTimer, median_in_turns
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.layer_times import LayerTimes, PartTimes
from fastformers.digest import digest_of, library_versions
from fastformers.export.encoder import EncoderWeights, Layer, Linear
from fastformers.export.graph import GRAPH_VERSION, write_graph
from fastformers.export.int8 import ActivationRange
from fastformers.export.read_encoder import read_encoder
from fastformers.files.file_lock import in_turn
from fastformers.inference.batching import rows_per_batch
from fastformers.inference.cost_profile import warn_if_busy
from fastformers.inference.cpu import read_processor
from fastformers.inference.engine import OnnxEngine
from fastformers.models.forward import OnProgress

logger = logging.getLogger(__name__)

_BATCH_TOKENS = 1024  # the token budget that most models are fastest with
_NUM_LENGTHS = 3  # lengths that stand for a third of the tokens each
_NUM_WIDTHS, _MOST_HEADS = 6, 16  # sizes measured at most
_SMALLEST_WIDTH = 16
_TURNS = 9
_TOKEN_ID, _VOCABULARY = 5, 8  # of the graphs that are timed
_TICKS_OF_LAYER = 1000
_Timed = tuple[str, int, int]  # pooling of a one-layer graph, its heads and neurons
_ANY_RANGE = ActivationRange(low=-4.0, high=4.0)  # speed does not depend on values


def keep_layer_times(
    artifact: ModelArtifact,
    precision: str,
    keep_shares: Sequence[float] = (),
    on_progress: OnProgress = lambda what, done, total: None,
) -> LayerTimes:
    """Times of the layers of an artifact's model here, measured once for a work directory.

    Args:
        artifact: The model, and the training rows whose lengths count.
        precision: Precision of the graph that will be made of it.
        keep_shares: Shares of tokens that layers will pass on, from the first layer on.
        on_progress: Called with the name of the work, graphs written and graphs in all.
    """
    encoder = replace(read_encoder(artifact.model), max_length=artifact.max_length)
    if keep_shares:
        layers = list(encoder.layers)
        for index, share in enumerate(keep_shares):
            # Any weights: how long a layer takes does not depend on which tokens stay.
            weights_D = np.ones(encoder.width, np.float32)
            layers[index] = replace(layers[index], keep_share=share, significance_D=weights_D)
        encoder = replace(encoder, layers=tuple(layers))
    lengths = pick_lengths(artifact.tokenize(artifact.train).lengths_N)
    processor = read_processor()
    decisive = digest_of(
        _describe_shapes(encoder),
        lengths,
        precision,
        (processor.model, processor.features),
        (GRAPH_VERSION, library_versions()),
    )

    def measure() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=artifact.work) as scratch:
            times = measure_layer_times(
                encoder,
                lengths,
                precision=precision,
                scratch=Path(scratch),
                on_progress=on_progress,
            )
        return asdict(times)

    path = artifact.work / f"layer-times-{decisive[:16]}.json"
    with in_turn(path):  # a stage is named by the times: another run's must not replace them
        return LayerTimes.from_json(keep_json(path, measure))


def pick_lengths(lengths_N: NDArray[np.integer]) -> tuple[int, ...]:
    """Lengths of rows that stand for equal shares of all tokens, ascending."""
    ordered_N = np.sort(lengths_N)
    shares_N = np.cumsum(ordered_N) / ordered_N.sum()
    middles = (np.arange(_NUM_LENGTHS) + 0.5) / _NUM_LENGTHS
    return tuple(ordered_N[np.searchsorted(shares_N, middles)].tolist())


def measure_layer_times(
    encoder: EncoderWeights,
    lengths: Sequence[int],
    *,
    precision: str,
    scratch: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> LayerTimes:
    """Time layers of one model by their sizes; 5 seconds of CPU for 6 layers x 384, 20 for 768.

    Args:
        encoder: Weights of the model.
        lengths: Tokens of the rows to time, each with as many rows as a batch takes.
        precision: "int8", "int8-dynamic", or anything else for float.
        scratch: Directory for graphs.
        on_progress: Called with the name of the work, graphs written and graphs in all.
    """
    encoder = replace(encoder, token_embeddings_VE=encoder.token_embeddings_VE[:_VOCABULARY])
    most_neurons = max(encoder.layers, key=lambda layer: len(layer.up.bias))
    widest = replace(
        max(encoder.layers, key=lambda layer: layer.num_heads),
        keep_share=1.0,
        up=most_neurons.up,
        down=most_neurons.down,
    )
    alone = replace(encoder, pooling_of_tokens=None)
    heads = _spread(1, widest.num_heads, _MOST_HEADS)
    widths = _spread(_SMALLEST_WIDTH, len(widest.up.bias), _NUM_WIDTHS)
    encoders: dict[_Timed, EncoderWeights] = {("whole", 0, 0): encoder}
    for pooling in dict.fromkeys(("mean", encoder.pooling)):
        for num_heads, width in (*((n, widths[0]) for n in heads), *((1, w) for w in widths)):
            layer = _cut(widest, num_heads, width)
            encoders[pooling, num_heads, width] = replace(alone, pooling=pooling, layers=(layer,))
    seconds = _time_graphs(encoders, lengths, precision, scratch, on_progress)

    def times(pooling: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        by_heads = [seconds[pooling, num_heads, widths[0]] for num_heads in heads]
        by_width = [seconds[pooling, 1, width] for width in widths]
        return np.array(by_heads), np.array(by_width)

    inner, last = times("mean"), times(encoder.pooling)
    layer_s = sum(float(part.max() - part[0]) for part in inner)
    tick_s = max(layer_s, 1e-9) / _TICKS_OF_LAYER
    return LayerTimes(
        tick_s=tick_s,
        whole_s=seconds["whole", 0, 0],
        heads=PartTimes.of(heads, inner[0], tick_s),
        neurons=PartTimes.of(widths, inner[1], tick_s),
        last_heads=PartTimes.of(heads, last[0], tick_s),
        last_neurons=PartTimes.of(widths, last[1], tick_s),
        token_shares=_token_shares(encoder),
    )


def _token_shares(encoder: EncoderWeights) -> tuple[tuple[float, float], ...]:
    """Share of a row's tokens in attention and feed-forward of each layer; empty if all are."""
    share, shares = 1.0, []
    pooling = encoder.pooling_of_tokens
    for index, layer in enumerate(encoder.layers):
        if pooling is not None and pooling.before_layer == index:
            share /= pooling.every
        shares.append((share, share * layer.keep_share))
        share *= layer.keep_share
    return tuple(shares) if share < 1 else ()


def _time_graphs(
    encoders: Mapping[_Timed, EncoderWeights],
    lengths: Sequence[int],
    precision: str,
    scratch: Path,
    on_progress: OnProgress,
) -> dict[_Timed, float]:
    """CPU seconds of a token in each graph, mean over the lengths; the graphs take turns."""
    timer = CpuTimer()
    batches = [
        np.full((int(rows_per_batch(np.array(length), _BATCH_TOKENS)), length), _TOKEN_ID)
        for length in lengths
    ]

    def seconds_of(engine: OnnxEngine) -> float:
        return sum(
            timer.time_call(partial(engine.run, ids_BT, None)) / ids_BT.size for ids_BT in batches
        ) / len(batches)

    measurements = {}
    for number, (timed, encoder) in enumerate(encoders.items()):
        path = scratch / f"{number}.onnx"
        _write(encoder, path, precision)
        measurements[timed] = partial(seconds_of, OnnxEngine(path))
        on_progress("layer times", number + 1, len(encoders))
    seconds = median_in_turns(measurements, repeats=_TURNS)
    warn_if_busy(timer, "the layers' times")
    return seconds


def _write(encoder: EncoderWeights, path: Path, precision: str) -> None:
    names = write_graph(encoder, path, text_pairs=False)
    if precision in ("int8", "int8-dynamic"):
        span = _ANY_RANGE if precision == "int8" else None
        write_graph(encoder, path, text_pairs=False, ranges=dict.fromkeys(names, span))


def _spread(first: int, last: int, most: int) -> tuple[int, ...]:
    """Sizes from the first to the last, evenly spaced, `most` at most."""
    return tuple(np.unique(np.linspace(min(first, last), last, most).astype(int)).tolist())


def _cut(layer: Layer, num_heads: int, ffn_width: int) -> Layer:
    """The layer with its first heads and neurons."""
    heads_width = num_heads * layer.head_width
    return replace(
        layer,
        num_heads=num_heads,
        query=_outputs(layer.query, heads_width),
        key=_outputs(layer.key, heads_width),
        value=_outputs(layer.value, heads_width),
        output=_inputs(layer.output, heads_width),
        up=_outputs(layer.up, ffn_width),
        down=_inputs(layer.down, ffn_width),
    )


def _outputs(linear: Linear, count: int) -> Linear:
    return Linear(weight=linear.weight[:, :count], bias=linear.bias[:count])


def _inputs(linear: Linear, count: int) -> Linear:
    return Linear(weight=linear.weight[:count], bias=linear.bias)


def _describe_shapes(encoder: EncoderWeights) -> list[object]:
    """Everything of an encoder that decides its speed."""
    layers = [(layer.num_heads, layer.head_width, len(layer.up.bias)) for layer in encoder.layers]
    return [
        *(encoder.width, layers, encoder.activation, encoder.pooling, encoder.max_length),
        _token_shares(encoder),
    ]
