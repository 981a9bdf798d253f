"""A BERT-family model as plain arrays: what the graph is laid from, whatever trained it.

    teacher -> [encoder] -> graph -> quantize -> bundle

One description covers BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, MPNet, DeBERTa-v2/v3 and
ModernBERT. A layer is put together from parts that it may lack: where its norms stand, a gate in
its feed-forward, and how its attention knows positions. Knows nothing of torch or ONNX.

Shape suffixes: V vocabulary, P positions, E embedding width, D hidden width, H heads, W heads x
head width, F feed-forward width, C classes, R rows of a table, O offsets key - query of two tokens
from the longest negative to the longest positive, 0 in the middle.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Activation = Literal["gelu", "relu", "tanh"]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x @ weight + bias, with weight laid (inputs, outputs); bias 0 where a model has none."""

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

    weight: Floats
    bias: Floats
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class RelativePositions:
    """DeBERTa's disentangled attention: terms of a score that depend on content and offset.

    score[q, k] += query[q] @ keys[row] + key[k] @ queries[row], with row = rows_O[offset k - q].
    Both tables carry the scale of the scores; one of them may be missing.

    Source:
        He et al. 2021, arXiv:2006.03654.
    """

    rows_O: NDArray[np.int64]
    keys_RW: Floats | None
    queries_RW: Floats | None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One transformer layer; `num_heads` may differ between layers.

    Attributes:
        norm_first: Norms stand before attention and feed-forward, not after their sums; the
            attention may then lack one.
        gate: What the activated `up` is multiplied by, where the feed-forward is gated.
        bias_HO: Added to the scores of a head by offset; one row serves all heads. A local window
            is -inf outside.
        relative: Added to the scores too.
        rotary_frequencies: Radians per position by which each pair of a head's query and key
            values is turned, (half of the head width,).
    """

    num_heads: int
    query: Linear  # (D, W)
    key: Linear
    value: Linear
    output: Linear  # (W, D)
    attention_norm: Norm | None
    up: Linear  # (D, F)
    down: Linear  # (F, D)
    ffn_norm: Norm
    norm_first: bool = False
    gate: Linear | None = None  # (D, F)
    bias_HO: Floats | None = None
    relative: RelativePositions | None = None
    rotary_frequencies: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Head:
    """Classification head on the pooled vector: logits = output(norm(activation(hidden(x))))."""

    hidden: Linear  # (D, D)
    activation: Activation
    output: Linear  # (D, C)
    norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingHead:
    """What turns the pooled vector into an embedding: activation(projection(x)), to unit length."""

    projection: Linear | None
    activation: Activation | None
    normalize: bool


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """A whole classifier, or embedding model.

    Attributes:
        max_length: Tokens of the longest row; tables of positions and offsets may hold more.
        position_embeddings_PE: From the row of the first token on (RoBERTa's padding offset is
            gone); None where the embeddings do not know positions.
        token_types_KE: None where a model has no token types.
        projection: Where embeddings are narrower than the layers; after `embedding_norm` unless
            `project_first`.
        final_norm: After the last layer of a model whose norms come first.
        pooling: What the head reads: the first token, or the mean of all tokens of the row.
    """

    max_length: int
    token_embeddings_VE: Floats
    position_embeddings_PE: Floats | None
    token_types_KE: Floats | None
    embedding_norm: Norm
    projection: Linear | None  # (E, D)
    activation: Activation
    layers: tuple[Layer, ...]
    head: Head | EmbeddingHead
    project_first: bool = False
    final_norm: Norm | None = None
    pooling: Literal["first", "mean"] = "first"

    @property
    def width(self) -> int:
        """Values of a token between two layers, D."""
        return len(self.layers[-1].ffn_norm.weight)


def count_multiply_adds(encoder: EncoderWeights) -> int:
    """Multiply-adds of an encoder for a token: the weights of all its projections.

    The products of attention, which depend on the length of a row, are not among them. The head and
    the last layer are counted as if they read every token, so this errs on the high side.
    """
    return sum(linear.weight.size for linear in _projections(encoder))


def _projections(part: object) -> Iterator[Linear]:
    """Every projection of a description, at any depth."""
    if isinstance(part, Linear):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _projections(inner)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _projections(getattr(part, field.name))
