"""A candidate: a recipe that was run, with its quality, how sure that is, and its cost.

    RecipeConfig -> [candidate] -> stages run or read, quality, intervals, core-seconds of a row

This module does not choose among candidates, and knows nothing of what stages do.

Shape suffixes: N training rows.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fastformers.atomic_file import whole_file
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.cascade.build import MadeCascade, SecondGraph, judge_cascade
from fastformers.compression.quality import Certainty, QualityGate, quality_drop
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.stages.plan import plan_stages
from fastformers.data.examples import Examples
from fastformers.inference.cost_profile import CostProfile, measure_cost_profile
from fastformers.inference.cpu import read_processor
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.engine import OnnxEngine
from fastformers.models.forward import OnProgress

Kind = Literal[
    "teacher", "static vectors", "student", "pruned", "fewer tokens", "pooled tokens", "cascade"
]


@dataclass(frozen=True, kw_only=True)
class RecipeCandidate:
    """A recipe that was run and measured on the rows of a gate: one point of the frontier.

    Attributes:
        name: The shape of its model in a few words.
        config: Settings of the recipe.
        artifact: Result of the recipe, with a graph.
        qualities: Quality of the teacher, then after each stage.
        certainty: How sure `quality` is.
        further: Further graphs of the same model, each with its quality.
        cost_profile: Seconds of a row by its length, measured on this machine.
        seconds_per_million: Core-seconds of a million rows as long as the training rows.
        passes: Whether none of its graphs lost more than allowed.
        cascade: The second graph behind that of `artifact`, of which cost profile, seconds,
            certainty and `passes` then are, too; None where one graph scores all rows.
    """

    name: str
    config: RecipeConfig
    artifact: ModelArtifact
    qualities: tuple[StageQuality, ...]
    certainty: Certainty
    further: tuple[tuple[ModelArtifact, StageQuality], ...]
    cost_profile: CostProfile
    seconds_per_million: float
    passes: bool
    cascade: MadeCascade | None = None

    @property
    def kind(self) -> Kind:
        """The last way in which its model was made smaller."""
        return kind_of(self.config) if self.cascade is None else "cascade"

    @property
    def quality(self) -> StageQuality:
        """How good the bundle is in the end."""
        found = None if self.cascade is None else self.cascade.cascade.quality
        return found or self.qualities[-1]

    @property
    def drop(self) -> float:
        """Points of 100 x the metric by which it is below the teacher."""
        return quality_drop(self.quality.quality, teacher_quality=self.qualities[0].quality)

    def as_second(self) -> SecondGraph:
        """Its graph, to stand behind another one."""
        return SecondGraph.of_artifact(self.artifact, self.qualities[-1], self.name)

    def followed_by(self, made: MadeCascade, gate: QualityGate) -> "RecipeCandidate":
        """The candidate with a second graph behind its own, judged on the rows of the gate."""
        made, logits_NC = judge_cascade(made, self.artifact, self.qualities[-1].stage, gate)
        quality = made.cascade.quality
        return replace(
            self,
            name=f"{self.name}, then {made.second.name}",
            cascade=made,
            certainty=gate.certainty(logits_NC),
            cost_profile=made.cost_profile,
            seconds_per_million=made.seconds_per_million,
            passes=quality is not None and gate.passes(quality),
        )


def evaluate_candidate(
    teacher: ModelArtifact,
    config: RecipeConfig,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> RecipeCandidate:
    """Run one recipe, as far as its stages are not kept, and measure what it costs.

    Args:
        teacher: The artifact that the recipe begins with.
        config: Settings of the recipe.
        gate: Measure of quality, and how much of it may be lost.
        transfer: Further examples without labels.
        on_stage: Called with the quality after each stage.
        on_progress: Called with the name of the work, how much is done, and how much there is.
    """
    measured = _measure(teacher, config, gate, transfer, on_stage, on_progress)
    artifact = measured.artifact
    assert artifact.graph is not None
    profile = _measure_cost(measured.qualities[-1].stage, artifact, artifact.graph)
    lengths_N = artifact.tokenize(artifact.train).lengths_N
    return RecipeCandidate(
        name=describe(config),
        config=config,
        cost_profile=profile,
        seconds_per_million=profile.estimate_seconds_per_million(lengths_N),
        **vars(measured),
    )


def judge_again(
    one: RecipeCandidate,
    teacher: ModelArtifact,
    gate: QualityGate,
    *,
    transfer: Examples | None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> RecipeCandidate:
    """Measure a candidate whose stages are kept on other rows; what it costs stays as it is.

    Args:
        one: The candidate.
        teacher, gate, transfer, on_stage, on_progress: As for `evaluate_candidate`.
    """
    measured = _measure(teacher, one.config, gate, transfer, on_stage, on_progress)
    judged = replace(one, name=describe(one.config), cascade=None, **vars(measured))
    return judged if one.cascade is None else judged.followed_by(one.cascade, gate)


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What of a candidate depends on the rows that it is measured on, and what it is made of."""

    artifact: ModelArtifact
    qualities: tuple[StageQuality, ...]
    certainty: Certainty
    further: tuple[tuple[ModelArtifact, StageQuality], ...]
    passes: bool


