import json
from dataclasses import replace

import numpy as np
import pytest

from fastformers.errors import BundleError, InputError
from fastformers.inference import autotune, engines
from fastformers.inference.autotune import EngineChoice, tune
from fastformers.inference.engines import check_installed, open_engine
from tests.needs import need_openvino


class NamedEngine:
    """An engine that gives all rows the same logits; `measure_budgets` is replaced."""

    input_names = ("input_ids",)
    num_in_flight = 1
    num_outputs = 2

    def __init__(self, name, logit=1.0):
        self.name, self.logit = name, logit

    def run(self, ids_BT, types_BT):
        return np.full((len(ids_BT), 2), self.logit, np.float32)


@pytest.fixture
def elsewhere(bundle):
    """The same bundle, compressed on another processor."""
    return replace(bundle, cost_profile=replace(bundle.cost_profile, cpu_model="another"))


@pytest.fixture
def measured(monkeypatch):
    """Fake seconds per token by engine and budget; lists the names of the engines measured."""
    seconds = {
        "onnxruntime": {256: 5.0, 512: 3.0, 1024: 4.0},
        "openvino": {256: 6.0, 512: 4.0, 1024: 2.0},
    }
    calls = []

    def measure(engine, **_):
        calls.append(engine.name)
        return seconds[engine.name]

    monkeypatch.setattr(autotune, "measure_budgets", measure)
    monkeypatch.setattr(autotune, "open_engine", lambda name, path, num_threads: NamedEngine(name))
    monkeypatch.setattr(
        engines, "find_spec", lambda package: package if package in seconds else None
    )
    return calls


def test_the_bundles_own_measurement_counts_on_the_machine_that_made_it(bundle, tmp_path):
    chosen = tune(bundle, engine="onnxruntime", cache=tmp_path)
    assert chosen == EngineChoice(engine="onnxruntime", max_batch_tokens=256)
    assert not list(tmp_path.iterdir())


def test_elsewhere_the_fastest_budget_is_measured_once(elsewhere, measured, tmp_path):
    for _ in range(2):
        chosen = tune(elsewhere, engine="onnxruntime", cache=tmp_path / "new")
        assert chosen == EngineChoice(engine="onnxruntime", max_batch_tokens=512)
    assert measured == ["onnxruntime"]


def test_what_was_measured_on_a_busy_machine_is_neither_believed_nor_kept(
    bundle, measured, tmp_path, monkeypatch, caplog
):
    rough = replace(bundle, cost_profile=replace(bundle.cost_profile, waiting_share=0.5))
    tune(rough, engine="onnxruntime", cache=tmp_path)
    assert measured == ["onnxruntime"]  # though the bundle was made on this machine
    monkeypatch.setattr(autotune.CpuTimer, "waiting_share", 0.9)
    for _ in range(2):
        tune(rough, engine="auto", cache=tmp_path)
    assert sorted(measured) == [*["onnxruntime"] * 1, *["openvino"] * 2]
    assert "busy: measuring openvino with" in caplog.text


def test_auto_takes_the_faster_engine_with_its_own_budget(bundle, measured, tmp_path):
    chosen = tune(bundle, engine="auto", cache=tmp_path)
    assert chosen == EngineChoice(engine="openvino", max_batch_tokens=1024)
    assert sorted(measured) == ["onnxruntime", "openvino"]


