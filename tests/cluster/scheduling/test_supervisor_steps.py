"""A supervisor step by step: which slot gets what, and what the driver is told when."""

import pytest

from fastformers.cluster.scheduling.supervisor import OVERDUE
from fastformers.cluster.scheduling.work import (
    Failed,
    Finished,
    Lost,
    MeasureRate,
    Returned,
    Ticket,
)
from tests.cluster.scheduling.bench import done, lost, task, tasks
from tests.cluster.scheduling.jobs import make_slice


def test_each_slot_has_a_call_before_any_has_two(bench):
    node = bench(2)
    assert node.order(*tasks(0, 1)) == [(0, [0]), (1, [1])]
    assert node.supervisor.num_in_hand == 2
    assert node.order(*tasks(2, 3)) == []
    assert node.order(*tasks(4)) == [(0, [2])]  # more wait than there are slots
    assert node.order(is_plenty=True) == [(1, [3])]
    assert node.order(*tasks(5), is_plenty=True) == []


def test_a_slot_holds_no_more_calls_than_it_can(bench):
    node = bench(1, max_calls=1)
    assert node.order(*tasks(0, 1, 2), is_plenty=True) == [(0, [0])]
    assert node.end(done(0)) == [(0, [1])]


def test_the_slot_that_was_idle_first_is_next(bench):
    node = bench(2)
    node.order(*tasks(0, 1))
    node.end(done(1))
    node.end(done(0))
    assert node.order(*tasks(2, 3)) == [(1, [2]), (0, [3])]


def test_a_slot_that_has_ended_its_first_call_can_hold_another(bench):
    node = bench(1)
    node.order(*tasks(0, 1, 2), is_plenty=True)
    assert node.end(done(0, 100.0)) == [(0, [2])]
    assert node.end(done(1, 100.0)) == []
    assert node.order(*tasks(3), is_plenty=True) == [(0, [3])]
    node.end(done(2, 100.0), done(3, 100.0))
    assert node.order(*tasks(4)) == [(0, [4])]
    assert node.supervisor.num_in_hand == 1


def test_a_task_over_which_a_worker_died_has_its_worker_alone(bench):
    node = bench(2)
    retried = task(0, attempt=2)
    assert node.order(retried, *tasks(1, 2, 3, 4), is_plenty=True) == [
        *((0, [0]), (1, [1]), (1, [2])),
    ]
    node = bench(1)
    assert node.order(*tasks(0), task(1, attempt=2), *tasks(2), is_plenty=True) == [(0, [0])]


def test_short_tasks_share_a_call_of_a_quarter_second(bench):
    node = bench(1)
    node.learn(0.1)
    assert node.order(*tasks(*range(5)))[0] == (0, [0, 1])
    node = bench(1)
    node.learn(0.125)
    assert node.order(*tasks(*range(5)))[0] == (0, [0, 1])
    node = bench(1)
    node.learn(0.13)
    assert node.order(*tasks(*range(5)))[0] == (0, [0])
    node = bench(1)
    node.learn(0.1)
    longer = task(1, predicted_s=2.0)
    assert node.order(task(0), longer, *tasks(2, 3, 4))[0] == (0, [0])


def test_a_task_of_which_nothing_is_predicted_fills_a_call(bench):
    node = bench(1)
    node.learn(0.001)
    assert node.order(task(0), *tasks(1, 2, 3, predicted_s=0.0))[0] == (0, [0])


def test_a_call_leaves_some_tasks_for_the_other_slots(bench):
    node = bench(2)
    node.learn(0.001)
    assert node.order(*tasks(*range(9)))[:2] == [(0, [0, 1, 2, 3]), (1, [4, 5])]
    node = bench(1)
    node.learn(0.001)
    assert node.order(*tasks(*range(40)))[0] == (0, [*range(32)])