def _measure(
    teacher: ModelArtifact,
    config: RecipeConfig,
    gate: QualityGate,
    transfer: Examples | None,
    on_stage: Callable[[StageQuality], None],
    on_progress: OnProgress,
) -> _Measured:
    """Run the stages of a recipe, or read them, and measure all of its graphs."""
    artifact, qualities = run_recipe(
        teacher, plan_stages(config, transfer), gate, on_stage=on_stage, on_progress=on_progress
    )
    further = []
    for precision in config.quantize.precisions[1:]:  # the stages before are kept, and are read
        stages = plan_stages(config, transfer, precision=precision)
        graph, (*_, quality) = run_recipe(teacher, stages, gate, on_progress=on_progress)
        on_stage(quality)
        further.append((graph, quality))
    return _Measured(
        artifact=artifact,
        qualities=tuple(qualities),
        certainty=gate.certainty(gate.outputs(qualities[-1].stage, artifact)),
        further=tuple(further),
        passes=all(gate.passes(quality) for quality in (qualities[-1], *(q for _, q in further))),
    )


def _measure_cost(stage: str, artifact: ModelArtifact, graph: Path) -> CostProfile:
    """The cost profile of a stage's graph; one of this machine and no other work is kept."""
    kept = artifact.directory(stage) / "cost_profile.json"
    engine = OnnxEngine(graph)
    if kept.is_file():
        profile = CostProfile.from_json(json.loads(kept.read_text(encoding="utf-8")))
        is_ours = (profile.engine, profile.cpu_model) == (engine.name, read_processor().model)
        if is_ours and not profile.is_rough:
            return profile
    profile = measure_cost_profile(engine, max_length=artifact.max_length)
    with whole_file(kept) as unfinished:
        unfinished.write_text(json.dumps(asdict(profile)), encoding="utf-8")
    return profile


def describe(config: RecipeConfig) -> str:
    """A recipe in a few words."""
    parts = []
    student, prune, tokens = config.student, config.prune, config.tokens
    if student.student is not None:
        parts.append(student.student.name)
    if student.is_static:
        parts.append("static vectors")
    elif student.student_layers is not None:
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


def kind_of(config: RecipeConfig) -> Kind:
    """The last way in which a recipe makes its model smaller."""
    if config.tokens.is_wanted:
        return "fewer tokens"
    if config.prune.is_wanted:
        return "pruned"
    if config.student.pool_tokens is not None:
        return "pooled tokens"
    if config.student.is_static:
        return "static vectors"
    return "student" if config.student.is_wanted else "teacher"
