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
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from fastformers.cluster.storage.filesystems import resolve
from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.token_config import AUTO
from fastformers.files.hub import find_model
from fastformers.formats.file_set import formats_at
from fastformers.inference.cascade.record import describe, summarize
from fastformers.inference.description.further_graph import graphs_of, qualities_of
from fastformers.jobs.console.arguments import (
    add_storage_arguments,
    add_text_file_arguments,
)
from fastformers.jobs.console.command_line.idle_flags import (
    SELECT,
    STORAGE,
    SUPERGLUE,
    IdleRule,
    refuse_idle,
    refuse_idle_labeled,
)
from fastformers.jobs.console.command_line.keywords import CompressKeywords, PathLike
from fastformers.jobs.console.command_line.python_call import called, describes
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.flags import add_config_arguments, read_config
from fastformers.jobs.console.frontier import (
    FRONTIER_FLAGS,
    SearchClock,
    add_frontier_arguments,
    describe_certainty,
    read_frontier_settings,
    show_candidate,
    show_frontier,
)
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import show_progress, waiting
from fastformers.jobs.console.stages import show_curve, show_point, show_stage, stage_table
from fastformers.models.model_files import is_sentence_encoder

if TYPE_CHECKING:
    from fastformers.compression.compress import Compressed


def _has_student(options: argparse.Namespace) -> bool:
    origins = (options.student, options.student_layers, options.student_width, options.pool_tokens)
    return options.search or origins != (None, None, None, None)


def _prunes(options: argparse.Namespace) -> bool:
    return bool(options.search or options.prune_heads or options.prune_ffn)


def _trains(options: argparse.Namespace) -> bool:
    recovers = _prunes(options) and options.prune_epochs > 0
    learns_to_drop = options.keep_tokens and options.token_epochs > 0
    return bool(_has_student(options) or recovers or learns_to_drop)


def _is_static(options: argparse.Namespace) -> bool:
    return bool(options.student_layers == 0)


