"""The stages that leave parts of a PyTorch model out: heads, neurons and tokens.

    teacher -> trim_vocabulary -> distill -> [prune -> keep_tokens] -> export

Each function takes the config of one stage and returns the `Stage` for recipe.py to run, as those
of model_stages.py do. After either stage the model learns from the teacher again, not from what it
was before: a student knows its training rows by heart, and has little to say about them. BoolQ's
pruned student without 20, 40 and 40% of its tokens has 69.02 so, and 67.00 otherwise. This module
knows nothing of graphs.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fastformers.atomic_file import keep_json
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.keep_tokens import choose_shares_for, keep_tokens
from fastformers.compression.pruning.prune import prune_model
from fastformers.compression.pruning.pruning_plan import plan_rounds
from fastformers.compression.pruning.token_plan import Shares
from fastformers.compression.pruning.token_significance import fit_significance
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import DistillConfig, PruneConfig
from fastformers.compression.stages.model_stages import (
    distill_from,
    keep_model,
    plan_recovery,
    require_no_graph,
)
from fastformers.compression.stages.prune_planning import (
    describe_pruning,
    find_times,
    keep_plan,
    plan_round,
)
from fastformers.compression.token_config import TokenConfig
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.models.forward import OnProgress
from fastformers.models.variants.token_reduction import reduction_of

logger = logging.getLogger(__name__)

TOKEN_ROWS = 256  # rows that shares of tokens are chosen on
_FITTED_ROWS = 512  # rows that a first guess of what tokens matter is fitted to


def prune_stage(
    config: PruneConfig,
    distill: DistillConfig,
    transfer: Examples | None,
    *,
    precision: str,
    keep_shares: Sequence[float] = (),
) -> Stage:
    """Remove the least important heads and neurons, then distill from the teacher.

    Args:
        config: How much to prune, and in how many rounds.
        distill: Distillation after each round, except for its epochs, which `config` has.
        transfer: Further examples without labels for that distillation.
        precision: Precision of the graph whose time counts where the budget is time.
        keep_shares: Shares of tokens that its layers will pass on after a later stage.
    """
    recovery = plan_recovery(config.prune_epochs, distill)
    timed = {"keep_shares": list(keep_shares)} if config.prune_budget == "latency" else {}

    def measure(artifact: ModelArtifact, on_progress: OnProgress) -> dict[str, object]:
        times = find_times(config, artifact, precision, keep_shares, on_progress)
        return {} if times is None else {"times": asdict(times)}

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        times = find_times(config, artifact, precision, keep_shares, on_progress)
        model = artifact.model
        for number, now in enumerate(_rounds_of(config)):
            plan = keep_plan(
                directory / f"plan{number}.json",
                partial(plan_round, now, artifact, model, times, on_progress),
            )
            model = prune_model(model, plan)
            is_last = number == config.prune_rounds - 1  # its model is what the stage keeps
            if is_last:
                ensures(artifact, replace(artifact, model=model))  # before it is trained
            if recovery is not None:
                own = directory / f"round{number}"
                train = partial(
                    distill_from,
                    artifact,
                    model,
                    config=recovery,
                    transfer=transfer,
                    directory=own,
                    on_progress=on_progress,
                )
                model = train() if is_last else keep_model(own / "model", train)
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
            **timed,
            **_recovery_settings(recovery, transfer),
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
        makes_student=True,
        measure=measure,
    )


def _recovery_settings(
    recovery: DistillConfig | None, transfer: Examples | None
) -> dict[str, object]:
    """What decides how a model learns from the teacher again."""
    return {
        "recovery": None if recovery is None else {"from": "teacher", **asdict(recovery)},
        "transfer": "" if transfer is None else transfer.digest,
    }


def _rounds_of(config: PruneConfig) -> list[PruneConfig]:
    """The config with the shares that each round ends with."""
    shares = zip(
        plan_rounds(config.prune_heads, config.prune_rounds),
        plan_rounds(config.prune_ffn, config.prune_rounds),
        strict=True,
    )
    return [replace(config, prune_heads=heads, prune_ffn=ffn) for heads, ffn in shares]


def keep_tokens_stage(
    config: TokenConfig, distill: DistillConfig, transfer: Examples | None
) -> Stage:
    """Drop tokens between the layers, then distill from the teacher.

    Args:
        config: Which shares of the tokens stay, or how to choose them.
        distill: Distillation afterwards, except for its epochs, which `config` has.
        transfer: Further examples without labels for that distillation.
    """
    recovery = plan_recovery(config.token_epochs, distill)

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        rows = artifact.tokenize(artifact.train.sample(_FITTED_ROWS))
        weights_LD = fit_significance(artifact.model, rows)

        def choose_shares() -> Shares:
            return choose_shares_for(
                artifact.model,
                artifact.tokenize(artifact.choosing.sample(TOKEN_ROWS)),
                weights_LD,
                min_agreement=config.min_token_agreement / 100,
                on_progress=on_progress,
            )

        # As an earlier attempt chose them, maybe on another machine: its checkpoints go on.
        shares = config.shares or tuple(keep_json(directory / "shares.json", choose_shares))
        if min(shares, default=1) == 1:
            raise StageError(
                "no layer can drop a tenth of its tokens and agree with itself on "
                f"{config.min_token_agreement:g}% of rows; lower --min-token-agreement or give "
                "--keep-tokens as shares"
            )
        model = keep_tokens(artifact.model, shares, weights_LD)
        ensures(artifact, replace(artifact, model=model))  # before it is trained
        if recovery is not None:
            model = distill_from(
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
        if not reduction.drops_any(lengths_N, after.model.config.num_hidden_layers):
            raise StageError("no text loses a token: all are too short for these shares")

    return Stage(
        name="keep_tokens",
        settings={
            **asdict(config),
            "rows": TOKEN_ROWS,
            "fitted_rows": _FITTED_ROWS,
            **_recovery_settings(recovery, transfer),
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
        makes_student=True,
    )
