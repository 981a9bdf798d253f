"""Which jobs are begun on a second node as well, slices and shards, and when they are forgotten."""

import pytest

from cluster.scheduling.node_books import Leased, NodeBooks
from cluster.scheduling.nodes import Node
from cluster.scheduling.pool import Slot
from cluster.scheduling.tail import Tail
from cluster.scheduling.work import Task, Ticket
from cluster.shards.layout import Shard
from cluster.shards.shard_queue import Lease


def make_books(name, num_slots):
    node = Node(
        id=name,
        name=name,
        instance_type=None,
        slots=tuple(Slot(name=f"{name}:{number}") for number in range(num_slots)),
        num_cores=num_slots,
        self_check="",
    )
    return NodeBooks(node, name, 0.0, 0.0, num_slots)


@pytest.fixture
def world(clock):
    """Nodes, what is leased, and a tail that watches them: `give(node, number, began)`."""

    class World:
        def __init__(self):
            self.books, self.leased = {}, {}
            self.tail = Tail(self.books, clock)

        def add(self, name, num_slots):
            self.books[name] = make_books(name, num_slots)
            return self.books[name]

        def give(self, books, *, began=None, predicted_s=1.0, attempt=1):
            ticket = Ticket(len(self.leased))
            shard = Shard(
                name=f"000000-{ticket:05d}",
                num_rows=1,
                num_unique=1,
                num_tokens=1,
                num_unique_tokens=1,
                predicted_s=predicted_s,
                spans=(),
            )
            job = Lease(shard=shard, attempt=attempt)
            leased = Leased(Task(ticket=ticket, job=job), job, books, 0.0, began=began)
            self.leased[ticket] = books.leased[ticket] = leased
            return leased

        def end(self, leased):
            del self.leased[leased.task.ticket], leased.node.leased[leased.task.ticket]

        def balance(self):
            clock.now += 1.0
            self.tail.balance(self.leased)

    return World()


def test_no_more_is_taken_back_than_there_are_free_slots(world):
    busy, free = world.add("busy", 1), world.add("free", 2)
    for _ in range(5):
        world.give(busy)
    world.balance()
    assert busy.take_back == [0, 1]
    assert free.take_back == []
    world.balance()
    assert busy.take_back == [0, 1, 2, 3]  # none is asked for twice


def test_what_has_begun_is_not_taken_back(world):
    busy = world.add("busy", 1)
    world.add("free", 1)
    world.give(busy, began=0.0)
    world.balance()
    assert busy.take_back == []


@pytest.fixture
def late(world):
    """A job that a slow node has had for long, and a fast node that idles."""
    slow, fast = world.add("slow", 1), world.add("fast", 1)
    slow.pace.add(1.0, 1.0)
    fast.pace.add(1.0, 1.0)
    return world.give(slow, began=-100.0)


def test_a_late_job_is_copied_by_another_node_and_not_by_its_own(world, late):
    world.balance()
    assert world.tail.take_copy("slow") is None
    assert world.tail.take_copy("fast") is late
    assert world.tail.take_copy("fast") is None


def test_a_job_that_has_ended_is_not_copied(world, late):
    world.balance()
    world.end(late)
    assert world.tail.take_copy("fast") is None


def test_a_job_that_has_a_copy_gets_no_second_one(world, late):
    world.balance()
    late.twin = world.give(world.books["fast"])
    assert world.tail.take_copy("fast") is None


def test_a_job_whose_worker_has_died_is_not_copied(world):
    slow, fast = world.add("slow", 1), world.add("fast", 1)
    fast.pace.add(1.0, 1.0)
    world.give(slow, began=-100.0, attempt=2)
    world.balance()
    assert world.tail.take_copy("fast") is None


def test_a_job_that_ends_soon_is_not_copied(world):
    slow, fast = world.add("slow", 1), world.add("fast", 1)
    slow.pace.add(1.0, 1.0)
    fast.pace.add(1.0, 1.0)
    world.give(slow, began=0.5)
    world.balance()
    assert world.tail.take_copy("fast") is None


def test_what_was_late_once_is_forgotten_when_no_slot_is_free(world, late):
    world.balance()
    world.give(world.books["fast"], began=0.0)
    world.balance()
    assert world.tail.take_copy("fast") is None
