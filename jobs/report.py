"""Draw report.html again from the report.json of a scored run.

fastformers report DIRECTORY
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from cluster.report_page import PAGE_FILE, can_draw, render_page
from cluster.run import REPORT_FILE, RUN_FILE
from cluster.storage import Directory, open_directory
from fastformers.errors import InputError
from jobs.cli import console, run

GET_PAGE = "for a page to look at: pip install 'fastformers[report]', then fastformers report"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers report`."""
    parser = argparse.ArgumentParser(
        prog="fastformers report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", help="output directory or URI of `fastformers score`")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers report`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        output = open_directory(options.directory)
        report = output.read_json(REPORT_FILE)
        if report is None or output.read_json(RUN_FILE) is None:
            raise InputError(
                f"{output}: holds no finished run: {REPORT_FILE} or {RUN_FILE} is not there; "
                "name the --output of a fastformers score that ended"
            )
        if "bill" not in report:
            raise InputError(
                f"{output}/{REPORT_FILE}: was written by an older version; run the same score "
                "command again, it scores nothing twice"
            )
        if not can_draw():
            raise InputError(f"matplotlib is not installed; {GET_PAGE} {output}")
        return {"page": write_page(output, report)}

    return run(job)


def write_page(output: Directory, report: dict[str, Any]) -> str | None:
    """Write the page beside the report; returns its path, or None without the extra `report`."""
    if not can_draw():
        console.print(f"{GET_PAGE} {output}")
        return None
    with output.write(PAGE_FILE) as file:
        file.write(render_page(report).encode())
    console.print(f"report: {output}/{PAGE_FILE}")
    return f"{output}/{PAGE_FILE}"


if __name__ == "__main__":
    sys.exit(main())
