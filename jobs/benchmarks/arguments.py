"""Arguments of `fastformers bench`, and everything that is refused before the clock starts.

    command line -> [arguments] -> options -> bench

This module measures nothing.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from fastformers.atomic_file import check_writable
from fastformers.benchmark.encoder_shapes import SHAPES_BY_NAME
from fastformers.cache import cache_directory
from fastformers.cluster.nodes.cloud_metadata import read_instance_type
from fastformers.cluster.pricing.prices import InstancePrice, find_price
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.filesystems import resolve
from fastformers.errors import InputError
from fastformers.figure import check_picture
from fastformers.files.hub import find_model
from fastformers.formats.file_set import formats_at
from fastformers.inference.engines import AUTO, check_installed
from fastformers.jobs.benchmarks.peers.catalog import JOB_BASELINES, BaselineName
from fastformers.jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    built_in_prices,
    price_of,
)
from fastformers.jobs.console.calibrate import check_own_cores
from fastformers.jobs.console.command_line.idle_flags import (
    ACTORS,
    CORPUS,
    OWN_MACHINE,
    IdleRule,
    refuse_idle,
    refuse_idle_reading,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import plan_actors
from fastformers.jobs.console.output import console
from fastformers.models.model_files import check_model_directory
from fastformers.options import split_names

PARTS = ("engines", "operators", "job", "peers")


def _whole_jobs(options: argparse.Namespace) -> bool:
    """Whether whole jobs run, ours or those of others."""
    return options.corpus is not None and ("job" in options.parts or has_peers(options))


def has_peers(options: argparse.Namespace) -> bool:
    """Whether whole jobs of others run."""
    return bool(options.corpus and options.peers and "peers" in options.parts)


def _chosen(options: argparse.Namespace, wanted: Callable[[BaselineName], object]) -> bool:
    return any(wanted(name) for name in chosen_baselines(options))


def _needs_teacher(options: argparse.Namespace) -> bool:
    return bool(options.shape or {"engines", "operators", "peers"} & {*options.parts})


def measures_profile_alone(options: argparse.Namespace) -> bool:
    """Whether nothing but this machine is measured, with the bundle that everybody has."""
    others = (options.corpus, options.bundle, options.shape, options.from_json)
    return options.profile_out is not None and others == (None,) * len(others)


def find_own_type(given: str | None) -> tuple[str | None, InstancePrice | None]:
    """Type of this machine, as given or as its cloud says, and its row of the price table.

    Args:
        given: What the user says; None to ask the cloud alone.

    Raises:
        InputError: The type is not known, or its cloud says another.
    """
    said = read_instance_type()
    if given is None:
        return said, built_in_prices().get(said or "")
    if said not in (None, given):
        raise InputError(
            f"--instance-type {given}: the cloud says that this machine is {said}; leave it out"
        )
    return given, find_price(given, built_in_prices())


def find_whole_type(given: str | None) -> str | None:
    """Type of this machine, if all of its cores may be used; else a line says so.

    Args:
        given: What the user says; None to ask the cloud alone.

    Raises:
        InputError: The user names a type that is not known, not this machine's, or has other cores.
    """
    name, own = find_own_type(given)
    try:
        check_own_cores(own)
    except InputError:
        if given is not None:
            raise
        console.print(
            f"only a part of this {name} may be used here, so what is measured is kept without its "
            "type"
        )
        return None
    return name


_ACTORS = (
    *("num_actors", "num_nodes", "cores_per_actor", "oversubscribe", "address", "timeout_s"),
    *("usd_per_hour", "keep_columns", "shard_seconds", "max_bad_rows"),
)
# What whole jobs of others need beside their names.
_PEERS = (*("peer_rows", "peer_env", "min_seconds", "peer_train", "label_column", "static_bundle"),)
_IDLE = (
    IdleRule(
        (
            *("bundle", "output", "engine", "instance_type", *CORPUS, *_ACTORS, "teacher", "shape"),
            *("parts", "peers", *_PEERS, "sample_rows", "repeats", "profile_out"),
        ),
        lambda options: options.from_json is not None,
        "--from-json measures nothing",
    ),
    IdleRule(
        (
            *("output", "engine", *CORPUS, *_ACTORS, "teacher", "parts", "peers", *_PEERS),
            *("sample_rows", "repeats", "plot"),
        ),
        measures_profile_alone,
        "without --bundle or --shape, --profile-out measures this machine alone",
    ),
    IdleRule(
        ("output",),
        lambda options: options.corpus is None or "job" not in options.parts,
        "the part job writes there, and it does not run; give CORPUS, and job in --parts",
    ),
    IdleRule(
        ("peers",),
        lambda options: not has_peers(options),
        "the part peers does not run; give CORPUS, and peers in --parts",
    ),
    IdleRule(
        _PEERS,
        lambda options: not has_peers(options),
        "no job of others runs; give CORPUS and --peers",
    ),
    IdleRule(
        ("peer_env",),
        lambda options: not _chosen(options, lambda name: JOB_BASELINES[name].environment),
        "no job of --peers needs an environment of its own",
    ),
    IdleRule(
        ("peer_train",),
        lambda options: not _chosen(options, lambda name: name == "fasttext"),
        "fasttext learns from it, which --peers leaves out",
    ),
    IdleRule(
        ("static_bundle",),
        lambda options: not _chosen(options, lambda name: name == "static-vectors"),
        "static-vectors is run on it, which --peers leaves out",
    ),
    IdleRule(
        (*CORPUS, "sample_rows"),
        lambda options: options.corpus is None,
        "without CORPUS none is read",
    ),
    IdleRule(
        _ACTORS, lambda options: not _whole_jobs(options), "no whole job runs that it is about"
    ),
    IdleRule(
        ("instance_type",),
        lambda options: not _whole_jobs(options) and options.profile_out is None,
        "no whole job runs, and no profile is written, that it is about",
    ),
    IdleRule(
        ("teacher",),
        lambda options: not _needs_teacher(options),
        "the part job runs the bundle alone",
    ),
    IdleRule(
        ("repeats",),
        lambda options: "engines" not in options.parts and not _whole_jobs(options),
        "the part operators is measured once",
    ),
    ACTORS,
    OWN_MACHINE,
)


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
    parser.add_argument("corpus", nargs="?", help="file, directory, glob or URI (none)")
    add_corpus_arguments(parser, needs_output=False, needs_bundle=False, text_pairs=False)
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--teacher",
        type=Path,
        metavar="DIR",
        help="Hugging Face checkpoint of the bundle, or org/name of the hub (none)",
    )
    measured.add_argument(
        "--shape",
        choices=tuple(SHAPES_BY_NAME),
        help="random weights of the paper's shape, in place of a bundle (none)",
    )
    measured.add_argument(
        "--parts",
        type=split_names,
        default=PARTS,
        metavar="A,B",
        help=f"parts to measure, of {','.join(PARTS)} (all)",
    )
    measured.add_argument(
        "--peers",
        type=split_names,
        default=(),
        metavar="A,B",
        help=f"whole jobs of others, of {','.join(JOB_BASELINES)}, or all (none: they are slow)",
    )
    _add_peer_arguments(parser.add_argument_group("whole jobs of others"))
    measured.add_argument(
        "--sample-rows", type=int, default=1000, metavar="ROWS", help="rows for engines (1000)"
    )
    measured.add_argument(
        "--repeats", type=int, default=3, help="how many times everything runs, in turns (3)"
    )
    measured.add_argument(
        "--profile-out",
        type=Path,
        metavar="FILE",
        help="measure this machine, too, for `fastformers cost --profile` elsewhere; by itself, "
        "with the built-in bundle, and nothing else (none)",
    )
    measured.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the whole jobs beside each other, as .svg or .png; needs CORPUS and --peers "
        "(none)",
    )
    measured.add_argument(
        "--from-json",
        type=Path,
        metavar="FILE",
        help="measure nothing: draw --plot from the last line of an earlier run, kept in FILE "
        "(none)",
    )
    return parser.parse_args(arguments)


def _add_peer_arguments(peers: "argparse._ArgumentGroup") -> None:
    peers.add_argument(
        "--min-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds that each run lasts at least: as many texts as that takes, of the lengths of "
        "all (60)",
    )
    peers.add_argument(
        "--peer-rows",
        type=int,
        default=300_000,
        metavar="ROWS",
        help="texts of CORPUS at most (300000)",
    )
    peers.add_argument(
        "--peer-env",
        type=Path,
        default=cache_directory("peers"),
        metavar="DIR",
        help="where the environments of others are made, by uv or venv, and kept (~/.cache)",
    )
    peers.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of CORPUS with the right labels: accuracy beside speed (none)",
    )
    peers.add_argument(
        "--peer-train",
        type=Path,
        metavar="FILE",
        help="labeled rows that fasttext learns from, with the columns of CORPUS (none)",
    )
    peers.add_argument(
        "--static-bundle",
        metavar="DIR",
        help="bundle of static vectors, made by compress --student-layers 0, or its URI (none)",
    )


def check(options: argparse.Namespace) -> None:
    """Refuse what could only fail after something was measured.

    Raises:
        InputError: Options are missing or contradict each other, or name nothing known.
        ModuleNotFoundError: `--plot` needs an extra that is not installed.
    """
    refuse_idle(options, _IDLE)
    if options.plot is not None:
        check_picture(options.plot, "--plot")
        check_writable(options.plot)
    if options.from_json is not None:
        _check_kept(options)
        return
    if options.profile_out is not None:
        check_writable(options.profile_out)
        options.own_type = find_whole_type(options.instance_type)
    if measures_profile_alone(options):
        return
    _check_known(options)
    if options.corpus is not None:
        refuse_idle_reading(options, formats_at(*resolve(options.corpus), options.corpus))
    if (options.bundle is None) == (options.shape is None):
        raise InputError("give --bundle, or --shape for random weights, and not both")
    if options.shape is not None and options.teacher is None:
        raise InputError(f"--shape {options.shape}: give --teacher, too, for its tokenizer")
    if options.peers and options.teacher is None:
        raise InputError("--peers: give --teacher, the checkpoint that the others run")
    if options.peer_train is not None and options.label_column is None:
        raise InputError(f"--peer-train {options.peer_train}: give --label-column, too")
    if options.output is not None and not open_directory(options.output).is_empty():
        raise InputError(f"--output {options.output}: not empty, so less would be measured")
    if options.output is not None:
        open_directory(options.output).check_writable()
    if options.teacher is not None:
        options.teacher = find_model(options.teacher).path
        if options.shape is None:
            check_model_directory(options.teacher)
    if options.engine != AUTO:
        check_installed(options.engine)
    if options.cores_per_actor is None:
        raise InputError("--cores-per-actor auto: engines and jobs share one split; give a number")
    if options.profile_out is not None and options.bundle is None:
        raise InputError("--profile-out: a profile is of a bundle; give --bundle for --shape")
    if options.plot is not None and not (
        options.corpus is not None and options.peers and "peers" in options.parts
    ):
        raise InputError(
            f"--plot {options.plot}: shows whole jobs beside each other; give CORPUS and --peers"
        )
    price_of(options)  # refused before anything is measured
    plan_actors(actor_settings(options))


def chosen_baselines(options: argparse.Namespace) -> list[BaselineName]:
    """The job baselines that `--peers` names."""
    return [name for name in JOB_BASELINES if {name, "all"} & set(options.peers)]


def _check_kept(options: argparse.Namespace) -> None:
    if options.plot is None:
        raise InputError("--from-json: give --plot, the picture to draw")
    if options.corpus is not None:
        raise InputError("--from-json measures nothing; leave CORPUS out")


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
    if not 0 < options.min_seconds < float("inf"):
        raise InputError(f"--min-seconds {options.min_seconds:g}: give more than 0")
