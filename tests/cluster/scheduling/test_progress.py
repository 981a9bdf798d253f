from dataclasses import replace

import pytest

from fastformers.cluster.scheduling.forecast.time_left import JobTimes, WorkLeft
from fastformers.cluster.scheduling.node_books import NodeBooks
from fastformers.cluster.scheduling.progress import Before, Counts, MachineKind, Progress
from tests.cluster.scheduling.jobs import (
    make_lease,
    make_node,
    make_receipt,
    make_shard,
    make_slice,
    make_slice_receipt,
)


def kind(instance_type, num_cores=2):
    return MachineKind(instance_type=instance_type, num_cores=num_cores)


def test_nothing_has_happened_at_the_start():
    at_start = Counts().at(5.0, 5.0, [], num_slices_left=7, num_retries=0)
    assert at_start == Progress(num_slices_left=7)
    assert Before() == Before(predicted_s=0.0, num_cut=0, cut_s=0.0)
    assert at_start == Progress(
        elapsed_s=0.0,
        num_done=0,
        num_known=0,
        num_rows=0,
        num_tokens=0,
        num_errors=0,
        num_retries=0,
        predicted_done_s=0.0,
        predicted_left_s=0.0,
        num_slices_left=7,
        machine_s={},
        num_nodes=0,
        num_actors=0,
    )


def test_it_adds_up_shards_and_nodes():
    counts = Counts()
    for number, predicted_s in enumerate((2.0, 3.0, 5.0)):
        counts.add_known(make_shard(number, predicted_s=predicted_s))
    for number, predicted_s in enumerate((2.0, 3.0)):
        lease = make_lease(number, predicted_s=predicted_s)
        counts.add_receipt(
            make_receipt(lease, predicted_s=predicted_s, num_rows=10, num_tokens=70, num_errors=1)
        )
    nodes = [
        NodeBooks(
            make_node(number, 1, instance_type=instance_type),
            f"node{number}",
            since,
            since,
            num_slots,
            doing={"infer": num_slots - 1, "read": 1},
            notices=notices,
        )
        for number, instance_type, since, num_slots, notices in (
            (0, "small", 101.0, 2, ("storage does not answer",)),
            (1, "large", 105.0, 4, ()),
            (2, "large", 106.0, 4, ()),
        )
    ]
    for number, left in ((3, 104.0), (4, 105.0)):
        node = make_node(number, 1, instance_type="small")
        gone = NodeBooks(node, f"node{number}", 100.0, 100.0, 1)
        counts.add_node(gone)
        counts.remove_node(gone, left)
    for books in nodes:
        counts.add_node(books)
    assert counts.at(110.0, 100.0, nodes, num_slices_left=0, num_retries=6) == Progress(
        elapsed_s=10.0,
        num_done=2,
        num_known=3,
        num_rows=20,
        num_tokens=140,
        num_errors=2,
        num_retries=6,
        predicted_done_s=5.0,
        predicted_left_s=5.0,
        num_slices_left=0,
        machine_s={kind("small"): 18.0, kind("large"): 9.0},
        machines={kind("small"): 1, kind("large"): 2},
        num_nodes=3,
        num_actors=10,
        doing={"infer": 7, "read": 3},
        notices=("node host0: storage does not answer",),
    )
    for books in nodes:
        counts.remove_node(books, 110.0)
    later = counts.at(111.0, 100.0, [], num_slices_left=0, num_retries=6)
    assert later.machine_s == {
        kind("small"): 18.0,
        kind("large"): 9.0,
    }  # asking has changed nothing


def test_a_machine_that_is_two_nodes_costs_from_the_first_that_joins_to_the_last_that_leaves():
    counts = Counts()
    on_gpus, on_cores = (
        NodeBooks(
            replace(make_node(number, 1, instance_type="large"), device=device, machine="machine"),
            f"node{number}",
            since,
            since,
            1,
        )
        for number, device, since in ((0, "cuda", 10.0), (1, "cpu", 11.0))
    )
    counts.add_node(on_gpus)
    counts.add_node(on_cores)
    both = counts.at(20.0, 0.0, [on_gpus, on_cores], num_slices_left=0, num_retries=0)
    assert (both.machine_s, both.num_nodes, both.num_actors) == ({kind("large", 4): 10.0}, 1, 2)
    counts.remove_node(on_gpus, 22.0)
    counts.remove_node(on_cores, 25.0)
    assert counts.at(30.0, 0.0, [], num_slices_left=0, num_retries=0).machine_s == {
        kind("large", 4): 15.0
    }


def test_what_is_left_is_forecast_from_what_is_known():
    """Of 10.5 s predicted, half a second is left; before any shard is known, slices are."""
    books = NodeBooks(make_node(0, 3), "node0", 0.0, 0.0, 3)
    counts, cutting = Counts(), Counts()
    for each in (counts, cutting):
        for _ in range(20):
            each._times.add_shard(books.kind, 10.0, 20.0)
    for number, predicted_s in enumerate((10.0, 0.5)):
        counts.add_known(make_shard(number, predicted_s=predicted_s))
    counts.add_receipt(make_receipt(make_lease(0), predicted_s=10.0))
    cutting.add_slice(make_slice_receipt(make_slice(0), make_shard(0, predicted_s=30.0)))
    times = JobTimes()
    for _ in range(20):
        times.add_shard(books.kind, 10.0, 20.0)
    left = WorkLeft(
        known_s=0.5, num_shards=1, shard_s=10.5 / 2, num_slices=0, scoring={books.kind: 3}
    )
    leaves = NodeBooks(make_node(1, 2), "node1", 0.0, 0.0, 2, leaving="its cloud takes it back")
    progress = counts.at(9.0, 0.0, [leaves, books], num_slices_left=0, num_retries=0)
    assert progress.time_left == times.time_left(left)
    assert progress.num_actors == 5
    times.add_slice(30.0, is_rest=False)
    left = WorkLeft(known_s=0.0, num_shards=0, shard_s=0.0, num_slices=4, scoring={books.kind: 3})
    progress = cutting.at(9.0, 0.0, [books], num_slices_left=4, num_retries=0)
    assert progress.time_left == times.time_left(left)


def test_slices_that_are_not_cut_are_taken_to_be_like_those_that_are():
    counts = Counts()
    shards = [make_shard(number, predicted_s=3.0) for number in range(4)]
    counts.add_slice(make_slice_receipt(make_slice(0), *shards[:3]))
    counts.add_slice(make_slice_receipt(make_slice(1), shards[3]))
    progress = counts.at(1.0, 0.0, [], num_slices_left=5, num_retries=0)
    assert progress.predicted_left_s == pytest.approx(5 * 12.0 / 2)


def test_what_only_prepares_has_finished_a_shard_when_it_is_cut():
    counts = Counts(scores=False)
    shards = [make_shard(number, predicted_s=3.0) for number in range(4)]
    counts.add_slice(make_slice_receipt(make_slice(0), *shards))
    for shard in shards:
        counts.add_known(shard)
    progress = counts.at(1.0, 0.0, [], num_slices_left=1, num_retries=0)
    assert (progress.num_done, progress.num_known) == (4, 4)
    assert (progress.num_rows, progress.num_tokens, progress.num_errors) == (4, 4, 0)
    assert (progress.predicted_done_s, progress.predicted_left_s) == (12.0, 12.0)
