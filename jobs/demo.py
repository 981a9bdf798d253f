"""Score real text with the bundle that ships with the package: no network, no torch, a minute.

fastformers demo

The text is the docstrings of the Python standard library and of installed packages; the model
says which library each comes from. Lengths spread widely and texts repeat, as in real corpora.
Accuracy is measured on files whose docstrings the model was not trained on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from fastformers.cluster.execution.job import open_score_job
from fastformers.cluster.settings import ActorSettings, CorpusSettings
from fastformers.data.demo_corpus import collect_docstrings, write_docstrings
from fastformers.inference.bundle import DEMO_BUNDLE
from fastformers.jobs.console.arguments import add_price_arguments, price_of
from fastformers.jobs.console.command_line.idle_flags import IdleRule, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import execute_and_show, plan_actors
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting

_IDLE = (
    IdleRule(
        (
            *("output", "limit", "num_actors", "write_corpus", "usd_per_hour", "instance_type"),
            *("json", "quiet", "verbose", "log_level"),
        ),
        lambda options: options.print_bundle,
        "--print-bundle prints a path and stops",
    ),
    IdleRule(
        ("output", "limit", "num_actors", "usd_per_hour", "instance_type"),
        lambda options: options.write_corpus is not None,
        "--write-corpus scores nothing",
    ),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers demo`."""
    parser = CommandParser(
        prog="fastformers demo",
        description=__doc__,
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("demo-output"),
        help="directory of the docstrings and their predictions (%(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="ROWS", help="only the first docstrings (all)")
    parser.add_argument(
        "--num-actors", type=int, help="number of actors (as many as there are cores)"
    )
    parser.add_argument(
        "--print-bundle", action="store_true", help="print where the demo's bundle is, and stop"
    )
    parser.add_argument(
        "--write-corpus",
        type=Path,
        metavar="DIR",
        help="write train.parquet and heldout.parquet, which the bundle is made from, and stop "
        "(none)",
    )
    add_price_arguments(parser, machine="this machine")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers demo`."""
    options = parse(arguments)
    if options.print_bundle and not options.given.keys() - {"print_bundle", "config"}:
        print(DEMO_BUNDLE)
        return 0
    return run(lambda: _demo(options), options, resume="Run the same command again to go on.")


def _demo(options: argparse.Namespace) -> dict[str, Any]:
    refuse_idle(options, _IDLE)
    if options.write_corpus is not None:
        return _write_training_files(options.write_corpus)
    settings = CorpusSettings(keep_columns=("name", "library", "heldout"), limit=options.limit)
    actors, price = ActorSettings(num_actors=options.num_actors), price_of(options)
    plan_actors(actors)
    corpus = options.output / "docstrings.parquet"
    if not corpus.exists():
        options.output.mkdir(parents=True, exist_ok=True)
        with waiting("collecting docstrings of the installed packages"):
            write_docstrings(corpus)
    demo_job = open_score_job(
        str(corpus),
        DEMO_BUNDLE,
        str(options.output / "scored"),
        settings,
        max_batch_tokens=None,
    )
    report = execute_and_show(demo_job, actors, price)
    accuracy, num_heldout = _accuracy(options.output / "scored" / "predictions")
    console.print(
        f"accuracy {100 * accuracy:.2f}% on {num_heldout:,} docstrings of files not trained on; "
        f"predictions are in {options.output / 'scored' / 'predictions'}"
    )
    return {
        **report.summarize(),
        "accuracy": accuracy,
        "heldout_rows": num_heldout,
    }


def _write_training_files(directory: Path) -> dict[str, Any]:
    """Split the docstrings into what the demo's bundle is trained on and what it is judged on."""
    table = collect_docstrings()
    directory.mkdir(parents=True, exist_ok=True)
    heldout = table["heldout"]
    parts = {"train": table.filter(pc.invert(heldout)), "heldout": table.filter(heldout)}
    for name, part in parts.items():
        pyarrow.parquet.write_table(part, directory / f"{name}.parquet")
    return {"corpus": str(directory), **{name: part.num_rows for name, part in parts.items()}}


def _accuracy(predictions: Path) -> tuple[float, int]:
    """Share of held-out rows whose predicted library is the true one, and how many they are."""
    table = pyarrow.dataset.dataset(predictions).to_table()
    heldout = table.filter(table["heldout"])
    correct = pc.equal(heldout["label"], heldout["library"]).fill_null(False)
    return pc.mean(correct).as_py() or 0.0, heldout.num_rows


if __name__ == "__main__":
    sys.exit(main())
