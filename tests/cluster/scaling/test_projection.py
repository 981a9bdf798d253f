"""The simulation's inputs are those that were measured; what limits it is said."""

import numpy as np
import pytest

from fastformers.cluster.scaling.cluster_model import Scheduling
from fastformers.cluster.scaling.measure import STRONG, Machine, MeasuredRun, PointPlan
from fastformers.cluster.scaling.projection import (
    MeasuredInputs,
    ProjectionSettings,
    find_limit,
    num_shards_of,
    plan_numbers,
    project,
    simulate_turn,
)
from fastformers.cluster.scaling.summary import check_simulation, is_believed
from fastformers.cluster.shards.layout import MAX_SHARD_SECONDS, plan_num_shards, plan_shard_seconds
from fastformers.errors import InputError

NODE = Machine(instance_type=None, num_cores=4)
WORK = np.random.default_rng(1).uniform(1.6, 2.4, 80)


def make_plan(actors, nodes=1):
    return PointPlan(kind=STRONG, actors=actors, nodes=nodes, num_shares=4, of_shares=4)


def make_run(actors, *, ratio, nodes=1, num_lost=0, end_s=None):
    seconds = WORK * ratio
    per_actor = [seconds[actor::actors].sum() for actor in range(actors)]
    return MeasuredRun(
        machines=(NODE,) * nodes,
        rate=actors / ratio,
        job_rate=0.9 * actors / ratio,
        work_end_s=end_s or 3.0 + max(per_actor),
        startups_s=tuple(3.0 for _ in range(actors)),
        predicted_s=tuple(WORK.tolist()),
        seconds=tuple(seconds.tolist()),
        num_lost=num_lost,
        actor_s=1800.0,
    )


@pytest.fixture
def inputs():
    """One actor, four on a node, eight on two: fuller nodes are slower."""
    runs = {
        make_plan(1): [make_run(1, ratio=1.0)],
        make_plan(4): [make_run(4, ratio=1.25, num_lost=1)],
        make_plan(8, nodes=2): [make_run(8, ratio=1.25, nodes=2)],
    }
    return MeasuredInputs(runs, Scheduling(late_factor=2.0))


def no_log(line):
    """Show nothing."""


def test_shards_take_what_they_took_on_nodes_that_were_as_full(inputs):
    assert inputs.actors_per_node == 4
    assert np.median(inputs.ratios(1)) == pytest.approx(1.0)
    assert np.median(inputs.ratios(3)) == pytest.approx(1.0)
    assert np.median(inputs.ratios(4)) == pytest.approx(1.25)
    assert np.median(inputs.ratios(64)) == pytest.approx(1.25)
    assert set(inputs.startups_s(4)) == {3.0}
    assert inputs.failures_per_hour == pytest.approx(1 / 1.5)


def test_a_turn_is_simulated_from_its_own_shards_and_starts():
    run = make_run(4, ratio=1.25)
    best = 3.0 + sum(run.seconds) / 4
    assert best <= simulate_turn(make_plan(4), run, Scheduling()) <= 1.03 * best


def test_a_simulation_that_is_off_is_not_believed():
    good = {make_plan(1): [make_run(1, ratio=1.0)] * 3}
    (checked,) = check_simulation(good, Scheduling())
    assert checked.error == pytest.approx(0.0, abs=1e-6)
    assert is_believed([checked])
    waited = {make_plan(1): [make_run(1, ratio=1.0, end_s=1.1 * checked.measured_s)] * 3}
    (checked,) = check_simulation(waited, Scheduling())
    assert checked.error == pytest.approx(1 / 1.1 - 1)
    assert not is_believed([checked])


def test_the_simulated_job_has_the_shards_that_the_planner_would_cut():
    seconds_per_token = 1e-4
    for actors in (2, 100, 10_000):
        work_s = num_shards_of(actors) * MAX_SHARD_SECONDS
        text_bytes = round(work_s / seconds_per_token * 4.5)
        assert plan_shard_seconds(text_bytes, seconds_per_token) == MAX_SHARD_SECONDS
        assert plan_num_shards(text_bytes, seconds_per_token) == num_shards_of(actors)


def test_numbers_double_to_the_one_asked_for():
    assert plan_numbers(1) == [1]
    assert plan_numbers(8) == [1, 2, 4, 8]
    assert plan_numbers(10) == [1, 2, 4, 8, 10]


def test_more_actors_bring_more_until_something_limits_them(inputs):
    settings = ProjectionSettings(simulate=64, interruptions_per_hour=0.0)
    projected = project(inputs, settings, WORK, no_log)
    assert [each.actors for each in projected] == plan_numbers(64)
    assert [each.nodes for each in projected] == [1, 1, 1, 2, 4, 8, 16]
    assert projected[0].rate == pytest.approx(1.0, rel=0.02)
    assert projected[-1].rate == pytest.approx(64 / 1.25, rel=0.05)
    assert all(each.job_rate < each.rate for each in projected)
    few = ProjectionSettings(simulate=64, interruptions_per_hour=0.0, requests_per_second=4.0)
    slow = project(inputs, few, WORK, no_log)[-1]
    assert slow.rate == pytest.approx(MAX_SHARD_SECONDS, rel=0.1)  # a shard a second: 4 requests
    assert find_limit(inputs, few, WORK).startswith("the store")
    assert "what actors of one node share" in find_limit(inputs, settings, WORK)


def test_a_driver_that_is_too_slow_is_named(inputs):
    inputs.scheduling = Scheduling(shard_s=1.0)
    settings = ProjectionSettings(simulate=64, interruptions_per_hour=0.0)
    assert find_limit(inputs, settings, WORK).startswith("the driver: without it")


def test_larger_nodes_are_fewer(inputs):
    settings = ProjectionSettings(simulate=32, actors_per_node=16)
    assert project(inputs, settings, WORK, no_log)[-1].nodes == 2


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"simulate": 0}, "--simulate 0"),
        ({"actors_per_node": 0}, "--actors-per-node 0"),
        ({"interruptions_per_hour": -1.0}, "--interruptions-per-hour -1"),
        ({"request_s": -0.1}, "--request-s -0.1"),
        ({"requests_per_second": 0.0}, "--requests-per-second 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_their_flag(changes, flag):
    with pytest.raises(InputError, match=flag):
        ProjectionSettings(**changes)
