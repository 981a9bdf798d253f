"""Compress a fine-tuned model into a bundle, with its quality after every stage.

fastformers compress --teacher DIR --train train.parquet --eval validation.parquet --output BUNDLE
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from jobs.cli import add_example_arguments, console, run

if TYPE_CHECKING:
    from fastformers.bundle import Bundle, StageQuality


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers compress`."""
    parser = argparse.ArgumentParser(prog="fastformers compress", description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="Hugging Face model directory")
    parser.add_argument("--train", type=Path, required=True, help="labelled file, for calibration")
    parser.add_argument("--eval", type=Path, required=True, help="labelled file, for the gate")
    parser.add_argument("--output", type=Path, required=True, help="directory of the bundle")
    add_example_arguments(parser)
    parser.add_argument("--max-length", type=int, help="tokens to truncate to (teacher's limit)")
    parser.add_argument("--precision", choices=("int8", "float32"), default="int8")
    parser.add_argument(
        "--trim-vocabulary", type=int, metavar="WORDS", help="keep the most frequent words only"
    )
    parser.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="of 100 x the task's metric (default 1.0)",
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
        return _summary(bundle)

    return run(job, resume="Nothing was written.")


def _show_stage(quality: "StageQuality") -> None:
    others = "".join(f", {name} {100 * value:.2f}" for name, value in quality.other_metrics.items())
    console.print(
        f"{quality.stage}: {quality.metric} {100 * quality.quality:.2f}{others}, agreement with "
        f"the teacher {100 * quality.agreement:.2f}% on {quality.num_rows:,} rows"
    )


def _table(bundle: "Bundle") -> Table:
    table = Table(title=f"Bundle {bundle.path}", title_justify="left")
    table.add_column("stage")
    others = list(bundle.stages[0].other_metrics)
    for column in (bundle.metric, *others, "agreement", "model MB", "seconds"):
        table.add_column(column, justify="right")
    for quality in bundle.stages:
        table.add_row(
            quality.stage,
            f"{100 * quality.quality:.2f}",
            *(f"{100 * quality.other_metrics[name]:.2f}" for name in others),
            f"{100 * quality.agreement:.2f}%",
            f"{quality.model_bytes / 1e6:.1f}",
            f"{quality.seconds:.1f}",
        )
    return table


def _summary(bundle: "Bundle") -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "task": bundle.task,
        "metric": bundle.metric,
        "precision": bundle.precision,
        "labels": list(bundle.labels),
        "stages": [vars(quality) for quality in bundle.stages],
        "max_batch_tokens": bundle.cost_profile.max_batch_tokens,
        "tokens_per_second_at_64": 1 / bundle.cost_profile.estimate_seconds_per_token(),
    }


if __name__ == "__main__":
    sys.exit(main())
