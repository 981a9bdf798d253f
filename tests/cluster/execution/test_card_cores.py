"""Which cores belong to which GPU."""

from dataclasses import replace

import pytest

from fastformers.cluster.devices.cards import Card
from fastformers.cluster.execution.topology import (
    Core,
    HostTopology,
    describe_card_cores,
    plan_card_cores,
    plan_core_sets,
    without_card_cores,
)


def make_host(*node_of_core, quota_cores=None):
    """Each core has two siblings."""
    num_cores = len(node_of_core)
    cores = [
        Core(logical_cpus=(idx, idx + num_cores), numa_node=node)
        for idx, node in enumerate(node_of_core)
    ]
    return HostTopology(
        hostname="host",
        cores=tuple(cores),
        quota_cores=quota_cores,
        num_logical_cpus_of_host=2 * num_cores,
        cpu_model="Made-up CPU 9000",
    )


def cards_on(*nodes):
    return [Card(index=index, numa_node=node) for index, node in enumerate(nodes)]


def plan(host, cards, *, cores=1, threads=1):
    return plan_card_cores(host, cards, cores_per_card=cores, num_threads=threads)


def cpus_of(plans):
    return [plan.core_set.cpus for plan in plans]


def test_a_gpu_has_cores_of_its_own_that_are_near():
    host = make_host(0, 0, 0, 1, 1, 1)
    plans = plan(host, cards_on(1, 0, 1), cores=1)
    assert cpus_of(plans) == [(3, 9), (0, 6), (4, 10)]
    line = describe_card_cores(plans, host, num_actors=3)
    assert line == "3 actors on 3 GPUs, with CPUs 0,3,4,6,9,10, near them"


def test_where_too_few_are_near_others_are_taken_and_that_is_said():
    host = make_host(0, 0, 0, 1)
    plans = plan(host, cards_on(1, 1), cores=2, threads=2)
    assert cpus_of(plans) == [(0, 3, 4, 7), (1, 2, 5, 6)]
    assert [plan.core_set.num_threads for plan in plans] == [2, 2]
    assert describe_card_cores(plans, host, num_actors=2).endswith(
        "some of them far from their GPU"
    )


def test_where_there_are_too_few_for_all_the_least_used_are_shared():
    assert cpus_of(plan(make_host(0, 0), cards_on(0, 0, 0))) == [(0, 2), (1, 3), (0, 2)]
    (only,) = plan(make_host(0), cards_on(0), cores=4, threads=4)
    assert (only.core_set.cpus, only.core_set.num_threads) == ((0, 1), 1)


def test_a_gpu_without_a_place_has_any_cores():
    host = make_host(0, 1)
    plans = plan(host, cards_on(None, None))
    assert cpus_of(plans) == [(0, 2), (1, 3)]
    assert "whose distance is not known" in describe_card_cores(plans, host, num_actors=2)


@pytest.mark.parametrize(("quota", "left"), [(None, 2), (4.0, 2), (3.0, 1), (2.0, 1)])
def test_the_other_actors_have_what_is_left(quota, left):
    host = make_host(0, 0, 1, 1, quota_cores=quota)
    rest = without_card_cores(host, plan(host, cards_on(1, 0)))
    assert [core.logical_cpus for core in rest.cores] == [(1, 5), (3, 7)]
    core_sets = plan_core_sets(rest, num_actors=None, cores_per_actor=1)
    assert len(core_sets) == rest.num_usable_cores == left


def test_a_machine_whose_cores_all_belong_to_gpus_has_none_left():
    host = make_host(0, 0)
    rest = without_card_cores(host, plan(host, cards_on(0, 0)))
    assert (rest.cores, rest.num_usable_cores) == ((), 0)
    assert without_card_cores(host, ()) == replace(host)
