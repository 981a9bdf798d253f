"""Cut a corpus into length-sorted shards of token ids, for any bundle with the same tokenizer.

fastformers prepare CORPUS --bundle BUNDLE --output SHARDS
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

# `ray submit` copies this file alone to the head.
if getattr(find_spec("fastformers"), "origin", None) is None:
    print(
        f"error: fastformers is not installed for {sys.executable}; start the cluster from the "
        "files of fastformers launch, or install its wheel on every node",
        file=sys.stderr,
    )
    sys.exit(2)

from fastformers.cluster.execution.job import open_prepare_job
from fastformers.cluster.nodes.addresses import check_address, check_output
from fastformers.cluster.report.tables import describe_unfit
from fastformers.jobs.console.arguments import (
    actor_settings,
    add_corpus_arguments,
    add_storage_arguments,
    corpus_settings,
    price_of,
    scoring_settings,
)
from fastformers.jobs.console.command_line.idle_flags import (
    ACTORS,
    OWN_MACHINE,
    STORAGE,
    refuse_idle,
    refuse_idle_reading,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.execute import execute, find_finished
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers prepare`."""
    parser = CommandParser(
        prog="fastformers prepare",
        description=__doc__,
    )
    parser.add_argument("corpus", help="file, directory, glob or URI")
    add_corpus_arguments(parser, scores=False, gpus=True)
    add_storage_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers prepare`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE, ACTORS, OWN_MACHINE))
        check_output(options.output, os.environ)
        check_address(options.address, os.environ)
        price, actors, settings = (
            price_of(options),
            actor_settings(options),
            corpus_settings(options),
        )
        with waiting("checking the settings") as on_step:
            prepare_job = open_prepare_job(
                options.corpus,
                options.bundle,
                options.output,
                settings,
                for_gpus=scoring_settings(options).uses_gpus,
                storage=options.storage_options,
                asked=options.settings,
                on_step=on_step,
            )
        assert prepare_job.corpus is not None
        refuse_idle_reading(options, {type(prepare_job.corpus.reader)})
        report = find_finished(prepare_job) or execute(prepare_job, actors, price)
        console.print(
            f"{report.rows:,} rows, {report.tokens:,} tokens in {report.shards} shards "
            f"under {report.output} after {report.wall_s:.1f} s"
        )
        if report.unfit_values:
            console.print(f"kept columns: {describe_unfit(report.unfit_values)}")
        return report.summarize_preparation()

    return run(
        job, options, resume="Finished slices are kept: run the same command again to go on."
    )


if __name__ == "__main__":
    sys.exit(main())
