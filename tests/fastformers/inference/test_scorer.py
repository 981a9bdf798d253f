import pickle
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from fastformers import Scorer
from fastformers.errors import BundleError, InputError
from fastformers.export.calibration import collect_histograms
from fastformers.export.graph import write_graph
from fastformers.inference import scorer as scorer_module
from fastformers.inference.autotune import EngineChoice
from fastformers.inference.bundle import write_bundle
from fastformers.inference.cascade import passes
from fastformers.inference.engine import EngineError, OnnxEngine
from fastformers.inference.tasks import classify
from fastformers.inference.tokenizer import TokenizedRows, find_unique
from tests.needs import need_openvino

TEXTS = ["the cat sat", "good film", "bad film", "a dog ran fast", "it is on the mat", "zebra!"]
TEXT_ID = 24  # the id of "text", the last of the words


class FakeEngine:
    """An engine whose logits are a row's length and second token; records every batch."""

    name = "fake 1.0"
    num_in_flight = 1
    input_names = ("input_ids",)
    num_outputs = 2

    def __init__(self, change=lambda ids_BT, logits_BC: logits_BC):
        self.batches = []
        self._change = change

    def run(self, ids_BT, types_BT):
        self.batches.append(ids_BT.tolist())
        length_B = np.full(len(ids_BT), ids_BT.shape[1])
        logits_BC = np.stack([length_B, ids_BT[:, 1]], axis=1).astype(np.float32)
        return self._change(ids_BT, logits_BC)

    @property
    def rows(self):
        return [tuple(row) for batch in self.batches for row in batch]


@pytest.fixture(scope="module")
def int8_bundle(encoder_factory, bundle, make_texts, tmp_path_factory):
    """The tiny bundle with all projections in int8."""
    scratch = tmp_path_factory.mktemp("int8")
    write_graph(encoder_factory(), scratch / "observed.onnx", text_pairs=False, observe=True)
    rows = bundle.load_tokenizer().encode(make_texts(64))
    ranges = {
        name: histogram.clipped_range(0)
        for name, histogram in collect_histograms(scratch / "observed.onnx", rows).items()
    }
    write_graph(encoder_factory(), scratch / "model.onnx", text_pairs=False, ranges=ranges)
    return write_bundle(
        replace(bundle, path=scratch / "bundle", precision="int8"),
        model=scratch / "model.onnx",
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )


def test_labels_and_probabilities_are_those_of_the_logits(bundle, make_texts):
    predictions = Scorer(bundle).score(make_texts(200))
    exponents_NC = np.exp(predictions.logits_NC.astype(np.float64))
    softmax_NC = exponents_NC / exponents_NC.sum(axis=1, keepdims=True)
    assert predictions.labels == [bundle.labels[row.argmax()] for row in softmax_NC]
    assert len(set(predictions.labels)) == 2
    np.testing.assert_allclose(predictions.probabilities, softmax_NC, rtol=1e-6)
    np.testing.assert_array_equal(predictions.probability, predictions.probabilities.max(axis=1))
    assert predictions.errors == {}


def test_a_scorer_opens_and_verifies_a_directory(bundle, tmp_path):
    assert Scorer(bundle.path).score(TEXTS).labels == Scorer(bundle).score(TEXTS).labels
    assert Scorer(str(bundle.path)).bundle == bundle
    with pytest.raises(BundleError, match="not a bundle"):
        Scorer(tmp_path)


def test_logits_are_those_of_the_graph_on_each_text_alone(bundle):
    scorer = Scorer(bundle)
    engine = OnnxEngine(bundle.model_path)
    for text, logits_C in zip(TEXTS, scorer.score(TEXTS).logits_NC, strict=True):
        ids_1T = scorer.tokenizer.encode([text]).ids[None].astype(np.int64)
        np.testing.assert_allclose(logits_C, engine.run(ids_1T, None)[0], atol=1e-5)


@given(st.lists(st.integers(1, 20), max_size=40), st.sampled_from([1, 16, 64, 1024]))
def test_results_come_in_the_order_of_the_texts(bundle, counts, budget):
    scorer = Scorer(bundle, engine=FakeEngine())
    predictions = scorer.score(["cat " * count for count in counts], max_batch_tokens=budget)
    assert predictions.logits_NC[:, 0].tolist() == [count + 2 for count in counts]


