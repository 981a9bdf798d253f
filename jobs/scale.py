"""Measure how a job scales: the same shards scored by more and more actors, and far beyond.

fastformers scale CORPUS --bundle BUNDLE --output OUT --simulate 10000

The corpus is prepared once; then its shards are scored by 1, 2, 4, ... actors, in turns. What more
actors bring is fitted, what the driver carries is measured, and a simulation goes on where the
machines end, after it was checked against what was measured.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fastformers.cluster.execution.core_split import measure_split
from fastformers.cluster.execution.job import ScoreJob, open_prepare_job, open_score_job
from fastformers.cluster.nodes.addresses import check_address, check_output
from fastformers.cluster.pricing.machine_prices import MachinePrices
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.cluster.records.slice_table import load_shards
from fastformers.cluster.scaling.cluster_model import Scheduling
from fastformers.cluster.scaling.driver_load import (
    CallCost,
    LoadSettings,
    cost_scheduling,
    load_actors,
    load_in_process,
)
from fastformers.cluster.scaling.measure import (
    MeasuredRun,
    MeasureSettings,
    PointPlan,
    Room,
    find_room,
    measure_points,
    plan_points,
    rows_per_work,
)
from fastformers.cluster.scaling.projection import (
    MeasuredInputs,
    ProjectionSettings,
    find_limit,
    project,
)
from fastformers.cluster.scaling.scale_report import SCALE_FILE, DriverLoad, ScalePoint, ScaleReport
from fastformers.cluster.scaling.sleeping_nodes import finish
from fastformers.cluster.scaling.summary import (
    check_load,
    check_simulation,
    describe_inputs,
    describe_law,
    describe_points,
    describe_projected,
    find_cheapest,
    fit_points,
    is_believed,
    is_efficient,
)
from fastformers.cluster.scaling.tables import render_scaling
from fastformers.cluster.scheduling.nodes import running
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.cluster.shards.identity import PREPARED_FILE, read_record
from fastformers.cluster.shards.layout import Shard
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.errors import InputError
from fastformers.formats.recognize import FORMATS
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.engines import AUTO, check_installed
from fastformers.jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    add_storage_arguments,
    built_in_prices,
    corpus_settings,
    price_of,
)
from fastformers.jobs.console.command_line.idle_flags import (
    ACTORS,
    OWN_MACHINE,
    STORAGE,
    IdleRule,
    refuse_idle,
    refuse_idle_reading,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import connect_ray, execute
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.page import how_to_draw
from fastformers.jobs.console.progress import waiting
from fastformers.options import split_names


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the machines did.

    Attributes:
        job: The job that scored.
        shards: The prepared shards.
        room: How many actors there was room for.
        cores_per_actor: Physical cores of each.
        runs: The turns of each point.
    """

    job: ScoreJob
    shards: list[Shard]
    room: Room
    cores_per_actor: int
    runs: dict[PointPlan, list[MeasuredRun]]


_SIMULATED = IdleRule(
    ("actors_per_node", "interruptions_per_hour", "request_s", "requests_per_second"),
    lambda options: options.simulate is None,
    "nothing is simulated; add --simulate",
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers scale`."""
    parser = CommandParser(
        prog="fastformers scale",
        description=__doc__,
    )
    parser.add_argument("corpus", help=f"corpus ({', '.join(FORMATS)})")
    add_corpus_arguments(parser)
    add_storage_arguments(parser)
    measured = parser.add_argument_group("what is measured")
    add_config_arguments(measured, MeasureSettings)
    parsers = {"load_slots": _numbers, "load_actors": _numbers}
    add_config_arguments(measured, LoadSettings, parsers=parsers)
    add_config_arguments(parser.add_argument_group("what is simulated"), ProjectionSettings)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers scale`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE, ACTORS, OWN_MACHINE, _SIMULATED))
        check_output(str(options.output), os.environ)
        check_address(options.address, os.environ)
        if options.engine != AUTO:
            check_installed(options.engine)
        started = datetime.now(UTC)
        projection = read_config(ProjectionSettings, options)
        load = read_config(LoadSettings, options)
        settings = read_config(MeasureSettings, options)
        prices = MachinePrices(given=price_of(options), table=built_in_prices())
        output = open_directory(options.output, options.storage_options)
        measured = _measure(options, output, prices, settings.repeats)
        loads, scheduling = _load_driver(load)
        report = _conclude(measured, loads, scheduling, projection, prices, options, started)
        output.write_json(SCALE_FILE, report.to_json())
        console.print(render_scaling(report))
        page = _write_page(output, report)
        return {**report.to_json(), "output": str(output), "page": page}

    resume = "Prepared shards are kept: run the same command again to go on."
    return run(job, options, resume=resume, measures=True)


def _measure(
    options: argparse.Namespace, output: Directory, prices: MachinePrices, repeats: int
) -> Measured:
    """Prepare the corpus, and score it at every point."""
    shards, scratch = output.child("shards"), output.child("scratch")
    home = str(options.output).rstrip("/")
    if not output.is_empty() and read_record(shards, PREPARED_FILE, named=str(shards)) is None:
        raise InputError(
            f"--output {output}: is not empty and holds no scaling test of ours; choose another "
            "directory"
        )
    actors = actor_settings(options)
    settings = corpus_settings(options)
    _prepare(options, home, settings, replace(actors, cores_per_actor=1), prices.given)
    job = open_score_job(
        f"{home}/shards",
        options.bundle,
        f"{home}/scratch",
        replace(settings, limit=None),
        max_batch_tokens=None,
        engine=options.engine,
        storage=options.storage_options,
    )
    known = load_shards(job.shards)
    _empty(scratch)
    with connect_ray(actors.address) as open_nodes:
        cores = actors.cores_per_actor or measure_split(
            open_nodes, job.worker_spec(), actors, console.print
        )
        actors = replace(actors, cores_per_actor=cores)
        room = find_room(open_nodes, job, actors, cores_per_actor=cores)
        runs = measure_points(
            job,
            known,
            plan_points(room),
            actors,
            open_nodes,
            repeats=repeats,
            scratch=scratch,
            log=_say,
        )
    _empty(scratch)
    return Measured(job=job, shards=known, room=room, cores_per_actor=cores, runs=runs)


