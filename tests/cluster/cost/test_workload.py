"""Estimates against the truth: whole samples are exact, and intervals of 95% hold."""

from dataclasses import replace

import numpy as np
import pytest

from fastformers.cluster.cost.machine_profile import profile_of_bundle
from fastformers.cluster.cost.sampling import CorpusSample, Window
from fastformers.cluster.cost.workload import (
    estimate_share_s,
    estimate_workload,
    expected_batches,
    student_t,
)
from fastformers.errors import InputError
from fastformers.inference.batching import plan_batches
from fastformers.inference.cascade.record import ShareByLength


def estimate(sample, bundle, **options):
    profile = profile_of_bundle(bundle)
    return estimate_workload(sample, profile, shards_by=bundle.cost_profile, **options)


def true_totals(rows, bundle):
    texts = [row["text"] for row in rows if row["text"]]
    lengths = bundle.load_tokenizer().encode(texts).lengths_N
    return len(rows), int(lengths.sum()), float(bundle.cost_profile.estimate_seconds(lengths).sum())


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv", "a.csv.gz"])
def test_a_whole_sample_is_exact(name, tmp_path, rows, bundle, write_rows, take):
    path = write_rows(tmp_path / name, rows, row_group_size=400)
    sample = take(path, bundle, size=1.0, num_shards=1)
    work = estimate(sample, bundle)
    num_rows, tokens, _ = true_totals(rows, bundle)
    assert len(sample.windows) == sample.num_windows
    assert sample.num_rows == sum(window.num_rows for window in sample.windows) == num_rows
    assert work.rows.low == pytest.approx(work.rows.value) == work.rows.high == num_rows
    assert work.tokens.value == pytest.approx(tokens)
    assert work.tokens.high - work.tokens.low == pytest.approx(0, abs=1e-6 * tokens)
    assert work.bad_share == pytest.approx(sum(not row["text"] for row in rows) / num_rows)
    assert sum(work.histogram.values()) == pytest.approx(sum(bool(row["text"]) for row in rows))
    different = len({row["text"] for row in rows if row["text"]})
    good = sum(bool(row["text"]) for row in rows)
    assert work.repeat_share.value == pytest.approx(1 - different / good)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_intervals_hold_the_truth_as_often_as_they_say(
    name, tmp_path, rows, bundle, write_rows, take
):
    path = write_rows(tmp_path / name, rows, row_group_size=1000)
    num_rows, tokens, _ = true_totals(rows, bundle)
    whole = estimate(take(path, bundle, size=1.0), bundle)
    held = {"tokens": 0, "infer": 0, "rows": 0}
    errors = []
    for seed in range(20):
        work = estimate(take(path, bundle, size=0.1, seed=seed), bundle)
        held["tokens"] += work.tokens.low <= tokens <= work.tokens.high
        held["infer"] += work.infer_s.low <= whole.infer_s.value <= work.infer_s.high
        held["rows"] += work.rows.low <= num_rows <= work.rows.high
        errors.append(work.tokens.value / tokens - 1)
    assert min(held.values()) >= 18, held  # 19 expected; the draw is stratified, so rather more
    assert abs(np.mean(errors)) < 0.02
    assert 0 < np.std(errors) < 0.1


