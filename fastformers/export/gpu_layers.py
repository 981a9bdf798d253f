"""Add the layers of a graph for GPUs: as few passes over the activations as their kernels allow.

    EncoderWeights -> gpu_layout -> [gpu_layers] -> float16 graph

What a layer adds to its input is summed and normalized by one node, which takes the bias of the
projection before it as well; another adds the bias of the feed-forward and activates. Queries, keys
and values are projections of their own, because a fused attention reads each where its projection
wrote it. This module knows nothing of embeddings and heads of models.

Shape suffixes: as in encoder.py, and B rows of a batch, T tokens of each.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from fastformers.arrays import Floats
from fastformers.export.attention import MICROSOFT, Attention, Nodes
from fastformers.export.encoder import Activation, EncoderWeights, Linear, Norm
from fastformers.export.gpu_layout import HEAD_MULTIPLE, GpuLayer, lay_out


@dataclass(frozen=True, kw_only=True)
class GpuChoices:
    """What can be compared on a card.

    Attributes:
        attention: "separate" for queries, keys and values of three projections; "packed" for one
            whose columns are those of each head side by side; "operator" for one inside
            com.microsoft.Attention.
        head_multiple: What widths of heads become a multiple of.
        fused: Whether sums with norms and biases with activations are single nodes.
    """

    attention: Literal["separate", "packed", "operator"] = "separate"
    head_multiple: int = HEAD_MULTIPLE
    fused: bool = True
    gelu: Literal["BiasGelu", "FastGelu"] = "BiasGelu"


class GpuNodes(Nodes, Protocol):
    """A graph under construction, with its parts that all graphs share."""

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

    def nodes_of(self, op: str, inputs: list[str], outputs: list[str], **attributes: float) -> None:
        """Add a node of Microsoft's operators with several outputs."""
        ...


