"""A bundle runs where others are at home: the README's own code, on bundles of these tests."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import fastformers
from fastformers import Scorer

README = Path(fastformers.__file__).parent / "README.md"
TEXTS = ["a text", "another"]


@pytest.fixture
def run_block(tmp_path, monkeypatch, bundle):
    """Runs the one block of Python in the README that imports a module; returns its names."""
    (tmp_path / "bundle").symlink_to(bundle.path)
    monkeypatch.chdir(tmp_path)

    def run(imported):
        blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
        (code,) = [
            block for block in blocks if re.search(rf"^(from|import) {imported}\b", block, re.M)
        ]
        names = {"__name__": "readme"}
        exec(compile(ast.parse(code), README.name, "exec"), names)
        return names

    return run


def test_onnx_runtime_by_itself_gives_the_same_logits(run_block, bundle, capsys):
    names = run_block("onnxruntime")
    expected = Scorer(bundle).score(TEXTS[:1])
    np.testing.assert_allclose(names["logits"], expected.logits_NC, atol=1e-5)
    assert capsys.readouterr().out.strip() == expected.labels[0]
    inputs = {entry.name: (entry.type, len(entry.shape)) for entry in names["session"].get_inputs()}
    assert inputs == {"input_ids": ("tensor(int64)", 2)}
    (output,) = names["session"].get_outputs()
    assert (output.name, output.type, output.shape[1]) == ("logits", "tensor(float)", 2)


def test_pairs_have_token_types_as_their_second_input(pair_bundle):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(pair_bundle.model_path)
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "token_type_ids"]
    ids, types = np.array([[2, 7, 3, 8, 3]]), np.array([[0, 0, 0, 1, 1]])
    feed = {"input_ids": ids, "token_type_ids": types}
    expected = Scorer(pair_bundle).engine.run(ids, types)
    np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, atol=1e-5)


def test_a_pipeline_of_transformers_labels_texts(run_block, bundle, caplog):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    names = run_block("transformers.modeling_outputs")
    expected = Scorer(bundle).score(TEXTS)
    found = names["classify"](TEXTS)
    assert [one["label"] for one in found] == expected.labels
    expected_N = expected.probabilities.max(axis=1)
    np.testing.assert_allclose([one["score"] for one in found], expected_N, atol=1e-5)
    assert "not supported" not in caplog.text


def test_sentence_transformers_encodes_with_a_bundle(run_block, bundle_factory, tmp_path):
    pytest.importorskip("sentence_transformers")
    embedder = bundle_factory(tmp_path / "embedder", task="embedding", labels=(), num_outputs=8)
    names = run_block("sentence_transformers")
    found = names["model"].encode(TEXTS)
    np.testing.assert_allclose(found, Scorer(embedder).score(TEXTS).embeddings, atol=1e-5)
