import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
from fastformers import Scorer
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.devices.scoring import Scoring
from fastformers.cluster.execution.worker import Worker, WorkerSpec, measure_memory
from fastformers.cluster.scheduling.work import (
    CALLS_IN_HAND,
    Comparison,
    Failed,
    Finished,
    Task,
    Ticket,
)
from fastformers.cluster.shards import preparation
from fastformers.cluster.shards.layout import TOKENS
from fastformers.cluster.shards.predictions import read_receipt
from fastformers.cluster.shards.preparation import Preparation, SliceReceipt
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import BundleError, ScoringError
from tests.needs import need_openvino

WORDS = ["the", "cat", "dog", "sat", "on", "mat", "ran", "fast", "slow", "good", "bad", "film"]
NUM_ROWS = 120
BAD = {5: None, 40: "", 41: "  "}


@pytest.fixture(scope="module")
def texts():
    """Many repeats, lengths from 1 word to more than the model takes."""
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(WORDS, rng.geometric(0.2))) for _ in range(NUM_ROWS)]
    rows[7] = "film " * 200
    return [BAD.get(row, text) for row, text in enumerate(rows)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, write_rows, texts):
    path = tmp_path_factory.mktemp("corpus")
    rows = [{"id": row, "text": text} for row, text in enumerate(texts)]
    write_rows(path / "a.jsonl", rows[:50])
    write_rows(path / "b.jsonl", rows[50:])
    return path


@pytest.fixture(autouse=True)
def many_slices(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 1500)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 1500)


def scorings_of(bundle, max_batch_tokens):
    scoring = Scoring(
        device="cpu",
        engine="onnxruntime",
        precision=bundle.precision,
        max_batch_tokens=max_batch_tokens,
    )
    return {"cpu": scoring}


def plan_work(path, corpus, bundle, *, shard_seconds=0.004, text=("text",), keep=("id",)):
    source = open_corpus(str(corpus), text_columns=text, keep_columns=keep)
    shards, predictions = open_directory(f"{path}/shards"), open_directory(f"{path}/predictions")
    for name in ("slices", TOKENS):
        shards.child(name).create()
    predictions.create()
    preparation = Preparation(
        directory=shards,
        reader=source.reader,
        cost_profile=bundle.cost_profile,
        shard_seconds=shard_seconds,
    )
    work = WorkerSpec(
        bundle=pin_bundle(bundle.path),
        shards=shards,
        preparation=preparation,
        predictions=predictions,
        keep_columns=keep,
        scorings=scorings_of(bundle, 256),
    )
    return pickle.loads(pickle.dumps(work)), source.plan_slices()  # as it reaches an actor


def prepare(worker, slices):
    shards = []
    for slice_ in slices:
        while slice_ is not None:
            receipt = worker.prepare(slice_)
            assert isinstance(receipt, SliceReceipt)
            shards += receipt.shards
            slice_ = receipt.rest
    return shards


def read(work, shard):
    path = Path(work.predictions.path) / shard.file_name
    return pyarrow.parquet.read_table(path).replace_schema_metadata()


def score_corpus(path, corpus, bundle, **options):
    """All predictions in corpus order, and the receipts."""
    work, slices = plan_work(path, corpus, bundle, **options)
    worker = Worker(work, "here")
    shards = prepare(worker, slices)
    receipts = [worker.score(Lease(shard=shard, attempt=1)) for shard in reversed(shards)]
    return pa.concat_tables(read(work, shard) for shard in shards), receipts


def test_predictions_are_those_of_the_scorer(tmp_path, corpus, bundle, texts):
    table, receipts = score_corpus(tmp_path, corpus, bundle)
    good = [row for row in range(NUM_ROWS) if row not in BAD]
    expected = Scorer(bundle).score([texts[row] for row in good])
    assert len(receipts) > 4
    assert len(set(expected.labels)) == 2

    assert table["id"].to_pylist() == list(range(NUM_ROWS))
    assert [row for row, error in enumerate(table["error"].to_pylist()) if error] == list(BAD)
    assert [row for row, label in enumerate(table["label"].to_pylist()) if not label] == list(BAD)
    scored = table.take(good)
    assert scored["label"].to_pylist() == expected.labels
    np.testing.assert_allclose(
        scored["probability"].to_numpy(), expected.probability, rtol=1e-5, atol=0
    )


