"""Draw report.html again from the report.json of a scored run.

fastformers report DIRECTORY
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from fastformers.cluster.report.page import can_draw
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.shards.identity import RUN_DIRECTORY, RUN_FILE, read_record
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from fastformers.jobs.console.arguments import add_storage_arguments
from fastformers.jobs.console.command_line.idle_flags import STORAGE, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import run
from fastformers.jobs.console.page import how_to_draw, write_page
from fastformers.jobs.console.progress import waiting


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers report`."""
    parser = CommandParser(
        prog="fastformers report",
        description=__doc__,
    )
    parser.add_argument("directory", help="output directory or URI of `fastformers score`")
    add_storage_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers report`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE,))
        output = open_directory(options.directory, options.storage_options)
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

    return run(job, options)


if __name__ == "__main__":
    sys.exit(main())
