"""Time calls: the one clock of cost profiles, comparisons of engines and machine profiles.

    calls -> [clock] -> seconds -> cost_profile, benchmark, machine profiles

Calls that are compared take turns, so that a busy moment of the machine slows all of them alike and
no call finds the cache as its own previous run left it. This module knows nothing of what it times.
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


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
