"""A cascade in a Scorer: which graph gives each row its logits, and what a failure becomes."""

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fastformers import Scorer, open_bundle
from fastformers.errors import BundleError, InputError
from fastformers.export.graph import write_graph
from fastformers.inference.bundle import write_bundle
from fastformers.inference.cascade.margins import margins
from fastformers.inference.cascade.record import first_graph, second_graph
from fastformers.inference.engine import EngineError, OnnxEngine
from fastformers.inference.scorer import open_scorer
from tests.needs import need_openvino


@pytest.fixture(scope="module")
def rows(cascade_bundle, make_texts):
    return cascade_bundle.load_tokenizer().encode(make_texts(300))


@pytest.fixture(scope="module")
def expected(cascade_bundle, rows):
    """Logits of each graph alone, and which rows go on."""
    first_NC, second_NC = (
        Scorer(graph(cascade_bundle)).score_tokens(rows).logits_UC
        for graph in (first_graph, second_graph)
    )
    margins_N = margins(cascade_bundle.task, first_NC)
    return first_NC, second_NC, margins_N < cascade_bundle.cascade.threshold


class Failing:
    """An engine that fails on batches with a token id, or gives a value for it."""

    def __init__(self, engine, token, value=None):
        self._engine, self._token, self._value = engine, token, value
        self.name, self.num_in_flight = engine.name, engine.num_in_flight
        self.input_names, self.num_outputs = engine.input_names, engine.num_outputs

    def run(self, ids_BT, types_BT):
        if self._value is None and self._token in ids_BT:
            raise EngineError("no such word")
        logits_BC = self._engine.run(ids_BT, types_BT)
        logits_BC[(ids_BT == self._token).any(axis=1)] = self._value
        return logits_BC


def test_a_row_has_the_logits_of_the_second_graph_if_the_first_is_unsure(
    cascade_bundle, rows, expected
):
    first_NC, second_NC, unsure_N = expected
    assert 60 < unsure_N.sum() < 240
    scored = Scorer(cascade_bundle).score_tokens(rows)
    joined_NC = np.where(unsure_N[:, None], second_NC, first_NC)
    np.testing.assert_array_equal(scored.logits_UC, joined_NC)
    went_on = np.sort(np.concatenate(scored.second_batches))
    assert went_on.tolist() == np.flatnonzero(unsure_N).tolist()
    assert sum(map(len, scored.batches)) == 300
    assert sum(scored.computed_tokens) == rows.lengths_N.sum()
    assert scored.second_s > 0


def test_a_row_scores_the_same_to_the_bit_alone_and_in_any_batch(cascade_bundle, rows):
    scorer = Scorer(cascade_bundle)
    together_UC = scorer.score_tokens(rows).logits_UC
    for budget in (1, 33, 4096):
        again = scorer.score_tokens(rows, max_batch_tokens=budget)
        np.testing.assert_array_equal(again.logits_UC, together_UC)
    rows_U = np.random.default_rng(0).permutation(300)[:40]
    some = scorer.score_tokens(rows, rows_U=rows_U)
    np.testing.assert_array_equal(some.logits_UC, together_UC[rows_U])
    for row in rows_U:
        alone = scorer.score_tokens(rows, rows_U=rows_U[rows_U == row])
        np.testing.assert_array_equal(alone.logits_UC[0], together_UC[row])


