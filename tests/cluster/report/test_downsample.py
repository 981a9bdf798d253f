import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastformers.cluster.report.downsample import (
    MAX_GROUPS,
    MAX_LANES,
    MAX_SPANS,
    group_actors,
    pick_frontier,
    plan_lanes,
    rate_tokens,
    shorten_names,
)
from fastformers.cluster.report.over_time import TimelineEntry, TokensOverTime


def entry(actor, start_s, end_s, *, tokens=1000, job="score", lost=False, busy_s=None):
    took_s = (0.0 if lost else end_s - start_s) if busy_s is None else busy_s
    return TimelineEntry(
        job=job,
        name="00000-00000",
        actor=actor,
        attempt=1,
        lost=lost,
        start_s=start_s,
        end_s=end_s,
        busy_s=took_s,
        infer_s=took_s,
        rows=0 if lost else 10,
        tokens=0 if lost else tokens,
        predicted_s=0.0,
        rss_bytes=0,
    )


def test_rates_are_tokens_over_the_width_of_their_bin_and_the_last_ends_with_the_run():
    tokens = TokensOverTime(bin_s=2.0, groups={"a": (10.0, 0.0, 30.0), "b": (0.0, 4.0)})
    throughput = rate_tokens(tokens, 5.0)
    assert throughput.edges_s.tolist() == [0, 2, 4, 5]
    assert {name: rates.tolist() for name, rates in throughput.groups.items()} == {
        "a": [5, 0, 30],
        "b": [0, 2, 0],
    }
    idle_at_the_end = rate_tokens(tokens, 10.0)
    assert idle_at_the_end.edges_s.tolist() == [0, 2, 4, 6, 10]
    assert idle_at_the_end.groups["a"].tolist() == [5, 0, 15, 0]


def test_many_actors_become_groups():
    actors = [f"node{n:04d}:0" for n in range(1000)]
    groups = group_actors(actors)
    assert set(groups) == set(actors)
    assert len(set(groups.values())) == MAX_GROUPS
    assert group_actors(["a:0", "a:1"]) == {"a:0": "CPU 0", "a:1": "CPU 1"}


def test_of_a_sample_only_actors_that_are_whole_are_shown():
    """Of the others only the attempts that were lost are there; they would look idle."""
    timeline = [entry("a:0", 0, 4), entry("b:0", 1, 3, lost=True)]
    assert [lane.name for lane in plan_lanes(timeline, 5.0)] == ["a:0", "b:0"]
    [lane] = plan_lanes(timeline, 5.0, is_sample=True)
    assert [span.kind for span in lane.spans] == ["score"]


def test_an_actor_loads_before_its_first_job_and_after_it_died():
    timeline = [
        entry("a:0", 0, 4, busy_s=3),
        entry("a:0", 4, 5, lost=True),
        entry("a:0", 5, 9, busy_s=2.5),
        entry("a:0", 9, 12, busy_s=2.5),
    ]
    [lane] = plan_lanes(timeline, 12.0)
    assert [(span.kind, span.start_s, span.end_s) for span in lane.spans] == [
        ("load", 0, 1),
        ("score", 1, 4),
        ("lost", 4, 5),
        ("load", 5, 6.5),
        ("score", 6.5, 9),
        ("score", 9, 12),
    ]


def test_the_timeline_is_bounded_and_keeps_what_was_lost():
    timeline = [
        entry(f"n{actor}:0", 0.1 * number, 0.1 * number + 0.1, lost=(actor, number) == (77, 40))
        for actor in range(200)
        for number in range(500)
    ]
    lanes = plan_lanes(timeline, 50.0)
    assert len(lanes) == MAX_LANES
    assert sum(len(lane.spans) for lane in lanes) <= MAX_SPANS
    [dead] = [lane for lane in lanes if any(span.kind == "lost" for span in lane.spans)]
    assert dead.name == "n77:0"
    assert min(span.start_s for span in dead.spans) == 0
    assert max(span.end_s for span in dead.spans) == pytest.approx(50)


def test_names_are_as_short_as_they_can_be():
    assert shorten_names(["vm:0,4", "vm:1"]) == {"vm:0,4": "CPU 0,4", "vm:1": "CPU 1"}
    long = ["ip-10-0-0-1.ec2.internal:0", "b:1"]
    assert shorten_names(long) == {long[0]: "….ec2.internal:0", "b:1": "b:1"}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_nobody_beats_the_frontier(points):
    qualities, costs = zip(*points, strict=True)
    frontier = pick_frontier(qualities, costs)
    for place, (quality, cost) in enumerate(points):
        beaten = any(q >= quality and c <= cost and (q, c) != (quality, cost) for q, c in points)
        if place in frontier:
            assert not beaten
        elif not beaten:  # a twin of one that is on it
            assert any(points[other] == (quality, cost) for other in frontier)
