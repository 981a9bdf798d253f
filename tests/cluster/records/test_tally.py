"""Sums over many events against sums over their lists, and the memory that they take."""

import itertools
import math
import random
import sys
import tracemalloc
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.records import samples
from fastformers.cluster.records import tally as tally_module
from fastformers.cluster.records.samples import (
    MAX_ATTEMPTS,
    MAX_LOST,
    MAX_PREDICTIONS,
    Thinned,
)
from fastformers.cluster.records.slice_table import SliceTable
from fastformers.cluster.records.tally import ActorTally, ReceiptSums, RunTally
from fastformers.cluster.shards import shard_set
from fastformers.cluster.shards.audit_counts import AuditCounts
from fastformers.cluster.shards.label_counts import LabelCounts
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.shards.preparation import SliceReceipt
from fastformers.cluster.shards.receipts import PHASES, Attempt, Receipt
from fastformers.cluster.shards.shard_set import ShardSet

# Kept, so that what Python holds of names that shards share does not grow while memory is measured.
PATHS = [sys.intern(f"s3://bucket/part-{number:05d}.parquet") for number in range(1000)]
ACTORS = [("n0", "host:0"), ("n0", "host:1"), ("n1", "host:0"), ("n2", "other:0")]


def make_shard(number):
    return Shard(
        name=f"{number // 3:06d}-{number % 3:05d}",
        num_rows=100 + number % 7,
        num_unique=90,
        num_tokens=1000 + number % 11,
        num_unique_tokens=900,
        predicted_s=1.0 + number % 5,
        spans=((PATHS[number // 9 % len(PATHS)], 100 + number % 7),),
    )


def make_receipt(number, *, actor="host:0", attempt=1):
    shard = make_shard(number)
    return Receipt(
        shard=shard.name,
        actor=actor,
        attempt=attempt,
        num_rows=shard.num_rows,
        num_unique=shard.num_unique,
        num_errors=number % 4 == 0,
        num_tokens=shard.num_tokens,
        num_scored_tokens=900 - number % 3,
        num_computed_tokens=1000,
        num_batches=4,
        started_at=1e9 + number,
        finished_at=1e9 + number + 1.5 + number % 2,
        predicted_s=shard.predicted_s,
        expected_s=shard.predicted_s / 4,
        rss_bytes=2**20,
        peak_rss_bytes=2**20 + number % 13,
        phase_s={"read": 0.125, "infer": 1.0 + number % 3, "write": 0.25},
        lengths={"8": [number % 3, 8, 9], "64": [1, 60, 64]},
        file_bytes=4000 + number % 100,
    )


def make_events(num_shards, *, seed):
    """Attempts with the receipts that come of them: some lost, some slices, some searches."""
    chance = random.Random(seed)
    clock = dict.fromkeys(ACTORS, 2.0)
    events = []
    for number in range(num_shards):
        for attempt in range(1, 3 if chance.random() < 0.1 else 2):
            node, actor = key = chance.choice(ACTORS)
            start_s = clock[key] + chance.choice([0.0, 0.25])
            clock[key] = end_s = start_s + chance.uniform(1.5, 4.0)
            is_lost = attempt == 1 and chance.random() < 0.05
            job = chance.choice(["score"] * 8 + ["prepare", "search"])
            receipt = make_receipt(number, actor=actor, attempt=attempt)
            is_scored = job == "score" and not is_lost
            made = Attempt(
                node=node,
                actor=actor,
                job=job,
                name=receipt.shard,
                number=attempt,
                start_s=start_s,
                end_s=end_s,
                is_lost=is_lost,
                phase_s=receipt.phase_s if is_scored else {},
            )
            events.append((made, receipt if is_scored else None))
            if is_scored:
                break
    return events


def tell(events):
    tally = RunTally()
    for attempt, receipt in events:
        tally.add_attempt(attempt)
        if receipt is not None:
            tally.add_receipt(receipt)
    tally.close()
    return tally


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_over_the_lists(seed):
    events = make_events(400, seed=seed)
    attempts = [attempt for attempt, _ in events]
    receipts = [receipt for _, receipt in events if receipt is not None]
    tally = tell(events)
    sums = tally.scored
    assert sums.num_shards == len(receipts)
    for name in ("num_rows", "num_tokens", "num_scored_tokens", "num_computed_tokens"):
        assert getattr(sums, name) == sum(getattr(receipt, name) for receipt in receipts)
    assert sums.predicted_s == pytest.approx(math.fsum(r.predicted_s for r in receipts))
    assert sums.expected_s == pytest.approx(sums.predicted_s / 4)
    assert sums.actor_s == pytest.approx(math.fsum(r.finished_at - r.started_at for r in receipts))
    assert sums.started_at == min(receipt.started_at for receipt in receipts)
    assert sums.finished_at == max(receipt.finished_at for receipt in receipts)
    assert sums.peak_rss_bytes == max(receipt.peak_rss_bytes for receipt in receipts)
    assert sums.phase_s == pytest.approx(
        {phase: sum(receipt.phase_s.get(phase, 0.0) for receipt in receipts) for phase in PHASES}
    )
    assert sums.lengths == {
        edge: [sum(column) for column in zip(*(r.lengths[edge] for r in receipts), strict=True)]
        for edge in ("8", "64")
    }
    assert tally.num_retries == sum(a.is_lost and a.job != "prepare" for a in attempts)
    assert tally.attempts.num_added == len(attempts)
    assert [timed.attempt for timed in tally.attempts.attempts()] == attempts
    assert [timed.receipt for timed in tally.attempts.attempts()] == [r for _, r in events]


@pytest.mark.parametrize("seed", range(5))
def test_actors_of_equal_names_on_two_nodes_are_told_apart(seed):
    events = make_events(400, seed=seed)
    tally = tell(events)
    assert set(tally.actors) == set(ACTORS)
    for key, actor in tally.actors.items():
        own = [(a, r) for a, r in events if (a.node, a.actor) == key]
        receipts = [receipt for _, receipt in own if receipt is not None]
        assert actor.num_shards == len(receipts)
        assert actor.num_rows == sum(receipt.num_rows for receipt in receipts)
        assert actor.infer_s == pytest.approx(sum(r.phase_s["infer"] for r in receipts))
        assert actor.peak_rss_bytes == max(receipt.peak_rss_bytes for receipt in receipts)
        assert sum(actor.tokens.amounts) == pytest.approx(sum(r.num_tokens for r in receipts))
        assert (actor.first_start_s, actor.end_s) == (own[0][0].start_s, own[-1][0].end_s)
        lost_s = sum(a.end_s - a.start_s for a, _ in own if a.is_lost or a.job == "search")
        assert actor.seconds.get("retries", 0.0) >= lost_s - 1e-9
        assert math.fsum(actor.seconds.values()) == pytest.approx(actor.end_s - actor.first_start_s)


def make_judged_receipt(number):
    """The receipt of a shard of a cascade whose rows have labels and are audited."""
    labels = LabelCounts(
        num_rows=3,
        num_unlabeled=number,
        pairs={'"a"': {str(number % 2): 3}},
        labels={'"a"': 3},
        classes={str(number % 2): 3},
        numbers=[[1.0, float(number)]],
    )
    audit = AuditCounts(
        num_rows=4,
        num_failed=1,
        num_equal=number,
        total=2**32,
        squares=2**31 + number,
        numbers=[[float(number), 2.0, None]],
        own=labels,
        differing={'"a"': {"0 1": number}},
    )
    return replace(
        make_receipt(number),
        device="cuda" if number % 3 else "cpu",
        labels=asdict(labels),
        audit=asdict(audit),
        second_texts=number,
        second_s=0.25,
    )


@pytest.mark.parametrize("order", [1, -1])
def test_sums_of_two_sessions_are_those_over_the_receipts_of_both(order):
    receipts = [make_judged_receipt(number) for number in range(12)]
    whole, both = ReceiptSums(), ReceiptSums()
    for receipt in receipts:
        whole.add(receipt)
    halves = [ReceiptSums(), ReceiptSums()]
    for number, receipt in enumerate(receipts):
        halves[number >= 5].add(receipt)
    for half in halves[::order]:
        both.add_sums(half)
    samples_of = [(sums.numbers.items, sums.audit_numbers.items) for sums in (whole, both)]
    assert [sorted(numbers) for numbers in samples_of[0]] == [
        sorted(numbers) for numbers in samples_of[1]
    ]
    assert [len(numbers) for numbers in samples_of[0]] == [12, 12]
    both.numbers, both.audit_numbers = whole.numbers, whole.audit_numbers
    assert both == whole


@pytest.mark.parametrize("order", [1, -1])
def test_a_sample_of_two_sessions_has_the_rows_of_each_by_their_number(order):
    """One of 3,900 rows, of which it kept every 64th, and one of 99, of which it kept all."""
    long, short, both = Thinned(100), Thinned(100), Thinned(100)
    for sample, count in ((long, 3900), (short, 99)):
        for number in range(count):
            sample.add((count, number))
    for sample in (long, short)[::order]:
        both.join(sample)
    assert [len(sample.items) for sample in (long, short)] == [61, 99]
    assert sorted(both.items) == sorted([*long.items, (99, 0), (99, 64)])
    both.add((1, 0))
    assert len(both.items) == 63  # it is the 4,000th row, and every 64th is kept
    for number in range(6400):
        both.add((6400, number))
    assert len(both.items) <= 100


@pytest.mark.parametrize(("second_s", "share"), [(0.0, 0.0), (1.0, 0.25), (4.5, 1.0)])
def test_a_second_graph_takes_no_more_than_all_of_the_model_s_time(second_s, share):
    sums = ReceiptSums(second_s=second_s)
    assert sums.second_share == 0.0
    sums.phase_s["infer"] = 4.0
    assert sums.second_share == share


def test_what_an_actor_waits_between_two_jobs_is_no_part_of_either():
    """The last one is said to begin half a second before the one before it has ended."""
    actor = ActorTally()
    for start_s, end_s in ((1.0, 3.0), (4.5, 6.5), (6.0, 8.5)):
        actor.add_attempt(
            Attempt(
                node="n0",
                actor="host:0",
                job="prepare",
                name="slice 0",
                number=1,
                start_s=start_s,
                end_s=end_s,
                is_lost=False,
                phase_s={"read": 0.5},
            )
        )
    assert actor.seconds == {
        "reading": 3 * 0.5,
        "model load": 1.5,
        "waiting": 1.5,
        "hand-over": 1.5 + 1.5,
    }


def test_a_gpu_is_watched_from_one_end_of_the_model_to_the_next_however_short_that_is():
    tally = RunTally()
    for number, start in enumerate((0.0, 0.5, 0.5)):  # the last one ends where the second does
        receipt = make_receipt(number)
        phase_s = {"read": 0.125, "infer": 0.25}
        tally.add_receipt(replace(receipt, started_at=1e9 + start, gpu_busy=0.5, phase_s=phase_s))
    actor = tally.actors["", "host:0"]
    assert (actor.infer_s, actor.span_s) == (0.75, 0.75)
    assert (actor.gpu_busy_s, actor.gpu_watched_s) == (0.375, 0.75)


def test_an_attempt_whose_receipt_never_comes_is_in_the_timeline_without_rows():
    [(attempt, _)] = make_events(1, seed=3)
    scored = replace(attempt, job="score", is_lost=False)
    tally = RunTally()
    tally.add_attempt(scored)
    assert tally.attempts.attempts() == []
    tally.close()
    assert [(t.attempt, t.receipt) for t in tally.attempts.attempts()] == [(scored, None)]


def test_a_receipt_without_its_attempt_is_counted():
    tally = RunTally()
    tally.add_receipt(make_receipt(3, actor="host:0"))
    assert tally.scored.num_shards == 1
    assert tally.actors["", "host:0"].num_rows == make_receipt(3).num_rows


def test_of_a_long_run_little_is_kept_and_it_is_kept_evenly():
    tally = RunTally()
    num_shards = 60_000
    for number in range(num_shards):
        key = ACTORS[number % 4]
        receipt = make_receipt(number, actor=key[1])
        is_lost = number % 30 == 0
        attempt = Attempt(
            node=key[0],
            actor=key[1],
            job="score",
            name=receipt.shard,
            number=1,
            start_s=number / 4,
            end_s=number / 4 + 1,
            is_lost=is_lost,
            phase_s={},
        )
        tally.add_attempt(attempt)
        if not is_lost:
            tally.add_receipt(receipt)
    tally.close()
    kept = tally.attempts.attempts()
    lost = [timed for timed in kept if timed.attempt.is_lost]
    assert len(lost) == MAX_LOST
    assert MAX_ATTEMPTS / 2 < len(kept) - len(lost) <= MAX_ATTEMPTS
    assert tally.attempts.num_added == num_shards
    starts = [timed.attempt.start_s for timed in kept if not timed.attempt.is_lost]
    assert starts == sorted(starts)
    assert max(b - a for a, b in itertools.pairwise(starts)) < num_shards / 4 / 500
    assert MAX_PREDICTIONS / 2 < len(tally.predictions.items) <= MAX_PREDICTIONS


def test_of_many_actors_some_are_kept_whole():
    tally = RunTally()
    for number in range(30_000):
        receipt = make_receipt(number, actor=f"host:{number % 1000}")
        attempt = Attempt(
            node="n",
            actor=receipt.actor,
            job="score",
            name=receipt.shard,
            number=1,
            start_s=number // 1000,
            end_s=number // 1000 + 1.0,
            is_lost=False,
            phase_s={},
        )
        tally.add_attempt(attempt)
        tally.add_receipt(receipt)
    kept: dict[str, int] = {}
    for timed in tally.attempts.attempts():
        kept[timed.attempt.actor] = kept.get(timed.attempt.actor, 0) + 1
    assert len(kept) > 100
    assert set(kept.values()) == {30}


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 100), st.integers(0, 10_000)), max_size=50)
)
def test_no_token_is_lost_as_bins_get_wider(amounts):
    tally = RunTally()
    bins = tally._actor(("n", "a")).tokens
    for start_s, seconds, amount in amounts:
        bins.add(amount, start_s, start_s + seconds)
    assert sum(bins.amounts) == pytest.approx(sum(amount for _, _, amount in amounts))
    assert len(bins.amounts) * bins.bin_s >= max((s + d for s, d, _ in amounts), default=0)


