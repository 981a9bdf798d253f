"""How long the rest of a run takes: arithmetic where nothing varies, and coverage where it does."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from fastformers.cluster.scheduling.forecast.time_left import (
    JobTimes,
    SlotKind,
    WorkLeft,
)
from tests.cluster.scheduling.forecast.synthetic import CPU, draw_world, play

GPU = SlotKind("cuda", "some type")
LEFT = WorkLeft(known_s=900.0, num_shards=90, shard_s=10.0, num_slices=0, scoring={CPU: 4})


def times_of(*, factor=2.0, number=50, kind=CPU, into=None):
    """Shards of 10 predicted seconds that each took `factor` times as long."""
    times = into or JobTimes()
    for _ in range(number):
        times.add_shard(kind, 10.0, 10.0 * factor)
    return times


def test_what_is_left_takes_its_pace_on_the_slots_that_are_there():
    found = times_of().time_left(LEFT)
    half_a_shard = 20.0 / 2 / 4
    assert found.seconds == pytest.approx(900.0 * 2.0 / 4 - half_a_shard)
    assert found.low_s < found.seconds < found.high_s
    assert found.low_s * found.high_s == pytest.approx(found.seconds**2)
    twice = times_of().time_left(replace(LEFT, scoring={CPU: 8}))
    assert twice.seconds == pytest.approx(found.seconds / 2)


def test_slices_that_are_not_cut_are_cut_and_scored():
    times = times_of()
    for _ in range(10):
        times.add_slice(30.0, is_rest=False)
        times.add_cutting(4.0, is_rest=False, by_scorer=True)
    found = times.time_left(replace(LEFT, num_slices=20))
    cut_and_scored = 20 * (30.0 * 2.0 + 4.0) / 4
    assert found.seconds == pytest.approx(times.time_left(LEFT).seconds + cut_and_scored)


def test_the_rest_of_a_slice_is_no_slice_of_its_own():
    times = times_of()
    for is_rest in (False, True, True):
        times.add_slice(10.0, is_rest=is_rest)
    assert times.predicted_of_slice_s == 30.0


def test_slices_of_which_nothing_is_predicted_say_nothing_of_others():
    """As where all rows of those that are cut are bad."""
    times = times_of(into=JobTimes(num_cut=5, cut_s=0.0))
    assert times.time_left(replace(LEFT, num_slices=1)) is None


def test_a_shard_at_the_end_is_as_unsure_as_a_moment_within_it():
    """One slot, 100 s left: the last shard takes 60 s, so its end is off by 60 / sqrt(12)."""
    times = JobTimes()
    for _ in range(10_000):
        times.add_shard(CPU, 60.0, 60.0)
    left = WorkLeft(known_s=130.0, num_shards=2, shard_s=60.0, num_slices=0, scoring={CPU: 1})
    found = times.time_left(left)
    assert found.seconds == pytest.approx(100.0)
    sigma = math.sqrt(math.log1p((60**2 / 12 + 3**2) / 100**2))  # and 3% of drift
    assert found.high_s == pytest.approx(100 * math.exp(1.645 * sigma), rel=0.01)


def test_slices_of_earlier_sessions_say_what_is_left():
    times = JobTimes(num_cut=10, cut_s=300.0)
    assert times.predicted_of_slice_s == 30.0
    assert times_of(into=times).time_left(replace(LEFT, num_slices=20)).seconds > 300.0


def test_slices_of_earlier_sessions_are_as_many_as_they_are():
    """The mean of a thousand is better known than one slice; it was taken for one."""
    left = replace(LEFT, num_slices=1000)
    widths = {}
    for num_cut in (1, 1000):
        times = times_of(into=JobTimes(num_cut=num_cut, cut_s=30.0 * num_cut))
        found = times.time_left(left)
        widths[num_cut] = found.high_s / found.low_s
    assert widths[1000] < 1.3 < 2 < widths[1]


def test_a_gpu_and_cores_share_the_rest_by_their_pace():
    times = times_of(factor=2.0)
    times_of(factor=0.1, kind=GPU, into=times)
    found = times.time_left(replace(LEFT, known_s=105_000.0, scoring={CPU: 10, GPU: 10}))
    assert found.seconds == pytest.approx(105_000.0 / (10 / 2.0 + 10 / 0.1), rel=0.001)
    gpus_gone = times.time_left(replace(LEFT, known_s=105_000.0, scoring={CPU: 10}))
    assert gpus_gone.seconds == pytest.approx(21_000.0, rel=0.001)


def test_a_type_that_has_just_come_is_like_the_others_of_its_device():
    new = SlotKind("cpu", "another type")
    assert times_of().time_left(replace(LEFT, scoring={new: 4})).seconds == pytest.approx(
        times_of().time_left(LEFT).seconds
    )
    only_gpus = times_of(factor=0.1, kind=GPU)
    assert only_gpus.time_left(LEFT) is None
    both = only_gpus.time_left(replace(LEFT, scoring={new: 40, GPU: 4}))
    assert both.seconds == pytest.approx(900 * 0.1 / 4, rel=0.3)  # the cores are not counted yet


def test_a_type_that_has_just_come_may_be_faster_or_slower():
    new = SlotKind("cpu", "another type")
    known = times_of().time_left(LEFT)
    half = times_of().time_left(replace(LEFT, scoring={CPU: 2, new: 2}))
    only = times_of().time_left(replace(LEFT, scoring={new: 4}))
    widths = [each.high_s / each.low_s for each in (known, half, only)]
    assert widths[0] < 1.2 < widths[1] < 2 < widths[2]


def test_slots_of_which_nothing_is_known_do_not_lengthen_the_shards_of_others():
    """The last shard of a GPU takes a second, however many cores have just come."""
    left = replace(LEFT, known_s=40.0, num_shards=4, scoring={GPU: 4})
    alone = times_of(factor=0.1, kind=GPU).time_left(left)
    with_cores = times_of(factor=0.1, kind=GPU).time_left(replace(left, scoring={GPU: 4, CPU: 40}))
    assert with_cores == alone


def test_helpers_that_cannot_keep_up_are_waited_for():
    times = times_of(factor=0.01, kind=GPU)
    for _ in range(10):
        times.add_slice(30.0, is_rest=False)
        times.add_cutting(4.0, is_rest=False, by_scorer=False)
    left = replace(LEFT, num_slices=200, scoring={GPU: 1}, num_helpers=2)
    assert times.time_left(left).seconds == pytest.approx(200 * 4.0 / 2)
    assert times.time_left(replace(left, num_helpers=8)).seconds == pytest.approx(
        times.time_left(replace(left, num_helpers=16)).seconds, rel=0.7
    )


def test_what_only_prepares_takes_as_long_as_its_slices():
    times = JobTimes()
    for _ in range(10):
        times.add_slice(30.0, is_rest=False)
        times.add_cutting(4.0, is_rest=False, by_scorer=False)
    left = WorkLeft(
        known_s=0.0, num_shards=0, shard_s=10.0, num_slices=20, num_helpers=4, scores=False
    )
    assert times.time_left(left).seconds == pytest.approx(20.0)
    assert times.time_left(replace(left, num_helpers=0)) is None


@pytest.mark.parametrize(
    "left",
    [
        replace(LEFT, scoring={}),  # all nodes have left
        replace(LEFT, num_slices=1),  # none is cut
    ],
)
def test_what_is_not_known_is_not_forecast(left):
    assert times_of().time_left(left) is None
    assert JobTimes().time_left(LEFT) is None


def test_the_last_shards_are_waited_for():
    found = times_of().time_left(replace(LEFT, known_s=10.0, num_shards=1))
    assert found.seconds == pytest.approx(10.0)  # half of the 20 s that one takes in one slot


def test_intervals_narrow_as_more_is_known():
    widths = []
    for number in (1, 10, 100, 1000):
        found = times_of(number=number).time_left(replace(LEFT, known_s=9e5, num_shards=90_000))
        widths.append((found.high_s - found.low_s) / found.seconds)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.645 * 0.03, rel=0.2)  # what no part tells of another


def test_few_shards_that_are_left_may_differ_though_the_pace_is_known():
    """Of 100 shards that differ by 30%, the mean is off by 3%: as much as by drift alone."""
    times, rng = JobTimes(), random.Random(3)
    for _ in range(10_000):
        times.add_shard(CPU, 10.0, 20.0 * rng.gauss(1, 0.3))
    widths = {}
    for number in (100, 10_000):
        left = replace(LEFT, known_s=10.0 * number, num_shards=number, scoring={CPU: 1})
        found = times.time_left(left)
        widths[number] = (found.high_s - found.low_s) / found.seconds
    assert widths[100] > 1.2 * widths[10_000]


def test_nine_of_ten_synthetic_runs_end_within_their_interval():
    """At 1, 10 and 50% of 300 runs of all sizes; each share alone and the middle unbiased."""
    marks = (0.01, 0.1, 0.5)
    rng = random.Random(20)
    counts, covered, errors = Counter(), Counter(), Counter()
    for _ in range(300):
        found, end = play(draw_world(rng), rng, marks)
        for mark, (now, left) in found.items():
            counts[mark] += 1
            covered[mark] += now + left.low_s <= end <= now + left.high_s
            errors[mark] += (now + left.seconds) / end - 1
    for mark in marks:
        assert counts[mark] > 290
        assert 0.85 <= covered[mark] / counts[mark] <= 0.95, mark
        assert abs(errors[mark] / counts[mark]) < 0.06, mark
