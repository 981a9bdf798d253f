"""Arguments that several commands share, and the settings that they become.

    command line -> [arguments] -> settings -> command

This module knows nothing of what a command does with them.
"""

import argparse
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastformers.cluster.execution.topology import discover_topology
from fastformers.cluster.pricing.machine_check import price_owned_part
from fastformers.cluster.pricing.prices import HourlyPrice, InstancePrice, choose_price, load_prices
from fastformers.cluster.settings import ActorSettings, CorpusSettings, ScoringSettings
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions, parse_storage_options
from fastformers.errors import InputError
from fastformers.formats.text_file_config import TextFileConfig
from fastformers.inference.cpu import read_machine
from fastformers.inference.engines import AUTO, ENGINE_OPTIONS, REFERENCE_ENGINE
from fastformers.jobs.console.flags import add_config_arguments, read_config


def add_corpus_arguments(
    parser: argparse.ArgumentParser,
    *,
    needs_output: bool = True,
    needs_bundle: bool = True,
    scores: bool = True,
    text_pairs: bool = True,
    gpus: bool = False,
) -> None:
    """Arguments that `prepare`, `score`, `scale` and `bench` share; some have no use for some."""
    places = parser.add_argument_group("model and output")
    places.add_argument(
        "--bundle",
        required=needs_bundle,
        help="directory of the bundle, or its URI in a bucket or on the hub, hf://org/name"
        + ("" if needs_bundle else " (none)"),
    )
    places.add_argument(
        "--output",
        required=needs_output,
        metavar="DIR",
        help="directory or URI to write to" + ("" if needs_output else " (a temporary directory)"),
    )
    corpus = parser.add_argument_group("corpus")
    leave_out = () if text_pairs else ("text_pair_column",)
    add_config_arguments(corpus, CorpusSettings, leave_out=leave_out)
    add_text_file_arguments(parser, CorpusSettings.text_files)
    actors = parser.add_argument_group("who does the work")
    if scores:
        actors.add_argument(
            "--cores-per-actor",
            type=_cores,
            default=1,
            metavar="N|auto",
            help="physical cores of each actor; auto measures which split is fastest (1)",
        )
        actors.add_argument(
            "--engine",
            choices=ENGINE_OPTIONS,
            default=REFERENCE_ENGINE,
            help=f"what runs the model on cores; {AUTO} measures which is fastest (%(default)s)",
        )
    else:
        actors.add_argument(
            "--cores-per-actor", type=int, default=1, help="physical cores of each actor (1)"
        )
    if gpus:
        leave_out = () if scores else ("precision",)
        add_config_arguments(actors, ScoringSettings, leave_out=leave_out)
    leave_out = () if gpus and scores else ("actors_per_gpu",)
    add_config_arguments(actors, ActorSettings, leave_out=leave_out)
    add_price_arguments(parser, machine="one machine")


def add_text_file_arguments(parser: argparse.ArgumentParser, config: TextFileConfig) -> None:
    """Flags that say how text files are written."""
    add_config_arguments(parser.add_argument_group("text files"), config)


def add_storage_arguments(parser: argparse.ArgumentParser) -> None:
    """The flag that says how to reach a bucket."""
    parser.add_argument_group("buckets").add_argument(
        "--storage-options",
        type=_storage_options,
        default=NO_OPTIONS,
        metavar="JSON|@FILE",
        help="how to reach buckets, as a JSON object or a file of one (the environment)",
    )


def add_price_arguments(parser: argparse.ArgumentParser, *, machine: str) -> None:
    """Flags of the price of a machine."""
    price = parser.add_argument_group("price")
    price.add_argument(
        "--usd-per-hour",
        type=float,
        metavar="USD",
        help=f"price of {machine} (that of its type in the built-in table, else an estimate)",
    )
    price.add_argument(
        "--instance-type",
        metavar="NAME",
        help="take the price from the built-in table (the type that the machine's cloud names)",
    )


def corpus_settings(options: argparse.Namespace) -> CorpusSettings:
    """What to read, from the command line."""
    return read_config(CorpusSettings, options)


def actor_settings(options: argparse.Namespace) -> ActorSettings:
    """Who works, from the command line."""
    return read_config(ActorSettings, options, cores_per_actor=options.cores_per_actor)


def scoring_settings(options: argparse.Namespace) -> ScoringSettings:
    """What scores, from the command line."""
    return read_config(ScoringSettings, options)


def price_of(options: argparse.Namespace) -> HourlyPrice:
    """Price of this machine, or of the part of it that may be used, by the flags or the table."""
    num_cores = discover_topology().num_usable_cores
    price = choose_price(
        usd_per_hour=options.usd_per_hour,
        instance_type=options.instance_type,
        num_cores=num_cores,
        prices=built_in_prices(),
    )
    if price.instance_type is None:
        return price
    own = built_in_prices()[price.instance_type]
    return price_owned_part(own, num_cores=num_cores, seen=read_machine())


@cache
def built_in_prices() -> dict[str, InstancePrice]:
    """The price table of this version; a process reads it once."""
    return load_prices()


def _storage_options(given: str | Mapping[str, Any]) -> StorageOptions:
    try:
        return parse_storage_options(given) if isinstance(given, str) else StorageOptions(given)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _cores(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None
