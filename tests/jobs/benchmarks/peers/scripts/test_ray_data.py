"""Ray Data's actors, without Ray."""

import itertools
import json
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnx")

from fastformers.benchmark.baselines import write_stock_graph  # noqa: E402
from fastformers.jobs.benchmarks.peers.scripts import ray_data  # noqa: E402
from fastformers.jobs.benchmarks.peers.scripts.ray_data import (  # noqa: E402
    GuideClassifier,
    Predictor,
)
from fastformers.jobs.benchmarks.peers.scripts.work import Work, read_share  # noqa: E402

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
    with torch.inference_mode():  # so that both classes are predicted
        ids = torch.randint(5, 60, (64, 12))
        model.classifier.bias -= model(ids).logits.mean(0)
    write_stock_graph(model, path / "stock.onnx", float_path=path / "float.onnx")
    model.save_pretrained(path)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path / "tokenizer.json"), pad_token="[PAD]"
    ).save_pretrained(path)
    return Work(
        files=(),
        model=str(path),
        stock_graph=str(path / "stock.onnx"),
        float_graph=str(path / "float.onnx"),
        tokenizer=str(path / "tokenizer.json"),
        labels=("LABEL_0", "LABEL_1"),
        max_length=24,
        train=None,
        scratch=str(path),
        output="",
        num_workers=2,
        started_at=0.0,
    )


@pytest.mark.parametrize("cut", ["whole", "rows", "tokens"])
def test_ray_datas_actor_gives_each_rows_logits_in_the_corpus_order(
    work, tokenizer_json, monkeypatch, cut
):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # what the actor sets is undone
    monkeypatch.setattr(ray_data, "_BUDGET_TOKENS", 200)
    texts = make_texts(70)
    predictor = Predictor(work, work.float_graph, cut)
    calls = []
    real = predictor.run
    monkeypatch.setattr(predictor, "run", lambda ids: calls.append(ids) or real(ids))
    batch = {"id": np.arange(70) + 5, "text": np.array(texts, object)}
    logits = predictor.logits(batch)

    rows = Tokenizer(tokenizer_json, max_length=24).encode(texts)
    lengths = [[len(row) for row in ids] for ids in calls]
    if cut == "whole":
        assert lengths == [rows.lengths_N.tolist()]
    else:
        assert [n for of_batch in lengths for n in of_batch] == sorted(rows.lengths_N.tolist())
    if cut == "rows":
        assert [len(of_batch) for of_batch in lengths] == [32, 32, 6]
    if cut == "tokens":
        padded = [len(of_batch) * max(of_batch) for of_batch in lengths]
        assert max(padded) <= 200
        # None could have had the next row, too.
        for size, (of_batch, after) in zip(padded, itertools.pairwise(lengths), strict=False):
            assert size <= 200 < (len(of_batch) + 1) * after[0]
    alone = [predictor.run(row_ids)[0] for row_ids in ([ids] for ids in token_ids(rows))]
    assert np.std(alone, axis=0).min() > 0.1
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    found = predictor(batch)
    assert found["id"].tolist() == list(range(5, 75))
    assert found["label"].tolist() == [f"LABEL_{row.argmax()}" for row in logits]
    assert {*found["label"]} == {"LABEL_0", "LABEL_1"}


def token_ids(rows):
    return [rows.ids[a:b].tolist() for a, b in itertools.pairwise(rows.offsets)]


def test_the_int8_graph_is_another_than_the_float_one(work):
    """Ranges of int8 are those of a batch, so logits move a little, and not more."""
    batch = {"id": np.arange(70), "text": np.array(make_texts(70), object)}
    both = [
        Predictor(work, graph, "rows").logits(batch)
        for graph in (work.stock_graph, work.float_graph)
    ]
    for int8, exact in zip(both[0].T, both[1].T, strict=True):
        assert 0.95 < np.corrcoef(int8, exact)[0, 1] < 0.9999999


def test_the_class_of_rays_guide_labels_texts_that_are_too_long_for_the_model(work):
    texts = [*make_texts(3), "the cat sat " * 40]
    found = GuideClassifier(work)({"id": np.arange(4), "text": np.array(texts, object)})
    assert found["id"].tolist() == [0, 1, 2, 3]
    logits = Predictor(work, work.float_graph, "whole").logits({"text": texts})
    assert found["label"] == [f"LABEL_{row.argmax()}" for row in logits]


def test_a_share_is_every_nth_row_of_all_files(work, tmp_path):
    for number in range(2):
        rows = {"id": [2 * number, 2 * number + 1], "text": [f"{number} 0", f"{number} 1"]}
        pyarrow.parquet.write_table(pa.table(rows), tmp_path / f"{number}.parquet")
    files = (str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet"))
    of_files = replace(work, files=files)
    assert read_share(of_files) == ([0, 1, 2, 3], ["0 0", "0 1", "1 0", "1 1"])
    assert read_share(of_files, 1, 2) == ([1, 3], ["0 1", "1 1"])
    assert Work.from_json(json.dumps(asdict(of_files))) == of_files