def test_another_bundle_than_the_runs_is_refused(tmp_path, corpus, bundle, pair_bundle):
    work, _ = plan_work(tmp_path, corpus, bundle)
    theirs = replace(work, bundle=replace(work.bundle, path=pair_bundle.path))
    message = (
        f"the bundle at {pair_bundle.path} is not the run's .digest "
        f"{pair_bundle.manifest_digest[:12]}, the run's is {bundle.manifest_digest[:12]}"
    )
    with pytest.raises(BundleError, match=message):
        Worker(theirs, "here")


def test_receipts_account_for_all_rows_and_tokens(tmp_path, corpus, bundle, texts):
    _, receipts = score_corpus(tmp_path, corpus, bundle)
    tokens = bundle.load_tokenizer().encode([text for text in texts if text and text.strip()])
    assert sum(receipt.num_rows for receipt in receipts) == NUM_ROWS
    assert sum(receipt.num_errors for receipt in receipts) == len(BAD)
    assert sum(receipt.num_tokens for receipt in receipts) == len(tokens.ids)
    for receipt in receipts:
        name = f"part-{receipt.shard}.parquet"
        stored = read_receipt(open_directory(f"{tmp_path}/predictions"), name)
        assert replace(stored, file_bytes=receipt.file_bytes) == receipt
        assert receipt.file_bytes == (tmp_path / "predictions" / name).stat().st_size
        assert 0 < receipt.num_unique <= receipt.num_rows
        assert receipt.num_scored_tokens == receipt.num_computed_tokens <= receipt.num_tokens
        assert receipt.actor == "here"
        assert receipt.attempt == 1
        assert set(receipt.phase_s) == {"read", "infer", "write"}
        seconds = receipt.finished_at - receipt.started_at
        assert sum(receipt.phase_s.values()) == pytest.approx(seconds, abs=1e-5)
        assert 0 < receipt.rss_bytes <= receipt.peak_rss_bytes


def test_seconds_are_expected_by_the_bundle_that_scores_whatever_cut_the_shard(
    tmp_path, corpus, bundle
):
    """Shards may be prepared for a bundle that takes ten times as long."""
    work, slices = plan_work(tmp_path, corpus, bundle)
    own = bundle.cost_profile
    slow = replace(own, seconds_per_row=tuple(10 * seconds for seconds in own.seconds_per_row))
    cut = replace(work.preparation, cost_profile=slow, shard_seconds=10.0)
    worker = Worker(replace(work, preparation=cut), "here")
    for shard in prepare(worker, slices):
        receipt = worker.score(Lease(shard=shard, attempt=1))
        assert receipt.predicted_s == shard.predicted_s
        assert receipt.expected_s == pytest.approx(shard.predicted_s / 10)


def test_a_second_shard_is_read_while_the_first_computes(tmp_path, corpus, bundle, monkeypatch):
    """The first shard's computing waits until the second is read, and is then undisturbed."""
    work, slices = plan_work(tmp_path, corpus, bundle)
    worker = Worker(work, "here")
    first, second, *_ = prepare(worker, slices)
    computes, second_read = threading.Event(), threading.Event()
    read, score_tokens, computing = worker._read, worker._scorer.score_tokens, threading.Lock()

    def read_in_turn(shard):
        if shard == second:
            assert computes.wait(60)
        table = read(shard)
        if shard == second:
            second_read.set()
        return table

    def compute_alone(*args, **options):
        assert computing.acquire(blocking=False), "two shards computed at once"
        computes.set()
        assert second_read.wait(60)
        scored = score_tokens(*args, **options)
        computing.release()
        return scored

    monkeypatch.setattr(worker, "_read", read_in_turn)
    monkeypatch.setattr(worker._scorer, "score_tokens", compute_alone)
    with ThreadPoolExecutor(CALLS_IN_HAND) as threads:
        leases = [Lease(shard=shard, attempt=1) for shard in (first, second)]
        receipts = list(threads.map(worker.score, leases))
    assert [receipt.shard for receipt in receipts] == [first.name, second.name]


