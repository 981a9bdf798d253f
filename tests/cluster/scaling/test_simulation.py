"""The simulation against what can be worked out by hand, and what it must notice."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.cluster.scaling.cluster_model import Machines, Scheduling, Store, Work, work_after
from fastformers.cluster.scaling.simulation import simulate

EXACT = np.ones(1)
SPREAD = np.exp(0.3 * np.random.default_rng(0).standard_normal(4096) - 0.3**2 / 2)


def equal_shards(num, seconds=2.0, ratios=EXACT, **slices):
    return Work(predicted_s=np.full(num, seconds), ratios=ratios, **slices)


def one_node(num_actors, **changes):
    return Machines(num_actors=num_actors, actors_per_node=num_actors, **changes)


def efficiency(run, machines):
    """Share of the actors' time after all were up that they worked."""
    return run.window_work_s / (run.wall_s - run.up_s) / machines.num_actors


def test_one_actor_takes_the_sum_of_its_shards():
    work = Work(predicted_s=np.array([3.0, 2.0, 0.5]), ratios=np.array([1.1]))
    run = simulate(work, one_node(1, actor_startup_s=(4.0,)))
    assert run.wall_s == pytest.approx(4 + 1.1 * 5.5)
    assert (run.up_s, run.num_shards) == (4.0, 3)
    assert run.work_s == run.window_work_s == pytest.approx(5.5)


@pytest.mark.parametrize(("num_actors", "per_node"), [(2, 2), (16, 4), (100, 16), (33, 8)])
def test_equal_shards_take_whole_rounds(num_actors, per_node):
    machines = Machines(num_actors=num_actors, actors_per_node=per_node)
    for rounds in (1, 10):
        run = simulate(equal_shards(rounds * num_actors), machines)
        assert run.wall_s == pytest.approx(2.0 * rounds)
    assert simulate(equal_shards(10 * num_actors + 1), machines).wall_s == pytest.approx(22.0)


def test_the_costliest_shards_first_leave_little_at_the_end():
    """Graham 1969: costliest first takes at most 4/3 - 1/(3 m) of the best."""
    seconds = np.sort(np.random.default_rng(5).uniform(1, 10, 60))[::-1]
    best = max(seconds.sum() / 7, seconds[0])
    first = simulate(Work(predicted_s=seconds, ratios=EXACT), one_node(7), Scheduling())
    assert best <= first.wall_s <= (4 / 3 - 1 / 21) * best


def test_a_driver_is_a_server_that_handles_one_shard_after_the_other():
    """100 actors whose shards take no time: the wall is what driver and supervisors compute."""
    work, machines = equal_shards(20_000, 1e-6), Machines(num_actors=100, actors_per_node=10)
    run = simulate(work, machines, Scheduling(shard_s=1e-3))
    assert run.wall_s == pytest.approx(20.0, rel=0.01)
    assert run.driver_busy == pytest.approx(1.0, abs=0.01)
    run = simulate(work, machines, Scheduling(supervisor_shard_s=1e-3))
    assert run.wall_s == pytest.approx(2.0, rel=0.02)


def test_deterministic_service_behind_one_server_is_that_of_its_slower_part():
    """m actors of service D behind a server of S a shard do min(m / D, 1 / S) shards a second."""
    for num_actors in (5, 20, 40, 80):
        machines = one_node(num_actors)
        scheduling = Scheduling(supervisor_shard_s=0.05)
        run = simulate(equal_shards(4000, 1.0), machines, scheduling)
        assert 4000 / run.wall_s == pytest.approx(min(num_actors, 20), rel=0.05)


def test_a_driver_that_costs_more_makes_actors_wait():
    machines = Machines(num_actors=1000, actors_per_node=20)
    work = equal_shards(20_000, 2.0, SPREAD)
    found = [
        efficiency(simulate(work, machines, Scheduling(shard_s=cost, ahead_s=1.0)), machines)
        for cost in (0.0, 50e-6, 1e-3, 4e-3)
    ]
    assert found[0] > 0.9
    assert found[1:3] == pytest.approx([found[0]] * 2, abs=0.02)  # 500 a second at 1 ms: idle yet
    assert found[3] == pytest.approx(1 / (4e-3 * 1000 / 2), rel=0.05)  # all time is the driver's


