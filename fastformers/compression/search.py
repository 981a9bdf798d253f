"""Find the cheapest bundle that is still good enough.

    teacher + allowed drop -> [search] -> frontier of candidates -> the cheapest that passes

The search greedily follows the paper's steps (arXiv:2010.13382): int8 of the teacher itself, then
students of fewer and fewer layers until one loses too much, then the shallowest that passed,
pruned. Depth comes first because it saves most surely: a layer less saves its share of all work,
while a pruned layer still pays for its attention and norms. How far pruning may go is found by
bisection, because each candidate is a training: one that passes rules out all lighter pruning, one
that does not pass rules out all heavier pruning. Candidates share their stages through the working
directory, so a search that was interrupted, or is run again with another allowed drop, trains
nothing twice.

Candidates are measured on the evaluation file and the cheapest that passes is taken, so its
accuracy there is slightly too high; keep a third file for the number that you will quote. This
module knows nothing of what stages do.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.stages.plan import plan_stages
from fastformers.data.examples import Examples
from fastformers.errors import InputError, QualityError
from fastformers.inference.cost_profile import CostProfile, measure_cost_profile
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.engine import OnnxEngine
from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.forward import OnProgress
from fastformers.models.loading import task_of
from fastformers.models.losses import DISTILLABLE_TASKS

logger = logging.getLogger(__name__)

# Shares of heads and neurons, as in the paper's Table 3, and two steps beyond it.
PRUNING_SHARES = ((0.25, 0.25), (0.33, 0.5), (0.42, 0.67), (0.5, 0.75))


@dataclass(frozen=True, kw_only=True)
class RecipeCandidate:
    """A recipe that was run and measured: one point of the frontier.

    Attributes:
        name: The shape of its model in a few words.
        config: Settings of the recipe.
        artifact: Result of the recipe, with a graph.
        qualities: Quality of the teacher, then after each stage.
        further: Further graphs of the same model, each with its quality.
        cost_profile: Seconds of a row by its length, measured on this machine.
        seconds_per_million: Core-seconds of a million rows as long as the training rows.
        passes: Whether none of its graphs lost more than allowed.
    """

    name: str
    config: RecipeConfig
    artifact: ModelArtifact
    qualities: tuple[StageQuality, ...]
    further: tuple[tuple[ModelArtifact, StageQuality], ...]
    cost_profile: CostProfile
    seconds_per_million: float
    passes: bool


def search(
    teacher: ModelArtifact,
    base: RecipeConfig,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[RecipeCandidate, list[RecipeCandidate]]:
    """Try recipes from the lightest to the heaviest, and take the cheapest that passes.

    Args:
        teacher: The artifact that every recipe begins with.
        base: Settings that all candidates share: distillation, precision, vocabulary.
        gate: Measure of quality, and how much of it may be lost.
        transfer: Further examples without labels.
        on_candidate: Called with each candidate as it is measured.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The cheapest candidate that passes, and all of them in the order tried.

    Raises:
        QualityError: No candidate passes, not even int8 of the teacher.
    """
    tried: list[RecipeCandidate] = []

    def passes(config: RecipeConfig) -> bool:
        candidate = evaluate_candidate(
            teacher, config, gate, transfer=transfer, on_progress=on_progress
        )
        tried.append(candidate)
        on_candidate(candidate)
        return candidate.passes

    shallowest = base
    reason = _why_it_stays_whole(teacher)
    if reason is not None:
        logger.warning("the search tries int8 of the teacher alone: %s", reason)
    if passes(base) and reason is None:
        for config in shallower(base, teacher.model.config.num_hidden_layers):
            if not passes(config):
                break
            shallowest = config
        shares = list(PRUNING_SHARES)
        while shares:
            middle = len(shares) // 2
            heads, ffn = shares[middle]
            prune = replace(base.prune, prune_heads=heads, prune_ffn=ffn)
            has_passed = passes(replace(shallowest, prune=prune))
            shares = shares[middle + 1 :] if has_passed else shares[:middle]
    good = [candidate for candidate in tried if candidate.passes]
    if not good:
        raise QualityError(
            f"{tried[0].qualities[-1].stage} of the teacher itself loses more than "
            f"--max-accuracy-drop {gate.max_accuracy_drop:g}; allow more, or leave --search out "
            f"and give --precision float32{gate.how_to_go_on}"
        )
    return min(good, key=lambda candidate: candidate.seconds_per_million), tried


def _why_it_stays_whole(teacher: ModelArtifact) -> str | None:
    """Why there is no student of a teacher and no pruning; None where there is."""
    task = task_of(teacher.model)
    if task not in DISTILLABLE_TASKS:
        return f"its task is {task}, and students are for {', '.join(map(str, DISTILLABLE_TASKS))}"
    try:
        shrinkable_architecture_of(teacher.model.config)
    except InputError as error:
        return str(error)
    return None


def evaluate_candidate(
    teacher: ModelArtifact,
    config: RecipeConfig,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> RecipeCandidate:
    """Run one recipe and measure what it costs."""
    artifact, qualities = run_recipe(
        teacher, plan_stages(config, transfer), gate, on_stage=on_stage, on_progress=on_progress
    )
    further = []
    for precision in config.quantize.precisions[1:]:  # the stages before are kept, and are read
        stages = plan_stages(config, transfer, precision=precision)
        graph, (*_, quality) = run_recipe(teacher, stages, gate, on_progress=on_progress)
        on_stage(quality)
        further.append((graph, quality))
    assert artifact.graph is not None
    profile = measure_cost_profile(OnnxEngine(artifact.graph), max_length=artifact.max_length)
    lengths_N = artifact.tokenize(artifact.train).lengths_N
    return RecipeCandidate(
        name=describe(config),
        config=config,
        artifact=artifact,
        qualities=tuple(qualities),
        further=tuple(further),
        cost_profile=profile,
        seconds_per_million=1e6 * float(np.mean(profile.estimate_seconds(lengths_N))),
        passes=all(gate.passes(quality) for quality in (qualities[-1], *(q for _, q in further))),
    )


def shallower(base: RecipeConfig, num_layers: int) -> Iterator[RecipeConfig]:
    """Students of fewer and fewer of the teacher's layers: two thirds, half, a third, a sixth."""
    depths = dict.fromkeys(round(num_layers * share) for share in (2 / 3, 1 / 2, 1 / 3, 1 / 6))
    for depth in depths:
        if 1 <= depth < num_layers:
            yield replace(base, student=replace(base.student, student_layers=depth))


def describe(config: RecipeConfig) -> str:
    """A recipe in a few words."""
    parts = []
    student, prune, tokens = config.student, config.prune, config.tokens
    if student.student is not None:
        parts.append(student.student.name)
    if student.student_layers is not None:
        parts.append(f"{student.student_layers} layers")
    if student.student_width is not None:
        parts.append(f"{student.student_width} wide")
    if student.pool_tokens is not None:
        parts.append(f"{student.pool_how} of {student.pool_tokens} tokens")
    if not parts:
        parts.append("teacher")
    if prune.is_wanted:
        by = " by latency" if prune.prune_budget == "latency" else ""
        parts.append(f"-{prune.prune_heads:.0%} heads, -{prune.prune_ffn:.0%} FFN{by}")
    if tokens.is_wanted:
        parts.append("tokens " + "/".join(tokens.names))
    return ", ".join([*parts, config.quantize.precision])
