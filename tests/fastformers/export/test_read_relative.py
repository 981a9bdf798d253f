import numpy as np
import onnxruntime
import pytest

from fastformers.errors import InputError
from fastformers.export.calibration import collect_histograms
from fastformers.export.graph import write_graph
from fastformers.inference.batching import plan_batches
from fastformers.inference.engine import OnnxEngine, run_graph
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from fastformers.export.read_absolute import read_encoder  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.loading import load_model, max_positions  # noqa: E402

LENGTHS = (*range(1, 20), 33, 63, 64)
MPNET = {"max_position_embeddings": 66}  # two of them are never used
# As microsoft/deberta-v3-base has it, but 16 buckets: all offsets up to 8 have their own.
DEBERTA = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": "p2c|c2p",
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_buckets": 16,
}
# Three layers: all tokens see each other in the first, those of a window in the others.
MODERNBERT = {
    "num_hidden_layers": 3,
    "local_attention": 8,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "eos_token_id": 3,
    "initializer_cutoff_factor": 3.0,
}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
VARIANTS = [
    pytest.param("MPNet", MPNET, id="MPNet"),
    pytest.param("MPNet", {**MPNET, "num_attention_heads": 4, "hidden_act": "relu"}, id="4 heads"),
    pytest.param("MPNet", {"max_position_embeddings": 258}, id="MPNet beyond its buckets"),
    pytest.param("DebertaV2", DEBERTA, id="DeBERTa-v3"),
    pytest.param("DebertaV2", {**DEBERTA, "share_att_key": False}, id="keys of their own"),
    pytest.param("DebertaV2", {**DEBERTA, "pos_att_type": "c2p"}, id="c2p alone"),
    pytest.param(
        "DebertaV2", {**DEBERTA, "pos_att_type": "p2c", "share_att_key": False}, id="p2c alone"
    ),
    pytest.param("DebertaV2", {**DEBERTA, "pos_att_type": None}, id="neither"),
    pytest.param("DebertaV2", {**DEBERTA, "position_buckets": -1}, id="no buckets"),
    pytest.param(
        "DebertaV2",
        {**DEBERTA, "position_buckets": -1, "max_relative_positions": 20},
        id="offsets end at 20",
    ),
    pytest.param("DebertaV2", {**DEBERTA, "norm_rel_ebd": "none"}, id="offsets without norm"),
    pytest.param("DebertaV2", {**DEBERTA, "embedding_size": 16}, id="narrow embeddings"),
    pytest.param("DebertaV2", {**DEBERTA, "position_biased_input": True}, id="places too"),
    pytest.param("DebertaV2", {**DEBERTA, "type_vocab_size": 1}, id="one type"),
    pytest.param(
        "DebertaV2",
        {"relative_attention": False, "pos_att_type": "c2p", "type_vocab_size": 2},
        id="places alone",
    ),
    pytest.param("ModernBert", MODERNBERT, id="ModernBERT"),
    pytest.param("ModernBert", {**MODERNBERT, "classifier_pooling": "mean"}, id="mean"),
    pytest.param("ModernBert", {**MODERNBERT, **BIASES}, id="biases"),
    pytest.param("ModernBert", {**MODERNBERT, "local_attention": 128}, id="a window for all"),
    pytest.param(
        "ModernBert", {**MODERNBERT, "num_hidden_layers": 4, "norm_eps": 0.1}, id="global last"
    ),
    pytest.param(
        "ModernBert",
        {
            **MODERNBERT,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 100.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
            },
        },
        id="other rotations",
    ),
]
THREE = [("MPNet", MPNET), ("DebertaV2", DEBERTA), ("ModernBert", MODERNBERT)]


def pytorch_logits(model, ids_BT, types_BT=None):
    inputs = {"input_ids": torch.from_numpy(ids_BT), "attention_mask": torch.ones(ids_BT.shape)}
    if types_BT is not None:
        inputs["token_type_ids"] = torch.from_numpy(types_BT)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def check_equal(model, path, *, text_pairs, lengths=LENGTHS):
    """Compare the graph with PyTorch, and each row alone with its batch."""
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
    assert np.concatenate(all_logits).std(axis=0).min() > 0.05  # the rows do differ
    return has_types


@pytest.mark.parametrize(("architecture", "shape"), VARIANTS)
def test_the_graph_gives_the_logits_of_pytorch(make_teacher, tmp_path, architecture, shape):
    model = make_teacher(architecture, labels=("a", "b", "c"), **shape)
    has_types = check_equal(model, tmp_path / "model.onnx", text_pairs=True)
    assert has_types is (shape.get("type_vocab_size") == 2)


