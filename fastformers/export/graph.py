"""Build the ONNX graph of an encoder, tuned for length-sorted batches.

    EncoderWeights (+ activation ranges) -> [graph] -> model.onnx, model.onnx.data

It is tuned, in comparison with a traced graph, in these ways:
- a batch holds rows of one exact length, so there is no attention mask anywhere;
- query, key and value are one projection, quantized once;
- a head that reads only the first token has the last layer compute query, attention, output and
  feed-forward for that one alone, which saves up to a sixth of the work of 6 layers, and keys and
  values for none where scores depend on content alone (first_query.py);
- where layers drop or pool tokens, those after them compute the rest alone (token_reduction.py);
- values that depend on the length alone (offsets, biases, rotations) are a slice of a table, which
  is in the graph once for all layers that share it (attention.py);
- Add + LayerNormalization stay separate: ONNX Runtime's fused SkipLayerNormalization is scalar on
  the CPU (engine.py keeps the runtime from fusing them again);
- layers of a graph for GPUs are laid out for their kernels instead, in float16 (gpu_layers.py);
- int8 activations may have fixed ranges: a row's score then does not depend on its batch;
- int8 weights are scaled so that no sum of two products overflows 16 bits: x86 CPUs without VNNI
  add pairs there, and saturate silently (int8.py).

Given `ranges`, the projections named there become int8 (weights per channel and symmetric,
activations per tensor), and so do the token embeddings (per row, for size); all else stays float.
This module knows nothing of torch, tokenizers or how ranges are chosen.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from fastformers.export.encoder import (
    Activation,
    EmbeddingHead,
    EncoderWeights,
    Head,
    Layer,
    Linear,
    Norm,
)
from fastformers.export.external_data import write_weights
from fastformers.export.graph_builder import GraphBuilder
from fastformers.export.int8 import ActivationRange
from fastformers.export.layers.attention import MICROSOFT, Attention
from fastformers.export.layers.embeddings import add_places
from fastformers.export.layers.first_query import attend_states, reads_states
from fastformers.export.layers.gpu_layers import GpuLayers
from fastformers.export.layers.pooling import add_pooling
from fastformers.export.layers.token_reduction import TokenReducer
from fastformers.inference.onnx_files import VOCABULARY_KEY, weights_path

# Version of everything that decides the bytes of a graph beside the model. Raise it with every
# change after which the same model gives another graph: here, in graph_builder.py, layers/, int8.py
# or where models are read. Graphs that `compress --work` kept under another version are built
# again.
GRAPH_VERSION = 6
# The first opset with Gelu, and the first with Attention.
_OPSET, _OPSET_OF_ATTENTION = 20, 23


def write_graph(
    encoder: EncoderWeights,
    path: Path,
    *,
    text_pairs: bool,
    ranges: Mapping[str, ActivationRange | None] | None = None,
    observe: bool = False,
    float16: bool = False,
) -> tuple[str, ...]:
    """Write an encoder as an ONNX model, its weights in a file beside it (onnx_files.py).

    Inputs are `input_ids` (B, T), and `token_type_ids` (B, T) where the model tells text pairs
    apart, both int64, or int32 in a graph for GPUs; the output is `logits` (B, C) in float32, which
    for an embedding model are its vectors.

    Args:
        encoder: Weights of the model.
        path: ONNX file to write.
        text_pairs: Whether rows are pairs; token types matter only then.
        ranges: Activation range of each projection to quantize, by its name; a range of None is
            taken anew from every batch (dynamic). None instead of a mapping for float.
        observe: Whether to add the input of every projection as an output `NAME.input`, for
            calibration, and by what a layer chose its tokens as `layerN.significance`, (B, T).
        float16: Whether layers are laid out for GPUs, their weights and arithmetic in float16 up to
            the head; excludes `ranges` and `observe`.

    Returns:
        Names of the projections that `ranges` may name, in the graph's order.

    Raises:
        ValueError: `float16` was given with one of the two.
    """
    if float16 and (observe or ranges is not None):
        raise ValueError("a graph is either int8 (ranges, or observed for them) or float16")
    graph = GraphBuilder(
        ranges=dict(ranges or {}), int8_embeddings=ranges is not None, float16=float16
    )
    has_types = encoder.pooling == "texts" or (
        text_pairs and encoder.token_types_KE is not None and len(encoder.token_types_KE) > 1
    )
    length = graph.node("Shape", ["input_ids"], start=1, end=2)
    attention = Attention(
        graph=graph, length=length, max_length=encoder.max_length, for_gpu=float16
    )
    reducer = TokenReducer(graph=graph, length=length, encoder=encoder, for_gpu=float16)
    weights = None
    if encoder.is_static:
        hidden, weights = graph.weighted_embeddings(encoder.token_embeddings_VE)
    else:
        hidden = _embed(graph, encoder, length, has_types=has_types)
    if not encoder.layers:
        hidden = graph.in_float32(hidden)
    elif float16:
        layers = GpuLayers(graph=graph, attention=attention, reducer=reducer, encoder=encoder)
        hidden = layers.add(hidden)
    else:
        hidden = _layers(graph, encoder, hidden, attention, reducer)
    pooled = graph.in_float32(add_pooling(graph, hidden, encoder.pooling, weights))
    num_outputs = _head(graph, encoder.head, pooled, encoder.width)
    _save(
        graph,
        path,
        inputs=["input_ids"] + (["token_type_ids"] if has_types else []),
        outputs=_outputs(graph, reducer, num_outputs, observe=observe),
        id_type=helper.np_dtype_to_tensor_dtype(np.dtype(graph.id_type)),
        opset=_OPSET_OF_ATTENTION if attention.uses_attention else _OPSET,
        properties={VOCABULARY_KEY: str(len(encoder.token_embeddings_VE))} if float16 else {},
    )
    return graph.projections


def _outputs(
    graph: GraphBuilder, reducer: TokenReducer, num_outputs: int, *, observe: bool
) -> list[onnx.ValueInfoProto]:
    """The graph's outputs: logits, and what is observed for calibration."""
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", num_outputs])
    if not observe:
        return [logits]
    observed = [*(f"{name}.input" for name in graph.observe()), *reducer.observable]
    return [
        logits,
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in observed),
    ]


