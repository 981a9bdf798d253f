"""The stages that change the PyTorch model, before it is exported.

    teacher -> [trim_vocabulary -> distill -> prune -> keep_tokens] -> export

Each function takes the config of one stage and returns the `Stage` for recipe.py to run; the work
itself is in other modules, which take plain values. A stage does not change the artifact that it is
given. This module knows nothing of graphs.
"""

import copy
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.keep_tokens import choose_shares_for, keep_tokens
from fastformers.compression.pruning.prune import measure_importance, prune_model
from fastformers.compression.pruning.pruning_plan import plan_rounds
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.stages.prune_planning import (
    IMPORTANCE_ROWS,
    describe_pruning,
    find_times,
    keep_plan,
    plan_round,
)
from fastformers.compression.students.distill import distill, replace_gelu
from fastformers.compression.students.student import (
    cut_layers,
    cut_width,
    load_student,
    spread_layers,
)
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.models.forward import OnProgress
from fastformers.models.model_files import digest_checkpoint
from fastformers.models.variants.reduced_layers import change_reduction
from fastformers.models.variants.token_reduction import TokenPool, reduction_of
from fastformers.models.vocabulary import trim_embeddings, trim_tokenizer

logger = logging.getLogger(__name__)

TOKEN_ROWS = 256  # rows that shares of tokens are chosen on


def require_no_graph(artifact: ModelArtifact) -> None:
    if artifact.graph is not None:
        raise StageError("changes the PyTorch model; it must come before export")


def trim_vocabulary_stage(config: TrimConfig) -> Stage:
    """Drop tokens that the training texts do not use; the most frequent ones stay."""
    max_words = config.trim_vocabulary
    assert max_words is not None, "`plan_stages` leaves the stage out where all tokens stay"

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        rows = artifact.tokenize(artifact.train)
        counts_V = np.bincount(rows.ids, minlength=artifact.model.config.vocab_size)
        tokenizer_json, old_ids = trim_tokenizer(
            artifact.tokenizer_json, counts_V, max_words=max_words
        )
        model = copy.deepcopy(artifact.model)
        trim_embeddings(model, old_ids)
        return replace(artifact, model=model, tokenizer_json=tokenizer_json)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        largest = int(after.tokenize(after.train.sample(64)).ids.max())
        if largest >= after.model.config.vocab_size:
            raise StageError(f"token id {largest} has no embedding any more")

    return Stage(
        name="trim_vocabulary",
        settings=asdict(config),
        requires=require_no_graph,
        run=run,
        ensures=ensures,
    )


def distill_stage(
    student: StudentConfig, config: DistillConfig, transfer: Examples | None
) -> Stage:
    """Train a student on the outputs of the artifact's model.

    Args:
        student: Starting point of the student.
        config: Losses and training.
        transfer: Further examples without labels, for which the teacher's outputs alone count.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        model = _distill_from(
            artifact,
            _start_student(student, artifact),
            config=config,
            transfer=transfer,
            directory=directory,
            on_progress=on_progress,
        )
        return replace(artifact, model=model)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        if after.model.num_parameters() > before.model.num_parameters():
            raise StageError("the student is larger than its teacher")

    return Stage(
        name="distill",
        settings={
            **_start_settings(student),
            # Its files, not its name: another checkpoint may take the place of an earlier one.
            "student": None if student.student is None else digest_checkpoint(student.student),
            **asdict(config),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
    )


def _start_settings(config: StudentConfig) -> dict[str, object]:
    """What decides how a student starts: how to pool does not where nothing is pooled."""
    settings = asdict(config)
    if config.pool_tokens is None:
        for name in ("pool_tokens", "pool_how", "pool_before_layer"):
            del settings[name]
    return settings


def _start_student(config: StudentConfig, artifact: ModelArtifact) -> PreTrainedModel:
    """The student before training: a checkpoint, or part of the teacher."""
    model = artifact.model
    if config.student is not None:
        model = load_student(config.student, model, artifact.tokenizer_json)
    if config.student_layers is not None:
        num_layers = model.config.num_hidden_layers
        model = cut_layers(model, spread_layers(num_layers, config.student_layers))
    if config.student_width is not None:
        rows = artifact.tokenize(artifact.train.sample(IMPORTANCE_ROWS))
        model = cut_width(model, config.student_width, measure_importance(model, rows))
    if not config.keep_gelu:
        model = replace_gelu(model)
    return model if config.pool_tokens is None else _pooled(model, config)


def _pooled(model: PreTrainedModel, config: StudentConfig) -> PreTrainedModel:
    """A copy of the model that pools its tokens."""
    assert config.pool_tokens is not None
    model = copy.deepcopy(model)
    pool = TokenPool(
        before_layer=config.pool_before_layer, every=config.pool_tokens, how=config.pool_how
    )
    change_reduction(model, replace(reduction_of(model.config), pool=pool))
    return model


def _distill_from(
    artifact: ModelArtifact,
    student: PreTrainedModel,
    *,
    config: DistillConfig,
    transfer: Examples | None,
    directory: Path,
    on_progress: OnProgress,
    soft_share: float = 0.0,
) -> PreTrainedModel:
    """The student after it learned from the artifact's model."""
    examples = artifact.train if transfer is None else artifact.train.joined(transfer)
    trained = distill(
        student,
        artifact.model,
        artifact.tokenize(examples),
        artifact.targets(artifact.train) if config.hard_weight else None,
        config=config,
        outputs=artifact.directory("teacher") / f"answers-{examples.digest[:16]}",
        checkpoints=directory / "checkpoints",
        soft_share=soft_share,
        on_progress=on_progress,
    )
    shutil.rmtree(directory / "checkpoints")
    return trained