def test_how_a_corpus_is_cut_changes_no_prediction(tmp_path, corpus, bundle):
    few, few_receipts = score_corpus(tmp_path / "few", corpus, bundle, shard_seconds=10)
    many, many_receipts = score_corpus(tmp_path / "many", corpus, bundle, shard_seconds=0.001)
    assert len(many_receipts) > 2 * len(few_receipts)
    assert many.drop_columns("probability").equals(few.drop_columns("probability"))
    np.testing.assert_allclose(
        many["probability"].to_numpy(), few["probability"].to_numpy(), rtol=1e-5, atol=0
    )


@pytest.fixture
def work_of_one_shard(tmp_path, corpus, bundle, monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 2**20)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 2**24)
    work, slices = plan_work(tmp_path, corpus, bundle, shard_seconds=10)
    worker = Worker(work, "here")
    [shard] = prepare(worker, slices)
    return work, worker, shard


def test_scoring_twice_gives_the_same_bytes(work_of_one_shard):
    work, worker, shard = work_of_one_shard
    receipt = worker.score(Lease(shard=shard, attempt=1))
    first = read(work, shard)
    again = Worker(work, "there").score(Lease(shard=shard, attempt=2))
    assert read(work, shard).equals(first)
    assert (
        first["probability"].combine_chunks().buffers()[1]
        == read(work, shard)["probability"].combine_chunks().buffers()[1]
    )
    assert (again.actor, again.attempt) == ("there", 2)
    changing = {"actor", "attempt", "started_at", "finished_at", "phase_s", "file_bytes"}
    for name, value in asdict(receipt).items():
        assert getattr(again, name) == value or name in changing or "rss" in name


def test_a_probe_writes_nothing(work_of_one_shard):
    work, worker, shard = work_of_one_shard
    for probe in (range(3), range(2, 2), range(shard.num_unique)):
        assert worker.score(Lease(shard=shard, attempt=1, probe=probe)) is None
    assert list(Path(work.predictions.path).iterdir()) == []


def test_a_probe_scores_its_texts_only(work_of_one_shard, monkeypatch):
    _, worker, shard = work_of_one_shard
    scored = []
    score_tokens = Scorer.score_tokens

    def spy(self, rows, *, rows_U, **options):
        scored.append(rows_U.tolist())
        return score_tokens(self, rows, rows_U=rows_U, **options)

    monkeypatch.setattr(Scorer, "score_tokens", spy)
    worker.score(Lease(shard=shard, attempt=1, probe=range(3, 7), skip={5: "deadly"}))
    worker.score(Lease(shard=shard, attempt=1, skip={5: "deadly"}))
    assert scored == [[3, 4, 6], [row for row in range(shard.num_unique) if row != 5]]


def test_a_skipped_text_is_dead_wherever_it_occurs(work_of_one_shard, texts):
    work, worker, shard = work_of_one_shard
    worker.score(Lease(shard=shard, attempt=1))
    whole = read(work, shard)
    stored = pyarrow.parquet.read_table(Path(work.shards.path, TOKENS, shard.file_name))
    numbers = stored["unique"].to_pylist()
    skip = max(set(numbers) - {None}, key=numbers.count)
    rows = [
        place
        for place, number in zip(stored["place"].to_pylist(), numbers, strict=True)
        if number == skip
    ]
    assert len(rows) > 1
    assert len({texts[row] for row in rows}) == 1

    receipt = worker.score(Lease(shard=shard, attempt=4, skip={skip: "kills its actor"}))
    table = read(work, shard)
    assert receipt.num_errors == len(BAD) + len(rows)
    for row, (before, now) in enumerate(zip(whole.to_pylist(), table.to_pylist(), strict=True)):
        if row in rows:
            dead = {"id": row, "label": None, "probability": None, "error": "kills its actor"}
            assert now == dead
        else:
            assert now["label"] == before["label"]
            assert now["error"] == before["error"]
            if before["error"] is None:
                assert now["probability"] == pytest.approx(before["probability"], rel=1e-5)