def test_tasks_of_a_call_are_of_one_kind_and_none_has_killed_a_worker(bench):
    node = bench(1, max_calls=1)
    node.learn(0.001)
    node.order(
        *tasks(0, 1, 2),
        task(3, attempt=2),
        *tasks(4, 5),
        task(6, job=make_slice(0)),
        *tasks(7, 8, 9),
    )
    while node.supervisor.num_in_hand:
        node.end(*(done(ticket, 0.001) for ticket in node.pool.calls[-1][1]))
    calls = [tickets for _, tickets in node.pool.calls[1:]]
    assert calls[:4] == [[0, 1, 2], [3], [4, 5], [6]]
    assert [ticket for tickets in calls for ticket in tickets] == [*range(10)]


def test_slices_share_a_call_by_what_slices_took(bench):
    node = bench(1, max_calls=1)
    slices = [task(number, job=make_slice(number)) for number in range(6)]
    node.order(slices[0])
    assert node.end(done(0, 0.05)) == []
    assert node.order(*slices[1:]) == [(0, [1, 2, 3, 4])]


def test_a_task_that_only_measures_is_alone_and_has_no_pace(bench):
    node = bench(1, max_calls=1)
    measure = [task(number, job=MeasureRate(seconds=1.0)) for number in range(4)]
    assert node.order(*measure) == [(0, [0])]
    assert node.end(done(0, 0.001)) == [(0, [1])]
    assert node.ended() == [(Finished, 0, "host:0", 0.0, 0.0)]


def test_times_are_by_the_driver_s_clock_and_the_fastest_message_counts(bench, clock):
    node = bench(1)
    clock.now = 10.0
    node.order(task(0), now=150.0)
    clock.now = 20.0
    node.order(now=155.0)  # this one was on its way for five seconds
    assert node.supervisor.report().begun == ((0, 150.0),)
    node.end(done(0, 12.0), at=23.0)
    assert node.ended() == [(Finished, 0, "host:0", 150.0, 162.0)]
    clock.now = 30.0
    node.order(task(1), now=172.0)
    assert node.supervisor.report().begun == ((1, 172.0),)


def test_a_task_begins_when_the_one_before_it_in_its_call_ends(bench):
    node = bench(1)
    node.learn(0.01)
    node.order(*tasks(0, 1, 2, 3))  # the last one waits
    assert node.supervisor.report().begun == ((0, 0.0), (1, 0.0), (2, 0.0))
    node.end(done(0, 2.0), done(1, 3.0), at=7.0)
    assert node.ended() == [
        (Finished, 0, "host:0", 0.0, 2.0),
        (Finished, 1, "host:0", 2.0, 5.0),
    ]
    node.end(lost(2), at=9.0)
    assert node.ended() == [(Lost, 2, "host:0", 5.0, 9.0)]


def test_a_task_cannot_end_later_than_now(bench):
    node = bench(1)
    node.order(task(0))
    node.end(done(0, 5.0), at=4.0)
    assert node.ended() == [(Finished, 0, "host:0", 0.0, 4.0)]


def test_a_second_call_begins_when_the_first_has_ended(bench):
    node = bench(1)
    node.order(*tasks(0, 1), is_plenty=True)
    assert node.supervisor.report().begun == ((0, 0.0),)
    node.end(done(0, 6.0), at=6.0)
    assert node.supervisor.report().begun == ((1, 6.0),)
    node.end(Failed(ticket=Ticket(1), error=OSError("no such device")), at=8.0)
    assert node.ended() == [(Failed, 1, "host:0", 6.0, 8.0)]


def test_a_second_call_that_is_done_first_had_the_turn_of_the_first(bench, clock):
    """A worker reads two shards at once, and computes the one that it has read."""
    clock.now = 10.0
    node = bench(1, timeout_s=20.0)
    node.order(*tasks(0, 1, 2), is_plenty=True, now=10.0)
    node.end(done(1, 6.0), at=16.0)
    node.end(done(0, 5.0), at=21.0)
    node.end(at=40.0)
    assert node.pool.killed == []  # the third one's time is from 21 on
    node.end(done(2, 19.5), at=40.5)
    assert node.ended() == [
        (Finished, 1, "host:0", 10.0, 16.0),
        (Finished, 0, "host:0", 16.0, 21.0),
        (Finished, 2, "host:0", 21.0, 40.5),
    ]


