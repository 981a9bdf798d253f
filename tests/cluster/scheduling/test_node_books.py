import pytest

from fastformers.cluster.scheduling.node_books import Leased, NodeBooks
from fastformers.cluster.scheduling.work import Task, Ticket
from tests.cluster.scheduling.jobs import make_lease, make_node, make_slice


def books_of(num_slots, *, num_leased=0, seconds=None, leaving=None):
    """A node with some jobs in its hands, which took `seconds` each so far."""
    books = NodeBooks(make_node(0, num_slots), "node0/2", 3.0, 7.0, num_slots, leaving=leaving)
    for number in range(num_leased):
        job = make_lease(number)
        task = Task(ticket=Ticket(number), job=job)
        books.leased[task.ticket] = Leased(task, job, books, 0.0)
    if seconds is not None:
        books.pace.add(seconds, 1.0)
    return books


@pytest.mark.parametrize(("num_leased", "num_free"), [(0, 3), (1, 2), (3, 0), (5, 0)])
def test_a_slot_without_a_job_is_free(num_leased, num_free):
    assert books_of(3, num_leased=num_leased).num_free_slots == num_free


def test_a_node_that_leaves_has_no_free_slots_and_wants_nothing():
    books = books_of(3, leaving="in 120 s")
    assert (books.num_free_slots, books.num_wanted) == (0, 0)


@pytest.mark.parametrize(
    ("num_slots", "seconds", "num_wanted"),
    [
        (8, None, 18),  # two calls a slot and a quarter more, before anything is known
        (1, None, 3),
        (8, 100.0, 18),
        (8, 0.1, 320),  # what it does in four seconds
        (8, 1e-4, 512),  # at most 64 a slot
    ],
)
def test_a_node_is_leased_what_it_does_in_some_seconds(num_slots, seconds, num_wanted):
    assert books_of(num_slots, seconds=seconds).num_wanted == num_wanted


@pytest.mark.parametrize(
    ("num_wanted", "answer_below"), [(0, 8), (8, 8), (12, 12), (18, 17), (30, 17), (320, 160)]
)
def test_it_answers_while_it_still_has_work(num_wanted, answer_below):
    assert books_of(8).answer_below(num_wanted) == answer_below


def test_its_use_counts_from_the_start_of_the_run():
    use = books_of(2).use(12.0, 1.0, "it died")
    assert (use.joined_s, use.ready_s, use.left_s, use.reason) == (2.0, 6.0, 11.0, "it died")
    assert (use.node, use.name, use.instance_type) == ("node0/2", "host0", None)
    assert (use.num_cores, use.num_idle_cores, use.self_check) == (3, 1, "scripted")
    assert use.actor_cores == {"host0:0": 1, "host0:1": 1}


def test_shards_and_slices_have_a_pace_of_their_own():
    books = books_of(2)
    assert (books.expect(make_lease(0)), books.expect(make_slice(0))) == (None, None)
    books.add_pace(make_lease(0, predicted_s=2.0), 6.0)
    books.add_pace(make_slice(0), 7.0)
    assert books.expect(make_lease(1, predicted_s=5.0)) == 15.0
    assert books.expect(make_slice(1)) == 7.0
    assert (books.pace.seconds, books.slice_pace.seconds) == (6.0, 7.0)
