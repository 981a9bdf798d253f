"""Time calls on a fake clock that only the calls move."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fastformers import clock
from fastformers.clock import CpuTimer, median_in_turns, time_call, time_calls


@pytest.fixture
def work(monkeypatch):
    """Makes a call whose n-th run takes the n-th of these seconds."""
    fake = SimpleNamespace(now=100.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: fake.now))

    def make(*seconds):
        left = list(seconds)

        def call():
            fake.now += left.pop(0)

        return call

    return make


def test_a_call_takes_its_seconds(work):
    assert time_call(work(0.25)) == 0.25


def test_calls_go_on_until_their_time_has_passed(work):
    assert time_calls(work(0.25, 0.5, 0.25, 9.0), for_s=1.0) == [0.25, 0.5, 0.25]


def test_a_call_is_timed_once_however_little_time_there_is(work):
    assert time_calls(work(0.25, 9.0), for_s=0.0) == [0.25]


def test_measurements_take_turns_and_the_first_turn_only_warms_up():
    calls = []

    def measurement(name, *values):
        left = list(values)

        def measure():
            calls.append(name)
            return left.pop(0)

        return measure

    medians = median_in_turns(
        {"a": measurement("a", 100, 1, 9, 2), "b": measurement("b", 0, 5, 4, 3)}, repeats=3
    )
    assert calls == ["a", "b"] * 4
    assert medians == {"a": 2, "b": 4}


def test_of_two_turns_the_middle_counts():
    values = iter([9.0, 1.0, 2.0])
    assert median_in_turns({"a": lambda: next(values)}, repeats=2) == {"a": 1.5}


def test_cpu_seconds_count_and_the_wait_beside_them_is_known(monkeypatch):
    fake = SimpleNamespace(wall=50.0, cpu=3.0)
    times = SimpleNamespace(
        perf_counter=lambda: fake.wall,
        process_time=lambda: fake.cpu,
        thread_time=lambda: min(fake.cpu, 5.0),
    )
    monkeypatch.setattr(clock, "time", times)

    def work(wall, cpu):
        fake.wall += wall
        fake.cpu += cpu

    timer = CpuTimer()
    assert timer.waiting_share == 0.0
    assert timer.time_call(lambda: work(2.0, 0.5)) == 0.5
    assert timer.time_call(lambda: work(2.0, 1.5)) == 1.5
    assert (timer.wall_s, timer.cpu_s, timer.waiting_share) == (4.0, 2.0, 0.5)
    assert timer.time_call(lambda: work(1.0, 9.0)) == 9.0  # of several threads
    assert timer.waiting_share == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="clocks of Linux")
def test_a_limit_of_cpu_time_makes_no_short_call_free():
    script = (
        "import resource\n"
        "from fastformers.clock import CpuTimer\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "timer = CpuTimer()\n"
        "seconds = [timer.time_call(lambda: sum(range(1000))) for _ in range(20)]\n"
        "assert min(seconds) > 1e-6, seconds\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