@pytest.mark.parametrize("rows_per_shard", [50, 400, 3000])
@pytest.mark.parametrize("budget", [64, 512])
def test_batches_are_expected_as_shards_form_them(rows_per_shard, budget):
    rng = np.random.default_rng(3)
    lengths = (2 + rng.geometric(1 / 30, (20_000,))).clip(2, 120)
    planned = sum(
        len(plan_batches(shard, max_batch_tokens=budget))
        for shard in np.split(lengths[:18_000], 18_000 // rows_per_shard)
    )
    sample = rng.choice(lengths, 1000, replace=False)
    batches_L = expected_batches(sample, rows_per_shard=rows_per_shard, max_batch_tokens=budget)
    assert batches_L[sample].mean() == pytest.approx(planned / 18_000, rel=0.2)


def test_a_row_of_its_own_length_is_always_alone():
    batches_L = expected_batches(np.array([5, 9, 9]), rows_per_shard=1, max_batch_tokens=512)
    assert batches_L[[5, 9]].tolist() == [1.0, 1.0]
    batches_L = expected_batches(np.full(9, 4), rows_per_shard=4000, max_batch_tokens=64)
    assert batches_L[4] == pytest.approx(1 / 16, rel=0.01)


def test_repeats_are_counted_within_a_shard(tmp_path, bundle, write_rows, take):
    rows = [{"text": f"cat {number // 2 % 500}"} for number in range(8000)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=8000)
    work = estimate(take(path, bundle, size=0.05, num_shards=80), bundle)
    assert work.repeat_share.value == pytest.approx(0.5, abs=0.02)
    assert work.scored_tokens.value == pytest.approx(work.tokens.value / 2, rel=0.2)


@pytest.mark.parametrize("texts", [["a cat"], ["a cat", "the dog sat on the mat"]])
def test_a_few_texts_that_fill_a_corpus_are_costed(texts, tmp_path, bundle, write_rows, take):
    """Of 400 rows of a window, five are tokenized: seldom the first row of a text."""
    rows = [{"text": texts[number % len(texts)]} for number in range(16_000)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=400)
    lengths = bundle.load_tokenizer().encode(texts).lengths_N
    cascade = ShareByLength(lengths=(4.0, 12.0), shares=(0.75, 0.25))
    for seed in range(3):
        sample = take(path, bundle, size=200, num_shards=40, seed=seed)
        work = estimate(sample, bundle, goes_on=cascade)
        assert work.repeat_share.value == pytest.approx(1 - len(texts) / 400)
        assert work.scored_tokens.value == pytest.approx(40 * lengths.sum(), rel=0.25)
        assert work.infer_s.value > 0
        assert work.relative_error < 0.5
        assert work.second_share == pytest.approx(cascade.at(lengths).mean(), rel=0.25)


def test_a_text_is_scored_once_however_many_of_its_rows_are_drawn(
    tmp_path, bundle, write_rows, take
):
    """Each text is in a shard twice, so that three quarters have a row drawn where half are."""
    rows = [{"text": f"cat {number // 2 % 500}"} for number in range(8000)]
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=8000)
    sample = take(path, bundle, size=0.05, num_shards=80)
    work, profile = estimate(sample, bundle), profile_of_bundle(bundle)
    for share, chance in ((0.5, 0.75), (1.0, 1.0)):
        audit_s = estimate_share_s(sample, profile, work, share=share)
        assert audit_s.value == pytest.approx(chance * work.infer_s.value, rel=0.03)


def test_more_rows_cost_in_proportion_and_stay_uncertain(tmp_path, rows, bundle, write_rows, take):
    path = write_rows(tmp_path / "a.parquet", rows, row_group_size=1000)
    sample = take(path, bundle, size=1.0)
    here, there = estimate(sample, bundle), estimate(sample, bundle, rows=3_000_000)
    assert there.rows.value == 3_000_000
    assert there.tokens.value == pytest.approx(1000 * here.tokens.value)
    assert here.relative_error == pytest.approx(0, abs=1e-6)
    assert there.relative_error > 0.01
    assert there.num_shards > here.num_shards


def test_a_tiny_corpus_is_read_whole(tmp_path, bundle, write_rows, take):
    path = write_rows(tmp_path / "a.parquet", [{"text": "a cat"}, {"text": "a cat"}])
    work = estimate(take(path, bundle), bundle)
    assert (work.rows.value, work.tokens.value, work.sampled_rows) == (2, 8, 2)
    assert work.tokens.low == work.tokens.high


def test_a_corpus_without_text_is_refused(tmp_path, bundle, write_rows, take):
    path = write_rows(tmp_path / "a.parquet", [{"text": " "}] * 5)
    with pytest.raises(InputError, match="no sampled row holds a usable text"):
        estimate(take(path, bundle), bundle)
    window = Window(
        size=1,
        num_rows=0,
        num_bad=0,
        num_unique=0,
        lengths_S=np.zeros(0, np.int64),
        is_first_S=np.zeros(0, bool),
    )
    sample = CorpusSample(
        windows=(window,),
        total_size=1,
        num_windows=1,
        is_rows=True,
        text_bytes=0,
        max_length=8,
    )
    with pytest.raises(InputError, match="hold no rows"):
        estimate(sample, bundle)


def test_the_profile_decides_the_seconds(tmp_path, rows, bundle, write_rows, take):
    sample = take(write_rows(tmp_path / "a.parquet", rows), bundle)
    profile = profile_of_bundle(bundle)
    slow = replace(
        profile,
        cost=replace(
            profile.cost, seconds_per_row=tuple(3 * s for s in profile.cost.seconds_per_row)
        ),
        tokenize_s_per_token=2.0,
        overhead_share=0.5,
    )
    work = estimate_workload(sample, slow, shards_by=bundle.cost_profile)
    usual = estimate(sample, bundle)
    assert work.infer_s.value == pytest.approx(3 * usual.infer_s.value)
    assert work.tokenize_s == pytest.approx(2 * work.tokens.value)
    assert work.core_s == pytest.approx(1.5 * work.infer_s.value + work.tokenize_s)
    assert work.num_shards == usual.num_shards


