"""Points, turns and shares, and what a run's receipts say of its point."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.scaling.driver_load import make_shards
from fastformers.cluster.scaling.measure import (
    STRONG,
    WEAK,
    Machine,
    MeasureSettings,
    Room,
    order_turns,
    plan_points,
    read_run,
    rows_per_work,
    shards_of,
)
from fastformers.cluster.shards.receipts import Receipt
from fastformers.errors import InputError


def make_receipt(number, actor, start, seconds, predicted_s=2.0, attempt=1):
    return Receipt(
        shard=f"000000-{number:05d}",
        actor=actor,
        attempt=attempt,
        num_rows=10,
        num_unique=10,
        num_errors=0,
        num_tokens=100,
        num_scored_tokens=100,
        num_computed_tokens=100,
        num_batches=1,
        started_at=start,
        finished_at=start + seconds,
        predicted_s=predicted_s,
        rss_bytes=1,
        peak_rss_bytes=1,
        phase_s={"read": 0.0, "infer": seconds, "write": 0.0},
    )


def make_result(wall_s=20.0, started_at=1000.0, num_cores=2):
    node = SimpleNamespace(actor_cores={"a": 1, "b": 1}, instance_type=None, num_cores=num_cores)
    head = SimpleNamespace(actor_cores={}, instance_type="x", num_cores=8)
    return SimpleNamespace(
        nodes=(head, node), wall_s=wall_s, started_at=started_at, num_actors=2, num_machines=1
    )


@given(st.integers(1, 300), st.integers(1, 64))
def test_points_double_to_all_actors_and_fill_one_node_after_another(most, per_node):
    points = plan_points(Room(num_actors=most, actors_per_node=min(per_node, most)))
    strong = [point for point in points if point.kind == STRONG]
    weak = [point for point in points if point.kind == WEAK]
    counts = [point.actors for point in strong]
    assert counts == sorted(set(counts))
    assert (counts[0], counts[-1]) == (1, most)
    assert {2**power for power in range(9) if 2**power <= most} <= set(counts)
    assert min(per_node, most) in counts
    assert all(point.num_shares == point.of_shares == most for point in strong)
    assert [point.actors for point in weak] == counts[:-1]
    assert all(point.num_shares == point.actors for point in weak)
    assert all((p.nodes - 1) * min(per_node, most) < p.actors for p in points)
    assert all(p.actors <= p.nodes * min(per_node, most) for p in points)


def test_every_other_turn_goes_backwards():
    assert order_turns([1, 2, 3], 3) == [[1, 2, 3], [3, 2, 1], [1, 2, 3]]


def test_each_actor_s_share_is_about_the_same_work_and_a_point_has_the_first_of_them():
    shards = list(make_shards(101, 5.0))
    points = plan_points(Room(num_actors=8, actors_per_node=4))
    share_s = sum(shard.predicted_s for shard in shards) / 8
    for point in points:
        own = shards_of(point, shards)
        assert len({shard.name for shard in own}) == len(own)
        work_s = sum(shard.predicted_s for shard in own)
        assert work_s == pytest.approx(share_s * point.num_shares, rel=0.06)
    assert {s.name for s in shards_of(points[0], shards)} == {s.name for s in shards}


def test_work_counts_from_when_the_last_actor_began_and_the_job_from_its_start():
    receipts = [
        make_receipt(0, "a", 1002.0, 4.0),  # half of it after actor b began
        make_receipt(1, "a", 1006.0, 6.0),
        make_receipt(2, "b", 1004.0, 6.0, attempt=3),
    ]
    run = read_run(make_result(), receipts)
    assert run.rate == pytest.approx((1.0 + 2.0 + 2.0) / (1012 - 1004))
    assert run.job_rate == pytest.approx(6.0 / 20.0)
    assert run.work_end_s == pytest.approx(12.0)
    assert sorted(run.startups_s) == pytest.approx([2.0, 4.0])
    assert sorted(run.ratios) == pytest.approx([2.0, 3.0, 3.0])
    assert (run.num_lost, run.actor_s) == (2, 40.0)
    assert run.machines == (Machine(instance_type=None, num_cores=2),)  # the head does not work


def test_rows_follow_from_work_by_the_average_of_the_corpus():
    shards = list(make_shards(10, 5.0))
    assert rows_per_work(shards) == pytest.approx(1000 / 5.0, rel=0.05)


def test_no_turn_is_refused():
    with pytest.raises(InputError, match="--repeats 0"):
        MeasureSettings(repeats=0)
