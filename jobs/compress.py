"""Compress a fine-tuned classifier into a bundle, with its quality after every stage.

fastformers compress --teacher DIR --train train.parquet --eval validation.parquet --output BUNDLE
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from jobs.cli import console, run

if TYPE_CHECKING:
    from fastformers.bundle import Bundle, StageQuality


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers compress`."""
    parser = argparse.ArgumentParser(prog="fastformers compress", description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="Hugging Face model directory")
    parser.add_argument("--train", type=Path, required=True, help="labelled file, for calibration")
    parser.add_argument("--eval", type=Path, required=True, help="labelled file, for the gate")
    parser.add_argument("--output", type=Path, required=True, help="directory of the bundle")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="second text, where rows are pairs")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--max-length", type=int, help="tokens to truncate to (teacher's limit)")
    parser.add_argument(
        "--precision",
        choices=("int8", "int8-dynamic", "float16", "float32"),
        default="int8",
        help="int8 (default): for CPUs, ranges fixed on training rows; int8-dynamic: ranges of "
        "each batch, so that a row's score depends on the rows beside it; float16: for GPUs",
    )
    parser.add_argument(
        "--min-int8-agreement",
        type=float,
        default=99.0,
        metavar="PERCENT",
        help="keep projections in float until int8 gives so many training rows the label of the "
        "float model (default 99; 0 for all in int8)",
    )
    parser.add_argument(
        "--trim-vocabulary", type=int, metavar="WORDS", help="keep the most frequent words only"
    )
    parser.add_argument(
        "--max-accuracy-drop", type=float, default=1.0, metavar="POINTS", help="default 1.0"
    )
    parser.add_argument("--eval-limit", type=int, metavar="ROWS", help="evaluate on fewer rows")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers compress`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        from fastformers.compress import CompressConfig, compress

        bundle = compress(CompressConfig(**vars(options)), on_stage=_show_stage)
        console.print(_table(bundle))
        if kept := bundle.provenance["float_projections"]:
            console.print(f"int8 would spoil these, so they stay in float: {', '.join(kept)}")
        return _summary(bundle)

    return run(job, resume="Nothing was written.")


def _show_stage(quality: "StageQuality") -> None:
    console.print(
        f"{quality.stage}: accuracy {100 * quality.accuracy:.2f}, agreement with the teacher "
        f"{100 * quality.agreement:.2f}% on {quality.num_rows:,} rows"
    )


def _table(bundle: "Bundle") -> Table:
    table = Table(title=f"Bundle {bundle.path}", title_justify="left")
    table.add_column("stage")
    for column in ("accuracy", "agreement", "model MB", "seconds"):
        table.add_column(column, justify="right")
    for quality in bundle.stages:
        table.add_row(
            quality.stage,
            f"{100 * quality.accuracy:.2f}",
            f"{100 * quality.agreement:.2f}%",
            f"{quality.model_bytes / 1e6:.1f}",
            f"{quality.seconds:.1f}",
        )
    return table


def _summary(bundle: "Bundle") -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "precision": bundle.precision,
        "float_projections": bundle.provenance["float_projections"],
        "labels": list(bundle.labels),
        "stages": [vars(quality) for quality in bundle.stages],
        "max_batch_tokens": bundle.cost_profile.max_batch_tokens,
        "tokens_per_second_at_64": 1 / bundle.cost_profile.estimate_seconds_per_token(),
    }


if __name__ == "__main__":
    sys.exit(main())
