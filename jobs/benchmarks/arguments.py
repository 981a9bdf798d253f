"""Arguments of `fastformers bench`, and everything that is refused before the clock starts.

    command line -> [arguments] -> options -> bench

This module measures nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from fastformers.figure import check_picture
from fastformers.jobs.benchmarks.parts import JOB_BASELINES, BaselineName
from fastformers.jobs.console.arguments import actor_settings, add_corpus_arguments, price_of
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.options import split_names

PARTS = ("engines", "operators", "job", "peers")


def parse_bench(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Arguments of `fastformers bench`.

    Args:
        arguments: Words of the command line after `bench`; None for those of this process.
        description: What `--help` says first.
    """
    parser = CommandParser(
        prog="fastformers bench",
        description=description,
    )
    parser.add_argument("corpus", nargs="?", help="file, directory, glob or URI")
    add_corpus_arguments(parser, needs_output=False, needs_bundle=False, text_pairs=False)
    parser.add_argument(
        "--teacher",
        type=Path,
        help="Hugging Face checkpoint of the bundle, or org/name of the hub",
    )
    parser.add_argument(
        "--shape",
        choices=tuple(SHAPES_BY_NAME),
        help="random weights of the paper's shape, in place of a bundle",
    )
    parser.add_argument(
        "--parts",
        type=split_names,
        default=PARTS,
        metavar="A,B",
        help=f"parts to measure, of {','.join(PARTS)} (all)",
    )
    parser.add_argument(
        "--peers",
        type=split_names,
        default=(),
        metavar="A,B",
        help=f"whole jobs of others, of {','.join(JOB_BASELINES)}, or all (none: they are slow)",
    )
    parser.add_argument(
        "--peer-rows", type=int, default=5000, help="rows for the whole jobs of others (5000)"
    )
    parser.add_argument(
        "--peer-python",
        type=Path,
        default=Path(sys.executable),
        help="interpreter for sentence-transformers, where its ONNX backend is installed",
    )
    parser.add_argument("--sample-rows", type=int, default=1000, help="rows for engines (1000)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="how many times everything runs, in turns (1)"
    )
    parser.add_argument(
        "--profile-out",
        type=Path,
        metavar="FILE",
        help="measure this machine, too, for `fastformers cost --profiles` elsewhere",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the whole jobs beside each other, as .svg or .png (needs CORPUS and --peers)",
    )
    parser.add_argument(
        "--from-json",
        type=Path,
        metavar="FILE",
        help="measure nothing: draw --plot from the last line of an earlier run, kept in FILE",
    )
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Refuse what could only fail after something was measured.

    Raises:
        InputError: Options are missing or contradict each other, or name nothing known.
        ModuleNotFoundError: `--plot` needs an extra that is not installed.
    """
    if options.plot is not None:
        check_picture(options.plot, "--plot")
    if options.from_json is not None:
        _check_kept(options)
        return
    _check_known(options)
    if (options.bundle is None) == (options.shape is None):
        raise InputError("give --bundle, or --shape for random weights, and not both")
    if options.shape is not None and options.teacher is None:
        raise InputError(f"--shape {options.shape}: give --teacher, too, for its tokenizer")
    if options.peers and options.teacher is None:
        raise InputError("--peers: give --teacher, the checkpoint that the others run")
    if options.peers and not options.peer_python.is_file():
        raise InputError(f"--peer-python {options.peer_python}: no such file")
    if options.output is not None and not open_directory(options.output).is_empty():
        raise InputError(f"--output {options.output}: not empty, so less would be measured")
    if options.cores_per_actor is None:
        raise InputError("--cores-per-actor auto: engines and jobs share one split; give a number")
    if options.profile_out is not None and options.bundle is None:
        raise InputError("--profile-out: a profile is of a bundle; give --bundle")
    if options.plot is not None and not (
        options.corpus is not None and options.peers and "peers" in options.parts
    ):
        raise InputError(
            f"--plot {options.plot}: shows whole jobs beside each other; give CORPUS and --peers"
        )
    actor_settings(options), price_of(options)  # refused before anything is measured


def chosen_baselines(options: argparse.Namespace) -> list[BaselineName]:
    """The job baselines that `--peers` names."""
    return [name for name in JOB_BASELINES if {name, "all"} & set(options.peers)]


def _check_kept(options: argparse.Namespace) -> None:
    if options.plot is None:
        raise InputError("--from-json: give --plot, the picture to draw")
    if options.corpus or options.bundle or options.shape or options.teacher or options.peers:
        raise InputError("--from-json measures nothing; leave out what to measure")


def _check_known(options: argparse.Namespace) -> None:
    for flag, given, known in (
        ("--parts", options.parts, PARTS),
        ("--peers", options.peers, (*JOB_BASELINES, "all")),
    ):
        if unknown := [name for name in given if name not in known]:
            raise InputError(f"{flag} {unknown[0]}: not one of {', '.join(known)}")
    for flag, value in (
        ("--repeats", options.repeats),
        ("--peer-rows", options.peer_rows),
        ("--sample-rows", options.sample_rows),
    ):
        if value < 1:
            raise InputError(f"{flag} {value}: give at least 1")
