"""Random plans against truths that are drawn anew; `trials.py` draws two hundred."""

from tests.cluster.cost.planning.trials import run_trial, summarize


def test_plans_hold_and_cost_little_more_than_they_must():
    results = [run_trial(seed, num_runs=6, finds_cheapest=seed < 6) for seed in range(20)]
    summary = summarize(results)
    assert summary["missed_share"] <= 0.05
    assert summary["median_runs_missed"] == 0