def test_equal_texts_are_scored_once(bundle):
    engine = FakeEngine()
    texts = ["the cat", "a dog", "The  CAT", "the cat"] * 100 + ["the dog"]
    predictions = Scorer(bundle, engine=engine).score(texts)
    assert len(engine.rows) == len(set(engine.rows)) == 3
    assert len(engine.batches) == 1  # the texts have one length, so one batch
    assert predictions.logits_NC[:, 1].tolist() == [5, 6, 5, 5] * 100 + [5]


def test_pairs_that_differ_only_in_where_they_are_split_are_different():
    rows = TokenizedRows(
        ids=np.array([2, 5, 3, 2, 5, 3, 2, 5, 3, 2, 5], np.uint16),
        offsets=np.array([0, 3, 6, 9, 11]),
        second_lengths_N=np.array([1, 2, 1, 0], np.uint16),
    )
    unique_N, first_U = find_unique(rows)
    assert unique_N.tolist() == [0, 1, 0, 2]
    assert first_U.tolist() == [0, 1, 3]


def test_batches_keep_the_token_budget(bundle):
    engine = FakeEngine()
    texts = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"]  # each has four tokens
    Scorer(bundle, engine=engine).score(texts, max_batch_tokens=40)
    assert {len(batch) for batch in engine.batches} == {9, 10}
    engine.batches.clear()
    Scorer(bundle, engine=engine).score(texts)
    assert bundle.cost_profile.max_batch_tokens == 256
    assert [len(batch) for batch in engine.batches] == [64]


@pytest.mark.parametrize("kind", ["bundle", "int8_bundle"])
@pytest.mark.parametrize("length", [1, 7, 30, 61])
def test_a_row_scores_the_same_alone_and_among_64(request, kind, length):
    bundle = request.getfixturevalue(kind)
    rng = np.random.default_rng(length)
    texts = list({" ".join(rng.choice(list("abcdefgh"), length)) for _ in range(500)})[:64]
    if length > 1:
        assert len(texts) == 64
    scorer = Scorer(bundle)
    together_NC = scorer.score(texts, max_batch_tokens=64 * 64).logits_NC
    alone_NC = np.concatenate([scorer.score([text]).logits_NC for text in texts])
    np.testing.assert_allclose(together_NC, alone_NC, rtol=0, atol=1e-5)
    assert np.ptp(together_NC, axis=0).min() > 0.01  # the texts do differ


def test_a_row_that_the_runtime_fails_on_is_the_only_one_without_a_score(
    bundle, bundle_factory, tmp_path, make_texts
):
    fewer_words = bundle_factory(tmp_path / "fewer", vocabulary=TEXT_ID)
    texts = [text.replace("text", "cat") for text in make_texts(64, max_words=4)]
    texts[9] = "the text"
    texts[40] = texts[41] = "a text"
    dead = {9, 40, 41}
    predictions = Scorer(fewer_words).score(texts)
    assert set(predictions.errors) == dead
    assert all("out of data bounds" in error for error in predictions.errors.values())
    assert {row for row, label in enumerate(predictions.labels) if label is None} == dead
    assert set(np.flatnonzero(np.isnan(predictions.probability))) == dead
    assert set(np.flatnonzero(np.isnan(predictions.logits_NC).any(axis=1))) == dead

    alive = [row for row in range(64) if row not in dead]
    expected = Scorer(fewer_words).score([texts[row] for row in alive])
    assert [predictions.labels[row] for row in alive] == expected.labels
    np.testing.assert_allclose(predictions.logits_NC[alive], expected.logits_NC, atol=1e-5)


