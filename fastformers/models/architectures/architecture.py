"""The description of an architecture: where its parts are, and what sets it apart.

    Hugging Face model -> [architecture] -> named parts -> layers, read_encoder

Each file beside this one describes one architecture by an `Architecture`. Parts are modules of the
model itself, so pruning them changes the model. The dependence of attention on the offset of two
tokens is given as tensors, computed by the model's own functions. This module knows nothing of
graphs, recipes or files.

An encoder is a model without its head, as `AutoModel` gives it.

Shape suffixes: H heads of a layer, W heads x head width, R rows of a table, O offsets key - query
of two tokens from the longest negative to the longest positive, 0 in the middle.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

Pooling = Literal["first", "mean", "texts"]
# The activations that the graph has.
Activation = Literal["gelu", "relu", "tanh"]


@dataclass(frozen=True, kw_only=True)
class EmbeddingParts:
    """The modules between token ids and the first layer.

    Attributes:
        tokens: Token embeddings, a row for each token of the vocabulary.
        positions: Position embeddings; None where a model has none.
        token_types: Token type embeddings; None where a model has none.
        norm: Layer normalization of the embeddings' sum; None where there is none.
        projection: Projection to the width of the layers, where embeddings are narrower.
        project_first: Whether the projection stands before the norm, not after it.
    """

    tokens: nn.Embedding
    positions: nn.Embedding | None
    token_types: nn.Embedding | None
    norm: nn.LayerNorm | None
    projection: nn.Linear | None = None
    project_first: bool = False

    @property
    def tables(self) -> list[nn.Embedding]:
        """The tables that a model has."""
        tables = (self.tokens, self.positions, self.token_types)
        return [table for table in tables if table is not None]

    @property
    def last(self) -> nn.Module | None:
        """The module whose output enters the first layer."""
        if self.projection is None or self.project_first:
            return self.norm
        return self.projection


@dataclass(frozen=True, kw_only=True)
class LayerParts:
    """The modules of one transformer layer.

    Attributes:
        attention: The module that computes attention, and knows how many heads there are.
        head_width: Outputs of one head; the same in all layers and never pruned.
        attention_norm: Norm of the attention; None where its input already is normalized.
        up: First projection of the feed-forward, whose outputs are activated.
        gate: Projection that the activated `up` is multiplied by, where the feed-forward is gated.
        activated: The module that activates the outputs of `up`.
        norm_first: Whether the norms stand before attention and feed-forward, not after their sums.
        query_scale: Factor of the queries, besides 1 / sqrt(head width).
        num_heads_name: Attribute of `attention` that holds its number of heads.
        heads_width_name: Attribute of `attention` that holds the width of all its heads.
        activation_name: Attribute of `activated` that holds the activation.
        probability_dropout: Dropout of the attention probabilities; None where there is none, as
            for the two that follow. Only `models/variants` runs a layer by its parts.
        output_dropout: Dropout of the outputs of `output`.
        down_dropout: Dropout of the outputs of `down`.
    """

    attention: Any
    head_width: int
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm | None
    up: nn.Linear
    down: nn.Linear
    ffn_norm: nn.LayerNorm
    activated: nn.Module
    gate: nn.Linear | None = None
    norm_first: bool = False
    query_scale: float = 1.0
    num_heads_name: str = "num_attention_heads"
    heads_width_name: str = "all_head_size"
    activation_name: str = "intermediate_act_fn"
    probability_dropout: nn.Dropout | None = None
    output_dropout: nn.Dropout | None = None
    down_dropout: nn.Dropout | None = None

    @property
    def num_heads(self) -> int:
        """Number of heads that the weights are for."""
        return self.query.out_features // self.head_width

    @property
    def into_ffn(self) -> list[nn.Linear]:
        """The projections whose outputs are the feed-forward neurons."""
        return [self.up] if self.gate is None else [self.up, self.gate]

    @property
    def norms(self) -> list[nn.LayerNorm]:
        """The norms that the layer has."""
        return [norm for norm in (self.attention_norm, self.ffn_norm) if norm is not None]


@dataclass(frozen=True, kw_only=True)
class RelativeTables:
    """Disentangled attention: terms of a score that depend on content and offset.

    score[q, k] += query[q] @ keys[row] + key[k] @ queries[row], with row = rows_O[offset k - q].
    Both tables carry the scale of the scores; one of them may be missing.
    """

    rows_O: Tensor
    keys_RW: Tensor | None
    queries_RW: Tensor | None


@dataclass(frozen=True, kw_only=True)
class OffsetTerms:
    """How the attention of one layer depends on the offset of two tokens.

    Attributes:
        bias_HO: Bias that is added to the scores of a head by offset; one row serves all heads. It
            is -inf outside a local window.
        relative: Terms of disentangled attention, which are added to the scores too.
        rotary_frequencies: Radians per position by which each pair of a head's query and key
            values is rotated, (half of the head width,).
    """

    bias_HO: Tensor | None = None
    relative: RelativeTables | None = None
    rotary_frequencies: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HeadParts:
    """A classification head: output(norm(activation(hidden(x)))) of the pooled vector x.

    Attributes:
        activation: Name of the activation in transformers.
    """

    hidden: nn.Linear
    activation: str
    output: nn.Linear
    norm: nn.LayerNorm | None = None


def no_offset_terms(encoder: PreTrainedModel) -> list[OffsetTerms]:
    """Empty terms for each layer, where attention does not depend on offsets."""
    return [OffsetTerms()] * int(encoder.config.num_hidden_layers)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that differs between one architecture and another.

    A part that the graph cannot have raises InputError where it is asked for.

    Attributes:
        embeddings: Embeddings of an encoder.
        layers: The module that holds the layers of an encoder.
        parts: The parts of one layer; None where an encoder has no layers.
        head: The head of a classifier or multiple-choice model.
        activation_setting: Setting of the configuration that names the activation of the layers.
        attention_dropout_setting: Setting that holds the dropout inside attention.
        ffn_width_setting: Setting that holds the number of feed-forward neurons.
        embedding_width_setting: Setting that holds the width of the embeddings.
        layer_settings: Settings that are lists with an entry for each layer.
        first_position: Row of the position embeddings that the first token gets; if it is not 0,
            the row before it is for the padding token, whose id is its number.
        offset_terms: Dependence of attention on offsets, for each layer of an encoder.
        final_norm: Norm after the last layer of an encoder, where norms come first.
        pooling: Input of the head: the first token, the mean of all tokens of the row, or `texts`:
            the mean of each text of a pair, beside their absolute difference and their product.
        can_shrink: Whether it may lose heads, neurons, layers and hidden dimensions: each part is a
            module of its own, no table depends on heads, and `LayerParts` names the attributes.
        layer_stack: Attribute of an encoder that holds the module which runs the layers, where
            these may pass on fewer tokens than they get (`models/variants`): positions are in the
            embeddings alone, norms come after the sums, and `LayerParts` names the dropouts. None
            where they may not.
        onnxruntime_type: Model type for ONNX Runtime's transformers optimizer; None if it cannot
            fuse the architecture.
    """

    embeddings: Callable[[PreTrainedModel], EmbeddingParts]
    layers: Callable[[PreTrainedModel], nn.ModuleList]
    parts: Callable[[Any], LayerParts] | None
    head: Callable[[PreTrainedModel], HeadParts]
    activation_setting: str = "hidden_act"
    attention_dropout_setting: str = "attention_probs_dropout_prob"
    ffn_width_setting: str = "intermediate_size"
    embedding_width_setting: str = "hidden_size"
    layer_settings: Sequence[str] = ()
    first_position: Callable[[PretrainedConfig], int] = lambda config: 0
    offset_terms: Callable[[PreTrainedModel], list[OffsetTerms]] = no_offset_terms
    final_norm: Callable[[PreTrainedModel], nn.LayerNorm | None] = lambda encoder: None
    pooling: Callable[[PretrainedConfig], Pooling] = lambda config: "first"
    can_shrink: bool = False
    layer_stack: str | None = None
    onnxruntime_type: str | None = None

    def parts_of(self, layers: Iterable[nn.Module]) -> list[LayerParts]:
        """The parts of each of an encoder's layers."""
        return [] if self.parts is None else [self.parts(layer) for layer in layers]


def key_offsets(max_length: int) -> Tensor:
    """Offsets key - query (O,) in rows of at most this many tokens."""
    return torch.arange(-max_length, max_length + 1)


def split_linear(joined: nn.Linear, num_parts: int) -> list[nn.Linear]:
    """Split a projection with joined outputs into its parts, as views of its weights."""
    weights = joined.weight.detach().chunk(num_parts)
    biases = [None] * num_parts if joined.bias is None else joined.bias.detach().chunk(num_parts)
    parts: list[nn.Linear] = []
    for weight, bias in zip(weights, biases, strict=True):
        part = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        part.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            part.bias = nn.Parameter(bias, requires_grad=False)
        parts.append(part)
    return parts
