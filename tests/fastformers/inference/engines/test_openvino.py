import subprocess
import sys

import numpy as np
import pytest

from fastformers.errors import BundleError
from fastformers.export.graph import ActivationRange, write_graph
from fastformers.inference.engine import EngineError, OnnxEngine
from fastformers.inference.engines.openvino import OpenVinoEngine
from fastformers.inference.scorer import Scorer
from fastformers.inference.tasks import classify
from tests.needs import need_openvino

need_openvino()


@pytest.fixture(scope="module")
def int8_graph(tmp_path_factory, encoder_factory):
    """A graph with every projection of every layer in int8, as compression writes it."""
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    names = ["layer0.qkv", "layer1.q"]
    names += [f"layer{n}.{kind}" for n in (0, 1) for kind in ("output", "up", "down")]
    ranges = dict.fromkeys(names, ActivationRange(low=-6.0, high=5.0))
    write_graph(encoder_factory(), path, text_pairs=False, ranges=ranges)
    return path


def random_ids(num_rows, length, seed=0):
    return np.random.default_rng(seed).integers(0, 128, (num_rows, length))


@pytest.mark.parametrize("shape", [(1, 3), (8, 17), (5, 64)])
def test_the_float_graph_gives_what_onnx_runtime_gives(bundle, shape):
    ids_BT = random_ids(*shape)
    expected = OnnxEngine(bundle.model_path).run(ids_BT, None)
    logits = OpenVinoEngine(bundle.model_path).run(ids_BT, None)
    assert np.ptp(expected[:, 0]) > 0.01 or len(expected) == 1
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_rows_are_right_after_one_of_a_single_token(bundle):
    engine = OpenVinoEngine(bundle.model_path)
    for length in (1, 2, 33, 64):
        ids_BT = random_ids(3, length)
        expected = OnnxEngine(bundle.model_path).run(ids_BT, None)
        np.testing.assert_allclose(engine.run(ids_BT, None), expected, atol=1e-4)


def test_the_int8_graph_gives_nearly_what_onnx_runtime_gives(int8_graph):
    runs = [kind(int8_graph).run(random_ids(64, 20), None) for kind in (OnnxEngine, OpenVinoEngine)]
    (labels, probabilities), (other_labels, other_probabilities) = map(classify, runs)
    assert np.ptp(probabilities) > 0.1
    assert np.abs(probabilities - other_probabilities).max() < 0.02
    decided = probabilities > 0.52
    assert decided.sum() > 40
    np.testing.assert_array_equal(labels[decided], other_labels[decided])


def test_a_rows_score_does_not_depend_on_its_batch_mates(int8_graph):
    engine = OpenVinoEngine(int8_graph)
    ids_BT = random_ids(7, 33)
    together = engine.run(ids_BT, None)
    alone = np.concatenate([engine.run(ids_BT[row : row + 1], None) for row in range(7)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_result_outlives_the_next_batch(bundle):
    engine = OpenVinoEngine(bundle.model_path)
    first = engine.run(random_ids(4, 9), None)
    kept = first.copy()
    engine.run(random_ids(4, 9, seed=1), None)
    np.testing.assert_array_equal(first, kept)


def test_token_types_reach_only_a_graph_that_takes_them(bundle, pair_bundle):
    single, pair = OpenVinoEngine(bundle.model_path), OpenVinoEngine(pair_bundle.model_path)
    ids_BT, types_BT = random_ids(2, 4), np.array([[0, 0, 1, 1]] * 2)
    assert single.input_names == ("input_ids",)
    np.testing.assert_allclose(
        single.run(ids_BT, types_BT), OnnxEngine(bundle.model_path).run(ids_BT, None), atol=1e-4
    )
    np.testing.assert_allclose(
        pair.run(ids_BT, types_BT),
        OnnxEngine(pair_bundle.model_path).run(ids_BT, types_BT),
        atol=1e-4,
    )


def test_a_token_without_embedding_fails_alone(bundle_factory, tmp_path):
    bundle = bundle_factory(tmp_path / "small", vocabulary=20)
    engine = OpenVinoEngine(bundle.model_path)
    with pytest.raises(EngineError, match="token id 20 is out of bounds: there are 20 embeddings"):
        engine.run(np.array([[2, 20, 3]]), None)
    predictions = Scorer(bundle, engine=engine).score(["a cat", "film text", "a dog"])
    reference = Scorer(bundle).score(["a cat", "film text", "a dog"])
    assert predictions.labels == reference.labels
    assert set(predictions.errors) == set(reference.errors) != set()


def test_a_file_that_is_no_graph_is_the_bundles_fault(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for path in (tmp_path / "model.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(BundleError, match=rf"{path.name}: OpenVINO cannot load it"):
            OpenVinoEngine(path)


def test_the_engine_is_named_with_its_version(bundle):
    assert OpenVinoEngine(bundle.model_path).name.startswith("openvino 202")


def test_a_signal_ends_a_process_well_after_engines_were_closed_in_any_order(int8_graph):
    code = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from fastformers.inference.engines.openvino import OpenVinoEngine\n"
        "engines = [OpenVinoEngine(Path(sys.argv[1])) for _ in range(2)]\n"
        "del engines[0], engines[0]\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: print('told'))\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, str(int8_graph)],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (0, "told\n")
