"""What may go wrong with a run, each as a function that makes it so.

    seed -> faults -> [faults] -> processes, bundle, disk of the job under test

A fault is done once, at some moment of the run; what it changes for good it puts right in `repair`.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.chaos.jobs import (
    ScoreProcess,
    family,
    ray_actors,
    with_process,
)


@dataclass
class Scene:
    """The job under test and what faults may touch.

    Attributes:
        job: Its process.
        bundle: Directory of its bundle.
        other_bundle: Directory of a bundle that scores otherwise.
        output: Directory of its output.
        nodes: The cluster it runs on, or None where it starts its own.
        random: Source of all choices.
        threads: Threads that faults have started.
    """

    job: ScoreProcess
    bundle: Path
    other_bundle: Path
    output: Path
    nodes: object
    random: object
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def processes(self):
        """Processes of the job and of the cluster it runs on."""
        found = family(self.job.process.pid)
        return found + (family(self.nodes.pid) if self.nodes else [])

    def pick(self, processes):
        return self.random.choice(processes) if processes else None

    def named(self, name):
        return [p for p in self.processes if _name(p) == name]


def _name(process):
    try:
        return process.name()
    except Exception:
        return ""


def kill_actor(scene):
    """A scoring actor is killed."""
    return _kill(scene.pick(ray_actors(scene.processes, "ScoringActor")))


def kill_supervisor(scene):
    """The supervisor of a node is killed."""
    return _kill(scene.pick(ray_actors(scene.processes, "SupervisorActor")))


def kill_raylet(scene):
    """Ray's daemon on a node is killed, and its node with it."""
    return _kill(scene.pick(scene.named("raylet")))


def kill_control_store(scene):
    """Ray's control store is killed."""
    return _kill(scene.pick(scene.named("gcs_server")))


def kill_driver(scene):
    """The driver is killed."""
    return _kill(scene.job.driver)


def terminate_driver(scene):
    """The driver is asked to end, as `ray job stop` does."""
    return with_process(scene.job.driver.send_signal, signal.SIGTERM)


def interrupt_driver(scene):
    """The user presses Ctrl-C."""
    return with_process(scene.job.driver.send_signal, signal.SIGINT)


def hang_actor(scene):
    """A scoring actor stops and never goes on."""
    actor = scene.pick(ray_actors(scene.processes, "ScoringActor"))
    return actor is not None and with_process(actor.suspend)


def slow_actor(scene):
    """A scoring actor gets a tenth of its time."""
    actor = scene.pick(ray_actors(scene.processes, "ScoringActor"))
    if actor is None:
        return False

    def slow():
        while with_process(actor.suspend):
            time.sleep(0.45)
            if not with_process(actor.resume):
                return
            time.sleep(0.05)

    scene.threads.append(threading.Thread(target=slow, daemon=True))
    scene.threads[-1].start()
    return True


def pause_driver(scene):
    """The driver stops for some seconds, as a laptop that sleeps."""
    driver = scene.job.driver
    if not with_process(driver.suspend):
        return False
    time.sleep(scene.random.uniform(1.0, 12.0))
    return with_process(driver.resume)


def pause_supervisor(scene):
    """A supervisor stops for some seconds, longer than the driver waits for it, or less."""
    supervisor = scene.pick(ray_actors(scene.processes, "SupervisorActor"))
    if supervisor is None or not with_process(supervisor.suspend):
        return False
    time.sleep(scene.random.uniform(1.0, 15.0))
    with_process(supervisor.resume)
    return True


def replace_bundle(scene):
    """The bundle is replaced by another one, and an actor dies."""
    aside = scene.bundle.with_name(scene.bundle.name + ".aside")
    if aside.exists():
        return False
    os.replace(scene.bundle, aside)
    shutil.copytree(scene.other_bundle, scene.bundle)
    kill_actor(scene)
    return True


def start_again(scene):
    """The same job is started once more while it runs: the second must stop with one line."""
    log = scene.job.log.with_suffix(".second")
    second = ScoreProcess(scene.job.arguments, log, scene.job.environment)
    try:
        status, _ = second.wait(120.0)
    except subprocess.TimeoutExpired:
        second.end()
        raise AssertionError("a second start of the job did not end") from None
    text = log.read_text()
    assert "Traceback" not in text, text
    # If the first has ended meanwhile, or was killed, the second may do the work.
    assert status == 0 or text.count("\n") <= 4 or not scene.job.is_running(), text
    return True


def add_node(scene):
    """A node joins."""
    return scene.nodes is not None and scene.nodes.add()


def remove_node(scene):
    """A node leaves without a word."""
    return scene.nodes is not None and scene.nodes.remove(scene.random)


FAULTS = {
    function.__name__: function
    for function in (
        *(kill_actor, kill_supervisor, kill_raylet, kill_control_store, kill_driver),
        *(terminate_driver, interrupt_driver, hang_actor, slow_actor, pause_driver),
        *(pause_supervisor, replace_bundle, start_again, add_node, remove_node),
    )
}


def repair(scene):
    """Put right what does not go away with the job: its bundle."""
    aside = scene.bundle.with_name(scene.bundle.name + ".aside")
    if aside.exists():
        shutil.rmtree(scene.bundle)
        os.replace(aside, scene.bundle)


def _kill(process):
    return process is not None and with_process(process.kill)
