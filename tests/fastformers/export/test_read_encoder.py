import numpy as np
import onnxruntime
import pytest

from fastformers.errors import InputError
from fastformers.export.calibration import collect_histograms
from fastformers.export.graph import write_graph
from fastformers.inference.batching import plan_batches
from fastformers.inference.engine import OnnxEngine, run_graph
from fastformers.inference.tokenizer import Tokenizer
from tests.fastformers.conftest import ARCHITECTURES as WITH_LAYERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model, max_positions  # noqa: E402
from fastformers.models.variants.reduced_layers import (  # noqa: E402
    change_reduction,
    significance_of,
)
from fastformers.models.variants.token_reduction import TokenPool, TokenReduction  # noqa: E402

every_architecture = pytest.mark.parametrize("model_type", WITH_LAYERS)
LENGTHS = (*range(1, 20), 33, 63, 64)
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
POSITIONS_ALONE = {"relative_attention": False, "position_biased_input": True}
OTHER_ROTATIONS = {
    "full_attention": {"rope_type": "default", "rope_theta": 100.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
VARIANTS = [
    pytest.param(model_type, changes, id=f"{model_type}: {name}")
    for model_type, name, changes in (
        ("bert", "one layer", {"num_hidden_layers": 1}),
        ("bert", "relu", {"hidden_act": "relu"}),
        ("bert", "epsilon", {"layer_norm_eps": 0.1}),
        ("deberta-v2", "keys of their own", {"share_att_key": False}),
        ("deberta-v2", "c2p alone", {"pos_att_type": "c2p"}),
        ("deberta-v2", "p2c alone", {"pos_att_type": "p2c", "share_att_key": False}),
        ("deberta-v2", "neither", {"pos_att_type": None}),
        ("deberta-v2", "no buckets", {"position_buckets": -1}),
        (
            *("deberta-v2", "offsets end at 20"),
            {"position_buckets": -1, "max_relative_positions": 20},
        ),
        ("deberta-v2", "offsets without norm", {"norm_rel_ebd": "none"}),
        ("deberta-v2", "narrow embeddings", {"embedding_size": 16}),
        ("deberta-v2", "positions too", {"position_biased_input": True}),
        ("deberta-v2", "one type", {"type_vocab_size": 1}),
        (
            *("deberta-v2", "positions alone"),
            {**POSITIONS_ALONE, "pos_att_type": "c2p", "type_vocab_size": 2},
        ),
        ("distilbert", "sinusoidal", {"sinusoidal_pos_embds": True}),
        ("electra", "narrow embeddings", {"embedding_size": 16}),
        ("electra", "embeddings as wide as the layers", {"embedding_size": 32}),
        ("modernbert", "mean", {"classifier_pooling": "mean"}),
        ("modernbert", "biases", BIASES),
        ("modernbert", "a window for all", {"local_attention": 128}),
        ("modernbert", "global last", {"num_hidden_layers": 4, "norm_eps": 0.1}),
        ("modernbert", "other rotations", {"rope_parameters": OTHER_ROTATIONS}),
        ("mpnet", "4 heads", {"num_attention_heads": 4, "hidden_act": "relu"}),
        ("mpnet", "beyond its buckets", {"max_position_embeddings": 258}),
        ("roberta", "types", {"type_vocab_size": 2}),
        ("roberta", "another padding offset", {"pad_token_id": 0}),
    )
]


def pytorch_logits(model, ids_BT, types_BT=None):
    """Logits with a full attention mask, and token types where there are any."""
    inputs = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.ones(ids_BT.shape)}
    if types_BT is not None:
        inputs["token_type_ids"] = torch.from_numpy(types_BT)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def check_equal(model, path, *, text_pairs, lengths=LENGTHS):
    """Compare the graph with PyTorch, and each row alone with its batch.

    Returns:
        Whether the graph has token types.
    """
    encoder = read_encoder(model)
    write_graph(encoder, path, text_pairs=text_pairs)
    engine = OnnxEngine(path)
    rng = np.random.default_rng(0)
    has_types = "token_type_ids" in engine.input_names
    all_logits = []
    for length in (*lengths, encoder.max_length):
        ids_BT = rng.integers(4, model.config.vocab_size, (4, length))
        types_BT = np.sort(rng.integers(0, 2, (4, length)), axis=1)
        expected_BC = pytorch_logits(model, ids_BT, types_BT if has_types else None)
        actual_BC = engine.run(ids_BT, types_BT)
        np.testing.assert_allclose(actual_BC, expected_BC, atol=2e-5)
        alone_1C = engine.run(ids_BT[2:3], types_BT[2:3])
        np.testing.assert_allclose(alone_1C, actual_BC[2:3], atol=1e-5)
        all_logits.append(expected_BC)
    assert np.concatenate(all_logits).std(axis=0).min() > 0.05  # the rows differ
    return has_types


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@every_architecture
def test_the_graph_gives_the_logits_of_pytorch(make_model, tmp_path, model_type, text_pairs):
    model = make_model(model_type, labels=("a", "b", "c"))
    has_types = check_equal(model, tmp_path / "model.onnx", text_pairs=text_pairs)
    assert has_types is (text_pairs and model_type in ("bert", "electra"))


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS)
def test_variants_give_the_logits_of_pytorch(make_model, tmp_path, model_type, changes):
    model = make_model(model_type, labels=("a", "b", "c"), **changes)
    assert (read_encoder(model).projection is not None) is (changes.get("embedding_size") == 16)
    has_types = check_equal(model, tmp_path / "model.onnx", text_pairs=True)
    assert has_types is (changes.get("type_vocab_size") == 2 or model_type in ("bert", "electra"))


