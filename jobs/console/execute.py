"""Run a job and show it: progress while it runs, on stderr and in its output, then its report.

This is where a command chooses who works: Ray is loaded here, when there is work for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date

from fastformers.cluster.cost.run_elsewhere import estimate_elsewhere
from fastformers.cluster.execution.connect import Connect, OpenNodes
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.nodes.addresses import resolve_address
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.report.energy import EnergyMeter
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.report.status import Unit
from fastformers.cluster.report.summary import build_report
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.settings import ActorSettings
from fastformers.jobs.console.arguments import built_in_prices
from fastformers.jobs.console.interrupts import keep_handlers
from fastformers.jobs.console.output import console
from fastformers.jobs.console.progress import ProgressDisplay
from fastformers.jobs.console.status_file import StatusFile

_LINE_EVERY_S = 10.0
_NO_STACK = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"


def execute(
    job: ScoreJob,
    actors: ActorSettings,
    price: HourlyPrice,
    meter: EnergyMeter | None = None,
) -> RunReport:
    """Run a job with progress on stderr; returns its report, which is also kept in its output."""
    unit: Unit = "prepared" if job.output is None else "scored"
    prices = MachinePrices(given=price, table=built_in_prices())

    def usd_so_far(progress: Progress) -> float:
        return prices.usd_of(progress.node_s)

    with StatusFile(job.home, unit, usd_so_far) as status_file:
        with meter or nullcontext(), ProgressDisplay(line_every_s=_LINE_EVERY_S) as display:

            def show(progress: Progress) -> None:
                status = status_file.add(progress)
                display.update(unit, status.share, status.describe)
                _tell_metrics(job.place.path, progress, usd_so_far(progress))

            result = run_job(
                job,
                actors,
                connect_ray,
                on_claim=status_file.begin,
                on_progress=show,
                log=console.print,
            )
        energy = meter.energy if meter is not None else None
        report = estimate_elsewhere(
            build_report(job, result, prices, energy=energy),
            job.bundle,
            prices.table,
            own_type=price.instance_type,
            today=date.today(),
        )
        job.home.write_json(REPORT_FILE, report.to_json())
    return report


def _tell_metrics(run: str, progress: Progress, usd: float) -> None:
    """Tell Ray's metrics where the run stands; Ray is loaded by now."""
    from fastformers.cluster.nodes.metrics import driver_metrics

    driver_metrics(run).set_progress(progress, usd=usd)


@contextmanager
def connect_ray(address: str | None) -> Iterator[OpenNodes]:
    """Ray's actors, on the cluster that `cluster/nodes/addresses` chooses, or on this machine.

    Ray takes SIGTERM for itself as it starts, so this command's handlers are put back afterwards.
    """
    chosen = resolve_address(address, os.environ)
    if chosen.notice is not None:
        console.print(chosen.notice)
    with keep_handlers() as put_back:
        connect = _import_connect()
        with connect(chosen.address) as open_nodes:
            put_back()
            yield open_nodes


def _import_connect() -> Connect:
    """Load Ray, and keep it from answering SIGTERM with a stack of its C++ code.

    Ray reads the variable when it is loaded. It is taken back at once, because actors inherit the
    environment and shall write such a stack to their logs if they crash.
    """
    before = os.environ.get(_NO_STACK)
    os.environ[_NO_STACK] = "1"
    try:
        from fastformers.cluster.nodes.connect import connect
    finally:
        del os.environ[_NO_STACK]
        if before is not None:
            os.environ[_NO_STACK] = before
    return connect