def _prepare(
    options: argparse.Namespace,
    home: str,
    settings: CorpusSettings,
    actors: ActorSettings,
    price: HourlyPrice,
) -> None:
    """Prepare the corpus, once for all points."""
    with waiting("checking the settings") as on_step:
        job = open_prepare_job(
            options.corpus,
            options.bundle,
            f"{home}/shards",
            settings,
            storage=options.storage_options,
            asked=options.settings,
            on_step=on_step,
        )
    assert job.corpus is not None
    refuse_idle_reading(options, {type(job.corpus.reader)})
    execute(job, actors, price)


def _load_driver(settings: LoadSettings) -> tuple[list[DriverLoad], Scheduling]:
    """Load the driver; returns what it carried, and what that costs a simulated run."""
    loads: list[DriverLoad] = []
    for num_slots in settings.load_slots:
        with waiting(f"loading the driver with {num_slots:,} slots in this process"):
            loads.append(load_in_process(num_slots))
    actors: DriverLoad | None = None
    call: CallCost | None = None
    for num_actors in filter(None, settings.load_actors):
        from fastformers.cluster.nodes.idle_actors import open_idle_nodes

        with (
            waiting(f"loading the driver with {num_actors:,} idle actors"),
            open_idle_nodes(finish, num_slots=num_actors) as nodes,
            running(nodes),
        ):
            actors, call = load_actors(nodes)
        loads.append(actors)
    return loads, cost_scheduling(loads[0], actors, call)


def _conclude(
    measured: Measured,
    loads: Sequence[DriverLoad],
    scheduling: Scheduling,
    settings: ProjectionSettings,
    prices: MachinePrices,
    options: argparse.Namespace,
    started: datetime,
) -> ScaleReport:
    """Fit, check and simulate."""
    shards, runs, room = measured.shards, measured.runs, measured.room
    rows = rows_per_work(shards)
    points = describe_points(runs, prices, rows)
    laws = fit_points(runs)
    inputs = MeasuredInputs(runs, scheduling)
    checked = check_simulation(runs, scheduling) + check_load(loads, scheduling)
    simulated, limits = _simulate(inputs, settings, points, shards, prices)
    bundle = measured.job.bundle
    return ScaleReport(
        corpus=options.corpus,
        bundle=str(bundle.path),
        bundle_digest=bundle.digest,
        engine=measured.job.engine,
        rows=sum(shard.num_rows for shard in shards),
        shards=len(shards),
        cpu_model=read_cpu_model(),
        actors_per_node=room.actors_per_node,
        cores_per_actor=measured.cores_per_actor,
        repeats=len(next(iter(runs.values()))),
        measured_at=started.isoformat(timespec="seconds"),
        usd_per_hour=prices.given.usd_per_hour,
        price=prices.given.label,
        points=points,
        serial_share=None if laws is None else laws.serial_share,
        universal_law=describe_law(laws),
        cheapest=find_cheapest(points),
        checked=checked,
        is_believed=is_believed(checked),
        simulated=simulated,
        limits=limits,
        driver=tuple(loads),
        inputs=describe_inputs(inputs, settings),
    )


def _simulate(
    inputs: MeasuredInputs,
    settings: ProjectionSettings,
    points: Sequence[ScalePoint],
    shards: Sequence[Shard],
    prices: MachinePrices,
) -> tuple[tuple[ScalePoint, ...], str | None]:
    """The simulated points, and what limits the last if it is limited; nothing if not asked for."""
    if settings.simulate is None:
        return (), None
    work_S = np.array([shard.predicted_s for shard in shards])
    projected = project(inputs, settings, work_S, _say)
    # A node of more actors than were measured costs in proportion.
    per_node = settings.actors_per_node or inputs.actors_per_node
    node_usd = prices.given.usd_per_hour * per_node / inputs.actors_per_node
    rows = rows_per_work(shards)
    simulated = describe_projected(projected, points, node_usd=node_usd, rows=rows)
    if is_efficient(simulated):
        return simulated, None
    return simulated, find_limit(inputs, settings, work_S)


def _write_page(output: Directory, report: ScaleReport) -> str | None:
    """Write the page where the extra `report` is installed; returns its path."""
    from fastformers.cluster.report.page import can_draw
    from fastformers.cluster.scaling.drawing import PAGE_FILE, render_page

    if not can_draw():
        console.print(how_to_draw())
        return None
    with output.write(PAGE_FILE) as file:
        file.write(render_page(report).encode())
    _say(f"page: {output}/{PAGE_FILE}")
    return f"{output}/{PAGE_FILE}"


def _empty(scratch: Directory) -> None:
    """Remove what an interrupted test left."""
    with suppress(FileNotFoundError):
        scratch.filesystem.delete_dir(scratch.path)


def _say(line: str) -> None:
    console.print(line)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in split_names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, as 10,100") from None


if __name__ == "__main__":
    sys.exit(main())
