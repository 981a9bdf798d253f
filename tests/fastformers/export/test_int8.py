from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from onnx import TensorProto, helper, numpy_helper

from fastformers.export.int8 import ActivationRange, quantize_token_embeddings, quantize_weight

weights = st_np.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-1000, 1000, width=32, allow_subnormal=False),
)


def pair_sums(steps):
    """Largest sum of two products' steps, positive and negative, by column."""
    pairs = np.pad(steps.astype(int), ((0, len(steps) % 2), (0, 0))).reshape(-1, 2, steps.shape[1])
    return np.maximum(pairs, 0).sum(axis=1).max(axis=0), np.minimum(pairs, 0).sum(axis=1).min(
        axis=0
    )


@given(weights)
def test_a_weight_is_off_by_at_most_half_a_step(weight):
    steps, scale = quantize_weight(weight)
    assert steps.dtype == np.int8
    errors = np.abs(steps * scale.astype(np.float64) - weight)
    assert (errors <= 0.5001 * scale).all()
    assert (steps[:, np.abs(weight).max(axis=0) == 0] == 0).all()


@given(weights)
def test_no_pair_of_products_leaves_16_bits_and_little_room_is_wasted(weight):
    steps, _ = quantize_weight(weight)
    highest, lowest = pair_sums(steps)
    assert (255 * highest <= 2**15 - 1).all()
    assert (255 * lowest >= -(2**15)).all()
    used = np.maximum(highest, -lowest)[np.abs(weight).max(axis=0) > 0]
    assert (used >= 126).all()


def test_a_large_weight_beside_small_ones_has_nearly_all_steps():
    weight = np.array([[1.0], [0.01], [0.5], [-0.9]], np.float32)
    assert quantize_weight(weight)[0].ravel().tolist() == [126, 1, 63, -113]


def test_a_weight_of_zeros_has_steps_of_one():
    steps, scale = quantize_weight(np.zeros((3, 1), np.float32))
    assert (steps.ravel().tolist(), scale.tolist()) == ([0, 0, 0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "zero_point"),
    [(-0.5, 0.5, 128), (-0.1, 0.4, 51), (0.1, 0.4, 0), (-0.4, -0.1, 255), (0.0, 0.0, 0)],
)
def test_an_activation_has_255_steps_from_low_to_high_and_one_of_them_is_zero(
    low, high, zero_point
):
    held = ActivationRange(low=low, high=high)
    assert held.scale == pytest.approx(max(high - low, 1e-8) / 255)
    assert held.zero_point == zero_point


@given(weights)
def test_a_token_embedding_uses_all_steps(token_embeddings_VE):
    steps_VE, scale_V = quantize_token_embeddings(token_embeddings_VE)
    largest = np.abs(steps_VE.astype(int)).max(axis=1)
    assert set(largest.tolist()) <= {0, 127}
    assert (
        np.abs(steps_VE * scale_V[:, None].astype(np.float64) - token_embeddings_VE)
        <= 0.5001 * scale_V[:, None]
    ).all()


@given(st.floats(-100, 0), st.floats(0, 100))
def test_a_range_holds_its_ends_and_zero_exactly(low, high):
    span = ActivationRange(low=low, high=high)
    assert 0 <= span.zero_point <= 255
    lowest, highest = (span.scale * (step - span.zero_point) for step in (0, 255))
    assert lowest <= low + 0.51 * span.scale
    assert highest >= high - 0.51 * span.scale


ZERO = 100


def multiply(inputs, steps):
    """Product of uint8 inputs (B, K) and int8 steps (K, N) in ONNX Runtime."""
    one, zero = np.array(1, np.float32), np.array(ZERO, np.uint8)
    constants = {
        "steps": steps,
        "one": one,
        "ones": np.ones(steps.shape[1], np.float32),
        "zero": zero,
        "zeros": np.zeros(steps.shape[1], np.int8),
    }
    names = ["inputs", "steps", "one", "ones", "zero", "zeros"]
    graph = helper.make_graph(
        [helper.make_node("MatMulIntegerToFloat", names, ["sums"], domain="com.microsoft")],
        "product",
        [helper.make_tensor_value_info("inputs", TensorProto.UINT8, list(inputs.shape))],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"inputs": inputs})[0]


EXTREMES = {
    "all alike": lambda rng, shape: np.ones(shape),
    "all alike, negative": lambda rng, shape: -np.ones(shape),
    "either sign": lambda rng, shape: rng.choice([-1, 1], shape),
    "a few large": lambda rng, shape: np.where(rng.random(shape) < 0.1, 1, 0.1),
    "normal": lambda rng, shape: rng.standard_normal(shape),
}


@pytest.mark.parametrize("num_rows", [1, 3, 32])
@pytest.mark.parametrize("shape", [(312, 48), (7, 5), (129, 17)], ids=str)
@pytest.mark.parametrize("kind", EXTREMES)
def test_products_are_exact_on_any_cpu(kind, shape, num_rows):
    rng = np.random.default_rng(0)
    steps, _ = quantize_weight(EXTREMES[kind](rng, shape).astype(np.float32))
    inputs = rng.choice([0, 255], (num_rows, shape[0]), p=[0.1, 0.9]).astype(np.uint8)
    expected = (inputs.astype(np.int64) - ZERO) @ steps.astype(np.int64)
    np.testing.assert_array_equal(multiply(inputs, steps), expected)


def adds_in_16_bits():
    """Whether this CPU is an x86 without VNNI."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "avx2" in flags and "vnni" not in flags


def test_weights_of_the_full_range_would_not_be_exact_without_vnni():
    steps = np.full((312, 48), 127, np.int8)
    inputs = np.full((3, 312), 255, np.uint8)
    expected = (inputs.astype(np.int64) - ZERO) @ steps.astype(np.int64)
    products = multiply(inputs, steps)
    if adds_in_16_bits():
        assert (products < 0.5 * expected).all()
    else:
        np.testing.assert_array_equal(products, expected)