@pytest.mark.parametrize("has_types", [True, False])
def test_one_graph_alone_may_read_token_types(
    cascade_factory, encoder_factory, make_texts, tmp_path, has_types
):
    """Static vectors of pairs read them, and a RoBERTa behind these does not; or the other way."""
    made = cascade_factory(tmp_path / "made", text_pairs=True)
    name = "second.onnx" if has_types else "model.onnx"
    graphs = {file: made.path / file for file in ("model.onnx", "second.onnx")}
    graphs[name] = tmp_path / name
    write_graph(replace(encoder_factory(), token_types_KE=None), graphs[name], text_pairs=True)
    inputs = [("input_ids", "token_type_ids"), ("input_ids",)]
    own, others = inputs if has_types else inputs[::-1]
    cascade = replace(made.cascade, input_names=others)
    bundle = write_bundle(
        replace(made, path=tmp_path / "bundle", input_names=own, cascade=cascade),
        model=graphs["model.onnx"],
        further_models=[graphs["second.onnx"]],
        tokenizer_json=(made.path / "tokenizer.json").read_text(),
    )
    assert open_bundle(bundle.path) == bundle
    texts = make_texts(120)
    rows = bundle.load_tokenizer().encode(texts[:60], texts[60:])
    first_NC, second_NC = (
        Scorer(graph(bundle)).score_tokens(rows).logits_UC for graph in (first_graph, second_graph)
    )
    unsure_N = margins(bundle.task, first_NC) < bundle.cascade.threshold
    assert 0 < unsure_N.sum() < 60
    joined_NC = np.where(unsure_N[:, None], second_NC, first_NC)
    np.testing.assert_array_equal(Scorer(bundle).score_tokens(rows).logits_UC, joined_NC)
    with pytest.raises(BundleError, match=r"second\.onnx gives 2 outputs from"):
        Scorer(replace(bundle, cascade=replace(cascade, input_names=None)))


def test_rows_that_go_on_share_batches_whatever_batch_they_came_from(cascade_bundle, rows):
    scored = Scorer(cascade_bundle).score_tokens(rows, max_batch_tokens=16)
    lengths = [set(rows.lengths_N[batch].tolist()) for batch in scored.second_batches]
    assert all(len(length) == 1 for length in lengths)
    num_rows = sum(map(len, scored.second_batches))
    assert len(scored.second_batches) < num_rows
    whole = Scorer(cascade_bundle).score_tokens(rows, max_batch_tokens=10**6)
    assert len(whole.second_batches) == len({min(length) for length in lengths})


