"""The engine for GPUs, on the CPU: what a card does differently is in `session`, which is faked."""

import threading

import numpy as np
import onnxruntime
import pytest

from fastformers.errors import BundleError, InputError, NodeUnfitError
from fastformers.export.graph import write_graph
from fastformers.inference.engine import EngineError, OnnxEngine, run_batches
from fastformers.inference.engines import cuda
from fastformers.inference.engines.cuda import CudaEngine
from fastformers.inference.scorer import Scorer

IDS = np.random.default_rng(0).integers(4, 40, (9, 6))
TYPES = np.zeros_like(IDS)


class Session:
    """A session on the CPU with a card's memory: it refuses batches of more tokens."""

    def __init__(self, session, num_tokens, kernels):
        self._session, self._num_tokens, self.kernels = session, num_tokens, kernels
        self.sizes = []

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def run_with_iobinding(self, binding, options):
        self._session.run_with_iobinding(binding, options)
        size = binding.get_outputs()[0].numpy().shape[0] * 6
        self.sizes.append(size)
        if size > self._num_tokens:
            raise RuntimeError("Failed to allocate memory\nfor requested buffer")


@pytest.fixture
def open_engine(encoder_factory, tmp_path, monkeypatch):
    """Opens the tiny encoder's float16 graph on a card whose memory holds so many tokens."""
    write_graph(encoder_factory(), tmp_path / "model.onnx", text_pairs=True, float16=True)
    open_session = onnxruntime.InferenceSession

    def open_card(*, num_tokens=10**6, model=tmp_path / "model.onnx"):
        def open_fake(model, options, *, providers):
            assert [name for name, _ in providers[:1]] == ["CUDAExecutionProvider"]
            options.enable_cpu_mem_arena = True
            session = open_session(model, options, providers=["CPUExecutionProvider"])
            return Session(session, num_tokens, providers[0][1]["sdpa_kernel"])

        monkeypatch.setattr(onnxruntime, "InferenceSession", open_fake)
        return CudaEngine(model)

    monkeypatch.setattr(cuda, "check_cuda", lambda: None)
    monkeypatch.setattr(cuda, "read_card_name", lambda: "NVIDIA Fake")
    monkeypatch.setattr(cuda, "_DEVICE", "cpu")
    monkeypatch.setattr(cuda, "_ARENA", "cpu:0")
    return open_card


def test_logits_are_those_of_the_same_graph_on_the_cpu(open_engine, tmp_path):
    expected = OnnxEngine(tmp_path / "model.onnx").run(IDS, TYPES)
    engine = open_engine()
    np.testing.assert_array_equal(engine.run(IDS, TYPES), expected)
    assert engine.name == f"onnxruntime-cuda {onnxruntime.__version__} on NVIDIA Fake"
    assert engine.input_names == ("input_ids", "token_type_ids")
    assert engine.num_outputs == expected.shape[1]


def test_short_rows_get_the_kernel_that_is_faster_for_them(open_engine):
    engine = open_engine()
    logits_BC = engine.run(IDS, TYPES)
    assert (engine._short_session.kernels, engine._session.kernels) == ("2", "7")
    assert (engine._short_session.sizes, engine._session.sizes) == ([54], [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "SHORT_LENGTH", IDS.shape[1] - 1)
        np.testing.assert_array_equal(engine.run(IDS, TYPES), logits_BC)
    assert engine._session.sizes == [54]


def test_what_does_not_fit_is_tried_in_parts_and_from_then_on_is_not_tried(open_engine, caplog):
    expected = open_engine().run(IDS, TYPES)
    engine = open_engine(num_tokens=12)
    np.testing.assert_array_equal(engine.run(IDS, TYPES), expected)
    assert engine._short_session.sizes == [54, 18, *[6] * 9]
    assert engine.lowered_to == 9
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "NVIDIA Fake: a batch of 54 tokens did not fit (Failed to allocate memory); from now on "
        "batches of up to 27"
    )
    assert "a batch of 18 tokens" in second
    np.testing.assert_array_equal(engine.run(IDS[:7], TYPES[:7]), expected[:7])
    assert engine._short_session.sizes[11:] == [6] * 7
    assert len(caplog.records) == 2
    assert open_engine(num_tokens=12).lowered_to is None


def test_a_card_that_fails_on_one_row_is_unfit(open_engine):
    engine = open_engine(num_tokens=5)
    with pytest.raises(NodeUnfitError, match="NVIDIA Fake fails on a row of 6 tokens") as caught:
        engine.run(IDS, TYPES)
    assert "\n" not in str(caught.value)


def test_a_token_without_embedding_never_reaches_the_card(open_engine):
    engine = open_engine()
    with pytest.raises(EngineError, match="token id 1000 is out of bounds: there are 128 emb"):
        engine.run(np.array([[2, 1000, 3]]), np.zeros((1, 3), np.int64))
    assert engine._short_session.sizes == []


def test_a_graph_for_cpus_is_refused(open_engine, bundle):
    with pytest.raises(BundleError, match="is a graph for CPUs; compress --precision float16"):
        open_engine(model=bundle.model_path)


def test_a_session_that_falls_back_to_the_cpu_is_refused(open_engine, monkeypatch):
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"does not start CUDA here.*nvidia-smi") as caught:
        open_engine()
    assert "\n" not in str(caught.value)


class TwoAtOnce:
    """An engine that computes nothing until two batches are there."""

    num_in_flight = 2

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=60)


def test_two_batches_are_at_the_engine_at_once_and_what_they_raise_is_raised():
    engine, done = TwoAtOnce(), []

    def run(batch):
        engine.barrier.wait()
        done.append(batch)

    run_batches(engine, run, range(6))
    assert sorted(done) == list(range(6))

    def fail(batch):
        engine.barrier.wait()
        raise ValueError(batch)

    with pytest.raises(ValueError, match=r"0|1"):
        run_batches(engine, fail, [0, 1])


def test_a_scorer_gives_each_row_its_logits_whatever_ends_first(bundle, make_texts):
    texts = make_texts(200)
    scorer = Scorer(bundle.path)
    expected = scorer.score(texts, max_batch_tokens=64).logits_NC
    scorer.engine.num_in_flight = 3
    np.testing.assert_array_equal(scorer.score(texts, max_batch_tokens=64).logits_NC, expected)
