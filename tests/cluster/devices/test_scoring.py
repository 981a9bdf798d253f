"""Which graph, engine and budget each kind of actor scores with."""

from dataclasses import replace

import pytest

from fastformers.cluster.devices import scoring as scoring_module
from fastformers.cluster.devices.scoring import (
    CARD_BATCH_TOKENS,
    Scoring,
    choose_gpu_budget,
    choose_precisions,
    choose_scorings,
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


def choose_all(bundle, device, monkeypatch, *, max_batch_tokens=None, recorded=None):
    measured = []

    def tune(bundle, *, engine, max_batch_tokens=None):
        measured.append((bundle.precision, engine))
        return replace(CHOICE, max_batch_tokens=max_batch_tokens or CHOICE.max_batch_tokens)

    monkeypatch.setattr(scoring_module, "tune", tune)
    monkeypatch.setattr(scoring_module, "choose_gpu_budget", lambda bundle: CARD_BATCH_TOKENS)
    scorings = choose_scorings(
        bundle,
        ScoringSettings(device=device),
        engine="auto",
        max_batch_tokens=max_batch_tokens,
        recorded=recorded or {},
    )
    return scorings, measured


def test_engine_and_budget_are_those_of_the_kind(graphs, monkeypatch):
    both, measured = choose_all(graphs("int8", "float16"), "mixed", monkeypatch)
    assert both == (
        Scoring(device="cpu", engine="openvino", precision="int8", max_batch_tokens=2048),
        Scoring(
            device="cuda",
            engine="onnxruntime-cuda",
            precision="float16",
            max_batch_tokens=CARD_BATCH_TOKENS,
        ),
    )
    assert measured == [("int8", "auto")]


def test_a_budget_that_is_given_is_of_gpus_where_they_alone_score(graphs, monkeypatch):
    bundle = graphs("int8", "float16")
    both, _ = choose_all(bundle, "mixed", monkeypatch, max_batch_tokens=99)
    assert [one.max_batch_tokens for one in both] == [99, CARD_BATCH_TOKENS]
    alone, measured = choose_all(bundle, "cuda", monkeypatch, max_batch_tokens=99)
    assert ([one.max_batch_tokens for one in alone], measured) == ([99], [])


def test_what_an_earlier_run_chose_is_chosen_again(graphs, monkeypatch):
    bundle = graphs("int8", "float16")
    recorded = {"engine": "onnxruntime", "max batch tokens": 7, "max batch tokens on GPUs": 8}
    choices = choose_all(bundle, "mixed", monkeypatch, recorded=recorded)
    assert [(one.engine, one.max_batch_tokens) for one in choices[0]] == [
        ("onnxruntime", 7),
        ("onnxruntime-cuda", 8),
    ]
    assert choices[1] == []


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
