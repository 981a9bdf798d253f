"""A BERT-family model as plain arrays: what the graph is laid from, whatever trained it.

    teacher -> [encoder] -> graph -> quantize -> bundle

One description covers BERT, RoBERTa, XLM-R, DistilBERT and ELECTRA: they differ in how embeddings
are summed and in the classification head, not in the layers. Knows nothing of torch or ONNX.

Shape suffixes: V vocabulary, P positions, E embedding width, D hidden width, W heads x head width,
F feed-forward width, C classes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Activation = Literal["gelu", "relu", "tanh"]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x @ weight + bias, with weight laid (inputs, outputs)."""

    weight: Floats
    bias: Floats

    @classmethod
    def stacked(cls, *parts: "Linear") -> "Linear":
        """One projection whose outputs are those of `parts`, side by side."""
        return cls(
            weight=np.concatenate([part.weight for part in parts], axis=1),
            bias=np.concatenate([part.bias for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Layer normalization over the last axis."""

    gain: Floats
    shift: Floats
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One post-norm transformer layer; `num_heads` may differ between layers."""

    num_heads: int
    query: Linear  # (D, W)
    key: Linear
    value: Linear
    output: Linear  # (W, D)
    attention_norm: Norm
    up: Linear  # (D, F)
    down: Linear  # (F, D)
    ffn_norm: Norm


@dataclass(frozen=True, kw_only=True)
class Head:
    """Classification head on the pooled vector: logits = output(activation(hidden(x)))."""

    hidden: Linear  # (D, D)
    activation: Activation
    output: Linear  # (D, C)


@dataclass(frozen=True, kw_only=True)
class EmbeddingHead:
    """What turns the pooled vector into an embedding: activation(projection(x)), to unit length."""

    projection: Linear | None
    activation: Activation | None
    normalize: bool


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A whole classifier, or embedding model.

    `places_PE` starts at the row of the first token (RoBERTa's padding offset is gone), and
    `types_KE` is None where a model has no token types. The head reads the `pooling` of the last
    layer: the first token, or the mean over all tokens of the row.
    """

    words_VE: Floats
    places_PE: Floats
    types_KE: Floats | None
    embedding_norm: Norm
    projection: Linear | None  # (E, D), where embeddings are narrower than the layers
    activation: Activation
    layers: tuple[Layer, ...]
    head: Head | EmbeddingHead
    pooling: Literal["first", "mean"] = "first"

    @property
    def max_length(self) -> int:
        """Tokens of the longest row it has positions for."""
        return len(self.places_PE)