@pytest.mark.parametrize("text_pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("places", [False, True], ids=["no places", "places"])
def test_types_are_added_whether_or_not_places_are(make_teacher, tmp_path, text_pairs, places):
    shape = {**DEBERTA, "type_vocab_size": 2, "position_biased_input": places}
    model = make_teacher("DebertaV2", **shape)
    path = tmp_path / "model.onnx"
    assert check_equal(model, path, text_pairs=text_pairs, lengths=(1, 30)) is text_pairs


@pytest.mark.parametrize(("architecture", "shape"), THREE)
def test_a_saved_teacher_scores_real_pairs_as_pytorch_does(
    make_teacher, tokenizer_json, make_texts, tmp_path, architecture, shape
):
    types = {"type_vocab_size": 2} if architecture == "DebertaV2" else {}
    make_teacher(architecture, **{**shape, **types}).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    rows = Tokenizer(tokenizer_json, max_length=64).encode(make_texts(40), make_texts(40, seed=1))
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=True)
    expected_NC = predict_logits(model, rows)
    np.testing.assert_allclose(run_graph(tmp_path / "model.onnx", rows), expected_NC, atol=2e-5)
    if types:  # they do matter
        rows.second_lengths_N[:] = 0
        assert np.abs(predict_logits(model, rows) - expected_NC).max() > 0.01


@pytest.mark.parametrize(("architecture", "shape"), THREE)
def test_int8_stays_near_and_a_row_does_not_depend_on_its_batch(
    make_teacher, tokenizer_json, make_texts, tmp_path, architecture, shape
):
    encoder = read_encoder(make_teacher(architecture, **shape))
    rows = Tokenizer(tokenizer_json, max_length=64).encode(make_texts(96))
    write_graph(encoder, tmp_path / "observed.onnx", text_pairs=False, observe=True)
    histograms = collect_histograms(tmp_path / "observed.onnx", rows)
    num_layers = len(encoder.layers)
    assert len(histograms) == 4 * num_layers + 1  # kv and q in the last, qkv in the others
    ranges = {name: histogram.clipped_range(0) for name, histogram in histograms.items()}
    write_graph(encoder, tmp_path / "int8.onnx", text_pairs=False, ranges=ranges)
    float_NC = run_graph(tmp_path / "observed.onnx", rows)
    int8_NC = run_graph(tmp_path / "int8.onnx", rows)
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(float_NC.T, int8_NC.T, strict=True)]
    assert min(correlations) > 0.98  # 0.996 here
    assert np.abs(int8_NC - float_NC).max() > 1e-4  # it did round
    engine = OnnxEngine(tmp_path / "int8.onnx")
    for rows_B in plan_batches(rows.lengths_N, max_batch_tokens=1024):
        for row in rows_B:
            alone_1C = engine.run(rows.batch_ids(np.array([row])), None)
            np.testing.assert_allclose(alone_1C[0], int8_NC[row], atol=1e-5)


@pytest.mark.parametrize(("architecture", "shape"), THREE)
def test_float16_has_the_logits_of_float32(make_teacher, tmp_path, architecture, shape):
    model = make_teacher(architecture, **shape)
    write_graph(read_encoder(model), tmp_path / "model.onnx", text_pairs=False, float16=True)
    engine = OnnxEngine(tmp_path / "model.onnx")
    for length in (1, 7, 64):
        ids_BT = np.random.default_rng(0).integers(4, model.config.vocab_size, (4, length))
        actual_BC = engine.run(ids_BT, None)
        np.testing.assert_allclose(actual_BC, pytorch_logits(model, ids_BT), atol=0.03)


@pytest.mark.parametrize(
    ("architecture", "shape", "positions"),
    [
        ("MPNet", {**MPNET, "pad_token_id": 5}, 64),  # its code counts from 1 all the same
        ("DebertaV2", DEBERTA, 64),
        ("DebertaV2", {**DEBERTA, "position_buckets": -1, "max_relative_positions": 20}, 64),
        ("ModernBert", MODERNBERT, 64),
        ("ModernBert", {**MODERNBERT, "max_position_embeddings": 300}, 300),
    ],
)
def test_positions_are_those_that_the_model_was_made_for(
    make_teacher, architecture, shape, positions
):
    model = make_teacher(architecture, **shape)
    assert max_positions(model.config) == read_encoder(model).max_length == positions


def test_only_first_tokens_go_through_the_last_layer_unless_all_are_pooled(make_teacher, tmp_path):
    for pooling, num_tokens in (("cls", 1), ("mean", 24)):
        encoder = read_encoder(make_teacher("ModernBert", **MODERNBERT, classifier_pooling=pooling))
        path = tmp_path / f"{pooling}.onnx"
        write_graph(encoder, path, text_pairs=False, observe=True)
        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {"input_ids": np.full((2, 24), 7)})
        tokens = {name: v.shape[1] for name, v in zip(names, values, strict=True)}
        assert tokens["layer1.down.input"] == 24
        assert tokens["layer2.down.input"] == num_tokens


def test_a_convolution_is_refused(make_teacher):
    with pytest.raises(InputError, match="conv_kernel_size 3: DeBERTa without convolution only"):
        read_encoder(make_teacher("DebertaV2", **DEBERTA, conv_kernel_size=3))


def test_rotations_that_change_with_the_length_are_refused(make_teacher):
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    model = make_teacher("ModernBert", **MODERNBERT)
    model.config.rope_parameters["full_attention"] = rope
    with pytest.raises(InputError, match="rope_type 'dynamic' of full_attention: default only"):
        read_encoder(model)
