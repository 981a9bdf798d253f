import platform
import subprocess
import sys

import numpy as np
import pytest

from fastformers.errors import BundleError
from fastformers.inference.bundle import open_bundle
from fastformers.inference.engine import EngineError, OnnxEngine

IDS = np.array([[2, 5, 14, 3]])


def test_a_file_that_is_no_graph_is_the_bundles_fault(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    for path in (tmp_path / "model.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(BundleError, match=rf"{path.name}: ONNX Runtime cannot load it"):
            OnnxEngine(path)


def test_a_token_without_embedding_is_an_error_of_its_batch(bundle):
    engine = OnnxEngine(open_bundle(bundle.path).model_path)
    expected = engine.run(IDS, None)
    with pytest.raises(EngineError, match="out of data bounds") as caught:
        engine.run(np.array([[2, 1000, 14, 3]]), None)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(engine.run(IDS, None), expected)  # and it still works


def test_token_types_reach_only_a_graph_that_takes_them(bundle, pair_bundle):
    single, pair = OnnxEngine(bundle.model_path), OnnxEngine(pair_bundle.model_path)
    assert single.input_names == bundle.input_names == ("input_ids",)
    assert pair.input_names == pair_bundle.input_names == ("input_ids", "token_type_ids")
    first, second = np.zeros_like(IDS), np.array([[0, 0, 1, 1]])
    np.testing.assert_array_equal(single.run(IDS, first), single.run(IDS, second))
    assert np.abs(pair.run(IDS, first) - pair.run(IDS, second)).max() > 1e-3
    # Without pairs the first type is part of the positions.
    np.testing.assert_allclose(pair.run(IDS, first), single.run(IDS, None), atol=1e-5)


def test_the_engine_is_named_with_its_version(bundle):
    assert OnnxEngine(bundle.model_path).name.startswith("onnxruntime 1.")


FAULTS_OF_A_BATCH = """
import resource, sys
import numpy as np
from fastformers.inference import engine

if sys.argv[2] == "as glibc does":
    engine.keep_freed_memory = lambda: None
engine = engine.OnnxEngine(sys.argv[1])
batches = [np.full((rows, 8), 5) for rows in (3000, 2000, 4000, 1000)]
for ids in batches * 8:  # until the heap has settled
    engine.run(ids, None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for ids in batches:
    engine.run(ids, None)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(batches))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is glibc's own")
def test_a_batch_computes_in_the_memory_of_the_batches_before_it(bundle):
    def faults(malloc: str) -> float:
        command = [sys.executable, "-c", FAULTS_OF_A_BATCH, str(bundle.model_path), malloc]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    by_itself = faults("as glibc does")
    if by_itself == 0:
        pytest.skip("this kernel counts no page faults, as that of a gVisor sandbox")
    assert faults("kept") * 10 < by_itself
