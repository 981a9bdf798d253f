"""The `fastformers` command, and what all of its subcommands share.

Progress and tables go to stderr; the last line of stdout is one JSON object. Exit status 0 means
that all was done, 2 that the user has to change something (one line says what), 130 Ctrl-C.
"""

import argparse
import errno
import importlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fastformers.errors import FastformersError

if TYPE_CHECKING:
    from fastformers.examples import Columns

COMMANDS = {
    "demo": "score real text with the small bundle that ships with the package",
    "finetune": "pretrained encoder + labelled texts -> teacher",
    "compress": "teacher -> bundle: tuned, quantized, proven",
    "ablate": "what each optimization brought: the paper's table for your model and machine",
    "prepare": "corpus -> length-sorted shards of token ids",
    "score": "corpus or shards + bundle -> predictions and a bill",
    "cost": "what a corpus costs on each instance type, and the cheapest cluster by a deadline",
    "report": "the page of a scored run, drawn again",
    "bench": "tokens/s and rows/s here, beside what else a user could run",
}
EXTRA_OF = {
    "torch": "compress",
    "transformers": "compress",
    "onnx": "compress",
    "matplotlib": "report",
    "boto3": "aws",
    "botocore": "aws",
    "google": "gcp",
    "nncf": "bench",
    "openvino": "openvino",
}

console = Console(stderr=True, soft_wrap=True, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers COMMAND ...`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="fastformers", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    known, rest = parser.parse_known_args(arguments[:1])
    job = importlib.import_module(f"jobs.{known.command}")
    return int(job.main([*rest, *arguments[1:]]))


def run(job: Callable[[], Mapping[str, Any]], *, resume: str = "") -> int:
    """Run a job: print its result as the last line of stdout, or its error as one line.

    Args:
        job: Does the work and returns what the last line shows.
        resume: What to do after Ctrl-C.

    Returns:
        The exit status.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        result = job()
    except FastformersError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _refuse(f"{error.name} is not installed: pip install 'fastformers[{extra}]'")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        return _refuse(f"{error.filename or 'output'}: {error.strerror}; free space or change it")
    except KeyboardInterrupt:
        console.print(f"interrupted. {resume}".rstrip())
        return 130
    print(json.dumps(result), flush=True)
    return 0


def _refuse(message: str) -> int:
    console.print("error: " + " ".join(message.split()), markup=False)
    return 2


def add_example_arguments(parser: argparse._ActionsContainer) -> None:
    """Arguments that say what the columns of a labelled file are."""
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="second text, where rows are pairs")
    parser.add_argument(
        "--choice-columns",
        type=columns,
        default=(),
        metavar="A,B",
        help="second texts of which one is right (multiple choice)",
    )
    parser.add_argument("--label-column", default="label")
    parser.add_argument(
        "--superglue",
        metavar="TASK",
        help="official files of a SuperGLUE task, in place of columns: BoolQ, RTE, CB, COPA, WiC, "
        "WSC or MultiRC",
    )


def labelled_columns(options: argparse.Namespace) -> "Columns":
    """What `add_example_arguments` was told."""
    from fastformers.examples import Columns

    return Columns(
        text=options.text_column,
        text_pair=options.text_pair_column,
        label=options.label_column,
        choices=options.choice_columns,
        superglue=options.superglue,
    )


def columns(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of column names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
