"""Which rows are drawn for an audit, and what a second bundle makes of them."""

import numpy as np
import pyarrow as pa
import pytest

from fastformers import Scorer
from fastformers.cluster.devices.auditor import Auditor, draw_rows
from fastformers.cluster.shards.layout import build_shard_table, read_shard_table
from fastformers.inference.engine import EngineError, OnnxEngine

TEXTS = ["the cat sat", "a good film", "the dog ran fast", "the cat sat", "bad film", "it is on"]


def test_a_row_is_drawn_by_its_place_whatever_is_beside_it():
    places = np.arange(5000)
    drawn = draw_rows("00001-00002", places, 0.1)
    mixed = np.random.default_rng(0).permutation(places)[:2000]
    assert draw_rows("00001-00002", mixed, 0.1).tolist() == drawn[mixed].tolist()


def test_as_many_rows_are_drawn_as_asked_for_and_others_in_each_shard():
    places = np.arange(1000)
    counts = [draw_rows(f"00000-{number:05d}", places, 0.05).sum() for number in range(400)]
    assert np.mean(counts) == pytest.approx(50, abs=1.5)  # four standard errors
    assert np.var(counts) == pytest.approx(1000 * 0.05 * 0.95, rel=0.3)  # as of independent draws
    both = [draw_rows(name, places, 0.05) for name in ("00000-00001", "00000-00002")]
    assert 0 <= (both[0] & both[1]).sum() < 15


def test_a_larger_share_draws_the_same_rows_and_more():
    places = np.arange(3000)
    few, more, all_ = (draw_rows("00000-00000", places, share) for share in (0.1, 0.3, 1.0))
    assert (few <= more).all() and 0 < few.sum() < more.sum() < 3000
    assert all_.all()


def lay_out(bundle, texts=TEXTS):
    """A shard of these texts, of which the fifth is bad, and the outputs of the bundle."""
    good = np.array([row for row in range(len(texts)) if row != 4])
    rows = bundle.load_tokenizer().encode([texts[row] for row in good])
    kept = pa.table({"label": ["no", "yes", None, "no", "no", "yes"]})
    table = build_shard_table(rows, good, {4: "empty text"}, kept)
    tokens = read_shard_table(table)
    return table, tokens, Scorer(bundle).score_tokens(tokens).logits_UC


@pytest.fixture(scope="module")
def other(bundle_factory, tmp_path_factory):
    """A smaller bundle whose labels are in another order."""
    path = tmp_path_factory.mktemp("other") / "bundle"
    return bundle_factory(path, num_layers=1, labels=("yes", "no"))


def make_auditor(other, bundle, **options):
    settings = {"share": 1.0, "label_column": None, "num_threads": 1} | options
    return Auditor(lambda: other, bundle, **settings)


def test_every_row_counts_and_labels_are_matched_by_name(bundle, other):
    table, rows, logits_UC = lay_out(bundle)
    counts = make_auditor(other, bundle).audit("00000-00000", table, rows, logits_UC)
    good = [text for text in TEXTS if text != "bad film"]
    pairs = zip(Scorer(bundle).score(good).labels, Scorer(other).score(good).labels, strict=True)
    assert (counts.num_rows, counts.num_failed) == (5, 0)
    assert counts.num_equal == sum(ours == theirs for ours, theirs in pairs)


def test_the_labels_of_the_rows_are_compared_with_both(bundle, other):
    table, rows, logits_UC = lay_out(bundle)
    auditor = make_auditor(other, bundle, label_column="label")
    counts = auditor.audit("00000-00000", table, rows, logits_UC)
    assert (counts.own.num_rows, counts.own.num_unlabeled) == (4, 1)
    assert counts.own.labels == counts.auditors.labels == {'"no"': 2, '"yes"': 2}
    good = [TEXTS[row] for row in (0, 1, 3, 5)]
    for found, scorer in ((counts.own, Scorer(bundle)), (counts.auditors, Scorer(other))):
        labels = scorer.score(good).labels
        classes = {str(number): labels.count(name) for number, name in enumerate(("no", "yes"))}
        assert found.classes == {name: count for name, count in classes.items() if count}


def test_a_row_without_a_prediction_is_not_audited(bundle, other):
    table, rows, logits_UC = lay_out(bundle)
    text = int(table["unique"][0].as_py())
    logits_UC[text] = np.nan
    counts = make_auditor(other, bundle).audit("00000-00000", table, rows, logits_UC)
    assert counts.num_rows == 5 - table["unique"].to_pylist().count(text)
    assert counts.num_failed == 0


def test_rows_that_the_audit_bundle_cannot_score_are_counted_and_no_more(
    bundle, other, monkeypatch
):
    table, rows, logits_UC = lay_out(bundle)

    def run(engine, ids_BT, types_BT=None):
        if ids_BT.shape[1] == 6:  # the dog ran fast
            raise EngineError("out of memory")
        return np.zeros((len(ids_BT), 2), np.float32)

    monkeypatch.setattr(OnnxEngine, "run", run)
    counts = make_auditor(other, bundle).audit("00000-00000", table, rows, logits_UC)
    assert (counts.num_rows, counts.num_failed) == (4, 1)


def test_the_bundle_is_opened_when_the_first_row_is_drawn_and_once(bundle, other):
    table, rows, logits_UC = lay_out(bundle)
    opened = []

    def open_bundle():
        opened.append(1)
        return other

    auditor = Auditor(open_bundle, bundle, share=1.0, label_column=None, num_threads=1)
    nothing = np.full_like(logits_UC, np.nan)
    assert auditor.audit("00000-00000", table, rows, nothing).num_rows == 0
    refused = auditor.audit("00000-00000", table, rows, logits_UC, may_score=False)
    assert (refused.num_rows, refused.num_failed, opened) == (0, 5, [])
    for _ in range(2):
        assert auditor.audit("00000-00000", table, rows, logits_UC).num_rows == 5
    assert opened == [1]