def prune_stage(
    config: PruneConfig,
    distill: DistillConfig,
    transfer: Examples | None,
    *,
    precision: str,
    keep_shares: Sequence[float] = (),
) -> Stage:
    """Remove the least important heads and neurons, then distill from the model as it came in.

    Args:
        config: How much to prune, and in how many rounds.
        distill: Distillation after each round, except for its epochs, which `config` has.
        transfer: Further examples without labels for that distillation.
        precision: Precision of the graph whose time counts where the budget is time.
        keep_shares: Shares of tokens that its layers will pass on after a later stage.
    """
    recovery = _plan_recovery(config.prune_epochs, distill)

    def measure(artifact: ModelArtifact, on_progress: OnProgress) -> dict[str, object]:
        times = find_times(config, artifact, precision, keep_shares, on_progress)
        return {} if times is None else {"times": asdict(times)}

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        times = find_times(config, artifact, precision, keep_shares, on_progress)
        model = artifact.model
        rounds = zip(
            plan_rounds(config.prune_heads, config.prune_rounds),
            plan_rounds(config.prune_ffn, config.prune_rounds),
            strict=True,
        )
        for number, (heads_now, ffn_now) in enumerate(rounds):
            now = replace(config, prune_heads=heads_now, prune_ffn=ffn_now)
            plan = keep_plan(
                directory / f"plan{number}.json",
                partial(plan_round, now, artifact, model, times, on_progress),
            )
            model = prune_model(model, plan)
            if recovery is not None:
                model = _distill_from(
                    artifact,
                    model,
                    config=recovery,
                    transfer=transfer,
                    directory=directory / f"round{number}",
                    on_progress=on_progress,
                )
        pruning = describe_pruning(artifact.model, model, times)
        logger.info("pruned: %s", pruning)
        return replace(artifact, model=model, pruning=pruning)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        if after.model.num_parameters() >= before.model.num_parameters():
            raise StageError("nothing was pruned; ask for larger shares")

    return Stage(
        name="prune",
        settings={
            **asdict(config),
            "recovery": None if recovery is None else asdict(recovery),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
        measure=measure,
    )


def keep_tokens_stage(
    config: TokenConfig, distill: DistillConfig, transfer: Examples | None
) -> Stage:
    """Drop tokens between the layers, then distill from the model as it came in.

    Args:
        config: Which shares of the tokens stay, or how to choose them.
        distill: Distillation afterwards, except for its epochs, which `config` has.
        transfer: Further examples without labels for that distillation.
    """
    recovery = _plan_recovery(config.token_epochs, distill)

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        shares = config.shares or choose_shares_for(
            artifact.model,
            artifact.tokenize(artifact.train.sample(TOKEN_ROWS)),
            min_agreement=config.min_token_agreement / 100,
            on_progress=on_progress,
        )
        if min(shares, default=1) == 1:
            raise StageError(
                "no layer can drop a tenth of its tokens and agree with itself on "
                f"{config.min_token_agreement:g}% of training rows; lower --min-token-agreement or "
                "give --keep-tokens as shares"
            )
        model = keep_tokens(artifact.model, shares)
        if recovery is not None:
            model = _distill_from(
                artifact,
                model,
                config=recovery,
                transfer=transfer,
                directory=directory,
                on_progress=on_progress,
                soft_share=config.token_soft_start,
            )
        return replace(artifact, model=model)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        reduction = reduction_of(after.model.config)
        lengths_N = after.tokenize(after.train.sample(TOKEN_ROWS)).lengths_N
        counts_LN = reduction.count_tokens(lengths_N, after.model.config.num_hidden_layers)
        whole = replace(reduction, keep_shares=())
        if (counts_LN == whole.count_tokens(lengths_N, len(counts_LN) - 1)).all():
            raise StageError("no text loses a token: all are too short for these shares")

    return Stage(
        name="keep_tokens",
        settings={
            **asdict(config),
            "kept_by": "the first token's attention where the head reads that token alone",
            "rows": TOKEN_ROWS,
            "recovery": None if recovery is None else asdict(recovery),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
    )


def _plan_recovery(epochs: float, distill: DistillConfig) -> DistillConfig | None:
    """Distillation after something was left out of the model; None where there is none."""
    if epochs == 0:
        return None
    return replace(distill, training=replace(distill.training, epochs=epochs))
