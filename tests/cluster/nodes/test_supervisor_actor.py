"""What the supervisor's actor decides alone; the rest of it is tested with real nodes."""

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from fastformers.cluster.execution.topology import CoreSet
from fastformers.cluster.nodes.ray_pool import ScoringActor
from fastformers.cluster.nodes.supervisor_actor import RaySupervisor, SupervisorActor, name_actors
from fastformers.errors import NodeUnfitError


def test_no_two_actors_of_a_node_have_one_name():
    first, second = CoreSet(cpus=(0, 4), num_threads=1), CoreSet(cpus=(1, 5), num_threads=1)
    shared = [first, second, first, first]
    assert name_actors("host", shared) == ["host:0,4", "host:1,5", "host:0,4#2", "host:0,4#3"]
    # The second of two nodes of one host name.
    assert name_actors("host#2", [first, first]) == ["host#2:0,4", "host#2:0,4#2"]


def test_a_node_that_was_short_of_memory_is_tried_again():
    supervisor = RaySupervisor.__new__(RaySupervisor)  # no actor is needed to judge errors
    error = OutOfMemoryError("killed by the memory monitor")
    assert not supervisor.is_verdict(error)
    assert "short of memory" in supervisor.explain(error)
    told = OutOfMemoryError(
        "1 worker(s) were killed. Memory on the node was 1.90GB used / 23.54GB limit (0.08)"
    )
    assert supervisor.explain(told).endswith("short of memory: 21.6 GB of 23.5 GB were free")
    assert not supervisor.is_verdict(RayActorError())
    assert supervisor.is_verdict(NodeUnfitError("has no room"))


@pytest.mark.parametrize("actor", [SupervisorActor, ScoringActor])
def test_an_actor_that_could_not_be_given_its_arguments_still_has_a_name(actor):
    # Ray asks for it to report why: on a node of other code, they may be of classes unknown there
    actor_class = actor.__ray_metadata__.modified_class
    assert repr(actor_class.__new__(actor_class)).endswith("Actor(None)")