def _layers(
    graph: GraphBuilder,
    encoder: EncoderWeights,
    hidden: str,
    attention: Attention,
    reducer: TokenReducer,
) -> str:
    """All layers, and the norm after them where a model has one."""
    for index, layer in enumerate(encoder.layers):
        hidden = _layer(
            graph,
            index,
            layer,
            reducer.pool_before(index, hidden),
            encoder.activation,
            attention,
            reducer,
            first_only=encoder.pooling == "first" and index == len(encoder.layers) - 1,
            by_states=reads_states(encoder),
        )
    if encoder.final_norm is not None:
        hidden = graph.norm(hidden, "final.norm", encoder.final_norm)
    return hidden


def _save(
    graph: GraphBuilder,
    path: Path,
    *,
    inputs: list[str],
    outputs: list[onnx.ValueInfoProto],
    id_type: int,
    opset: int,
    properties: dict[str, str],
) -> None:
    """Write the model and the file of its weights."""
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [helper.make_tensor_value_info(name, id_type, ["batch", "tokens"]) for name in inputs],
            outputs,
            write_weights(graph.initializers, weights_path(path)),
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=11,
        producer_name="fastformers",
    )
    helper.set_model_props(model, properties)
    onnx.save(model, path)


def _embed(graph: GraphBuilder, encoder: EncoderWeights, length: str, *, has_types: bool) -> str:
    total = graph.token_embeddings(encoder.token_embeddings_VE)
    total = add_places(graph, encoder, total, length, has_types=has_types)
    if encoder.projection is not None and encoder.project_first:
        total = graph.float_linear(total, "embedding.projection", encoder.projection)
    hidden = total
    if encoder.embedding_norm is not None:
        hidden = graph.norm(total, "embedding.norm", encoder.embedding_norm)
    if encoder.projection is not None and not encoder.project_first:
        hidden = graph.float_linear(hidden, "embedding.projection", encoder.projection)
    return hidden


