"""A change of the graphs comes with another `GRAPH_VERSION`.

The version is part of the name of each graph that `compress --work` keeps. If a test here fails
after a change of the exporter, raise it, and put it and the new digests in `VERSION` and `DIGESTS`.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from fastformers.export.encoder import (
    EmbeddingHead,
    EncoderWeights,
    Head,
    Layer,
    Linear,
    Norm,
    Padding,
    RelativePositions,
    TokenPooling,
)
from fastformers.export.graph import GRAPH_VERSION, write_graph
from fastformers.export.int8 import ActivationRange

VERSION = 6
# Digests of the graphs of that version.
DIGESTS = {
    "float": "b92e063825b51a7f372eb84629c89f513dc7568b6854fd9097982752792c8624",
    "float pairs": "7255858d8a8004fab6f2e390c3212146f4ea7b859ac1ad998fc33f288e449e84",
    "float16": "b6ae9df73ff921140109c61432d6cf3a034a3fb6a6fe7aeb507eb1b5461c082a",
    "int8": "2dd5d396122dde3e628ad053784ece1d750fa0bb4e47ecfb7cdbb679948cdd7f",
    "int8-dynamic": "75c6bf62f45fc55424f431e4936f3a5c6ae1a2ecc543fd4b1fe3404aafc51cf2",
    "relative positions": "479a87e9a327674839699648d0b4cd7c9b10b1d511b767dbe87dc78ee3bfce00",
    "rotary positions": "32c9ac41aba126e60a442a7ed796fb39d153c7f3c944ac44d9e3e015d506dff4",
    "padding without position": "7ac70eeacd63fd151114a5ac4f5ec1aa6496d8868cfb0edafa5836bf2a06e742",
    "dropped tokens": "d3af93d38db18d351c74f8a7123be56e5dcd49d058f4e7fb46734bf08124c88c",
    "dropped tokens float16": "ed6c126beb343ef00b0f711b5e5506ad10ef9efa4de200f961ee6d8978a2b07c",
    "pooled tokens": "1fbcf7d644f4f5acc3524f27139047a8feb3a591a99340d48fdbe74fb51e1b05",
    "embedding model": "96a341a45eb8f1f322f9cb358dbb69f47749804833d00274af12ef65b8ee4d81",
    "static vectors": "5d4c6baa65ba60d86c933c75d5a577549a7d755ecca19dffcb364792b0cb3090",
    "static vectors, pairs": "bda6ea2432241d1983a422451ce3b031a4fde98cb97c23ade61301768f60672a",
}
MAX_LENGTH, WIDTH, VOCABULARY = 16, 8, 40


def make_encoder(**changes):
    """Two layers of two heads: weights by a generator whose numbers NumPy promises to keep."""
    random = np.random.RandomState(0)

    def floats(*shape):
        return (random.random_sample(shape) - 0.5).astype(np.float32)

    def linear(inputs, outputs):
        return Linear(weight=floats(inputs, outputs), bias=floats(outputs))

    def norm():
        return Norm(weight=floats(WIDTH), bias=floats(WIDTH), epsilon=1e-12)

    def layer():
        return Layer(
            num_heads=2,
            query=linear(WIDTH, WIDTH),
            key=linear(WIDTH, WIDTH),
            value=linear(WIDTH, WIDTH),
            output=linear(WIDTH, WIDTH),
            attention_norm=norm(),
            up=linear(WIDTH, 2 * WIDTH),
            down=linear(2 * WIDTH, WIDTH),
            ffn_norm=norm(),
        )

    encoder = EncoderWeights(
        max_length=MAX_LENGTH,
        token_embeddings_VE=floats(VOCABULARY, WIDTH),
        position_embeddings_PE=floats(MAX_LENGTH, WIDTH),
        token_types_KE=floats(2, WIDTH),
        embedding_norm=norm(),
        projection=None,
        activation="gelu",
        layers=(layer(), layer()),
        head=Head(hidden=linear(WIDTH, WIDTH), activation="tanh", output=linear(WIDTH, 3)),
    )
    return replace(encoder, **changes)


def change_layers(encoder, **changes):
    return replace(encoder, layers=tuple(replace(layer, **changes) for layer in encoder.layers))


def make_relative():
    """An encoder with DeBERTa's relative positions and MPNet's bias."""
    random = np.random.RandomState(1)
    offsets_O = np.arange(-MAX_LENGTH, MAX_LENGTH + 1)
    table_RW = (random.random_sample((9, WIDTH)) - 0.5).astype(np.float32)
    return change_layers(
        make_encoder(position_embeddings_PE=None),
        bias_HO=(random.random_sample((2, len(offsets_O))) - 0.5).astype(np.float32),
        relative=RelativePositions(
            rows_O=np.clip(offsets_O + 4, 0, 8), keys_RW=table_RW, queries_RW=-table_RW
        ),
    )


def make_rotary():
    """An encoder with ModernBERT's rotations and every part that a layer may have or lack."""
    encoder = make_encoder(position_embeddings_PE=None, pooling="mean")
    first = encoder.layers[0]
    return change_layers(
        replace(encoder, final_norm=encoder.embedding_norm),
        norm_first=True,
        gate=first.up,
        rotary_frequencies=np.array([1, 0.25], np.float32),
    )


