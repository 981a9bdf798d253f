import os
from dataclasses import replace

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.ablation.measure import measure_ablation
from fastformers.ablation.shapes import BERT_BASE_SHAPES, AblationShapes, SmallerShape
from fastformers.ablation.texts import TextsConfig, load_texts
from fastformers.data.examples import Columns
from fastformers.errors import InputError
from fastformers.inference.tokenizer import Tokenizer

pytest.importorskip("torch")

from fastformers.ablation.from_shapes import boolq_lengths, build_shape_ablation
from fastformers.benchmark.encoder_shapes import EncoderShape

SMALL = EncoderShape(
    num_layers=2,
    width=24,
    num_heads=3,
    head_width=8,
    ffn_width=48,
    activation="relu",
    vocab_size=128,
)
TINY = AblationShapes(
    name="tiny",
    teacher=replace(SMALL, num_layers=3, width=32, num_heads=4, activation="gelu"),
    student=SMALL,
    paper_cumulative=BERT_BASE_SHAPES.paper_cumulative,
    smaller=(
        SmallerShape(
            name="+ pruning",
            shape=replace(SMALL, num_heads=2, ffn_width=32),
            paper_cumulative=178.67,
        ),
        SmallerShape(
            name="not the paper's",
            shape=replace(SMALL, num_heads=1),
            paper_cumulative=None,
            is_aside=True,
        ),
    ),
)


