"""Run a job and show it: checks, then progress on stderr and in its output, then its report.

    job, settings -> [execute] -> run -> report

What can be refused is refused before Ray starts, by the one function that a dry run calls as well.
This is where a command chooses who works: Ray is loaded here, when there is work for it.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial

from fastformers.cluster.cost.run_elsewhere import estimate_elsewhere
from fastformers.cluster.execution.claim import Claim, check_claim
from fastformers.cluster.execution.connect import Connect, OpenNodes
from fastformers.cluster.execution.job import ScoreJob
from fastformers.cluster.execution.journal import find_earlier_work
from fastformers.cluster.execution.result import RunResult
from fastformers.cluster.execution.run import run_job
from fastformers.cluster.execution.topology import (
    CoreSet,
    discover_topology,
    plan_core_sets,
)
from fastformers.cluster.formatting import format_time
from fastformers.cluster.nodes.addresses import (
    ClusterAddress,
    check_answers,
    check_socket_paths,
    resolve_address,
)
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.records.audit import check_agreement
from fastformers.cluster.records.quotes import EarlyQuote, Quotes, read_quotes
from fastformers.cluster.records.sessions import Session, read_sessions
from fastformers.cluster.report.energy import EnergyMeter
from fastformers.cluster.report.forecasts.quoting import Quoter, price_machines
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.report.status import Unit
from fastformers.cluster.report.summary import build_report, summarize_session
from fastformers.cluster.report.tables import render_bill
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.settings import ActorSettings
from fastformers.cluster.shards.claim_file import read_claim
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.inference.engines.cuda_setup import check_cuda
from fastformers.jobs.console.arguments import built_in_prices
from fastformers.jobs.console.output import console
from fastformers.jobs.console.page import write_page
from fastformers.jobs.console.progress import ProgressDisplay, waiting
from fastformers.jobs.console.status_file import StatusFile
from fastformers.jobs.console.terminal.interrupts import keep_handlers

_NO_STACK = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"


def check_run(job: ScoreJob, actors: ActorSettings) -> ClusterAddress:
    """Refuse a run that could not begin to work; nothing is started, and nothing written.

    Returns:
        The cluster that the run would work on.

    Raises:
        InputError: The output holds something else, no cluster answers at the address, or this
            machine does not have the cores or no GPU that works.
        ChangedWorkError: The output holds the work of another run.
    """
    check_claim(job)
    chosen = resolve_address(actors.address, os.environ)
    if chosen.address is None:
        if actors.num_nodes is not None:
            raise InputError(
                f"--num-nodes {actors.num_nodes} does nothing here: Ray starts on this machine "
                "alone; leave it out, or give the --address of a cluster"
            )
        check_socket_paths(os.environ)
        if job.uses_gpus:
            check_cuda()  # the nodes of a cluster are checked there
        else:
            plan_actors(actors)
    else:
        check_answers(chosen.address)
    return chosen


def plan_actors(actors: ActorSettings) -> list[CoreSet]:
    """The cores of each actor that this machine would have.

    Raises:
        InputError: It does not have that many cores.
    """
    return plan_core_sets(
        discover_topology(),
        num_actors=actors.num_actors,
        cores_per_actor=actors.cores_per_actor or 1,
        oversubscribe=actors.oversubscribe,
    )


def describe_cluster(address: str | None) -> str:
    """Join the cluster at an address as a run does, and say what is free there.

    Raises:
        InputError: It refuses the connection.
    """
    with connect_ray(address):
        from fastformers.cluster.nodes.cluster_state import list_nodes

        nodes = list_nodes()
    free = sum(node.free_cpus for node in nodes)
    return f"{format_count(len(nodes), 'node')} with {free:g} free CPUs"


def execute(
    job: ScoreJob,
    actors: ActorSettings,
    price: HourlyPrice,
    meter: EnergyMeter | None = None,
    early: EarlyQuote | None = None,
) -> RunReport:
    """Run a job with progress on stderr; returns its report, which is also kept in its output.

    Args:
        job: The job.
        actors: Settings of the workers.
        price: Price of a machine.
        meter: What measures electricity, or None.
        early: What was quoted for the run before it began, or None.

    Raises:
        FastformersError: See `check_run` and `run_job`.
    """
    start = _describe_start(check_run(job, actors), actors)
    unit: Unit = "prepared" if job.output is None else "scored"
    prices = MachinePrices(given=price, table=built_in_prices())
    with StatusFile(
        job.home, unit, lambda progress: price_machines(prices, progress.machine_s)
    ) as status_file:
        with meter or nullcontext(), ProgressDisplay() as display:
            teller = _Teller(
                job=job,
                prices=prices,
                early=early,
                start=start,
                status_file=status_file,
                display=display,
            )
            result = run_job(
                job,
                actors,
                teller.connect,
                on_claim=teller.begin,
                on_progress=teller.show,
                on_result=teller.keep,
                log=console.print,
            )
        report = build_report(
            job,
            result,
            prices,
            run=status_file.run,
            earlier=teller.earlier,
            quotes=status_file.quotes,
            energy=meter.energy if meter is not None else None,
        )
        status_file.keep(report.sessions[-1])
        report = estimate_elsewhere(
            report,
            job.bundle,
            prices.table,
            own_type=price.instance_type,
            today=date.today(),
        )
        job.home.write_json(REPORT_FILE, report.to_json())
    return report


@dataclass(kw_only=True)
class _Teller:
    """Tells the display, the output's status and Ray's metrics what a run says as it goes.

    Attributes:
        job: The job that runs.
        prices: Prices of the machines.
        early: What was quoted for the run before it began, or None.
        start: What is waited for until the first actors are there.
        status_file: What the run writes of itself.
        display: What the user sees.
        earlier: The sessions before this one, from when the output is claimed.
    """

    job: ScoreJob
    prices: MachinePrices
    early: EarlyQuote | None
    start: str
    status_file: StatusFile
    display: ProgressDisplay
    earlier: tuple[Session, ...] = ()

    def begin(self, claim: Claim) -> None:
        """Begin to write and to quote, because the output is claimed."""
        record, quotes = claim.record, Quotes()
        if not claim.is_new:
            self.earlier = read_sessions(self.job.home, but=record.run)
            quotes = read_quotes(self.job.home)
        quoter = Quoter(
            record.run,
            record.started_at,
            partial(price_machines, self.prices),
            earlier=self.earlier,
            quotes=replace(quotes, early=self.early or quotes.early),
        )
        self.status_file.begin(claim, quoter)
        self.display.wait_for("finding what is done already")

    @contextmanager
    def connect(self, address: str | None) -> Iterator[OpenNodes]:
        """Connect to Ray, and wait for actors from then on."""
        with connect_ray(address) as open_nodes:
            self.display.wait_for(self.start)
            yield open_nodes

    def show(self, progress: Progress) -> None:
        """Show a report of the driver."""
        status = self.status_file.add(progress)
        if status.waits_for is not None:
            self.display.wait_for(status.waits_for if status.num_actors else self.start)
        else:
            self.display.update(
                status.unit, status.share, status.numbers, status.remarks(), status.time_left
            )
            self.display.wait_for("finishing the output" if status.share >= 1 else None)
        _tell_metrics(self.job.place.path, progress, status.usd)

    def keep(self, so_far: RunResult) -> None:
        """Keep what the session has done and cost so far."""
        self.status_file.keep(summarize_session(so_far, self.prices, run=self.status_file.run))


def execute_and_show(
    job: ScoreJob,
    actors: ActorSettings,
    price: HourlyPrice,
    meter: EnergyMeter | None = None,
    early: EarlyQuote | None = None,
) -> RunReport:
    """Run a job that scores, then show its bill and write its page; a finished one is only shown.

    Arguments as for `execute`.

    Raises:
        FastformersError: See `execute` and `find_finished`.
        AuditError: The predictions agree too little with the audit bundle's.
    """
    report = find_finished(job)
    if report is not None:
        report = replace(report, early_quote=early or report.early_quote)
        console.print(render_bill(report))
    else:
        report = execute(job, actors, price, meter, early)
        console.print(render_bill(report))
        write_page(job.home, report)
    if report.audit is not None:
        check_agreement(report.audit, job.place)
    return report


def find_finished(job: ScoreJob) -> RunReport | None:
    """The report of a job that is finished, and says so; None where there is something to do.

    Nothing is written: who runs a finished job again wants to see what it did.

    Raises:
        ScoringError: More rows are without a prediction than the job allows now.
        InputError, ChangedWorkError: The output holds something else.
    """
    if not check_claim(job):
        return None
    try:
        content = job.home.read_json(REPORT_FILE)
        report = RunReport.from_json(content, path=REPORT_FILE, remedy="it is written anew")
    except InputError:
        return None
    earlier = find_earlier_work(job)
    if not earlier.is_all or read_claim(job.home) is not None:
        return None
    earlier.cut.bad_rows.check(job.settings.bad_row_limit, are_all=True)
    if job.audit is not None and report.audit is not None:  # another may be borne now
        audit = replace(report.audit, min_agreement=job.audit.min_agreement)
        report = replace(report, audit=audit)
    ended = datetime.fromisoformat(report.sessions[-1].started_at).timestamp()
    ended += report.sessions[-1].wall_s
    console.print(
        f"{job.place}: finished at {format_time(ended)} UTC; nothing is left to do, and nothing "
        "was changed; this is its report"
    )
    return report


def _describe_start(chosen: ClusterAddress, actors: ActorSettings) -> str:
    """What is waited for until the first actors are there."""
    number = actors.num_actors
    if number is None and chosen.address is None and actors.cores_per_actor is not None:
        number = len(plan_actors(actors))
    return f"starting {'actors' if number is None else format_count(number, 'actor')}"


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
    start = "starting Ray" if chosen.address is None else f"joining Ray at {chosen.address}"
    with keep_handlers() as put_back, ExitStack() as stack:
        with waiting(start):
            connect = _import_connect()
            open_nodes = stack.enter_context(connect(chosen.address))
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