# They depend on the student, so the configs have None: `DistillConfig.settled`.
_TRAINING_DEFAULTS = {
    "learning_rate": "8e-5; 0.01 for static vectors",
    "batch_rows": "32; 64 for static vectors",
}
_NO_LAYERS = "a student of --student-layers 0 has no layers"
_NO_TRAINING = (
    "nothing is trained; add --student-layers, --prune-heads or --prune-ffn, or --keep-tokens"
)
_IDLE = (
    SUPERGLUE,
    STORAGE,
    SELECT,
    IdleRule(
        ("select", "select_share"),
        lambda options: not read_config(CompressConfig, options).choices,
        "nothing is chosen by rows; add --search, --cascade, --keep-tokens auto or int8",
    ),
    IdleRule(
        ("epochs", "keep_gelu"),
        lambda options: not _has_student(options),
        "there is no student; add --student-layers, --student-width or --student",
    ),
    IdleRule(("keep_gelu", "hidden_weight", "attention_weight"), _is_static, _NO_LAYERS),
    IdleRule(
        ("transfer", "learning_rate", "batch_rows", "seed", "temperature", "hard_weight"),
        lambda options: not _trains(options),
        _NO_TRAINING,
    ),
    IdleRule(
        ("hidden_weight", "attention_weight"), lambda options: not _trains(options), _NO_TRAINING
    ),
    IdleRule(
        (
            *("transfer_rows", "transfer_text_column", "transfer_text_pair_column"),
            *("transfer_seed", "transfer_curve"),
        ),
        lambda options: options.transfer is None,
        "there are no texts without labels; add --transfer",
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
        ("max_hours", *FRONTIER_FLAGS),
        lambda options: not options.search,
        "it is for a search; add --search",
    ),
    IdleRule(
        ("pool_how", "pool_before_layer"),
        lambda options: not (options.search or options.pool_tokens),
        "no tokens are pooled; add --pool-tokens",
    ),
    IdleRule(
        ("token_epochs", "token_soft_start", "min_token_agreement"),
        lambda options: not (options.search or options.keep_tokens),
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
        ("cascade_drop",),
        lambda options: options.search,
        "a search takes what --max-accuracy-drop leaves",
    ),
    IdleRule(
        ("cascade_with", "cascade_drop"),
        lambda options: not options.cascade,
        "there is no cascade; add --cascade",
    ),
    IdleRule(
        ("min_int8_agreement",),
        _is_static,
        f"{_NO_LAYERS}, and its projections stay in float",
    ),
    IdleRule(
        ("temperature",),
        lambda options: options.hard_weight == 1,
        "with --hard-weight 1 the teacher's outputs do not count; give a smaller share",
    ),
    IdleRule(
        ("temperature",),
        lambda options: is_sentence_encoder(options.teacher),
        "the teacher embeds texts, and the distance of vectors has no temperature",
    ),
    IdleRule(
        ("label_column", "label_map", "label_names", "prune_without_labels"),
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
    files = parser.add_argument_group("labeled files")
    add_config_arguments(files, CompressConfig.columns)
    add_config_arguments(files, CompressConfig.select)
    add_text_file_arguments(parser, CompressConfig.columns.text_files)
    add_config_arguments(parser.add_argument_group("texts without labels"), CompressConfig.transfer)
    add_storage_arguments(parser)
    for title, configs in (
        ("student", [recipe.student]),
        ("distillation", [recipe.distill.training, recipe.distill]),
        ("pruning", [recipe.prune]),
        ("tokens", [recipe.tokens]),
        ("graph", [recipe.quantize, recipe.trim]),
        ("cascade", [CompressConfig.cascade]),
    ):
        group = parser.add_argument_group(title)
        for config in configs:
            add_config_arguments(group, config, defaults=_TRAINING_DEFAULTS)
    add_frontier_arguments(parser)
    return parser


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers compress`."""
    return make_parser().parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers compress`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        result, frontier = _compress(options)
        console.print(stage_table(result))
        allowed = read_config(CompressConfig, options).allowed_drop
        console.print(describe_certainty(result.chosen, allowed))
        if result.chosen.drop > allowed:
            console.print(
                f"that is more than --max-accuracy-drop {allowed:g}: on the "
                f"{len(result.split.select or ()):,} rows that chose it, it loses "
                f"{result.selected.drop:.2f}"
            )
        if result.bundle.cascade is not None:
            console.print(f"cascade: {describe(result.bundle.cascade)}")
        if pruning := result.bundle.provenance.get("pruning"):
            console.print(f"pruned: {pruning}")
        if kept := result.bundle.provenance["float_projections"]:
            console.print(f"int8 would spoil these, so they stay in float: {', '.join(kept)}")
        if result.curve:
            show_curve(result.curve)
        if shares := result.bundle.provenance.get("keep_tokens"):
            shown = ", ".join(f"{share:g}" for share in shares)
            console.print(f"share of its tokens that each layer keeps: {shown}")
        return {**_summary(result), **frontier}

    resume = "Run the same command again to go on where it was."
    return run(job, options, resume=resume, measures=True)


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
        return _compress(options)[0]


def _compress(options: argparse.Namespace) -> tuple["Compressed", dict[str, Any]]:
    """Run the recipe, or search for one, and show what is measured.

    Returns:
        The result, and the numbers of the frontier; none without a search.
    """
    config = read_config(CompressConfig, options)
    options.teacher = find_model(config.teacher).path
    config = replace(config, teacher=options.teacher)
    refuse_idle(options, _IDLE)
    settings = read_frontier_settings(options) if config.search else None
    locate = partial(resolve, options=options.storage_options)
    corpus = config.transfer.corpus
    formats = set() if corpus is None else formats_at(*locate(corpus), corpus)
    refuse_idle_labeled(options, config.train, config.eval, config.select.file, others=formats)
    with waiting("reading the labeled files"):
        files = config.load_files(locate)
    console.print(f"rows: {files.split.meaning}", markup=False)
    if files.transfer is not None:
        console.print(f"transfer: {files.transfer.describe()}", markup=False)
    with waiting("loading PyTorch"):
        from fastformers.compression import compress as offline

    clock, allowed = SearchClock(), config.allowed_drop
    with (
        show_progress(remarks=clock.remarks) as on_progress,
        waiting("loading and checking the teacher"),
    ):
        result = offline.compress(
            config,
            files,
            on_labels=lambda meaning: console.print(f"labels: {meaning}", markup=False),
            on_stage=show_stage,
            on_candidate=partial(show_candidate, max_accuracy_drop=allowed),
            on_plan=clock.tell,
            on_point=show_point,
            on_progress=on_progress,
        )
    return result, {} if settings is None else show_frontier(result, settings, allowed)


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
        "cascade": None if bundle.cascade is None else summarize(bundle.cascade),
        "transfer_texts": bundle.provenance.get("transfer_texts"),
        "transfer_curve": [point.describe() for point in result.curve],
        "max_batch_tokens": bundle.cost_profile.max_batch_tokens,
        "tokens_per_second_at_64": 1 / bundle.cost_profile.estimate_seconds_per_token(),
        "train_rows": len(result.split.train),
        "select_rows": len(result.split.select or ()),
        "evaluation_rows": result.chosen.quality.num_rows,
        "select_drop_points": bundle.provenance.get("select_drop_points"),
        "drop_points": result.chosen.drop,
        "drop_points_interval": list(result.chosen.certainty.drop_interval),
        "quality_interval": list(result.chosen.certainty.interval),
        "times_cheaper": max(one.seconds_per_million for one in result.candidates)
        / result.chosen.seconds_per_million,
    }


if __name__ == "__main__":
    sys.exit(main())