def test_a_store_that_takes_few_requests_is_the_limit():
    work, machines = equal_shards(2000, 1.0), Machines(num_actors=50, actors_per_node=10)
    slow = Store(requests_per_second=60, requests_per_shard=3)
    assert simulate(work, machines, store=slow).wall_s == pytest.approx(100.0, rel=0.02)
    assert simulate(work, machines).wall_s == pytest.approx(40.0)


def test_reading_ahead_hides_the_latency_of_the_store_and_nothing_else_does():
    work, machines, far = equal_shards(200, 1.0), one_node(2), Store(latency_s=0.5)
    ahead = simulate(work, machines, Scheduling(jobs_in_hand=2), far).wall_s
    alone = simulate(work, machines, Scheduling(jobs_in_hand=1), far).wall_s
    assert alone == pytest.approx(150.0)
    assert ahead == pytest.approx(100.0, abs=2.0)


def test_slices_are_cut_first_and_their_time_is_shared():
    work = equal_shards(400, 1.0, num_slices=40, slice_s=2.0)
    run = simulate(work, one_node(4))
    assert run.wall_s == pytest.approx((400 + 80) / 4, rel=0.02)
    few = simulate(dataclasses.replace(work, num_slices=1, slice_s=80.0), one_node(4))
    assert few.wall_s == pytest.approx(80 + 100, rel=0.02)  # one actor cuts, the others wait


def test_a_lost_node_s_work_is_done_again_and_costs_what_it_lost():
    work = equal_shards(4000, 10.0)
    calm = Machines(num_actors=40, actors_per_node=4, node_startup_s=(60.0,))
    shaky = dataclasses.replace(calm, interruptions_per_hour=20.0, noticed_after_s=10.0)
    quiet, run = simulate(work, calm), simulate(work, shaky)
    assert (quiet.interruptions, quiet.lost_s) == (0, 0.0)
    assert run.num_shards == 4000
    assert run.interruptions == pytest.approx(9 * 20 / 3600 * run.wall_s, rel=0.4)
    assert run.lost_s == pytest.approx(run.interruptions * 4 * 5.0, rel=0.4)
    absent_s = run.interruptions * 4 * 60.0
    assert 40 * run.wall_s == pytest.approx(40 * 60 + 40_000 + run.lost_s + absent_s, rel=0.05)


def test_a_lost_bundle_has_lost_only_the_shard_that_it_was_at():
    """Bundles of 20 shards of 10 s, of which those before the last are on disk."""
    shaky = Machines(
        num_actors=40, actors_per_node=4, node_startup_s=(60.0,), interruptions_per_hour=20.0
    )
    single = simulate(equal_shards(4000, 10.0), shaky, Scheduling(jobs_in_hand=1))
    bundles = Work(predicted_s=np.full(200, 200.0), ratios=EXACT, counts=np.full(200, 20, np.int64))
    run = simulate(bundles, shaky, Scheduling(jobs_in_hand=1))
    assert run.num_shards == 200
    assert run.work_s == 40_000
    assert run.lost_s / run.interruptions == pytest.approx(4 * 5.0, rel=0.4)
    assert run.wall_s == pytest.approx(single.wall_s, rel=0.15)


def test_a_bundle_takes_the_mean_of_its_shards():
    work = Work(predicted_s=np.full(2, 400.0), ratios=SPREAD, counts=np.full(2, 400, np.int64))
    for seed in range(5):
        run = simulate(work, one_node(2), seed=seed)
        assert run.wall_s == pytest.approx(400.0, rel=0.06)  # one draw spreads by 30%


def test_actors_that_die_lose_their_shard_and_start_again():
    machines = one_node(4, failures_per_hour=60.0, actor_startup_s=(5.0,))
    run = simulate(equal_shards(400, 6.0), machines)
    # A shard of 6 s at a death a minute takes (e^(6/60) - 1) 60 s, and 5 s for each death.
    expected = (math.exp(0.1) - 1) * (60 + 5) * 100
    assert run.wall_s == pytest.approx(5 + expected, rel=0.06)
    assert run.lost_s > 0


