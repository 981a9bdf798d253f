"""The driver's loop over nodes in this process, whose jobs end as the test says."""

from dataclasses import replace

import pytest

from fastformers.cluster.scheduling.driver import Driver
from fastformers.cluster.scheduling.local_nodes import LocalNodes
from fastformers.cluster.scheduling.nodes import NodeJoined, NodeLeft, NodeRefused
from fastformers.cluster.scheduling.supervisor import Supervisor
from fastformers.cluster.shards.shard_queue import Lease
from fastformers.errors import InputError, ScoringError, StorageError
from tests.cluster.scheduling.jobs import (
    make_node,
    make_shard,
    make_slice,
    result_of,
)


class ScriptedNodes(LocalNodes):
    """Nodes that join, leave and are refused when the test says.

    Attributes:
        script: Functions to call at clock readings; each gives events.
    """

    def __init__(self, pools, clock, script=(), can_grow=False):
        self.nodes = [make_node(number, pool.slots) for number, pool in enumerate(pools)]
        super().__init__(dict(zip(self.nodes, pools, strict=True)), clock=clock)
        self.script, self.can_grow, self.released = list(script), can_grow, []

    def wait(self, timeout_s):
        while self.script and self.script[0][0] <= self._clock():
            self._events += self.script.pop(0)[1](self)
        if not self._asked and not self._events:
            self._clock.now += timeout_s
        return super().wait(timeout_s)

    def leave(self, node, reason="its raylet died"):
        self._asked.pop(node, None)
        del self._supervisors[node]
        return [NodeLeft(id=node, reason=reason)]

    def release(self, node, reason):
        self.released.append((node, reason))
        super().release(node, reason)


@pytest.fixture
def drive(clock, journal):
    def run(*pools, num_shards=0, num_slices=0, script=(), can_grow=False, **options):
        nodes = ScriptedNodes(pools, clock, script, can_grow)
        nodes.start()
        driver = Driver(
            nodes,
            slices=[make_slice(n) for n in range(num_slices)],
            shards=[make_shard(n) for n in range(num_shards)],
            journal=journal,
            **{"scores": True, "clock": clock, "start": clock.now, **options},
        )
        return driver.run()

    return run


@pytest.fixture
def pool_of(scripted_pool):
    return lambda num_slots: scripted_pool(num_slots, result_of)


def scored(journal):
    return sorted(receipt.shard for receipt in journal.receipts)


def names(count):
    return [make_shard(number).name for number in range(count)]


def test_a_slot_has_a_second_call_in_hand_while_more_waits_than_there_are_slots(
    drive, pool_of, journal
):
    pool = pool_of(2)
    drive(pool, num_shards=20)
    assert pool.most_in_hand == 2
    assert scored(journal) == names(20)


def test_the_last_shards_are_not_hoarded(drive, pool_of):
    pool = pool_of(3)
    first = pool.workers[pool.slots[0]]
    # The first worker never finishes before all others are idle: its second job would wait for it.
    pool.decide = lambda worker, job: (
        "done"
        if worker is not first or not any(w.jobs for w in pool.workers.values() if w is not first)
        else "works"
    )
    drive(pool, num_shards=3)
    assert pool.most_in_hand == 1


def test_slices_are_read_ahead_too(drive, pool_of, journal):
    pool = pool_of(1)
    drive(pool, num_slices=4)
    assert pool.most_in_hand == 2
    assert len(journal.receipts) == len(journal.slices) == 4


def test_what_only_prepares_scores_nothing(drive, pool_of, journal):
    drive(pool_of(2), num_slices=3, scores=False)
    assert journal.receipts == []
    assert sorted(shard.name for shard in journal.shards) == names(3)


def test_the_rest_of_a_slice_is_read_too(drive, scripted_pool, journal):
    def cut(job):
        if isinstance(job, Lease):
            return result_of(job)
        rest = replace(job, first_shard=job.first_shard + 1) if job.first_shard < 4 else None
        shard = replace(make_shard(job.first_shard), name=f"{job.index:06d}-{job.first_shard:05d}")
        return replace(result_of(job), shards=(shard,), rest=rest)

    seen = []
    drive(scripted_pool(2, cut), num_slices=2, on_progress=seen.append)
    assert scored(journal) == [
        f"{index:06d}-{number:05d}" for index in (0, 1) for number in range(5)
    ]
    assert {progress.num_slices_left for progress in seen} == {0, 1, 2}
    assert seen[-1].num_slices_left == 0


