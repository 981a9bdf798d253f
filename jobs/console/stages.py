"""Show what a compression measures: a line for each stage, and the tables at its end.

    quality after a stage, curve over texts without labels -> [stages] -> console

This module knows nothing of how anything is measured.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fastformers.inference.description.further_graph import qualities_of
from fastformers.inference.description.model_card import render_interval
from fastformers.jobs.console.output import console

if TYPE_CHECKING:
    from fastformers.compression.compress import Compressed
    from fastformers.compression.transfer_curve import CurvePoint
    from fastformers.inference.description.stage_quality import StageQuality


def show_stage(quality: "StageQuality") -> None:
    """A line for a stage as it is measured."""
    others = "".join(f", {name} {100 * value:.2f}" for name, value in quality.other_metrics.items())
    console.print(
        f"{quality.stage}: {quality.metric} {100 * quality.quality:.2f}{others}, agreement with "
        f"the teacher {100 * quality.agreement:.2f}% on {quality.num_rows:,} evaluation rows"
    )


def show_point(point: "CurvePoint") -> None:
    """A line for a point of the curve over texts without labels."""
    console.print(
        f"{point.num_texts:,} texts without labels: {point.quality.metric} "
        f"{100 * point.quality.quality:.2f}, agreement with the teacher "
        f"{100 * point.quality.agreement:.2f}%"
    )


def show_curve(curve: Sequence["CurvePoint"]) -> None:
    """The table of quality by number of texts, and what it says of more."""
    from fastformers.compression.transfer_curve import judge_curve

    metric = curve[0].quality.metric
    table = Table(title=f"Texts without labels and {metric}", title_justify="left")
    for column in ("texts", metric, "95% interval", "agreement"):
        table.add_column(column, justify="right")
    for point in curve:
        table.add_row(
            f"{point.num_texts:,}",
            f"{100 * point.quality.quality:.2f}",
            render_interval(point.quality),
            f"{100 * point.quality.agreement:.2f}%",
        )
    console.print(table)
    console.print(judge_curve(curve))


def stage_table(result: "Compressed") -> Table:
    """The table of the bundle's quality after each stage."""
    table = Table(title=f"Bundle {result.bundle.path}", title_justify="left")
    table.add_column("stage")
    others = list(result.bundle.stages[0].other_metrics)
    for column in (result.bundle.metric, *others, "agreement", "model MB", "seconds"):
        table.add_column(column, justify="right")
    for quality in qualities_of(result.bundle):
        table.add_row(
            quality.stage,
            f"{100 * quality.quality:.2f}",
            *(f"{100 * quality.other_metrics[name]:.2f}" for name in others),
            f"{100 * quality.agreement:.2f}%",
            f"{quality.model_bytes / 1e6:.1f}",
            f"{quality.seconds:.1f}",
        )
    return table
