"""Add the layers of a graph for GPUs: as few passes over the activations as their kernels allow.

    EncoderWeights -> gpu_layout -> [gpu_layers] -> float16 graph

What a layer adds to its input is summed and normalized by one node, which takes the bias of the
projection before it as well; another adds the bias of the feed-forward and activates. Queries, keys
and values are projections of their own, because a fused attention reads each where its projection
wrote it: one projection would have to be taken apart first. On a GPU of compute capability 9.0 the
attention of a layer so moves 9 widths of values for each token (3 written by the projections, 2 for
the bias of the queries, 4 by the attention itself); one projection with a bias and a split moves
19, and ONNX Runtime's Attention, which has the projection inside, 13.

On an H200, batches of 32,768 tokens in rows of 128 reach 62% of the float16 peak of its matrix
products with BERT-base; without these nodes but with ONNX Runtime's own fusions 50%, with one
projection that is split 45%, with its Attention 61%. The 4 x 312 student takes 1.5 ms for such a
batch; with heads of 26, not padded, 2.8, padded to 64, 1.7. FastGelu is no faster than BiasGelu,
which is exact (onnxruntime-gpu 1.31.1, 2026-11-26). This module knows nothing of embeddings and
heads of models.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each.
"""

from dataclasses import dataclass
from typing import Protocol

from fastformers.arrays import Floats
from fastformers.export.encoder import Activation, EncoderWeights, Layer, Linear, Norm
from fastformers.export.layers.attention import MICROSOFT, Attention, Nodes
from fastformers.export.layers.gpu_layout import GpuLayer, lay_out
from fastformers.export.layers.token_reduction import TokenReducer


class GpuNodes(Nodes, Protocol):
    """A graph under construction, with the parts that all graphs share."""

    def norm(self, hidden: str, name: str, norm: Norm) -> str:
        """Add a norm."""
        ...

    def activate(self, hidden: str, activation: Activation) -> str:
        """Add an activation."""
        ...

    def float_linear(self, hidden: str, name: str, linear: Linear) -> str:
        """Add a projection and its bias, where it has one."""
        ...

    def first_token(self, hidden: str) -> str:
        """The first token of each row."""
        ...

    def skip_norm(
        self, inputs: list[str], *, normed: str, total: str | None, epsilon: float
    ) -> None:
        """Add SkipLayerNormalization, with the sum as a second output where it has a name."""
        ...