def test_shards_of_a_slice_that_is_cut_again_are_not_scored_again(drive, pool_of, journal):
    drive(pool_of(1), num_slices=3, done={names(3)[1]})
    assert scored(journal) == [names(3)[0], names(3)[2]]
    assert len(journal.shards) == 3


def test_a_worker_that_dies_with_two_jobs_is_replaced_once_and_both_go_back(
    drive, pool_of, journal
):
    pool = pool_of(1)
    victim = pool.workers[pool.slots[0]]
    pool.decide = lambda worker, job: (
        "done" if worker is not victim else "dies" if len(victim.tasks) == 2 else "works"
    )
    drive(pool, num_shards=5)
    assert pool.num_replaced == 1
    assert sum(attempt.is_lost for attempt in journal.attempts) == 2
    assert scored(journal) == names(5)
    assert [attempt.is_lost for attempt in journal.attempts].count(True) == 2


def test_a_shard_whose_worker_died_is_tried_again_alone(drive, pool_of, journal):
    """Otherwise the search for a deadly text would suspect shards that the worker merely held."""
    pool = pool_of(2)
    deadly = make_shard(3).name

    def decide(worker, job):
        if job.shard.name == deadly and job.attempt < 3:
            return "dies"
        return "done" if pool.num_replaced else "works"

    pool.decide = decide
    drive(pool, num_shards=9)
    assert scored(journal) == names(9)
    retried = [hand for hand in pool.hands if any(job.attempt > 1 for job in hand)]
    assert len(retried) == 3
    assert {len(hand) for hand in retried} == {1}


def test_attempts_count_from_the_start_of_the_run(drive, pool_of, clock, journal):
    pool = pool_of(1)
    clock.now = 107.0
    result = drive(pool, num_shards=1, start=100.0)
    [attempt] = journal.attempts
    assert (result.setup_s, attempt.start_s, attempt.end_s, result.work_end_s) == (7, 7, 8, 8)
    assert (attempt.node, attempt.actor, attempt.job, attempt.number) == (
        *("node0", "host:0", "score", 1),
    )
    [use] = journal.nodes
    assert (use.joined_s, use.ready_s, use.left_s, use.reason) == (0, 7, 8, None)
    assert (use.actor_cores, use.num_cores, use.num_idle_cores) == ({"host:0": 1}, 2, 1)


def test_a_node_that_leaves_loses_nothing_and_nobody_is_blamed(drive, pool_of, clock, journal):
    gone, stays = pool_of(2), pool_of(1)
    gone.decide = lambda worker, job: "works"
    drive(gone, stays, num_shards=9, script=[(5.0, lambda nodes: nodes.leave("node0"))])
    assert scored(journal) == names(9)
    assert not any(attempt.is_lost for attempt in journal.attempts)
    assert {receipt.attempt for receipt in journal.receipts} == {1}
    assert {(use.name, use.reason, use.lost_work) for use in journal.nodes} == {
        ("host0", "its raylet died", True),
        ("host1", None, False),
    }


def test_slots_of_a_node_that_left_are_not_counted_on(drive, pool_of, journal):
    gone, stays = pool_of(8), pool_of(1)
    gone.decide = lambda worker, job: "works"
    drive(gone, stays, num_shards=16, script=[(1.0, lambda nodes: nodes.leave("node0"))])
    assert scored(journal) == names(16)
    assert stays.most_in_hand == 2  # because more wait than there are slots now


