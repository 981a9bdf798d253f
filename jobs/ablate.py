"""Measure the paper's Table 3, or a row of its Table 4, for your own model, data and machine.

fastformers ablate --teacher DIR --student DIR --bundle DIR --bundle PRUNED --eval FILE --output DIR
fastformers ablate --shapes-only bert-base --output DIR
fastformers ablate --paper-table 4 --teacher DIR --bundle DIR --eval FILE --output DIR

Each step adds one optimization: PyTorch padded to the maximum, unpadded, the distilled student,
the first --bundle (one instance on all cores, then one for each core), then each further --bundle.
With --shapes-only the paper's models run on random weights: speed only; the lengths are those of
--eval, or BoolQ's. --keep-tokens then adds what the paper lacks, layers that drop tokens.

With --paper-table 4 one bundle as a whole is held against the model that it was made from, out of
the box: accuracy, speed-up from texts to logits, and electricity. It is for every task.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fastformers.ablation.measure import Ablation, StepResult, measure_ablation
from fastformers.ablation.plot import draw_ablation
from fastformers.ablation.report import (
    CLOCK,
    COLUMNS,
    ERROR,
    is_scaled,
    numbered_cells,
    numbered_notes,
    render_markdown,
)
from fastformers.ablation.shapes import ABLATION_SHAPES, AblationShapes
from fastformers.ablation.summary import Conditions, summarize
from fastformers.ablation.system import SYSTEM_FILE, describe_system
from fastformers.ablation.texts import TextsConfig, load_texts
from fastformers.atomic_file import check_writable, whole_file
from fastformers.cluster.execution.topology import HostTopology, discover_topology, plan_core_sets
from fastformers.cluster.pricing.prices import HourlyPrice
from fastformers.compression.token_config import AUTO, TokenConfig
from fastformers.digest import versions_of
from fastformers.errors import InputError
from fastformers.figure import require_drawing
from fastformers.files.hub import find_model
from fastformers.inference.bundle import DEMO_BUNDLE, open_bundle
from fastformers.inference.cascade.record import check_one_graph
from fastformers.jobs.console.arguments import (
    add_price_arguments,
    add_text_file_arguments,
    price_of,
)
from fastformers.jobs.console.command_line.idle_flags import (
    SUPERGLUE,
    TEXT_FILES,
    IdleRule,
    refuse_idle,
    refuse_idle_labeled,
)
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import show_progress, waiting
from fastformers.models.model_files import check_model_directory

_LINE_EVERY_S = 10.0  # between lines of progress, while the clock runs
# Runnable processes for each core, over the last minute, above which a machine counts as busy.
_BUSY_SHARE = 0.5


def _is_table_4(options: argparse.Namespace) -> bool:
    return bool(options.paper_table == 4)


_IDLE = (
    SUPERGLUE,
    IdleRule(
        ("student", "shapes_only", "keep_tokens", "tokenizer", "max_length"),
        _is_table_4,
        "--paper-table 4 has the model and the bundle alone, which says how texts are cut",
    ),
    IdleRule(("usd_per_hour", "instance_type"), _is_table_4, "--paper-table 4 has no price"),
    IdleRule(
        ("tokenizer",),
        lambda options: options.shapes_only is None,
        "models bring their own; it is for --shapes-only",
    ),
    IdleRule(
        ("keep_tokens",),
        lambda options: options.shapes_only is None,
        "models are as they were made; it is for --shapes-only (compress has it, too)",
    ),
    IdleRule(
        ("tokenizer",),
        lambda options: options.eval is None,
        "it reads the texts of --eval; give that, too",
    ),
    IdleRule(
        (
            *("text_column", "text_pair_column", "choice_columns", "label_column", "superglue"),
            *("label_map", *TEXT_FILES),
        ),
        lambda options: options.eval is None,
        "without --eval no file is read",
    ),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers ablate`."""
    parser = CommandParser(prog="fastformers ablate", description=__doc__)
    models = parser.add_argument_group("models and output")
    models.add_argument(
        "--teacher",
        type=Path,
        metavar="DIR",
        help="Hugging Face model directory, or org/name of the hub (none)",
    )
    models.add_argument(
        "--student",
        type=Path,
        metavar="DIR",
        help="distilled Hugging Face model directory, or org/name of the hub (none)",
    )
    models.add_argument(
        "--bundle",
        type=Path,
        action="append",
        default=[],
        dest="bundles",
        metavar="DIR",
        help="bundle of the unpruned student; again for each further step, such as a pruned one "
        "(none)",
    )
    models.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory for table and plot"
    )
    models.add_argument(
        "--paper-table",
        type=int,
        choices=(3, 4),
        default=3,
        help="3: each optimization by itself; 4: a bundle as a whole against the teacher out of "
        "the box, with electricity (3)",
    )
    models.add_argument(
        "--shapes-only",
        choices=ABLATION_SHAPES,
        help="in place of models, the paper's own shapes on random weights: speed only (none)",
    )
    models.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json that gives --shapes-only the lengths of --eval (the demo bundle's)",
    )
    models.add_argument(
        "--keep-tokens",
        action="append",
        default=[],
        metavar="SHARE,SHARE",
        help="share (above 0, to 1) of the tokens entering a layer that leave it, layer by layer "
        "from the first on: with --shapes-only a further step, the pruned student with these; "
        "again for another (none)",
    )
    texts = parser.add_argument_group("texts")
    add_config_arguments(texts, TextsConfig)
    texts.add_argument(
        "--repeats", type=int, default=3, help="runs of each step; the median counts (3)"
    )
    add_config_arguments(parser.add_argument_group("labeled files"), TextsConfig.columns)
    add_text_file_arguments(parser, TextsConfig.columns.text_files)
    add_price_arguments(parser, machine="this machine")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers ablate`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        if _is_table_4(options):
            return _measure_system(options)
        with tempfile.TemporaryDirectory(prefix="fastformers-ablate-") as scratch:
            return _ablate(options, Path(scratch))

    return run(job, options, resume="Nothing was written.", measures=True)


def _ablate(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    require_drawing()  # a missing extra shows now, not after the measurement
    _check(options)
    price, topology = price_of(options), discover_topology()
    load = _measure_load(topology)
    core_sets = plan_core_sets(topology, num_actors=None, cores_per_actor=1)
    ablation = _build(options, [core_set.cpus for core_set in core_sets], scratch)
    with show_progress(line_every_s=_LINE_EVERY_S, is_live=False) as on_progress:
        results = measure_ablation(
            ablation,
            usd_per_hour=price.usd_per_hour,
            repeats=options.repeats,
            on_progress=on_progress,
            on_result=_show_result,
        )
    conditions = _conditions(topology, price, repeats=options.repeats, load_before=load)
    summary = summarize(results, ablation, conditions)
    console.print(_table(results, summary.description))
    notes = [*numbered_notes(results), summary.headline, CLOCK]
    if is_scaled(results):
        notes.append(ERROR)
    console.print("\n".join([*notes, str(summary.texts), str(summary.conditions)]))
    content = summary.to_json()
    options.output.mkdir(parents=True, exist_ok=True)
    files = {
        "table.md": render_markdown(summary),
        "ablate.json": json.dumps(content, indent=2) + "\n",
    }
    for name, text in files.items():
        with whole_file(options.output / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    plots = [options.output / f"ablate.{suffix}" for suffix in ("png", "svg")]
    draw_ablation(results, plots, title=f"{summary.description}: {summary.headline}")
    console.print(f"table and plot are in {options.output}")
    return content


def _measure_system(options: argparse.Namespace) -> dict[str, Any]:
    """A row of Table 4."""
    _check(options)
    if len(options.bundles) != 1:
        raise InputError(
            f"--paper-table 4 is of one --bundle, not {len(options.bundles)}; run it for each"
        )
    topology = discover_topology()
    load = _measure_load(topology)
    core_sets = plan_core_sets(topology, num_actors=None, cores_per_actor=1)
    config = read_config(TextsConfig, options)
    with waiting("reading the texts"):
        texts = load_texts(config)
    with waiting("loading PyTorch") as on_step:
        from fastformers.ablation.whole_system import measure_systems, open_systems

        on_step("loading the models")
        systems = open_systems(
            texts,
            teacher_path=options.teacher,
            bundle_path=options.bundles[0],
            cpus_of_instance=[core_set.cpus for core_set in core_sets],
        )
    with show_progress(line_every_s=_LINE_EVERY_S) as on_progress:
        row = measure_systems(
            systems,
            config,
            _conditions(topology, price_of(options), repeats=options.repeats, load_before=load),
            task=options.superglue or options.eval.stem,
            teacher=find_model(options.teacher).name,
            on_progress=on_progress,
        )
    console.print("\n".join(describe_system(row)))
    options.output.mkdir(parents=True, exist_ok=True)
    with whole_file(options.output / SYSTEM_FILE) as unfinished:
        unfinished.write_text(json.dumps(row.to_json(), indent=2) + "\n", encoding="utf-8")
    return row.to_json()


def _measure_load(topology: HostTopology) -> float:
    """Runnable processes over the last minute; warns where other work would spoil the times."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY_SHARE * topology.num_usable_cores:
        console.print(
            f"warning: load {load:.1f} on {topology.num_usable_cores} cores: other work runs here, "
            "so the times below cannot be trusted"
        )
    return load


def _check(options: argparse.Namespace) -> None:
    refuse_idle(options, _IDLE)
    if options.repeats < 1:
        raise InputError(f"--repeats {options.repeats}: give at least 1")
    if options.shapes_only is None:
        if options.teacher is None:
            known = " or ".join(ABLATION_SHAPES)
            raise InputError(f"--teacher is missing; give it, or --shapes-only {known}")
    else:
        models = (options.teacher, options.student, *options.bundles)
        if any(model is not None for model in models):
            raise InputError(
                "--shapes-only has models of its own; leave out --teacher, --student and --bundle"
            )
        _shapes(options)
    if options.eval is not None:
        refuse_idle_labeled(options, options.eval)
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"--output {options.output}: is not a directory; choose another")
    check_writable(options.output / "ablate.json")
    for name in ("teacher", "student"):
        if (model := getattr(options, name)) is not None:
            found = find_model(model).path
            check_model_directory(found)
            setattr(options, name, found)
    for bundle in options.bundles:
        check_one_graph(open_bundle(bundle), "a step is", "a bundle of one graph")


def _shapes(options: argparse.Namespace) -> AblationShapes:
    """The shapes that were named, with a further step for each --keep-tokens.

    Raises:
        InputError: A share is none, or there are more than layers.
    """
    shapes = ABLATION_SHAPES[options.shapes_only]
    for given in options.keep_tokens:
        tokens = TokenConfig(keep_tokens=(given,))
        if AUTO in tokens.keep_tokens:
            raise InputError(f"--keep-tokens {AUTO}: is for compress; give shares")
        shapes = shapes.keep_tokens(tokens.shares)
    return shapes


def _build(
    options: argparse.Namespace, cpus_of_instance: Sequence[tuple[int, ...]], scratch: Path
) -> Ablation:
    config = read_config(TextsConfig, options)
    texts = None
    if options.shapes_only is None or config.eval is not None:
        with waiting("reading the texts"):
            texts = load_texts(config)
    if options.shapes_only is None:
        assert texts is not None
        with waiting("loading PyTorch"):
            from fastformers.ablation.from_models import build_ablation

        with show_progress() as on_progress, waiting("loading the models"):
            return build_ablation(
                config,
                texts,
                teacher_path=options.teacher,
                student_path=options.student,
                bundle_paths=options.bundles,
                cpus_of_instance=cpus_of_instance,
                on_progress=on_progress,
            )
    with waiting("loading PyTorch") as on_step:
        from fastformers.ablation.from_shapes import build_shape_ablation

        on_step("making models with random weights")
        return build_shape_ablation(
            _shapes(options),
            config,
            texts,
            tokenizer=options.tokenizer or DEMO_BUNDLE / "tokenizer.json",
            cpus_of_instance=cpus_of_instance,
            scratch=scratch,
        )


def _show_result(result: StepResult) -> None:
    accuracy = "" if result.accuracy is None else f", accuracy {100 * result.accuracy:.2f}"
    console.print(f"{result.name}: {result.seconds:,.2f} s, {result.cumulative:,.2f}x{accuracy}")


def _table(results: Sequence[StepResult], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(COLUMNS[0])
    for column in COLUMNS[1:]:
        table.add_column(column, justify="right")
    for name, *rest in numbered_cells(results):
        table.add_row(name, *rest)
    return table


def _conditions(
    topology: HostTopology, price: HourlyPrice, *, repeats: int, load_before: float
) -> Conditions:
    return Conditions(
        cpu_model=topology.cpu_model,
        num_cores=topology.num_usable_cores,
        usd_per_hour=price.usd_per_hour,
        price=str(price),
        price_is_estimate=price.is_estimate,
        versions=versions_of(("torch", "transformers", "onnxruntime")),
        measured_at=time.strftime("%Y-%m-%d"),
        repeats=repeats,
        load_before=load_before,
    )


if __name__ == "__main__":
    sys.exit(main())
