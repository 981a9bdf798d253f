"""Whole runs in this process that meet faults, over slices of which one takes many reads."""

from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest

import fastformers.cluster.corpus.slices
from fastformers.cluster.corpus import reading
from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.execution.job import open_prepare_job, open_score_job
from fastformers.cluster.execution.journal import RunJournal
from fastformers.cluster.execution.local import LocalPool, connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import NodeLeft
from fastformers.cluster.scheduling.work import Lost
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.cluster.shards import preparation
from fastformers.cluster.shards.claim_file import new_claim, put_claim
from fastformers.errors import ClaimedError, InputError, ScoringError
from tests.cluster.outputs import read_dead_letters, read_predictions

NUM_ROWS = {"a.csv": 7, "b.csv": 60, "c.csv": 5}
IDS = list(range(sum(NUM_ROWS.values())))
SETTINGS = CorpusSettings(keep_columns=("id",), shard_seconds=0.002)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 300)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 300)


@pytest.fixture
def corpus(tmp_path, write_rows):
    """Three slices, of which the second takes many reads."""
    ids = iter(IDS)
    for name, num_rows in NUM_ROWS.items():
        rows = [{"id": next(ids), "text": f"a cat {row} ran"} for row in range(num_rows)]
        write_rows(tmp_path / "corpus" / name, rows)
    return tmp_path / "corpus"


def plan(corpus, bundle, output, settings=SETTINGS):
    return open_score_job(
        str(corpus),
        bundle.path,
        str(output),
        settings,
        max_batch_tokens=None,
    )


def ids(output):
    return [int(value) for value in read_predictions(output)["id"].to_pylist()]


@pytest.fixture
def actors_die(monkeypatch):
    """Lets the worker die over the jobs for which a function says so."""
    wait = LocalPool.wait

    def arm(dies):
        def wait_or_die(pool, timeout_s):
            if pool._waiting and dies(pool._waiting[0].job):
                ticket = pool._waiting.popleft().ticket
                return [Lost(ticket=ticket, reason="its actor died (a test)")]
            return wait(pool, timeout_s)

        monkeypatch.setattr(LocalPool, "wait", wait_or_die)

    return arm


def times(number):
    """A function that says yes to each job as many times."""
    seen = {}

    def says(job):
        name = (job.index, job.first_shard) if isinstance(job, Slice) else job.shard.name
        seen[name] = seen.get(name, 0) + 1
        return seen[name] <= number

    return says


def test_every_read_of_every_slice_is_scored(corpus, bundle, tmp_path, run_locally, told):
    result = run_locally(plan(corpus, bundle, tmp_path / "out"))
    slices = {attempt.name for attempt in told.attempts if attempt.job == "prepare"}
    assert slices == {"slice 0", "slice 1", "slice 2"}
    assert sum(attempt.name == "slice 1" for attempt in told.attempts) > 3
    assert ids(tmp_path / "out") == IDS
    assert result.tally.known.num_rows == len(IDS)
    names = [receipt.shard for receipt in told.receipts]
    assert len(names) == len(set(names)) == result.tally.known.num_shards > 5


@pytest.mark.parametrize("kind", ["prepare", "score"])
def test_actors_that_die_twice_over_every_job_lose_nothing(
    corpus, bundle, tmp_path, run_locally, told, actors_die, kind
):
    says = times(2)
    actors_die(lambda job: isinstance(job, Slice) == (kind == "prepare") and says(job))
    result = run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert ids(tmp_path / "out") == IDS
    assert result.dead_letters == 0
    lost = [attempt for attempt in told.attempts if attempt.is_lost]
    num_jobs = len([attempt for attempt in told.attempts if attempt.job == kind]) // 3
    assert {attempt.job for attempt in lost} == {kind}
    assert len(lost) == 2 * num_jobs > 10
    assert sorted({attempt.number for attempt in lost}) == [1, 2]


