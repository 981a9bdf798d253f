"""Electricity of work on this machine: by the processor's own counters, or by its core-seconds.

    work -> [energy] -> joules, and how they were found

Linux shows the counters of Intel's and AMD's packages (RAPL) under /sys/class/powercap, but few
virtual machines have them, and of those that do some let only root read. A counter starts again at
zero, on AMD's servers after some minutes of full load, so it is read while the work runs; where it
may have started again twice between two readings, nothing is said. Without counters a core that
works is taken to draw its share of the processor's design power, and what it says is that: a ratio
of two such numbers is a ratio of core-seconds. This module knows nothing of models.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from fastformers.inference.cpu import CPU_GENERATIONS, read_processor

POWERCAP = Path("/sys/class/powercap")
_MICROJOULES = 1e6
_READ_EVERY_S = 5.0
# No package draws as much: twice the design power of the largest that are sold (2026-11).
_MOST_WATTS = 1000.0
_now_s = time.monotonic

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What some work drew.

    Attributes:
        core_seconds: CPU time of this process.
        joules: Electricity; None where there are no counters and the processor is not known, and
            where the counters did not move or were not read in time.
        source: How the joules were found, for people.
    """

    core_seconds: float
    joules: float | None
    source: str


class EnergyMeter:
    """Measures the electricity of work in this process."""

    def __init__(self, powercap: Path = POWERCAP, root: Path = Path("/")) -> None:
        """Find the counters of all packages, and of their memory where it has one of its own.

        Args:
            powercap: Where the kernel shows them.
            root: Where the kernel says which processor it is.
        """
        zones = sorted([*powercap.glob("intel-rapl:?"), *powercap.glob("intel-rapl:??")])
        memory = [zone for zone in powercap.glob("intel-rapl:*:*") if _name_of(zone) == "dram"]
        packages = [zone for zone in zones if _name_of(zone).startswith("package")]
        counters = [_Counter.find(zone) for zone in (*packages, *memory)]
        # A part of the machine would be taken for the whole.
        self._counters = [counter for counter in counters if counter] if all(counters) else []
        generation = read_processor(root).generation
        self._watts = CPU_GENERATIONS[generation].watts_per_core if generation else None
        self._generation = generation
        self._failed = False

    @property
    def source(self) -> str:
        """How joules are found here, for people."""
        if self._failed:
            return (
                "unknown: the counters of RAPL stood still or could not be read often enough "
                "during some work, so ratios are of core-seconds"
            )
        if self._counters:
            return "measured by RAPL, all work on the machine"
        if self._watts is None:
            return "unknown: no RAPL here, and the processor's design power is not known"
        return (
            f"assumed: core-seconds x {self._watts:g} W, the design power of a core of "
            f"{self._generation}; no RAPL here"
        )

    def measure(self, work: Callable[[], T]) -> tuple[T, Energy]:
        """Do some work, and say what it drew."""
        with _Sampler(self._counters) as sampler:
            start_s = time.process_time()
            result = work()
            core_seconds = time.process_time() - start_s
        if self._counters:
            joules = sampler.joules
            self._failed = self._failed or joules is None
        else:
            joules = None if self._watts is None else core_seconds * self._watts
        return result, Energy(core_seconds=core_seconds, joules=joules, source=self.source)


@dataclass(frozen=True, kw_only=True)
class _Counter:
    """A counter of the kernel.

    Attributes:
        zone: Its directory.
        range_uj: Microjoules at which it starts again.
    """

    zone: Path
    range_uj: int

    @classmethod
    def find(cls, zone: Path) -> "_Counter | None":
        """The counter of a directory, or None if it cannot be read."""
        range_uj = _read(zone / "max_energy_range_uj")
        if not range_uj or _read(zone / "energy_uj") is None:
            return None
        return cls(zone=zone, range_uj=range_uj)

    def since(self, before_uj: int, after_uj: int, took_s: float) -> int | None:
        """Microjoules between two readings; None if it may have started again twice."""
        if took_s * _MOST_WATTS * _MICROJOULES >= self.range_uj:
            return None
        return (after_uj - before_uj) % self.range_uj


class _Sampler:
    """Reads counters before, during and after some work, on a thread of its own."""

    def __init__(self, counters: Sequence[_Counter]) -> None:
        self._counters = counters
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._last: list[int | None] = []
        self._read_s = 0.0
        self._used: int | None = 0

    @property
    def joules(self) -> float | None:
        """What all of them counted; None if one was not read in time, or none moved."""
        # Some virtual machines show counters that never move: work draws more.
        return self._used / _MICROJOULES if self._used else None

    def __enter__(self) -> "_Sampler":
        if self._counters:
            self._last, self._read_s = self._read(), _now_s()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counters:
            self._done.set()
            self._thread.join()
            self._add()

    def _watch(self) -> None:
        while not self._done.wait(_READ_EVERY_S):
            self._add()

    def _read(self) -> list[int | None]:
        return [_read(counter.zone / "energy_uj") for counter in self._counters]

    def _add(self) -> None:
        """Add what the counters moved since they were read last."""
        readings, now_s = self._read(), _now_s()
        took_s = now_s - self._read_s
        for counter, before, after in zip(self._counters, self._last, readings, strict=True):
            moved = None
            if before is not None and after is not None:
                moved = counter.since(before, after, took_s)
            self._used = None if self._used is None or moved is None else self._used + moved
        self._last, self._read_s = readings, now_s


def _name_of(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