def test_a_shard_whose_texts_are_all_skipped(work_of_one_shard):
    work, worker, shard = work_of_one_shard
    skip = dict.fromkeys(range(shard.num_unique), "kills its actor")
    receipt = worker.score(Lease(shard=shard, attempt=4, skip=skip))
    table = read(work, shard)
    assert receipt.num_errors == NUM_ROWS
    assert receipt.num_batches == receipt.num_scored_tokens == 0
    assert table["label"].null_count == table["probability"].null_count == NUM_ROWS
    assert table["id"].to_pylist() == list(range(NUM_ROWS))


def test_a_text_that_the_model_fails_on_is_dead_and_the_others_are_not(
    tmp_path, write_rows, bundle_factory
):
    """Token ids beyond the embedding table: here, those of "film"."""
    crippled = bundle_factory(tmp_path / "crippled", vocabulary=23)
    rows = ["the cat sat", "a good film", " ", "the dog ran", "film", "film film film", "the cat"]
    path = write_rows(tmp_path / "a.jsonl", [{"id": i, "text": t} for i, t in enumerate(rows)])
    table, [receipt] = score_corpus(tmp_path / "out", path, crippled)
    errors = table["error"].to_pylist()
    assert [row for row, error in enumerate(errors) if error] == [1, 2, 4, 5]
    assert all("the model failed on it" in errors[row] for row in (1, 4, 5))
    assert receipt.num_errors == 4
    good = [rows[row] for row in (0, 3, 6)]
    assert table.take([0, 3, 6])["label"].to_pylist() == Scorer(crippled).score(good).labels


def test_texts_that_fail_are_told_apart_from_texts_that_are_skipped(
    tmp_path, write_rows, bundle_factory
):
    crippled = bundle_factory(tmp_path / "crippled", vocabulary=23)
    rows = ["the", "the cat", "a good film", "the cat sat on"]  # ascending by length
    path = write_rows(tmp_path / "a.jsonl", [{"id": i, "text": t} for i, t in enumerate(rows)])
    work, slices = plan_work(tmp_path / "out", path, crippled)
    worker = Worker(work, "here")
    [shard] = prepare(worker, slices)
    worker.score(Lease(shard=shard, attempt=1, skip={0: "kills its actor"}))
    errors = read(work, shard)["error"].to_pylist()
    assert [errors[0], errors[1], errors[3]] == ["kills its actor", None, None]
    assert "the model failed on it" in errors[2]


def test_pairs_are_scored_as_pairs(tmp_path, write_rows, pair_bundle):
    pairs = [("a cat", "a dog"), ("a dog", "a cat"), ("the film", None), ("a cat", "a dog")]
    rows = [{"first": first, "second": second} for first, second in pairs]
    path = write_rows(tmp_path / "a.jsonl", rows)
    table, [receipt] = score_corpus(
        tmp_path / "out", path, pair_bundle, text=("first", "second"), keep=()
    )
    expected = Scorer(pair_bundle).score([pairs[0], pairs[1], pairs[3]])
    assert receipt.num_unique == 2
    assert table["error"].to_pylist() == [None, None, "column 'second': null text", None]
    scored = table.take([0, 1, 3])
    assert scored["label"].to_pylist() == expected.labels
    np.testing.assert_allclose(
        scored["probability"].to_numpy(), expected.probability, rtol=1e-5, atol=0
    )


def test_a_worker_compares_its_predictions_with_those_of_a_shard(tmp_path, corpus, bundle):
    work, slices = plan_work(tmp_path, corpus, bundle, shard_seconds=9.0)
    worker = Worker(work, "here")
    shard, *_ = prepare(worker, slices)
    worker.score(Lease(shard=shard, attempt=1))
    agreement = worker.do(Comparison(shard=shard))
    assert agreement.num_equal == agreement.num_texts == min(256, shard.num_unique)
    assert agreement.largest_difference < 1e-5
    path = Path(work.predictions.path) / shard.file_name
    stored = pyarrow.parquet.read_table(path)
    flipped = stored.set_column(
        stored.column_names.index("label"),
        "label",
        pa.array([{"no": "yes", "yes": "no"}.get(label) for label in stored["label"].to_pylist()]),
    )
    pyarrow.parquet.write_table(flipped, path)
    assert worker.do(Comparison(shard=shard)).num_equal == 0


