"""What moves between nodes at the end of the work."""

from types import SimpleNamespace

import pytest

from fastformers.cluster.scheduling.node_books import Leased, NodeBooks
from fastformers.cluster.scheduling.tail import Tail
from fastformers.cluster.scheduling.work import Task, Ticket
from tests.cluster.scheduling.jobs import make_lease, make_node, make_slice


def node_of(name):
    """A node on cores; on GPUs where its name says so."""
    return SimpleNamespace(id=name, device="cuda" if "gpu" in name else "cpu", scores=True)


class End:
    """Nodes at the end of a run, and the jobs in their hands."""

    def __init__(self, clock, **num_slots):
        self.clock, self.leased = clock, {}
        self.books = {
            name: NodeBooks(node_of(name), name, 0.0, 0.0, count)
            for name, count in num_slots.items()
        }
        self.tail = Tail(self.books, clock)
        clock.now = 100.0

    def lease(self, node, *, given=99.0, began=None, job=None, predicted_s=1.0, attempt=1):
        number = len(self.leased)
        job = job or make_lease(number, attempt=attempt, predicted_s=predicted_s)
        task = Task(ticket=Ticket(number), job=job)
        books = self.books[node]
        leased = Leased(task, job, books, given, began=began)
        self.leased[task.ticket] = books.leased[task.ticket] = leased
        return leased

    def pace(self, **factors):
        for node, factor in factors.items():
            self.books[node].pace.add(factor, 1.0)

    def balance(self):
        self.tail.balance(self.leased)
        return {name: books.take_back for name, books in self.books.items() if books.take_back}

    def copies(self, node):
        """Tickets of the jobs that a node is given to begin as well."""
        tickets = []
        while (leased := self.tail.take_copy(node)) is not None:
            tickets.append(leased.task.ticket)
        return tickets


@pytest.fixture
def end(clock):
    return lambda **num_slots: End(clock, **num_slots)


def test_what_is_not_begun_is_taken_back_for_the_slots_that_are_free(end):
    run = end(full=2, free=2)
    for began in (99.0, 99.0, None, None, None):
        run.lease("full", began=began)
    assert run.balance() == {"full": [2, 3]}
    run.clock.now += 1.0
    assert run.balance() == {"full": [2, 3, 4]}  # none is asked for twice


def test_the_last_free_slot_is_filled_too(end):
    run = end(full=1, free=1)
    run.lease("full", began=99.0)
    run.lease("full")
    assert run.balance() == {"full": [1]}


def test_a_node_with_free_slots_keeps_what_it_has(end):
    run = end(half=2, free=2)
    run.lease("half")
    assert run.balance() == {}


@pytest.mark.parametrize("num_slots", [{"full": 1}, {"full": 1, "also": 0}])
def test_nothing_moves_where_none_is_free(end, num_slots):
    run = end(**num_slots)
    run.lease("full", began=99.0)
    run.lease("full")
    assert run.balance() == {}


def test_a_node_alone_keeps_what_it_has(end):
    run = end(alone=3)
    run.pace(alone=1.0)
    run.lease("alone", began=0.0)
    assert run.balance() == {}
    assert run.copies("alone") == []


def test_it_looks_twice_a_second_and_not_more_often(end):
    run = end(full=1, free=1)
    run.balance()
    run.lease("full", began=99.0)
    run.lease("full")
    run.clock.now += 0.49
    assert run.balance() == {}
    run.clock.now += 0.01
    assert run.balance() == {"full": [1]}


def test_it_looks_for_the_first_time_half_a_second_after_the_start(end):
    run = end(full=1, free=1)
    run.lease("full", began=0.0)
    run.lease("full")
    run.clock.now = 0.4
    assert run.balance() == {}


def test_a_job_that_would_end_late_is_begun_on_the_fastest_free_node(end):
    run = end(slow=1, free=1)
    run.pace(free=1.0)
    run.lease("slow", began=90.0)  # expected to take one second, as there
    run.balance()
    assert run.copies("slow") == []
    assert run.copies("free") == [0]
    assert run.copies("free") == []


