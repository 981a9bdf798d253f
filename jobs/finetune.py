"""Fine-tune a pretrained encoder on labeled texts into the teacher of a recipe.

fastformers finetune --model DIR --train train.parquet --eval validation.parquet --output TEACHER
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastformers.atomic_file import check_writable
from fastformers.data.examples import Columns, Examples
from fastformers.data.held_out import metric_of
from fastformers.data.splitting import SelectConfig, SplitRows
from fastformers.data.targets import classes_to_train, task_of_labels
from fastformers.data.training_files import load_training_files
from fastformers.errors import InputError
from fastformers.files.hub import find_model
from fastformers.inference.description.label_names import check_label_names
from fastformers.inference.tasks import TASKS, Task
from fastformers.jobs.console.arguments import add_text_file_arguments
from fastformers.jobs.console.command_line.idle_flags import (
    SELECT,
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

if TYPE_CHECKING:
    from fastformers.models.finetune import Finetuned
    from fastformers.models.trainer import Epoch

_IDLE = (
    SUPERGLUE,
    SELECT,
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
        metavar="DIR",
        help="directory of a pretrained encoder, or org/name[@revision] of the hub",
    )
    models.add_argument("--train", type=Path, required=True, metavar="FILE", help="labeled files")
    models.add_argument(
        "--eval",
        type=Path,
        metavar="FILE",
        help="labeled files that say how good the teacher is, and choose nothing (none)",
    )
    models.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory of the teacher"
    )
    files = parser.add_argument_group("labeled files")
    add_config_arguments(files, Columns)
    add_config_arguments(files, SelectConfig)
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
        config = read_config(FinetuneConfig, options)
        _check(options)
        work = _read(options, config)
        result = _train(options, config, work)
        return _conclude(options, work, result)

    resume = "Run the same command again to go on from the last checkpoint."
    return run(job, options, resume=resume, measures=True)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is learned, from which rows.

    Attributes:
        task: The task.
        names: Names of its classes.
        train: The rows that train.
        split: All rows that train or choose, before --limit.
        evaluation: The rows of --eval, or None.
    """

    task: Task
    names: list[str]
    train: Examples
    split: SplitRows
    evaluation: Examples | None

    @property
    def metric(self) -> str:
        """Name of the metric of the task."""
        return metric_of(self.split.train, self.task)


def _check(options: argparse.Namespace) -> None:
    """Refuse what is wrong before any file of rows is read; the model is on this machine then."""
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: give at least 1")
    refuse_idle(options, _IDLE)
    refuse_idle_labeled(options, options.train, options.eval, options.select)
    options.model = find_model(options.model).path
    check_model_directory(options.model)
    check_teacher_output(options.output, options.model)
    check_writable(options.output)


def _read(options: argparse.Namespace, config: FinetuneConfig) -> _Work:
    """Read the labeled files, and settle what is learned from them."""
    columns, select = read_config(Columns, options), read_config(SelectConfig, options)
    with waiting("reading the labeled files"):
        files = load_training_files(options.train, options.eval, columns, select)
    split = files.split
    console.print(f"rows: {split.meaning}", markup=False)
    task = TASKS[options.task] if options.task else task_of_labels(split.train, options.train)
    names = classes_to_train(split.whole, task, options.train)
    if config.label_names:
        check_label_names(config.label_names, names, flag="--label-names")
    return _Work(
        task=task,
        names=names,
        train=split.train if options.limit is None else split.train.sample(options.limit),
        split=split,
        evaluation=files.evaluation,
    )


def _train(options: argparse.Namespace, config: FinetuneConfig, work: _Work) -> "Finetuned":
    """Train the teacher, and show its epochs."""
    with waiting("loading PyTorch"):
        from fastformers.models.finetune import finetune

    def on_epoch(epoch: "Epoch") -> None:
        console.print(f"epoch {epoch.number}: {work.metric} {100 * epoch.quality:.2f}")

    with show_progress() as on_progress, waiting("tokenizing the texts"):
        return finetune(
            options.model,
            work.train,
            options.train,
            options.output,
            config,
            on_progress,
            task=work.task,
            classes=work.names,
            select=work.split.select,
            select_path=work.split.select_path,
            evaluation=work.evaluation,
            eval_path=options.eval,
            on_labels=lambda meaning: console.print(f"labels: {meaning}", markup=False),
            on_epoch=on_epoch,
        )


def _conclude(options: argparse.Namespace, work: _Work, result: "Finetuned") -> dict[str, Any]:
    """Show what was made; returns it as plain values."""
    outputs = f"{len(result.labels)} labels" if result.labels else "a score"
    console.print(f"teacher for {work.task} with {outputs}, trained on {len(work.train):,} rows")
    for line in _describe(result, work.split, work.metric, options):
        console.print(line, markup=False)
    return {
        "teacher": str(options.output),
        "task": work.task.name,
        "labels": result.labels,
        "rows": len(work.train),
        "select_rows": len(work.split.select or ()),
        "metric": work.metric,
        "epoch": result.best and result.best.number,
        "select_quality": result.best and result.best.quality,
        "quality": result.quality,
        "quality_interval": result.interval and [*result.interval],
    }


def _describe(
    result: "Finetuned", split: SplitRows, metric: str, files: argparse.Namespace
) -> list[str]:
    """Which epoch was kept, and how good it is on which rows."""
    lines = ["kept the last epoch: no rows choose"]
    if result.best is not None and split.select is not None:
        lines = [
            f"kept epoch {result.best.number}, the best on the {len(split.select):,} rows that "
            "choose"
        ]
    if result.quality is not None and result.interval is not None:
        low, high = (100 * value for value in result.interval)
        lines.append(
            f"{metric} {100 * result.quality:.2f} (95% interval {low:.2f} to {high:.2f}) on "
            f"{files.eval}, which chose nothing"
        )
    elif result.best is not None:
        lines.append(
            f"{metric} {100 * result.best.quality:.2f} is of rows that chose the epoch, so it is "
            "slightly too high; give --eval for a number to quote"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
