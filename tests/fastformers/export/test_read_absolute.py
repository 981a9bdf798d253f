import json

import numpy as np
import pytest

from fastformers.errors import InputError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import OnnxEngine

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.export.read_absolute import read_encoder  # noqa: E402
from fastformers.models.loading import class_names, label_names, load_model, task_of  # noqa: E402

FIVE = ["Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra"]
SUPPORTED = "bert, deberta-v2, distilbert, electra, modernbert, mpnet, roberta, xlm-roberta"
# RoBERTa starts to count positions behind the id of its padding.
ROBERTA = {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 66}
# DistilBERT has its own names.
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
SHAPES = {"Roberta": ROBERTA, "XLMRoberta": ROBERTA, "DistilBert": DISTILBERT}


def pytorch_logits(model, ids_BT, types_BT=None):
    """Logits with a full attention mask, and token types where there are any."""
    inputs = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.ones(ids_BT.shape)}
    if types_BT is not None:
        inputs["token_type_ids"] = torch.from_numpy(types_BT)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def check_equal(model, path, *, text_pairs, lengths=(2, 3, 17, 64)):
    """Compare the graph with PyTorch at several lengths; returns the largest logit seen."""
    write_graph(read_encoder(model), path, text_pairs=text_pairs)
    engine = OnnxEngine(path)
    rng = np.random.default_rng(0)
    has_types = "token_type_ids" in engine.input_names
    all_logits = []
    for length in lengths:
        ids_BT = rng.integers(2, model.config.vocab_size, (4, length))
        types_BT = np.sort(rng.integers(0, 2, (4, length)), axis=1)
        expected_BC = pytorch_logits(model, ids_BT, types_BT if has_types else None)
        np.testing.assert_allclose(engine.run(ids_BT, types_BT), expected_BC, atol=1e-4)
        all_logits.append(expected_BC)
    assert np.concatenate(all_logits).std(axis=0).min() > 0.01  # the rows do differ
    return has_types


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("architecture", FIVE)
def test_the_graph_gives_the_logits_of_pytorch(make_teacher, tmp_path, architecture, text_pairs):
    model = make_teacher(architecture, labels=("a", "b", "c"), **SHAPES.get(architecture, {}))
    has_types = check_equal(model, tmp_path / "model.onnx", text_pairs=text_pairs)
    assert has_types is (text_pairs and architecture in ("Bert", "Electra"))


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        pytest.param("Electra", {"embedding_size": 16}, id="narrow embeddings"),
        pytest.param("Electra", {"embedding_size": 32}, id="embeddings as wide as the layers"),
        pytest.param("Bert", {"num_hidden_layers": 1}, id="one layer"),
        pytest.param("Bert", {"hidden_act": "relu"}, id="relu"),
        pytest.param("Bert", {"layer_norm_eps": 0.1}, id="epsilon"),
        pytest.param("Roberta", {**ROBERTA, "type_vocab_size": 2}, id="types in RoBERTa"),
        pytest.param("Roberta", {**ROBERTA, "pad_token_id": 0}, id="another padding offset"),
        pytest.param("DistilBert", {**DISTILBERT, "sinusoidal_pos_embds": True}, id="sinusoidal"),
    ],
)
def test_variants_give_the_logits_of_pytorch(make_teacher, tmp_path, architecture, shape):
    model = make_teacher(architecture, **shape)
    encoder = read_encoder(model)
    assert (encoder.projection is not None) is (shape.get("embedding_size") == 16)
    check_equal(model, tmp_path / "model.onnx", text_pairs=True)


def test_positions_are_those_left_for_tokens(make_teacher):
    assert read_encoder(make_teacher()).max_length == 64
    assert read_encoder(make_teacher("Roberta", **ROBERTA)).max_length == 64


@pytest.mark.parametrize("architecture", FIVE)
def test_a_saved_teacher_loads_as_it_was(make_teacher, tmp_path, architecture):
    model = make_teacher(architecture, labels=("bad", "good"), **SHAPES.get(architecture, {}))
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    ids_BT = np.random.default_rng(0).integers(2, 100, (4, 9))
    np.testing.assert_array_equal(pytorch_logits(loaded, ids_BT), pytorch_logits(model, ids_BT))
    assert not loaded.training
    assert class_names(loaded.config) == ("bad", "good")


