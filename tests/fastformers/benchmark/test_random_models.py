from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME, EncoderShape  # noqa: E402
from fastformers.benchmark.random_models import (  # noqa: E402
    make_random_bundle,
    make_random_model,
    random_rows,
    write_int8_graph,
)
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.inference.bundle import open_bundle  # noqa: E402
from fastformers.inference.engine import OnnxEngine  # noqa: E402
from fastformers.inference.scorer import Scorer  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402

SMALL = EncoderShape(
    num_layers=2,
    width=24,
    num_heads=3,
    head_width=8,
    ffn_width=48,
    activation="relu",
    vocab_size=40,
)


def make_named(name):
    return make_random_model(replace(SHAPES_BY_NAME[name], vocab_size=50))


@pytest.mark.parametrize(
    ("name", "num_heads", "neurons"), [("student", 12, 1200), ("pruned", 8, 608)]
)
def test_students_have_the_papers_shape(name, num_heads, neurons):
    """Four layers of width 312; pruning takes a third of the heads and half the neurons."""
    encoder = read_encoder(make_named(name))
    assert encoder.token_embeddings_VE.shape == (50, 312)
    assert (len(encoder.layers), encoder.activation, encoder.max_length) == (4, "relu", 512)
    for layer in encoder.layers:
        assert layer.num_heads == num_heads
        assert layer.query.weight.shape == layer.value.weight.shape == (312, 26 * num_heads)
        assert layer.output.weight.shape == (26 * num_heads, 312)
        assert layer.up.weight.shape == (312, neurons)
        assert layer.down.weight.shape == (neurons, 312)
    assert encoder.head.output.weight.shape == (312, 2)


def test_the_teacher_is_bert_base():
    with torch.device("meta"):  # 86 million weights whose values are not needed
        model = make_named("bert-base")
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (12, 768)
    assert (config.num_attention_heads, config.intermediate_size) == (12, 3072)
    assert config.hidden_act == "gelu"
    assert sum(weight.numel() for weight in model.bert.encoder.parameters()) == 85_054_464
    assert not model.training


def test_a_pruned_model_is_saved_and_loaded_as_such(tmp_path):
    """The whole jobs of the baselines read it from disk."""
    model = make_named("pruned")
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = load_model(tmp_path / "checkpoint")
    ids_BT = torch.arange(20).reshape(2, 10)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids_BT).logits, model(ids_BT).logits)


@pytest.mark.parametrize("num_heads", [3, 2])
def test_weights_are_the_same_each_time_and_no_bias_is_zero(num_heads):
    """A zero would be optimized away, unlike in the graph of a trained model."""
    shape = replace(SMALL, num_heads=num_heads)
    weights, again = (make_random_model(shape).state_dict() for _ in range(2))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    biases = [weight for name, weight in weights.items() if name.endswith(".bias")]
    assert len(biases) == 2 * 8 + 3
    assert all((bias != 0).all() for bias in biases)


@pytest.mark.parametrize("changes", [{"head_width": 7}, {"num_heads": 4}, {"num_heads": 0}])
def test_heads_that_do_not_fit_the_width_are_refused(changes):
    with pytest.raises(ValueError, match="the heads do not fit the width"):
        make_random_model(replace(SMALL, **changes))


@pytest.mark.parametrize("text_pairs", [True, False])
def test_a_graph_takes_token_types_for_pairs_alone_and_leaves_no_other_file(tmp_path, text_pairs):
    rows = random_rows(np.array([9, 5]), vocab_size=40)
    path = tmp_path / "model.onnx"
    write_int8_graph(
        make_random_model(SMALL, max_length=16), path, rows=rows, text_pairs=text_pairs
    )
    engine = OnnxEngine(path)
    assert engine.input_names == ("input_ids", "token_type_ids")[: 1 + text_pairs]
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}


def test_random_rows_have_the_lengths_and_the_vocabulary():
    rows = random_rows(np.array([3, 500, 4]), vocab_size=40)
    assert rows.lengths_N.tolist() == [3, 500, 4]
    assert set(rows.ids.tolist()) == set(range(40))


def test_the_bundle_scores_as_its_weights_do_and_says_that_they_are_random(
    make_teacher, make_texts, tokenizer_json, tmp_path
):
    model = make_teacher(labels=("low", "middle", "high"))
    texts = make_texts(60)
    rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
    bundle = make_random_bundle(
        model, tokenizer_json=tokenizer_json, rows=rows, path=tmp_path / "bundle"
    )
    assert open_bundle(tmp_path / "bundle") == bundle
    assert bundle.provenance == {"teacher": "random weights"}
    assert (bundle.precision, bundle.stages, bundle.max_length) == ("int8", (), 64)
    assert bundle.labels == ("low", "middle", "high")
    assert bundle.cost_profile.lengths[-1] == 64
    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node) == 4 + 4
    expected_NC = predict_logits(model, rows)
    predictions = Scorer(bundle).score(texts)
    expected = [bundle.labels[label] for label in expected_NC.argmax(axis=1)]
    agreement = np.mean([a == b for a, b in zip(predictions.labels, expected, strict=True)])
    assert agreement > 0.9
    assert len(set(expected)) > 1
