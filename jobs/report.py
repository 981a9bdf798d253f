"""Draw report.html again from the report.json of a scored run, or compare many runs with their
quotes.

fastformers report RUN
fastformers report RUN RUN ...
fastformers report 's3://bucket/runs/*'

Of one run, its page is drawn. Of several, or of a glob, a table says how far each bill was from
what `fastformers cost` and the run itself had said, by corpus and instance type.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from fastformers.cluster.json_values import to_plain
from fastformers.cluster.report.forecasts.find_runs import find_outputs, is_glob, read_reports
from fastformers.cluster.report.forecasts.past_runs import (
    PastRun,
    group_runs,
    look_back,
    render_past_runs,
)
from fastformers.cluster.report.page import can_draw
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.shards.identity import RUN_DIRECTORY, RUN_FILE, read_record
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.errors import InputError
from fastformers.formatting import format_count
from fastformers.jobs.console.arguments import add_storage_arguments
from fastformers.jobs.console.command_line.idle_flags import STORAGE, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.page import how_to_draw, write_page
from fastformers.jobs.console.progress import waiting

_NO_QUOTES = "has no quotes: it ended before the first, or an older version wrote its report"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers report`."""
    parser = CommandParser(
        prog="fastformers report",
        description=__doc__,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="output directory or URI of `fastformers score`, or a glob of several",
    )
    add_storage_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers report`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE,))
        if len(options.runs) == 1 and not is_glob(options.runs[0]):
            return _draw(open_directory(options.runs[0], options.storage_options))
        return _compare(find_outputs(options.runs, options.storage_options))

    return run(job, options)


def _draw(output: Directory) -> dict[str, Any]:
    """Draw the page of one run."""
    home = output.child(RUN_DIRECTORY)
    content = home.read_json(REPORT_FILE)
    if content is None or read_record(home, RUN_FILE, named=str(output)) is None:
        raise InputError(
            f"{output}: holds no finished run: {REPORT_FILE} or {RUN_FILE} is not in its "
            f"{RUN_DIRECTORY}; "
            "name the --output of a fastformers score that ended"
        )
    report = RunReport.from_json(
        content,
        path=f"{home}/{REPORT_FILE}",
        remedy="run the same score command again, it scores nothing twice",
    )
    if not can_draw():
        raise InputError(f"matplotlib or jinja2 is not installed; {how_to_draw(output)}")
    with waiting("drawing the page"):
        return {"page": write_page(home, report)}


def _compare(outputs: Sequence[Directory]) -> dict[str, Any]:
    """Hold the bills of runs against their quotes; what cannot be read is named and left out."""
    runs: list[PastRun] = []
    left_out: dict[str, str] = {}
    with waiting(f"reading the reports of {format_count(len(outputs), 'run')}"):
        for output, report in zip(outputs, read_reports(outputs), strict=True):
            past = look_back(report) if isinstance(report, RunReport) else None
            if past is not None:
                runs.append(past)
            elif isinstance(report, RunReport):
                left_out[str(output)] = f"{output}: {_NO_QUOTES}"
            else:
                left_out[str(output)] = " ".join(str(report).split())
    for reason in left_out.values():
        console.print(f"left out: {reason}")
    if not runs:
        raise InputError(
            f"none of {format_count(len(outputs), 'run')} has a quote to hold its bill against"
        )
    groups = group_runs(runs)
    console.print(render_past_runs(runs, groups))
    return {"runs": to_plain(runs), "groups": to_plain(groups), "left_out": left_out}


if __name__ == "__main__":
    sys.exit(main())
