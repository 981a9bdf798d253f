"""Second copies of late tasks in idle slots, step by step."""

import pytest

from fastformers.cluster.scheduling.work import Finished, Lost, MeasureRate
from tests.cluster.scheduling.bench import done, lost, task, tasks


@pytest.mark.parametrize(("at", "calls"), [(20.0, []), (20.3, [(1, [-1])])])
def test_a_task_that_has_taken_twice_what_was_expected_is_late(bench, at, calls):
    node = bench(2)
    node.learn(10.0)
    node.order(task(0))
    assert node.end(at=at) == calls


@pytest.mark.parametrize(("slow_s", "calls"), [(16.25, []), (16.5, [(1, [-1])])])
def test_a_copy_must_save_half_of_its_time_and_a_second(bench, slow_s, calls):
    """The idle slot takes ten seconds, and half a second of the slow one's has passed."""
    node = bench(2)
    node.order(*tasks(0, 1))
    node.end(done(0, slow_s), done(1, 10.0))
    node.order(task(2))
    assert node.end(at=0.5) == calls


@pytest.mark.parametrize(("at", "calls"), [(120.0, []), (120.3, [(1, [-1])])])
def test_a_task_is_late_from_when_it_was_begun(bench, clock, at, calls):
    node = bench(2)
    node.learn(10.0)
    clock.now = 100.0
    node.order(task(0))
    assert node.end(at=at) == calls


def test_no_copy_is_begun_while_tasks_wait_or_no_slot_is_idle(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(*tasks(0), is_plenty=True)
    assert node.end(at=50.0) == []
    node.order()
    assert node.end(at=51.0) == [(1, [-1])]
    node = bench(1)
    node.learn(1.0)
    node.order(task(0))
    assert node.end(at=90.0) == []


def test_a_task_that_has_killed_a_worker_is_not_copied(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(task(0, attempt=2))
    assert node.end(at=50.0) == []


def test_a_task_that_only_measures_is_not_copied(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(task(0, job=MeasureRate(seconds=1.0)))
    assert node.end(at=50.0) == []


def test_the_latest_tasks_are_copied_first_and_each_once(bench):
    node = bench(4)
    node.learn(1.0)
    node.order(*tasks(0))
    node.end(at=10.0)
    assert node.pool.calls[-1] == (1, [-1])
    node.order(*tasks(1, 2))
    assert node.pool.calls[-2:] == [(2, [1]), (3, [2])]
    node.end(at=20.0)
    node.end(done(-1, 1.0), at=30.0)
    assert node.pool.calls[-1] == (1, [-2])
    assert node.end(at=40.0) == []


def test_what_waits_in_a_slow_slot_is_late_as_well(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(*tasks(0, 1, 2, 3), is_plenty=True)
    node.end(done(1), done(3))
    node.order()
    assert node.end(at=50.0) == [(1, [-1])]
    assert node.end(done(-1), at=51.0) == [(1, [-2])]
    node.end(done(-2), at=52.0)
    assert [entry[1] for entry in node.ended()] == [1, 3, 2, 0]


def test_what_waits_in_a_slot_has_all_of_its_time_before_it(bench):
    """Of two tasks of ten seconds five have passed; the idle slot does the second in nine."""
    node = bench(2)
    node.order(*tasks(0, 1))
    node.end(done(0, 10.0), done(1, 9.0))
    node.order(*tasks(2, 3, 4, 5), is_plenty=True)
    node.end(done(3, 9.0), done(5, 9.0))
    node.order()
    assert node.end(at=5.0) == [(1, [-1])]
    node.end(done(-1), at=6.0)
    assert [entry[1] for entry in node.ended()] == [0, 1, 3, 5, 4]


@pytest.mark.parametrize(("first", "second"), [(0, -1), (-1, 0)])
def test_the_first_result_of_two_copies_counts_and_the_other_frees_its_slot(bench, first, second):
    node = bench(2)
    node.learn(1.0)
    node.order(task(0))
    node.end(at=10.0)
    node.end(done(first), at=20.0)
    assert [entry[:2] for entry in node.ended()] == [(Finished, 0)]
    assert node.supervisor.num_in_hand == 0
    node.end(done(second), at=21.0)
    assert node.ended() == []
    assert node.supervisor.num_in_hand == 0
    assert {slot for slot, _ in node.order(*tasks(1, 2))} == {0, 1}


def test_of_two_copies_one_may_die(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(task(0))
    node.end(at=10.0)
    node.end(lost(0), at=20.0)
    assert node.ended() == []
    node.end(lost(-1), at=21.0)
    assert [entry[:3] for entry in node.ended()] == [(Lost, 0, "host:1")]


def test_a_copy_is_not_told_as_begun(bench):
    node = bench(2)
    node.learn(1.0)
    node.order(task(0))
    node.end(at=10.0)
    assert node.supervisor.report().begun == ((0, 0.0),)
