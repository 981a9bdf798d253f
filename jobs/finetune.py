"""Fine-tune a pretrained encoder on labeled texts into the teacher of a recipe.

fastformers finetune --model DIR --train train.parquet --eval validation.parquet --output TEACHER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastformers.atomic_file import check_writable
from fastformers.data.examples import Columns
from fastformers.data.held_out import metric_of
from fastformers.data.superglue import load_labeled
from fastformers.data.targets import classes_to_train, task_of_labels
from fastformers.errors import InputError
from fastformers.files.hub import find_model
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.tasks import TASKS
from fastformers.jobs.console.arguments import add_text_file_arguments
from fastformers.jobs.console.command_line.idle_flags import (
    SUPERGLUE,
    IdleRule,
    refuse_idle,
    refuse_idle_labeled,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import show_progress, waiting
from fastformers.models.model_files import check_model_directory, check_teacher_output
from fastformers.models.training_config import FinetuneConfig

_IDLE = (
    SUPERGLUE,
    IdleRule(
        ("task",),
        lambda options: options.choice_columns,
        "rows with --choice-columns are multiple choice",
    ),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers finetune`."""
    parser = CommandParser(prog="fastformers finetune", description=__doc__)
    models = parser.add_argument_group("models and files")
    models.add_argument(
        "--model",
        type=Path,
        required=True,
        help="directory of a pretrained encoder, or org/name[@revision] of the hub",
    )
    models.add_argument("--train", type=Path, required=True, help="labeled files")
    models.add_argument(
        "--eval",
        type=Path,
        help="labeled files that are not trained on: the epoch that is best on them is kept (none)",
    )
    models.add_argument("--output", type=Path, required=True, help="directory of the teacher")
    files = parser.add_argument_group("labeled files")
    add_config_arguments(files, Columns)
    files.add_argument(
        "--task",
        choices=[t.name for t in TASKS.values() if t.has_targets and not t.is_choice],
        help="what is learned; in CSV files, several labels are separated by | (what the labels "
        "say: lists are multi-label, fractions regression, unless all are whole)",
    )
    files.add_argument(
        "--limit", type=int, metavar="ROWS", help="train on this many rows, evenly spaced (all)"
    )
    add_text_file_arguments(parser, Columns.text_files)
    training = parser.add_argument_group("training")
    add_config_arguments(training, FinetuneConfig.training)
    add_config_arguments(training, FinetuneConfig)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers finetune`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if options.limit is not None and options.limit < 1:
            raise InputError(f"--limit {options.limit}: give at least 1")
        config = read_config(FinetuneConfig, options)
        refuse_idle(options, _IDLE)
        refuse_idle_labeled(options, options.train, options.eval)
        options.model = find_model(options.model).path
        check_model_directory(options.model)
        check_teacher_output(options.output, options.model)
        check_writable(options.output)
        columns = read_config(Columns, options)
        with waiting("reading the labeled files"):
            train = load_labeled(options.train, columns)
            evaluation = None if options.eval is None else load_labeled(options.eval, columns)
        task = TASKS[options.task] if options.task else task_of_labels(train, options.train)
        names = classes_to_train(train, task, options.train)
        if config.label_names:
            check_label_names(config.label_names, names, flag="--label-names")
        metric = metric_of(train, task)
        if options.limit is not None:
            train = train.sample(options.limit)
        with waiting("loading PyTorch"):
            from fastformers.models.finetune import finetune
            from fastformers.models.trainer import Epoch

        def on_epoch(epoch: Epoch) -> None:
            console.print(f"epoch {epoch.number}: {metric} {100 * epoch.quality:.2f}")

        with show_progress() as on_progress, waiting("tokenizing the texts"):
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

    resume = "Run the same command again to go on from the last checkpoint."
    return run(job, options, resume=resume, measures=True)


if __name__ == "__main__":
    sys.exit(main())