@pytest.fixture
def build(tokenizer_json, tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(tokenizer_json)

    def make(tokenizer=tokenizer, shapes=TINY, **config):
        texts = TextsConfig(**{"eval": None, "limit": 9, "baseline_rows": 2, **config})
        return build_shape_ablation(
            shapes,
            texts,
            None if texts.eval is None else load_texts(texts),
            tokenizer=tokenizer,
            cpus_of_instance=[tuple(sorted(os.sched_getaffinity(0)))],
            scratch=tmp_path,
        )

    return make


def test_lengths_are_distributed_as_boolqs():
    lengths_N = boolq_lengths(3270)
    assert (len(lengths_N), lengths_N.min()) == (3270, 22)
    assert 508 <= lengths_N.max() <= 512
    # The data set itself has mean 132.06, median 119, p95 256.
    assert lengths_N.mean() == pytest.approx(132.06, abs=0.5)
    assert np.percentile(lengths_N, [50, 95]) == pytest.approx([119, 256], abs=1)
    assert (boolq_lengths(3270) == lengths_N).all()
    assert (np.diff(lengths_N) < 0).any()


def test_every_step_runs_and_says_that_weights_are_random(build):
    ablation = build(max_length=32)
    results = measure_ablation(ablation, usd_per_hour=1.0, repeats=1)
    assert [r.name for r in results] == [
        "PyTorch out of the box, padded to 32",
        "+ dynamic sequence length",
        "+ knowledge distillation",
        "+ int8 quantization + graph optimization",
        "+ multi-instance inference",
        "+ pruning",
        "not the paper's",
    ]
    assert all(r.note.startswith("random weights, speed only; ") for r in results)
    assert all(r.accuracy is None and r.tokenization_s is None for r in results)
    assert [r.is_aside for r in results] == [False] * 6 + [True]
    assert [r.timed_rows for r in results] == [2, 2, 9, 9, 9, 9, 9]
    paper = ["1.00x", "3.51x", "32.64x", "73.66x", "129.29x", "178.67x"]
    assert [r.note.rpartition("; the paper: ")[2] for r in results[:6]] == paper
    assert "the paper" not in results[6].note
    assert "2 layers x 24, 2 heads of 8, FFN 32;" in results[5].note
    assert "3 layers x 32, 4 heads of 8, FFN 48;" in results[0].note


def test_token_pruning_is_a_further_step_that_is_not_the_papers(build):
    shapes = TINY.keep_tokens((0.75,)).keep_tokens((0.6,))
    steps = build(max_length=32, shapes=shapes).steps[5:]
    assert [(step.name, step.is_aside) for step in steps] == [
        ("+ pruning", False),
        ("not the paper's", True),
        ("+ token pruning, keeping 75% (not the paper's)", False),
        ("not the paper's, token pruning, keeping 75%", True),
        ("+ token pruning, keeping 60% (not the paper's)", False),
        ("not the paper's, token pruning, keeping 60%", True),
    ]
    assert "2 heads of 8, FFN 32, keeping 75% of the tokens;" in steps[2].note
    assert "1 heads of 8, FFN 48, keeping 60% of the tokens;" in steps[5].note
    with pytest.raises(InputError, match=r"--keep-tokens 0.5,0.5: of the 2 .* no more than 1$"):
        TINY.keep_tokens((0.5, 0.5))


def test_graphs_of_kept_tokens_choose_them(build, tmp_path):
    build(max_length=32, shapes=TINY.keep_tokens((0.5,)))
    operators = [
        {node.op_type for node in onnx.load(tmp_path / f"graph{index}.onnx").graph.node}
        for index in range(5)
    ]
    assert ["TopK" in found for found in operators] == [False] * 3 + [True] * 2


def test_graphs_are_int8_and_of_the_shape_that_is_named(build, tmp_path):
    build(max_length=32)
    shapes = {}
    for name in ("graph0", "graph1"):
        graph = onnx.load(tmp_path / f"{name}.onnx").graph
        weights = {w.name: list(w.dims) for w in graph.initializer if w.data_type == 3}
        shapes[name] = (weights["layer0.qkv.weight"], weights["layer0.up.weight"])
        heads = [
            attribute.i
            for node in graph.node
            for attribute in node.attribute
            if attribute.name == "q_num_heads"
        ]
        assert heads == ([3] if name == "graph0" else [2])
    assert shapes["graph0"] == ([24, 72], [24, 48])
    assert shapes["graph1"] == ([24, 48], [24, 32])


def test_the_papers_shapes():
    student = BERT_BASE_SHAPES.student
    quarter, half, wide = (smaller.shape for smaller in BERT_BASE_SHAPES.smaller)
    assert (student.num_layers, student.width, student.num_heads * student.head_width) == (
        *(4, 312),
        312,
    )
    assert (quarter.num_heads, half.num_heads) == (9, 8)
    # No more is cut than the paper cut, and at most 15 neurons less.
    assert 900 <= quarter.ffn_width < 916
    assert 600 <= half.ffn_width < 616
    assert quarter.ffn_width % 16 == half.ffn_width % 16 == 0
    assert wide.num_heads * wide.head_width == half.num_heads * half.head_width


def test_lengths_of_a_file_are_those_of_its_texts(build, make_texts, tokenizer_json, tmp_path):
    texts = make_texts(20)
    path = tmp_path / "eval.parquet"
    columns = {"text": texts, "second": texts[::-1], "label": ["x"] * 20}
    pyarrow.parquet.write_table(pa.table(columns), path)
    ablation = build(eval=path, limit=None, columns=Columns(text_pair="second"), max_length=40)
    rows = Tokenizer(tokenizer_json, max_length=40).encode(texts, texts[::-1])
    assert ablation.lengths_N.tolist() == rows.lengths_N.tolist()
    assert all(step.tokenization_s > 0 for step in ablation.steps)
    assert "the lengths of eval.parquet" in ablation.description
    with pytest.raises(InputError, match=r"none\.json: is not a tokenizer\.json file"):
        build(eval=path, tokenizer=tmp_path / "none.json")
    with pytest.raises(InputError, match=r"eval\.parquet: is not a tokenizer\.json file"):
        build(eval=path, tokenizer=path)


def test_longer_than_the_positions_is_refused(build):
    with pytest.raises(InputError, match="--max-length 513: tiny has 512 positions"):
        build(max_length=513)
