import itertools
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
import fastformers.cluster.settings
from fastformers.cluster.execution import run as run_module
from fastformers.cluster.execution.journal import RunJournal, find_earlier_work
from fastformers.cluster.execution.local import connect_here
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.scheduling.progress import Before
from fastformers.cluster.settings import ActorSettings, ScoringSettings
from fastformers.cluster.shards import preparation
from fastformers.cluster.shards.identity import PREPARED_FILE, write_record
from fastformers.cluster.shards.layout import Shard
from fastformers.errors import (
    ChangedWorkError,
    InputError,
    ScoringError,
)
from tests.cluster.execution.plans import plan, plan_shards
from tests.cluster.outputs import read_dead_letters, read_predictions

TEXTS = ["a cat", "the film", "a dog ran fast", "good", "bad film", "the mat", "it sat", "slow"]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 300)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", 300)


@pytest.fixture
def corpus(tmp_path, write_rows):
    """Three files of 17, 9 and 30 rows."""
    for number, name in enumerate("abc"):
        rows = [
            {"id": 100 * number + row, "text": f"{TEXTS[row % 8]} {row}", "lang": "en"}
            for row in range((17, 9, 30)[number])
        ]
        write_rows(tmp_path / "corpus" / f"{name}.jsonl", rows)
    return tmp_path / "corpus"


def test_a_run_scores_everything_and_tidies_up(corpus, bundle, tmp_path, run_locally, told):
    result = run_locally(plan(corpus, bundle, tmp_path / "out"))
    table = read_predictions(tmp_path / "out")
    ids = [*range(17), *range(100, 109), *range(200, 230)]
    assert table["id"].to_pylist() == ids
    assert table["error"].null_count == len(ids)
    assert result.dead_letters == 0
    assert read_dead_letters(tmp_path / "out").num_rows == 0
    assert result.tally.known.num_shards == len(told.shards) > 5
    assert {shard.name for shard in told.shards} == {receipt.shard for receipt in told.receipts}
    assert not list((tmp_path / "out" / "__run__" / "shards").rglob("part-*"))
    assert 0 <= result.setup_s <= result.wall_s
    assert result.started_at + result.wall_s <= time.time()
    assert set(result.tally.slice_phase_s) == {"read", "tokenize", "write"}


def test_a_finished_run_starts_nothing(corpus, bundle, tmp_path, run_locally, told):
    first = run_locally(plan(corpus, bundle, tmp_path / "out"))
    before = read_predictions(tmp_path / "out")
    asked = []
    again = run_job(plan(corpus, bundle, tmp_path / "out"), ActorSettings(), asked.append)
    assert asked == []
    assert (again.num_actors, again.setup_s, again.work_end_s) == (0, 0.0, 0.0)
    assert told.receipts and len(told.receipts) == first.tally.scored.num_shards
    assert again.tally.scored.num_shards == 0
    assert again.tally.earlier.lengths == first.tally.scored.lengths
    assert again.tally.earlier.num_rows == first.tally.scored.num_rows == 56
    assert again.tally.earlier.predicted_s == pytest.approx(first.tally.scored.predicted_s)
    assert again.tally.known == first.tally.known
    [here] = again.nodes
    assert (here.joined_s, here.left_s) == (0.0, again.wall_s)
    assert (here.num_cores, here.num_idle_cores) == (0, 0)
    assert read_predictions(tmp_path / "out").equals(before)


