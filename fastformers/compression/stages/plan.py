"""The stages of a recipe, in order.

    RecipeConfig -> [plan] -> stages -> recipe.run_recipe
    teacher -> [trim_vocabulary -> distill -> prune -> keep_tokens -> export -> quantize or float16]

This module knows nothing of what a stage does.
"""

from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    RecipeConfig,
)
from fastformers.compression.stages.graph_stages import export_stage, float16_stage, quantize_stage
from fastformers.compression.stages.model_stages import distill_stage, trim_vocabulary_stage
from fastformers.compression.stages.reducing_stages import keep_tokens_stage, prune_stage
from fastformers.data.examples import Examples
from fastformers.inference.manifest import FLOAT16_FILE, MODEL_FILE


def plan_stages(
    config: RecipeConfig, transfer: Examples | None, *, precision: str | None = None
) -> list[Stage]:
    """The stages of a recipe that end in one of its graphs, in order.

    Args:
        config: Settings of the recipe.
        transfer: Further examples without labels, for which the teacher's outputs alone count.
        precision: Precision of the graph; by default that which the bundle is named after.
    """
    first = config.quantize.precisions[0]
    precision = precision or first
    stages = []
    if config.trim.trim_vocabulary is not None:
        stages.append(trim_vocabulary_stage(config.trim))
    if config.student.is_wanted:
        stages.append(distill_stage(config.student, config.distill, transfer))
    if config.prune.is_wanted:
        stages.append(
            prune_stage(
                config.prune,
                config.distill,
                transfer,
                precision=first,
                keep_shares=config.tokens.shares,
            )
        )
    if config.tokens.is_wanted:
        stages.append(keep_tokens_stage(config.tokens, config.distill, transfer))
    stages.append(export_stage())
    if precision in ("int8", "int8-dynamic"):
        stages.append(quantize_stage(config.quantize))
    elif precision == "float16":
        stages.append(float16_stage(MODEL_FILE if precision == first else FLOAT16_FILE))
    return stages