@dataclass(kw_only=True)
class GpuLayers:
    """Builder of all layers of one graph."""

    graph: GpuNodes
    attention: Attention
    encoder: EncoderWeights
    choices: GpuChoices

    def add(self, hidden: str) -> str:
        """Add all layers and the norm after them; return the last output (B, T or 1, D)."""
        encoder, last = self.encoder, len(self.encoder.layers) - 1
        layers = [
            lay_out(layer, encoder.activation, head_multiple=self.choices.head_multiple)
            for layer in encoder.layers
        ]
        first = layers[0].layer
        total = normed = hidden
        if first.norm_first and first.attention_norm is not None:
            normed = self.graph.norm(hidden, "layer0.attention_norm", first.attention_norm)
        for index, layer in enumerate(layers):
            first_only = encoder.pooling == "first" and index == last
            following = None if index == last else layers[index + 1].layer
            after = (
                (encoder.final_norm if following is None else following.attention_norm)
                if layer.layer.norm_first
                else layer.layer.ffn_norm
            )
            total, normed = self._layer(
                f"layer{index}", layer, total, normed, after, first_only=first_only
            )
        if encoder.final_norm is not None and not layers[-1].layer.norm_first:
            normed = self.graph.norm(normed, "final.norm", encoder.final_norm)
        return normed

    def _layer(
        self,
        name: str,
        gpu_layer: GpuLayer,
        total: str,
        normed: str,
        after: Norm | None,
        *,
        first_only: bool,
    ) -> tuple[str, str]:
        """Add a layer; return its sum, and that normalized as `after` says."""
        graph, layer = self.graph, gpu_layer.layer
        context = self._attend(name, gpu_layer, normed, first_only=first_only)
        if first_only:
            total = graph.first_token(total)
        between = layer.ffn_norm if layer.norm_first else layer.attention_norm
        update = self._product(context, f"{name}.output", layer.output)
        total, normed = self._join(
            f"{name}.join", total, update, layer.output.bias, between, norm_first=layer.norm_first
        )
        inner = self._feed_forward(name, gpu_layer, normed)
        update = self._product(inner, f"{name}.down", layer.down)
        return self._join(
            f"{name}.end", total, update, layer.down.bias, after, norm_first=layer.norm_first
        )

    def _join(
        self,
        name: str,
        total: str,
        update: str,
        bias: Floats,
        norm: Norm | None,
        *,
        norm_first: bool,
    ) -> tuple[str, str]:
        """Add an update and its bias to the sum; return the sum and its norm.

        Where norms come last, the norm is the sum that the next update is added to.
        """
        graph, has_bias = self.graph, bool(bias.any())
        if norm is None or not self.choices.fused:
            if has_bias:
                update = graph.node("Add", [update, graph.const(f"{name}.bias", bias)])
            total = graph.node("Add", [update, total])
            if norm is None:
                return total, total
            normed = graph.norm(total, name, norm)
            return (total if norm_first else normed), normed
        inputs = [
            update,
            total,
            graph.const(f"{name}.gain", norm.weight),
            graph.const(f"{name}.shift", norm.bias),
        ]
        if has_bias:
            inputs.append(graph.const(f"{name}.bias", bias))
        outputs = [f"{name}.normed"] + (["", "", f"{name}.sum"] if norm_first else [])
        graph.nodes_of("SkipLayerNormalization", inputs, outputs, epsilon=norm.epsilon)
        return outputs[-1], outputs[0]

    def _feed_forward(self, name: str, gpu_layer: GpuLayer, normed: str) -> str:
        """Inner values (B, T, F) of the feed-forward."""
        graph, layer, activation = self.graph, gpu_layer.layer, self.encoder.activation
        if layer.gate is not None:
            up = graph.float_linear(normed, f"{name}.up", layer.up)
            gate = graph.float_linear(normed, f"{name}.gate", layer.gate)
            return graph.node("Mul", [graph.activate(up, activation), gate])
        if gpu_layer.floor_F is not None:
            up = self._product(normed, f"{name}.up", layer.up)
            return graph.node("Max", [up, graph.const(f"{name}.floor", gpu_layer.floor_F)])
        if activation == "gelu" and layer.up.bias.any() and self.choices.fused:
            up = self._product(normed, f"{name}.up", layer.up)
            return graph.node(
                self.choices.gelu,
                [up, graph.const(f"{name}.up.bias", layer.up.bias)],
                domain=MICROSOFT,
            )
        return graph.activate(graph.float_linear(normed, f"{name}.up", layer.up), activation)

    def _attend(self, name: str, gpu_layer: GpuLayer, normed: str, *, first_only: bool) -> str:
        graph, layer = self.graph, gpu_layer.layer
        if (
            self.choices.attention != "separate"
            and not first_only
            and layer.bias_HO is None
            and layer.relative is None
            and layer.rotary_frequencies is None
        ):
            return self._attend_in_one(name, gpu_layer, normed)
        query = graph.float_linear(
            graph.first_token(normed) if first_only else normed, f"{name}.query", layer.query
        )
        key = graph.float_linear(normed, f"{name}.key", layer.key)
        value = graph.float_linear(normed, f"{name}.value", layer.value)
        return self.attention.attend(
            layer, [query, key, value], first_only=first_only, score_scale=gpu_layer.score_scale
        )

    def _attend_in_one(self, name: str, gpu_layer: GpuLayer, normed: str) -> str:
        graph, layer = self.graph, gpu_layer.layer
        merged = Linear.stacked(layer.query, layer.key, layer.value)
        bias = graph.const(f"{name}.qkv.bias", merged.bias)
        common = {"domain": MICROSOFT, "num_heads": layer.num_heads, "scale": gpu_layer.score_scale}
        width = len(layer.query.bias)
        if self.choices.attention == "operator":
            weight = graph.const(f"{name}.qkv.weight", merged.weight)
            return graph.node(
                "Attention", [normed, weight, bias], qkv_hidden_sizes=[width] * 3, **common
            )
        by_head = merged.weight.reshape(len(merged.weight), 3, layer.num_heads, -1).swapaxes(1, 2)
        weight = graph.const(f"{name}.qkv.weight", by_head.reshape(merged.weight.shape))
        shape = graph.const(
            f"{name}.shape", np.array([0, 0, layer.num_heads, 3, width // layer.num_heads])
        )
        packed = graph.node("Reshape", [graph.node("MatMul", [normed, weight]), shape])
        return graph.node("MultiHeadAttention", [packed, "", "", bias], **common)

    def _product(self, hidden: str, name: str, linear: Linear) -> str:
        """A projection without its bias."""
        return self.graph.node(
            "MatMul", [hidden, self.graph.const(f"{name}.weight", linear.weight)]
        )