def test_a_straggler_s_last_shard_is_done_by_another():
    """An actor at a tenth of the others' pace would hold the job for ten shards' time."""
    machines = one_node(8, slow_share=0.125, slow_factor=10.0)
    work = equal_shards(400, 4.0)
    waiting, helped = [], []
    for seed in range(8):
        waiting.append(simulate(work, machines, seed=seed).wall_s)
        helped.append(simulate(work, machines, Scheduling(late_factor=2.0), seed=seed).wall_s)
    assert sum(helped) < 0.95 * sum(waiting)
    assert all(after <= before + 1e-9 for after, before in zip(helped, waiting, strict=True))


def test_a_share_that_another_node_keeps_is_taken_back():
    """Both nodes are given plenty, and one of them is slow."""
    slow = Machines(num_actors=2, actors_per_node=1, slow_share=0.5, slow_factor=8.0)
    runs = [
        simulate(equal_shards(90), slow, Scheduling(ahead_s=60.0), seed=seed) for seed in range(12)
    ]
    one_slow = [run for run in runs if 95 < run.wall_s < 179]
    assert one_slow
    assert max(run.wall_s for run in one_slow) < 180 * 8 / 9 + 3 * 16


machines_of = st.builds(
    Machines,
    num_actors=st.integers(1, 40),
    actors_per_node=st.integers(1, 9),
    node_startup_s=st.just((1.0, 5.0)),
    actor_startup_s=st.just((0.5, 3.0)),
    node_sigma=st.sampled_from([0.0, 0.3]),
    slow_share=st.sampled_from([0.0, 0.2]),
    slow_factor=st.just(7.0),
    interruptions_per_hour=st.sampled_from([0.0, 30.0]),
    failures_per_hour=st.sampled_from([0.0, 30.0]),
    noticed_after_s=st.sampled_from([0.0, 10.0]),
)
schedulings = st.builds(
    Scheduling,
    lease_s=st.sampled_from([0.0, 0.01]),
    shard_s=st.sampled_from([0.0, 0.01]),
    supervisor_shard_s=st.sampled_from([0.0, 0.01]),
    latency_s=st.sampled_from([0.0, 0.1]),
    report_within_s=st.sampled_from([0.0, 0.25]),
    wait_s=st.sampled_from([2.0, math.inf]),
    jobs_in_hand=st.integers(1, 2),
    ahead_s=st.sampled_from([0.0, 20.0]),
    late_factor=st.sampled_from([1.5, math.inf]),
)


@settings(deadline=None, max_examples=300)
@given(machines_of, schedulings, st.integers(1, 300), st.integers(0, 20), st.integers(0, 5))
def test_every_shard_is_done_once_whatever_fails(machines, scheduling, shards, slices, seed):
    work = equal_shards(shards, 2.0, SPREAD, num_slices=min(slices, shards), slice_s=1.0)
    run = simulate(work, machines, scheduling, seed=seed)
    assert run.num_shards == shards
    assert run.work_s == pytest.approx(2.0 * shards)
    assert 0 <= run.window_work_s <= run.work_s + 1e-9
    assert run.wall_s * machines.num_actors >= 0.2 * run.work_s
    assert run == simulate(work, machines, scheduling, seed=seed)


def test_another_seed_is_another_run():
    work, machines = equal_shards(100, 2.0, SPREAD), one_node(3)
    assert simulate(work, machines, seed=1) != simulate(work, machines, seed=2)


def test_work_counts_from_a_moment_on_in_proportion():
    starts, ends, work = np.array([0.0, 4.0, 10.0]), np.array([8.0, 8.0, 12.0]), np.ones(3)
    assert work_after(starts, ends, work, 0.0) == 3.0
    assert work_after(starts, ends, work, 6.0) == pytest.approx(0.25 + 0.5 + 1.0)
    assert work_after(starts, ends, work, 12.0) == 0.0
