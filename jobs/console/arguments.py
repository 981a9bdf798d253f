"""Arguments that several commands share, and the settings that they become."""

import argparse
from pathlib import Path

from cluster.execution.topology import discover_topology
from cluster.pricing.prices import HourlyPrice, choose_price, load_prices
from cluster.settings import ActorSettings, CorpusSettings
from fastformers.data.examples import Columns


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
    from fastformers.data.examples import Columns

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


def add_corpus_arguments(
    parser: argparse.ArgumentParser,
    *,
    needs_output: bool = True,
    needs_bundle: bool = True,
    scores: bool = True,
) -> None:
    """Arguments that `prepare`, `score` and `bench` share."""
    parser.add_argument(
        "--bundle", type=Path, required=needs_bundle, help="directory of the bundle"
    )
    parser.add_argument("--output", required=needs_output, help="directory or URI to write to")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--text-pair-column", help="second text, where the bundle reads pairs")
    parser.add_argument(
        "--keep-columns", type=columns, default=(), metavar="A,B", help="passed to the predictions"
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="only the first rows")
    parser.add_argument(
        "--shard-seconds", type=float, help="predicted core-seconds a shard (by corpus size, 2-20)"
    )
    parser.add_argument(
        "--skip-unreadable-files",
        action="store_true",
        help="leave out files that cannot be opened, and go on",
    )
    parser.add_argument("--num-actors", type=int, help="over all nodes (as many as fit)")
    parser.add_argument(
        "--cores-per-actor",
        type=_cores,
        default=1,
        metavar="N|auto",
        help="physical cores each actor owns (1); auto measures which split is fastest",
    )
    if scores:
        parser.add_argument(
            "--engine",
            choices=("onnxruntime", "openvino", "auto"),
            default="onnxruntime",
            help="what runs the model (onnxruntime); auto measures which is faster",
        )
    parser.add_argument("--oversubscribe", action="store_true", help="let actors share cores")
    parser.add_argument("--address", help="of a Ray cluster (RAY_ADDRESS, or a local one)")
    parser.add_argument(
        "--timeout-s",
        type=float,
        help="limit for a shard (30 times its prediction, at least 300)",
    )
    parser.add_argument("--usd-per-hour", type=float, help="price of one machine")
    parser.add_argument("--instance-type", help="take the price from the built-in table")


def corpus_settings(options: argparse.Namespace) -> CorpusSettings:
    """What to read, from the command line."""
    return CorpusSettings(
        text_column=options.text_column,
        text_pair_column=options.text_pair_column,
        keep_columns=options.keep_columns,
        limit=options.limit,
        shard_seconds=options.shard_seconds,
        skip_unreadable_files=options.skip_unreadable_files,
    )


def actor_settings(options: argparse.Namespace) -> ActorSettings:
    """Who works, from the command line."""
    return ActorSettings(
        num_actors=options.num_actors,
        cores_per_actor=options.cores_per_actor,
        oversubscribe=options.oversubscribe,
        address=options.address,
        timeout_s=options.timeout_s,
    )


def price_of(options: argparse.Namespace) -> HourlyPrice:
    """Price of a machine, from the command line or the table."""
    return choose_price(
        usd_per_hour=options.usd_per_hour,
        instance_type=options.instance_type,
        num_cores=discover_topology().num_usable_cores,
        prices=load_prices(),
    )


def _cores(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None
