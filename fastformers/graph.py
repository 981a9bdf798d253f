"""Lay the ONNX graph of an encoder, tuned for length-sorted batches.

    Encoder (+ activation ranges) -> [graph] -> model.onnx

What is tuned, against a traced graph:
- a batch holds rows of one exact length, so there is no attention mask anywhere;
- query, key and value are one projection, quantized once;
- the head reads only the first token, so the last layer computes keys and values for all tokens
  but query, attention, output and feed-forward for that one: a sixth of a 6-layer model's work;
- Add + LayerNormalization stay apart: ONNX Runtime's fused SkipLayerNormalization is scalar on
  the CPU (engine.py keeps the runtime from fusing them again);
- int8 activations use fixed ranges, so a row's score cannot depend on its batch-mates;
- int8 weights are scaled so that no sum of two products overflows 16 bits: x86 CPUs without VNNI
  add in pairs there, and saturate without a word (rounding.py).

Given `ranges`, the projections named there become int8 (weights per channel and symmetric,
activations per tensor), and so do the word embeddings (per row, for size); all else stays float.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastformers.encoder import Activation, Encoder, Floats, Layer, Linear, Norm
from fastformers.rounding import ActivationRange, quantize_weight, quantize_words

OPSET = 20
MICROSOFT = "com.microsoft"


def write_graph(
    encoder: Encoder,
    path: Path,
    *,
    text_pairs: bool,
    ranges: Mapping[str, ActivationRange | None] | None = None,
    observe: bool = False,
    float16: bool = False,
) -> tuple[str, ...]:
    """Write an encoder as an ONNX model.

    Inputs are `input_ids` (B, T), and `token_type_ids` (B, T) where the model tells text pairs
    apart, both int64; the output is `logits` (B, C).

    Args:
        encoder: The classifier's weights.
        path: File to write.
        text_pairs: Whether rows are pairs; token types matter only then.
        ranges: Activation range of each projection to quantize, by its name; a range of None is
            taken anew from every batch (dynamic). None instead of a mapping for float.
        observe: Add the input of every projection as an output `NAME.input`, for calibration.
        float16: Weights and arithmetic in float16, for GPUs; excludes `ranges`.

    Returns:
        Names of the projections that `ranges` may name, in the graph's order.
    """
    if float16 and ranges is not None:
        raise ValueError("a graph is either int8 (ranges) or float16")
    graph = _Graph(ranges=dict(ranges or {}), int8_words=ranges is not None, float16=float16)
    has_types = text_pairs and encoder.types_KE is not None and len(encoder.types_KE) > 1
    hidden = _embed(graph, encoder, has_types=has_types)
    *body, last = encoder.layers
    for index, layer in enumerate(body):
        hidden = _layer(graph, f"layer{index}", layer, hidden, encoder.activation)
    first = _last_layer(graph, f"layer{len(body)}", last, hidden, encoder.activation)
    pooled = graph.node("Squeeze", [first, graph.const("one", np.array([1]))])
    head = encoder.head
    pooled = graph.activate(graph.float_linear(pooled, "head.hidden", head.hidden), head.activation)
    graph.float_linear(pooled, "logits", head.output, output="logits")
    inputs = ["input_ids"] + (["token_type_ids"] if has_types else [])
    outputs = [
        helper.make_tensor_value_info(
            "logits", TensorProto.FLOAT, ["batch", head.output.bias.shape[0]]
        )
    ]
    if observe:
        outputs += [
            helper.make_tensor_value_info(f"{name}.input", TensorProto.FLOAT, None)
            for name in graph.observe()
        ]
    if float16:
        graph.cast_outputs([output.name for output in outputs])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "encoder",
            [
                helper.make_tensor_value_info(i, TensorProto.INT64, ["batch", "tokens"])
                for i in inputs
            ],
            outputs,
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=10,
        producer_name="fastformers",
    )
    onnx.save(model, path)
    return graph.projections


def _embed(graph: "_Graph", encoder: Encoder, *, has_types: bool) -> str:
    places_PE = encoder.places_PE
    if encoder.types_KE is not None and not has_types:
        places_PE = places_PE + encoder.types_KE[0]  # every token is of the first type
    length = graph.node("Shape", ["input_ids"], start=1, end=2)
    zero = graph.const("zero", np.array([0]))
    places = graph.node("Slice", [graph.const("places", places_PE), zero, length, zero])
    total = graph.node("Add", [graph.words(encoder.words_VE), places])
    if has_types and encoder.types_KE is not None:
        types = graph.const("types", encoder.types_KE)
        total = graph.node("Add", [total, graph.node("Gather", [types, "token_type_ids"])])
    hidden = graph.norm(total, "embedding.norm", encoder.embedding_norm)
    if encoder.projection is not None:
        hidden = graph.float_linear(hidden, "embedding.projection", encoder.projection)
    return hidden


def _layer(graph: "_Graph", name: str, layer: Layer, hidden: str, activation: Activation) -> str:
    merged = Linear.stacked(layer.query, layer.key, layer.value)
    query, key, value = graph.split(graph.linear(hidden, f"{name}.qkv", merged), 3)
    return _attend(graph, name, layer, hidden, (query, key, value), activation)


def _last_layer(
    graph: "_Graph", name: str, layer: Layer, hidden: str, activation: Activation
) -> str:
    """The layer's output for the first token alone, (B, 1, D)."""
    zero, one = graph.const("zero", np.array([0])), graph.const("one", np.array([1]))
    first = graph.node("Slice", [hidden, zero, one, one])
    merged = Linear.stacked(layer.key, layer.value)
    key, value = graph.split(graph.linear(hidden, f"{name}.kv", merged), 2)
    query = graph.linear(first, f"{name}.q", layer.query)
    return _attend(graph, name, layer, first, (query, key, value), activation)


