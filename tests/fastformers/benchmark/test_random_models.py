import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from fastformers.benchmark.random_models import make_model, make_stand_in  # noqa: E402
from fastformers.export.read_absolute import read_encoder  # noqa: E402
from fastformers.inference.bundle import open_bundle  # noqa: E402
from fastformers.inference.scorer import Scorer  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model  # noqa: E402


@pytest.mark.parametrize(
    ("shape", "num_heads", "neurons"), [("student", 12, 1200), ("pruned", 8, 600)]
)
def test_students_have_the_papers_shape(shape, num_heads, neurons):
    """Four layers of width 312; pruning takes a third of the heads and half the neurons."""
    encoder = read_encoder(make_model(shape, vocab_size=50))
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
    with torch.device("meta"):  # 86 million weights that nobody looks at
        model = make_model("bert-base", vocab_size=50)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (12, 768)
    assert (config.num_attention_heads, config.intermediate_size) == (12, 3072)
    assert config.hidden_act == "gelu"
    assert sum(weight.numel() for weight in model.bert.encoder.parameters()) == 85_054_464
    assert not model.training


def test_a_pruned_model_is_saved_and_loaded_as_such(tmp_path):
    """The others' whole jobs read it from disk."""
    model = make_model("pruned", vocab_size=50)
    model.save_pretrained(tmp_path / "checkpoint")
    loaded = load_model(tmp_path / "checkpoint")
    ids_BT = torch.arange(20).reshape(2, 10)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids_BT).logits, model(ids_BT).logits)


def test_the_bundle_scores_as_its_weights_do_and_says_that_they_are_random(
    make_teacher, make_texts, tokenizer_json, tmp_path
):
    model = make_teacher(labels=("low", "middle", "high"))
    texts = make_texts(60)
    rows = Tokenizer(tokenizer_json, max_length=64).encode(texts)
    bundle = make_stand_in(
        model, tokenizer_json=tokenizer_json, rows=rows, path=tmp_path / "bundle"
    )
    assert open_bundle(tmp_path / "bundle") == bundle
    assert bundle.provenance == {"teacher": "random weights"}
    assert (bundle.precision, bundle.stages, bundle.max_length) == ("int8", (), 64)
    assert bundle.labels == ("low", "middle", "high")
    assert bundle.cost_profile.lengths[-1] == 64
    graph = onnx.load(bundle.model_path, load_external_data=False).graph
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node) == 4 + 5
    expected_NC = predict_logits(model, rows)
    predictions = Scorer(bundle).score(texts)
    expected = [bundle.labels[label] for label in expected_NC.argmax(axis=1)]
    agreement = np.mean([a == b for a, b in zip(predictions.labels, expected, strict=True)])
    assert agreement > 0.9
    assert len(set(expected)) > 1
