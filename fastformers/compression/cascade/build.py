"""Put a better graph behind a student: measure both, set the threshold, and judge the cascade.

    student's graph, second graph, rows that choose -> [build] -> MadeCascade
    MadeCascade, rows to judge on -> [build] -> Cascade, cost profile -> bundle

Which rows go on is chosen on rows that train nothing and are not evaluated. This module knows
nothing of how rows are scored in a job.

Shape suffixes: N rows, C outputs.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.cascade.threshold import CascadePlan, plan_cascade
from fastformers.compression.quality import QualityGate
from fastformers.data.held_out import HeldOut
from fastformers.data.labels import SHOWN_NAMES
from fastformers.digest import digest_of
from fastformers.errors import InputError, QualityError
from fastformers.export.encoder import count_multiply_adds
from fastformers.export.external_data import copy_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.cascade.graphs import measure_both
from fastformers.inference.cascade.margins import margins
from fastformers.inference.cascade.record import Cascade, expected_profile
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.manifest import CASCADE_PRECISIONS, SECOND_FILE, TOKENIZER_FILE
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.models.loading import task_of


@dataclass(frozen=True, kw_only=True)
class SecondGraph:
    """The graph that is behind a student.

    Attributes:
        artifact: What has the graph, and reads rows as the student does.
        stage: Stage that made it.
        name: What it is, in a few words.
        seconds: Duration of that stage.
        precision, multiply_adds_per_token, num_layers, width: As in `Bundle`.
    """

    artifact: ModelArtifact
    stage: str
    name: str
    seconds: float
    precision: str
    multiply_adds_per_token: int | None
    num_layers: int | None
    width: int | None

    @property
    def graph(self) -> Path:
        """Its ONNX file."""
        assert self.artifact.graph is not None
        return self.artifact.graph

    @classmethod
    def of_artifact(
        cls, artifact: ModelArtifact, quality: StageQuality, name: str
    ) -> "SecondGraph":
        """A graph that stages made, the last of which has this quality."""
        encoder = read_encoder(artifact.model)
        return cls(
            artifact=artifact,
            stage=quality.stage,
            name=name,
            seconds=quality.seconds,
            precision=artifact.precision,
            multiply_adds_per_token=count_multiply_adds(encoder),
            num_layers=len(encoder.layers),
            width=encoder.width,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle, teacher: ModelArtifact) -> "SecondGraph":
        """The graph of a bundle that reads rows as a teacher does."""
        key = digest_of(teacher.key, bundle.digest)
        return cls(
            artifact=replace(teacher, key=key, graph=bundle.model_path),
            stage="second",
            name=str(bundle),
            seconds=0.0,
            precision=bundle.precision,
            multiply_adds_per_token=bundle.multiply_adds_per_token,
            num_layers=bundle.num_layers,
            width=bundle.width,
        )


@dataclass(frozen=True, kw_only=True)
class BuiltCascade:
    """A cascade of two graphs: which rows go on, and what a row costs.

    Attributes:
        plan: Which rows go on.
        first_profile, second_profile: Seconds by length of each graph.
        cost_profile: Seconds by length that both are expected to take.
    """

    plan: CascadePlan
    first_profile: CostProfile
    second_profile: CostProfile
    cost_profile: CostProfile


def build_cascade(
    first: Path,
    second: Path,
    logits: tuple[NDArray[np.float32], NDArray[np.float32]],
    lengths_N: NDArray[np.integer],
    held_out: HeldOut,
    *,
    max_drop: float,
    max_length: int,
) -> BuiltCascade:
    """Set the threshold between two graphs, and measure what both cost on one core.

    Args:
        first: Graph that scores all rows.
        second: Graph that scores those which the first is unsure of.
        logits: Logits (N, C) of both for rows that choose.
        lengths_N: Tokens of these rows.
        held_out: Their targets.
        max_drop: Points of 100 x the metric that may be lost to the second graph.
        max_length: Longest row of the bundle, in tokens.

    Raises:
        QualityError: No threshold holds, or there is nothing to gain.
    """
    plan = plan_cascade(*logits, lengths_N, held_out, max_drop=max_drop)
    own, other = measure_both(
        OnnxEngine(first), OnnxEngine(second), share=plan.share, max_length=max_length
    )
    return BuiltCascade(
        plan=plan,
        first_profile=own,
        second_profile=other,
        cost_profile=expected_profile(own, other, plan.share_by_length),
    )


def check_second(path: Path, teacher: ModelArtifact, labels: tuple[str, ...]) -> Bundle:
    """Open the bundle that is to be behind a student, and refuse one that reads otherwise.

    Args:
        path: Its directory.
        teacher: The student's teacher.
        labels: Labels of the cascade.

    Raises:
        BundleError: It is no bundle.
        InputError: Its graph cannot stand behind the student's; says why.
    """
    bundle = open_bundle(path)
    flag = f"--cascade-with {path}"
    if bundle.cascade is not None:
        raise InputError(f"{flag}: is a cascade itself; give a bundle of one graph")
    if bundle.precision not in CASCADE_PRECISIONS:
        raise InputError(
            f"{flag}: is {bundle.precision}; the graphs of a cascade are for CPUs, "
            f"{' or '.join(CASCADE_PRECISIONS)}: give such a bundle"
        )
    own = (task_of(teacher.model).name, labels, teacher.max_length, teacher.text_pairs)
    for what, is_own, its in (
        ("task", bundle.task.name, own[0]),
        ("labels", bundle.labels, own[1]),
        ("max length", bundle.max_length, own[2]),
        ("text pairs", bundle.text_pairs, own[3]),
    ):
        if is_own != its:
            raise InputError(
                f"{flag}: {what} {_shown(is_own)}, and the student's {_shown(its)}; give a bundle "
                "of the same teacher and settings"
            )
    tokenizer = json.loads((bundle.path / TOKENIZER_FILE).read_text(encoding="utf-8"))
    if tokenizer != json.loads(teacher.tokenizer_json):
        raise InputError(
            f"{flag}: has another tokenizer than the student; give a bundle of the same teacher"
        )
    return bundle


def _shown(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    more = ", ..." if len(value) > SHOWN_NAMES else ""
    return ", ".join(map(repr, value[:SHOWN_NAMES])) + more


@dataclass(frozen=True, kw_only=True)
class MadeCascade:
    """A cascade whose threshold is set.

    Attributes:
        second: The second graph.
        graph: Its ONNX file, under its name in a bundle.
        cascade: What the bundle says of it; its quality is None until it is judged.
        cost_profile: Seconds by length that both graphs are expected to take.
        seconds_per_million: Core-seconds of a million rows as long as the training rows.
        seconds: Duration of the making.
    """

    second: SecondGraph
    graph: Path
    cascade: Cascade
    cost_profile: CostProfile
    seconds_per_million: float
    seconds: float


def make_cascade(
    first: ModelArtifact, stage: str, second: SecondGraph, gate: QualityGate, *, max_drop: float
) -> MadeCascade:
    """Put a second graph behind a student's.

    Args:
        first: The student, with its graph.
        stage: The stage that made that.
        second: The second graph.
        gate: The rows that choose.
        max_drop: Points of 100 x the metric that may be lost to the second graph.

    Raises:
        QualityError: No threshold holds, or the second graph alone is as cheap.
    """
    assert first.graph is not None
    start = time.perf_counter()
    built = build_cascade(
        first.graph,
        second.graph,
        _logits_of_both(first, stage, second, gate),
        first.tokenize(gate.examples).lengths_N,
        gate.held_out,
        max_drop=max_drop,
        max_length=first.max_length,
    )
    lengths_N = first.tokenize(first.train).lengths_N
    _check_gain(built, lengths_N, max_drop)
    both = replace(first, key=digest_of(first.key, second.artifact.key))
    graph = both.directory("cascade") / SECOND_FILE
    copy_graph(second.graph, graph)
    cascade = Cascade(
        precision=second.precision,
        threshold=built.plan.threshold,
        share=built.plan.share,
        share_by_length=built.plan.share_by_length,
        num_held_out=built.plan.num_held_out,
        max_drop=max_drop,
        first_profile=built.first_profile,
        second_profile=built.second_profile,
        multiply_adds_per_token=second.multiply_adds_per_token,
        num_layers=second.num_layers,
        width=second.width,
        input_names=OnnxEngine(second.graph).input_names,
    )
    return MadeCascade(
        second=second,
        graph=graph,
        cascade=cascade,
        cost_profile=built.cost_profile,
        seconds_per_million=built.cost_profile.estimate_seconds_per_million(lengths_N),
        seconds=time.perf_counter() - start,
    )


def judge_cascade(
    made: MadeCascade, first: ModelArtifact, stage: str, gate: QualityGate
) -> tuple[MadeCascade, NDArray[np.float32]]:
    """Measure a cascade, and its second graph alone, on the rows of a gate.

    Args:
        made: The cascade.
        first: The student, with its graph.
        stage: The stage that made that.
        gate: The rows to judge on.

    Returns:
        The cascade with its quality on these rows, and its logits (N, C) for them.
    """
    assert first.graph is not None
    first_NC, second_NC = _logits_of_both(first, stage, made.second, gate)
    unsure_N = margins(gate.held_out.task, first_NC) < made.cascade.threshold
    joined_NC = np.where(unsure_N[:, np.newaxis], second_NC, first_NC)
    size = measure_graph_bytes(made.graph)
    judged = replace(
        made.cascade,
        eval_share=float(unsure_N.mean()),
        second_quality=gate.measure_logits(
            "second", second_NC, model_bytes=size, seconds=made.second.seconds
        ),
        quality=gate.measure_logits(
            "cascade",
            joined_NC,
            model_bytes=measure_graph_bytes(first.graph) + size,
            seconds=made.seconds,
        ),
    )
    return replace(made, cascade=judged), joined_NC


def _logits_of_both(
    first: ModelArtifact, stage: str, second: SecondGraph, gate: QualityGate
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (N, C) of both graphs for the rows of a gate."""
    return gate.outputs(stage, first), gate.outputs(second.stage, second.artifact)


def _check_gain(built: BuiltCascade, lengths_N: NDArray[np.integer], max_drop: float) -> None:
    """Refuse a cascade that costs as much as its second graph alone on rows of these lengths."""
    seconds = built.cost_profile.estimate_seconds_per_million(lengths_N)
    alone = built.second_profile.estimate_seconds_per_million(lengths_N)
    if seconds >= alone:
        raise QualityError(
            f"--cascade-drop {max_drop:g}: {100 * built.plan.share:.0f}% of the rows that choose "
            f"would have to go on, which costs more ({seconds:,.0f} core-seconds a million rows) "
            f"than the second graph alone ({alone:,.0f}); allow more, or a cheaper student"
        )
