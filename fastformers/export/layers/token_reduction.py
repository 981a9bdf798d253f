"""Add what lets fewer tokens through: the choice of those to keep, and the pooling of groups.

    states -> [token_reduction] -> states of fewer tokens

A layer with a share keeps the most significant tokens: those whose state, as it enters, has the
largest product with what the layer learned for that (`models/variants/reduced_layers`). It is float
also in an int8 graph. Ties go to the lower position, which is how TopK decides, or, after a layer
that dropped some, to the token that was the more significant there. What is kept is known before
the attention is computed, so dropped tokens have no query. The others go on in the order of their
significance: later layers do not ask where a token stands, and to sort them by position takes up to
6% of a student's time. The first token comes first, where the head looks for it.

How many stay is looked up by the length of the row, so it does not depend on the batch. Neither
does the significance: weights times transposed states is one product for each row of the batch,
which takes a third of the time of states times weights. Pooling adds slices for the same reason.
This module knows nothing of projections, norms or int8.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each that enter a layer, K of
them that are kept, G groups.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from fastformers.export.encoder import EncoderWeights, TokenPooling
from fastformers.export.layers.attention import END, Nodes
from fastformers.models.variants.token_counts import count_kept_tokens, count_pooled_tokens

Counts = NDArray[np.int64]  # by the tokens of a row as it enters the graph


@dataclass(kw_only=True)
class TokenReducer:
    """Builder of all reductions of one graph.

    Attributes:
        graph: Graph to which nodes and constants are added.
        length: Name of the tensor that holds the tokens of a row as it enters the graph, (1,).
        encoder: Weights of the model.
        for_gpu: Whether the graph will run on a GPU, in float16.
        observable: Names of the significances (B, T) by which tokens were chosen, so far.
    """

    graph: Nodes
    length: str
    encoder: EncoderWeights
    for_gpu: bool
    observable: list[str] = field(default_factory=list, init=False)
    _before: list[Counts] = field(default_factory=list)
    _entering: list[Counts] = field(default_factory=list)
    _leaving: list[Counts] = field(default_factory=list)

    def __post_init__(self) -> None:
        tokens = np.arange(self.encoder.max_length + 1).clip(min=1)
        pooling = self.encoder.pooling_of_tokens
        for index, layer in enumerate(self.encoder.layers):
            self._before.append(tokens)
            if pooling is not None and pooling.before_layer == index:
                tokens = count_pooled_tokens(tokens, pooling.every)
            self._entering.append(tokens)
            tokens = count_kept_tokens(tokens, [layer.keep_share])[0]
            self._leaving.append(tokens)

    def choose(self, index: int, hidden: str) -> str:
        """Choose the tokens that go on after the attention of a layer.

        Args:
            index: The layer.
            hidden: Name of the states that enter it, (B, T, D).

        Returns:
            Name of their positions (B, K, 1), the most significant first, which is token 0.
        """
        node, const = self.graph.node, self.graph.const
        weights_D, max_length = self.encoder.layers[index].significance_D, self.encoder.max_length
        assert weights_D is not None
        states = node("Transpose", [hidden], perm=[0, 2, 1])
        weights = const(f"layer{index}.significance.weights", weights_D)
        total = node("MatMul", [self._in_float32(weights), self._in_float32(states)])
        first = const("first", np.array([np.inf] + [-np.inf] * (max_length - 1), np.float32))
        length = self._look_up(f"layer{index}.entering", self._entering[index])
        significance = node(
            "Max",
            [total, self._in_float32(self._until(first, length))],
            output=f"layer{index}.significance",
        )
        self.observable.append(significance)
        count = self._look_up(f"layer{index}.leaving", self._leaving[index])
        best = node("TopK", [significance, count], others=["positions"])
        shape = const("shape.positions", np.array([0, -1, 1]))
        return node("Reshape", [f"{best}.positions", shape])

    def keep(self, values: str, positions: str) -> str:
        """Keep the chosen tokens of values (B, T, any width)."""
        return self.graph.node("GatherND", [values, positions], batch_dims=1)

    def pool_before(self, index: int, hidden: str) -> str:
        """Pool the tokens of states (B, T, D) if the model does so before this layer.

        Raises:
            ValueError: A layer before it drops tokens, so that they are no neighbors.
        """
        pooling = self.encoder.pooling_of_tokens
        if pooling is None or pooling.before_layer != index:
            return hidden
        if any(layer.keep_share < 1 for layer in self.encoder.layers[:index]):
            raise ValueError(f"tokens are dropped before those of layer {index} are pooled")
        node, const = self.graph.node, self.graph.const
        axis = const("one", np.array([1]))
        first = node("Slice", [hidden, const("zero", np.array([0])), axis, axis])
        parts = self._parts(pooling, hidden, self._before[index])
        if pooling.how == "max":
            return node("Concat", [first, node("Max", parts)], axis=1)
        weights = self._mean_weights(pooling.every, self._before[index])
        mean = node("Mul", [node("Sum", parts), weights])
        return node("Concat", [first, mean], axis=1)

    def _parts(self, pooling: TokenPooling, hidden: str, tokens: Counts) -> list[str]:
        """The first tokens (B, G, D) of all groups, their second tokens, and so on.

        The last group is filled up: with zeros for a mean, with the last token for a maximum.
        """
        node, const = self.graph.node, self.graph.const
        axis = const("one", np.array([1]))
        missing = self._look_up("pooling.missing", -(tokens - 1) % pooling.every)
        pads = node("Concat", [const("zero", np.array([0])), missing], axis=0)
        mode = "constant" if pooling.how == "mean" else "edge"
        filled = node("Pad", [hidden, pads, "", axis], mode=mode)
        end, every = const("end", END), const("pooling.every", np.array([pooling.every]))
        starts = [
            const(f"number.{1 + place}", np.array([1 + place])) for place in range(pooling.every)
        ]
        return [node("Slice", [filled, start, end, axis, every]) for start in starts]

    def _mean_weights(self, every: int, tokens: Counts) -> str:
        """What the sum of each group is multiplied by, (G, 1); the last group may be smaller."""
        groups = count_pooled_tokens(tokens, every) - 1
        most = int(groups[-1])
        weights_EG1 = np.full((every, most, 1), 1 / every, np.float32)
        weights_EG1[:, -1:, 0] = 1 / np.arange(1, every + 1, dtype=np.float32)[:, None]
        row = self._look_up("pooling.last", (tokens - 2) % every)
        start = self._look_up("pooling.start", most - groups)
        table = self.graph.node("Gather", [self.graph.const("pooling.weights", weights_EG1), row])
        axis, end = self.graph.const("one", np.array([1])), self.graph.const("end", END)
        return self.graph.node("Slice", [table, start, end, axis])

    def _until(self, values: str, end: str) -> str:
        """The first values of a constant."""
        return self.graph.node("Slice", [values, self.graph.const("zero", np.array([0])), end])

    def _in_float32(self, values: str) -> str:
        """The values in float32, also in a graph of float16: close sums decide what is kept."""
        return self.graph.node("Cast", [values], to=TensorProto.FLOAT) if self.for_gpu else values

    def _look_up(self, name: str, counts: Counts) -> str:
        """The number (1,) for rows of the length at hand."""
        return self.graph.node("Gather", [self.graph.const(name, counts), self.length])