def test_a_run_s_times_are_the_clock_s(corpus, bundle, tmp_path, told):
    """Each look at the clock takes a second: the times come from it alone, and in this order."""
    ticks = count(100.0)
    lines, seen = [], []
    result = run_job(
        plan(corpus, bundle, tmp_path / "out"),
        ActorSettings(num_actors=1),
        connect_here,
        on_progress=seen.append,
        log=lines.append,
        clock=lambda: next(ticks),
    )
    assert 1.0 <= result.setup_s < result.work_end_s < result.wall_s == next(ticks) - 101.0
    starts = [attempt.start_s for attempt in told.attempts]
    assert starts == sorted(starts)
    assert result.setup_s < starts[0]
    assert told.attempts[-1].end_s < result.work_end_s
    [use] = result.nodes
    assert {attempt.actor for attempt in told.attempts} == set(use.actor_cores)
    assert list(use.actor_cores.values()) == [1]
    assert (use.joined_s, use.ready_s, use.left_s) == (0.0, result.setup_s, result.wall_s)
    assert (result.num_actors, result.num_machines, result.tally.num_retries) == (1, 1, 0)
    assert [use.self_check] == lines == ["1 worker x 1 thread in this process, pinned to no core"]
    assert (seen[-1].num_done, seen[-1].num_slices_left) == (len(told.shards), 0)
    assert seen[-1].predicted_left_s == pytest.approx(0.0, abs=1e-9)
    forecasts = [progress for progress in seen if progress.time_left is not None]
    assert len(forecasts) > 3
    assert {sum(progress.machines.values()) for progress in forecasts} == {1}
    for progress in forecasts:  # a tick is no measure of work, but the order of size is right
        end_s = progress.elapsed_s + progress.time_left.seconds
        assert 0.3 * result.wall_s < end_s < 3 * result.wall_s


def test_lost_and_foreign_parts_are_scored_again(corpus, bundle, tmp_path, run_locally, told):
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    names = sorted(shard.name for shard in told.shards)
    before = read_predictions(tmp_path / "out")
    parts = sorted((tmp_path / "out" / "predictions").iterdir())
    parts[0].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-50])
    pyarrow.parquet.write_table(pa.table({"label": ["yes"]}), parts[3])
    (tmp_path / "out" / "predictions" / f".{parts[0].name}.abc.incomplete").write_bytes(b"half")

    again = run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert sorted(receipt.shard for receipt in told.receipts) == [names[n] for n in (0, 2, 3)]
    assert again.tally.earlier.num_shards == len(names) - 3
    assert read_predictions(tmp_path / "out").equals(before)
    assert sorted((tmp_path / "out" / "predictions").iterdir()) == parts


def test_the_same_bundle_elsewhere_is_no_change(
    corpus, bundle, bundle_factory, tmp_path, run_locally
):
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    moved = bundle_factory(tmp_path / "moved")
    again = run_locally(plan(corpus, moved, tmp_path / "out"))
    assert (again.tally.scored.num_shards, again.num_actors) == (0, 0)


@pytest.mark.parametrize("num_writes", range(0, 30, 3))
def test_a_run_that_was_killed_goes_on(
    corpus, bundle, tmp_path, run_locally, killed_after, num_writes
):
    """The run is killed as it is about to write its first file, its fourth, and so on."""
    run_locally(plan(corpus, bundle, tmp_path / "whole"))
    with killed_after(num_writes):
        run_locally(plan(corpus, bundle, tmp_path / "out"))
    run_locally(plan(corpus, bundle, tmp_path / "out"))
    assert read_predictions(tmp_path / "out").equals(read_predictions(tmp_path / "whole"))


def test_prepared_shards_are_scored_like_their_corpus(corpus, bundle, tmp_path, run_locally):
    prepared_run = plan_shards(corpus, bundle, tmp_path / "shards", keep_columns=("lang", "id"))
    result = run_locally(prepared_run)
    assert result.tally.scored.num_shards == 0
    run_locally(plan(corpus, bundle, tmp_path / "direct"))
    run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))
    assert read_predictions(tmp_path / "out").equals(read_predictions(tmp_path / "direct"))
    assert len(list((tmp_path / "shards").rglob("part-*"))) == result.tally.known.num_shards
    assert run_locally(
        plan_shards(corpus, bundle, tmp_path / "shards", keep_columns=("lang", "id"))
    )


