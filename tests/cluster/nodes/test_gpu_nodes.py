"""Machines with GPUs in a cluster: which nodes join, with how many actors, and what these own."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fastformers.cluster.execution.topology import Core, HostTopology
from fastformers.cluster.nodes.cluster_state import KindsOfActors, NodeState
from fastformers.cluster.nodes.supervisor_actor import NodePlan, plan_layout
from fastformers.errors import NodeUnfitError
from tests.cluster.nodes.fake_cluster import Cluster

KINDS = KindsOfActors(scorers=("cpu", "cuda"), prepares=True, cores_per_actor=1)


def make_state(id_, *, cpus=8.0, gpus=2):
    return NodeState(
        id=id_,
        hostname=id_,
        num_cpus=cpus,
        free_cpus=cpus,
        num_gpus=gpus,
        free_gpus=gpus,
    )


def join(clock, *states, kinds=KINDS, **options):
    cluster = Cluster(clock, *kinds.split(states), **options)
    return {id_: handle.num_actors for id_, handle in cluster.handles.items()}, cluster


def test_gpus_and_the_other_cores_of_a_machine_join(clock):
    asked, _ = join(clock, make_state("a"), make_state("b", gpus=0))
    assert asked == {"a/cuda": 2, "a": 4, "b": 8}


def test_actors_that_are_counted_are_on_gpus_first(clock):
    assert join(clock, make_state("a"), make_state("b"), num_actors=3)[0] == {
        "a/cuda": 2,
        "b/cuda": 1,
    }
    assert join(clock, make_state("a"), num_actors=5)[0] == {"a/cuda": 2, "a": 3}


def test_cores_that_only_tokenize_are_not_counted(clock):
    only = replace(KINDS, scorers=("cuda",))
    assert join(clock, make_state("a"), kinds=only, num_actors=1)[0] == {"a/cuda": 1, "a": 4}


def test_those_that_are_counted_are_asked_of_machines_that_join_later(clock):
    only = replace(KINDS, scorers=("cuda",))
    _, cluster = join(clock, make_state("a"), kinds=only, num_actors=3)
    cluster.handles.clear()
    cluster.show(*only.split([make_state("a"), make_state("b")]))
    assert {id_: handle.num_actors for id_, handle in cluster.handles.items()} == {
        "b/cuda": 1,
        "b": 4,
    }


def test_both_nodes_of_a_machine_are_one_of_those_that_may_be_used(clock):
    asked, _ = join(clock, make_state("a"), make_state("b"), num_nodes=1)
    assert asked == {"a/cuda": 2, "a": 4}


def test_a_machine_whose_gpus_are_taken_is_one_node(clock):
    taken = replace(make_state("a"), free_gpus=0, free_cpus=6.0)
    assert join(clock, taken)[0] == {"a": 6}


def test_gpus_that_were_lost_are_used_again_when_ray_has_them_back(clock):
    states = KINDS.split([make_state("a")])
    cluster = Cluster(clock, *states)
    for handle in cluster.handles.values():
        handle.is_ready()
    cluster.nodes.wait(0.0)
    cluster.show(states[1])
    cluster.handles.clear()
    half = replace(states[0], room=1)
    cluster.show(half, states[1])
    assert not cluster.handles  # its other actor is still ending
    cluster.show(*states)
    assert {id_: handle.num_actors for id_, handle in cluster.handles.items()} == {"a/cuda": 2}


@pytest.fixture
def host():
    return HostTopology(
        hostname="host",
        cores=tuple(Core(logical_cpus=(cpu,), numa_node=cpu // 4) for cpu in range(8)),
        quota_cores=None,
        num_logical_cpus_of_host=8,
        cpu_model="Made-up CPU 9000",
    )


def lay_out(state, host, root, *, kinds=KINDS, num_actors=None):
    plan = NodePlan(
        state=state,
        name=None,
        spec=SimpleNamespace(),
        admission=None,
        num_actors=num_actors,
        kinds=kinds,
        timeout_s=None,
    )
    return plan_layout(plan, host, root)


def cpus_of(layout):
    return {slot.name: core_set.cpus for slot, core_set in layout.core_set_of.items()}


def test_the_two_nodes_of_a_machine_share_no_core(host, tmp_path):
    kinds = replace(KINDS, actors_per_gpu=2)
    on_gpus, on_cores = (
        lay_out(state, host, tmp_path, kinds=kinds) for state in kinds.split([make_state("a")])
    )
    assert cpus_of(on_gpus) == {
        "host:cuda#1": (0, 1),
        "host:cuda#2": (2, 3),
        "host:cuda#3": (0, 1),
        "host:cuda#4": (2, 3),
    }
    assert cpus_of(on_cores) == {f"host:{cpu}": (cpu,) for cpu in (4, 5, 6, 7)}
    assert (on_gpus.num_cores, on_cores.num_cores) == (4, 4)
    assert on_gpus.gpus.per_actor == 0.5
    assert [plan.card.index for plan in on_gpus.gpus.cards] == [0, 1]
    assert on_cores.gpus is None
    assert on_gpus.self_check.startswith("4 actors on 2 GPUs, with CPUs 0-3, whose distance")


def test_three_actors_of_a_gpu_ask_for_no_more_than_one():
    from fastformers.cluster.nodes.ray_pool import GpuShare

    share = GpuShare(cards=(), actors_per_gpu=3).per_actor
    assert 0.3333 <= share <= 1 / 3


def test_a_machine_whose_cores_all_belong_to_gpus_has_no_actor_on_them(host, tmp_path):
    kinds = replace(KINDS, cores_per_actor=4)
    on_gpus, on_cores = kinds.split([make_state("a")])
    assert len(lay_out(on_gpus, host, tmp_path, kinds=kinds).core_set_of) == 2
    with pytest.raises(NodeUnfitError, match="has 0 cores that may be used, an actor needs 4"):
        lay_out(on_cores, host, tmp_path, kinds=kinds)


def test_those_that_only_tokenize_say_so(host, tmp_path):
    kinds = replace(KINDS, scorers=("cuda",))
    _, on_cores = kinds.split([make_state("a")])
    assert lay_out(on_cores, host, tmp_path, kinds=kinds).self_check.endswith(
        "; no overlap, which tokenize for GPUs"
    )
