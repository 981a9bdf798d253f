"""Which graph, engine and budget each kind of actor scores with."""

from dataclasses import replace

import pytest

from fastformers.cluster.devices import scoring as scoring_module
from fastformers.cluster.devices.scoring import (
    CARD_BATCH_TOKENS,
    Scoring,
    choose_gpu_budget,
    choose_precisions,
    plan_scorings,
)
from fastformers.cluster.settings import ScoringSettings
from fastformers.errors import InputError
from fastformers.inference.autotune import EngineChoice
from fastformers.inference.description.further_graph import FurtherGraph

CHOICE = EngineChoice(engine="openvino", max_batch_tokens=2048)


@pytest.fixture
def graphs(bundle):
    """Makes a bundle of graphs in these precisions."""

    def make(first, *precisions):
        further = (FurtherGraph(precision=p, file=f"{p}.onnx", quality=None) for p in precisions)
        return replace(bundle, precision=first, further_graphs=tuple(further))

    return make


def choose(bundle, device, precision=None):
    return choose_precisions(bundle, ScoringSettings(device=device, precision=precision))


def test_each_kind_runs_the_graph_that_is_made_for_it(graphs):
    both = graphs("int8", "float16")
    assert choose(both, "cpu") == {"cpu": "int8"}
    assert choose(both, "cuda") == {"cuda": "float16"}
    assert choose(both, "mixed") == {"cpu": "int8", "cuda": "float16"}


def test_a_precision_that_is_asked_for_is_that_of_all(graphs):
    both = graphs("int8", "float16")
    assert choose(both, "mixed", "float16") == {"cpu": "float16", "cuda": "float16"}
    assert choose(graphs("float16"), "cpu", "float16") == {"cpu": "float16"}
    assert choose(graphs("float16"), "mixed") == {"cpu": "float16", "cuda": "float16"}


@pytest.mark.parametrize(
    ("has", "device", "precision", "message"),
    [
        (["int8"], "cuda", None, r"--device cuda: .* has no graph for GPUs \(it has int8\)"),
        (["int8", "float16"], "mixed", "int8", r"--device mixed --precision int8: .* no graph for"),
        (["float16"], "cpu", None, r"--device cpu: .* float16 alone, .* or --precision float16 to"),
        (["int8"], "cpu", "float16", r"--precision float16: .* has int8 alone; make it again with"),
    ],
)
def test_a_graph_that_is_not_there_is_refused(graphs, has, device, precision, message):
    with pytest.raises(InputError, match=message):
        choose(graphs(*has), device, precision)


def test_budgets_are_those_of_the_kind():
    both = plan_scorings({"cpu": "int8", "cuda": "float16"}, CHOICE, gpu_budget=32768)
    assert both == (
        Scoring(device="cpu", engine="openvino", precision="int8", max_batch_tokens=2048),
        Scoring(
            device="cuda",
            engine="onnxruntime-cuda",
            precision="float16",
            max_batch_tokens=32768,
        ),
    )
    (alone,) = plan_scorings({"cuda": "float16"}, None, gpu_budget=65536)
    assert alone.max_batch_tokens == 65536


def test_without_a_gpu_here_its_budget_is_one_that_suits_all(graphs, monkeypatch):
    bundle = graphs("float16")
    monkeypatch.setattr(
        scoring_module, "tune", lambda bundle, engine: replace(CHOICE, engine=engine)
    )

    def refuse():
        raise InputError("device cuda: no driver")

    monkeypatch.setattr(scoring_module, "check_cuda", refuse)
    assert choose_gpu_budget(bundle) == CARD_BATCH_TOKENS == 65536
    monkeypatch.setattr(scoring_module, "check_cuda", lambda: None)
    assert choose_gpu_budget(bundle) == 2048
