from collections import Counter
from functools import partial

import numpy as np
import pytest

from tests.needs import need_openvino

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from fastformers.benchmark import comparison, operator_profile  # noqa: E402
from fastformers.benchmark.baselines import (  # noqa: E402
    OpenVinoBaseline,
    PyTorchBaseline,
    StockBaseline,
    make_baselines,
    write_baseline_models,
    write_stock_graph,
)
from fastformers.benchmark.comparison import compare_engines, profile_engines  # noqa: E402
from fastformers.benchmark.operator_profile import profile_operators  # noqa: E402
from fastformers.benchmark.random_models import make_random_bundle  # noqa: E402
from fastformers.benchmark.timing import measure_rates, plan_exact, plan_sorted, predict_all  # noqa: E402
from fastformers.errors import InputError  # noqa: E402
from fastformers.inference.tokenizer import Tokenizer  # noqa: E402
from fastformers.models.architectures import architecture_of  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402
from fastformers.models.layers import keep_heads, keep_neurons, layer_parts  # noqa: E402

NUM_LAYERS, WIDTH, NEURONS, CLASSES = 2, 32, 64, 2
ENGINES = ["PyTorch float32", "ORT stock int8", "OpenVINO int8", "OpenVINO int8 and float32"]
WAYS = [
    "exact lengths, 100 tokens",
    "padded to 16, 100 tokens",
    "exact lengths, 400 tokens",
    "padded to 16, 400 tokens",
    "32 sorted rows",
]
BASELINES = [f"{engine}, {way}" for engine in ENGINES for way in WAYS]
ON_SHAPES = [f"{engine}, {WAYS[0]}" for engine in ENGINES]


@pytest.fixture(scope="module")
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=128).encode(make_texts(80))


@pytest.fixture(scope="module")
def model(make_teacher):
    return make_teacher(max_position_embeddings=128)


@pytest.fixture(scope="module")
def expected_NC(model, rows):
    return predict_logits(model, rows)


@pytest.fixture(scope="module")
def models(model, rows, tmp_path_factory):
    need_openvino()
    pytest.importorskip("nncf")
    return write_baseline_models(model, rows, tmp_path_factory.mktemp("baselines"))


@pytest.fixture
def baselines(models):
    candidates = make_baselines(models, num_threads=1, max_batch_tokens=100)
    return {candidate.name: candidate for candidate in candidates}


def check_int8(logits_NC, expected_NC):
    """Check that logits are equal but for int8: nearly all labels agree, and logits correlate."""
    assert expected_NC.std(axis=0).min() > 0.1
    assert (logits_NC.argmax(axis=1) == expected_NC.argmax(axis=1)).mean() >= 0.9
    for of_class, expected in zip(logits_NC.T, expected_NC.T, strict=True):
        assert np.corrcoef(of_class, expected)[0, 1] > 0.95


def stacked(run, batches):
    """Logits of all rows, in their order."""
    logits = np.concatenate([run(batch) for batch in batches])
    return logits[np.argsort(np.concatenate([batch.rows_B for batch in batches]))]


def prune(model, *heads):
    """Keep these heads and some neurons of each layer, as `prune_model` does."""
    for layer, kept in zip(layer_parts(model), heads, strict=True):
        keep_heads(layer, kept)
        keep_neurons(layer, range(40))
    model.config.pruned_layers = [{"num_heads": len(kept), "ffn_width": 40} for kept in heads]


def count_operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def plan_both(rows):
    return plan_exact(rows, max_batch_tokens=64), plan_sorted(rows, num_rows=16)


def test_pytorch_computes_padded_and_exact_batches_alike(model, rows, expected_NC):
    for batches in plan_both(rows):
        logits_NC = stacked(PyTorchBaseline(model).run, batches)
        np.testing.assert_allclose(logits_NC, expected_NC, atol=1e-4)


