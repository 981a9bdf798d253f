import itertools
import math
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from fastformers.export.calibration import collect_histograms
from fastformers.export.encoder import (
    EmbeddingHead,
    Layer,
    Linear,
    RelativePositions,
    TokenPooling,
)
from fastformers.export.graph import write_graph
from fastformers.export.int8 import quantize_token_embeddings, quantize_weight
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.onnx_files import measure_graph_bytes

SHAPE = {"vocabulary": 1000, "width": 32, "num_heads": 4, "classes": 5}


def norm(values, parameters):
    if parameters is None:
        return values
    centered = values - values.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + parameters.epsilon) * parameters.weight + parameters.bias


def linear(values, parameters):
    return values @ parameters.weight.astype(np.float64) + parameters.bias


def activate(values, activation):
    gelu = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))
    return {"gelu": gelu, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation](values)


class Projections:
    """The projections as they are, or rounded as in int8 where there are ranges."""

    def __init__(self, ranges=None):
        self._ranges = ranges or {}

    def __call__(self, values, name, parameters):
        if name not in self._ranges:
            return linear(values, parameters)
        span = self._ranges[name]
        steps = np.clip(np.rint(values / np.float32(span.scale)) + span.zero_point, 0, 255)
        weight, scale = quantize_weight(parameters.weight)
        values = (steps - span.zero_point) * float(np.float32(span.scale))
        return linear(values, replace(parameters, weight=weight * scale))


def attend(values_TD, layer, name, names, project):
    parts = zip((layer.query, layer.key, layer.value), names, strict=True)
    heads = [
        np.split(project(values_TD, f"{name}.{part_name}", part), layer.num_heads, axis=1)
        for part, part_name in parts
    ]
    contexts = []
    for head, (query, key, value) in enumerate(zip(*heads, strict=True)):
        if layer.rotary_frequencies is not None:
            query, key = (rotate(side, layer.rotary_frequencies) for side in (query, key))
        scores = query @ key.T / math.sqrt(query.shape[1])
        scores = scores + offset_scores(layer, head, query, key)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = scores / scores.sum(axis=1, keepdims=True)
        contexts.append(probabilities @ value)
    return np.concatenate(contexts, axis=1)


def choose(states_TD, layer):
    """Positions of the most significant tokens, the first among them."""
    significance_T = states_TD @ layer.significance_D
    significance_T[0] = np.inf
    count = math.ceil(layer.keep_share * len(states_TD) - 1e-9)
    return np.sort(np.argsort(-significance_T, kind="stable")[:count])


def pool(hidden_TD, pooling):
    """The first token, and one for every few of the others."""
    groups = [
        hidden_TD[start : start + pooling.every]
        for start in range(1, len(hidden_TD), pooling.every)
    ]
    reduce = {"mean": np.mean, "max": np.max}[pooling.how]
    return np.stack([hidden_TD[0], *(reduce(group, axis=0) for group in groups)])


def rotate(side_Td, frequencies):
    """Rotate value pairs (first half, second half) as complex numbers by their positions."""
    first, second = np.split(side_Td, 2, axis=1)
    angles = np.arange(len(side_Td))[:, None] * frequencies.astype(np.float64)
    rotated = (first + 1j * second) * np.exp(1j * angles)
    return np.concatenate([rotated.real, rotated.imag], axis=1)