def test_a_node_that_comes_back_is_counted_apart_from_its_first_stay(
    drive, pool_of, clock, journal
):
    first, again = pool_of(1), pool_of(1)

    def rejoin(nodes):
        nodes._supervisors["node0"] = Supervisor(again, clock=clock)
        return [NodeJoined(node=nodes.nodes[0], seen=6.0)]

    script = [(5.0, lambda nodes: nodes.leave("node0")), (6.0, rejoin)]
    drive(first, num_shards=9, script=script)
    assert scored(journal) == names(9)
    before, after = journal.nodes
    assert (before.name, before.left_s) == (after.name, pytest.approx(5.0, abs=0.5))
    assert before.node != after.node
    ends_of = {use.node: [] for use in journal.nodes}
    for attempt in journal.attempts:
        ends_of[attempt.node].append(attempt.end_s)
    assert max(ends_of[before.node]) <= before.left_s < min(ends_of[after.node])


def test_when_every_node_has_left_the_run_says_so(drive, pool_of):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "works"
    with pytest.raises(InputError, match="every node has left the cluster; add nodes and run the"):
        drive(pool, num_shards=2, script=[(3.0, lambda nodes: nodes.leave("node0"))])


def test_a_cluster_that_may_grow_is_given_time_to(drive, pool_of, clock):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "works"
    with pytest.raises(InputError, match="every node has left"):
        drive(pool, num_shards=2, can_grow=True, script=[(3.0, lambda nodes: nodes.leave("node0"))])
    assert clock.now > 300.0


def test_a_cluster_without_free_cpus_is_called_so(drive, clock):
    with pytest.raises(InputError, match="no node has free CPUs; wait until"):
        drive(num_shards=2, can_grow=True)
    assert clock.now >= 300.0


def test_a_node_that_joins_late_works_too(drive, pool_of, clock, journal):
    first, late = pool_of(1), pool_of(1)

    def join(nodes):
        return [NodeJoined(node=nodes.nodes[1], seen=4.0)]

    pools = [first, late]
    original = LocalNodes.start

    def start(self):
        original(self)
        self._events = self._events[:1]

    ScriptedNodes.start = start
    try:
        drive(*pools, num_shards=12, script=[(5.0, join)])
    finally:
        del ScriptedNodes.start
    assert late.hands
    assert scored(journal) == names(12)
    assert {use.name: use.joined_s for use in journal.nodes} == {"host0": 0.0, "host1": 4.0}


def test_a_node_that_cannot_work_is_named_once_and_the_others_go_on(
    drive, pool_of, journal, caplog
):
    def refuse(nodes):
        return [NodeRefused(name="bad", reason="No module named 'cluster'")]

    drive(pool_of(1), num_shards=3, script=[(1.0, refuse), (2.0, refuse)])
    assert scored(journal) == names(3)
    assert caplog.messages == ["node bad is left out: No module named 'cluster'"]


def test_a_node_where_every_job_raises_is_left_out(drive, pool_of, journal, caplog):
    bad, good = pool_of(1), pool_of(1)
    bad.decide = lambda worker, job: "fails"
    drive(bad, good, num_shards=12)
    assert scored(journal) == names(12)
    left_out = [line for line in caplog.messages if "left out" in line]
    assert len(left_out) == 1
    assert left_out[0].startswith("node host0 is left out: shard 000000-000")
    assert left_out[0].endswith("no such device")
    reasons = {use.name: use.reason for use in journal.nodes}
    assert reasons["host1"] is None
    assert reasons["host0"] in left_out[0]
    assert sum(use.name == "host0" for use in journal.nodes) == 1
    last = max(attempt.end_s for attempt in journal.attempts)
    assert next(use.left_s for use in journal.nodes if use.name == "host0") < last


def test_a_node_whose_workers_cannot_start_is_left_out(drive, pool_of, journal, caplog):
    bad, good = pool_of(1), pool_of(1)
    bad.has_left = set(bad.slots)
    bad.decide = lambda worker, job: "dies"
    drive(bad, good, num_shards=6)
    assert scored(journal) == names(6)
    assert "node host0 is left out: its worker cannot start" in caplog.messages


def test_a_node_that_goes_on_with_fewer_actors_says_so(drive, pool_of, journal, caplog):
    pool = pool_of(2)
    first = pool.workers[pool.slots[0]]
    pool.has_left = {pool.slots[0]}
    pool.decide = lambda worker, job: "dies" if worker is first else "done"
    drive(pool, num_shards=6)
    assert scored(journal) == names(6)
    assert "node host0 goes on with 1 actor: its worker cannot start" in caplog.messages


