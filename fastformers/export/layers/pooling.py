"""Pool the tokens of a row into what the head reads.

    layers, or embeddings where there are none -> [pooling] -> head

A mean over tokens is a matrix product with one row of weights: ONNX Runtime's ReduceMean adds the
tokens of a row in another order when it stands alone than in a batch (1.32.0), so that a score
would depend on the batch by its last bits. Vectors in int8 have a factor each, which takes the
place of the ones in that row: a product of all vectors with their factors would be written and read
again, and takes a quarter of the time of a model that is nothing but vectors. This module knows
nothing of where the tokens' states come from.

Shape suffixes: B rows of a batch, T tokens of each, D width of a token's state.
"""

from typing import Literal, Protocol

import numpy as np
from onnx import TensorProto

from fastformers.export.layers.attention import Nodes


class PoolingNodes(Nodes, Protocol):
    """A graph under construction, and whether it is one for GPUs."""

    float16: bool


def add_pooling(
    graph: PoolingNodes,
    hidden: str,
    pooling: Literal["first", "mean", "texts"],
    factors: str | None = None,
) -> str:
    """Add the pooling.

    Args:
        graph: Graph to which nodes and constants are added; for `texts`, its input
            `token_type_ids` (B, T) says with 1 which tokens belong to the second text.
        hidden: Name of the tokens' states (B, T, D); (B, 1, D) for the first token alone.
        pooling: What the head reads, as `EncoderWeights.pooling` has it.
        factors: Name of the factors (B, T, 1) of the states, for a mean; None where they are 1.

    Returns:
        Name of the pooled values, (B, D); (B, 4 D) for `texts`.
    """
    if factors is not None:
        factors = graph.node("Transpose", [factors], perm=[0, 2, 1])
    if pooling == "texts":
        return _text_means(graph, hidden, factors)
    rows = graph.const("one", np.array([1]))
    if pooling == "first":  # the last layer left no other token
        return graph.node("Squeeze", [hidden, rows])
    if graph.float16:  # a sum could be beyond float16
        return graph.node("ReduceMean", [hidden, rows], keepdims=0)
    length = graph.node("Shape", [hidden], start=1, end=2)
    if factors is None:
        shape = graph.node("Concat", [rows, rows, length], axis=0)
        one = graph.const("every", np.ones((1, 1, 1), np.float32))
        factors = graph.node("Expand", [one, shape])
    count = graph.node("Cast", [length], to=TensorProto.FLOAT)
    return _mean(graph, hidden, factors, count)


def _text_means(graph: Nodes, hidden: str, factors: str | None) -> str:
    """The mean of each text of a pair, zero without tokens, their distance and their product."""
    rows, tokens = graph.const("one", np.array([1])), graph.const("two", np.array([2]))
    every = graph.const("every", np.ones((1, 1, 1), np.float32))
    is_second = graph.node("Cast", ["token_type_ids"], to=TensorProto.FLOAT)
    second = graph.node("Unsqueeze", [is_second, rows])
    means = []
    for mask in (graph.node("Sub", [every, second]), second):
        count = graph.node("ReduceSum", [mask, tokens])  # of zeros and ones: exact in any order
        weights = mask if factors is None else graph.node("Mul", [mask, factors])
        means.append(_mean(graph, hidden, weights, graph.node("Max", [count, every])))
    distance = graph.node("Abs", [graph.node("Sub", means)])
    return graph.node("Concat", [*means, distance, graph.node("Mul", means)], axis=-1)


def _mean(graph: Nodes, hidden: str, weights: str, count: str) -> str:
    """Sum of the states under weights (B, 1, T), divided by a count: (B, D)."""
    mean = graph.node("Div", [graph.node("MatMul", [weights, hidden]), count])
    return graph.node("Squeeze", [mean, graph.const("one", np.array([1]))])