def test_a_teacher_in_half_precision_is_read_as_float(make_teacher, tmp_path):
    make_teacher().half().save_pretrained(tmp_path / "half")
    model = load_model(tmp_path / "half")
    assert read_encoder(model).token_embeddings_VE.dtype == np.float32
    check_equal(model, tmp_path / "model.onnx", text_pairs=False)


def test_weights_are_copied_not_shared(make_teacher):
    model = make_teacher(num_hidden_layers=1)
    encoder = read_encoder(model)
    kept = [array.copy() for array in (encoder.token_embeddings_VE, encoder.layers[0].up.bias)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for array, before in zip(
        (encoder.token_embeddings_VE, encoder.layers[0].up.bias), kept, strict=True
    ):
        np.testing.assert_array_equal(array, before)


def write_config(path, **fields):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("name", ["gpt2", "deberta", "t5", "no-such-architecture"])
def test_another_architecture_is_refused_by_name_with_the_list(tmp_path, name):
    path = write_config(tmp_path / "teacher", model_type=name)
    with pytest.raises(
        InputError, match=f"teacher: architecture '{name}' is not one of {SUPPORTED}"
    ):
        load_model(path)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_config_that_names_no_architecture_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_a_directory_without_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json; expected a Hugging Face model"):
        load_model(tmp_path / "missing")


def test_a_config_without_weights_is_refused(make_teacher, tmp_path):
    make_teacher().config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_model(tmp_path)


def test_an_encoder_without_classifier_is_refused(make_teacher, tmp_path):
    make_teacher().bert.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"not fine-tuned as a classifier: .*classifier\.bias"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("labels", "fields", "task"),
    [
        (("a", "b"), {}, "text-classification"),
        (("score",), {}, "regression"),
        (("score",), {"problem_type": "regression"}, "regression"),
        (("a", "b"), {"problem_type": "multi_label_classification"}, "multi-label-classification"),
        (("a",), {"problem_type": "multi_label_classification"}, "multi-label-classification"),
        (("a", "b"), {"head": "MultipleChoice"}, "multiple-choice"),
    ],
)
def test_a_saved_model_says_what_its_task_is(make_teacher, tmp_path, labels, fields, task):
    make_teacher(labels=labels, **fields).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert task_of(model) == task
    assert label_names(model) == (labels if "classification" in task else ())


def test_regression_of_several_numbers_is_refused(make_teacher, tmp_path):
    make_teacher(problem_type="regression").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="regression of 2 numbers; expected one"):
        load_model(tmp_path)


@pytest.mark.parametrize("architecture", FIVE)
def test_a_choice_is_exported_as_a_pair_with_one_output(make_teacher, tmp_path, architecture):
    make_teacher(
        architecture, head="MultipleChoice", **SHAPES.get(architecture, {})
    ).save_pretrained(tmp_path / "saved")
    model = load_model(tmp_path / "saved")
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=True)
    engine = OnnxEngine(tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    ids_BT = rng.integers(2, model.config.vocab_size, (6, 17))
    types_BT = np.sort(rng.integers(0, 2, (6, 17)), axis=1)
    has_types = "token_type_ids" in engine.input_names
    # PyTorch is asked as it was trained: two questions of three choices.
    expected = pytorch_logits(
        model, ids_BT.reshape(2, 3, 17), types_BT.reshape(2, 3, 17) if has_types else None
    )
    logits_B1 = engine.run(ids_BT, types_BT)
    assert logits_B1.shape == (6, engine.num_outputs) == (6, 1)
    np.testing.assert_allclose(logits_B1.reshape(2, 3), expected, atol=1e-4)
    assert expected.std() > 0.01


def test_an_activation_without_operator_is_refused(make_teacher):
    with pytest.raises(InputError, match="hidden activation 'silu' is not one of gelu, relu, tanh"):
        read_encoder(make_teacher(hidden_act="silu"))


def test_relative_positions_are_refused(make_teacher):
    model = make_teacher()
    model.config.position_embedding_type = "relative_key"
    with pytest.raises(InputError, match="position_embedding_type 'relative_key': absolute only"):
        read_encoder(model)
