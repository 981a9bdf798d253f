"""Show what a bundle is, how good it proved to be and how fast it is here, and check all of it.

fastformers inspect BUNDLE

Every file is compared with its SHA-256, the tokenizer and the graph are opened, and texts are
scored on one core. BUNDLE is a directory, a URI in a bucket, or hf://org/name of the hub.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import BundleError
from fastformers.files.hub import parse_hub_uri
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.cascade.record import describe, graphs_by_share, summarize
from fastformers.inference.cost_profile import measure_speeds
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.description.further_graph import graphs_of, qualities_of
from fastformers.inference.description.model_card import render_interval, render_value
from fastformers.inference.manifest import MANIFEST_FILE
from fastformers.inference.scorer import Scorer
from fastformers.jobs.console.arguments import add_storage_arguments
from fastformers.jobs.console.command_line.idle_flags import STORAGE, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting

_SPEED_LIMIT_S = 10.0
_TEXTS = ("A short text.", "Another one, which is a little longer than the first.")
_SHOWN_LABELS = 20


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers inspect`."""
    parser = CommandParser(
        prog="fastformers inspect",
        description=__doc__,
    )
    parser.add_argument(
        "bundle", help="directory of the bundle, or its URI in a bucket or on the hub (hf://)"
    )
    add_storage_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers inspect`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE,))
        bundle = _open(options)
        graphs = [graph for graph, _ in graphs_by_share(bundle)]
        speeds = [_check_and_measure(graph) for graph in graphs]
        console.print(_table_of_facts(bundle))
        if bundle.stages:
            console.print(_table_of_stages(bundle))
        for graph, own in zip(graphs, speeds, strict=True):
            console.print(_table_of_speeds(graph, own))
        console.print("checked: manifest, SHA-256 of each file, tokenizer, graph, a prediction")
        return _describe(bundle, graphs, speeds)

    return run(job, options)


def _open(options: argparse.Namespace) -> Bundle:
    """The bundle, verified; one in a bucket is fetched into the cache."""
    if parse_hub_uri(options.bundle) is not None:
        return open_bundle(options.bundle)
    directory = open_directory(options.bundle, options.storage_options)
    if directory.is_local:
        return open_bundle(directory.path, source=options.bundle)
    return pin_bundle(options.bundle, options.storage_options).open()


def _check_and_measure(graph: Bundle) -> dict[int, float]:
    """Score two texts by a bundle of one graph; then seconds of a row here, by length.

    Raises:
        BundleError: The tokenizer or the graph cannot be used, or gives no finite number.
    """
    scorer = Scorer(graph)
    texts = [(text, text) for text in _TEXTS] if graph.text_pairs else list(_TEXTS)
    errors = scorer.score(texts).errors
    if errors:
        reason = next(iter(errors.values()))
        raise BundleError(f"{graph}: cannot score a text: {reason}; make the bundle again")
    with waiting("measuring the speed of one core"):
        return measure_speeds(scorer.engine, graph.cost_profile, limit_s=_SPEED_LIMIT_S)


def _table_of_facts(bundle: Bundle) -> Table:
    table = Table(title=f"Bundle {bundle}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    labels = ", ".join(bundle.labels[:_SHOWN_LABELS])
    more = len(bundle.labels) - _SHOWN_LABELS
    facts = {
        "task": f"{bundle.task}, of {'pairs of texts' if bundle.text_pairs else 'single texts'}",
        "labels": f"{labels} and {more} more" if more > 0 else labels,
        "outputs": f"{bundle.num_outputs:,}",
        "precision": ", ".join(graphs_of(bundle)),
        "cascade": "" if bundle.cascade is None else describe(bundle.cascade),
        "size": f"{sum(_sizes(bundle).values()) / 1e6:.1f} MB",
        "layers": _count(bundle.num_layers),
        "width": _count(bundle.width),
        "multiply-adds of a token": _count(bundle.multiply_adds_per_token),
        "max length": f"{bundle.max_length:,} tokens",
        "inputs": f"{', '.join(bundle.input_names)}; no attention mask, no padding",
        "digest": bundle.digest,
    }
    origin = bundle.provenance.items()
    facts |= {name.replace("_", " "): render_value(value) for name, value in origin}
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    return table


def _table_of_stages(bundle: Bundle) -> Table:
    table = Table(title="Quality", title_justify="left")
    table.add_column("stage", no_wrap=True)
    others = list(bundle.stages[0].other_metrics)
    columns = (bundle.metric, "95% interval", *others, "agreement", "n", "model MB")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=column == "95% interval")
    for stage in qualities_of(bundle):
        table.add_row(
            stage.stage,
            f"{100 * stage.quality:.2f}",
            render_interval(stage),
            *(f"{100 * stage.other_metrics[name]:.2f}" for name in others),
            f"{100 * stage.agreement:.2f}%",
            f"{stage.num_rows:,}",
            f"{stage.model_bytes / 1e6:.1f}",
        )
    return table


def _table_of_speeds(graph: Bundle, speeds: dict[int, float]) -> Table:
    """Speed of one core here, beside that of one core where the bundle was made."""
    profile = graph.cost_profile
    table = Table(
        title=f"Speed of one core, {graph.model_file}: {read_cpu_model()}", title_justify="left"
    )
    table.add_column("tokens of a row", justify="right")
    for column in ("rows/s here", "tokens/s here", f"rows/s on {profile.cpu_model}"):
        table.add_column(column, justify="right")
    made = dict(zip(profile.lengths, profile.seconds_per_row, strict=True))
    for length, seconds in speeds.items():
        table.add_row(
            f"{length:,}",
            f"{1 / seconds:,.0f}",
            f"{length / seconds:,.0f}",
            f"{1 / made[length]:,.0f}",
        )
    return table


def _describe(
    bundle: Bundle, graphs: Sequence[Bundle], speeds: Sequence[dict[int, float]]
) -> dict[str, Any]:
    profile, sizes = bundle.cost_profile, _sizes(bundle)
    first, *second = [_describe_speeds(*pair) for pair in zip(graphs, speeds, strict=True)]
    return {
        "bundle": str(bundle),
        "digest": bundle.digest,
        "manifest_digest": bundle.manifest_digest,
        "task": bundle.task.name,
        "labels": list(bundle.labels),
        "num_outputs": bundle.num_outputs,
        "max_length": bundle.max_length,
        "text_pairs": bundle.text_pairs,
        "input_names": list(bundle.input_names),
        "precision": bundle.precision,
        "precisions": list(graphs_of(bundle)),
        "num_layers": bundle.num_layers,
        "width": bundle.width,
        "multiply_adds_per_token": bundle.multiply_adds_per_token,
        "bytes": sum(sizes.values()),
        "files": {
            name: {"bytes": sizes[name], "sha256": digest} for name, digest in bundle.files.items()
        },
        "metric": bundle.metric,
        "stages": [{**vars(stage), "interval": stage.interval} for stage in qualities_of(bundle)],
        "provenance": bundle.provenance,
        "max_batch_tokens": profile.max_batch_tokens,
        "cpu_model": read_cpu_model(),
        **first,
        "profile_cpu_model": profile.cpu_model,
        "cascade": None if bundle.cascade is None else {**summarize(bundle.cascade), **second[0]},
    }


def _describe_speeds(graph: Bundle, speeds: dict[int, float]) -> dict[str, Any]:
    """Rows per second of one graph by length, here and where the bundle was made."""
    profile = graph.cost_profile
    return {
        "rows_per_second": {length: 1 / seconds for length, seconds in speeds.items()},
        "profile_rows_per_second": {
            length: 1 / seconds
            for length, seconds in zip(profile.lengths, profile.seconds_per_row, strict=True)
        },
    }


def _sizes(bundle: Bundle) -> dict[str, int]:
    """Bytes of each file that the bundle needs."""
    return {name: (bundle.path / name).stat().st_size for name in (MANIFEST_FILE, *bundle.files)}


def _count(number: int | None) -> str:
    return "not known: an older version made it" if number is None else f"{number:,}"


if __name__ == "__main__":
    sys.exit(main())