def _attend(
    graph: "_Graph",
    name: str,
    layer: Layer,
    residual: str,
    query_key_value: tuple[str, str, str],
    activation: Activation,
) -> str:
    context = graph.node(
        "MultiHeadAttention", list(query_key_value), domain=MICROSOFT, num_heads=layer.num_heads
    )
    attended = graph.linear(context, f"{name}.output", layer.output)
    hidden = graph.norm(
        graph.node("Add", [residual, attended]), f"{name}.attention_norm", layer.attention_norm
    )
    inner = graph.activate(graph.linear(hidden, f"{name}.up", layer.up), activation)
    total = graph.node("Add", [hidden, graph.linear(inner, f"{name}.down", layer.down)])
    return graph.norm(total, f"{name}.ffn_norm", layer.ffn_norm)


@dataclass
class _Graph:
    """Nodes and constants under construction."""

    ranges: dict[str, ActivationRange | None]
    int8_words: bool
    float16: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _linear_inputs: dict[str, str] = field(default_factory=dict)

    def const(self, name: str, array: NDArray[np.generic]) -> str:
        if name not in self._names:
            self._names.add(name)
            if self.float16 and array.dtype == np.float32:
                with np.errstate(over="ignore"):  # the stage that asks for float16 checks logits
                    array = array.astype(np.float16)
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self,
        op: str,
        inputs: list[str],
        *,
        output: str | None = None,
        domain: str = "",
        **attributes: int | float,
    ) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def split(self, joined: str, parts: int) -> list[str]:
        outputs = [f"{joined}_{part}" for part in range(parts)]
        self.nodes.append(helper.make_node("Split", [joined], outputs, axis=-1, num_outputs=parts))
        return outputs

    def words(self, words_VE: Floats) -> str:
        if not self.int8_words:
            return self.node("Gather", [self.const("words", words_VE), "input_ids"])
        rows_VE, scale_V = quantize_words(words_VE)
        steps = self.node("Gather", [self.const("words", rows_VE), "input_ids"])
        scales = self.node("Gather", [self.const("words.scale", scale_V[:, None]), "input_ids"])
        return self.node("Mul", [self.node("Cast", [steps], to=TensorProto.FLOAT), scales])

    def norm(self, hidden: str, name: str, norm: Norm) -> str:
        gain = self.const(f"{name}.gain", norm.gain)
        shift = self.const(f"{name}.shift", norm.shift)
        return self.node("LayerNormalization", [hidden, gain, shift], axis=-1, epsilon=norm.epsilon)

    def activate(self, hidden: str, activation: Activation) -> str:
        return self.node({"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh"}[activation], [hidden])

    def float_linear(
        self, hidden: str, name: str, linear: Linear, *, output: str | None = None
    ) -> str:
        product = self.node("MatMul", [hidden, self.const(f"{name}.weight", linear.weight)])
        return self.node("Add", [product, self.const(f"{name}.bias", linear.bias)], output=output)

    def linear(self, hidden: str, name: str, linear: Linear) -> str:
        self._linear_inputs[name] = hidden
        if name not in self.ranges:
            return self.float_linear(hidden, name, linear)
        steps, step_size = quantize_weight(linear.weight)
        weight = self.const(f"{name}.weight", steps)
        scale = self.const(f"{name}.scale", step_size)
        zero = self.const(f"{name}.zero", np.zeros(len(step_size), np.int8))
        bias = self.const(f"{name}.bias", linear.bias)
        span = self.ranges[name]
        if span is None:
            inputs = [hidden, weight, scale, zero, bias]
            return self.node("DynamicQuantizeMatMul", inputs, domain=MICROSOFT)
        scale_in = self.const(f"{name}.input_scale", np.array(span.scale, np.float32))
        zero_in = self.const(f"{name}.input_zero", np.array(span.zero_point, np.uint8))
        quantized = self.node("QuantizeLinear", [hidden, scale_in, zero_in])
        inputs = [quantized, weight, scale_in, scale, zero_in, zero, bias]
        return self.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of the projections that may be int8."""
        return tuple(self._linear_inputs)

    def cast_outputs(self, names: list[str]) -> None:
        """Give the graph's outputs, made in float16, as float32."""
        for node in list(self.nodes):
            for index, name in enumerate(node.output):
                if name in names:
                    node.output[index] = f"{name}.float16"
                    self.node("Cast", [node.output[index]], output=name, to=TensorProto.FLOAT)

    def observe(self) -> list[str]:
        """Expose every projection's input; returns the projections' names."""
        for name, hidden in self._linear_inputs.items():
            self.node("Identity", [hidden], output=f"{name}.input")
        return list(self._linear_inputs)
