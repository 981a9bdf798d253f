"""Run a job and show it: progress while it runs, then its report on disk."""

from contextlib import nullcontext
from datetime import date
from functools import partial

from cluster.cost.run_elsewhere import estimate_elsewhere
from cluster.execution.driver import Progress
from cluster.execution.run import ScoreRun
from cluster.pricing.prices import HourlyPrice, load_prices
from cluster.report.energy import EnergyMeter
from cluster.report.progress import RunProgress
from cluster.report.run_report import REPORT_FILE, RunReport
from cluster.report.summary import build_report
from cluster.settings import ActorSettings
from jobs.console.output import console
from jobs.console.progress import ProgressDisplay

_LINE_EVERY_S = 10.0


def execute(
    score_run: ScoreRun,
    actors: ActorSettings,
    price: HourlyPrice,
    meter: EnergyMeter | None = None,
) -> RunReport:
    """Run it with progress on stderr; returns the report, which is also written to the output."""
    unit = "prepared" if score_run.output is None else "scored"
    so_far = RunProgress(usd_per_hour=price.usd_per_hour)
    with meter or nullcontext(), ProgressDisplay(line_every_s=_LINE_EVERY_S) as display:

        def show(progress: Progress) -> None:
            display.update(unit, so_far.add(progress), partial(so_far.describe, progress))

        result = score_run.run(actors, show, console.print)
    energy = meter.energy if meter is not None else None
    report = estimate_elsewhere(
        build_report(score_run, result, price, energy=energy),
        score_run.bundle,
        load_prices(),
        own_type=price.instance_type,
        today=date.today(),
    )
    (score_run.output or score_run.shards).write_json(REPORT_FILE, report.to_json())
    return report