def offset_scores(layer, head, query_Td, key_Td):
    """Terms (T, T) that the offset of two tokens adds to a head's scores, one by one."""
    length, width = query_Td.shape
    scores = np.zeros((length, length))
    columns = slice(head * width, (head + 1) * width)
    for q, k in np.ndindex(length, length):
        if layer.bias_HO is not None:
            row = layer.bias_HO[head % len(layer.bias_HO)]
            scores[q, k] += row[len(row) // 2 + k - q]
        if layer.relative is not None:
            row = layer.relative.rows_O[len(layer.relative.rows_O) // 2 + k - q]
            scores[q, k] += query_Td[q] @ layer.relative.keys_RW[row, columns]
            scores[q, k] += key_Td[k] @ layer.relative.queries_RW[row, columns]
    return scores


def reference_logits(encoder, ids_T, types_T, ranges=None):
    """Logits of the encoder as in its paper, in float64."""
    pooled_D = reference_pooled(encoder, ids_T, types_T, ranges)
    head = encoder.head
    inner_D = norm(activate(linear(pooled_D, head.hidden), head.activation), head.norm)
    return linear(inner_D, head.output)


def reference_pooled(encoder, ids_T, types_T, ranges=None):
    """What its head takes, with every layer on every token."""
    token_embeddings_VE = encoder.token_embeddings_VE
    if ranges:
        steps_VE, scale_V = quantize_token_embeddings(token_embeddings_VE)
        token_embeddings_VE = steps_VE * scale_V[:, None]
    hidden_TD = token_embeddings_VE[ids_T].astype(np.float64)
    if encoder.position_embeddings_PE is not None:
        hidden_TD = hidden_TD + encoder.position_embeddings_PE[: len(ids_T)]
    if encoder.token_types_KE is not None:
        hidden_TD = hidden_TD + encoder.token_types_KE[types_T]
    if encoder.project_first:
        hidden_TD = linear(hidden_TD, encoder.projection)
    hidden_TD = norm(hidden_TD, encoder.embedding_norm)
    if encoder.projection is not None and not encoder.project_first:
        hidden_TD = linear(hidden_TD, encoder.projection)
    project = Projections(ranges)
    for index, layer in enumerate(encoder.layers):
        name = f"layer{index}"
        if encoder.pooling_of_tokens and encoder.pooling_of_tokens.before_layer == index:
            hidden_TD = pool(hidden_TD, encoder.pooling_of_tokens)
        is_last = index == len(encoder.layers) - 1 and encoder.pooling == "first"
        names = ("q", "kv", "kv") if is_last else ("qkv", "qkv", "qkv")
        before, after = (norm, lambda x, _: x) if layer.norm_first else (lambda x, _: x, norm)
        normed_TD = before(hidden_TD, layer.attention_norm)
        context_TW = attend(normed_TD, layer, name, names, project)
        if layer.keep_share < 1 and not is_last:
            kept_K = choose(hidden_TD, layer)
            context_TW, hidden_TD = context_TW[kept_K], hidden_TD[kept_K]
        hidden_TD = hidden_TD + project(context_TW, f"{name}.output", layer.output)
        hidden_TD = after(hidden_TD, layer.attention_norm)
        normed_TD = before(hidden_TD, layer.ffn_norm)
        inner_TF = activate(project(normed_TD, f"{name}.up", layer.up), encoder.activation)
        if layer.gate is not None:
            inner_TF = inner_TF * project(normed_TD, f"{name}.up", layer.gate)
        hidden_TD = after(hidden_TD + project(inner_TF, f"{name}.down", layer.down), layer.ffn_norm)
    hidden_TD = norm(hidden_TD, encoder.final_norm)
    return hidden_TD[0] if encoder.pooling == "first" else hidden_TD.mean(axis=0)


def prune(layer: Layer, num_heads: int) -> Layer:
    """The layer with only its first heads."""
    width = layer.query.weight.shape[1] // layer.num_heads * num_heads

    def first(part: Linear) -> Linear:
        return Linear(weight=part.weight[:, :width], bias=part.bias[:width])

    return replace(
        layer,
        num_heads=num_heads,
        query=first(layer.query),
        key=first(layer.key),
        value=first(layer.value),
        output=replace(layer.output, weight=layer.output.weight[:width]),
    )


MAX_LENGTH, WIDTH = 64, 32
KINDS = (
    *("plain", "one layer", "pruned", "narrow embeddings", "projected before the norm"),
    *("relu", "no types", "no positions", "no biases", "norms first", "no attention norm"),
    *("gate", "bias", "window", "relative", "rotary", "mean", "more norms", "all at once"),
    *("dropped", "dropped, then the mean", "pooled by mean", "pooled by max", "both"),
)
# Settings of the reductions: the layers' shares, and the pooling.
REDUCTIONS = {
    "dropped": ((0.6, 0.75, 0.5), None),
    "dropped, then the mean": ((1.0, 0.5, 0.6), None),
    "pooled by mean": ((1.0,), TokenPooling(before_layer=1, every=4, how="mean")),
    "pooled by max": ((1.0,), TokenPooling(before_layer=0, every=3, how="max")),
    "both": ((1.0, 0.6), TokenPooling(before_layer=1, every=2, how="mean")),
}


def layer_parts(kind):
    """Fields of every layer of a variant."""
    rng = np.random.default_rng(5)

    def floats(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    offsets_O = np.arange(-MAX_LENGTH - 3, MAX_LENGTH + 4)  # tables may hold more than needed
    window_O = np.where(np.abs(offsets_O) > 5, -np.inf, 0).astype(np.float32)
    parts = {
        "norms first": {"norm_first": True},
        "no attention norm": {
            "norm_first": True,
            "attention_norm": None,
            # Otherwise scores reach 186, and float32 rounds them by more than the test allows.
            "query": Linear(weight=0.1 * floats(WIDTH, WIDTH), bias=0.1 * floats(WIDTH)),
        },
        "gate": {"gate": Linear(weight=floats(WIDTH, 2 * WIDTH), bias=floats(2 * WIDTH))},
        "bias": {"bias_HO": floats(4, len(offsets_O))},
        "window": {"bias_HO": window_O[None]},
        "relative": {
            "relative": RelativePositions(
                rows_O=np.clip(offsets_O + 9, 2, 17),
                keys_RW=0.3 * floats(19, WIDTH),
                queries_RW=0.3 * floats(19, WIDTH),
            )
        },
        "rotary": {"rotary_frequencies": np.array([1, 0.5, 0.1, 0.01], np.float32)},
    }
    if kind == "all at once":
        return {name: part for fields in parts.values() for name, part in fields.items()}
    return parts.get(kind, {})


def make_variant(encoder_factory, kind):
    if kind in REDUCTIONS:
        return reduce_tokens(encoder_factory(num_layers=3, num_heads=6, width=48), kind)
    encoder = encoder_factory(num_layers=1 if kind == "one layer" else 2, num_heads=4)
    layers = tuple(replace(layer, **layer_parts(kind)) for layer in encoder.layers)
    encoder = replace(encoder, layers=layers)
    if kind == "pruned":
        first, last = encoder.layers
        return replace(encoder, layers=(prune(first, 3), prune(last, 1)))
    if kind == "narrow embeddings":
        narrow = encoder_factory(width=16)
        projection = Linear(
            weight=encoder.token_embeddings_VE[:16], bias=encoder.position_embeddings_PE[0]
        )
        return replace(
            encoder,
            token_embeddings_VE=narrow.token_embeddings_VE,
            position_embeddings_PE=narrow.position_embeddings_PE,
            token_types_KE=narrow.token_types_KE,
            embedding_norm=narrow.embedding_norm,
            projection=projection,
        )
    if kind == "relu":
        return replace(encoder, activation="relu", head=replace(encoder.head, activation="gelu"))
    if kind == "no types":
        return replace(encoder, token_types_KE=None)
    if kind == "no positions":
        return replace(encoder, position_embeddings_PE=None)
    if kind == "projected before the norm":
        projection = Linear(
            weight=encoder.token_embeddings_VE[:32], bias=encoder.position_embeddings_PE[0]
        )
        return replace(encoder, projection=projection, project_first=True)
    if kind in ("mean", "all at once"):
        encoder = replace(encoder, pooling="mean")
    if kind in ("more norms", "all at once"):
        head = replace(encoder.head, norm=encoder.layers[0].ffn_norm)
        return replace(encoder, final_norm=encoder.embedding_norm, head=head)
    if kind == "no biases":
        bare = {
            name: replace(part, bias=np.zeros_like(part.bias))
            for name, part in vars(encoder.layers[0]).items()
            if isinstance(part, Linear)
        }
        return replace(encoder, layers=(replace(encoder.layers[0], **bare), encoder.layers[1]))
    return encoder


def reduce_tokens(encoder, kind):
    """The encoder with fewer tokens from layer to layer."""
    shares, pooling = REDUCTIONS[kind]
    layers = tuple(
        replace(layer, keep_share=share)
        for layer, share in itertools.zip_longest(encoder.layers, shares, fillvalue=1.0)
    )
    return replace(
        encoder,
        layers=layers,
        pooling_of_tokens=pooling,
        pooling="mean" if "then the mean" in kind else "first",
    )


@pytest.mark.parametrize("text_pairs", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_computes_what_the_encoder_means(encoder_factory, tmp_path, kind, text_pairs):
    encoder = make_variant(encoder_factory, kind)
    write_graph(encoder, tmp_path / "model.onnx", text_pairs=text_pairs)
    engine = OnnxEngine(tmp_path / "model.onnx")
    has_types = text_pairs and kind != "no types"
    assert engine.input_names == ("input_ids", "token_type_ids")[: 1 + has_types]
    rng = np.random.default_rng(0)
    for length in (1, 2, 6, 17, 64):
        ids_BT = rng.integers(0, 128, (3, length))
        types_BT = rng.integers(0, 2, (3, length)) * text_pairs
        expected_BC = [
            reference_logits(encoder, *row) for row in zip(ids_BT, types_BT, strict=True)
        ]
        np.testing.assert_allclose(engine.run(ids_BT, types_BT), expected_BC, atol=2e-5)


@pytest.mark.parametrize(
    ("activation", "normalize", "num_outputs"),
    [(None, True, 32), ("tanh", True, 7), ("relu", False, None)],
)
@pytest.mark.parametrize("num_layers", [0, 2])
def test_a_vector_is_what_its_head_means(
    encoder_factory, tmp_path, num_layers, activation, normalize, num_outputs
):
    encoder = replace(encoder_factory(num_layers=num_layers), pooling="mean")
    if not num_layers:  # static vectors
        encoder = replace(
            encoder, position_embeddings_PE=None, token_types_KE=None, embedding_norm=None
        )
    projection = encoder.head.hidden if activation else None
    head = EmbeddingHead(
        projection=projection,
        activation=activation,
        normalize=normalize,
        num_outputs=num_outputs,
    )
    write_graph(replace(encoder, head=head), tmp_path / "a.onnx", text_pairs=False)
    operators = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    # Of the table of positions, and of the vector where that gives fewer values than it has.
    assert operators.count("Slice") == (num_layers > 0) + (num_outputs == 7)
    ids_BT = np.random.default_rng(0).integers(0, 128, (3, 9))
    vectors_BD = OnnxEngine(tmp_path / "a.onnx").run(ids_BT, None)
    for ids_T, vector_D in zip(ids_BT, vectors_BD, strict=True):
        expected_D = reference_pooled(encoder, ids_T, 0 * ids_T)
        if activation:
            expected_D = activate(linear(expected_D, projection), activation)
        if normalize:
            expected_D = expected_D / np.linalg.norm(expected_D)
        np.testing.assert_allclose(vector_D, expected_D[:num_outputs], atol=2e-5)


@pytest.fixture(scope="module")
def graphs(encoder_factory, tmp_path_factory):
    """Paths of one encoder's graph in float and, with min-max ranges, in int8."""
    path = tmp_path_factory.mktemp("graphs")
    encoder = encoder_factory(**SHAPE)
    write_graph(encoder, path / "float.onnx", text_pairs=True)
    write_graph(encoder, path / "observed.onnx", text_pairs=True, observe=True)
    ranges = measure_ranges(path / "observed.onnx")
    write_graph(encoder, path / "int8.onnx", text_pairs=True, ranges=ranges)
    return path


def measure_ranges(observed):
    """Ranges of the activations of random rows."""
    histograms = collect_histograms(observed, RandomRows())
    return {name: histogram.clipped_range(0) for name, histogram in histograms.items()}


class RandomRows:
    """Rows of random ids and types, all of one length, in the shape of `TokenizedRows`."""

    lengths_N = np.full(128, 24)

    def batch_ids(self, rows_B):
        return np.random.default_rng(1).integers(0, 1000, (128, 24))[rows_B]

    def batch_types(self, rows_B):
        return np.random.default_rng(2).integers(0, 2, (128, 24))[rows_B]


@pytest.fixture(scope="module")
def logits(graphs):
    """Logits of both graphs on random rows: ids, types, float, int8."""
    rng = np.random.default_rng(3)
    ids_BT, types_BT = rng.integers(0, 1000, (256, 24)), rng.integers(0, 2, (256, 24))
    run = [OnnxEngine(graphs / name).run(ids_BT, types_BT) for name in ("float.onnx", "int8.onnx")]
    return ids_BT, types_BT, *run


def test_int8_logits_are_close_to_those_of_the_float_graph(logits):
    _, _, float_BC, int8_BC = logits
    assert len(set(float_BC.argmax(axis=1))) >= 3
    # It is 0.95 here; weights without training leave many rows between two classes.
    assert (float_BC.argmax(axis=1) == int8_BC.argmax(axis=1)).mean() >= 0.9
    assert (np.abs(int8_BC - float_BC).mean(axis=0) < 0.1 * float_BC.std(axis=0)).all()


def test_int8_logits_are_those_of_rounded_weights_and_activations(encoder_factory, logits, graphs):
    ids_BT, types_BT, float_BC, int8_BC = (part[:64] for part in logits)
    encoder = encoder_factory(**SHAPE)
    ranges = measure_ranges(graphs / "observed.onnx")
    expected_BC = np.array(
        [reference_logits(encoder, *row, ranges) for row in zip(ids_BT, types_BT, strict=True)]
    )
    # A value halfway between two steps may go either way, which moves a row by 0.03 or so.
    errors_B = np.abs(int8_BC - expected_BC).max(axis=1)
    assert (errors_B < 1e-4).mean() > 0.9
    assert errors_B.max() < 0.1
    assert np.abs(float_BC - expected_BC).mean() > 0.01  # rounding does move them


def test_int8_takes_far_less_space(graphs):
    sizes = [measure_graph_bytes(graphs / name) for name in ("int8.onnx", "float.onnx")]
    assert sizes[0] < 0.4 * sizes[1]  # towards a quarter, the wider the layers


@pytest.mark.parametrize("name", ["float.onnx", "int8.onnx"])
def test_the_file_has_no_mask_and_no_fused_norm(graphs, name):
    graph = onnx.load(graphs / name).graph
    assert [entry.name for entry in graph.input] == ["input_ids", "token_type_ids"]
    operators = {node.op_type for node in graph.node}
    assert "SkipLayerNormalization" not in operators
    assert "LayerNormalization" in operators
    for node in graph.node:
        if node.op_type == "Attention":
            assert len(node.input) == 3  # query, key, value; a mask would be the fourth


def test_every_projection_is_int8_and_the_rest_is_not(graphs):
    def count(name, operator):
        return sum(node.op_type == operator for node in onnx.load(graphs / name).graph.node)

    # Per layer qkv, output, up and down; the last one has q instead of qkv, and reads the states.
    assert count("int8.onnx", "MatMulIntegerToFloat") == 2 * 4
    assert count("int8.onnx", "MatMul") == 4 + 2  # of the last layer's attention, and of the head
    assert count("float.onnx", "MatMul") == 2 * 4 + 4 + 2
    (embeddings,) = (
        w for w in onnx.load(graphs / "int8.onnx").graph.initializer if w.name == "words"
    )
    assert embeddings.data_type == onnx.TensorProto.INT8


def test_only_the_first_token_goes_through_the_last_layers_feed_forward(graphs):
    session = onnxruntime.InferenceSession(graphs / "observed.onnx")
    feed = {name: np.zeros((2, 24), np.int64) for name in ("input_ids", "token_type_ids")}
    names = [output.name for output in session.get_outputs()]
    tokens = {name: v.shape[1] for name, v in zip(names, session.run(names, feed), strict=True)}
    assert tokens["layer0.up.input"] == tokens["layer0.down.input"] == 24
    assert "layer1.kv.input" not in tokens
    for part in ("q", "output", "up", "down"):
        assert tokens[f"layer1.{part}.input"] == 1


def test_the_same_encoder_gives_the_same_files(encoder_factory, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_graph(encoder_factory(), tmp_path / name / "model.onnx", text_pairs=False)
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.fixture(scope="module")
def batch():
    """Ids and types of 64 rows of one length."""
    rng = np.random.default_rng(4)
    return rng.integers(0, 1000, (64, 24)), rng.integers(0, 2, (64, 24))


def test_a_static_int8_row_scores_alone_as_in_a_batch(graphs, batch):
    ids_BT, types_BT = batch
    engine = OnnxEngine(graphs / "int8.onnx")
    together_BC = engine.run(ids_BT, types_BT)
    for row in range(0, 64, 7):
        alone_1C = engine.run(ids_BT[row : row + 1], types_BT[row : row + 1])
        np.testing.assert_allclose(alone_1C[0], together_BC[row], atol=1e-5)


def test_a_dynamic_int8_row_depends_on_its_batch(encoder_factory, batch, tmp_path):
    """Inputs that are twenty times as large as others take the steps that these would need."""
    encoder = encoder_factory(**SHAPE)
    up = encoder.layers[0].up
    inflated = replace(up, weight=np.concatenate([20 * up.weight[:1], up.weight[1:]]))
    encoder = replace(
        encoder, layers=(replace(encoder.layers[0], up=inflated), *encoder.layers[1:])
    )
    names = write_graph(encoder, tmp_path / "float.onnx", text_pairs=True)
    assert names[0] == "layer0.qkv"
    assert len(names) == 2 * 4
    path = tmp_path / "dynamic.onnx"
    write_graph(encoder, path, text_pairs=True, ranges=dict.fromkeys(names))
    ids_BT, types_BT = batch
    float_BC = OnnxEngine(tmp_path / "float.onnx").run(ids_BT, types_BT)
    engine = OnnxEngine(path)
    together_BC = engine.run(ids_BT, types_BT)
    assert (np.abs(together_BC - float_BC).mean(axis=0) < 0.3 * float_BC.std(axis=0)).all()
    moved_B = [
        np.abs(engine.run(ids_BT[row : row + 1], types_BT[row : row + 1]) - together_BC[row]).max()
        for row in range(0, 64, 7)
    ]
    assert max(moved_B) > 0.01


def test_a_projection_that_no_range_names_stays_in_float(encoder_factory, graphs, tmp_path):
    ranges = measure_ranges(graphs / "observed.onnx")
    del ranges["layer0.down"]
    write_graph(encoder_factory(**SHAPE), tmp_path / "a.onnx", text_pairs=True, ranges=ranges)
    weights = {w.name: w.data_type for w in onnx.load(tmp_path / "a.onnx").graph.initializer}
    assert weights["layer0.down.weight"] == onnx.TensorProto.FLOAT
    assert weights["layer0.up.weight"] == onnx.TensorProto.INT8
