import os
import threading

import numpy as np
import pytest

from fastformers.errors import BundleError
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tokenizer import Tokenizer

torch = pytest.importorskip("torch")

from fastformers.ablation import steps as steps_module  # noqa: E402
from fastformers.ablation.scaling import Estimate  # noqa: E402
from fastformers.ablation.steps import (  # noqa: E402
    GraphModel,
    TorchModel,
    build_steps,
    graph_step,
    instances_step,
    pytorch_step,
)
from fastformers.ablation.texts import TimedRows  # noqa: E402
from fastformers.models.forward import predict_logits  # noqa: E402

TWO_CORES = [tuple(sorted(os.sched_getaffinity(0)))] * 2


@pytest.fixture(scope="module")
def rows(tokenizer_json, make_texts):
    return Tokenizer(tokenizer_json, max_length=48).encode(make_texts(30), make_texts(30, seed=1))


@pytest.fixture
def seen(monkeypatch):
    """The inputs and outputs of every call of a model, and the threads it was to run with."""
    calls = []
    # Only recorded: two threads wait for each other for seconds while other work runs.
    threads = [torch.get_num_threads()]
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])

    def watch(model):
        forward = model.forward

        def spy(**inputs):
            output = forward(**inputs)
            calls.append((inputs, output.logits, threads[-1]))
            return output

        monkeypatch.setattr(model, "forward", spy)
        return model

    watch.calls = calls
    return watch


def torch_model(model, rows, *, logits_NC=None, tokenization_s=None):
    texts = TimedRows(rows=rows, tokenization_s=tokenization_s)
    return TorchModel(model=model, texts=texts, logits_NC=logits_NC)


def graph_model(path, rows, *, name="graph", max_batch_tokens=64, tokenization_s=None, note=""):
    return GraphModel(
        name=name,
        path=path,
        texts=TimedRows(rows=rows, tokenization_s=tokenization_s),
        max_batch_tokens=max_batch_tokens,
        note=note,
    )


def ticks():
    counted = []
    return counted, counted.append


def test_padding_runs_every_text_at_full_length_and_changes_no_logit(make_teacher, rows, seen):
    model = make_teacher()
    expected_NC = predict_logits(model, rows)
    seen(model)
    padded = torch_model(model, rows, logits_NC=expected_NC)
    step = pytorch_step("padded", padded, num_threads=2, padded_to=64)
    counted, tick = ticks()
    threads_before = torch.get_num_threads()
    timing = step.run(tick)
    assert torch.get_num_threads() == threads_before
    calls = seen.calls[1:]  # the first is the warm-up
    assert {call[0]["input_ids"].shape for call in calls} == {(1, 64)}
    assert {call[2] for call in calls} == {2}
    logits_NC = torch.cat([call[1] for call in calls]).numpy()
    np.testing.assert_allclose(logits_NC, expected_NC, atol=1e-4)
    assert timing.seconds > 0
    assert timing.logits_NC is expected_NC
    assert (counted, step.num_tokens) == ([64] * 30, 64 * 30)
    assert (step.timed_rows, step.note) == (30, "fp32, batch 1, 2 threads")


def test_unpadded_runs_each_text_at_its_own_length(make_teacher, rows, seen):
    step = pytorch_step("unpadded", torch_model(seen(make_teacher()), rows), num_threads=1)
    counted, tick = ticks()
    step.run(tick)
    lengths = [call[0]["input_ids"].shape[1] for call in seen.calls[1:]]
    assert lengths == rows.lengths_N.tolist() == counted
    assert step.num_tokens == sum(lengths)


def test_steps_are_the_papers_and_each_further_graph_adds_one(make_teacher, rows, tmp_path):
    few = rows.slice(0, 5)
    steps = build_steps(
        teacher=torch_model(make_teacher(), rows, tokenization_s=0.5),
        student=torch_model(make_teacher(), few, tokenization_s=0.25),
        graphs=[
            graph_model(tmp_path / "a", few, name="+ int8", tokenization_s=0.25, note="a note"),
            graph_model(tmp_path / "b", few, name="+ pruning", max_batch_tokens=99),
        ],
        padded_to=64,
        baseline_rows=4,
        cpus_of_instance=TWO_CORES,
    )
    assert [step.name for step in steps] == [
        "PyTorch out of the box, padded to 64",
        "+ dynamic sequence length",
        "+ knowledge distillation",
        "+ int8",
        "+ multi-instance inference",
        "+ pruning",
    ]
    assert [step.timed_rows for step in steps] == [4, 4, 5, 5, 5, 5]
    assert [step.tokenization_s for step in steps] == [0.5, 0.5, 0.25, 0.25, 0.25, None]
    of_graphs = [step.note for step in steps[3:]]
    assert of_graphs[0] == "a note; batch 1, 2 threads, session creation included"
    assert of_graphs[1].startswith("a note; 2 instances x 1 thread, ")
    assert of_graphs[2].startswith("2 instances x 1 thread, length-sorted batches of up to 99 ")