def test_a_worker_of_a_kind_that_does_not_score_only_prepares(tmp_path, corpus, bundle):
    work, slices = plan_work(tmp_path, corpus, bundle)
    helper = Worker(replace(work, scorings={"cuda": work.scorings["cpu"]}), "here")
    assert prepare(helper, slices)
    assert not hasattr(helper, "_scorer")
    on_gpu = Worker(work, "here", device="cpu")
    receipt = on_gpu.score(Lease(shard=prepare(on_gpu, slices)[0], attempt=1))
    assert (receipt.device, receipt.precision, receipt.gpu_busy) == ("cpu", "float32", None)


def test_a_worker_that_only_prepares_loads_no_model(tmp_path, corpus, bundle, monkeypatch):
    work, slices = plan_work(tmp_path, corpus, bundle)
    monkeypatch.setattr("fastformers.cluster.execution.worker.open_scorer", None)
    worker = Worker(replace(work, predictions=None), "here")
    assert len(prepare(worker, slices)) > 4


def test_the_token_budget_bounds_a_batch(tmp_path, corpus, bundle):
    work, slices = plan_work(tmp_path, corpus, bundle, shard_seconds=10)
    large, small = (
        Worker(replace(work, scorings=scorings_of(bundle, budget)), "here") for budget in (4096, 1)
    )
    shards = prepare(large, slices)
    num_unique = sum(shard.num_unique for shard in shards)
    leases = [Lease(shard=shard, attempt=1) for shard in shards]
    assert sum(small.score(lease).num_batches for lease in leases) == num_unique
    assert sum(large.score(lease).num_batches for lease in leases) < num_unique


def test_memory_is_that_of_this_process():
    rss_bytes, peak_rss_bytes = measure_memory()
    assert 2**20 < rss_bytes <= peak_rss_bytes


def test_a_worker_scores_with_the_engine_of_its_run(tmp_path, corpus, bundle):
    need_openvino()
    table, _ = score_corpus(tmp_path / "onnx", corpus, bundle)
    work, slices = plan_work(tmp_path / "openvino", corpus, bundle)
    scoring = replace(work.scorings["cpu"], engine="openvino")
    worker = Worker(replace(work, scorings={"cpu": scoring}), "here")
    assert worker._scorer.engine.name.startswith("openvino")
    shards = prepare(worker, slices)
    for shard in shards:
        worker.score(Lease(shard=shard, attempt=1))
    other = pa.concat_tables(read(work, shard) for shard in shards)
    assert other["label"] == table["label"]
    np.testing.assert_allclose(
        other["probability"].to_numpy(), table["probability"].to_numpy(), atol=1e-5
    )


def test_a_task_that_raises_does_not_keep_the_next_from_being_done(work_of_one_shard):
    _, worker, shard = work_of_one_shard
    missing = replace(shard, name="999999-00000")
    tasks = [
        Task(ticket=Ticket(number), job=Lease(shard=shard, attempt=1))
        for number, shard in enumerate([missing, shard])
    ]
    failed, finished = worker.run(tasks)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, FileNotFoundError)
    assert isinstance(finished, Finished)
    assert (failed.ticket, finished.ticket, finished.result.shard) == (0, 1, shard.name)
    assert finished.seconds > 0
    assert worker.state() == "wait"


def test_an_error_that_cannot_travel_is_told_in_words(work_of_one_shard, monkeypatch):
    _, worker, shard = work_of_one_shard

    class OddError(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    def fail(*args, **options):
        raise OddError("gone", 2)

    monkeypatch.setattr(worker._scorer, "score_tokens", fail)
    [failed] = worker.run([Task(ticket=Ticket(0), job=Lease(shard=shard, attempt=1))])
    assert isinstance(failed.error, ScoringError)
    assert "gone" in str(failed.error)
