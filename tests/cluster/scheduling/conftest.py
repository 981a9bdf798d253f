"""The driver over nodes, and a supervisor over slots, that do what a test says."""

from types import SimpleNamespace

import pytest

from fastformers.cluster.scheduling.driver import Driver
from tests.cluster.scheduling.bench import Bench
from tests.cluster.scheduling.jobs import make_shard, make_slice
from tests.cluster.scheduling.played_nodes import PlayedNodes


@pytest.fixture
def play(clock, journal):
    """Runs the driver over nodes that do what a generator function says.

    Returns its result, with the retries that its last progress shows, and the nodes.
    """

    def run(events, *, num_shards=0, num_slices=0, can_grow=False, **options):
        shown = []
        nodes = PlayedNodes(events, can_grow=can_grow)
        driver = Driver(
            nodes,
            slices=[make_slice(50 + number) for number in range(num_slices)],
            shards=[make_shard(number, predicted_s=100.0 - number) for number in range(num_shards)],
            journal=journal,
            **{
                "scores": True,
                "clock": clock,
                "start": clock.now,
                "on_progress": shown.append,
                **options,
            },
        )
        result = driver.run()
        retries = shown[-1].num_retries if shown else None
        return SimpleNamespace(**vars(result), num_retries=retries), nodes

    return run


class StopError(Exception):
    """A test has seen enough."""


@pytest.fixture
def watch(play):
    """Like `play`, for events that end before the work is done."""

    def run(events, **options):
        def then_stop(nodes):
            yield from events(nodes)
            raise StopError

        with pytest.raises(StopError):
            play(then_stop, **options)

    return run


@pytest.fixture
def bench(clock):
    """Makes a supervisor over slots in which tasks end when the test says."""
    return lambda num_slots, **options: Bench(clock, num_slots, **options)
