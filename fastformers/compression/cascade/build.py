"""Put a better graph behind a student: measure both, set the threshold, and judge the cascade.

    student's graph, second graph, held-out rows -> [build] -> Cascade, cost profile -> bundle

The evaluation file is used once, at the end, to say how good the cascade is; which rows go on was
chosen without it. This module knows nothing of how rows are scored in a job.

Shape suffixes: N rows, C outputs.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.cascade.threshold import CascadePlan, plan_cascade
from fastformers.compression.quality import QualityGate
from fastformers.data.examples import Examples
from fastformers.data.held_out import HeldOut, hold_out
from fastformers.data.labels import SHOWN_NAMES
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
from fastformers.inference.engine import OnnxEngine, run_graph
from fastformers.inference.manifest import CASCADE_PRECISIONS, SECOND_FILE, TOKENIZER_FILE
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.inference.tokenizer import TokenizedRows
from fastformers.models.loading import label_names, task_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SecondGraph:
    """The graph that is behind a student.

    Attributes:
        graph: Its ONNX file.
        name: What it is, in a few words.
        precision, multiply_adds_per_token, num_layers, width: As in `Bundle`.
    """

    graph: Path
    name: str
    precision: str
    multiply_adds_per_token: int | None
    num_layers: int | None
    width: int | None

    @classmethod
    def of_artifact(cls, artifact: ModelArtifact, name: str) -> "SecondGraph":
        """A graph that stages made."""
        assert artifact.graph is not None
        encoder = read_encoder(artifact.model)
        return cls(
            graph=artifact.graph,
            name=name,
            precision=artifact.precision,
            multiply_adds_per_token=count_multiply_adds(encoder),
            num_layers=len(encoder.layers),
            width=encoder.width,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "SecondGraph":
        """The graph of a bundle."""
        return cls(
            graph=bundle.model_path,
            name=str(bundle),
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
        second_quality: Metric of the second graph on the held-out rows, at most 1.
    """

    plan: CascadePlan
    first_profile: CostProfile
    second_profile: CostProfile
    cost_profile: CostProfile
    second_quality: float