@dataclass(kw_only=True)
class GpuLayers:
    """Builder of all layers of one graph.

    Attributes:
        graph: Graph to which nodes and constants are added.
        attention: Builder of their attention.
        reducer: Builder of what lets fewer tokens through.
        encoder: Weights of the model.
    """

    graph: GpuNodes
    attention: Attention
    reducer: TokenReducer
    encoder: EncoderWeights

    def add(self, hidden: str) -> str:
        """Add all layers and the norm after them.

        Args:
            hidden: Name of the embeddings (B, T, D).

        Returns:
            Name of the output (B, T, D), or (B, 1, D) where the head reads the first token alone.
        """
        encoder = self.encoder
        first, last = encoder.layers[0], len(encoder.layers) - 1
        total = normed = hidden
        if first.norm_first and first.attention_norm is not None:
            normed = self.graph.norm(hidden, "layer0.attention_norm", first.attention_norm)
        for index, layer in enumerate(encoder.layers):
            after: Norm | None = layer.ffn_norm
            if layer.norm_first:
                is_last = index == last
                after = encoder.final_norm if is_last else encoder.layers[index + 1].attention_norm
            pooled = self.reducer.pool_before(index, normed)
            if pooled != normed:  # norms come last, where tokens are pooled
                total = normed = pooled
            total, normed = self._layer(
                index,
                lay_out(layer, encoder.activation),
                (total, normed),
                after,
                first_only=encoder.pooling == "first" and index == last,
            )
        if encoder.final_norm is not None and not encoder.layers[last].norm_first:
            normed = self.graph.norm(normed, "final.norm", encoder.final_norm)
        return normed

    def _layer(
        self,
        index: int,
        gpu_layer: GpuLayer,
        hidden: tuple[str, str],
        after: Norm | None,
        *,
        first_only: bool,
    ) -> tuple[str, str]:
        """Add a layer.

        Args:
            index: Which layer it is.
            gpu_layer: The layer.
            hidden: Names of the sum of all before it, and of what its attention reads.
            after: Norm of what the next layer reads.
            first_only: Whether only the first token goes through it.

        Returns:
            Names of the sum, and of what the next layer reads.
        """
        name, layer = f"layer{index}", gpu_layer.layer
        total, normed = hidden
        if layer.keep_share < 1 and not first_only:
            context, total = self._attend_from_kept(index, gpu_layer, total)
        else:
            context = self._attend(name, gpu_layer, normed, first_only=first_only)
        if first_only:
            total = self.graph.first_token(total)
        between = layer.ffn_norm if layer.norm_first else layer.attention_norm
        total, normed = self._join(
            total, context, f"{name}.output", layer.output, between, norm_first=layer.norm_first
        )
        inner = self._feed_forward(name, gpu_layer, normed)
        return self._join(
            total, inner, f"{name}.down", layer.down, after, norm_first=layer.norm_first
        )

    def _join(
        self,
        total: str,
        hidden: str,
        name: str,
        linear: Linear,
        norm: Norm | None,
        *,
        norm_first: bool,
    ) -> tuple[str, str]:
        """Project, add that to the sum, and normalize.

        Returns:
            Names of the sum and of its norm; where norms come last, the norm is the new sum.
        """
        graph = self.graph
        if norm is None:
            total = graph.node("Add", [graph.float_linear(hidden, name, linear), total])
            return total, total
        inputs = [
            self._product(hidden, name, linear),
            total,
            graph.const(f"{name}.gain", norm.weight),
            graph.const(f"{name}.shift", norm.bias),
        ]
        if linear.bias.any():
            inputs.append(graph.const(f"{name}.bias", linear.bias))
        normed, total = f"{name}.normed", f"{name}.total"
        if not norm_first:
            graph.skip_norm(inputs, normed=normed, total=None, epsilon=norm.epsilon)
            return normed, normed
        graph.skip_norm(inputs, normed=normed, total=total, epsilon=norm.epsilon)
        return total, normed

    def _feed_forward(self, name: str, gpu_layer: GpuLayer, normed: str) -> str:
        """Inner values (B, T, F) of the feed-forward."""
        graph, layer, activation = self.graph, gpu_layer.layer, self.encoder.activation
        if layer.gate is not None:
            up = graph.float_linear(normed, f"{name}.up", layer.up)
            gate = graph.float_linear(normed, f"{name}.gate", layer.gate)
            return graph.node("Mul", [graph.activate(up, activation), gate])
        if gpu_layer.floor_F is not None:
            return self._with(normed, f"{name}.up", layer.up, "Max", gpu_layer.floor_F)
        if activation == "gelu" and layer.up.bias.any():
            return self._with(normed, f"{name}.up", layer.up, "BiasGelu", layer.up.bias)
        return graph.activate(graph.float_linear(normed, f"{name}.up", layer.up), activation)

    def _with(self, hidden: str, name: str, linear: Linear, op: str, values_F: Floats) -> str:
        """A projection without its bias, and an operator that takes it and further values."""
        domain = MICROSOFT if op == "BiasGelu" else ""
        inputs = [self._product(hidden, name, linear), self.graph.const(f"{name}.bias", values_F)]
        return self.graph.node(op, inputs, domain=domain)

    def _attend(self, name: str, gpu_layer: GpuLayer, normed: str, *, first_only: bool) -> str:
        """Context (B, T, W) of the attention, or (B, 1, W)."""
        asking = self.graph.first_token(normed) if first_only else normed
        return self.attention.attend(
            gpu_layer.layer,
            self._project(name, gpu_layer.layer, asking, normed),
            first_only=first_only,
            score_scale=gpu_layer.score_scale,
        )

    def _attend_from_kept(self, index: int, gpu_layer: GpuLayer, hidden: str) -> tuple[str, str]:
        """Context of the tokens that go on, and their states."""
        kept = self.reducer.keep(hidden, self.reducer.choose(index, hidden))
        context = self.attention.attend(
            gpu_layer.layer,
            self._project(f"layer{index}", gpu_layer.layer, kept, hidden),
            first_only=False,
            score_scale=gpu_layer.score_scale,
        )
        return context, kept

    def _project(self, name: str, layer: Layer, asking: str, normed: str) -> list[str]:
        """Queries of what asks, keys and values."""
        return [
            self.graph.float_linear(asking, f"{name}.query", layer.query),
            self.graph.float_linear(normed, f"{name}.key", layer.key),
            self.graph.float_linear(normed, f"{name}.value", layer.value),
        ]

    def _product(self, hidden: str, name: str, linear: Linear) -> str:
        """A projection without its bias."""
        weight = self.graph.const(f"{name}.weight", linear.weight)
        return self.graph.node("MatMul", [hidden, weight])