def test_prepared_shards_serve_every_bundle_with_their_tokenizer(
    corpus, bundle, bundle_factory, tmp_path, run_locally
):
    run_locally(plan_shards(corpus, bundle, tmp_path / "shards"))
    smaller = bundle_factory(tmp_path / "smaller", num_layers=1)
    run_locally(plan(tmp_path / "shards", smaller, tmp_path / "out"))
    assert read_predictions(tmp_path / "out").num_rows == 56
    with pytest.raises(ChangedWorkError, match="of another run: bundle changed since;"):
        run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))


def test_an_unfinished_preparation_is_not_scored(corpus, bundle, tmp_path, run_locally):
    preparing = plan_shards(corpus, bundle, tmp_path / "shards")
    run_locally(preparing)
    write_record(preparing.shards, PREPARED_FILE, preparing.identity, complete=False)
    with pytest.raises(InputError, match="preparation is incomplete"):
        run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))


def test_the_limit_takes_the_first_rows(corpus, bundle, tmp_path, run_locally):
    run_locally(plan(corpus, bundle, tmp_path / "out", limit=20))
    assert read_predictions(tmp_path / "out")["id"].to_pylist() == [*range(17), 100, 101, 102]


def test_bad_rows_stop_a_run_that_wants_none(bundle, tmp_path, write_rows, run_locally):
    """A rerun that accepts bad rows still succeeds, and lists them."""
    path = write_rows(tmp_path / "a.jsonl", [{"id": 0, "text": "a"}, {"id": 1, "text": ""}])
    for _ in range(2):  # the second run learns from the first that there is one
        with pytest.raises(ScoringError, match=r"^1 of 2 rows.*jsonl: row 1: .*empty text; "):
            run_locally(plan(path, bundle, tmp_path / "out", max_bad_rows="0"))
    assert run_locally(plan(path, bundle, tmp_path / "out")).dead_letters == 1
    for _ in range(2):
        with pytest.raises(ScoringError, match=r"a\.jsonl: row 1: .*empty text; "):
            run_locally(plan(path, bundle, tmp_path / "out", max_bad_rows="0"))
        assert read_dead_letters(tmp_path / "out")["file_row"].to_pylist() == [1]


def test_a_run_whose_rows_are_nearly_all_bad_ends_early_and_goes_on_with_another_limit(
    bundle, tmp_path, write_rows, run_locally, monkeypatch
):
    monkeypatch.setattr(fastformers.cluster.settings, "JUDGED_ROWS", 20)
    rows = [{"id": row, "text": None if row % 4 else "a cat"} for row in range(200)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    for _ in range(2):  # and the same command ends in the same way
        with pytest.raises(
            ScoringError, match=r"read so far .* 1% .*jsonl: row \d.*null text; mend"
        ):
            run_locally(plan(path, bundle, tmp_path / "out"))
    earlier = find_earlier_work(plan(path, bundle, tmp_path / "out"))
    assert 20 <= earlier.cut.bad_rows.num_rows < 150
    result = run_locally(plan(path, bundle, tmp_path / "out", max_bad_rows="80%"))
    assert result.dead_letters == 150
    assert read_predictions(tmp_path / "out")["id"].to_pylist() == list(range(200))


def test_shards_of_bad_rows_are_no_finished_preparation(bundle, tmp_path, write_rows, run_locally):
    rows = [{"id": row, "text": None if row else "a cat"} for row in range(12)]
    path = write_rows(tmp_path / "a.csv", rows)
    for _ in range(2):
        with pytest.raises(ScoringError, match=r"^11 of 12 rows cannot be scored, .*empty text"):
            run_locally(plan_shards(path, bundle, tmp_path / "shards"))
    with pytest.raises(InputError, match="preparation is incomplete"):
        run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))
    run_locally(plan_shards(path, bundle, tmp_path / "shards", max_bad_rows="11"))
    with pytest.raises(ScoringError, match=r"^11 of 12 rows .*dead_letters\.parquet lists them"):
        run_locally(plan(tmp_path / "shards", bundle, tmp_path / "out"))
    assert read_dead_letters(tmp_path / "out").num_rows == 11


