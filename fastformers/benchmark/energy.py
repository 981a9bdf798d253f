"""Electricity of work on this machine: by the processor's own counters, or by its core-seconds.

    work -> [energy] -> joules, and how they were found

Linux shows the counters of Intel's and AMD's packages (RAPL) under /sys/class/powercap, but few
virtual machines have them, and of those that do some let only root read. Otherwise a core that
works is taken to draw its share of the processor's design power, and what it says is that: a ratio
of two such numbers is a ratio of core-seconds. This module knows nothing of models.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastformers.inference.cpu import CPU_GENERATIONS, read_processor

POWERCAP = Path("/sys/class/powercap")
_MICROJOULES = 1e6

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What some work drew.

    Attributes:
        core_seconds: CPU time of this process.
        joules: Electricity; None where there are no counters and the processor is not known, and
            where the counters did not move.
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
        self._zones = [zone for zone in (*packages, *memory) if _read(zone) is not None]
        generation = read_processor(root).generation
        self._watts = CPU_GENERATIONS[generation].watts_per_core if generation else None
        self._generation = generation
        self._stood_still = False

    @property
    def source(self) -> str:
        """How joules are found here, for people."""
        if self._stood_still:
            return (
                "unknown: the counters of RAPL stood still or could not be read during some work, "
                "so ratios are of core-seconds"
            )
        if self._zones:
            return "measured by RAPL, all work on the machine"
        if self._watts is None:
            return "unknown: no RAPL here, and the processor's design power is not known"
        return (
            f"assumed: core-seconds x {self._watts:g} W, the design power of a core of "
            f"{self._generation}; no RAPL here"
        )

    def measure(self, work: Callable[[], T]) -> tuple[T, Energy]:
        """Do some work, and say what it drew."""
        before, start_s = [_read(zone) for zone in self._zones], time.process_time()
        result = work()
        core_seconds = time.process_time() - start_s
        after = [_read(zone) for zone in self._zones]
        return result, Energy(
            core_seconds=core_seconds,
            joules=self._joules(before, after, core_seconds),
            source=self.source,
        )

    def _joules(
        self, before: list[int | None], after: list[int | None], core_seconds: float
    ) -> float | None:
        if not self._zones:
            return None if self._watts is None else core_seconds * self._watts
        used = 0
        for zone, first, last in zip(self._zones, before, after, strict=True):
            if first is None or last is None:
                used = 0
                break
            wrapped = 0 if last >= first else int((zone / "max_energy_range_uj").read_text())
            used += last - first + wrapped
        if used == 0:  # some virtual machines show counters that never move: work draws more
            self._stood_still = True
            return None
        return used / _MICROJOULES


def _name_of(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _read(zone: Path) -> int | None:
    try:
        return int((zone / "energy_uj").read_text())
    except (OSError, ValueError):
        return None
