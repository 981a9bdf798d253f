"""The others' jobs that need no Ray, no pool of processes and no downloads."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from fastformers.benchmark.baselines import StockBaseline, write_stock_graph  # noqa: E402
from fastformers.benchmark.timing import plan_exact  # noqa: E402
from fastformers.jobs.benchmarks import baseline_scripts  # noqa: E402
from fastformers.jobs.benchmarks.baseline_scripts import Predictor  # noqa: E402

WORDS = ["the", "a", "of", "cat", "dog", "sat", "mat", "ran", "fast", "slow", "good", "bad"]


def make_texts(num_rows):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(num_rows)]


@pytest.fixture(scope="module")
def work(tokenizer_json, tmp_path_factory):
    """What a baseline is told, with a checkpoint and its stock graph."""
    path = tmp_path_factory.mktemp("baseline")
    (path / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    write_stock_graph(model, path / "stock.onnx")
    return {
        "stock_graph": str(path / "stock.onnx"),
        "tokenizer": str(path / "tokenizer.json"),
        "max_length": 24,
    }


@pytest.mark.parametrize("tuned", [False, True], ids=["padded", "tuned"])
def test_ray_datas_actor_gives_each_rows_logits_in_the_corpus_order(
    work, tokenizer_json, monkeypatch, tuned
):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # what the actor sets is undone
    texts = make_texts(70)
    predictor = Predictor(work, tuned)
    calls = []
    real = predictor._logits
    monkeypatch.setattr(predictor, "_logits", lambda ids: calls.append(ids) or real(ids))
    found = predictor({"id": np.arange(70) + 5, "text": np.array(texts, object)})

    rows = Tokenizer(tokenizer_json, max_length=24).encode(texts)
    assert found["id"].tolist() == list(range(5, 75))
    lengths = [[len(row) for row in ids] for ids in calls]
    if tuned:
        assert [len(of_batch) for of_batch in lengths] == [32, 32, 6]
        assert [n for of_batch in lengths for n in of_batch] == sorted(rows.lengths_N.tolist())
    else:
        assert lengths == [rows.lengths_N.tolist()]
    baseline = StockBaseline(work["stock_graph"], num_threads=1)
    batches = plan_exact(rows, max_batch_tokens=1)  # every row alone
    expected = np.zeros((70, 2), np.float32)
    for batch in batches:
        expected[batch.rows_B] = baseline.run(batch)
    assert expected.std(axis=0).min() > 0.1
    # Ranges of int8 are those of a batch, so the rest of a batch moves a row's logits a little.
    for of_class, alone in zip(found["logits"].T, expected.T, strict=True):
        assert np.corrcoef(of_class, alone)[0, 1] > 0.95


def test_texts_are_those_of_all_files_in_their_order(tmp_path):
    for number in range(2):
        table = pa.table({"id": [0, 1], "text": [f"text {number} {row}" for row in range(2)]})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    files = [str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")]
    found = baseline_scripts._read_texts({"files": files})
    assert found == ["text 0 0", "text 0 1", "text 1 0", "text 1 1"]


def test_the_script_imports_nothing_of_ours(tmp_path):
    """It runs under an interpreter that has its own library, and not fastformers."""
    code = (
        f"import runpy, sys; sys.path = [p for p in sys.path if p]; "
        f"runpy.run_path({baseline_scripts.__file__!r}); "
        "print([m for m in sys.modules if m.split('.')[0] in ('fastformers', 'cluster', 'jobs')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout) == []


def test_files_beside_the_script_hide_no_library(tmp_path):
    """PyTables, which pandas imports, is called `tables`, as one of our files is."""
    (tmp_path / "tables.py").write_text("")
    (tmp_path / "torch.py").write_text("import tables; print(tables.__file__); raise SystemExit")
    done = subprocess.run(
        [sys.executable, baseline_scripts.__file__, "pipeline"],
        input="{}",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "tables.py")]