def test_the_failing_row_is_found_by_halving(bundle):
    def fail_on_b(ids_BT, logits_BC):
        if 25 in ids_BT:
            raise EngineError("no b, please")
        return logits_BC

    engine = FakeEngine(fail_on_b)
    texts = [f"{a} {b}" for a in "acdefghi" for b in "acdefghi"]
    texts[37] = "b a"
    assert bundle.load_tokenizer().encode(["b"]).ids[1] == 25
    predictions = Scorer(bundle, engine=engine).score(texts)
    assert predictions.errors == {37: "the model failed on it: no b, please"}
    # At each size one batch fails, the one that holds the row, and the other half succeeds.
    sizes = sorted(map(len, engine.batches), reverse=True)
    assert sizes == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_errors_are_in_the_order_of_the_texts_whoever_found_them(bundle):
    def fail_on_b(ids_BT, logits_BC):
        if 25 in ids_BT:
            raise EngineError("no b, please")
        return logits_BC

    predictions = Scorer(bundle, engine=FakeEngine(fail_on_b)).score(["b", None, "a", "b"])
    assert list(predictions.errors) == [0, 1, 3]


def test_an_error_that_is_not_the_engines_is_not_swallowed(bundle):
    def fail(ids_BT, logits_BC):
        raise MemoryError

    with pytest.raises(MemoryError):
        Scorer(bundle, engine=FakeEngine(fail)).score(TEXTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_an_error_of_its_row(bundle, bad):
    def spoil(ids_BT, logits_BC):
        logits_BC[ids_BT[:, 1] == 7, 1] = bad
        return logits_BC

    texts = ["the cat", "of cat", "a cat", "of cat"]
    assert bundle.load_tokenizer().encode(["of"]).ids[1] == 7
    predictions = Scorer(bundle, engine=FakeEngine(spoil)).score(texts)
    assert predictions.errors == dict.fromkeys([1, 3], "the model's output is not a finite number")
    assert [label is None for label in predictions.labels] == [False, True, False, True]
    assert np.isnan(predictions.probability).tolist() == [False, True, False, True]
    # All classes of a text that could not be scored are NaN: no partial result is left.
    assert np.isnan(predictions.logits_NC[[1, 3]]).all()
    assert predictions.logits_NC[[0, 2]].tolist() == [[4, 5], [4, 6]]


BAD = {
    1: (None, "null text"),
    2: (float("nan"), "null text"),
    4: ("", "empty text"),
    5: (" \n\t", "empty text"),
    6: ("half a surrogate pair \ud800", "invalid UTF-8"),
    8: (5, "int, not text"),
    9: (b"bytes", "bytes, not text"),
    10: ({"text": "the key is not the text"}, "dict, not text"),
    11: (np.array(["a", "pair"]), "ndarray, not text"),
}


def test_rows_without_text_are_errors_and_the_others_are_scored(bundle):
    engine = FakeEngine()
    texts = ["cat " * (row + 1) for row in range(13)]
    for row, (value, _) in BAD.items():
        texts[row] = value
    predictions = Scorer(bundle, engine=engine).score(texts)
    assert predictions.errors == {row: reason for row, (_, reason) in BAD.items()}
    good = [row for row in range(13) if row not in BAD]
    assert predictions.logits_NC[good, 0].tolist() == [row + 3 for row in good]
    assert np.isnan(predictions.logits_NC[list(BAD)]).all()
    assert [row for row, label in enumerate(predictions.labels) if label is None] == list(BAD)
    assert len(engine.rows) == len(good)


def test_nothing_is_computed_where_all_rows_are_bad(bundle):
    engine = FakeEngine()
    predictions = Scorer(bundle, engine=engine).score([None, ""])
    assert predictions.errors == {0: "null text", 1: "empty text"}
    assert engine.batches == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "give a list or a column of texts; got one text"),
        (["fine", ("a", "pair")], r"row 1: \('a', 'pair'\) is not one text"),
        (["fine", ["alone"]], r"row 1: \['alone'\] is not one text"),
    ],
)
def test_pairs_are_refused_where_one_text_is_read(bundle, texts, message):
    with pytest.raises(InputError, match=message):
        Scorer(bundle).score(texts)
    with pytest.raises(InputError, match=r"text_pairs: .* reads one text a row; leave them out"):
        Scorer(bundle).score(["a"], ["b"])


@pytest.mark.parametrize("pair", ["one text", ("one",), ("three", "texts", "here"), 5, b"ab"])
def test_what_is_no_pair_is_refused_where_pairs_are_needed(pair_bundle, pair):
    with pytest.raises(InputError, match=r"row 1: .* is not a pair of texts, as the bundle"):
        Scorer(pair_bundle).score([("fine", "pair"), pair])


