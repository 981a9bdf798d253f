"""Machines as nodes of one kind each."""

import pytest

from fastformers.cluster.nodes.cluster_state import KindsOfActors, NodeState


def make_state(id_, *, cpus=16.0, free=None, gpus=0, free_gpus=None, **changes):
    return NodeState(
        id=id_,
        hostname=f"host-{id_}",
        num_cpus=cpus,
        free_cpus=cpus if free is None else free,
        num_gpus=gpus,
        free_gpus=gpus if free_gpus is None else free_gpus,
        **changes,
    )


def split(*states, scorers=("cuda",), prepares=True, cores=1, per_gpu=1, oversubscribe=False):
    kinds = KindsOfActors(
        scorers=scorers,
        prepares=prepares,
        cores_per_actor=cores,
        actors_per_gpu=per_gpu,
        oversubscribe=oversubscribe,
    )
    return kinds.split(states)


def shape(states):
    return [(s.id, s.device, s.scores, s.free_cpus, s.room, s.machine_id) for s in states]


def test_without_gpus_to_use_a_machine_is_one_node():
    states = [make_state("a", gpus=4), make_state("b")]
    assert split(*states, scorers=("cpu",)) == states
    assert states[0].machine_id == "a"


def test_a_machine_with_gpus_is_two_nodes_and_gpus_come_first():
    assert shape(split(make_state("a"), make_state("b", gpus=2), per_gpu=3, cores=2)) == [
        ("b/cuda", "cuda", True, 12.0, 6, "b"),
        ("a", "cpu", False, 16.0, None, "a"),
        ("b", "cpu", False, 4.0, None, "b"),
    ]
    on_gpus, *_ = split(make_state("b", gpus=2))
    assert on_gpus.hostname == "host-b:cuda"


def test_where_both_score_cores_do():
    assert [s.scores for s in split(make_state("b", gpus=1), scorers=("cpu", "cuda"))] == [True] * 2


def test_prepared_shards_need_no_cores_beside_the_gpus():
    states = [make_state("a"), make_state("b", gpus=1)]
    assert [s.id for s in split(*states, prepares=False)] == ["b/cuda"]


@pytest.mark.parametrize(
    ("state", "cpus"),
    [
        (make_state("b", cpus=2.0, gpus=4), (2.0, 0.0)),  # too few for all
        (make_state("b", gpus=4, free_gpus=1), (2.0, 14.0)),  # others have the rest
        (make_state("b", gpus=1), (4.0, 12.0)),  # as many as an actor on a GPU can use
        (make_state("b", cpus=4.0, gpus=1), (2.0, 2.0)),  # half of them tokenize
        (make_state("b", cpus=1.0, gpus=1), (1.0, 0.0)),
        (make_state("b", gpus=2, free_gpus=0, free=14.0), (0.0, 14.0)),  # our actors have them
    ],
)
def test_gpus_take_the_cores_of_those_that_are_free(state, cpus):
    assert tuple(s.free_cpus for s in split(state)) == cpus


def test_actors_that_share_cores_leave_all_to_the_others():
    states = split(make_state("b", cpus=2.0, gpus=2), oversubscribe=True)
    assert [s.free_cpus for s in states] == [0.0, 2.0]


def test_what_happens_to_a_machine_happens_to_both_of_its_nodes():
    assert all(s.is_draining for s in split(make_state("b", gpus=1, is_draining=True)))