def test_a_slice_that_kills_every_actor_ends_the_run_and_the_next_one_goes_on(
    corpus, bundle, tmp_path, run_locally, told, actors_die
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalPool, "wait", LocalPool.wait)
        actors_die(lambda job: isinstance(job, Slice) and job.index == 2)
        with pytest.raises(ScoringError, match=r"slice 2 .*c\.csv\): its actor died .*three times"):
            run_locally(plan(corpus, bundle, tmp_path / "out"))
        assert sum(attempt.name == "slice 2" for attempt in told.attempts) == 3
        actors_die(lambda job: False)
        run_locally(plan(corpus, bundle, tmp_path / "out"))
    read = {attempt.name for attempt in told.attempts if attempt.job == "prepare"}
    assert "slice 2" in read
    assert "slice 0" not in read
    assert ids(tmp_path / "out") == IDS


@pytest.mark.parametrize("num_scored", [1, 4])
def test_a_run_scores_what_the_one_before_has_not(
    corpus, bundle, tmp_path, run_locally, told, actors_die, num_scored
):
    run_locally(plan(corpus, bundle, tmp_path / "whole"))
    names = {receipt.shard for receipt in told.receipts}
    left = iter(range(num_scored))

    def stop(job):
        if not isinstance(job, Slice) and next(left, None) is None:
            raise KeyboardInterrupt
        return False

    actors_die(stop)
    with pytest.raises(KeyboardInterrupt):
        run_locally(plan(corpus, bundle, tmp_path / "out"))
    done = {path.name[5:-8] for path in (tmp_path / "out" / "predictions").iterdir()}
    assert len(done) == num_scored
    actors_die(lambda job: False)
    again = run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert sorted(receipt.shard for receipt in told.receipts) == sorted(names - done)
    assert again.tally.scored.num_shards == len(names) - num_scored
    assert again.tally.earlier.num_shards == num_scored
    assert again.tally.known.num_shards == len(names)
    assert read_predictions(tmp_path / "out").equals(read_predictions(tmp_path / "whole"))


def test_where_every_node_leaves_the_run_says_so_and_the_next_one_goes_on(
    corpus, bundle, tmp_path, run_locally, told, monkeypatch
):
    ticks = count(0.0, 0.5)
    with monkeypatch.context() as patch:
        wait = LocalNodes.wait

        def leave(nodes, timeout_s):
            if told.receipts and nodes._asked:
                nodes._asked.clear()
                return [NodeLeft(id="local", reason="its raylet died")]
            return wait(nodes, timeout_s)

        patch.setattr(LocalNodes, "wait", leave)
        with pytest.raises(InputError, match="every node has left the cluster; add nodes"):
            run_job(
                plan(corpus, bundle, tmp_path / "out"),
                ActorSettings(),
                connect_here,
                clock=lambda: next(ticks),
            )
    done = {receipt.shard for receipt in told.receipts}
    result = run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert done
    assert not done & {receipt.shard for receipt in told.receipts}
    assert len(told.receipts) == result.tally.known.num_shards - len(done)
    assert ids(tmp_path / "out") == IDS


def test_a_row_that_the_model_refuses_is_listed_or_ends_the_run(
    bundle_factory, tmp_path, write_rows, run_locally
):
    """The model has no embedding for the word "film"."""
    crippled = bundle_factory(tmp_path / "crippled", vocabulary=23)
    texts = ["the cat sat", "a good film", "the dog ran", "the cat"]
    rows = [{"id": row, "text": text} for row, text in enumerate(texts)]
    path = write_rows(tmp_path / "a.csv", rows)
    none_bad = replace(SETTINGS, max_bad_rows="0")
    with pytest.raises(ScoringError, match=r"^1 of 4 .* shard 0.*-0.*: the model failed on"):
        run_locally(plan(path, crippled, tmp_path / "out", none_bad))
    result = run_locally(plan(path, crippled, tmp_path / "out"))
    assert result.dead_letters == 1
    table = read_predictions(tmp_path / "out")
    assert [label is None for label in table["label"].to_pylist()] == [False, True, False, False]
    assert "the model failed on it" in table["error"][1].as_py()
    assert read_dead_letters(tmp_path / "out")["file_row"].to_pylist() == [1]