def test_values_that_fit_no_column_are_counted_by_column_once(
    corpus, bundle, tmp_path, write_rows, run_locally, monkeypatch
):
    monkeypatch.setattr("fastformers.formats.file_set.SAMPLE_FILES", 1)
    for path in corpus.iterdir():
        path.unlink()
    for name, values in {"a": [1, 2], "b": [0.5, 3], "c": ["x", "y"]}.items():
        rows = [{"id": value, "text": f"{name} {value}", "lang": "de"} for value in values]
        write_rows(corpus / f"{name}.jsonl", rows)
    run = plan(corpus, bundle, tmp_path / "out", keep_columns=("id", "lang"))
    for _ in range(2):  # the second time nothing is left to do
        result = run_locally(run)
        assert (result.dead_letters, dict(result.tally.unfit)) == (0, {"id": 3})
    assert read_predictions(tmp_path / "out")["id"].to_pylist() == [1, 2, None, 3, None, None]


def test_an_output_inside_the_corpus_is_no_part_of_it(bundle, tmp_path, write_rows, run_locally):
    write_rows(tmp_path / "corpus" / "a.parquet", [{"id": 1, "text": "one"}])
    output = tmp_path / "corpus" / "scored"
    identity = plan(tmp_path / "corpus", bundle, output).identity
    for _ in range(2):
        run = plan(tmp_path / "corpus", bundle, output)
        assert run.identity == identity
        run_locally(run)
    other = plan(tmp_path / "corpus", bundle, tmp_path / "corpus" / "other")
    assert [file.path for file in other.corpus.files] == [f"{tmp_path}/corpus/a.parquet"]
    assert other.corpus.left_out == (f"{output}: written by fastformers, not read",)


def test_a_broken_link_is_refused_or_reported(corpus, bundle, tmp_path, run_locally):
    (corpus / "z.parquet").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"z\.parquet: is a broken link \(to nowhere\)"):
        plan(corpus, bundle, tmp_path / "out")
    run = plan(corpus, bundle, tmp_path / "out", skip_unreadable_files=True)
    assert list(run_locally(run).skipped_files) == [str(corpus / "z.parquet")]


def test_skipped_files_are_reported(corpus, bundle, tmp_path, write_rows, run_locally):
    for path in corpus.iterdir():
        path.unlink()
    for name in "ab":
        write_rows(corpus / f"{name}.parquet", [{"id": 1, "text": name}])
    (corpus / "b.parquet").write_bytes(b"not Parquet")
    run = plan(corpus, bundle, tmp_path / "out", skip_unreadable_files=True)
    for _ in range(2):  # the second time nothing is left to do
        assert list(run_locally(run).skipped_files) == [str(corpus / "b.parquet")]
    assert read_predictions(tmp_path / "out").num_rows == 1


def test_what_was_done_until_an_error_is_told_for_the_bill(corpus, bundle, tmp_path):
    """The second report of the driver interrupts the run."""
    told, reports, clock = [], [], itertools.count()

    def interrupt(progress):
        reports.append(progress)
        if progress.num_done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(
            plan(corpus, bundle, tmp_path / "out"),
            ActorSettings(),
            connect_here,
            on_progress=interrupt,
            on_result=lambda result: told.append((result, result.tally.scored.num_rows)),
            clock=lambda: 2.0 * next(clock),  # each look at it takes two seconds
        )
    *early, (last, num_rows) = told
    assert last.is_cut
    assert num_rows == reports[-1].num_rows > 0
    assert [node.reason for node in last.nodes] == [None]
    assert last.nodes[0].left_s == last.wall_s >= last.work_end_s
    assert all(result.wall_s <= last.wall_s for result, _ in early)
    resumed = []
    run_job(
        plan(corpus, bundle, tmp_path / "out"),
        ActorSettings(),
        connect_here,
        on_progress=resumed.append,
        clock=lambda: 2.0 * next(clock),
    )
    first, end = resumed[0], resumed[-1]
    assert first.predicted_before_s == pytest.approx(last.tally.scored.predicted_s)
    assert first.predicted_before_s == end.predicted_before_s > 0
    # slices that are not cut count from the start
    known_s = first.predicted_done_s + first.predicted_left_s
    assert 0.9 * end.predicted_done_s < known_s < 2.5 * end.predicted_done_s


