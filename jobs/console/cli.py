"""Run one command of fastformers; each has a --help of its own.

    command line -> [cli] -> main of jobs/COMMAND.py -> exit status

Only the command that is run is loaded; this module knows nothing of its arguments.
"""

import importlib
import sys
from collections.abc import Sequence

import fastformers
from fastformers.jobs.console.command_line.completion import SHELLS, PrintCompletion, complete
from fastformers.jobs.console.command_parser import PlainParser

COMMANDS = {
    "demo": "score real text with the small bundle that ships with the package",
    "finetune": "pretrained encoder + labeled texts -> teacher",
    "compress": "teacher -> bundle: tuned, quantized, proven",
    "ablate": "what each optimization brought: the paper's table for your model and machine",
    "prepare": "corpus -> length-sorted shards of token ids",
    "score": "corpus or shards + bundle -> predictions and a bill",
    "status": "where a run stands, from any terminal",
    "cost": "what a corpus costs on each instance type, and the cheapest cluster by a deadline",
    "scale": "how throughput grows with actors and nodes: measured, fitted, simulated",
    "launch": "what `ray up` or Kubernetes starts a cluster from, this project's wheel included",
    "report": "the page of a scored run, drawn again",
    "bench": "tokens/s and rows/s here, beside what else a user could run",
    "bench-gpu": "the paper's shapes on a GPU beside PyTorch, and a whole job",
    "inspect": "what a bundle is, how good and how fast; checks the whole of it",
    "label": "names for the labels of a bundle, in place of 0 or LABEL_0",
}
# A script in jobs/ would find a module `inspect` there in place of Python's own.
_MODULES = {"inspect": "inspect_bundle", "bench-gpu": "bench_gpu"}


def module_of(command: str) -> str:
    """Name of the module of a command."""
    return f"fastformers.jobs.{_MODULES.get(command, command)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers COMMAND ...`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _make_parser()
    complete(parser, COMMANDS, _run)
    # Flags of fastformers itself stand before the command; all that follows is the command's.
    first = next((n for n, word in enumerate(words) if not word.startswith("-")), len(words))
    known = parser.parse_args(words[: first + 1])
    return _run([known.command, *words[first + 1 :]])


def _make_parser() -> PlainParser:
    parser = PlainParser(prog="fastformers", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--version",
        action="version",
        version=f"fastformers {fastformers.__version__} (Python {sys.version.split()[0]})",
        help="show the version, and stop",
    )
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script that completes commands and flags in a shell, and stop",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _run(words: list[str]) -> int:
    command = importlib.import_module(module_of(words[0]))
    return int(command.main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