def test_the_stock_graph_computes_the_same_but_for_int8(model, rows, expected_NC, tmp_path):
    write_stock_graph(model, tmp_path / "stock.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["stock.onnx"]
    baseline = StockBaseline(tmp_path / "stock.onnx", num_threads=1)
    for batches in plan_both(rows):
        check_int8(stacked(baseline.run, batches), expected_NC)


def test_openvino_computes_the_same_but_for_int8(models, rows, expected_NC):
    exact, padded = plan_both(rows)
    masked = OpenVinoBaseline(models.openvino_masked, num_threads=1, masked=True)
    unmasked = OpenVinoBaseline(models.openvino_exact, num_threads=1, masked=False)
    logits_NC = stacked(unmasked.run, exact)
    check_int8(logits_NC, expected_NC)
    # Ranges are fixed, so that neither a mask nor padding nor other rows change a logit.
    for batches in (exact, padded):
        np.testing.assert_allclose(stacked(masked.run, batches), logits_NC, atol=1e-3)


def test_every_engine_is_there_in_every_way_of_batching(baselines, rows, expected_NC):
    assert list(baselines) == BASELINES
    assert [name for name, baseline in baselines.items() if baseline.fixed_shapes] == ON_SHAPES
    for name, baseline in baselines.items():
        batches = baseline.plan(rows)
        is_padded = any(batch.num_tokens < batch.ids_BT.size for batch in batches)
        assert is_padded == ("exact" not in name)
        if "tokens" in name:
            budget = 100 if "100 tokens" in name else 400
            sizes = [batch.ids_BT.size for batch in batches if len(batch.ids_BT) > 1]
            assert min(100, budget) / 2 < max(sizes) <= budget
        else:
            assert [len(batch.ids_BT) for batch in batches] == [32, 32, 16]
        check_int8(predict_all(baseline, rows), expected_NC)


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
def test_the_stock_recipe_fuses_and_quantizes_attention(make_prunable, rows, tmp_path, pruned):
    model = make_prunable(num_hidden_layers=2)
    if architecture_of(model.config).onnxruntime_type is None:
        with pytest.raises(InputError, match="does not fuse"):
            write_stock_graph(model, tmp_path / "stock.onnx")
        return
    if pruned:
        prune(model, [0, 2, 3], [0, 1, 3])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    write_stock_graph(model, tmp_path / "stock.onnx")
    counts = count_operators(tmp_path / "stock.onnx")
    assert counts["QAttention"] == 2
    assert counts["SkipLayerNormalization"] == 2 * 2
    assert counts["BiasGelu"] >= 2
    assert counts["Softmax"] == counts["MatMul"] == 0
    baseline = StockBaseline(tmp_path / "stock.onnx", num_threads=1)
    logits_NC = stacked(baseline.run, plan_sorted(rows, num_rows=16))
    check_int8(logits_NC, predict_logits(model, rows))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.config._attn_implementation != "eager"


def test_layers_of_different_numbers_of_heads_stay_unfused_and_are_refused(make_teacher, tmp_path):
    model = make_teacher(num_attention_heads=4)
    prune(model, [0, 2, 3], [1])
    with pytest.raises(InputError, match="layers that differ in their numbers of heads"):
        write_stock_graph(model, tmp_path / "stock.onnx")


def test_an_architecture_that_stays_unfused_is_refused_by_name(make_teacher, tmp_path):
    with pytest.raises(InputError, match="does not fuse 'mpnet' models"):
        write_stock_graph(make_teacher("MPNet"), tmp_path / "stock.onnx")
    assert not list(tmp_path.iterdir())


def test_the_stock_graph_computes_every_layer_for_every_token(
    model, rows, tmp_path, count_operations
):
    """Otherwise the limit of the whole model's arithmetic would be too high."""
    write_stock_graph(model, tmp_path / "stock.onnx")
    (batch,) = plan_sorted(rows.slice(0, 3), num_rows=3)
    num_rows, length = batch.ids_BT.shape
    feed = StockBaseline(tmp_path / "stock.onnx", num_threads=1).feed(batch)
    profile = profile_operators(tmp_path / "stock.onnx", feed, skip_norm_fusion=False, repeats=2)
    projections = 2 * num_rows * length * (4 * WIDTH * WIDTH + 2 * WIDTH * NEURONS)
    head = 2 * num_rows * (WIDTH * WIDTH + WIDTH * CLASSES)
    attention = 2 * 2 * num_rows * length * length * WIDTH
    assert count_operations(profile) == (NUM_LAYERS * projections + head, NUM_LAYERS * attention)


def test_one_models_weights_are_compared_in_every_form(
    models, model, rows, tokenizer_json, tmp_path, monkeypatch, count_operations
):
    monkeypatch.setattr(comparison, "measure_rates", partial(measure_rates, shape_s=0.0))
    monkeypatch.setattr(operator_profile, "_GEMM_SIZES", (16,))
    monkeypatch.setattr(operator_profile, "_GEMM_S", 0.01)
    bundle = make_random_bundle(
        model, tokenizer_json=tokenizer_json, rows=rows, path=tmp_path / "bundle"
    )
    compared = compare_engines(
        bundle, max_batch_tokens=100, baselines=models, rows=rows, num_threads=1, repeats=1
    )
    assert list(compared.rates.by_case["rows"])[-len(BASELINES) :] == BASELINES
    assert list(compared.rates.by_case["1x128"])[-len(ON_SHAPES) :] == ON_SHAPES
    assert set(compared.agreement) == set(compared.rates.by_case["rows"])
    assert min(compared.agreement.values()) >= 0.85
    assert compared.agreement["fastformers onnxruntime"] == 1.0

    breakdown = profile_engines(bundle, models)
    limits = breakdown.dense_limits()
    for case, share in breakdown.share_of_peak(compared.rates, "fastformers onnxruntime").items():
        # Our graph leaves most of the last layer out.
        (ours, _), (stock, _) = (
            count_operations(profiles[case]) for profiles in (breakdown.ours, breakdown.stock)
        )
        assert ours < 0.8 * stock
        assert share > 0
        assert limits[case] > 0