@pytest.mark.parametrize(("seconds", "is_late"), [(35.0, False), (36.0, True)])
def test_a_copy_must_save_half_of_its_time_and_two_seconds(end, seconds, is_late):
    """A job of 10 predicted seconds takes 20 on the free node; it is begun where this is more."""
    run = end(slow=1, free=1)
    run.pace(free=2.0, slow=seconds / 10.0)
    run.lease("slow", began=97.0, predicted_s=10.0)  # three of its seconds have passed
    run.balance()
    assert run.copies("free") == ([0] if is_late else [])


@pytest.mark.parametrize(("seconds", "is_late"), [(16.5, False), (17.0, True)])
def test_a_job_that_is_not_begun_waits_for_one_other(end, seconds, is_late):
    run = end(slow=1, free=1)
    run.pace(free=2.0, slow=seconds / 10.0)
    run.lease("slow", given=99.0, predicted_s=10.0).is_wanted_back = True
    run.balance()
    assert run.copies("free") == ([0] if is_late else [])


def test_a_node_without_a_pace_is_taken_to_be_as_fast(end):
    run = end(slow=1, free=1)
    run.pace(free=1.0)
    run.lease("slow", began=98.5)
    run.balance()
    assert run.copies("free") == []


def test_the_latest_jobs_come_first_and_no_more_than_there_are_free_slots(end):
    run = end(slow=3, free=2)
    run.pace(free=1.0)
    for began in (80.0, 60.0, 70.0):
        run.lease("slow", began=began)
    run.balance()
    assert run.copies("free") == [1, 2]


def test_slots_that_take_jobs_back_begin_no_copies(end):
    run = end(slow=1, free=2)
    run.pace(free=1.0)
    run.lease("slow", began=60.0)
    run.lease("slow", began=70.0)
    run.lease("slow")
    assert run.balance() == {"slow": [2]}
    assert run.copies("free") == [0]


def test_the_pace_of_the_fastest_free_node_counts_that_does_not_hold_the_job(end):
    """Nodes that are free may be slow, too: the estimate is that of the fastest."""
    run = end(slow=1, unknown=1, crawls=1, free=1)
    run.pace(crawls=90.0, free=1.0)
    run.lease("slow", began=90.0)
    run.balance()
    assert run.copies("free") == [0]


def test_a_node_with_free_slots_can_be_late_itself(end):
    run = end(fast=2, other=1)
    run.pace(fast=1.0, other=2.0)
    late = run.lease("fast", began=80.0)
    run.balance()
    assert run.copies("fast") == []
    assert run.copies("other") == [0]
    run.pace(other=100.0)  # now its job would end later there
    run.clock.now += 1.0
    late.began = 92.0
    run.balance()
    assert run.copies("other") == []


def test_the_pace_of_a_node_without_free_slots_does_not_count(end):
    run = end(slow=1, busy=1, free=1)
    run.pace(busy=0.1, slow=10.0, free=10.0)
    run.lease("busy", began=99.9)
    run.lease("slow", began=99.0)
    run.balance()
    assert run.copies("free") == []


def test_no_copy_is_begun_where_no_other_node_s_pace_is_known(end):
    run = end(slow=1, free=1)
    run.pace(slow=1.0)
    run.lease("slow", began=0.0)
    run.balance()
    assert run.copies("free") == []


def test_what_killed_a_worker_what_has_no_pace_and_what_has_a_copy_is_not_copied(end):
    run = end(slow=5, free=1)
    run.pace(free=1.0)
    run.lease("slow", began=10.0, attempt=2)
    run.lease("slow", began=10.0, job=make_slice(0))
    first, second = run.lease("slow", began=10.0), run.lease("slow", began=10.0)
    first.twin, second.twin = second, first
    run.lease("slow", began=90.0)
    run.balance()
    assert run.copies("free") == [4]


def test_what_has_ended_or_has_a_copy_by_now_is_not_begun(end):
    run = end(slow=3, free=3)
    run.pace(free=1.0)
    jobs = [run.lease("slow", began=began) for began in (60.0, 70.0, 80.0)]
    run.balance()
    del run.books["slow"].leased[jobs[0].task.ticket]
    jobs[1].twin = jobs[2]
    assert run.copies("free") == [2]


def test_copies_that_were_not_begun_are_chosen_anew(end):
    run = end(slow=1, free=1)
    run.pace(free=1.0)
    late = run.lease("slow", began=90.0)
    run.balance()
    run.clock.now += 1.0
    late.began = 100.5
    run.balance()
    assert run.copies("free") == []


