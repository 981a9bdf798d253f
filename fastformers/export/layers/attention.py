"""Build the attention of a layer, by content alone or with positions in its scores.

    EncoderWeights -> graph -> [attention] -> model.onnx

BERT's layers attend by content alone; MPNet adds a bias by offset, ModernBERT rotates queries and
keys by position and masks all but a local window, DeBERTa adds products with embeddings of the
offset. All of them use the same attention node, which takes biases and windows as a bias of the
scores. Values that depend on the offset key - query alone are kept in a table by offset: two slices
and a reshape shift the part for the length at hand into place, row by row, without a gather of
T x T. This module knows nothing of projections, norms or int8.

On the CPU the node is ONNX's own Attention, which reads the heads where they are in the
projections. ONNX Runtime's MultiHeadAttention copies them apart first, which takes 1.40 times as
long for a row of 32 tokens. It is used for graphs whose rows may have more than 512 tokens, because
it attends in blocks and never holds all scores, and for GPUs, whose fused kernels it chooses.

Attention computes the scores of all its heads, then their softmax, then all contexts. Heads that
attend by content alone are therefore split into nodes of up to four, so that the results of one
step are still in the core's cache for the next: 8 rows of 128 tokens run 1.09 times as fast. All
measurements are in fastformers/benchmark/README.md.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each, d head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastformers.arrays import Floats
from fastformers.export.encoder import Layer, RelativePositions

MICROSOFT = "com.microsoft"
# A graph for longer rows attends in blocks. At this length blocks are already a little faster, but
# most rows of such a graph are shorter.
_LONGEST_WHOLE = 512
_HEADS_OF_NODE = 4
# What Attention gives as its fourth output (qk_matmul_output_mode).
_AFTER_SOFTMAX = 3
END = np.array([np.iinfo(np.int64).max])  # of a slice: of all there is


class Nodes(Protocol):
    """A graph under construction."""

    @property
    def id_type(self) -> type[np.signedinteger[Any]]:
        """Type of its token ids and token types."""
        ...

    def const(self, name: str, array: NDArray[np.generic]) -> str:
        """Add a constant unless its name is known; return the name."""
        ...

    def node(
        self,
        op: str,
        inputs: list[str],
        *,
        output: str | None = None,
        domain: str = "",
        others: Sequence[str] = (),
        **attributes: int | float | str | list[int],
    ) -> str:
        """Add a node; return the name of its output.

        Its further outputs are named by `others`, after the output's name and a dot; an empty name
        is an output that is not computed.
        """
        ...


@dataclass(kw_only=True)
class Attention:
    """Builder of the attention of all layers of one graph; holds the constants that they share.

    Attributes:
        graph: Graph to which nodes and constants are added.
        length: Name of the tensor that holds T, (1,).
        max_length: Largest T.
        for_gpu: Whether the graph will run on a GPU.
        uses_attention: Whether a node is ONNX's own Attention.
    """

    graph: Nodes
    length: str
    max_length: int
    for_gpu: bool
    uses_attention: bool = field(default=False, init=False)
    _table_names: dict[tuple[bytes, ...], str] = field(default_factory=dict)
    _node_outputs: dict[tuple[str, ...], str] = field(default_factory=dict)

    def head_groups(self, layer: Layer) -> list[int]:
        """Number of heads of each attention node of a layer."""
        adds_to_scores = layer.bias_HO is not None or layer.relative is not None
        in_blocks = self.in_blocks and (self.for_gpu or layer.keep_share == 1)
        if in_blocks or adds_to_scores or layer.rotary_frequencies is not None:
            return [layer.num_heads]
        num_groups = -(-layer.num_heads // _HEADS_OF_NODE)
        return [len(heads) for heads in np.array_split(np.arange(layer.num_heads), num_groups)]

    def attend(
        self,
        layer: Layer,
        projected: list[str],
        *,
        first_only: bool,
        score_scale: float | None = None,
    ) -> str:
        """Add the attention of a layer.

        Args:
            layer: Layer whose attention is added.
            projected: Names of the queries (B, T, group width) of each group, then of the keys,
                then of the values.
            first_only: Whether queries are those of the first token alone, (B, 1, group width).
            score_scale: What scores are multiplied by; by default what the width of a head asks.

        Returns:
            Name of the context (B, T, W), or (B, 1, W).
        """
        groups = self.head_groups(layer)
        if len(groups) == 1:
            return self._attend_all(
                layer, *projected, first_only=first_only, score_scale=score_scale
            )
        contexts = [
            self._whole(projected[group :: len(groups)], num_heads)
            for group, num_heads in enumerate(groups)
        ]
        return self.graph.node("Concat", contexts, axis=-1)

    def attend_and_show(
        self, layer: Layer, projected: list[str], *, score_scale: float | None = None
    ) -> tuple[str, list[str]]:
        """Add the attention of a layer by content alone whose probabilities are needed.

        Args:
            layer: As for `attend`.
            projected: As for `attend`.
            score_scale: As for `attend`.

        Returns:
            Names of the context (B, T, W), and of the probabilities (B, heads, T, T) of each group.
        """
        contexts, probabilities = self.show(layer, projected, score_scale=score_scale)
        if len(contexts) == 1:
            return contexts[0], probabilities
        return self.graph.node("Concat", contexts, axis=-1), probabilities

    def show(
        self, layer: Layer, projected: list[str], *, score_scale: float | None = None
    ) -> tuple[list[str], list[str]]:
        """Add the same; names of the context and of the probabilities of each group of heads."""
        groups = self.head_groups(layer)
        if self.for_gpu:
            assert score_scale is not None  # that of the heads before they were padded
            context, shown = self._plainly(layer, *projected, score_scale=score_scale)
            return [context], [shown]
        self.uses_attention = True
        contexts = [
            self.graph.node(
                "Attention",
                projected[group :: len(groups)],
                others=["", "", "probabilities"],
                q_num_heads=num_heads,
                kv_num_heads=num_heads,
                qk_matmul_output_mode=_AFTER_SOFTMAX,
            )
            for group, num_heads in enumerate(groups)
        ]
        return contexts, [f"{context}.probabilities" for context in contexts]

    def _plainly(
        self, layer: Layer, query: str, key: str, value: str, *, score_scale: float
    ) -> tuple[str, str]:
        """Attention of single operators: no fused kernel of a GPU gives its probabilities."""
        node, heads = self.graph.node, layer.num_heads
        scale = self.graph.const("scale", np.array(score_scale, np.float32))
        scaled = node("Mul", [query, scale])
        keys = self._transposed(self._heads(key, heads), 4)
        scores = node("MatMul", [self._heads(scaled, heads), keys])
        probabilities = node("Softmax", [scores], axis=-1)
        contexts = node("MatMul", [probabilities, self._heads(value, heads)])
        shape = self.graph.const("shape.merged", np.array([0, 0, -1]))
        rows = node("Transpose", [contexts], perm=[0, 2, 1, 3])
        return node("Reshape", [rows, shape]), probabilities

    def _attend_all(
        self,
        layer: Layer,
        query: str,
        key: str,
        value: str,
        *,
        first_only: bool,
        score_scale: float | None,
    ) -> str:
        if layer.rotary_frequencies is not None:
            query, key = (self._rotate(side, layer.rotary_frequencies) for side in (query, key))
        biases = []
        if layer.bias_HO is not None:
            bias_HO = self._crop(layer.bias_HO)
            if bias_HO[:, 1:-1].any():  # no two tokens are `max_length` apart
                biases.append(self._bias(bias_HO, first_only=first_only))
        if layer.relative is not None:
            biases += self._relative(layer, layer.relative, query, key, first_only=first_only)
        if len(biases) > 1:
            biases = [self._node("Sum", biases)]
        if self.in_blocks:
            unused = ["", ""] if biases else []  # a bias of the projections, a mask
            attributes: dict[str, Any] = {"num_heads": layer.num_heads}
            if score_scale is not None:
                attributes["scale"] = score_scale
            return self.graph.node(
                "MultiHeadAttention",
                [query, key, value, *unused, *biases],
                domain=MICROSOFT,
                **attributes,
            )
        return self._whole([query, key, value, *biases], layer.num_heads)

    def _whole(self, inputs: list[str], num_heads: int) -> str:
        self.uses_attention = True
        return self.graph.node("Attention", inputs, q_num_heads=num_heads, kv_num_heads=num_heads)

    @property
    def in_blocks(self) -> bool:
        """Whether the node is MultiHeadAttention, not Attention."""
        return self.for_gpu or self.max_length > _LONGEST_WHOLE

    def _rotate(self, side: str, frequencies: Floats) -> str:
        """Rotate queries or keys (B, T, W) by their positions, which count from 0."""
        angles = np.arange(self.max_length, dtype=np.float32)[:, None] * frequencies
        cos, sin = self._table("cos", np.cos(angles)), self._table("sin", np.sin(angles))
        return self.graph.node(
            "RotaryEmbedding", [side, self._number(0), cos, sin], domain=MICROSOFT
        )

    def _bias(self, bias_HO: Floats, *, first_only: bool) -> str:
        """Bias (1, H or 1, T or 1, T) of the scores, from a table by offset."""
        table = self._table("bias", bias_HO[None, :, None, :])
        bias = self._offsets(table, axis=3, first_only=first_only)
        if first_only:
            return bias
        one = self._number(1)
        shape = self._node("Concat", [one, one, self.length, one], axis=0)
        return self._shifted(self._node("Expand", [bias, shape]))

    def _relative(
        self,
        layer: Layer,
        relative: RelativePositions,
        query: str,
        key: str,
        *,
        first_only: bool,
    ) -> list[str]:
        """Terms (B, H, T or 1, T) to add to the scores, at most two."""
        node, heads = self._node, layer.num_heads
        rows_O = self._crop(relative.rows_O)
        terms = []
        if relative.keys_RW is not None:
            # Along the scores of one query, the offsets key - query increase.
            keys = self._positions(relative.keys_RW, heads, rows_O, first_only=first_only)
            by_offset = node("MatMul", [self._heads(query, heads), self._transposed(keys, 3)])
            terms.append(by_offset if first_only else self._shifted(by_offset))
        if relative.queries_RW is not None and first_only:
            queries = self._positions(relative.queries_RW, heads, rows_O, first_only=True)
            products = node("Mul", [self._heads(key, heads), queries])
            sums = node("ReduceSum", [products, self._number(-1)], keepdims=0)
            terms.append(node("Unsqueeze", [sums, self._number(2)]))
        elif relative.queries_RW is not None:
            # Along the scores of one key, they decrease.
            queries = self._positions(relative.queries_RW, heads, rows_O[::-1], first_only=False)
            by_offset = node("MatMul", [self._heads(key, heads), self._transposed(queries, 3)])
            terms.append(self._transposed(self._shifted(by_offset), 4))
        return terms

    def _positions(
        self, table_RW: Floats, num_heads: int, rows_O: NDArray[np.int64], *, first_only: bool
    ) -> str:
        """Embeddings (H, 2T or T, d) of the offsets between tokens of a row."""
        used, rows_O = np.unique(rows_O, return_inverse=True)  # only those for `max_length`
        table_HRd = table_RW[used].reshape(len(used), num_heads, -1).transpose(1, 0, 2)
        rows = self._offsets(self._table("rows", rows_O), axis=0, first_only=first_only)
        return self._node("Gather", [self._table("positions", table_HRd), rows], axis=1)

    def _offsets(self, table: str, *, axis: int, first_only: bool) -> str:
        """Slice a table by offset from -T to T - 1, or from 0 on for the first query."""
        center = self._number(self.max_length)
        stop = self._node("Add", [center, self.length])
        start = center if first_only else self._node("Sub", [center, self.length])
        return self._node("Slice", [table, start, stop, self._number(axis)])

    def _shifted(self, by_offset: str) -> str:
        """Move values from [q, k - q + T] to [q, k]: (..., T, 2T) to (..., T, T).

        In the flat array, the value for [q, k] is at 2Tq + k - q + T = (2T - 1)q + k + T. Without
        its first T values, and cut into rows of 2T - 1, the array has it at [q, k].

        Source:
            Dai et al. 2019, arXiv:1901.02860, appendix B.
        """
        node, last = self._node, self._number(-1)
        flat_shape = self.graph.const("shape.flat", np.array([0, 0, -1]))
        flat = node("Reshape", [by_offset, flat_shape])
        kept = node("Slice", [flat, self.length, self.graph.const("end", END), last])
        kept_shape = self._node(
            "Concat", [self.graph.const("shape.same", np.array([0, 0])), self.length, last], axis=0
        )
        rows = node("Reshape", [kept, kept_shape])
        return node("Slice", [rows, self._number(0), self.length, last])

    def _heads(self, side: str, num_heads: int) -> str:
        """Split (B, T, W) into heads (B, H, T, d)."""
        shape = self.graph.const(f"shape.{num_heads}heads", np.array([0, 0, num_heads, -1]))
        split = self._node("Reshape", [side, shape])
        return self._node("Transpose", [split], perm=[0, 2, 1, 3])

    def _transposed(self, values: str, rank: int) -> str:
        """Swap the last two axes."""
        axes = list(range(rank))
        return self._node("Transpose", [values], perm=[*axes[:-2], axes[-1], axes[-2]])

    def _crop(self, table_O: NDArray[Any]) -> NDArray[Any]:
        """Crop the last axis to the offsets from -max_length to max_length."""
        center = table_O.shape[-1] // 2
        return table_O[..., center - self.max_length : center + self.max_length + 1]

    def _table(self, kind: str, table: NDArray[np.generic]) -> str:
        """Add a constant; layers with the same values share it."""
        key = (kind.encode(), str(table.shape).encode(), table.tobytes())
        name = self._table_names.setdefault(key, f"{kind}{len(self._table_names)}")
        return self.graph.const(name, table)

    def _number(self, value: int) -> str:
        return self.graph.const(f"number.{value}", np.array([value]))

    def _node(self, op: str, inputs: list[str], **attributes: int | list[int]) -> str:
        """Add a node; layers with the same inputs share it."""
        key = (op, *inputs, str(attributes))
        if key not in self._node_outputs:
            self._node_outputs[key] = self.graph.node(
                op, inputs, output=None, domain="", others=(), **attributes
            )
        return self._node_outputs[key]