def _layer(
    graph: GraphBuilder,
    index: int,
    layer: Layer,
    hidden: str,
    activation: Activation,
    attention: Attention,
    reducer: TokenReducer,
    *,
    first_only: bool,
    by_states: bool,
) -> str:
    """Add a layer; return its output (B, K, D), or (B, 1, D) for the first token alone."""
    name = f"layer{index}"

    def norm(hidden: str, part: str, parameters: Norm | None, *, first: bool) -> str:
        if parameters is None or first is not layer.norm_first:
            return hidden
        return graph.norm(hidden, f"{name}.{part}", parameters)

    normed = norm(hidden, "attention_norm", layer.attention_norm, first=True)
    if first_only:
        context = _attend_first(graph, name, layer, normed, attention, by_states=by_states)
        hidden = graph.first_token(hidden)
    elif layer.keep_share < 1:
        context, hidden = _attend_from_kept(graph, index, layer, hidden, attention, reducer)
    else:
        widths = [num_heads * layer.head_width for num_heads in attention.head_groups(layer)]
        merged = Linear.stacked(layer.query, layer.key, layer.value)
        projected = graph.split(graph.linear(normed, f"{name}.qkv", merged), widths * 3)
        context = attention.attend(layer, projected, first_only=False)
    hidden = graph.node("Add", [hidden, graph.linear(context, f"{name}.output", layer.output)])
    hidden = norm(hidden, "attention_norm", layer.attention_norm, first=False)
    normed = norm(hidden, "ffn_norm", layer.ffn_norm, first=True)
    inner = _feed_forward(graph, name, layer, normed, activation)
    hidden = graph.node("Add", [hidden, graph.linear(inner, f"{name}.down", layer.down)])
    return norm(hidden, "ffn_norm", layer.ffn_norm, first=False)


def _attend_first(
    graph: GraphBuilder,
    name: str,
    layer: Layer,
    normed: str,
    attention: Attention,
    *,
    by_states: bool,
) -> str:
    """Add the attention of the first token of each row; return its context (B, 1, W)."""
    query = graph.linear(graph.first_token(normed), f"{name}.q", layer.query)
    if by_states:
        return attend_states(graph, name, layer, query, normed)
    widths = [num_heads * layer.head_width for num_heads in attention.head_groups(layer)]
    merged = Linear.stacked(layer.key, layer.value)
    keys_values = graph.split(graph.linear(normed, f"{name}.kv", merged), widths * 2)
    return attention.attend(layer, graph.split(query, widths) + keys_values, first_only=True)


def _attend_from_kept(
    graph: GraphBuilder,
    index: int,
    layer: Layer,
    hidden: str,
    attention: Attention,
    reducer: TokenReducer,
) -> tuple[str, str]:
    """Choose the tokens that go on, and add the attention of these.

    Returns:
        Names of their context (B, K, W) and of their states (B, K, D).
    """
    name = f"layer{index}"
    widths = [num_heads * layer.head_width for num_heads in attention.head_groups(layer)]
    merged = Linear.stacked(layer.key, layer.value)
    keys_values = graph.split(graph.linear(hidden, f"{name}.kv", merged), widths * 2)
    kept = reducer.keep(hidden, reducer.choose(index, hidden))
    query = graph.split(graph.linear(kept, f"{name}.q", layer.query), widths)
    return attention.attend(layer, query + keys_values, first_only=False), kept


def _feed_forward(
    graph: GraphBuilder, name: str, layer: Layer, normed: str, activation: Activation
) -> str:
    """Add the feed-forward without `down`; return its inner values (B, T, F)."""
    if layer.gate is None:
        return graph.activate(graph.linear(normed, f"{name}.up", layer.up), activation)
    merged = Linear.stacked(layer.up, layer.gate)
    inner = graph.linear(normed, f"{name}.up", merged)
    up, gate = graph.split(inner, [len(layer.up.bias)] * 2)
    return graph.node("Mul", [graph.activate(up, activation), gate])


def _head(graph: GraphBuilder, head: Head | EmbeddingHead, pooled: str, width: int) -> int:
    """Add the head, from pooled vectors (B, D) to the output; return the output's width."""
    if isinstance(head, Head):
        inner = graph.float_linear(pooled, "head.hidden", head.hidden)
        inner = graph.activate(inner, head.activation)
        if head.norm is not None:
            inner = graph.norm(inner, "head.norm", head.norm)
        if head.gives_probability:
            score = graph.float_linear(inner, "score", head.output)
            graph.node("Sigmoid", [score], output="logits")
        else:
            graph.float_linear(inner, "logits", head.output, output="logits")
        return len(head.output.bias)
    if head.projection is not None:
        pooled = graph.float_linear(pooled, "head.projection", head.projection)
        width = len(head.projection.bias)
    if head.activation is not None:
        pooled = graph.activate(pooled, head.activation)
    if head.normalize:
        pooled = graph.node("LpNormalization", [pooled], axis=-1, p=2)
    if head.num_outputs is not None and head.num_outputs < width:
        width = head.num_outputs
        pooled = graph.first(pooled, "num_outputs", width)
    graph.node("Identity", [pooled], output="logits")
    return width