def build_cascade(
    first: Path,
    second: Path,
    rows: TokenizedRows,
    held_out: HeldOut,
    *,
    max_drop: float,
    max_length: int,
) -> BuiltCascade:
    """Set the threshold between two graphs, and measure what both cost on one core.

    Args:
        first: Graph that scores all rows.
        second: Graph that scores those which the first is unsure of.
        rows: Held-out rows as both graphs read them.
        held_out: Their targets.
        max_drop: Points of 100 x the metric that may be lost to the second graph.
        max_length: Longest row of the bundle, in tokens.

    Raises:
        QualityError: No threshold holds, or there is nothing to gain.
    """
    second_NC = run_graph(second, rows)
    plan = plan_cascade(
        run_graph(first, rows), second_NC, rows.lengths_N, held_out, max_drop=max_drop
    )
    own, other = measure_both(
        OnnxEngine(first), OnnxEngine(second), share=plan.share, max_length=max_length
    )
    return BuiltCascade(
        plan=plan,
        first_profile=own,
        second_profile=other,
        cost_profile=expected_profile(own, other, plan.share_by_length),
        second_quality=held_out.measure(second_NC, second_NC),
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
    """A cascade that was judged.

    Attributes:
        graph: ONNX file of the second graph, under its name in a bundle.
        cascade: What the bundle says of it.
        cost_profile: Seconds by length that both graphs are expected to take.
        seconds_per_million: Core-seconds of a million rows as long as the training rows.
        eval_logits_NC: Logits of the cascade for the evaluation rows.
    """

    graph: Path
    cascade: Cascade
    cost_profile: CostProfile
    seconds_per_million: float
    eval_logits_NC: NDArray[np.float32]


def make_cascade(
    first: ModelArtifact,
    second: SecondGraph,
    gate: QualityGate,
    held_out: Examples,
    path: Path,
    *,
    max_drop: float,
    second_quality: StageQuality | None = None,
) -> MadeCascade:
    """Put a second graph behind a student's, and judge both together on the evaluation file.

    Args:
        first: The student, with its graph.
        second: The second graph.
        gate: Measure of quality.
        held_out: Examples that set the threshold.
        path: The file that they come from, for messages.
        max_drop: Points of 100 x the metric that may be lost to the second graph.
        second_quality: Quality of the second graph alone; None to measure it.

    Raises:
        QualityError: No threshold holds, or the second graph alone is as cheap.
        InputError: The labels of the held-out examples do not suit the model.
    """
    assert first.graph is not None
    start = time.perf_counter()
    task = task_of(first.model)
    targets = hold_out(held_out, task, label_names(first.model), path)
    built = build_cascade(
        first.graph,
        second.graph,
        first.tokenize(held_out),
        targets,
        max_drop=max_drop,
        max_length=first.max_length,
    )
    lengths_N = first.tokenize(first.train).lengths_N
    _check_gain(built, lengths_N, max_drop)
    graph = first.directory("cascade") / SECOND_FILE
    copy_graph(second.graph, graph)
    if second_quality is None:
        second_NC = run_graph(second.graph, first.tokenize(gate.examples))
        size = measure_graph_bytes(graph)
        second_quality = gate.measure_logits("second", second_NC, model_bytes=size, seconds=0.0)
    joined_NC, share = _score(first, second, gate.examples, built.plan.threshold)
    quality = gate.measure_logits(
        "cascade",
        joined_NC,
        model_bytes=measure_graph_bytes(first.graph) + measure_graph_bytes(graph),
        seconds=time.perf_counter() - start,
    )
    cascade = Cascade(
        precision=second.precision,
        threshold=built.plan.threshold,
        share=built.plan.share,
        share_by_length=built.plan.share_by_length,
        num_held_out=built.plan.num_held_out,
        max_drop=max_drop,
        eval_share=share,
        first_profile=built.first_profile,
        second_profile=built.second_profile,
        second_quality=second_quality,
        quality=quality,
        multiply_adds_per_token=second.multiply_adds_per_token,
        num_layers=second.num_layers,
        width=second.width,
        input_names=OnnxEngine(second.graph).input_names,
    )
    _warn_if_known(built.second_quality, second_quality, path)
    return MadeCascade(
        graph=graph,
        cascade=cascade,
        cost_profile=built.cost_profile,
        seconds_per_million=built.cost_profile.estimate_seconds_per_million(lengths_N),
        eval_logits_NC=joined_NC,
    )


def _check_gain(built: BuiltCascade, lengths_N: NDArray[np.integer], max_drop: float) -> None:
    """Refuse a cascade that costs as much as its second graph alone on rows of these lengths."""
    seconds = built.cost_profile.estimate_seconds_per_million(lengths_N)
    alone = built.second_profile.estimate_seconds_per_million(lengths_N)
    if seconds >= alone:
        raise QualityError(
            f"--cascade-drop {max_drop:g}: {100 * built.plan.share:.0f}% of the held-out rows "
            f"would have to go on, which costs more ({seconds:,.0f} core-seconds a million rows) "
            f"than the second graph alone ({alone:,.0f}); allow more, or a cheaper student"
        )


def _score(
    first: ModelArtifact, second: SecondGraph, examples: Examples, threshold: float
) -> tuple[NDArray[np.float32], float]:
    """Logits (N, C) of the cascade, and the share of rows that go on."""
    logits_NC = first.logits(examples)
    unsure_N = margins(task_of(first.model), logits_NC) < threshold
    if unsure_N.any():
        rows = first.tokenize(examples.take(np.flatnonzero(unsure_N)))
        logits_NC[unsure_N] = run_graph(second.graph, rows)
    return logits_NC, float(unsure_N.mean())


def _warn_if_known(held_out: float, quality: StageQuality, path: Path) -> None:
    """Log one line where the second graph does better on the held-out rows than chance explains."""
    if quality.interval is not None and held_out > quality.interval[1]:
        logger.warning(
            "%s: the second graph has %s %.2f on the rows that were held out for the cascade, and "
            "%.2f on the evaluation file: its teacher was trained on them, so more rows go on than "
            "need to; give rows that are new to it by --cascade-held-out",
            path,
            quality.metric,
            100 * held_out,
            100 * quality.quality,
        )