REDUCTIONS = {
    "dropped": TokenReduction(keep_shares=(0.6, 0.7)),
    "pooled": TokenReduction(pool=TokenPool(before_layer=1, every=4, how="mean")),
    "both": TokenReduction(
        keep_shares=(0.8, 0.6, 0.5), pool=TokenPool(before_layer=0, every=2, how="max")
    ),
}


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_tokens_are_dropped_and_pooled_as_by_pytorch(make_model, tmp_path, model_type, reduction):
    depth = {"num_hidden_layers": 3} | ({"n_layers": 3} if model_type == "distilbert" else {})
    model = make_model(model_type, labels=("a", "b", "c"), **depth)
    change_reduction(model, reduction)
    check_equal(model, tmp_path / "model.onnx", text_pairs=model_type == "bert")
    encoder = read_encoder(model)
    assert [layer.keep_share for layer in encoder.layers] == reduction.shares_of(3)
    for layer, weights_D in zip(encoder.layers, significance_of(model, 3), strict=True):
        assert (layer.significance_D is None) is (layer.keep_share == 1)
        if layer.significance_D is not None:
            np.testing.assert_array_equal(layer.significance_D, weights_D.detach())
    assert (encoder.pooling_of_tokens is None) is (reduction.pool is None)


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("positions", [False, True], ids=["no positions", "positions"])
def test_types_are_added_whether_or_not_positions_are(make_model, tmp_path, text_pairs, positions):
    model = make_model("deberta-v2", type_vocab_size=2, position_biased_input=positions)
    path = tmp_path / "model.onnx"
    assert check_equal(model, path, text_pairs=text_pairs, lengths=(1, 30)) is text_pairs


@every_architecture
def test_a_saved_teacher_scores_real_pairs_as_pytorch_does(
    make_model, tokenizer_json, make_texts, tmp_path, model_type
):
    changes = {"type_vocab_size": 2} if model_type == "deberta-v2" else {}
    make_model(model_type, **changes).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    rows = Tokenizer(tokenizer_json, max_length=64).encode(make_texts(40), make_texts(40, seed=1))
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=True)
    expected_NC = predict_logits(model, rows)
    np.testing.assert_allclose(run_graph(tmp_path / "model.onnx", rows), expected_NC, atol=2e-5)
    if model_type in ("bert", "deberta-v2", "electra"):  # their types matter
        rows.second_lengths_N[:] = 0
        assert np.abs(predict_logits(model, rows) - expected_NC).max() > 0.01


@every_architecture
def test_int8_stays_near_and_a_row_does_not_depend_on_its_batch(
    make_model, tokenizer_json, make_texts, tmp_path, model_type
):
    encoder = read_encoder(make_model(model_type))
    rows = Tokenizer(tokenizer_json, max_length=64).encode(make_texts(96))
    write_graph(encoder, tmp_path / "observed.onnx", text_pairs=False, observe=True)
    histograms = collect_histograms(tmp_path / "observed.onnx", rows)
    num_layers = len(encoder.layers)
    # The last layer has q in place of qkv, and kv too where offsets enter its scores.
    has_offsets = model_type in ("deberta-v2", "modernbert", "mpnet")
    assert len(histograms) == 4 * num_layers + has_offsets
    ranges = {name: histogram.clipped_range(0) for name, histogram in histograms.items()}
    write_graph(encoder, tmp_path / "int8.onnx", text_pairs=False, ranges=ranges)
    float_NC = run_graph(tmp_path / "observed.onnx", rows)
    int8_NC = run_graph(tmp_path / "int8.onnx", rows)
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(float_NC.T, int8_NC.T, strict=True)]
    assert min(correlations) > 0.98  # it is 0.996 here
    assert np.abs(int8_NC - float_NC).max() > 1e-4  # it is rounded
    engine = OnnxEngine(tmp_path / "int8.onnx")
    for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=1024):
        for row in rows_B:
            alone_1C = engine.run(rows.batch_ids(np.array([row])), None)
            np.testing.assert_allclose(alone_1C[0], int8_NC[row], atol=1e-5)