def test_auto_is_onnx_runtime_where_nothing_else_is_installed(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(
        engines, "find_spec", lambda package: package if package == "onnxruntime" else None
    )
    assert tune(bundle, engine="auto", cache=tmp_path).engine == "onnxruntime"
    for use in (
        lambda: tune(bundle, engine="openvino", cache=tmp_path),
        lambda: tune(bundle, engine="openvino", max_batch_tokens=9, cache=tmp_path),
        lambda: open_engine("openvino", bundle.model_path, num_threads=1),
        lambda: check_installed("openvino"),
    ):
        with pytest.raises(InputError, match=r"not installed; .*pip install .*\[openvino\]"):
            use()


def test_a_cascade_takes_what_is_fastest_for_both_graphs_by_the_share_that_goes_on(
    cascade_bundle, tmp_path, monkeypatch
):
    seconds = {"model.onnx": {256: 2.0, 512: 3.0}, "second.onnx": {256: 9.0, 512: 6.0}}
    monkeypatch.setattr(autotune, "open_engine", lambda name, path, **_: NamedEngine(path.name))
    monkeypatch.setattr(autotune, "measure_budgets", lambda engine, **_: seconds[engine.name])
    monkeypatch.setattr(engines, "find_spec", lambda package: package == "onnxruntime" or None)
    elsewhere = replace(cascade_bundle.cost_profile, cpu_model="another")
    for share, budget in ((0.2, 256), (0.5, 512)):
        cascade = replace(cascade_bundle.cascade, share=share)
        bundle = replace(cascade_bundle, cascade=cascade, cost_profile=elsewhere)
        chosen = tune(bundle, engine="onnxruntime", cache=tmp_path)
        assert chosen == EngineChoice(engine="onnxruntime", max_batch_tokens=budget)


def test_an_engine_must_compute_both_graphs_of_a_cascade(cascade_bundle, tmp_path, monkeypatch):
    def open_fake(name, path, **_):
        wrong = name == "openvino" and path.name == "second.onnx"
        return NamedEngine(name, -1.0 if wrong else 1.0)

    monkeypatch.setattr(autotune, "open_engine", open_fake)
    monkeypatch.setattr(engines, "find_spec", lambda package: package)
    monkeypatch.setattr(autotune, "measure_budgets", lambda engine, **_: {256: 1.0})
    with pytest.raises(InputError, match="openvino computes other logits"):
        tune(cascade_bundle, engine="openvino", cache=tmp_path)
    assert tune(cascade_bundle, engine="auto", cache=tmp_path).engine == "onnxruntime"


@pytest.mark.parametrize("logit", [1.2, -1.0, np.nan])
def test_an_engine_that_computes_something_else_is_never_taken(
    bundle, measured, tmp_path, monkeypatch, logit
):
    engines = {"onnxruntime": NamedEngine("onnxruntime"), "openvino": NamedEngine("openvino")}
    monkeypatch.setattr(autotune, "open_engine", lambda name, path, num_threads: engines[name])
    engines["openvino"].logit = 1.05  # the difference that int8 rounding makes
    assert tune(bundle, engine="auto", cache=tmp_path).engine == "openvino"
    engines["openvino"].logit = logit
    assert tune(bundle, engine="auto", cache=tmp_path).engine == "onnxruntime"
    with pytest.raises(InputError, match=r"openvino computes other logits .* use onnxruntime"):
        tune(bundle, engine="openvino", max_batch_tokens=256, cache=tmp_path)


def test_auto_passes_over_an_engine_that_cannot_load_the_graph(
    bundle, measured, tmp_path, monkeypatch
):
    def load(name, path, num_threads):
        if name == "openvino":
            raise BundleError("model.onnx: OpenVINO cannot load it: RotaryEmbedding")
        return NamedEngine(name)

    monkeypatch.setattr(autotune, "open_engine", load)
    assert tune(bundle, engine="auto", cache=tmp_path).engine == "onnxruntime"
    with pytest.raises(BundleError, match="RotaryEmbedding"):
        tune(bundle, engine="openvino", cache=tmp_path)


def test_openvino_computes_a_bundle_of_pairs_right(pair_bundle, tmp_path):
    need_openvino()
    chosen = tune(pair_bundle, engine="openvino", max_batch_tokens=256, cache=tmp_path)
    assert chosen.engine == "openvino"


def test_a_budget_that_was_asked_for_stays(elsewhere, measured, tmp_path):
    chosen = tune(elsewhere, engine="onnxruntime", max_batch_tokens=100, cache=tmp_path)
    assert chosen == EngineChoice(engine="onnxruntime", max_batch_tokens=100)
    assert measured == []
    assert tune(elsewhere, engine="auto", max_batch_tokens=100, cache=tmp_path) == EngineChoice(
        engine="openvino", max_batch_tokens=100
    )


def test_other_bundles_and_engines_share_no_measurement(elsewhere, measured, tmp_path):
    other = replace(elsewhere, labels=("a", "b"))
    for one in (elsewhere, other):
        tune(one, engine="onnxruntime", cache=tmp_path)
        tune(one, engine="openvino", cache=tmp_path)
    assert len(measured) == len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"512": "x"}'])
def test_a_damaged_cache_is_measured_again(elsewhere, measured, tmp_path, content, caplog):
    tune(elsewhere, engine="onnxruntime", cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert tune(elsewhere, engine="onnxruntime", cache=tmp_path).max_batch_tokens == 512
    assert measured == ["onnxruntime"] * 2
    assert "measuring again" in caplog.text
    assert json.loads(file.read_text())["512"] == 3.0


def test_a_cache_that_cannot_be_written_is_done_without(elsewhere, measured, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert tune(elsewhere, engine="onnxruntime", cache=tmp_path / "file" / "x").engine
    assert "the next run measures again" in caplog.text
