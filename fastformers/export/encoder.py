"""Describe a BERT-family model as plain arrays, from which its graph is built.

    teacher -> read_encoder -> [encoder] -> graph -> model.onnx

One description covers BERT, RoBERTa, XLM-R, DistilBERT, ELECTRA, MPNet, DeBERTa-v2/v3 and
ModernBERT. Layers differ in where their norms are, in whether their feed-forward has a gate, and in
how positions enter their attention. This module knows nothing of torch or ONNX.

Shape suffixes: V vocabulary, P positions, K token types, E embedding width, D hidden width, H
heads, W heads x head width, F feed-forward width, C classes, R rows of a table, O offsets key -
query of two tokens from the longest negative to the longest positive, 0 in the middle.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats

Activation = Literal["gelu", "relu", "tanh"]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """y = x @ weight + bias; weight is (inputs, outputs), bias is 0 where a model has none."""

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
        norm_first: Whether norms come before attention and feed-forward, not after their sums; the
            attention may then lack one.
        gate: Projection that the activated `up` is multiplied by, where the feed-forward is gated.
        bias_HO: Bias of the scores of a head, by offset; a single row serves all heads. A local
            window is -inf outside.
        relative: Terms of content and offset that are added to the scores.
        rotary_frequencies: Radians per position by which each pair of a head's query and key
            values is rotated, (half of the head width,).
        keep_share: Share of the tokens that enter the layer which go on after its attention: the
            most significant, and always the first.
        significance_D: What the state of a token that enters is multiplied by; the sum is how much
            the token matters. None where all go on.
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
    keep_share: float = 1.0
    significance_D: Floats | None = None

    @property
    def head_width(self) -> int:
        """Values of a query, key or value in one head."""
        return len(self.query.bias) // self.num_heads


@dataclass(frozen=True, kw_only=True)
class Padding:
    """A token that takes no position: its id, and the embedding that it gets for one, (1, E)."""

    token_id: int
    embedding_1E: Floats


@dataclass(frozen=True, kw_only=True)
class Head:
    """Classification head on the pooled vector: logits = output(norm(activation(hidden(x)))).

    Attributes:
        gives_probability: Whether the output is the sigmoid of that.
    """

    hidden: Linear  # (D, D)
    activation: Activation
    output: Linear  # (D, C)
    norm: Norm | None = None
    gives_probability: bool = False


@dataclass(frozen=True, kw_only=True)
class EmbeddingHead:
    """Embedding head on the pooled vector: activation(projection(x)), of length 1 if normalized.

    Attributes:
        num_outputs: Number of values that are kept of the vector, from its first on; None for all.
    """

    projection: Linear | None
    activation: Activation | None
    normalize: bool
    num_outputs: int | None = None


@dataclass(frozen=True, kw_only=True)
class TokenPooling:
    """All tokens but the first become one in every few, in order of position.

    Attributes:
        before_layer: Index of the first layer that sees fewer tokens.
        every: Tokens that become one; the last group of a row may have fewer.
        how: Whether the one is their mean or, in each dimension, their maximum.
    """

    before_layer: int
    every: int
    how: Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True)
class EncoderWeights:
    """Weights of a whole classifier or embedding model.

    Attributes:
        max_length: Tokens of the longest row; tables of positions and offsets may hold more.
        position_embeddings_PE: Embeddings of positions from that of the first token on; None where
            no positions are added to the embeddings.
        padding: RoBERTa's padding token, where positions do not count it, also inside a text.
        token_types_KE: Embeddings of token types; None where a model has none.
        projection: Projection of the embeddings where they are narrower than the layers; it comes
            after `embedding_norm` unless `project_first`.
        final_norm: Norm after the last layer of a model whose norms come first.
        embedding_norm: Norm of the embeddings' sum; None where there is none.
        pooling: Input of the head: the first token, the mean of all tokens that are left, or
            `texts`: the mean of each text of a pair, beside their absolute difference and product.
        pooling_of_tokens: Where tokens are pooled between two layers; None where they are not.
        layers: Empty in a model of static vectors, whose head reads a mean of embeddings.
    """

    max_length: int
    token_embeddings_VE: Floats
    position_embeddings_PE: Floats | None
    token_types_KE: Floats | None
    embedding_norm: Norm | None
    projection: Linear | None  # (E, D)
    activation: Activation
    layers: tuple[Layer, ...]
    head: Head | EmbeddingHead
    padding: Padding | None = None
    project_first: bool = False
    final_norm: Norm | None = None
    pooling: Literal["first", "mean", "texts"] = "first"
    pooling_of_tokens: TokenPooling | None = None

    @property
    def is_static(self) -> bool:
        """Whether the head reads a mean of token embeddings as they are."""
        places = (self.position_embeddings_PE, self.token_types_KE)
        between = (*places, self.embedding_norm, self.projection)
        return not self.layers and all(part is None for part in between)

    @property
    def width(self) -> int:
        """Values of a token between two layers, D."""
        if not self.layers:
            return int(self.token_embeddings_VE.shape[1])
        return len(self.layers[-1].ffn_norm.weight)


def count_multiply_adds(encoder: EncoderWeights) -> int:
    """Multiply-adds of an encoder per token of a row: the weights of all its projections.

    Where tokens are dropped or pooled, a projection counts by the share of the row's tokens that it
    reads. The products of attention, which depend on the length of a row, are not among them. The
    head and the last layer are counted as if they read every token that is left, so this errs on
    the high side. Where there are no layers, a token is only added to a mean, and the head, once a
    row, is left out.
    """
    if not encoder.layers:
        return encoder.width
    total, share = 0.0, 1.0
    pooling = encoder.pooling_of_tokens
    for index, layer in enumerate(encoder.layers):
        if pooling is not None and pooling.before_layer == index:
            share /= pooling.every
        before = (layer.key, layer.value)
        total += share * _count_weights(before)
        share *= layer.keep_share
        total += share * (_count_weights(layer) - _count_weights(before))
    return round(total) + _count_weights((encoder.projection, encoder.head))


def _count_weights(part: object) -> int:
    return sum(linear.weight.size for linear in _projections(part))


def _projections(part: object) -> Iterator[Linear]:
    """Every projection of a part, at any depth."""
    if isinstance(part, Linear):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _projections(inner)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _projections(getattr(part, field.name))
