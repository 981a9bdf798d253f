"""Round floats to int8 steps that every CPU multiplies exactly.

    weights, activation ranges -> [int8] -> int8 steps and scales -> graph

This is pure arithmetic; it knows nothing of ONNX, layers or calibration.

Shape suffixes: V vocabulary, E embedding width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats


@dataclass(frozen=True, kw_only=True)
class ActivationRange:
    """Values that an int8 activation can hold; anything outside is clipped."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Width of one of the 255 steps."""
        return max(self.high - self.low, 1e-8) / 255

    @property
    def zero_point(self) -> int:
        """The step that stands for zero."""
        return round(min(max(-self.low / self.scale, 0), 255))


def quantize_weight(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round a projection to int8 steps that every CPU multiplies exactly.

    x86 CPUs without VNNI (AVX2, AVX-512 BW) multiply uint8 activations with int8 weights two at a
    time and add each pair, inputs 2k and 2k + 1, in 16 bits that saturate (vpmaddubsw): 255 x 127
    twice is 64,770, and 32,767 is kept. So the scale of a column is the largest same-signed sum of
    a pair, not the largest weight, over 127: 255 x (127 + 1 of rounding) fits. On MiniLM that makes
    a step 1.28 times as large as the full range does; 7-bit weights, the usual remedy, double it.

    Args:
        weight: Weights (inputs, outputs).

    Returns:
        Steps (inputs, outputs) and the size of a step, per column (outputs,).
    """
    pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    largest = np.maximum(
        np.maximum(pairs, 0).sum(axis=1).max(axis=0), np.maximum(-pairs, 0).sum(axis=1).max(axis=0)
    )
    return _round_to_steps(weight, largest)


def quantize_token_embeddings(token_embeddings_VE: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round token embeddings, which enter no product: steps (V, E), size of a step (V,)."""
    steps, scale_V = _round_to_steps(token_embeddings_VE.T, np.abs(token_embeddings_VE).max(axis=1))
    return steps.T, scale_V


def _round_to_steps(weight: Floats, largest: Floats) -> tuple[NDArray[np.int8], Floats]:
    scale = (largest / 127).astype(np.float32)
    scale[scale == 0] = 1
    return np.rint(weight / scale).astype(np.int8), scale