def test_an_interval_that_ends_at_nothing_is_as_wide_as_it_reaches_up(bundle):
    """One of 32 windows has nearly all of the work."""
    sample = windows_of(*[2] * 31, 60, num_windows=800)
    steep = replace(bundle.cost_profile, seconds_per_row=(1e-6, 1e-2))
    profile = replace(profile_of_bundle(bundle), cost=steep)
    work = estimate_workload(sample, profile, shards_by=steep)
    assert work.infer_s.low == 0
    assert work.relative_error == pytest.approx(work.infer_s.high / work.infer_s.value - 1)
    assert work.relative_error > 1


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(5, 2.5706), (10, 2.2281), (31, 2.0395), (1000, 1.9623)]
)
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, rel=2e-3)


def test_three_degrees_are_assumed_where_there_are_fewer():
    assert student_t(1) == student_t(3) == pytest.approx(3.1824, rel=0.01)


def windows_of(*lengths, num_windows):
    """Windows of 100 rows, of each of which ten were tokenized: half one token shorter."""
    windows = [
        Window(
            size=100,
            num_rows=100,
            num_bad=0,
            num_unique=100,
            lengths_S=np.array([length - 1, length + 1] * 5),
            is_first_S=np.ones(10, bool),
        )
        for length in lengths
    ]
    return CorpusSample(
        windows=tuple(windows),
        total_size=100 * num_windows,
        num_windows=num_windows,
        is_rows=True,
        text_bytes=1000,
        max_length=16,
    )


@pytest.mark.parametrize(
    ("num_windows", "between", "freedom"),
    [(3, 0.0, 30 - 3), (12, 0.75 * 3 / 2 * (200**2 + 200**2), 2)],
)
def test_a_total_has_the_interval_of_two_stages(bundle, num_windows, between, freedom):
    """Cochran, Sampling Techniques, 11.22: of three windows with 600, 800 and 1,000 tokens."""
    sample = windows_of(6, 8, 10, num_windows=num_windows)
    tokens = estimate(sample, bundle).tokens
    of_window = 100**2 * (1 - 10 / 100) * (10 / 9) / 10
    variance = between + 3 / num_windows * 3 * of_window
    half = student_t(freedom) * variance**0.5 * num_windows / 3
    value = 800 * num_windows
    assert (tokens.value, tokens.low, tokens.high) == pytest.approx(
        (value, max(0.0, value - half), value + half)
    )


def repeats_in(bundle, *repeats, num_windows):
    """Share of repeats in windows of a hundred good rows and a bad one."""
    windows = [
        Window(
            size=101,
            num_rows=101,
            num_bad=1,
            num_unique=100 - number,
            lengths_S=np.full(10, 4),
            is_first_S=np.ones(10, bool),
        )
        for number in repeats
    ]
    sample = CorpusSample(
        windows=tuple(windows),
        total_size=101 * num_windows,
        num_windows=num_windows,
        is_rows=True,
        text_bytes=1000,
        max_length=8,
    )
    return estimate(sample, bundle).repeat_share


def test_the_share_of_repeats_has_the_interval_of_a_ratio_of_windows(bundle):
    """Cochran, Sampling Techniques, 6.4: residuals of -5, -15, 15 and 5 rows of a mean of 25."""
    share = repeats_in(bundle, 20, 10, 40, 30, num_windows=16)
    variance = 4 * (25 + 225 + 225 + 25) / 3 * (1 - 4 / 16)
    half = student_t(3) * variance**0.5 / 400
    assert (share.value, share.low, share.high) == pytest.approx((0.25, 0.25 - half, 0.25 + half))


def test_repeats_are_known_where_all_windows_are_read_and_end_at_none_and_all(
    bundle,
):
    whole = repeats_in(bundle, 20, 10, 40, 30, num_windows=4)
    assert whole.low == whole.value == whole.high == 0.25
    one = repeats_in(bundle, 20, num_windows=16)
    assert one.low == one.value == one.high == 0.2
    none, nearly_all = (repeats_in(bundle, *pair, num_windows=9) for pair in ((0, 3), (99, 90)))
    assert (none.low, nearly_all.high) == (0.0, 1.0)
    assert 0 < none.value < none.high < nearly_all.low < nearly_all.value < 1
