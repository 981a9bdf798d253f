"""The loop of one node over a pool whose tasks end as the test says."""

import pytest

from fastformers.cluster.scheduling.nodes import Orders
from fastformers.cluster.scheduling.supervisor import MAX_TASKS_IN_CALL, OVERDUE, Supervisor
from fastformers.cluster.scheduling.work import Finished, Lost, Returned, Task, Ticket
from tests.cluster.scheduling.jobs import make_lease


def make_tasks(count, predicted_s=1.0, first=0):
    return tuple(
        Task(ticket=Ticket(number), job=make_lease(number, predicted_s=predicted_s))
        for number in range(first, first + count)
    )


def serve_all(supervisor, orders, count):
    """Outcomes of `count` tasks, over as many exchanges as it takes."""
    ended = list(supervisor.serve(orders).ended)
    while len(ended) < count:
        ended += supervisor.serve(Orders(now=orders.now)).ended
    return ended


@pytest.fixture
def node(scripted_pool, clock):
    def make(num_slots, **options):
        pool = scripted_pool(num_slots)
        return pool, Supervisor(pool, clock=clock, **options)

    return make


def test_every_task_ends_once_and_its_times_are_by_the_driver_s_clock(node, clock):
    _, supervisor = node(2)
    clock.now = 1000.0
    ended = serve_all(supervisor, Orders(give=make_tasks(10), now=50.0), 10)
    assert sorted(entry.outcome.ticket for entry in ended) == list(range(10))
    assert all(isinstance(entry.outcome, Finished) for entry in ended)
    assert ended[0].start_s == 50.0
    assert all(entry.end_s - entry.start_s == 1.0 for entry in ended)
    assert 50.0 < max(entry.end_s for entry in ended) <= clock.now - 950.0
    assert supervisor.num_in_hand == 0


def test_it_answers_when_it_runs_low_and_not_before(node):
    _, supervisor = node(2)
    report = supervisor.serve(
        Orders(give=make_tasks(40), is_plenty=True, answer_below=40, wait_s=100.0)
    )
    assert len(report.ended) == 1
    assert report.begun


def test_it_answers_in_time_with_nothing_to_tell(node, clock):
    pool, supervisor = node(1)
    pool.decide = lambda worker, job: "works"
    report = supervisor.serve(Orders(give=make_tasks(1), wait_s=3.0))
    assert report.ended == ()
    assert report.begun == ((0, 0.0),)
    assert 3.0 <= clock.now < 3.5


def test_what_it_has_not_begun_can_be_taken_back(node):
    pool, supervisor = node(1)
    pool.decide = lambda worker, job: "works"
    supervisor.serve(Orders(give=make_tasks(3), wait_s=1.0))
    report = supervisor.serve(Orders(take_back=(Ticket(0), Ticket(2)), wait_s=1.0))
    assert [entry.outcome for entry in report.ended] == [Returned(ticket=Ticket(2))]


def test_second_calls_are_not_given_at_the_end_of_the_work(node):
    pool, supervisor = node(2)
    serve_all(supervisor, Orders(give=make_tasks(3)), 3)
    assert pool.most_in_hand == 1
    pool, supervisor = node(2)
    serve_all(supervisor, Orders(give=make_tasks(3), is_plenty=True), 3)
    assert pool.most_in_hand == 2


def test_short_tasks_travel_together_and_long_ones_do_not(node):
    pool, supervisor = node(1)
    pool.seconds = lambda job: 0.001
    serve_all(supervisor, Orders(give=make_tasks(200), is_plenty=True), 200)
    assert max(map(len, pool.calls)) == MAX_TASKS_IN_CALL
    pool, supervisor = node(1)
    pool.seconds = lambda job: 0.2
    serve_all(supervisor, Orders(give=make_tasks(50), is_plenty=True), 50)
    assert max(map(len, pool.calls)) == 1


def test_the_tasks_of_a_call_that_dies_are_all_lost_and_charged(node):
    pool, supervisor = node(1)
    pool.seconds = lambda job: 0.001
    serve_all(supervisor, Orders(give=make_tasks(4), is_plenty=True), 4)
    pool.decide = lambda worker, job: "dies"
    ended = serve_all(supervisor, Orders(give=make_tasks(8, first=10), is_plenty=True), 8)
    assert all(isinstance(entry.outcome, Lost) and entry.outcome.is_charged for entry in ended)


def test_a_task_that_takes_too_long_ends_with_its_worker(node, clock):
    pool, supervisor = node(1, timeout_s=10.0)
    pool.decide = lambda worker, job: "works"
    [ended] = serve_all(supervisor, Orders(give=make_tasks(1), wait_s=60.0), 1)
    assert ended.outcome == Lost(ticket=Ticket(0), reason=OVERDUE)
    assert 10.0 < clock.now < 12.0
    assert pool.num_replaced == 1


