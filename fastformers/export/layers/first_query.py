"""Add the attention of the first token alone, without a key or a value for any token.

    query of the first token, states of all -> [first_query] -> its context

Where a head reads the first token alone, the last layer has one query. The score of a token is
query . (state @ keys) = (query @ keys^T) . state, and the context is (sum of weighted states) @
values: two products of one row in place of two projections of all tokens. A bias of the keys adds
the same to all scores of a head, and the weights of the values' bias sum to 1. All of it is float:
each head has H x T x D multiply-adds in place of T x D x 2W in int8.

The weights are read for each row of a batch, so it wins where rows have tokens enough: not where
layers before it have dropped or pooled most of them. This module knows nothing of norms or int8.
Measurements are in fastformers/benchmark/README.md.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each, d head width.
"""

import numpy as np

from fastformers.export.encoder import EncoderWeights, Layer
from fastformers.export.layers.attention import Nodes


def reads_states(encoder: EncoderWeights) -> bool:
    """Whether the last layer of an encoder attends by the states themselves on a CPU."""
    last = encoder.layers[-1]
    with_positions = (last.bias_HO, last.relative, last.rotary_frequencies)
    return (
        all(part is None for part in with_positions)
        and all(layer.keep_share == 1 for layer in encoder.layers[:-1])
        and encoder.pooling_of_tokens is None
        and encoder.pooling == "first"
    )


def attend_states(graph: Nodes, name: str, layer: Layer, query: str, states: str) -> str:
    """Add the attention of the first token.

    Args:
        graph: Graph to which nodes and constants are added.
        name: Name of the layer.
        layer: The layer.
        query: Name of the first token's query (B, 1, W).
        states: Name of the states of all tokens (B, T, D).

    Returns:
        Name of the context (B, 1, W).
    """
    node, const = graph.node, graph.const
    heads, head_width = layer.num_heads, layer.head_width
    width = len(layer.key.weight)
    keys_HdD = layer.key.weight.reshape(width, heads, head_width).transpose(1, 2, 0)
    keys_HdD = keys_HdD * np.float32(head_width**-0.5)
    values_HDd = layer.value.weight.reshape(width, heads, head_width).transpose(1, 0, 2)

    def reshape(values: str, *shape: int) -> str:
        shape_name = const(f"shape.{'.'.join(map(str, shape))}", np.array(shape))
        return node("Reshape", [values, shape_name])

    by_head = reshape(query, 0, heads, 1, head_width)
    by_state = node("MatMul", [by_head, const(f"{name}.keys", keys_HdD)])  # (B, H, 1, D)
    transposed = node("Transpose", [states], perm=[0, 2, 1])
    scores = node("MatMul", [reshape(by_state, 0, heads, width), transposed])  # (B, H, T)
    weighted = node("MatMul", [node("Softmax", [scores], axis=-1), states])  # (B, H, D)
    weighted = reshape(weighted, 0, heads, 1, width)
    contexts = node("MatMul", [weighted, const(f"{name}.values", values_HDd)])  # (B, H, 1, d)
    context = reshape(contexts, 0, 1, heads * head_width)
    if not layer.value.bias.any():
        return context
    return node("Add", [context, const(f"{name}.value.bias", layer.value.bias)])