def test_an_error_is_tried_elsewhere_and_ends_the_run_when_it_comes_again(drive, pool_of):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "fails"
    with pytest.raises(ScoringError, match=r"shard 000000-00000, attempt \d: .*no such device"):
        drive(pool, num_shards=1)
    assert len(pool.calls) == 3
    pool = pool_of(1)
    pool.error = lambda job: StorageError("out: disk full; free space")
    pool.decide = lambda worker, job: "fails" if len(pool.calls) < 3 else "done"
    drive(pool, num_shards=1)


def test_a_job_that_raised_on_every_node_is_tried_once_more(drive, pool_of, clock, journal):
    pools = pool_of(1), pool_of(1)
    tries = []

    def decide(worker, job):
        if job.shard.name == names(1)[0]:
            tries.append(worker)
            return "fails" if len(tries) < 3 else "done"
        return "done"

    def watch(progress):
        assert clock.now < 1000.0, "nobody takes the job"

    for pool in pools:
        pool.decide = decide
    drive(*pools, num_shards=6, on_progress=watch)
    assert scored(journal) == names(6)
    assert tries[0] is not tries[1]


def test_an_input_that_is_at_fault_ends_the_run_at_once(drive, pool_of):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "fails"
    pool.error = lambda job: InputError("a.csv: no such column")
    with pytest.raises(InputError, match="no such column"):
        drive(pool, num_slices=1)
    assert len(pool.calls) == 1


def test_a_slice_that_kills_three_workers_is_named(drive, pool_of):
    pool = pool_of(1)
    pool.decide = lambda worker, job: "dies"
    with pytest.raises(ScoringError, match=r"slice 0 \(a.csv\): its actor died .*three times"):
        drive(pool, num_slices=1)


def test_progress_says_where_it_stands(drive, pool_of, clock):
    seen = []
    drive(pool_of(2), num_slices=6, on_progress=seen.append)
    last = seen[-1]
    assert (last.num_done, last.num_known, last.num_slices_left, last.num_rows) == (6, 6, 0, 6)
    assert last.predicted_left_s == pytest.approx(0.0)
    assert list(last.machine_s.values()) == [clock.now]
    middle = seen[len(seen) // 2]
    assert (middle.num_nodes, middle.num_actors) == (1, 2)
    assert sum(middle.doing.values()) == 2


def test_what_only_prepares_shows_how_far_it_is(drive, pool_of):
    seen = []
    drive(pool_of(1), num_slices=6, scores=False, on_progress=seen.append)
    last, middle = seen[-1], seen[len(seen) // 2]
    assert (last.num_done, last.num_known, last.num_rows, last.num_tokens) == (6, 6, 6, 6)
    assert (last.predicted_done_s, last.predicted_left_s) == (6.0, 0.0)
    assert 0 < middle.num_done < 6
    assert middle.num_slices_left == 6 - middle.num_done  # one is being cut
    assert middle.predicted_left_s == pytest.approx(middle.num_slices_left)


def test_what_a_slow_node_has_is_begun_on_another_and_the_first_result_counts(
    drive, pool_of, clock, journal
):
    slow, fast = pool_of(1), pool_of(1)
    slow.decide = lambda worker, job: "works" if clock.now < 500.0 else "done"
    drive(slow, fast, num_shards=8)
    assert scored(journal) == names(8)
    assert clock.now < 60.0


def test_what_a_slow_node_cuts_is_cut_on_another_too(drive, pool_of, clock, journal):
    slow, fast = pool_of(1), pool_of(1)
    slow.decide = lambda worker, job: "works" if clock.now < 500.0 else "done"
    drive(slow, fast, num_slices=8, scores=False)
    assert sorted(receipt.index for receipt in journal.slices) == list(range(8))
    assert clock.now < 60.0


def test_what_a_node_has_not_begun_is_given_to_one_that_idles(drive, pool_of, clock, journal):
    stuck, fast = pool_of(4), pool_of(1)
    stuck.decide = lambda worker, job: "works" if clock.now < 500.0 else "done"
    drive(stuck, fast, num_shards=40)
    assert scored(journal) == names(40)
    assert clock.now < 200.0