@every_architecture
def test_float16_has_the_logits_of_float32(make_model, tmp_path, model_type):
    model = make_model(model_type, initializer_range=0.1)  # five times what BERT begins with
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=False, float16=True)
    engine = OnnxEngine(tmp_path / "model.onnx")
    for length in (1, 7, 64):
        ids_BT = np.random.default_rng(0).integers(4, model.config.vocab_size, (4, length))
        actual_BC = engine.run(ids_BT, None)
        np.testing.assert_allclose(actual_BC, pytorch_logits(model, ids_BT), atol=2e-3)


@pytest.mark.parametrize(
    ("model_type", "changes", "positions"),
    [
        *((model_type, {}, 64) for model_type in WITH_LAYERS),
        ("mpnet", {"pad_token_id": 5}, 64),  # its code counts from 1 nevertheless
        ("roberta", {"pad_token_id": 5}, 60),
        ("deberta-v2", {"position_buckets": -1, "max_relative_positions": 20}, 64),
        ("modernbert", {"max_position_embeddings": 300}, 300),
    ],
)
def test_positions_are_those_left_for_tokens(make_model, model_type, changes, positions):
    model = make_model(model_type, **changes)
    assert max_positions(model.config) == read_encoder(model).max_length == positions


def test_only_first_tokens_go_through_the_last_layer_unless_all_are_pooled(make_model, tmp_path):
    for pooling, num_tokens in (("cls", 1), ("mean", 24)):
        encoder = read_encoder(make_model("modernbert", classifier_pooling=pooling))
        path = tmp_path / f"{pooling}.onnx"
        write_graph(encoder, path, text_pairs=False, observe=True)
        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {"input_ids": np.full((2, 24), 7)})
        tokens = {name: v.shape[1] for name, v in zip(names, values, strict=True)}
        assert tokens["layer1.down.input"] == 24
        assert tokens["layer2.down.input"] == num_tokens


def test_a_teacher_in_half_precision_is_read_as_float(make_model, tmp_path):
    make_model().half().save_pretrained(tmp_path / "half")
    model = load_model(tmp_path / "half")
    assert read_encoder(model).token_embeddings_VE.dtype == np.float32
    check_equal(model, tmp_path / "model.onnx", text_pairs=False)


@every_architecture
def test_weights_are_copied_not_shared(make_model, model_type):
    model = make_model(model_type)
    encoder = read_encoder(model)
    layer = encoder.layers[-1]
    arrays = [encoder.token_embeddings_VE, encoder.head.output.weight]
    arrays += [layer.up.bias, layer.query.weight, layer.value.weight, layer.ffn_norm.weight]
    if layer.bias_HO is not None:
        arrays.append(layer.bias_HO)
    if layer.relative is not None:
        arrays += [layer.relative.keys_RW, layer.relative.queries_RW]
    kept = [array.copy() for array in arrays]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    for array, before in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@every_architecture
def test_a_choice_is_exported_as_a_pair_with_one_output(make_model, tmp_path, model_type):
    make_model(model_type, head="MultipleChoice").save_pretrained(tmp_path / "saved")
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


def test_an_activation_without_operator_is_refused(make_model):
    with pytest.raises(InputError, match="hidden activation 'silu' is not one of gelu, relu, tanh"):
        read_encoder(make_model(hidden_act="silu"))


def test_relative_positions_of_bert_are_refused(make_model):
    model = make_model()
    model.config.position_embedding_type = "relative_key"
    with pytest.raises(InputError, match="position_embedding_type 'relative_key': absolute only"):
        read_encoder(model)


def test_a_convolution_is_refused(make_model):
    with pytest.raises(InputError, match="conv_kernel_size 3: DeBERTa without convolution only"):
        read_encoder(make_model("deberta-v2", conv_kernel_size=3))


def test_rotations_that_change_with_the_length_are_refused(make_model):
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    model = make_model("modernbert")
    model.config.rope_parameters["full_attention"] = rope
    with pytest.raises(InputError, match="rope_type 'dynamic' of full_attention: default only"):
        read_encoder(model)


def test_an_electra_summary_of_another_kind_is_refused(make_model):
    model = make_model("electra", head="MultipleChoice", summary_type="mean")
    with pytest.raises(InputError, match="summary that is not a projection of the first token"):
        read_encoder(model)