def test_a_shard_that_is_audited_may_take_as_much_longer(node, clock):
    pool, supervisor = node(1, extra=50.0)
    pool.decide = lambda worker, job: "works"
    [ended] = serve_all(supervisor, Orders(give=make_tasks(1), wait_s=1e4), 1)
    assert ended.outcome == Lost(ticket=Ticket(0), reason=OVERDUE)
    assert clock.now == pytest.approx(30 * 51, rel=0.01)


def test_the_time_limit_of_a_call_in_hand_begins_when_the_one_before_it_ends(node, clock):
    pool, supervisor = node(1, timeout_s=10.0)
    first = make_tasks(1)[0].job.shard.name
    pool.decide = lambda worker, job: (
        "works" if job.shard.name == first and clock.now < 9.0 else "done"
    )
    ended = serve_all(supervisor, Orders(give=make_tasks(2), is_plenty=True, wait_s=60.0), 2)
    assert pool.most_in_hand == 2
    assert [type(entry.outcome) for entry in ended] == [Finished, Finished]
    assert pool.killed == []


def test_by_default_a_task_may_take_300_seconds_or_30_times_its_prediction(node, clock):
    for predicted_s, limit_s in ((1.0, 300.0), (20.0, 600.0)):
        pool, supervisor = node(1)
        pool.decide = lambda worker, job: "works"
        start = clock.now
        serve_all(supervisor, Orders(give=make_tasks(1, predicted_s), wait_s=1e4), 1)
        assert limit_s < clock.now - start < limit_s + 5.0


def test_time_that_storage_does_not_answer_is_no_time_of_the_task(node, clock):
    pool, supervisor = node(1, timeout_s=10.0)
    pool.decide = lambda worker, job: "works"
    pool.outage = ["s3://bucket: no answer"]
    report = supervisor.serve(Orders(give=make_tasks(1), wait_s=100.0))
    assert report.ended == ()
    assert report.notices == ("s3://bucket: no answer",)
    pool.outage = []
    supervisor.serve(Orders(wait_s=100.0))
    assert 100.0 < clock.now < 115.0


def test_at_the_end_a_late_task_is_begun_in_an_idle_slot_too(node, clock):
    pool, supervisor = node(2)
    slow = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: "works" if worker is slow else "done"
    ended = serve_all(supervisor, Orders(give=make_tasks(6), wait_s=5.0), 6)
    assert sorted(entry.outcome.ticket for entry in ended) == list(range(6))
    assert clock.now < 20.0
    pool.decide = lambda worker, job: "done"  # the slow worker ends it after all
    assert supervisor.serve(Orders(wait_s=5.0)).ended == ()
    assert supervisor.num_in_hand == 0
    more = serve_all(supervisor, Orders(give=make_tasks(4, first=10), wait_s=5.0), 4)
    assert sorted(entry.outcome.ticket for entry in more) == [10, 11, 12, 13]


def test_no_copy_is_begun_while_plenty_waits_elsewhere(node, clock):
    pool, supervisor = node(2)
    slow = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: "works" if worker is slow else "done"
    supervisor.serve(Orders(give=make_tasks(4), is_plenty=True, wait_s=60.0, answer_below=0))
    assert len(pool.calls) == 4


def test_of_two_copies_that_die_the_task_is_lost_once(node):
    pool, supervisor = node(2, timeout_s=100.0)
    slow = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: "works" if worker is slow else "done"
    supervisor.serve(Orders(give=make_tasks(3), wait_s=2.5))
    pool.decide = lambda worker, job: "works"
    ended = serve_all(supervisor, Orders(wait_s=300.0), 1)
    assert [type(entry.outcome) for entry in ended] == [Lost]
    assert ended[0].outcome.ticket >= 0
    assert len(pool.killed) == 2


def test_a_node_without_slots_gives_everything_back(node):
    pool, supervisor = node(1)
    pool.decide = lambda worker, job: "dies"
    pool.has_left = set(pool.slots)
    ended = []
    report = supervisor.serve(Orders(give=make_tasks(3), wait_s=60.0))
    ended += report.ended
    while len(ended) < 3:
        report = supervisor.serve(Orders(wait_s=60.0))
        ended += report.ended
    assert {type(entry.outcome) for entry in ended} == {Lost, Returned}
    assert (report.num_slots, report.trouble) == (0, "its worker cannot start")


def test_a_node_that_will_be_taken_away_says_so_at_once(node, clock):
    leaving = []
    pool, supervisor = node(1, leaving=lambda: "in 120 s" if clock.now > 4.0 else None)
    pool.decide = lambda worker, job: "works"
    report = supervisor.serve(Orders(give=make_tasks(1), wait_s=60.0))
    assert report.leaving == "in 120 s"
    assert clock.now < 5.0
    assert leaving == []
