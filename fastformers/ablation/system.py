"""A bundle as a whole against its model out of the box, as a value and as system.json.

    runs of both -> [system] -> system.json, the last line of stdout: a row of the paper's Table 4

Seconds are those of all texts, from texts to logits. This module knows nothing of how models are
run.

Source:
    Kim and Hassan Awadalla 2020, arXiv:2010.13382, Table 4.
"""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from fastformers.ablation.summary import Conditions, TextLengths

SYSTEM_FILE = "system.json"
FORMAT_VERSION = 1  # raised whenever a key comes, goes or changes its meaning


@dataclass(frozen=True, kw_only=True)
class SystemRun:
    """One run over the texts.

    Attributes:
        seconds: Seconds of all texts; scaled up where only some were timed.
        standard_error_s: Standard error of that scaling; None where nothing was scaled.
        core_seconds: CPU time of all texts.
        joules: Electricity of all texts; None where it is not known.
    """

    seconds: float
    standard_error_s: float | None
    core_seconds: float
    joules: float | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two systems.

    Attributes:
        name: Model or bundle.
        how: Batches, threads, precision.
        quality: Value of the task's metric on all texts, at most 1.
        timed_rows: Texts that each run timed.
        runs: What was measured, in turns with the other side.
    """

    name: str
    how: str
    quality: float
    timed_rows: int
    runs: tuple[SystemRun, ...]

    @property
    def median(self) -> SystemRun:
        """The run of the median seconds; the slower of the middle two of an even number."""
        return sorted(self.runs, key=lambda run: run.seconds)[len(self.runs) // 2]


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """A row of the table.

    Attributes:
        task: Name of the task or of the evaluation file.
        metric: Name of the metric.
        agreement: Agreement of both sides' outputs, at most 1.
        out_of_the_box, bundle: Both sides.
        energy_source: How the electricity was found, for people.
        texts: The texts.
        conditions: Machine, versions and date.
    """

    task: str
    metric: str
    agreement: float
    out_of_the_box: Side
    bundle: Side
    energy_source: str
    texts: TextLengths
    conditions: Conditions

    @property
    def speedup(self) -> float:
        """Seconds out of the box over those of the bundle, medians of the runs."""
        return self._ratio("seconds")

    @property
    def speedup_standard_error(self) -> float | None:
        """Standard error of the speed-up by the scaling alone; None where nothing was scaled."""
        theirs = self.out_of_the_box.median
        if theirs.standard_error_s is None:
            return None
        return self.speedup * theirs.standard_error_s / theirs.seconds

    @property
    def speedup_range(self) -> tuple[float, float]:
        """Least and largest speed-up of a turn."""
        turns = zip(self.out_of_the_box.runs, self.bundle.runs, strict=True)
        ratios = [theirs.seconds / ours.seconds for theirs, ours in turns]
        return min(ratios), max(ratios)

    @property
    def energy_ratio(self) -> float:
        """Electricity out of the box over that of the bundle, medians of the runs.

        Where no joules are known it is the ratio of core-seconds, in which the watts of a core
        have no part.
        """
        runs = (*self.out_of_the_box.runs, *self.bundle.runs)
        known = all(run.joules is not None for run in runs)
        return self._ratio("joules" if known else "core_seconds")

    def _ratio(self, name: str) -> float:
        theirs, ours = (
            statistics.median(getattr(run, name) for run in side.runs)
            for side in (self.out_of_the_box, self.bundle)
        )
        return float(theirs / ours) if ours else math.inf

    def to_json(self) -> dict[str, Any]:
        """Content of system.json, as values that `json.dumps` takes."""
        return {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "metric": self.metric,
            "agreement": self.agreement,
            "out_of_the_box": asdict(self.out_of_the_box),
            "bundle": asdict(self.bundle),
            "speedup": self.speedup,
            "speedup_standard_error": self.speedup_standard_error,
            "speedup_range": list(self.speedup_range),
            "energy_ratio": self.energy_ratio,
            "energy_source": self.energy_source,
            **asdict(self.texts),
            **asdict(self.conditions),
        }


def describe_system(row: SystemRow) -> list[str]:
    """The row in a few lines, for the terminal."""
    low, high = row.speedup_range
    error, few = row.speedup_standard_error, " ± <0.1 by the scaling"
    theirs, ours = row.out_of_the_box, row.bundle
    lines = [
        f"{row.task}: {row.metric} {100 * theirs.quality:.2f} out of the box, "
        f"{100 * ours.quality:.2f} by the bundle; they agree on {row.agreement:.2%}",
        f"speed-up {row.speedup:,.1f}x"
        + ("" if error is None else f" ± {error:.1f} by the scaling" if error >= 0.05 else few)
        + f" (turns: {low:,.1f}x to {high:,.1f}x); energy {row.energy_ratio:,.1f}x less",
    ]
    for side in (theirs, ours):
        scaled = side.timed_rows < row.texts.rows
        of = f", scaled from {side.timed_rows:,} of {row.texts.rows:,} texts" if scaled else ""
        run = side.median
        error_s = "" if run.standard_error_s is None else f" ± {run.standard_error_s:,.2f}"
        joules = "" if run.joules is None else f", {run.joules:,.0f} J"
        lines.append(f"{side.name}: {run.seconds:,.2f}{error_s} s{of}{joules} ({side.how})")
    return [*lines, f"energy: {row.energy_source}", f"{row.texts}. {row.conditions}"]