def test_a_task_that_dies_before_its_turn_has_taken_no_time(bench):
    node = bench(1)
    node.order(*tasks(0, 1), is_plenty=True)
    node.end(lost(1), lost(0), at=4.0)
    assert node.ended() == [
        (Lost, 1, "host:0", 4.0, 4.0),
        (Lost, 0, "host:0", 0.0, 4.0),
    ]


def test_what_waits_is_given_back_at_once_and_no_more(bench):
    node = bench(1)
    node.order(*tasks(0, 1))
    assert node.order(take_back=(Ticket(0), Ticket(1), Ticket(7))) == []
    assert node.ended() == [(Returned, 1, None, 0.0, 0.0)]
    assert node.supervisor.num_in_hand == 1
    assert node.end(done(0)) == []


def test_it_is_due_when_time_is_over(bench, clock):
    node = bench(1)
    node.order(task(0), wait_s=3.0)
    for now, is_due in ((0.0, False), (2.9, False), (3.0, True)):
        clock.now = now
        assert node.supervisor.is_due() is is_due


def test_it_is_due_two_seconds_after_it_began_without_orders(bench, clock):
    clock.now = 5.0
    node = bench(1)
    node.end(at=6.9)
    assert not node.supervisor.is_due()
    clock.now = 7.0
    assert node.supervisor.is_due()


def test_it_is_due_when_it_runs_low(bench):
    node = bench(3)
    node.order(*tasks(0, 1, 2), answer_below=2)
    node.end(done(0))
    assert not node.supervisor.is_due()
    node.end(done(1))
    assert node.supervisor.is_due()
    node.supervisor.report()
    assert not node.supervisor.is_due()  # low, but with nothing to tell


def test_it_is_due_a_quarter_second_after_the_first_outcome(bench, clock):
    node = bench(3)
    node.order(*tasks(0, 1, 2), answer_below=0)
    node.end(done(0), at=5.0)
    node.end(done(1), at=5.2)
    assert not node.supervisor.is_due()
    clock.now = 5.25
    assert node.supervisor.is_due()
    node.supervisor.report()
    node.end(done(2), at=6.0)
    assert not node.supervisor.is_due()


def test_it_is_due_when_it_will_be_taken_away_and_when_not_after_all(bench, clock):
    node = bench(1, leaving=lambda: "in 120 s" if clock.now == 1.0 else None)
    node.order(task(0))
    for now, leaving in ((1.0, "in 120 s"), (2.0, None)):
        assert not node.supervisor.is_due()
        clock.now = now
        assert node.supervisor.is_due()
        assert node.supervisor.report().leaving == leaving


def test_it_waits_until_something_is_due_or_to_be_watched(bench, clock):
    node = bench(2)
    node.order(*tasks(0, 1), wait_s=3.0, answer_below=0)
    assert node.supervisor.time_left() == 0.2
    clock.now = 2.9
    assert node.supervisor.time_left() == pytest.approx(0.1)
    clock.now = 4.0
    assert node.supervisor.time_left() == 0.001
    node.order(wait_s=3.0, answer_below=0)
    node.end(done(0), at=5.0)
    clock.now = 5.15
    assert node.supervisor.time_left() == pytest.approx(0.1)
    node.supervisor.report()
    assert node.supervisor.time_left() == 0.2


def test_it_says_what_its_slots_do(bench):
    node = bench(3)
    zero, one, two = node.pool.slots
    node.pool.doing = {zero: "infer", one: "infer", two: "read"}
    node.pool.outage = ["s3://bucket: no answer"]
    report = node.supervisor.report()
    assert report.doing == {"infer": 2, "read": 1}
    assert (report.num_slots, report.notices) == (3, ("s3://bucket: no answer",))
    assert (report.ended, report.begun, report.leaving, report.trouble) == ((), (), None, None)


