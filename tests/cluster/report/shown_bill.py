"""The bill as a terminal shows it."""

import io

from fastformers.cluster.report.tables import render_bill
from fastformers.jobs.console.output import PlainConsole


def show_bill(report):
    text = io.StringIO()
    PlainConsole(file=text, width=200).print(render_bill(report))
    return text.getvalue()
