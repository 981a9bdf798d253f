"""Compress a fine-tuned model into a bundle, with its quality after every stage.

One recipe, as flags say; without any, int8 of the teacher itself:
    fastformers compress --teacher DIR --train train.parquet --eval validation.parquet \\
        --output BUNDLE --student-layers 4 --prune-heads 0.33 --prune-ffn 0.5

By intent: search for the cheapest recipe that loses no more than a point of accuracy:
    fastformers compress --teacher DIR --train train.parquet --eval validation.parquet \\
        --output BUNDLE --max-accuracy-drop 1.0
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cluster.pricing.prices import HourlyPrice, choose_price, load_prices, usd_of
from cluster.report.downsample import pick_frontier
from cluster.report.page import can_draw, render_search_page
from cluster.report.plots import FrontierPoint
from jobs.console.arguments import add_example_arguments, labelled_columns
from jobs.console.output import console, run
from jobs.console.progress import show_progress

if TYPE_CHECKING:
    from fastformers.compression.compress import CompressConfig, Compressed
    from fastformers.compression.recipe_config import RecipeConfig
    from fastformers.compression.search import RecipeCandidate
    from fastformers.inference.bundle import StageQuality


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers compress`."""
    parser = argparse.ArgumentParser(
        prog="fastformers compress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--teacher",
        type=Path,
        required=True,
        help="Hugging Face or sentence-transformers directory",
    )
    files.add_argument("--train", type=Path, required=True, help="labelled file to learn from")
    files.add_argument("--eval", type=Path, required=True, help="labelled file, for the gate")
    files.add_argument("--output", type=Path, required=True, help="directory of the bundle")
    files.add_argument("--work", type=Path, help="keep what stages make here, for other runs")
    files.add_argument("--transfer", type=Path, help="file of more texts to distill on, unlabelled")
    add_example_arguments(files)
    files.add_argument("--max-length", type=int, help="tokens to truncate to (teacher's limit)")
    files.add_argument("--eval-limit", type=int, metavar="ROWS", help="evaluate on fewer rows")
    files.add_argument(
        "--max-accuracy-drop",
        type=float,
        metavar="POINTS",
        help="what may be lost of 100 x the task's metric (1.0); given without a student, pruning "
        "or precision, search for the cheapest recipe that loses no more",
    )
    student = parser.add_argument_group("student")
    student.add_argument("--student", type=Path, help="checkpoint to distill into")
    student.add_argument("--student-layers", type=int, help="cut the student from so many layers")
    student.add_argument("--student-width", type=int, help="and from so many hidden dimensions")
    student.add_argument("--keep-gelu", action="store_true", help="do not change GELU into ReLU")
    distill = parser.add_argument_group("distillation")
    distill.add_argument("--epochs", type=float, default=3.0)
    distill.add_argument("--learning-rate", type=float, default=8e-5)
    distill.add_argument("--batch-rows", type=int, default=32)
    distill.add_argument("--temperature", type=float, default=2.0)
    distill.add_argument(
        "--hard-weight", type=float, default=0.5, help="share of the loss on labels (0.5)"
    )
    distill.add_argument(
        "--hidden-weight",
        type=float,
        default=10.0,
        help="weight of hidden states (10); 0 keeps no file of the teacher's",
    )
    distill.add_argument(
        "--attention-weight", type=float, default=0.0, help="weight of attention (0)"
    )
    distill.add_argument("--seed", type=int, default=0)
    prune = parser.add_argument_group("pruning")
    prune.add_argument("--prune-heads", type=float, default=0.0, metavar="SHARE")
    prune.add_argument("--prune-ffn", type=float, default=0.0, metavar="SHARE")
    prune.add_argument("--prune-budget", choices=("uniform", "global"), default="uniform")
    prune.add_argument("--prune-multiple-of", type=int, default=16, metavar="NEURONS")
    prune.add_argument("--prune-rounds", type=int, default=1)
    prune.add_argument("--prune-epochs", type=float, default=2.0, help="to recover in each round")
    prune.add_argument(
        "--prune-without-labels", action="store_true", help="measure importance on texts alone"
    )
    graph = parser.add_argument_group("graph")
    graph.add_argument(
        "--precision",
        choices=("int8", "int8-dynamic", "float16", "float32"),
        help="int8 (the default): for CPUs, ranges fixed on training rows; int8-dynamic: ranges of "
        "each batch, so that a row's score depends on the rows beside it; float16: for GPUs",
    )
    graph.add_argument(
        "--min-int8-agreement",
        type=float,
        default=99.0,
        metavar="PERCENT",
        help="keep projections in float until int8 agrees with the float model on so many training "
        "rows (default 99; 0 for all in int8)",
    )
    graph.add_argument(
        "--trim-vocabulary", type=int, metavar="WORDS", help="keep the most frequent words only"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers compress`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        from fastformers.compression.compress import compress

        config = _config(options)
        with show_progress() as on_progress:
            result = compress(
                config,
                on_stage=_show_stage,
                on_candidate=_show_candidate,
                on_progress=on_progress,
            )
        console.print(_stage_table(result))
        if kept := result.bundle.provenance["float_projections"]:
            console.print(f"int8 would spoil these, so they stay in float: {', '.join(kept)}")
        summary = _summary(result)
        if config.search:
            price = choose_price(
                usd_per_hour=None, instance_type=None, num_cores=1, prices=load_prices()
            )
            candidates = _drawn(result, price)
            console.print(_frontier_table(candidates, result.bundle.metric))
            summary["page"] = _write_page(candidates, price, result.bundle.path)
        return summary

    return run(job, resume="Run the same command again to go on where it was.")


def _config(options: argparse.Namespace) -> "CompressConfig":
    from fastformers.compression.compress import CompressConfig

    return CompressConfig(
        teacher=options.teacher,
        train=options.train,
        eval=options.eval,
        output=options.output,
        work=options.work,
        transfer=options.transfer,
        columns=labelled_columns(options),
        max_length=options.max_length,
        max_accuracy_drop=1.0 if options.max_accuracy_drop is None else options.max_accuracy_drop,
        eval_limit=options.eval_limit,
        recipe=_recipe(options),
        search=_is_search(options),
    )


def _recipe(options: argparse.Namespace) -> "RecipeConfig":
    from fastformers.compression.distill import DistillConfig
    from fastformers.compression.recipe_config import RecipeConfig
    from fastformers.models.trainer import TrainingConfig

    return RecipeConfig(
        trim_vocabulary=options.trim_vocabulary,
        student=options.student,
        student_layers=options.student_layers,
        student_width=options.student_width,
        use_relu=not options.keep_gelu,
        distill=DistillConfig(
            training=TrainingConfig(
                epochs=options.epochs,
                learning_rate=options.learning_rate,
                batch_rows=options.batch_rows,
                seed=options.seed,
            ),
            temperature=options.temperature,
            hard_weight=options.hard_weight,
            hidden_weight=options.hidden_weight,
            attention_weight=options.attention_weight,
        ),
        prune_heads=options.prune_heads,
        prune_ffn=options.prune_ffn,
        prune_budget=options.prune_budget,
        prune_multiple_of=options.prune_multiple_of,
        prune_rounds=options.prune_rounds,
        prune_labels=not options.prune_without_labels,
        prune_epochs=options.prune_epochs,
        precision=options.precision or "int8",
        min_int8_agreement=options.min_int8_agreement,
    )


def _is_search(options: argparse.Namespace) -> bool:
    """Whether flags say how good the bundle must be, and nothing of how it is made."""
    shape = (
        options.student,
        options.student_layers,
        options.student_width,
        options.prune_heads,
        options.prune_ffn,
        options.precision,
    )
    return options.max_accuracy_drop is not None and not any(shape)


def _show_stage(quality: "StageQuality") -> None:
    others = "".join(f", {name} {100 * value:.2f}" for name, value in quality.other_metrics.items())
    console.print(
        f"{quality.stage}: {quality.metric} {100 * quality.quality:.2f}{others}, agreement with "
        f"the teacher {100 * quality.agreement:.2f}% on {quality.num_rows:,} rows"
    )


def _show_candidate(candidate: "RecipeCandidate") -> None:
    console.print(
        f"{candidate.name}: {candidate.qualities[-1].metric} "
        f"{100 * candidate.qualities[-1].quality:.2f}, "
        f"{candidate.seconds_per_million:,.0f} core-seconds a million rows, "
        f"{'holds' if candidate.passes else 'loses too much'}"
    )


def _stage_table(result: "Compressed") -> Table:
    table = Table(title=f"Bundle {result.bundle.path}", title_justify="left")
    table.add_column("stage")
    others = list(result.bundle.stages[0].other_metrics)
    for column in (result.bundle.metric, *others, "agreement", "model MB", "seconds"):
        table.add_column(column, justify="right")
    for quality in result.bundle.stages:
        table.add_row(
            quality.stage,
            f"{100 * quality.quality:.2f}",
            *(f"{100 * quality.other_metrics[name]:.2f}" for name in others),
            f"{100 * quality.agreement:.2f}%",
            f"{quality.model_bytes / 1e6:.1f}",
            f"{quality.seconds:.1f}",
        )
    return table


def _drawn(result: "Compressed", price: HourlyPrice) -> list[FrontierPoint]:
    """The candidates as table and page show them."""
    return [
        FrontierPoint(
            name=one.name,
            quality=one.qualities[-1].quality,
            seconds=one.seconds_per_million,
            usd=usd_of(one.seconds_per_million, usd_per_hour=price.usd_per_hour),
            verdict="chosen" if one is result.chosen else "" if one.passes else "loses too much",
        )
        for one in result.candidates
    ]


def _frontier_table(candidates: list[FrontierPoint], metric: str) -> Table:
    best = pick_frontier([one.quality for one in candidates], [one.usd for one in candidates])
    table = Table(title="Quality and cost", title_justify="left")
    table.add_column("recipe")
    for column in (metric, "core-s per million", "times cheaper"):
        table.add_column(column, justify="right")
    table.add_column("")
    for place, one in sorted(enumerate(candidates), key=lambda entry: entry[1].seconds):
        table.add_row(
            one.name,
            f"{100 * one.quality:.2f}",
            f"{one.seconds:,.0f}",
            f"{candidates[0].seconds / one.seconds:.2f}",
            ", ".join(filter(None, [one.verdict, "frontier" if place in best else ""])),
        )
    return table


def _write_page(candidates: list[FrontierPoint], price: HourlyPrice, bundle: Path) -> str | None:
    """Draw the frontier on a page beside the bundle, where matplotlib is installed."""
    if not can_draw():
        console.print(
            "no picture of the frontier: pip install 'fastformers[report]' draws one", markup=False
        )
        return None
    path = bundle.with_name(f"{bundle.name}-search.html")
    heading = f"{len(candidates)} recipes for {bundle.name}"
    page = render_search_page(candidates, heading=heading, note=f"Price: {price.label}.")
    path.write_text(page, encoding="utf-8")
    console.print(f"page: {path}", markup=False)
    return str(path)


def _summary(result: "Compressed") -> dict[str, Any]:
    bundle = result.bundle
    return {
        "bundle": str(bundle.path),
        "recipe": result.chosen.name,
        "task": bundle.task,
        "metric": bundle.metric,
        "precision": bundle.precision,
        "float_projections": bundle.provenance["float_projections"],
        "labels": list(bundle.labels),
        "stages": [vars(quality) for quality in bundle.stages],
        "max_batch_tokens": bundle.cost_profile.max_batch_tokens,
        "tokens_per_second_at_64": 1 / bundle.cost_profile.estimate_seconds_per_token(),
        "candidates": [
            {
                "recipe": candidate.name,
                "quality": candidate.qualities[-1].quality,
                "seconds_per_million": candidate.seconds_per_million,
                "holds": candidate.passes,
            }
            for candidate in result.candidates
        ],
        "times_cheaper": result.candidates[0].seconds_per_million
        / result.chosen.seconds_per_million,
    }


if __name__ == "__main__":
    sys.exit(main())
