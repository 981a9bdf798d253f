"""Write a report's page where the extra `report` is installed, and say how to get it where not."""

from fastformers.cluster.report.page import PAGE_FILE, can_draw, render_page
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.storage.directory import Directory
from fastformers.installation import how_to_install
from fastformers.jobs.console.output import console


def how_to_draw(output: Directory | None = None) -> str:
    """What to do for a page, and for the page of the run in a directory."""
    get = f"for a page to look at: {how_to_install('report')}"
    return get if output is None else f"{get}; then fastformers report {output}"


def write_page(output: Directory, report: RunReport) -> str | None:
    """Write the page beside the report; returns its path, or None without the extra `report`."""
    if not can_draw():
        console.print(how_to_draw(output))
        return None
    with output.write(PAGE_FILE) as file:
        file.write(render_page(report).encode())
    console.print(f"page: {output}/{PAGE_FILE}")
    return f"{output}/{PAGE_FILE}"
