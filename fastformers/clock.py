"""Time calls: the one clock of cost profiles, comparisons of engines and machine profiles.

    calls -> [clock] -> seconds -> cost_profile, benchmark, machine profiles

What describes a model is counted in CPU time: other work on the machine makes a call wait, so that
its wall time says more of them than of the model (seven times too much beside seven other
processes, while CPU time was within 12%). What compares whole jobs is wall time. Calls that are
compared take turns, so that a busy moment of the machine slows all of them alike and no call finds
the cache as its own previous run left it. This module knows nothing of what it times.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


# A call that waits for this share of its wall time shares the machine with other work.
BUSY_SHARE = 0.1


class CpuTimer:
    """Times calls by the CPU seconds of this process, and how long they waited beside that.

    Attributes:
        wall_s, cpu_s: Sums over the calls.
    """

    def __init__(self) -> None:
        """Begin with no calls."""
        self.wall_s = self.cpu_s = 0.0

    def time_call(self, call: Callable[[], object]) -> float:
        """Run a call; returns the CPU seconds of all threads of this process meanwhile."""
        start_s = time.perf_counter()
        start_cpu_s, start_thread_s = time.process_time(), time.thread_time()
        call()
        # Where CPU time has a limit (`ulimit -t`, batch systems), Linux moves the clock of the
        # process by ticks of milliseconds, but not those of threads.
        thread_s = time.thread_time() - start_thread_s
        cpu_s = max(time.process_time() - start_cpu_s, thread_s)
        self.wall_s += time.perf_counter() - start_s
        self.cpu_s += cpu_s
        return cpu_s

    @property
    def waiting_share(self) -> float:
        """Share of the wall time for which the calls waited, 0-1."""
        return max(0.0, 1 - self.cpu_s / self.wall_s) if self.wall_s else 0.0


def time_call(call: Callable[[], object]) -> float:
    """Run a call and return its seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_calls(call: Callable[[], object], *, for_s: float) -> list[float]:
    """Repeat a call until `for_s` seconds have passed, at least once; return each one's seconds."""
    times = [time_call(call)]
    total_s = times[0]
    while total_s < for_s:
        times.append(time_call(call))
        total_s += times[-1]
    return times


def median_in_turns(
    measurements: Mapping[Name, Callable[[], float]], *, repeats: int
) -> dict[Name, float]:
    """Median of what each measurement returns, such as seconds or a rate.

    Args:
        measurements: Functions that measure, by name. All run once in every turn, in this order.
        repeats: Number of turns that count; one more turn before them warms up.
    """
    values: dict[Name, list[float]] = {name: [] for name in measurements}
    for turn in range(repeats + 1):
        for name, measure in measurements.items():
            value = measure()
            if turn > 0:
                values[name].append(value)
    return {name: statistics.median(measured) for name, measured in values.items()}