def test_a_pair_without_one_of_its_texts_is_an_error(pair_bundle):
    pairs = [("the cat", None), (5, "a dog"), None, ("a", "dog"), ("a", ""), float("nan")]
    assert Scorer(pair_bundle).score(pairs).errors == {
        0: "second text: null text",
        1: "first text: int, not text",
        2: "first text: null text",
        4: "second text: empty text",
        5: "first text: null text",
    }


def test_two_columns_are_pairs(pair_bundle):
    scorer = Scorer(pair_bundle)
    firsts, seconds = ["the cat", "a dog", None], np.array(["sat", "ran", "on"])
    predictions = scorer.score(firsts, seconds)
    expected = scorer.score([("the cat", "sat"), ("a dog", "ran")])
    np.testing.assert_array_equal(predictions.logits_NC[:2], expected.logits_NC)
    assert predictions.errors == {2: "first text: null text"}
    with pytest.raises(InputError, match="text_pairs: 3 for 2 texts; give as many"):
        scorer.score(firsts[:2], seconds)


@pytest.mark.parametrize("budget", [0, -1, 1.5, "many", True])
def test_a_budget_out_of_range_is_refused(bundle, budget):
    with pytest.raises(InputError, match=r"max_batch_tokens .*: give a whole number of at least 1"):
        Scorer(bundle).score(TEXTS, max_batch_tokens=budget)


@pytest.mark.parametrize("threads", [-1, 2.5, "2", None])
def test_threads_out_of_range_are_refused(bundle, threads):
    with pytest.raises(InputError, match=r"num_threads .*: give a whole number of at least 0"):
        Scorer(bundle, num_threads=threads)


def test_an_engine_is_chosen_by_its_name(bundle):
    with pytest.raises(InputError, match="tensorflow: is not one of onnxruntime, openvino, auto"):
        Scorer(bundle, engine="tensorflow")
    expected = Scorer(bundle).score(TEXTS)
    need_openvino()
    scorer = Scorer(bundle, engine="openvino")
    assert scorer.engine.name.startswith("openvino ")
    np.testing.assert_allclose(scorer.score(TEXTS).logits_NC, expected.logits_NC, atol=1e-4)


def test_auto_takes_the_engine_and_the_budget_that_were_fastest(bundle, monkeypatch):
    choice = EngineChoice(engine="onnxruntime", max_batch_tokens=48)
    monkeypatch.setattr(scorer_module, "tune", lambda bundle, engine: choice)
    scorer = Scorer(bundle, engine="auto")
    batches = []
    monkeypatch.setattr(passes, "plan_batches", lambda lengths, max_batch_tokens: batches)
    scorer.score_tokens(scorer.tokenizer.encode(TEXTS))
    monkeypatch.setattr(scorer_module, "tune", None)  # another process measures nothing
    other = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(scorer))))
    assert other.engine.name.startswith("onnxruntime ")
    assert scorer._max_batch_tokens == other._max_batch_tokens == 48


def test_a_scorer_pickles_by_the_path_of_its_bundle(bundle, tmp_path, monkeypatch):
    path = tmp_path / "bundle"
    shutil.copytree(bundle.path, path)
    monkeypatch.chdir(tmp_path)
    scorer = Scorer("bundle", num_threads=2)
    pickled = pickle.dumps(scorer)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    other = pickle.loads(pickled)
    np.testing.assert_array_equal(other.score(TEXTS).logits_NC, scorer.score(TEXTS).logits_NC)
    shutil.rmtree(path)
    with pytest.raises(BundleError, match="not a bundle"):
        pickle.loads(pickled)


def test_another_bundle_at_the_path_is_not_taken_for_the_pickled_one(
    bundle, bundle_factory, tmp_path
):
    path = tmp_path / "bundle"
    shutil.copytree(bundle.path, path)
    pickled = pickle.dumps(Scorer(path))
    shutil.rmtree(path)
    bundle_factory(path, labels=("x", "y"))
    with pytest.raises(BundleError, match="another bundle than when the Scorer was pickled"):
        pickle.loads(pickled)


def test_a_scorer_with_an_engine_of_ones_own_does_not_pickle(bundle):
    with pytest.raises(InputError, match="give the engine by name"):
        pickle.dumps(Scorer(bundle, engine=FakeEngine()))


