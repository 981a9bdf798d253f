import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.report.downsample import (
    MAX_GROUPS,
    MAX_LANES,
    MAX_SPANS,
    bin_throughput,
    pick_frontier,
    plan_lanes,
    shorten_names,
)
from cluster.report.run_report import TimelineEntry


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


def test_tokens_are_spread_over_the_time_they_took_and_none_is_lost():
    timeline = [entry("a:0", 1, 5), entry("a:1", 2, 9, tokens=700), entry("a:0", 5, 6, lost=True)]
    throughput = bin_throughput(timeline, 12.0)
    widths_s = np.diff(throughput.edges_s)
    tokens = {name: float((rate * widths_s).sum()) for name, rate in throughput.groups.items()}
    assert tokens == pytest.approx({"CPU 0": 1000, "CPU 1": 700})
    assert throughput.groups["CPU 0"][:5].max() == 0  # before the first second
    assert throughput.groups["CPU 0"].max() == pytest.approx(250)


def test_many_actors_become_groups():
    timeline = [entry(f"node{n:04d}:0", 0, 10, tokens=10) for n in range(1000)]
    throughput = bin_throughput(timeline, 10.0)
    assert len(throughput.groups) == MAX_GROUPS
    assert sum(rate.mean() for rate in throughput.groups.values()) == pytest.approx(1000)


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
