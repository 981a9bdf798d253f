"""Fine-tune a pretrained encoder on labeled texts into the teacher of a recipe.

fastformers finetune --model DIR --train train.parquet --eval validation.parquet --output TEACHER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastformers.data.examples import Columns
from fastformers.data.held_out import metric_of
from fastformers.data.superglue import load_labeled
from fastformers.data.targets import task_of_labels
from fastformers.errors import InputError
from fastformers.inference.tasks import TASKS
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import show_progress
from fastformers.models.training_config import FinetuneConfig


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers finetune`."""
    parser = CommandParser(prog="fastformers finetune", description=__doc__)
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="directory of a pretrained encoder, or org/name[@revision] of the hub",
    )
    parser.add_argument("--train", type=Path, required=True, help="labeled files")
    parser.add_argument(
        "--eval",
        type=Path,
        help="labeled files that are not trained on: the epoch that is best on them is kept",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of the teacher")
    add_config_arguments(parser, Columns)
    add_config_arguments(parser, Columns.text_files)
    parser.add_argument(
        "--task",
        choices=[t.name for t in TASKS.values() if t.has_targets and not t.is_choice],
        help="by default from the labels: lists are multi-label, fractions regression, unless "
        "all are whole; in CSV files, several labels are separated by |",
    )
    add_config_arguments(parser, FinetuneConfig.training)
    add_config_arguments(parser, FinetuneConfig)
    parser.add_argument(
        "--limit", type=int, metavar="ROWS", help="train on this many rows, evenly spaced"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers finetune`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if options.limit is not None and options.limit < 1:
            raise InputError(f"--limit {options.limit}: give at least 1")
        config = read_config(FinetuneConfig, options)
        from fastformers.models.finetune import finetune
        from fastformers.models.trainer import Epoch

        columns = read_config(Columns, options)
        train = load_labeled(options.train, columns)
        evaluation = None if options.eval is None else load_labeled(options.eval, columns)
        task = TASKS[options.task] if options.task else task_of_labels(train, options.train)
        metric = metric_of(train, task)
        if options.limit is not None:
            train = train.sample(options.limit)

        def on_epoch(epoch: Epoch) -> None:
            console.print(f"epoch {epoch.number}: {metric} {100 * epoch.quality:.2f}")

        with show_progress() as on_progress:
            result = finetune(
                options.model,
                train,
                options.train,
                options.output,
                config,
                on_progress,
                task=task,
                evaluation=evaluation,
                eval_path=options.eval,
                on_labels=lambda meaning: console.print(f"labels: {meaning}", markup=False),
                on_epoch=on_epoch,
            )
        outputs = f"{len(result.labels)} labels" if result.labels else "a score"
        console.print(f"teacher for {task} with {outputs}, trained on {len(train):,} rows")
        if result.best is not None:
            console.print(f"kept epoch {result.best.number}, the best of them")
        return {
            "teacher": str(options.output),
            "task": task.name,
            "labels": result.labels,
            "rows": len(train),
            "metric": metric,
            "epoch": result.best and result.best.number,
            "quality": result.best and result.best.quality,
        }

    return run(job, options, resume="Run the same command again to go on from the last checkpoint.")


if __name__ == "__main__":
    sys.exit(main())