def test_a_closed_scorer_holds_no_engine_and_says_so(bundle):
    engine = FakeEngine()
    held = weakref.ref(engine)
    with Scorer(bundle, engine=engine) as scorer:
        assert scorer.score(TEXTS).errors == {}
    del engine
    assert held() is None
    with pytest.raises(InputError, match="this Scorer is closed; open another one"):
        scorer.score(TEXTS)


def test_progress_counts_texts_equal_and_bad_ones_too(bundle):
    calls = []
    texts = ["the cat", "a dog", "the cat", None, "a long text of it"]
    scorer = Scorer(bundle, engine=FakeEngine())
    scorer.score(texts, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 5), (5, 5)]


def test_progress_is_a_bar_on_stderr(bundle, capsys):
    scorer = Scorer(bundle, engine=FakeEngine())
    scorer.score(TEXTS)
    assert capsys.readouterr().err == ""
    scorer.score(TEXTS, progress=True)
    shown = capsys.readouterr()
    assert "6/6" in shown.err and shown.out == ""


def test_pairs_are_scored_in_their_order_and_with_their_types(pair_bundle):
    pairs = [("the cat", "a dog"), ("a dog", "the cat"), ("the cat", "."), ["the cat", "a dog"]]
    scorer = Scorer(pair_bundle)
    logits_NC = scorer.score(pairs).logits_NC
    np.testing.assert_array_equal(logits_NC[0], logits_NC[3])
    assert np.abs(logits_NC[0] - logits_NC[1]).max() > 1e-3
    rows = scorer.tokenizer.encode(["the cat"], ["a dog"])
    ids_1T = rows.ids[None].astype(np.int64)
    engine = OnnxEngine(pair_bundle.model_path)
    for types, same in (([0, 0, 0, 0, 1, 1, 1], True), ([0] * 7, False)):
        assert (
            np.allclose(logits_NC[0], engine.run(ids_1T, np.array([types]))[0], atol=1e-5) is same
        )


@pytest.mark.parametrize("kind", ["bundle", "pair_bundle"])
def test_no_texts_give_no_predictions(request, kind):
    engine, opened = FakeEngine(), request.getfixturevalue(kind)
    engine.input_names = opened.input_names
    predictions = Scorer(opened, engine=engine).score([])
    assert (predictions.labels, predictions.errors) == ([], {})
    assert predictions.probability.shape == (0,)
    assert predictions.probabilities.shape == (0, 2)
    assert predictions.to_arrow().num_rows == 0
    assert predictions.logits_NC.shape == (0, 2)
    assert engine.batches == []


def test_chosen_rows_are_scored_in_the_order_they_are_given(bundle):
    scorer = Scorer(bundle, engine=FakeEngine())
    rows = scorer.tokenizer.encode(["cat", "cat cat", "cat cat cat"])
    scored = scorer.score_tokens(rows, rows_U=np.array([2, 0]))
    assert scored.logits_UC[:, 0].tolist() == [5, 3]
    assert scored.errors == {}
    assert [batch.tolist() for batch in scored.batches] == [[0], [1]]
    assert scored.computed_tokens == [5, 3]


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st_np.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=finite))
def test_the_most_probable_class_has_the_largest_logit(logits_NC):
    classes_N, probabilities_N = classify(logits_NC)
    num_classes = logits_NC.shape[1]
    assert (logits_NC[np.arange(len(logits_NC)), classes_N] == logits_NC.max(axis=1)).all()
    assert ((probabilities_N >= np.float32(0.999 / num_classes)) & (probabilities_N <= 1)).all()
    np.testing.assert_allclose(classify(logits_NC[:, ::-1])[1], probabilities_N, rtol=1e-5)


def test_rows_of_nan_give_no_probability():
    classes_N, probabilities_N = classify(np.array([[np.nan, np.nan], [0, 0]], np.float32))
    assert classes_N[0] == 0
    assert np.isnan(probabilities_N[0])
    assert probabilities_N[1] == 0.5


def test_scoring_imports_neither_torch_nor_transformers_nor_ray():
    code = (
        "import sys, fastformers, fastformers.inference.scorer; "
        "print(sorted({'torch', 'transformers', 'ray', 'onnx'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