def test_a_slot_that_disappears_gets_no_more_calls(bench):
    node = bench(3)
    node.order(*tasks(0, 1, 2), *tasks(3, 4, 5, 6), is_plenty=True)
    assert node.pool.calls[3:] == [(0, [3]), (1, [4]), (2, [5])]
    gone = node.pool.slots.pop(0)
    assert node.end(lost(0), lost(3), at=2.0) == []
    assert node.ended() == [(Lost, 0, gone.name, 0.0, 2.0), (Lost, 3, gone.name, 2.0, 2.0)]
    assert node.supervisor.report().num_slots == 2
    assert node.end(done(1)) == [(1, [6])]


def test_an_idle_slot_that_disappears_gets_no_calls(bench):
    node = bench(2)
    node.pool.slots.pop(0)
    node.end()
    assert node.order(*tasks(0, 1, 2)) == [(1, [0]), (1, [1])]
    assert not node.supervisor.is_due()


def test_a_node_without_slots_is_due_when_its_last_call_has_ended(bench):
    node = bench(1)
    node.order(*tasks(0, 1))
    node.pool.slots.clear()
    node.end()
    assert not node.supervisor.is_due()
    assert node.ended() == []
    node.end(lost(0))
    assert node.supervisor.is_due()
    assert [entry[:3] for entry in node.ended()] == [(Lost, 0, "host:0"), (Returned, 1, None)]
    assert node.supervisor.num_in_hand == 0


def test_the_time_limit_of_a_call_is_that_of_its_tasks_together(bench):
    node = bench(1, timeout_s=10.0)
    node.learn(0.01)
    node.order(*tasks(0, 1, 2, 3))  # the last one waits
    for now, killed in ((30.0, []), (30.3, [0]), (40.0, [0])):
        node.end(at=now)
        assert node.pool.killed == killed
    node.end(lost(0), lost(1), lost(2))
    reasons = {entry.outcome.reason for entry in node.supervisor.report().ended}
    assert reasons == {OVERDUE}


def test_a_task_that_is_done_after_all_is_not_lost(bench):
    node = bench(1, timeout_s=10.0)
    node.order(task(0))
    node.end(at=11.0)
    assert node.pool.killed == [0]
    node.end(done(0), at=12.0)
    assert node.ended() == [(Finished, 0, "host:0", 0.0, 1.0)]


def test_only_what_is_lost_when_it_is_overdue_has_taken_too_long(bench):
    node = bench(1, timeout_s=10.0)
    node.order(task(0))
    node.end(at=11.0)
    assert node.pool.killed == [0]
    node.end(Failed(ticket=Ticket(0), error=OSError("no such device")), at=12.0)
    node.order(task(1))
    node.end(lost(1), at=13.0)
    failed, died = (entry.outcome for entry in node.supervisor.report().ended)
    assert isinstance(failed, Failed)
    assert died.reason == "its actor died"


def test_it_looks_five_times_a_second_and_not_more_often(bench):
    node = bench(1, timeout_s=10.0)
    node.order(task(0))
    node.end(at=9.95)
    node.end(at=10.1)
    assert node.pool.killed == []
    node.end(at=10.16)
    assert node.pool.killed == [0]


def test_the_time_of_an_outage_does_not_count(bench):
    node = bench(2, timeout_s=10.0)
    node.order(*tasks(0, 1))
    node.end(at=4.0)
    node.pool.outage = ["s3://bucket: no answer"]
    node.end(at=7.0)
    node.end(at=9.0)
    node.pool.outage = []
    node.end(at=15.0)
    assert node.pool.killed == []
    node.end(at=15.3)
    assert node.pool.killed == [0, 1]
