"""Write a report's page where the extra `report` is installed, and say how to get it where not."""

from fastformers.cluster.report.page import PAGE_FILE, can_draw, render_page
from fastformers.cluster.report.run_report import RunReport
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import how_to_install
from fastformers.jobs.console.output import console

GET_PAGE = f"for a page to look at: {how_to_install('report')}; then fastformers report"


def write_page(output: Directory, report: RunReport) -> str | None:
    """Write the page beside the report; returns its path, or None without the extra `report`."""
    if not can_draw():
        console.print(f"{GET_PAGE} {output}")
        return None
    with output.write(PAGE_FILE) as file:
        file.write(render_page(report).encode())
    console.print(f"page: {output}/{PAGE_FILE}")
    return f"{output}/{PAGE_FILE}"
