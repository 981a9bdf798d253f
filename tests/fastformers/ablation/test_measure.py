import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from fastformers.ablation.measure import (
    Ablation,
    AblationStep,
    Timing,
    measure_ablation,
    usd_per_100m,
)
from fastformers.ablation.summary import summarize
from fastformers.cluster.pricing.prices import usd_of, usd_per_million

# arXiv:2010.13382, Table 3: BoolQ's 3,270 texts at 0.677 USD an hour.
PAPER_S = (734.35, 209.29, 22.5, 9.97, 5.68, 4.11, 3.14)
PAPER_CUMULATIVE = (1.0, 3.51, 32.64, 73.66, 129.29, 178.67, 233.87)
PAPER_USD = (4223, 1204, 129, 57, 33, 24, 18)


def step(seconds, *, name="step", logits_NC=None, **changes):
    """A step whose runs take the given seconds, one after the other, or the same each time."""
    runs = iter(seconds) if isinstance(seconds, list) else itertools.repeat(seconds)
    fields = {
        "num_tokens": 10,
        "timed_rows": 1,
        "tokenization_s": 0.5,
        "note": "made up",
        **changes,
    }
    return AblationStep(
        name=name, run=lambda tick: Timing(seconds=next(runs), logits_NC=logits_NC), **fields
    )


def ablation_of(*steps, num_rows=4, labels_N=None):
    return Ablation(
        steps=steps,
        lengths_N=np.arange(1, num_rows + 1),
        labels_N=labels_N,
        description="made up",
    )


def measure(ablation, **changes):
    return measure_ablation(ablation, **{"usd_per_hour": 0.677, "repeats": 1, **changes})


def test_the_papers_seconds_give_the_papers_table(conditions):
    ablation = ablation_of(*map(step, PAPER_S), num_rows=3270)
    results = measure(ablation)
    assert [r.cumulative for r in results] == pytest.approx(PAPER_CUMULATIVE, rel=2e-3)
    assert tuple(round(r.usd_per_100m) for r in results) == PAPER_USD
    summary = summarize(results, ablation, conditions)
    assert summary.speedup == pytest.approx(233.87, rel=1e-4)
    assert summary.speedup_unpadded == pytest.approx(66.7, rel=1e-3)
    assert summary.speedup_with_tokenization == pytest.approx(734.85 / 3.64)
    assert summary.headline.startswith("233.9x over PyTorch padded to the maximum, 66.7x over")


@pytest.mark.parametrize("seconds", PAPER_S)
def test_a_price_is_that_of_the_clusters_bill(seconds):
    usd = usd_of(seconds, usd_per_hour=0.677)
    mine = usd_per_100m(seconds, num_rows=3270, usd_per_hour=0.677)
    assert mine == pytest.approx(100 * usd_per_million(usd, 3270))


def test_each_step_is_against_the_one_before_and_an_aside_is_no_step(conditions):
    ablation = ablation_of(step(8.0), step(4.0), step(1.0, is_aside=True), step(2.0))
    results = measure(ablation)
    assert [r.cumulative for r in results] == [1, 2, 8, 4]
    assert [r.step for r in results] == [1, 2, 4, 2]
    # The aside does not end the ablation.
    assert summarize(results[:3], ablation, conditions).speedup == 2
    assert summarize(results, ablation, conditions).speedup == 4


def test_the_median_run_counts_and_every_run_is_kept():
    seen = []
    results = measure(ablation_of(step([5.0, 1.0, 2.0])), repeats=3, on_result=seen.append)
    assert (results[0].seconds, results[0].runs_s) == (2.0, (5.0, 1.0, 2.0))
    assert results[0].total_s == 2.5
    assert seen == results


def test_accuracy_is_that_of_the_logits_and_absent_without_labels():
    logits_NC = np.array([[2, 1], [1, 2], [3, 0], [0, 3]], np.float32)
    labels_N = np.array([0, 1, 1, 1])
    results = measure(ablation_of(step(1.0, logits_NC=logits_NC), labels_N=labels_N))
    assert results[0].accuracy == 0.75
    assert measure(ablation_of(step(1.0)))[0].accuracy is None


def test_without_text_there_is_no_total(conditions):
    ablation = ablation_of(step(2.0, tokenization_s=None), step(1.0, tokenization_s=None))
    results = measure(ablation)
    assert [r.total_s for r in results] == [None, None]
    summary = summarize(results, ablation, conditions)
    assert summary.speedup_with_tokenization is None
    assert summary.speedup_unpadded_with_tokenization is None
    assert "tokenization" not in summary.headline


def test_progress_counts_the_tokens_of_all_runs_of_a_step():
    def run(on_tokens):
        on_tokens(2)
        on_tokens(3)
        return Timing(seconds=1.0, logits_NC=None)

    ticking = replace(step(1.0, name="slow"), run=run, num_tokens=5)
    seen = []
    measure(
        ablation_of(step(1.0), ticking),
        on_progress=lambda *progress: seen.append(progress),
        repeats=2,
    )
    assert seen == [("step 2 of 2, slow", done, 10) for done in (2, 5, 7, 10)]


def test_instances_report_their_tokens_one_after_the_other():
    def run(on_tokens):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(on_tokens, [1] * 20))
        return Timing(seconds=1.0, logits_NC=None)

    seen = []
    is_called = threading.Lock()

    def on_progress(what, done, total):
        assert is_called.acquire(blocking=False), "called by two threads at once"
        time.sleep(0.001)  # lets other threads in, unless they are locked out
        seen.append(done)
        is_called.release()

    measure(ablation_of(replace(step(1.0), run=run, num_tokens=20)), on_progress=on_progress)
    assert seen == list(range(1, 21))


def test_a_scaled_step_keeps_the_error_of_its_median_run(conditions):
    runs = iter([Timing(seconds=s, logits_NC=None, standard_error_s=s / 10) for s in (9, 5, 7)])
    scaled = replace(step(1.0), run=lambda tick: next(runs))
    results = measure(ablation_of(scaled, step(2.0)), repeats=3)
    assert [(r.seconds, r.standard_error_s) for r in results] == [(7, 0.7), (2, None)]
    assert [(r.timed_rows, r.rows) for r in results] == [(1, 4), (1, 4)]