def test_baselines_time_a_sample_and_say_so(make_teacher, rows, seen, monkeypatch):
    scaled = []

    def scale(times_S, *tokens_S, **total):
        scaled.append((len(times_S), total))
        return Estimate(seconds=7.0, standard_error_s=0.5)

    monkeypatch.setattr(steps_module, "scale_equal", lambda times_S, n: scale(times_S, n=n))
    monkeypatch.setattr(steps_module, "scale_by_tokens", scale)
    padded, unpadded = build_steps(
        teacher=torch_model(seen(make_teacher()), rows),
        student=None,
        graphs=[],
        padded_to=64,
        baseline_rows=4,
        cpus_of_instance=[(0,)],
    )
    assert padded.name == "PyTorch out of the box, padded to 64"
    assert unpadded.name == "+ dynamic sequence length"
    timings = [step.run(lambda n: None) for step in (padded, unpadded)]
    assert [(timing.seconds, timing.standard_error_s) for timing in timings] == [(7.0, 0.5)] * 2
    num_tokens = int(rows.lengths_N.sum())
    assert scaled == [(4, {"n": 30}), (4, {"num_rows": 30, "num_tokens": num_tokens})]
    assert "scaled from 4 of 30 texts (median text x texts)" in padded.note
    assert "scaled from 4 of 30 texts (evenly over sorted lengths, by tokens)" in unpadded.note
    lengths = [call[0]["input_ids"].shape[1] for call in seen.calls]
    assert lengths[:5] == [64] * 5
    spread = lengths[6:]
    assert spread == sorted(spread)
    assert spread[0] < np.median(rows.lengths_N) < spread[-1]


@pytest.mark.parametrize("kind", ["one session", "instances"])
def test_engine_steps_give_each_texts_own_logits_in_order(pair_bundle, rows, kind):
    expected_NC = np.concatenate(
        [
            OnnxEngine(pair_bundle.model_path).run(
                rows.batch_ids(np.array([row])), rows.batch_types(np.array([row]))
            )
            for row in range(len(rows))
        ]
    )
    if kind == "one session":
        step = graph_step("int8", graph_model(pair_bundle.model_path, rows), num_threads=2)
        assert step.note == "batch 1, 2 threads, session creation included"
    else:
        graph = graph_model(pair_bundle.model_path, rows, max_batch_tokens=128)
        step = instances_step("instances", graph, cpus_of_instance=TWO_CORES)
        assert step.note.startswith("2 instances x 1 thread, length-sorted batches of up to 128")
    counted, tick = ticks()
    timing = step.run(tick)
    np.testing.assert_allclose(timing.logits_NC, expected_NC, atol=1e-5)
    assert expected_NC.std(axis=0).min() > 0.01
    assert sum(counted) == step.num_tokens == rows.lengths_N.sum()
    assert timing.seconds > 0


def test_instances_are_pinned_threads_with_one_session_each(pair_bundle, rows, monkeypatch):
    cpu = min(os.sched_getaffinity(0))
    created = []
    together = threading.Barrier(3, timeout=60)

    class Engine(OnnxEngine):
        def __init__(self, model, *, num_threads):
            together.wait()  # a thread that finished at once would also take the next instance
            created.append((threading.get_ident(), num_threads, os.sched_getaffinity(0)))
            super().__init__(model, num_threads=num_threads)

    monkeypatch.setattr(steps_module, "OnnxEngine", Engine)
    allowed = os.sched_getaffinity(0)
    graph = graph_model(pair_bundle.model_path, rows)
    step = instances_step("instances", graph, cpus_of_instance=[(cpu,)] * 3)
    step.run(lambda num_tokens: None)
    assert len({ident for ident, _, _ in created}) == 3
    assert [(threads, cpus) for _, threads, cpus in created] == [(1, {cpu})] * 3
    assert os.sched_getaffinity(0) == allowed


def test_an_instance_that_fails_fails_the_step(rows, tmp_path):
    graph = graph_model(tmp_path / "none.onnx", rows)
    step = instances_step("instances", graph, cpus_of_instance=TWO_CORES)
    with pytest.raises(BundleError, match=r"none\.onnx"):
        step.run(lambda num_tokens: None)