def test_a_preparation_is_complete_when_it_ends_and_only_then(
    corpus, bundle, tmp_path, run_locally, actors_die
):
    def prepare():
        return run_locally(
            open_prepare_job(str(corpus), bundle.path, str(tmp_path / "shards"), SETTINGS)
        )

    def stop(job):
        if job.index == 2:
            raise KeyboardInterrupt
        return False

    actors_die(stop)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    with pytest.raises(InputError, match="preparation is incomplete"):
        run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))
    actors_die(lambda job: False)
    assert prepare().dead_letters == 0
    before = sorted(path.name for path in (tmp_path / "shards").rglob("part-*"))
    run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))
    assert ids(tmp_path / "out") == IDS
    assert sorted(path.name for path in (tmp_path / "shards").rglob("part-*")) == before


def test_a_run_stops_where_another_has_taken_the_output_over(corpus, bundle, tmp_path):
    seen = []

    def take_over(claim):
        def check():
            raise ClaimedError("out: another run works here")

        claim.check = check

    with pytest.raises(ClaimedError, match="another run works here"):
        run_job(
            plan(corpus, bundle, tmp_path / "out"),
            ActorSettings(),
            connect_here,
            on_claim=take_over,
            on_progress=seen.append,
        )
    assert seen == []


def test_machines_are_let_go_where_another_run_claims_the_output_meanwhile(
    corpus, bundle, tmp_path, monkeypatch
):
    """As in a bucket, where a claim is read back a second later."""
    for name in ("put_claim_if_absent", "replace_claim"):
        monkeypatch.setattr(f"fastformers.cluster.execution.claim.{name}", lambda *arguments: None)
    job = plan(corpus, bundle, tmp_path / "out")
    told = []

    @contextmanager
    def connect(address):
        told.append("connected")
        put_claim(job.home, replace(new_claim(0.0), run="another"))
        try:
            yield
        finally:
            told.append("let go")

    with pytest.raises(ClaimedError, match="a run works there"):
        run_job(job, ActorSettings(), connect, on_claim=told.append)
    assert told == ["connected", "let go"]


def test_who_calls_learns_of_claim_and_progress_and_what_is_shown(
    corpus, bundle, tmp_path, monkeypatch
):
    claims, seen, lines, flushed = [], [], [], []
    monkeypatch.setattr(RunJournal, "flush_if_due", lambda journal: flushed.append(journal))
    ticks = count(0.0, 0.5)
    run_job(
        plan(corpus, bundle, tmp_path / "out"),
        ActorSettings(),
        connect_here,
        on_claim=claims.append,
        on_progress=seen.append,
        log=lines.append,
        clock=lambda: next(ticks),
    )
    [claim] = claims
    assert claim.record is not None
    assert len(flushed) == len(seen) > 3  # as often, what waits is written down
    assert [p.num_done for p in seen] == sorted(p.num_done for p in seen)
    assert seen[0].num_known < seen[-1].num_known == seen[-1].num_done
    assert lines == ["1 worker x 1 thread in this process, pinned to no core"]


@pytest.mark.parametrize("num_faults", [2, 3])
def test_a_read_that_fails_is_done_again_and_ends_the_run_the_third_time(
    corpus, bundle, tmp_path, run_locally, monkeypatch, num_faults
):
    """A disk that answers with an error of its own, which readers say of the file."""
    faults = [OSError(5, "Input/output error") for _ in range(num_faults)]
    read_piece = reading._read_piece

    def fail(piece, *positions, **options):
        if faults and piece.path.endswith("b.csv"):
            raise InputError(f"{piece.path}: cannot be read; repair it") from faults.pop()
        return read_piece(piece, *positions, **options)

    monkeypatch.setattr(reading, "_read_piece", fail)
    job = plan(corpus, bundle, tmp_path / "out")
    if num_faults == 2:
        run_locally(job)
        assert ids(tmp_path / "out") == IDS
    else:
        with pytest.raises(InputError, match="cannot be read; repair it"):
            run_locally(job)