def make_embedding_model():
    head = EmbeddingHead(projection=None, activation=None, normalize=True)
    return make_encoder(pooling="mean", head=head)


def make_static(pooling):
    """Static vectors: no layers, no positions."""
    return make_encoder(
        position_embeddings_PE=None,
        token_types_KE=None,
        embedding_norm=None,
        layers=(),
        pooling=pooling,
    )


def make_ranges(names, *, fixed):
    return {name: ActivationRange(low=-2.0, high=6.0) if fixed else None for name in names}


def write_variant(variant, path):
    """Write one of the graphs whose digests are kept."""
    encoder = make_encoder()
    match variant:
        case "float":
            write_graph(encoder, path, text_pairs=False)
        case "float pairs":
            write_graph(encoder, path, text_pairs=True)
        case "relative positions":
            write_graph(make_relative(), path, text_pairs=False)
        case "rotary positions":
            write_graph(make_rotary(), path, text_pairs=False)
        case "padding without position":
            padding = Padding(token_id=1, embedding_1E=encoder.position_embeddings_PE[:1])
            write_graph(replace(encoder, padding=padding), path, text_pairs=False)
        case "embedding model":
            write_graph(make_embedding_model(), path, text_pairs=False)
        case "static vectors":
            write_graph(make_static("mean"), path, text_pairs=False, ranges={})
        case "static vectors, pairs":
            encoder = make_static("texts")
            hidden = Linear.stacked(*[encoder.head.hidden] * 4)
            hidden = Linear(weight=hidden.weight.T, bias=encoder.head.hidden.bias)
            head = Head(hidden=hidden, activation="relu", output=encoder.head.output)
            write_graph(replace(encoder, head=head), path, text_pairs=True)
        case "dropped tokens" | "dropped tokens float16":
            weights_D = np.linspace(-1, 1, WIDTH, dtype=np.float32)
            fewer = change_layers(encoder, keep_share=0.5, significance_D=weights_D)
            write_graph(fewer, path, text_pairs=False, float16=variant.endswith("float16"))
        case "pooled tokens":
            pooling = TokenPooling(before_layer=1, every=4, how="mean")
            write_graph(replace(encoder, pooling_of_tokens=pooling), path, text_pairs=False)
        case "float16":
            write_graph(encoder, path, text_pairs=False, float16=True)
        case "int8" | "int8-dynamic":
            names = write_graph(encoder, path, text_pairs=True)
            ranges = make_ranges(names[:-1], fixed=variant == "int8")  # one stays in float
            write_graph(encoder, path, text_pairs=True, ranges=ranges)


def digest_graph(path):
    """SHA-256 of what a graph means, however a version of onnx writes it to its file."""
    model = onnx.load(path)
    graph = model.graph
    parts = [
        model.ir_version,
        sorted((opset.domain, opset.version) for opset in model.opset_import),
        [describe_value(value) for value in (*graph.input, *graph.output)],
        [describe_node(node) for node in graph.node],
        [describe_tensor(tensor) for tensor in graph.initializer],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def describe_value(value):
    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return [value.name, tensor.elem_type, shape]


def describe_node(node):
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    for name, value in attributes.items():
        attributes[name] = value.decode() if isinstance(value, bytes) else value
    names = [list(node.input), list(node.output)]
    return [node.domain, node.op_type, *names, sorted(attributes.items())]


def describe_tensor(tensor):
    array = onnx.numpy_helper.to_array(tensor)
    if tensor.name.startswith(("cos", "sin")):  # their last bit differs between processors
        array = np.rint(array * 1e4).astype(np.int32)
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    digest = hashlib.sha256(content).hexdigest()
    return [tensor.name, tensor.data_type, list(array.shape), digest]


@pytest.mark.parametrize("variant", DIGESTS)
def test_another_graph_has_another_version(tmp_path, variant):
    assert GRAPH_VERSION == VERSION, "put this version and its digests in this file"
    write_variant(variant, tmp_path / "model.onnx")
    assert digest_graph(tmp_path / "model.onnx") == DIGESTS[variant], (
        "the same weights give another graph: raise GRAPH_VERSION in fastformers/export/graph.py"
    )
