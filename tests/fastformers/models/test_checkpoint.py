"""Weights of plain and pruned models, as they come back from a directory or are refused."""

import copy
import json

import numpy as np
import pytest

from fastformers.errors import InputError
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.models.checkpoint import load_weights  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.layers import (  # noqa: E402
    LayerShape,
    keep_heads,
    keep_neurons,
    layer_parts,
    layer_shape,
)
from fastformers.models.loading import load_model  # noqa: E402

HEADS = ([0, 2, 3], [1], [0, 1, 2, 3])
NEURONS = (range(16, 48), [0, 7, 40, 47], range(48))
SHAPES = [
    LayerShape(num_heads=len(heads), ffn_width=len(neurons))
    for heads, neurons in zip(HEADS, NEURONS, strict=True)
]


@pytest.fixture
def make_pruned(make_teacher):
    """A model of three layers, each of another shape."""

    def make():
        model = make_teacher(
            labels=("a", "b", "c"),
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
        )
        for layer, heads, neurons in zip(layer_parts(model), HEADS, NEURONS, strict=True):
            keep_heads(layer, heads)
            keep_neurons(layer, neurons)
        model.config.pruned_layers = [vars(shape) for shape in SHAPES]
        return model

    return make


@pytest.fixture
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=24).encode(make_texts(24))


@pytest.mark.parametrize(
    "layers",
    [
        [{"num_heads": 1}],
        "all",
        7,
        [{"num_heads": 1, "ffn_width": 8}],
        [{"num_heads": 9, "ffn_width": 8}] * 3,
        [{"num_heads": 1, "ffn_width": 0}] * 3,
    ],
    ids=str,
)
def test_shapes_that_make_no_sense_are_refused(make_pruned, tmp_path, layers):
    make_pruned().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pruned_layers": layers}))
    with pytest.raises(InputError, match=rf"{tmp_path}: config\.json"):
        load_model(tmp_path)


def test_a_pruned_encoder_without_classifier_is_refused(make_pruned, tmp_path):
    make_pruned().base_model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"not fine-tuned as a classifier: .*classifier\.bias"):
        load_model(tmp_path)


def test_a_pruned_model_in_half_precision_is_read_as_float(make_pruned, rows, tmp_path):
    pruned = make_pruned()
    copy.deepcopy(pruned).half().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    np.testing.assert_allclose(
        predict_logits(loaded, rows), predict_logits(pruned, rows), atol=0.05
    )


def test_a_pruned_model_comes_back_as_a_plain_one_of_its_shapes(make_pruned, rows, tmp_path):
    pruned = make_pruned()
    pruned.save_pretrained(tmp_path)
    loaded, missing = load_weights(transformers.AutoModelForSequenceClassification, tmp_path)
    assert (type(loaded), missing, loaded.training) == (type(pruned), [], False)
    assert list(map(layer_shape, layer_parts(loaded))) == SHAPES
    np.testing.assert_array_equal(predict_logits(loaded, rows), predict_logits(pruned, rows))


@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_weights_that_a_directory_lacks_are_named_in_order(
    make_teacher, make_pruned, tmp_path, kind
):
    model = make_pruned() if kind == "pruned" else make_teacher()
    model.base_model.save_pretrained(tmp_path)
    _, missing = load_weights(transformers.AutoModelForSequenceClassification, tmp_path)
    assert missing == ["classifier.bias", "classifier.weight"]


@pytest.mark.parametrize("kind", ["plain", "pruned"])
def test_a_directory_without_weights_is_refused_by_its_path(
    make_teacher, make_pruned, tmp_path, kind
):
    model = make_pruned() if kind == "pruned" else make_teacher()
    model.config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"^{tmp_path}: cannot be read: .* no file named"):
        load_model(tmp_path)