def test_each_text_is_told_once_when_it_is_done(cascade_bundle, make_texts):
    told = []
    texts = [*make_texts(80), None]
    Scorer(cascade_bundle).score(
        texts, max_batch_tokens=16, progress=lambda done, total: told.append((done, total))
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (81, 81)


@pytest.mark.parametrize("value", [None, np.nan])
def test_a_row_that_the_second_graph_fails_on_has_no_answer_of_the_first(
    cascade_bundle, rows, expected, value
):
    _, _, unsure_N = expected
    token = 24  # "text"
    holds_N = np.array([token in rows.ids[a:b] for a, b in pairwise(rows.offsets.tolist())])
    dead = set(np.flatnonzero(unsure_N & holds_N).tolist())
    assert 0 < len(dead) < holds_N.sum()
    first, second = (
        OnnxEngine(graph(cascade_bundle).model_path) for graph in (first_graph, second_graph)
    )
    failing = Failing(second, token, value)
    scored = Scorer(cascade_bundle, engine=first, second_engine=failing).score_tokens(rows)
    assert set(scored.errors) == dead
    reason = "the cascade's second model's output is not a finite number"
    if value is None:
        reason = "the cascade's second model failed on it: no such word"
    assert set(scored.errors.values()) == {reason}
    assert set(np.flatnonzero(np.isnan(scored.logits_UC).any(axis=1)).tolist()) == dead
    whole_UC = Scorer(cascade_bundle).score_tokens(rows).logits_UC
    alive = [row for row in range(300) if row not in dead]
    np.testing.assert_array_equal(scored.logits_UC[alive], whole_UC[alive])


def test_a_row_that_the_first_graph_fails_on_does_not_go_on(cascade_bundle, rows):
    first, second = (
        OnnxEngine(graph(cascade_bundle).model_path) for graph in (first_graph, second_graph)
    )
    scorer = Scorer(cascade_bundle, engine=Failing(first, 24), second_engine=second)
    scored = scorer.score_tokens(rows)
    assert scored.errors
    assert all(reason.startswith("the model failed on it") for reason in scored.errors.values())
    went_on = set(np.concatenate(scored.second_batches).tolist())
    assert went_on.isdisjoint(scored.errors)


def test_a_pickled_scorer_is_a_cascade_too(cascade_bundle, cascade_factory, tmp_path, make_texts):
    texts = make_texts(50)
    scorer = Scorer(cascade_bundle)
    again = pickle.loads(pickle.dumps(scorer))
    np.testing.assert_array_equal(again.score(texts).logits_NC, scorer.score(texts).logits_NC)
    path = tmp_path / "cascade"
    packed = pickle.dumps(Scorer(cascade_factory(path)))
    (tmp_path / "other").mkdir()
    cascade_factory(tmp_path / "other" / "cascade", threshold=9.0).path.rename(tmp_path / "new")
    path.rename(tmp_path / "old")
    (tmp_path / "new").rename(path)
    with pytest.raises(BundleError, match="another bundle than when the Scorer was pickled"):
        pickle.loads(packed)


def test_engines_of_your_own_are_two(cascade_bundle, bundle):
    engine = OnnxEngine(cascade_bundle.model_path)
    with pytest.raises(InputError, match="has two graphs, give an engine for each"):
        Scorer(cascade_bundle, engine=engine)
    with pytest.raises(InputError, match="has one graph, give an engine for each"):
        Scorer(bundle, engine=OnnxEngine(bundle.model_path), second_engine=engine)


def test_a_closed_cascade_scores_no_more(cascade_bundle):
    scorer = Scorer(cascade_bundle)
    scorer.close()
    with pytest.raises(InputError, match="this Scorer is closed"):
        scorer.score(["a cat"])


def test_the_threshold_says_how_many_go_on(cascade_bundle, rows):
    for threshold, count in ((-1.0, 0), (1e6, 300)):
        cascade = replace(cascade_bundle.cascade, threshold=threshold)
        scored = Scorer(replace(cascade_bundle, cascade=cascade)).score_tokens(rows)
        assert sum(map(len, scored.second_batches)) == count


def test_a_named_engine_runs_both_graphs(cascade_bundle, rows):
    need_openvino()
    scorer = open_scorer(cascade_bundle, "openvino", num_threads=1)
    scorer.warm_up(rows)
    scored = scorer.score_tokens(rows)
    expected = Scorer(cascade_bundle).score_tokens(rows)
    apart_N = np.abs(scored.logits_UC - expected.logits_UC).max(axis=1)
    assert (apart_N < 1e-4).mean() > 0.98  # a margin next to the threshold may fall beyond it
    assert scorer.engine.name.startswith("openvino ")


def test_a_graph_without_token_types_may_stand_behind_one_with_them(
    cascade_factory, encoder_factory, tokenizer_json, tmp_path
):
    typed = cascade_factory(tmp_path / "typed", text_pairs=True)
    graph = tmp_path / "second.onnx"
    write_graph(replace(encoder_factory(), token_types_KE=None), graph, text_pairs=True)
    cascade = replace(typed.cascade, input_names=("input_ids",), threshold=1e6)  # all rows go on
    written = write_bundle(
        replace(typed, path=tmp_path / "mixed", cascade=cascade),
        model=typed.model_path,
        further_models=[graph],
        tokenizer_json=tokenizer_json,
    )
    bundle = open_bundle(written.path)
    assert bundle == written
    rows = bundle.load_tokenizer().encode(["good film", "bad"], ["one", "two"])
    logits_UC = Scorer(bundle).score_tokens(rows).logits_UC
    engine = OnnxEngine(graph)
    for row in range(2):
        alone_1C = engine.run(rows.batch_ids(np.array([row])), None)
        np.testing.assert_array_equal(logits_UC[row], alone_1C[0])
