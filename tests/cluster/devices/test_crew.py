"""Which nodes prepare and which score, as they come and go."""

import pytest

from fastformers.cluster.devices.crew import Crew


def crew_of(*kinds, cores=0, gpus=0, **options):
    crew = Crew(kinds, **options)
    if cores:
        crew.set("cores", "cpu", cores)
    if gpus:
        crew.set("gpus", "cuda", gpus)
    return crew


def test_on_cores_alone_everybody_does_everything():
    wants = crew_of("cpu", cores=4).wants("cpu")
    assert (wants.prepares, wants.scores, wants.shortest) == (True, True, False)
    assert (wants.num_slots, wants.num_gpu_shards) == (4, 0)
    assert list(wants.preparers) == list(wants.scorers) == ["cores"]


def test_where_only_gpus_score_cores_prepare():
    crew = crew_of("cuda", cores=4, gpus=2)
    on_cores, on_gpus = crew.wants("cpu"), crew.wants("cuda")
    assert (on_cores.prepares, on_cores.scores) == (True, False)
    assert (on_gpus.prepares, on_gpus.scores, on_gpus.shortest) == (False, True, False)
    assert list(on_gpus.preparers) == ["cores"]
    assert list(on_gpus.scorers) == ["gpus"]


def test_where_both_score_cores_take_the_shortest_shards_and_keep_some_ready_for_gpus():
    crew = crew_of("cpu", "cuda", cores=4, gpus=2, gpu_shard_s=100.0)
    on_cores, on_gpus = crew.wants("cpu"), crew.wants("cuda")
    assert (on_cores.scores, on_cores.shortest, on_gpus.shortest) == (True, True, False)
    assert sorted(on_cores.scorers) == ["cores", "gpus"]
    assert on_cores.num_gpu_shards == 8  # four for each slot, as long as their pace is not known
    crew.learn("cpu", 1.0)
    crew.learn("cuda", 0.01)  # a second for each shard: eight seconds are eight shards
    assert crew.wants("cpu").num_gpu_shards == 16
    assert on_gpus.num_gpu_shards == 0


def test_gpus_prepare_only_while_no_core_does_or_will():
    crew = crew_of("cuda", gpus=2)
    assert crew.wants("cuda").prepares
    assert not crew.wants("cuda", may_grow=True).prepares
    crew.set("cores", "cpu", 1)
    assert not crew.wants("cuda").prepares
    crew.remove("cores", "cpu")
    assert crew.wants("cuda").prepares
    assert list(crew.wants("cuda").preparers) == ["gpus"]


def test_slots_are_counted_as_they_are_now():
    crew = crew_of("cpu", cores=4)
    crew.set("cores", "cpu", 3)
    crew.set("more", "cpu", 2)
    assert crew.wants("cpu").num_slots == 5
    crew.remove("cores", "cpu")
    assert crew.wants("cpu").num_slots == 2


def test_a_run_on_gpus_has_nobody_to_score_while_only_cores_are_there():
    crew = crew_of("cuda", cores=4)
    assert not crew.has_scorers
    assert crew.explain_absence({}).startswith("no node has free GPUs; ")
    assert crew.explain_absence({"a": "too old"}) == "no node with a GPU can work: a: too old"
    crew.set("gpus", "cuda", 1)
    assert crew.has_scorers
    crew.remove("gpus", "cuda")
    assert crew.explain_absence({}).startswith("every node with a GPU has left the cluster; ")


@pytest.mark.parametrize("kinds", [("cpu",), ("cuda",)])
def test_shards_of_two_sizes_are_for_two_kinds(kinds):
    assert Crew(kinds, gpu_shard_s=9.0).gpu_shard_s is None
    assert Crew(("cpu", "cuda"), gpu_shard_s=9.0).gpu_shard_s == 9.0