def test_a_node_that_may_not_copy_its_own_job_leaves_it_to_others(end):
    run = end(slow=1, fast=2, free=1)
    run.pace(fast=1.0, free=1.0)
    run.lease("fast", began=60.0)
    run.lease("slow", began=70.0)
    run.balance()
    assert run.copies("fast") == [1]
    assert run.copies("free") == [0]


def test_nodes_are_those_of_the_driver(clock):
    """Free slots are those that a node has now, not when it joined."""
    run = End(clock, full=1, free=1)
    run.lease("full", began=99.0)
    run.lease("full")
    run.books["free"] = NodeBooks(make_node(0, 1), "free", 0.0, 0.0, 0)
    assert run.balance() == {}


def test_slices_are_copied_by_the_pace_of_slices(end):
    run = end(slow=2, crawls=1, free=1)
    run.pace(free=100.0)
    for node, seconds in (("crawls", 90.0), ("free", 1.0)):
        run.books[node].slice_pace.add(seconds, None)
    run.lease("slow", began=10.0)
    run.lease("slow", began=90.0, job=make_slice(0))
    run.balance()
    assert run.copies("free") == [1]


@pytest.mark.parametrize(("gpu", "moved"), [(0.4, {}), (0.6, {"gpu": [1]})])
def test_a_core_takes_from_a_gpu_what_it_ends_sooner(end, gpu, moved):
    """It takes a second; the GPU has one before it."""
    run = end(gpu=1, core=1)
    run.lease("gpu", began=99.0)
    run.lease("gpu")
    run.pace(gpu=gpu, core=1.0)
    assert run.balance() == moved


def test_a_gpu_takes_what_a_core_has_not_begun(end):
    run = end(core=1, gpu=1)
    run.lease("core", began=99.0)
    run.lease("core")
    run.pace(core=1.0, gpu=0.1)
    assert run.balance() == {"core": [1]}


def test_those_that_only_tokenize_take_no_shard(end):
    run = end(gpu=1, core=1)
    run.books["core"].node.scores = False
    run.pace(gpu=1.0, core=1.0)
    run.lease("gpu", began=0.0)
    run.lease("gpu")
    run.balance()
    assert run.books["gpu"].take_back == []
    assert run.copies("core") == []


def test_a_copy_is_for_the_kind_that_is_fast_enough(end):
    run = end(slow=1, core=1, gpu=1)
    run.pace(slow=1.0, core=1.0, gpu=0.1)
    run.lease("slow", began=95.0, predicted_s=20.0)  # a second core would not be faster
    run.balance()
    assert run.copies("core") == []
    assert run.copies("gpu") == [0]


@pytest.mark.parametrize(
    ("left_s", "num_leased", "is_late"),
    [(220.0, 0, False), (219.0, 0, True), (439.0, 1, True), (440.0, 1, False)],
)
def test_a_shard_is_late_that_ends_after_all_others(end, left_s, num_leased, is_late):
    """All nodes do 11 core-seconds a second; a core takes 20 s, and has one before it if busy."""
    run = end(gpu=1, core=1)
    run.pace(gpu=0.1, core=1.0)
    for _ in range(num_leased):
        run.lease("core", began=99.0)
    assert run.tail.ends_late(run.books["core"], 20.0, left_s) == is_late


def test_the_pace_of_all_is_looked_at_twice_a_second_and_not_more_often(end):
    run = end(gpu=1, core=1)
    run.pace(gpu=0.1, core=1.0)
    assert not run.tail.ends_late(run.books["core"], 20.0, 220.0)
    run.books["new"] = NodeBooks(node_of("new gpu"), "new", 0.0, 0.0, 1)
    run.pace(new=0.1)
    run.clock.now += 0.49
    assert not run.tail.ends_late(run.books["core"], 20.0, 220.0)
    run.clock.now += 0.01
    assert run.tail.ends_late(run.books["core"], 20.0, 220.0)


def test_a_core_whose_pace_is_not_known_is_not_late(end):
    run = end(gpu=1, core=1)
    run.pace(gpu=0.1)
    assert not run.tail.ends_late(run.books["core"], 20.0, 1.0)