def test_what_was_cut_before_is_all_but_what_is_left(corpus, bundle, tmp_path, run_locally):
    job = plan(corpus, bundle, tmp_path / "out")
    planned = len(job.corpus.plan_slices())
    assert run_module._before(find_earlier_work(job)) == Before()
    run_locally(job)
    (tmp_path / "out" / "predictions" / "part-000001-00000.parquet").unlink()
    earlier = find_earlier_work(job)  # slice 1 is to be cut again
    assert [slice_.index for slice_ in earlier.cut.slices] == [1]
    before = run_module._before(earlier)
    assert before == Before(
        predicted_s=earlier.receipts.predicted_s,
        num_cut=planned - 1,
        cut_s=earlier.receipts.predicted_s,
    )
    waiting = replace(earlier, cut=replace(earlier.cut, shards=[told_shard(2.5), told_shard(4.0)]))
    assert run_module._before(waiting).cut_s == before.predicted_s + 6.5


def told_shard(predicted_s):
    return Shard(
        name="000002-00000",
        num_rows=1,
        num_unique=1,
        num_tokens=1,
        num_unique_tokens=1,
        predicted_s=predicted_s,
        spans=(),
    )


def test_predictions_are_compared_where_they_are_of_two_precisions(
    corpus, two_graphs, tmp_path, monkeypatch
):
    @contextmanager
    def connect(address):
        yield lambda spec, actors, *, cores_per_actor: None

    seen = []

    def refuse(nodes, *, crew, **rest):
        seen.append(crew.compares)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "Driver", refuse)
    for device in ("cpu", "cuda", "mixed"):
        job = plan(corpus, two_graphs, tmp_path / device, scoring=ScoringSettings(device=device))
        with pytest.raises(KeyboardInterrupt):
            run_job(job, ActorSettings(), connect)
    assert seen == [False, False, True]


def test_a_run_tells_every_five_seconds_and_takes_a_hundredth_of_the_time_for_it(
    corpus, bundle, tmp_path, clock
):
    told, took_s = [], [0.0, 0.5, 0.0]

    def tell(result):
        told.append(clock.now)
        assert result.wall_s == clock.now - 100.0
        clock.now += took_s[len(told) - 1]

    journal = RunJournal(plan(corpus, bundle, tmp_path / "out"))
    clock.now = 100.0
    with run_module._told(tell, journal, start=100.0, clock=clock) as tell_if_due:
        for now in (100.0, 104.9, 105.0, 109.9, 110.0, 115.5, 160.4, 160.5, 165.4):
            clock.now = now
            tell_if_due(list)
    assert told == [105.0, 110.0, 160.5]


def test_a_run_tells_now_and_then_what_it_has_done(corpus, bundle, tmp_path):
    told, clock = [], itertools.count()
    result = run_job(
        plan(corpus, bundle, tmp_path / "out"),
        ActorSettings(),
        connect_here,
        on_result=lambda result: told.append((result.wall_s, len(result.nodes), result.is_cut)),
        clock=lambda: 2.0 * next(clock),
    )
    assert {(nodes, is_cut) for _, nodes, is_cut in told} == {(1, True)}
    assert told[0][0] < result.wall_s
    assert not result.is_cut
