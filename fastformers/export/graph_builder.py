"""Nodes and constants of a graph under construction, and the pieces that layers consist of.

    EncoderWeights -> graph, layers -> [graph_builder] -> nodes, constants -> model.onnx

A projection that `ranges` names becomes int8, all else stays float. This module knows nothing of
encoders or of the order of their layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fastformers.arrays import Floats
from fastformers.export.encoder import Activation, Linear, Norm
from fastformers.export.int8 import ActivationRange, quantize_token_embeddings, quantize_weight
from fastformers.export.layers.attention import MICROSOFT
from fastformers.inference.onnx_files import TOKEN_EMBEDDINGS


@dataclass
class GraphBuilder:
    """Nodes and constants of a graph under construction."""

    ranges: dict[str, ActivationRange | None]
    int8_embeddings: bool
    float16: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _linear_inputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id_type: type[np.signedinteger[Any]] = np.int32 if self.float16 else np.int64

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
        others: Sequence[str] = (),
        **attributes: int | float | str | list[int],
    ) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        outputs = [output, *(other and f"{output}.{other}" for other in others)]
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return output

    def skip_norm(
        self, inputs: list[str], *, normed: str, total: str | None, epsilon: float
    ) -> None:
        outputs = [normed] if total is None else [normed, "", "", total]
        self.nodes.append(
            helper.make_node(
                "SkipLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon
            )
        )

    def in_float32(self, values: str) -> str:
        """The values in float32, in which all that is added from here on computes."""
        if not self.float16:
            return values
        self.float16 = False
        return self.node("Cast", [values], to=TensorProto.FLOAT)

    def split(self, joined: str, widths: list[int]) -> list[str]:
        if len(widths) == 1:
            return [joined]
        outputs = [f"{joined}_{part}" for part in range(len(widths))]
        sizes = self.const(f"widths.{'.'.join(map(str, widths))}", np.array(widths))
        self.nodes.append(helper.make_node("Split", [joined, sizes], outputs, axis=-1))
        return outputs

    def first(self, values: str, name: str, count: int) -> str:
        """The first entries of the second axis."""
        zero, one = self.const("zero", np.array([0])), self.const("one", np.array([1]))
        return self.node("Slice", [values, zero, self.const(name, np.array([count])), one])

    def first_token(self, hidden: str) -> str:
        return self.first(hidden, "one", 1)

    def token_embeddings(self, token_embeddings_VE: Floats) -> str:
        vectors, weights = self.weighted_embeddings(token_embeddings_VE)
        return vectors if weights is None else self.node("Mul", [vectors, weights])

    def weighted_embeddings(self, token_embeddings_VE: Floats) -> tuple[str, str | None]:
        """Vectors (B, T, E), and the factor (B, T, 1) of each, which int8 has."""
        if not self.int8_embeddings:
            rows = self.const(TOKEN_EMBEDDINGS, token_embeddings_VE)
            return self.node("Gather", [rows, "input_ids"]), None
        rows_VE, scale_V = quantize_token_embeddings(token_embeddings_VE)
        steps = self.node("Gather", [self.const(TOKEN_EMBEDDINGS, rows_VE), "input_ids"])
        scales = self.node(
            "Gather", [self.const(f"{TOKEN_EMBEDDINGS}.scale", scale_V[:, None]), "input_ids"]
        )
        return self.node("Cast", [steps], to=TensorProto.FLOAT), scales

    def norm(self, hidden: str, name: str, norm: Norm) -> str:
        weight = self.const(f"{name}.gain", norm.weight)
        bias = self.const(f"{name}.shift", norm.bias)
        return self.node(
            "LayerNormalization", [hidden, weight, bias], axis=-1, epsilon=norm.epsilon
        )

    def activate(self, hidden: str, activation: Activation) -> str:
        return self.node({"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh"}[activation], [hidden])

    def float_linear(
        self, hidden: str, name: str, linear: Linear, *, output: str | None = None
    ) -> str:
        factors = [hidden, self.const(f"{name}.weight", linear.weight)]
        if not linear.bias.any():
            return self.node("MatMul", factors, output=output)
        product = self.node("MatMul", factors)
        return self.node("Add", [product, self.const(f"{name}.bias", linear.bias)], output=output)

    def linear(self, hidden: str, name: str, linear: Linear) -> str:
        self._linear_inputs[name] = hidden
        if name not in self.ranges:
            return self.float_linear(hidden, name, linear)
        steps, step_size = quantize_weight(linear.weight)
        weight = self.const(f"{name}.weight", steps)
        scale = self.const(f"{name}.scale", step_size)
        zero = self.const(f"{name}.zero", np.zeros(len(step_size), np.int8))
        bias = [self.const(f"{name}.bias", linear.bias)] if linear.bias.any() else []
        span = self.ranges[name]
        if span is None:
            inputs = [hidden, weight, scale, zero, *bias]
            return self.node("DynamicQuantizeMatMul", inputs, domain=MICROSOFT)
        scale_in = self.const(f"{name}.input_scale", np.array(span.scale, np.float32))
        zero_in = self.const(f"{name}.input_zero", np.array(span.zero_point, np.uint8))
        quantized = self.node("QuantizeLinear", [hidden, scale_in, zero_in])
        inputs = [quantized, weight, scale_in, scale, zero_in, zero, *bias]
        return self.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT)

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of the projections that may be int8."""
        return tuple(self._linear_inputs)

    def observe(self) -> list[str]:
        """Add every projection's input as an output; return the projections' names."""
        for name, hidden in self._linear_inputs.items():
            self.node("Identity", [hidden], output=f"{name}.input")
        return list(self._linear_inputs)
