"""A recipe: the stages from a teacher to a bundle, each checked, measured and kept.

    teacher -> [trim_vocabulary -> distill -> prune] -> export -> [quantize or float16] -> bundle

A stage is a function from one draft of the model to the next, with a name, the settings that
decide its result, what it requires of its input and what it ensures of its result. `run_recipe`
runs them in order and measures accuracy and agreement with the teacher after each. What a stage
made is kept in a working directory under a name that is a digest of all that led to it, so an
interrupted recipe goes on where it was, and recipes that begin alike share their beginning.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.bundle import TOKENIZER_FILE, StageQuality
from fastformers.errors import FastformersError, InputError, QualityError, StageError
from fastformers.evaluate import measure_quality, quality_drop, teacher_logits
from fastformers.examples import Examples
from fastformers.export import label_names, load_teacher, max_positions, task_of
from fastformers.graph_files import measure_graph_bytes, weights_path
from fastformers.quantize import run_graph
from fastformers.targets import encode_targets
from fastformers.tasks import metric_name
from fastformers.tokenizer import TokenizedRows, Tokenizer
from fastformers.training import OnProgress
from fastformers.whole_file import whole_file

logger = logging.getLogger(__name__)

_DONE = "stage.json"
_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The model between two stages.

    Attributes:
        key: Digest of all that made it what it is.
        model: The PyTorch model, while there is one to change.
        tokenizer_json: Its serialized tokenizer.
        max_length: Tokens a row is truncated to.
        text_pairs: Whether a row is two texts.
        train: Labelled training examples.
        train_path: Where they come from, for messages.
        work: Directory for what stages make.
        graph: The exported graph.
        precision: Of the graph.
        float_projections: What an int8 graph still does in float, by its name in the graph.
    """

    key: str
    model: PreTrainedModel
    tokenizer_json: str
    max_length: int
    text_pairs: bool
    train: Examples
    train_path: Path
    work: Path
    graph: Path | None = None
    precision: str = "float32"
    float_projections: tuple[str, ...] = ()

    def tokenize(self, examples: Examples) -> TokenizedRows:
        """Token ids of examples as this draft reads them."""
        tokenizer = Tokenizer(self.tokenizer_json, max_length=self.max_length)
        return tokenizer.encode(examples.texts, examples.text_pairs)

    def targets(self, examples: Examples) -> NDArray[np.generic] | None:
        """What the model should say of some training examples; None where nothing tells.

        Raises:
            InputError: A label does not suit the model.
        """
        task = task_of(self.model)
        if task == "embedding":
            return None
        return encode_targets(examples, task, label_names(self.model), self.train_path)

    def logits(
        self,
        examples: Examples,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> NDArray[np.float32]:
        """Logits (N, C) of the graph, or of the PyTorch model while there is no graph."""
        rows = self.tokenize(examples)
        if self.graph is not None:
            return run_graph(self.graph, rows)
        return teacher_logits(self.model, rows, on_progress)

    def directory(self, what: str) -> Path:
        """Where something that belongs to this very draft is kept."""
        directory = self.work / f"{what}-{self.key[:16]}"
        directory.mkdir(parents=True, exist_ok=True)
        return directory


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: As shown in tables.
        settings: Values that decide the result, beside the draft that comes in.
        requires: Raises unless the draft can enter the stage.
        run: Makes the next draft, in the directory given, which an earlier try may have left.
        ensures: Raises unless the result is sound; gets the draft before and after.
    """

    name: str
    settings: Mapping[str, str | float | int | bool | None]
    requires: Callable[[Draft], None]
    run: Callable[[Draft, Path, OnProgress], Draft]
    ensures: Callable[[Draft, Draft], None]


def digest_of(*parts: object) -> str:
    """Digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class QualityGate:
    """The held-out examples, and what the teacher says of them."""

    def __init__(
        self,
        teacher: Draft,
        examples: Examples,
        path: Path,
        *,
        max_accuracy_drop: float,
        on_progress: OnProgress = lambda what, done, total: None,
    ) -> None:
        """Let the teacher answer the evaluation file.

        Args:
            teacher: The draft that all later ones are compared with.
            examples: Held-out examples, N rows.
            path: Where they come from, for messages.
            max_accuracy_drop: Points of 100 x the task's metric that a recipe may cost.
            on_progress: Called with rows done and in all.

        Raises:
            InputError: The labels do not match the model, or rows are longer than it can read.
        """
        positions = max_positions(teacher.model.config)
        if teacher.max_length > positions:
            raise InputError(
                f"--max-length {teacher.max_length}: the teacher has {positions} positions"
            )
        self.examples = examples
        self.max_accuracy_drop = max_accuracy_drop
        self.task = task_of(teacher.model)
        names = label_names(teacher.model)
        self._targets_N = encode_targets(examples, self.task, names, path)
        self._groups_N = None if examples.groups is None else np.array(examples.groups)
        kept = teacher.directory("teacher") / "eval_logits.npy"
        if not kept.is_file():
            logits_NC = teacher.logits(examples, on_progress)
            with whole_file(kept) as unfinished:
                np.save(unfinished, logits_NC)
        self._teacher_logits_NC: NDArray[np.float32] = np.load(kept)
        self.teacher = self._measure(self._teacher_logits_NC, "teacher", teacher, 0.0)

    def measure(
        self, stage: str, draft: Draft, seconds: float, on_progress: OnProgress
    ) -> StageQuality:
        """Quality of a draft; `seconds` is what its stage took."""
        return self._measure(draft.logits(self.examples, on_progress), stage, draft, seconds)

    def drop(self, quality: StageQuality) -> float:
        """Points of 100 x the metric that were lost."""
        return quality_drop(quality.quality, teacher_quality=self.teacher.quality)

    def holds(self, quality: StageQuality) -> bool:
        """Whether no more was lost than allowed."""
        return self.drop(quality) <= self.max_accuracy_drop

    def check(self, quality: StageQuality) -> None:
        """Refuse what lost too much.

        Raises:
            QualityError: It lost more than allowed.
        """
        if not self.holds(quality):
            raise QualityError(
                f"{quality.stage}: {quality.metric} {100 * quality.quality:.2f} is "
                f"{self.drop(quality):.2f} points below the teacher's "
                f"{100 * self.teacher.quality:.2f}, more than --max-accuracy-drop "
                f"{self.max_accuracy_drop:g}; allow more, or compress less"
            )

    def _measure(
        self, logits_NC: NDArray[np.float32], stage: str, draft: Draft, seconds: float
    ) -> StageQuality:
        quality = measure_quality(
            logits_NC,
            teacher_logits_NC=self._teacher_logits_NC,
            labels_N=self._targets_N,
            task=self.task,
            groups_N=self._groups_N,
        )
        return StageQuality(
            stage=stage,
            quality=quality.quality,
            agreement=quality.agreement,
            num_rows=len(self._targets_N),
            model_bytes=_model_bytes(draft),
            seconds=seconds,
            metric=metric_name(self.task),
            other_metrics=quality.other_metrics,
        )


def run_recipe(
    draft: Draft,
    stages: Sequence[Stage],
    gate: QualityGate,
    *,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[Draft, list[StageQuality]]:
    """Run stages in order and measure quality after each; what is done already is read.

    Nothing is refused here for its quality: a stage may lose what a later one wins back.

    Args:
        draft: The teacher.
        stages: What to do to it.
        gate: Measures quality.
        on_stage: Called with each measurement as it is made.
        on_progress: Called with what is done, how much of it and of how much.

    Returns:
        The last draft, and the quality of the teacher and after each stage.

    Raises:
        StageError: A stage's pre- or postcondition does not hold.
        InputError: The training file's labels do not match the model.
    """
    qualities = [gate.teacher]
    on_stage(gate.teacher)
    for stage in stages:
        key = digest_of(draft.key, stage.name, dict(stage.settings))
        directory = draft.work / f"{stage.name}-{key[:16]}"
        kept = _load(directory, replace(draft, key=key))
        if kept is None:
            directory.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            after = _run_stage(stage, draft, directory, on_progress, qualities)
            seconds = time.perf_counter() - start
            after = replace(after, key=key)
            quality = gate.measure(stage.name, after, seconds, on_progress)
            _keep(directory, draft, after, quality)
            kept = after, quality
        draft, quality = kept
        qualities.append(quality)
        on_stage(quality)
    return draft, qualities


def _run_stage(
    stage: Stage,
    draft: Draft,
    directory: Path,
    on_progress: OnProgress,
    done: Sequence[StageQuality],
) -> Draft:
    try:
        stage.requires(draft)
        result = stage.run(draft, directory, on_progress)
        stage.ensures(draft, result)
    except InputError:
        raise
    except FastformersError as error:
        names = ", ".join(quality.stage for quality in done)
        raise StageError(f"stage {stage.name} (after {names}): {error}") from error
    return result


def _keep(directory: Path, before: Draft, after: Draft, quality: StageQuality) -> None:
    """Write down what a stage made; the marker comes last.

    A new model is kept as a directory that `from_pretrained`, and so `ablate --student`, can read.
    """
    if after.model is not before.model:
        after.model.save_pretrained(directory / _MODEL)
        tokenizer = directory / _MODEL / TOKENIZER_FILE
        tokenizer.write_text(after.tokenizer_json, encoding="utf-8")
    graph = None if after.graph is None else str(after.graph.relative_to(after.work))
    fields = {
        "quality": asdict(quality),
        "graph": graph,
        "precision": after.precision,
        "float_projections": after.float_projections,
    }
    with whole_file(directory / _DONE) as unfinished:
        unfinished.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def _load(directory: Path, draft: Draft) -> tuple[Draft, StageQuality] | None:
    """What an earlier run of the same stage made."""
    if not (directory / _DONE).is_file():
        return None
    fields = json.loads((directory / _DONE).read_text(encoding="utf-8"))
    graph = None if fields["graph"] is None else draft.work / fields["graph"]
    if graph is not None and not weights_path(graph).is_file():
        return None  # the graph without its other half
    model, tokenizer_json = draft.model, draft.tokenizer_json
    if (directory / _MODEL).is_dir():
        model = load_teacher(directory / _MODEL)
        tokenizer_json = (directory / _MODEL / TOKENIZER_FILE).read_text(encoding="utf-8")
    after = replace(
        draft,
        model=model,
        tokenizer_json=tokenizer_json,
        graph=graph,
        precision=fields["precision"],
        float_projections=tuple(fields["float_projections"]),
    )
    return after, StageQuality(**fields["quality"])


def _model_bytes(draft: Draft) -> int:
    if draft.graph is not None:
        return measure_graph_bytes(draft.graph)
    return sum(p.numel() * p.element_size() for p in draft.model.parameters())
