"""A cascade in a job: predictions, dead letters, what is resumed, and what the bill says."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest

from fastformers import Scorer, open_bundle
from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.type_speed import ModelTraits
from fastformers.cluster.delivery.canary import find_difference, make_canary
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.worker import Worker
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.report.page import can_draw, render_page
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.report.summary import build_report
from fastformers.cluster.report.tables import describe_cascade
from fastformers.cluster.settings import CorpusSettings, ScoringSettings
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import ChangedWorkError, InputError
from fastformers.inference.bundle import write_manifest
from fastformers.inference.cascade.record import first_graph, second_graph
from tests.cluster.outputs import read_dead_letters, read_predictions

NUM_ROWS = 400
WORDS = (
    *("the", "a", "to", "and", "in", "is", "it", "on", "cat", "dog", "sat", "mat", "ran", "fast"),
    *("slow", "good", "bad", "film", "text"),
)


@pytest.fixture(scope="module")
def texts():
    """Different texts: a text that is in two shards goes on in each."""
    rng = np.random.default_rng(3)
    made = [" ".join(rng.choice(WORDS, rng.integers(2, 12))) for _ in range(2 * NUM_ROWS)]
    return list(dict.fromkeys(made))[:NUM_ROWS]


@pytest.fixture
def corpus(tmp_path, write_rows, texts):
    rows = [{"id": row, "text": text} for row, text in enumerate(texts)]
    return write_rows(tmp_path / "corpus" / "a.parquet", rows, row_group_size=40)


def plan(corpus, bundle, output, *, shard_seconds=0.05, max_batch_tokens=None, **options):
    return open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        CorpusSettings(keep_columns=("id",), shard_seconds=shard_seconds, max_bad_rows="50%"),
        max_batch_tokens=max_batch_tokens,
        **options,
    )


def test_predictions_are_those_of_a_scorer_to_the_bit_however_the_corpus_is_cut(
    corpus, cascade_bundle, tmp_path, run_locally, texts
):
    expected = Scorer(cascade_bundle).score(texts)
    for name, seconds, budget in (("few", 5.0, None), ("many", 0.02, 33)):
        job = plan(
            corpus,
            cascade_bundle,
            tmp_path / name,
            shard_seconds=seconds,
            max_batch_tokens=budget,
        )
        result = run_locally(job)
        table = read_predictions(tmp_path / name)
        assert table["id"].to_pylist() == list(range(NUM_ROWS))
        assert table["label"].to_pylist() == expected.labels
        assert table["probability"].to_numpy().tolist() == expected.probability.tolist()
        went_on = sum(map(len, went_on_of(cascade_bundle, texts)))
        assert result.tally.scored.second_texts == went_on
        assert 0.2 < went_on / len(set(texts)) < 0.8


def went_on_of(bundle, texts):
    scorer = Scorer(bundle)
    return scorer.score_tokens(scorer.tokenizer.encode(list(dict.fromkeys(texts)))).second_batches


def test_the_bill_shows_the_share_that_was_met_beside_the_one_expected(
    corpus, cascade_bundle, tmp_path, run_locally
):
    job = plan(corpus, cascade_bundle, tmp_path / "out")
    result = run_locally(job)
    price = HourlyPrice(usd_per_hour=3.6, label="as given", is_estimate=False)
    prices = MachinePrices(given=price, table={})
    report = build_report(job, result, prices)
    found = report.cascade
    assert found.second_texts == result.tally.scored.second_texts
    assert found.share == found.second_texts / found.texts == pytest.approx(0.5, abs=0.3)
    lengths_N = np.array([tokens / texts for texts, tokens, _ in report.lengths.values()])
    texts_N = np.array([texts for texts, _, _ in report.lengths.values()])
    shares_N = cascade_bundle.cascade.share_by_length.at(lengths_N)
    assert found.expected_share == pytest.approx((shares_N * texts_N).sum() / texts_N.sum())
    assert 0 < found.share_of_compute < 1
    items = {item.heading: item for item in report.bill.items}
    computed = items["compute"].core_s + items["second graph"].core_s
    assert items["second graph"].core_s == pytest.approx(found.share_of_compute * computed)
    assert sum(item.usd for item in report.bill.items) == pytest.approx(report.bill.total_usd)
    assert report.padding_efficiency == 1.0
    line = describe_cascade(found)
    assert f"{found.second_texts:,} of {found.texts:,} texts" in line
    assert "expected of these lengths" in line
    assert report.summarize()["cascade"]["share"] == found.share
    assert RunReport.from_json(report.to_json(), path="r", remedy="") == report
    if can_draw():
        page = render_page(report)
        assert "second graph" in page
        assert line in page


def test_a_run_is_resumed_by_the_same_threshold_alone(
    corpus, cascade_bundle, cascade_factory, tmp_path, run_locally, told
):
    job = plan(corpus, cascade_bundle, tmp_path / "out")
    run_locally(job)
    whole = read_predictions(tmp_path / "out")
    num_shards = len(told.receipts)
    assert num_shards > 4
    for part in sorted((tmp_path / "out" / "predictions").iterdir())[::2]:
        part.unlink()
    again = run_locally(plan(corpus, cascade_bundle, tmp_path / "out"))
    assert 0 < again.tally.scored.num_shards < num_shards
    assert read_predictions(tmp_path / "out").equals(whole)
    both = again.tally.earlier.second_texts + again.tally.scored.second_texts
    assert both == sum(map(len, went_on_of(cascade_bundle, whole_texts(corpus))))
    other = cascade_factory(tmp_path / "other", threshold=0.9)
    with pytest.raises(ChangedWorkError, match="bundle"):
        run_locally(plan(corpus, other, tmp_path / "out"))


def whole_texts(corpus):
    return pyarrow.parquet.read_table(corpus)["text"].to_pylist()


def test_a_text_that_the_second_graph_fails_on_is_a_dead_letter(
    corpus, cascade_factory, tmp_path, run_locally, texts
):
    """Token ids beyond the embedding table of the second graph: here, those of "text"."""
    crippled = cascade_factory(tmp_path / "crippled", vocabulary=24)
    result = run_locally(plan(corpus, crippled, tmp_path / "out"))
    expected = Scorer(crippled).score(texts)
    assert 0 < len(expected.errors) < sum("text" in text.split() for text in texts)
    letters = read_dead_letters(tmp_path / "out").to_pylist()
    assert [letter["corpus_row"] for letter in letters] == list(expected.errors)
    assert result.dead_letters == len(letters)
    assert all("the cascade's second model failed on it" in one["error"] for one in letters)
    table = read_predictions(tmp_path / "out")
    assert table["label"].to_pylist() == expected.labels


def test_what_ended_an_actor_is_not_given_to_either_graph(
    corpus, cascade_bundle, tmp_path, run_locally, told
):
    settings = CorpusSettings(shard_seconds=5.0, keep_columns=("id",))
    shards = tmp_path / "shards"
    run_locally(open_prepare_job(str(corpus), cascade_bundle.path, str(shards), settings))
    [shard] = told.shards
    job = plan(shards, cascade_bundle, tmp_path / "out", shard_seconds=None)
    job.predictions.create()
    worker = Worker(job.worker_spec(), "here")
    whole = worker.score(Lease(shard=shard, attempt=1))
    assert worker.score(Lease(shard=shard, attempt=2, probe=range(9))) is None
    rest = worker.score(Lease(shard=shard, attempt=3, skip={0: "kills", 1: "kills"}))
    assert whole.second_texts - 2 <= rest.second_texts <= whole.second_texts
    assert rest.num_scored_tokens < whole.num_scored_tokens
    assert worker.time_engine([shard]) > 0
    assert worker.measure_tokens_per_second(0.01) > 0


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        (ScoringSettings(device="cuda"), "--device cuda: .* is a cascade, which runs on cores"),
        (ScoringSettings(device="mixed"), "--device mixed: .* is a cascade, which runs on cores"),
        (ScoringSettings(precision="float16"), "--precision float16: .* is a cascade"),
    ],
)
def test_a_cascade_runs_on_cores_alone(corpus, cascade_bundle, tmp_path, scoring, message):
    with pytest.raises(InputError, match=message):
        plan(corpus, cascade_bundle, tmp_path / "out", scoring=scoring)


def test_shards_are_cut_and_priced_by_the_cost_of_both_graphs(
    corpus, cascade_bundle, tmp_path, run_locally
):
    settings = CorpusSettings(shard_seconds=0.1)
    counts = {}
    for name in ("both", "first"):
        bundle = cascade_bundle if name == "both" else write_alone(cascade_bundle, tmp_path)
        job = open_prepare_job(str(corpus), bundle.path, str(tmp_path / name), settings)
        counts[name] = run_locally(job).tally.known.num_shards
    assert counts["both"] > 2 * counts["first"]
    traits, alone = (ModelTraits.of_bundle(one) for one in (cascade_bundle, bundle))
    second = ModelTraits.of_bundle(second_graph(cascade_bundle))
    expected = alone.multiply_adds_per_token + 0.5 * second.multiply_adds_per_token
    assert traits.multiply_adds_per_token == pytest.approx(expected, abs=1)
    assert profile_of_bundle(cascade_bundle).cost == cascade_bundle.cost_profile


def write_alone(bundle, folder):
    """The first graph as a bundle."""
    import shutil

    path = folder / "alone"
    shutil.copytree(bundle.path, path)
    alone = replace(first_graph(open_bundle(path)), path=path)
    names = {"model.onnx", "model.onnx.data", "tokenizer.json"}
    files = {name: digest for name, digest in alone.files.items() if name in names}
    return write_manifest(replace(alone, files=files), path)


def test_a_canary_knows_both_graphs(cascade_bundle, cascade_factory, tmp_path):
    canary = make_canary(cascade_bundle, "onnxruntime")
    assert find_difference(cascade_bundle, canary) is None
    # A row that rounding alone sends on is no other computation.
    all_go_on = cascade_factory(tmp_path / "all", threshold=1e5)
    assert find_difference(all_go_on, canary) is None
    crippled = cascade_factory(tmp_path / "crippled", vocabulary=24)
    assert "a score of" in find_difference(crippled, canary)
