"""Compress a fine-tuned model into a bundle, with its quality after every stage.

One recipe, as flags say; without any, int8 of the teacher itself:
    fastformers compress --teacher DIR --train train.parquet --eval validation.parquet \\
        --output BUNDLE --student-layers 4 --prune-heads 0.33 --prune-ffn 0.5

By intent: search for the cheapest recipe that loses no more than a point of accuracy:
    fastformers compress --teacher DIR --train train.parquet --eval validation.parquet \\
        --output BUNDLE --search --max-accuracy-drop 1.0
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from rich.table import Table

from fastformers.atomic_file import whole_file
from fastformers.cluster.pricing.prices import HourlyPrice, choose_price, load_prices, usd_of
from fastformers.cluster.report.downsample import pick_frontier
from fastformers.cluster.report.page import can_draw, render_search_page
from fastformers.cluster.report.plots import FrontierPoint
from fastformers.compression.recipe_config import CompressConfig, RecipeConfig
from fastformers.compression.token_config import AUTO
from fastformers.files.hub import find_model
from fastformers.inference.description.further_graph import graphs_of, qualities_of
from fastformers.installation import how_to_install
from fastformers.jobs.console.arguments import add_text_file_arguments
from fastformers.jobs.console.command_line.idle_flags import (
    SUPERGLUE,
    IdleRule,
    refuse_idle,
    refuse_idle_labeled,
)
from fastformers.jobs.console.command_line.keywords import CompressKeywords, PathLike
from fastformers.jobs.console.command_line.python_call import called, describes
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import show_progress, waiting
from fastformers.models.model_files import is_sentence_encoder

if TYPE_CHECKING:
    from fastformers.compression.compress import Compressed
    from fastformers.compression.search import RecipeCandidate
    from fastformers.inference.description.stage_quality import StageQuality


def _has_student(options: argparse.Namespace) -> bool:
    is_wanted = options.student or options.student_layers or options.student_width
    return bool(options.search or is_wanted or options.pool_tokens)


def _prunes(options: argparse.Namespace) -> bool:
    return bool(options.search or options.prune_heads or options.prune_ffn)


def _trains(options: argparse.Namespace) -> bool:
    recovers = _prunes(options) and options.prune_epochs > 0
    learns_to_drop = options.keep_tokens and options.token_epochs > 0
    return bool(_has_student(options) or recovers or learns_to_drop)


_NO_TRAINING = (
    "nothing is trained; add --student-layers, --prune-heads or --prune-ffn, or --keep-tokens"
)
_IDLE = (
    SUPERGLUE,
    IdleRule(
        ("epochs", "keep_gelu"),
        lambda options: not _has_student(options),
        "there is no student; add --student-layers, --student-width or --student",
    ),
    IdleRule(
        ("transfer", "learning_rate", "batch_rows", "seed", "temperature", "hard_weight"),
        lambda options: not _trains(options),
        _NO_TRAINING,
    ),
    IdleRule(
        ("hidden_weight", "attention_weight"), lambda options: not _trains(options), _NO_TRAINING
    ),
    IdleRule(
        ("prune_budget", "prune_multiple_of", "prune_rounds", "prune_epochs"),
        lambda options: not _prunes(options),
        "nothing is pruned; add --prune-heads or --prune-ffn",
    ),
    IdleRule(
        ("prune_without_labels",),
        lambda options: not _prunes(options),
        "nothing is pruned; add --prune-heads or --prune-ffn",
    ),
    IdleRule(
        ("prune_multiple_of",),
        lambda options: not (options.search or options.prune_ffn),
        "no feed-forward neurons are pruned; add --prune-ffn",
    ),
    IdleRule(
        ("pool_how", "pool_before_layer"),
        lambda options: options.pool_tokens is None,
        "no tokens are pooled; add --pool-tokens",
    ),
    IdleRule(
        ("token_epochs", "token_soft_start", "min_token_agreement"),
        lambda options: not options.keep_tokens,
        "no tokens are dropped; add --keep-tokens",
    ),
    IdleRule(
        ("token_soft_start",),
        lambda options: options.token_epochs == 0,
        "with --token-epochs 0 there is no training to start",
    ),
    IdleRule(
        ("min_token_agreement",),
        lambda options: AUTO not in options.keep_tokens,
        "the shares are given; add --keep-tokens auto",
    ),
    IdleRule(
        ("min_int8_agreement",),
        lambda options: "int8" not in str(options.precision),
        "no projection is in int8; add --precision int8",
    ),
    IdleRule(
        ("label_column", "label_map", "label_names"),
        lambda options: is_sentence_encoder(options.teacher),
        "the teacher embeds texts and needs no labels",
    ),
)


def make_parser() -> CommandParser:
    """The parser of `fastformers compress`."""
    parser = CommandParser(
        prog="fastformers compress",
        description=__doc__,
    )
    recipe = RecipeConfig()
    add_config_arguments(parser.add_argument_group("models, files and allowance"), CompressConfig)
    add_config_arguments(parser.add_argument_group("labeled files"), CompressConfig.columns)
    add_text_file_arguments(parser, CompressConfig.columns.text_files)
    for title, configs in (
        ("student", [recipe.student]),
        ("distillation", [recipe.distill.training, recipe.distill]),
        ("pruning", [recipe.prune]),
        ("tokens", [recipe.tokens]),
        ("graph", [recipe.quantize, recipe.trim]),
    ):
        group = parser.add_argument_group(title)
        for config in configs:
            add_config_arguments(group, config)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers compress`."""
    return make_parser().parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers compress`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        result = _compress(options)
        console.print(_stage_table(result))
        if pruning := result.bundle.provenance.get("pruning"):
            console.print(f"pruned: {pruning}")
        if kept := result.bundle.provenance["float_projections"]:
            console.print(f"int8 would spoil these, so they stay in float: {', '.join(kept)}")
        if shares := result.bundle.provenance.get("keep_tokens"):
            shown = ", ".join(f"{share:g}" for share in shares)
            console.print(f"share of its tokens that each layer keeps: {shown}")
        summary = _summary(result)
        if options.search:
            price = choose_price(
                usd_per_hour=None, instance_type=None, num_cores=1, prices=load_prices()
            )
            candidates = _drawn(result, price)
            console.print(_frontier_table(candidates, result.bundle.metric))
            summary["page"] = _write_page(
                candidates, price, result.bundle.path, metric=result.bundle.metric
            )
        return summary

    return run(job, options, resume="Run the same command again to go on where it was.")


@describes(make_parser, CompressKeywords)
def compress(
    *,
    teacher: PathLike,
    train: PathLike,
    eval: PathLike,
    output: PathLike,
    **settings: Unpack[CompressKeywords],
) -> "Compressed":
    """Compress a fine-tuned model into a bundle: `fastformers compress` from Python.

    Stages and progress are shown on stderr. Called again after an interruption, it goes on where it
    was.

    Args:
        teacher: Hugging Face or sentence-transformers directory.
        train: Labeled files to distill, rank and calibrate on.
        eval: Labeled files that measure quality and nothing else.
        output: Directory of the bundle.
        settings: Flags of the command, by their names with underscores.

    Returns:
        The bundle, the recipe that made it, and all that were tried, with the quality (at most 1)
        after each stage and core-seconds for a million rows.

    Raises:
        InputError: A path, a column, a label, a model or a value cannot be used, or PyTorch is not
            installed.
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: More accuracy was lost than `max_accuracy_drop`; no bundle is written.
        TypeError: There is no such keyword.
    """
    places = {"teacher": teacher, "train": train, "eval": eval, "output": output}
    options = make_parser().take({**places, **settings})
    with called(options):
        return _compress(options)


def _compress(options: argparse.Namespace) -> "Compressed":
    """Run the recipe, or search for one, and show what is measured."""
    config = read_config(CompressConfig, options)
    options.teacher = find_model(config.teacher).path
    config = replace(config, teacher=options.teacher)
    refuse_idle(options, _IDLE)
    refuse_idle_labeled(options, config.train, config.eval, config.transfer)
    with waiting("reading the labeled files"):
        files = config.load_files()
    with waiting("loading PyTorch"):
        from fastformers.compression import compress as offline

    with show_progress() as on_progress, waiting("loading and checking the teacher"):
        return offline.compress(
            config,
            files,
            on_labels=lambda meaning: console.print(f"labels: {meaning}", markup=False),
            on_stage=_show_stage,
            on_candidate=_show_candidate,
            on_progress=on_progress,
        )


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
    for quality in qualities_of(result.bundle):
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
    """The candidates, as the table and the page show them."""
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


def _write_page(
    candidates: list[FrontierPoint], price: HourlyPrice, bundle: Path, *, metric: str
) -> str | None:
    """Draw the frontier on a page beside the bundle, where matplotlib is installed."""
    if not can_draw():
        console.print(f"no picture of the frontier: {how_to_install('report')}")
        return None
    path = bundle.with_name(f"{bundle.name}-search.html")
    heading = f"{len(candidates)} recipes for {bundle.name}"
    note = f"Price: {price.label}."
    page = render_search_page(candidates, metric=metric, heading=heading, note=note)
    with whole_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    console.print(f"page: {path}")
    return str(path)


def _summary(result: "Compressed") -> dict[str, Any]:
    bundle = result.bundle
    return {
        "bundle": str(bundle.path),
        "recipe": result.chosen.name,
        "task": bundle.task.name,
        "metric": bundle.metric,
        "precision": bundle.precision,
        "float_projections": bundle.provenance["float_projections"],
        "keep_tokens": bundle.provenance.get("keep_tokens", []),
        "labels": list(bundle.labels),
        "stages": [vars(quality) for quality in qualities_of(bundle)],
        "precisions": list(graphs_of(bundle)),
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
