"""Lay an encoder's weights out for the kernels of GPUs; what it computes stays the same.

    EncoderWeights -> [gpu_layout] -> GpuLayer -> gpu_layers -> float16 graph

A GPU waits for memory more than for arithmetic, so each pass over the activations that arithmetic
can do without is taken out here, and what kernels ask of shapes is given to them:
- fused attention wants heads of a multiple of 8 values: queries, keys and values get zero columns,
  which add nothing to a score and nothing to a context;
- a bias of the keys adds the same to all scores of a query, which its softmax takes out again; a
  bias of the values adds itself to each context, because the weights of one sum to 1, so that it is
  a bias of the output projection;
- relu(x + b) = max(x, -b) + b, and what is added to the inner values of the feed-forward is a bias
  of its output: one pass in place of two.
All of this holds in exact arithmetic. Where keys are rotated, or multiplied with embeddings of the
offset, their bias does not cancel and stays. This module knows nothing of ONNX.

Shape suffixes: as in encoder.py.
"""

from dataclasses import dataclass, replace

import numpy as np

from fastformers.arrays import Floats
from fastformers.export.encoder import Activation, Layer, Linear, RelativePositions

# What the fused attention of ONNX Runtime's CUDA kernels asks for.
HEAD_MULTIPLE = 8


@dataclass(frozen=True, kw_only=True)
class GpuLayer:
    """A layer as a GPU computes it.

    Attributes:
        layer: The layer, its heads padded, its biases where they cost least.
        score_scale: What scores are multiplied by: that of the heads before they were padded.
        floor_F: What the inner values of the feed-forward are raised to where they are less, in
            place of its activation; None where it has another activation.
    """

    layer: Layer
    score_scale: float
    floor_F: Floats | None


def lay_out(layer: Layer, activation: Activation) -> GpuLayer:
    """The layer for GPUs.

    Args:
        layer: A layer of an encoder.
        activation: Activation of its feed-forward.
    """
    layer, floor_F = _fold_relu(_fold_biases(layer), activation)
    return GpuLayer(layer=_pad_heads(layer), score_scale=layer.head_width**-0.5, floor_F=floor_F)


def _fold_biases(layer: Layer) -> Layer:
    cancels = layer.relative is None and layer.rotary_frequencies is None
    bias = layer.output.bias + layer.value.bias @ layer.output.weight
    return replace(
        layer,
        key=_without_bias(layer.key) if cancels else layer.key,
        value=_without_bias(layer.value),
        output=replace(layer.output, bias=bias),
    )


def _fold_relu(layer: Layer, activation: Activation) -> tuple[Layer, Floats | None]:
    if activation != "relu" or layer.gate is not None or not layer.up.bias.any():
        return layer, None
    down = replace(layer.down, bias=layer.down.bias + layer.up.bias @ layer.down.weight)
    return replace(layer, up=_without_bias(layer.up), down=down), -layer.up.bias


def _without_bias(linear: Linear) -> Linear:
    return replace(linear, bias=np.zeros_like(linear.bias))


def _pad_heads(layer: Layer) -> Layer:
    """Zeros after the values of each head, or of each half of it where halves are rotated."""
    missing = -layer.head_width % HEAD_MULTIPLE
    if missing == 0:
        return layer
    num_parts = layer.num_heads * (1 if layer.rotary_frequencies is None else 2)

    def pad(values: Floats) -> Floats:
        """Pad the last axis, (..., W)."""
        parts = values.reshape(*values.shape[:-1], num_parts, -1)
        zeros = missing * layer.num_heads // num_parts
        widened = np.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, zeros)])
        return widened.reshape(*values.shape[:-1], -1)

    def pad_linear(linear: Linear) -> Linear:
        return Linear(weight=pad(linear.weight), bias=pad(linear.bias))

    frequencies, relative = layer.rotary_frequencies, layer.relative
    if frequencies is not None:
        frequencies = np.pad(frequencies, (0, missing // 2))
    if relative is not None:
        relative = RelativePositions(
            rows_O=relative.rows_O,
            keys_RW=None if relative.keys_RW is None else pad(relative.keys_RW),
            queries_RW=None if relative.queries_RW is None else pad(relative.queries_RW),
        )
    return replace(
        layer,
        query=pad_linear(layer.query),
        key=pad_linear(layer.key),
        value=pad_linear(layer.value),
        output=replace(layer.output, weight=pad(layer.output.weight.T).T),
        relative=relative,
        rotary_frequencies=frequencies,
    )
