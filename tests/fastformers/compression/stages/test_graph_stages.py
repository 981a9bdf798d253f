"""What the stages that write a graph accept where rounding decides which tokens stay."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fastformers.compression.artifact import ModelArtifact  # noqa: E402
from fastformers.compression.stages import graph_stages  # noqa: E402
from fastformers.compression.stages.graph_stages import export_stage, float16_stage  # noqa: E402
from fastformers.data.examples import Examples  # noqa: E402
from fastformers.errors import StageError  # noqa: E402
from fastformers.export.graph import write_graph  # noqa: E402
from fastformers.export.read_encoder import read_encoder  # noqa: E402
from fastformers.models.variants.reduced_layers import change_reduction  # noqa: E402
from fastformers.models.variants.token_reduction import TokenReduction  # noqa: E402


@pytest.fixture
def artifact(make_teacher, make_texts, tokenizer_json, tmp_path):
    """A model whose first layer drops half of its tokens, before its export."""
    model = make_teacher()
    change_reduction(model, TokenReduction(keep_shares=(0.5,)))
    texts = make_texts(24)
    return ModelArtifact(
        key="",
        model=model,
        tokenizer_json=tokenizer_json,
        max_length=40,
        text_pairs=False,
        train=Examples(texts=texts, text_pairs=None, labels=["no"] * len(texts)),
        train_path=tmp_path,
        work=tmp_path,
    )


def run(stage, artifact, path):
    after = stage.run(artifact, path, lambda what, done, total: None)
    stage.ensures(artifact, after)
    return after


def test_a_model_that_drops_tokens_is_exported_and_rounded(artifact, tmp_path):
    exported = run(export_stage(), artifact, tmp_path)
    half = run(float16_stage("float16.onnx"), exported, tmp_path)
    assert half.precision == "float16"


def test_a_row_may_differ_only_where_two_tokens_are_as_significant(artifact, tmp_path, monkeypatch):
    """As if the graph had kept other tokens: it is that of a model that keeps fewer."""
    exported = run(export_stage(), artifact, tmp_path)
    encoder = replace(read_encoder(artifact.model), max_length=40)
    first, *others = encoder.layers
    other = replace(encoder, layers=(replace(first, keep_share=0.3), *others))
    write_graph(other, tmp_path / "other.onnx", text_pairs=False)
    after = replace(exported, graph=tmp_path / "other.onnx")
    with pytest.raises(StageError, match=r"the graph's logits differ from PyTorch's by"):
        export_stage().ensures(artifact, after)
    asked = []

    def as_close(encoder, rows, numbers, *, text_pairs):
        asked.extend(numbers)
        return np.full(len(numbers), 1e-6)

    monkeypatch.setattr(graph_stages, "measure_choice_gaps", as_close)
    export_stage().ensures(artifact, after)
    assert len(asked) > 10
