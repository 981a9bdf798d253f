"""The real driver and supervisors over workers that only let time pass."""

from dataclasses import replace

import pytest

from fastformers.cluster.execution.core_split import join_all
from fastformers.cluster.scaling.driver_load import (
    CallCost,
    LoadSettings,
    cost_scheduling,
    load_in_process,
    make_shards,
)
from fastformers.cluster.scaling.scale_report import DriverLoad
from fastformers.cluster.scaling.sleeping_nodes import (
    JumpingClock,
    SleepingNodes,
    SleepingPool,
    finish,
)
from fastformers.cluster.scaling.summary import check_load
from fastformers.cluster.scheduling.nodes import NodeReported, Orders, running
from fastformers.cluster.scheduling.pool import Slot
from fastformers.cluster.scheduling.work import MeasureRate, Task
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import InputError


def tasks_of(num, shard_s=10.0):
    shards = make_shards(num, shard_s)
    return [
        Task(ticket=number, job=Lease(shard=shard, attempt=1))
        for number, shard in enumerate(shards)
    ]


def test_shards_have_names_of_their_own_and_about_the_seconds_asked_for():
    shards = list(make_shards(3000, 20.0))
    assert len({shard.name for shard in shards}) == 3000
    seconds = [shard.predicted_s for shard in shards]
    assert sum(seconds) / 3000 == pytest.approx(20.0, rel=0.01)
    assert 15.9 < min(seconds) < max(seconds) < 24.1


def test_a_slot_does_its_tasks_one_after_another_and_slots_at_once():
    clock = JumpingClock()
    slots = [Slot(name="a"), Slot(name="b")]
    pool = SleepingPool(slots, clock)
    first, second, third = tasks_of(3)
    pool.submit(slots[0], [first, second])
    pool.submit(slots[1], [third])
    assert pool.wait(1.0) == []
    clock.now = pool.next_end
    assert clock.now == min(first.predicted_s, third.predicted_s)
    clock.now = first.predicted_s + second.predicted_s
    ended = pool.wait(1.0)
    assert sorted(outcome.ticket for outcome in ended) == [0, 1, 2]
    assert ended[0].result.predicted_s == ended[0].seconds


def test_time_jumps_to_what_happens_next_and_no_further():
    clock = JumpingClock()
    nodes = SleepingNodes(1, 1, clock)
    with running(nodes):
        (node,) = join_all(nodes)
        (task,) = tasks_of(1)
        nodes.exchange(node.id, Orders(give=(task,), wait_s=100.0, now=0.0))
        assert nodes.wait(5.0) == []
        assert clock.now == 5.0
        (event,) = nodes.wait(500.0)
    assert isinstance(event, NodeReported)
    assert [ended.outcome.ticket for ended in event.report.ended] == [0]
    assert task.predicted_s <= clock.now <= task.predicted_s + 1.0


@pytest.mark.parametrize("shard_s", [0.0, 20.0])
def test_all_shards_go_through_and_every_cost_is_counted(shard_s):
    load = load_in_process(40, slots_per_node=16, num_shards=600, shard_s=shard_s)
    assert (load.slots, load.nodes, load.shards, load.are_actors) == (40, 3, 600, False)
    assert load.calls > 0
    assert min(load.us_per_shard, load.supervisor_us_per_shard) > 0
    together_us = load.us_per_shard + load.supervisor_us_per_shard
    assert load.shards_per_second == pytest.approx(1e6 / together_us)
    assert load.ms_per_lease * load.calls == pytest.approx(load.us_per_shard * 600 / 1e3)


def test_short_shards_travel_together():
    short = load_in_process(40, num_shards=4000, shard_s=0.0)
    long = load_in_process(40, num_shards=4000, shard_s=20.0)
    assert short.shards / short.calls > 10 * long.shards / long.calls


def test_a_shard_costs_the_driver_the_same_whatever_the_number_of_slots():
    """Less than three times as much for eight times the slots, which a loop over them would be."""
    few = min(load_in_process(60, num_shards=1200).us_per_shard for _ in range(3))
    many = min(load_in_process(480, num_shards=9600).us_per_shard for _ in range(2))
    assert many < 3 * few


def make_load(**changes):
    fields = {
        "slots": 100,
        "nodes": 1,
        "are_actors": True,
        "shard_s": 0.0,
        "shards": 4000,
        "calls": 100,
        "shards_per_second": 2000.0,
        "us_per_shard": 60.0,
        "ms_per_lease": 2.4,
        "ms_per_empty_lease": 0.4,
        "supervisor_us_per_shard": 500.0,
    }
    return DriverLoad(**(fields | changes))


def test_the_cost_of_messages_is_parted_into_calls_and_shards():
    call = CallCost(driver_s=0.4e-3, round_trip_s=2e-3)
    scheduling = cost_scheduling(make_load(are_actors=False, us_per_shard=20.0), make_load(), call)
    assert scheduling.lease_s == pytest.approx(0.4e-3)
    assert scheduling.shard_s == pytest.approx((2.4e-3 - 0.4e-3) / 40)
    assert scheduling.supervisor_shard_s == pytest.approx(500e-6)
    assert scheduling.latency_s == pytest.approx(1e-3)
    alone = cost_scheduling(make_load(are_actors=False, us_per_shard=20.0), None, None)
    assert (alone.lease_s, alone.latency_s) == (0.0, 0.0)
    assert alone.shard_s == pytest.approx(20e-6)


def test_idle_actors_are_simulated_from_what_they_cost():
    call = CallCost(driver_s=0.4e-3, round_trip_s=2e-3)
    load = make_load(shards=20_000, calls=500)
    scheduling = cost_scheduling(make_load(are_actors=False), load, call)
    (checked,) = check_load([make_load(are_actors=False), load], scheduling)
    assert (checked.kind, checked.actors, checked.measured_s) == ("idle", 100, 10.0)
    assert checked.simulated_s == pytest.approx(20_000 * 500e-6, rel=0.03)
    twice = replace(scheduling, supervisor_shard_s=2 * scheduling.supervisor_shard_s)
    assert check_load([load], twice)[0].error == pytest.approx(1.0, rel=0.05)


def test_an_idle_worker_answers_what_is_measured_of_all_at_once():
    task = Task(ticket=3, job=MeasureRate(seconds=0.5))
    assert finish(task, "a").result == 0.5


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"load_slots": ()}, "--load-slots"),
        ({"load_slots": (0,)}, "--load-slots"),
        ({"load_actors": (-1,)}, "--load-actors"),
    ],
)
def test_loads_that_make_no_sense_are_refused_by_their_flag(changes, flag):
    with pytest.raises(InputError, match=flag):
        LoadSettings(**changes)


@pytest.mark.cluster
def test_idle_ray_actors_answer_all_shards():
    from fastformers.cluster.nodes.idle_actors import open_idle_nodes
    from fastformers.cluster.scaling.driver_load import load_actors

    with open_idle_nodes(finish, num_slots=3) as nodes, running(nodes):
        load, call = load_actors(nodes, num_shards=500)
    assert (load.slots, load.nodes, load.shards, load.are_actors) == (3, 1, 500, True)
    assert load.calls < 500
    assert 0 < call.driver_s <= call.round_trip_s * 4
