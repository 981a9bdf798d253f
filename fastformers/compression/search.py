"""Find the cheapest bundle that is still good enough.

    teacher + allowed drop -> [search] -> frontier of candidates -> the cheapest that holds

A greedy walk down the paper's ladder (arXiv:2010.13382): int8 of the teacher itself, then students
of fewer and fewer layers until one loses too much, then the shallowest that held, pruned. Depth
comes first because it is the surest saving: a layer less is that much less of everything, while a
pruned layer still pays for its attention and norms. How far pruning may go is found by bisection,
for each try is a training: what holds rules out all lighter pruning, what does not all heavier.
Candidates share their stages through the working directory, so a search that was interrupted, or
is run again with another allowance, trains nothing twice.

A candidate is judged on the evaluation file and the cheapest of several is taken, so its accuracy
there is a little flattering; keep a third file for the number that you will quote.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import RecipeConfig, plan_stages
from fastformers.data.examples import Examples
from fastformers.errors import QualityError
from fastformers.inference.bundle import StageQuality
from fastformers.inference.cost_profile import CostProfile, measure_cost_profile
from fastformers.inference.engine import OnnxEngine
from fastformers.models.forward import OnProgress

# Shares of heads and neurons, as in the paper's Table 3, and two steps beyond it.
PRUNING_LADDER = ((0.25, 0.25), (0.33, 0.5), (0.42, 0.67), (0.5, 0.75))


@dataclass(frozen=True, kw_only=True)
class RecipeCandidate:
    """One point of the frontier.

    Attributes:
        name: Of its shape, for people.
        config: Its recipe.
        artifact: Its graph.
        qualities: After each stage.
        cost_profile: Of its graph, measured here.
        seconds_per_million: On one core, for rows as long as the training rows.
        passes: Whether it lost no more than allowed.
    """

    name: str
    config: RecipeConfig
    artifact: ModelArtifact
    qualities: tuple[StageQuality, ...]
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
    """Walk the ladder.

    Args:
        teacher: The teacher.
        base: What all candidates have in common: how to distill, precision, vocabulary.
        gate: Measures quality and says how much may be lost.
        transfer: Further examples without labels.
        on_candidate: Called with each candidate as it is measured.
        on_progress: Called with what is done, how much of it and of how much.

    Returns:
        The cheapest candidate that holds, and all of them in the order tried.

    Raises:
        QualityError: Not even int8 of the teacher holds.
    """
    tried: list[RecipeCandidate] = []

    def passes(config: RecipeConfig) -> bool:
        candidate = evaluate_candidate(
            teacher, config, gate, transfer=transfer, on_progress=on_progress
        )
        tried.append(candidate)
        on_candidate(candidate)
        return candidate.passes

    held = base
    if passes(base):
        for config in shallower(base, teacher.model.config.num_hidden_layers):
            if not passes(config):
                break
            held = config
        rungs = list(PRUNING_LADDER)
        while rungs:
            middle = len(rungs) // 2
            heads, ffn = rungs[middle]
            is_held = passes(replace(held, prune_heads=heads, prune_ffn=ffn))
            rungs = rungs[middle + 1 :] if is_held else rungs[:middle]
    good = [candidate for candidate in tried if candidate.passes]
    if not good:
        raise QualityError(
            f"{tried[0].qualities[-1].stage} of the teacher itself loses more than "
            f"--max-accuracy-drop {gate.max_accuracy_drop:g}; allow more or use --precision float32"
        )
    return min(good, key=lambda candidate: candidate.seconds_per_million), tried


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
    assert artifact.graph is not None
    profile = measure_cost_profile(OnnxEngine(artifact.graph), max_length=artifact.max_length)
    lengths_N = artifact.tokenize(artifact.train).lengths_N
    return RecipeCandidate(
        name=describe(config),
        config=config,
        artifact=artifact,
        qualities=tuple(qualities),
        cost_profile=profile,
        seconds_per_million=1e6 * float(np.mean(profile.estimate_seconds(lengths_N))),
        passes=gate.passes(qualities[-1]),
    )


def shallower(base: RecipeConfig, num_layers: int) -> Iterator[RecipeConfig]:
    """Students of fewer and fewer of the teacher's layers: two thirds, half, a third, a sixth."""
    depths = dict.fromkeys(round(num_layers * share) for share in (2 / 3, 1 / 2, 1 / 3, 1 / 6))
    for depth in depths:
        if 1 <= depth < num_layers:
            yield replace(base, student_layers=depth)


def describe(config: RecipeConfig) -> str:
    """A recipe in a few words."""
    parts = []
    if config.student is not None:
        parts.append(config.student.name)
    if config.student_layers is not None:
        parts.append(f"{config.student_layers} layers")
    if config.student_width is not None:
        parts.append(f"{config.student_width} wide")
    if not parts:
        parts.append("teacher")
    if config.prunes:
        parts.append(f"-{config.prune_heads:.0%} heads, -{config.prune_ffn:.0%} FFN")
    return ", ".join([*parts, config.precision])
