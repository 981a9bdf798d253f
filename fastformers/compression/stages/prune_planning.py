"""Plan one round of pruning: measure what the plan depends on, and keep what was decided.

    model + training rows -> [prune_planning] -> plan -> model_stages: prune, distill

Plans and times are kept as files, so that a stage that is resumed decides as it did: its training
goes on from checkpoints of the shape that was planned first. This module knows nothing of recovery.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fastformers.atomic_file import keep_json
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.latency_plan import plan_within_time
from fastformers.compression.pruning.layer_times import LayerTimes
from fastformers.compression.pruning.loss_curves import measure_loss_curves
from fastformers.compression.pruning.prune import measure_importance
from fastformers.compression.pruning.pruning_plan import PruningPlan, plan_pruning
from fastformers.compression.recipe_config import PruneConfig
from fastformers.compression.stages.layer_timing import keep_layer_times
from fastformers.models.forward import OnProgress
from fastformers.models.layers import layer_parts, layer_shape

IMPORTANCE_ROWS = 2048
LOSS_ROWS = 256  # run once for each size of each part of each layer


def find_times(
    config: PruneConfig,
    artifact: ModelArtifact,
    precision: str,
    keep_shares: Sequence[float],
    on_progress: OnProgress,
) -> LayerTimes | None:
    """Times of the model's layers on this machine; None where the budget is not time.

    Args:
        config: Whether time is the budget.
        artifact: The model, and the training rows whose lengths count.
        precision: Precision of the graph that will be made of it.
        keep_shares: Shares of tokens that layers will pass on, from the first layer on.
        on_progress: Called with the name of the work, graphs written and graphs in all.
    """
    if config.prune_budget != "latency":
        return None
    return keep_layer_times(artifact, precision, keep_shares, on_progress)


def plan_round(
    config: PruneConfig,
    artifact: ModelArtifact,
    model: PreTrainedModel,
    times: LayerTimes | None,
    on_progress: OnProgress,
) -> PruningPlan:
    """What stays of the model as it is after a round that ends with the config's shares."""
    sample = artifact.train.sample(IMPORTANCE_ROWS)
    targets_N = None if config.prune_without_labels else artifact.targets(sample)
    importance = measure_importance(model, artifact.tokenize(sample), targets_N, on_progress)
    if times is None:
        return plan_pruning(
            importance,
            prune_heads=config.prune_heads,
            prune_ffn=config.prune_ffn,
            multiple_of=config.prune_multiple_of,
        )
    curves = measure_loss_curves(
        model,
        artifact.tokenize(artifact.train.sample(LOSS_ROWS)),
        importance,
        of_heads=config.prune_heads > 0,
        of_neurons=config.prune_ffn > 0,
        on_progress=on_progress,
    )
    return plan_within_time(
        importance,
        curves,
        times,
        prune_heads=config.prune_heads,
        prune_ffn=config.prune_ffn,
        multiple_of=config.prune_multiple_of,
    )


def keep_plan(path: Path, make: Callable[[], PruningPlan]) -> PruningPlan:
    """The plan of an earlier attempt, or else a new one, so that training goes on where it was."""

    def make_lists() -> dict[str, list[list[int]]]:
        return {name: [part.tolist() for part in parts] for name, parts in vars(make()).items()}

    kept = keep_json(path, make_lists)
    return PruningPlan(**{name: tuple(map(np.array, parts)) for name, parts in kept.items()})


def describe_pruning(
    before: PreTrainedModel, after: PreTrainedModel, times: LayerTimes | None
) -> str:
    """What is left of each layer, and the speed that measured times predict."""
    was, now = (
        [astuple(layer_shape(parts)) for parts in layer_parts(model)] for model in (before, after)
    )
    heads, neurons = (", ".join(map(str, sizes)) for sizes in zip(*now, strict=True))
    kept = f"heads {heads}; neurons {neurons}"
    if times is None:
        return kept
    saved_s = times.tick_s * (times.count_ticks(was) - times.count_ticks(now))
    speedup = times.whole_s / (times.whole_s - saved_s)
    return f"{kept}; predicted to be {speedup:.2f} times as fast"
