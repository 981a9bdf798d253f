"""Watchers of notices, with clocks and answers that are handed in, and nodes that Ray drains."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastformers.cluster.nodes.cloud_metadata import MetadataError, Notice, read_notice
from fastformers.cluster.nodes.spot_notices import SpotWatcher

REPOSITORY = Path(__file__).parents[3]
SPOT = "/latest/meta-data/spot/instance-action"


def notice(left_s=120.0, *, action="terminate", is_certain=True, detail="as answered"):
    return Notice(cloud="aws", action=action, left_s=left_s, is_certain=is_certain, detail=detail)


class Script:
    """Answers to a watcher, one for each `say`; the next question means that it was taken in."""

    def __init__(self):
        self.asked, self.answers, self.clouds = queue.Queue(), queue.Queue(), []

    def read(self, cloud):
        self.clouds.append(cloud)
        self.asked.put(None)
        answer = self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def say(self, answer):
        self.asked.get(timeout=60)
        self.answers.put(answer)
        self.asked.get(timeout=60)  # the next question
        self.asked.put(None)  # which is still to be answered


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def watch(script):
    """Starts a watcher of the script that asks without a pause; its clock is `watcher.time[0]`."""
    started = []

    def start(cloud="aws"):
        time = [1000.0]
        watcher = SpotWatcher(cloud, poll_s=0.0, clock=lambda: time[0], read=script.read)
        watcher.time = time
        watcher.start()
        started.append(watcher)
        return watcher

    yield start
    for watcher in started:
        watcher._ended.set()
        script.answers.put(None)
        watcher.stop()
        assert "spot-watcher" not in [thread.name for thread in threading.enumerate()]


def test_a_notice_is_seen_and_its_seconds_run_down(watch, script):
    watcher = watch()
    script.say(None)
    assert watcher.notice is None
    script.say(notice(120.0))
    assert watcher.notice == notice(120.0)
    watcher.time[0] += 50.0
    assert watcher.notice.left_s == 70.0
    watcher.time[0] += 100.0
    assert watcher.notice.left_s == 0.0
    assert set(script.clouds) == {"aws"}


def test_errors_of_the_service_change_nothing(watch, script, caplog, capsys):
    watcher = watch()
    script.say(MetadataError("no answer"))
    assert watcher.notice is None
    script.say(notice())
    script.say(MetadataError("no answer"))
    assert watcher.notice == notice()
    assert (caplog.text, *capsys.readouterr()) == ("", "", "")


def test_a_notice_that_is_taken_back_is_none(watch, script):
    watcher = watch()
    script.say(notice())
    script.say(None)
    assert watcher.notice is None


def test_a_notice_without_a_time_that_is_repeated_does_not_move_its_end(watch, script):
    watcher = watch()
    script.say(notice(30.0))
    watcher.time[0] += 10.0
    script.say(notice(30.0))
    assert watcher.notice.left_s == 20.0
    script.say(notice(30.0, detail="another"))
    assert watcher.notice.left_s == 30.0


def test_a_notice_may_come_closer(watch, script):
    watcher = watch()
    script.say(notice(900.0))
    script.say(notice(30.0))
    assert watcher.notice.left_s == 30.0


def test_an_unknown_time_stays_unknown(watch, script):
    watcher = watch()
    script.say(notice(None))
    watcher.time[0] += 10.0
    assert watcher.notice == notice(None)


def test_a_recommendation_is_no_notice(watch, script):
    watcher = watch()
    script.say(notice(None, action="rebalance", is_certain=False))
    assert watcher.notice is None
    script.say(notice())
    assert watcher.notice.action == "terminate"


def test_a_node_leaves_when_little_time_is_left_or_nobody_knows_how_much(watch, script):
    watcher = watch()
    assert watcher.leaving() is None
    script.say(notice(900.0, action="reboot"))
    assert watcher.notice.left_s == 900.0
    assert watcher.leaving() is None
    watcher.time[0] += 800.0
    assert watcher.leaving() == "aws announces: reboot in 100 s"
    script.say(notice(None, action="stop"))
    assert watcher.leaving() == "aws announces: stop"
    script.say(notice(None, action="rebalance", is_certain=False))
    assert watcher.leaving() is None


def test_a_machine_of_no_cloud_is_never_asked(watch, script):
    watcher = watch(None)
    assert watcher.notice is None
    assert script.clouds == []
    assert "spot-watcher" not in [thread.name for thread in threading.enumerate()]


def test_the_thread_ends_while_it_waits_for_its_next_question(script):
    script.answers.put(notice())
    with SpotWatcher("aws", poll_s=3600.0, read=script.read) as watcher:
        script.asked.get(timeout=60)
        thread = watcher._thread
        assert thread.daemon
    assert not thread.is_alive()
    assert len(script.clouds) == 1


@pytest.mark.parametrize(
    ("cloud", "quiet", "loud", "action"),
    [
        ("aws", {}, {SPOT: '{"action": "terminate", "time": "2100-01-01T00:00:00Z"}'}, "terminate"),
        (
            "gcp",
            {"/computeMetadata/v1/instance/preempted": "FALSE"},
            {"/computeMetadata/v1/instance/preempted": "TRUE"},
            "preempt",
        ),
        (
            "azure",
            {
                "/metadata/instance/compute/name": "worker_3",
                "/metadata/scheduledevents": json.dumps({"Events": []}),
            },
            {
                "/metadata/scheduledevents": json.dumps(
                    {"Events": [{"EventType": "Preempt", "Resources": ["worker_3"]}]}
                )
            },
            "preempt",
        ),
    ],
)
def test_a_service_is_asked_until_it_gives_notice(metadata_server, cloud, quiet, loud, action):
    asked = threading.Semaphore(0)

    def read(cloud):
        try:
            return read_notice(cloud, url=metadata_server.url, timeout_s=30.0)
        finally:
            asked.release()

    def wait_for_an_answer():
        for _ in range(3):  # one may have been under way, and one is then taken in
            assert asked.acquire(timeout=60)

    metadata_server.items.update(quiet)
    with SpotWatcher(cloud, poll_s=0.01, read=read) as watcher:
        wait_for_an_answer()
        assert watcher.notice is None
        broken = dict.fromkeys(loud, 503)
        metadata_server.items.update(broken)
        wait_for_an_answer()
        assert watcher.notice is None
        metadata_server.items.update(loud)
        wait_for_an_answer()
        assert watcher.notice.action == action
        metadata_server.items.update(broken)
        wait_for_an_answer()
        assert watcher.notice.action == action


@pytest.mark.cluster
def test_ray_says_which_nodes_it_drains_and_how_long_they_have():
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "drained_node.py"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["before"] == {}
    assert seen["after"] == {seen["node"]: 90.0}
    assert seen["late"] == {seen["node"]: 0.0}
    assert seen["without_deadline"] == {seen["node"]: 90.0, seen["other"]: None}
    assert seen["old_actor"] == "works"
    assert seen["new_actor"] == "ActorUnschedulableError"