def test_tokens_lie_where_their_time_was():
    bins = RunTally()._actor(("n", "a")).tokens
    bins.add(100, 1.0, 2.0)
    bins.add(0, 0.0, 100.0)  # makes bins of a second
    assert bins.bin_s == 1.0
    assert bins.amounts[1] == pytest.approx(100)
    bins.add(30, 2.5, 4.0)
    assert list(bins.amounts[2:5]) == pytest.approx([10, 20, 0])


def test_a_finished_shard_leaves_a_few_bytes(monkeypatch):
    """Sums, names that are done, and the table of slices together; samples are kept small here."""
    monkeypatch.setattr(samples, "MAX_ATTEMPTS", 64)
    monkeypatch.setattr(tally_module, "MAX_PREDICTIONS", 64)
    monkeypatch.setattr(shard_set, "_MIN_FRESH", 256)
    tally, done, table = RunTally(), ShardSet(), SliceTable()

    def finish(numbers):
        for number in numbers:
            node, actor = ACTORS[number % 4]
            receipt = make_receipt(number, actor=actor)
            tally.add_attempt(
                Attempt(
                    node=node,
                    actor=actor,
                    job="score",
                    name=receipt.shard,
                    number=1,
                    start_s=float(number),
                    end_s=number + 1.0,
                    is_lost=False,
                    phase_s=receipt.phase_s,
                )
            )
            tally.add_receipt(receipt)
            done.add(receipt.shard)
            if number % 3 == 2:
                shards = tuple(make_shard(number - 2 + place) for place in range(3))
                cut = SliceReceipt(
                    index=number // 3,
                    first_shard=0,
                    shards=shards,
                    rest=None,
                    phase_s={},
                )
                tally.add_slice(cut)
                table.add(cut, cut.key)

    tracemalloc.start()
    finish(range(1000))
    before, _ = tracemalloc.get_traced_memory()
    finish(range(1000, 9000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(done) == 9000
    assert (after - before) / 8000 < 80
