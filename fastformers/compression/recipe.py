"""A recipe: the stages from a teacher to a bundle, each checked, measured and kept.

    teacher -> [trim_vocabulary -> distill -> prune -> keep_tokens] -> export
            -> [quantize or float16] -> bundle

A stage is a function from one artifact of the model to the next, with a name, the settings that
decide its result, what it requires of its input and what it ensures of its result. `run_recipe`
runs them in order and measures accuracy and agreement with the teacher after each. The result of
a stage is kept in a working directory under a digest of everything that led to it, so that an
interrupted recipe resumes where it was, and recipes that begin with the same stages share their
results. Of several runs in one working directory one makes a stage, and the others wait for it.
Rows that a result is measured on lead to none, so that what a search measured on rows that
choose is measured on others at its end. This module knows nothing of what a stage does.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastformers.atomic_file import whole_file
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.quality import QualityGate
from fastformers.digest import digest_of
from fastformers.errors import FastformersError, InputError, StageError
from fastformers.files.file_lock import in_turn
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.manifest import TOKENIZER_FILE
from fastformers.inference.onnx_files import weights_path
from fastformers.models.forward import OnProgress
from fastformers.models.loading import load_model, save_tokenizer

logger = logging.getLogger(__name__)

_DONE = "stage.json"
_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: Name in tables and in the working directory.
        settings: Settings that decide the result, besides the artifact that comes in: the config's
            fields, as `digest_of` reads them.
        requires: Check that raises unless the artifact can enter the stage.
        run: Function that makes the next artifact in the given directory, which may hold files of
            an earlier attempt.
        ensures: Check that raises unless the result is sound; gets the artifact before and after.
        makes_student: Whether its result learned from the teacher: that of the artifact that came
            in, or what the first such stage was given. A stage that changes the teacher leaves it
            False.
        measure: Further settings, which only a measurement with the artifact that comes in can
            tell; the same each time in one working directory.
    """

    name: str
    settings: Mapping[str, object]
    requires: Callable[[ModelArtifact], None]
    run: Callable[[ModelArtifact, Path, OnProgress], ModelArtifact]
    ensures: Callable[[ModelArtifact, ModelArtifact], None]
    makes_student: bool = False
    measure: Callable[[ModelArtifact, OnProgress], Mapping[str, object]] = (
        lambda artifact, on_progress: {}
    )


def run_recipe(
    artifact: ModelArtifact,
    stages: Sequence[Stage],
    gate: QualityGate,
    *,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> tuple[ModelArtifact, list[StageQuality]]:
    """Run stages in order and measure quality after each; results that were kept are read.

    No quality is too low here: a later stage may recover what an earlier one lost.

    Args:
        artifact: The teacher.
        stages: Stages to run, in order.
        gate: Measure of quality.
        on_stage: Called with each measurement as it is made.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Returns:
        The last artifact, and the quality of the teacher and after each stage.

    Raises:
        StageError: A stage's pre- or postcondition does not hold.
        InputError: A setting, file or label cannot be used with the model.
    """
    qualities = [gate.teacher]
    on_stage(gate.teacher)
    for stage in stages:
        if stage.makes_student and artifact.teacher is None:
            artifact = replace(artifact, teacher=artifact)
        key = _settle_key(stage, artifact, on_progress)
        directory = _directory(stage, key, artifact.work)
        kept = _load(directory, replace(artifact, key=key))
        if kept is None:
            with in_turn(directory):  # another run may have made it meanwhile
                kept = _load(directory, replace(artifact, key=key)) or _make(
                    stage, artifact, key, directory, on_progress, qualities
                )
        artifact, seconds = kept
        quality = gate.measure(stage.name, artifact, seconds, on_progress)
        qualities.append(quality)
        on_stage(quality)
    return artifact, qualities


def stage_directories(artifact: ModelArtifact, stages: Sequence[Stage]) -> list[Path]:
    """Where `run_recipe` keeps the result of each stage, without running any.

    For what it measures first, and has not yet, these are directories that are not there.
    """
    key, directories = artifact.key, []
    for stage in stages:
        key = digest_of(key, stage.name, dict(stage.settings))
        settled = _settled(stage, key, artifact.work)
        key = settled.read_text(encoding="utf-8") if settled.is_file() else key
        directories.append(_directory(stage, key, artifact.work))
    return directories


def is_kept(directory: Path) -> bool:
    """Whether a stage's directory holds its result."""
    return (directory / _DONE).is_file()


def _settle_key(stage: Stage, artifact: ModelArtifact, on_progress: OnProgress) -> str:
    """Digest of everything that leads to the result of a stage, what it measures included."""
    key = digest_of(artifact.key, stage.name, dict(stage.settings))
    measured = stage.measure(artifact, on_progress)
    if not measured:
        return key
    with whole_file(_settled(stage, key, artifact.work)) as unfinished:
        key = digest_of(artifact.key, stage.name, {**stage.settings, **measured})
        unfinished.write_text(key, encoding="utf-8")
    return key


def _settled(stage: Stage, key: str, work: Path) -> Path:
    """File of the key that a stage has with what it measures, by the key that it has without."""
    return work / f"{stage.name}-{key[:16]}.key"


def _directory(stage: Stage, key: str, work: Path) -> Path:
    return work / f"{stage.name}-{key[:16]}"


def _make(
    stage: Stage,
    artifact: ModelArtifact,
    key: str,
    directory: Path,
    on_progress: OnProgress,
    done: Sequence[StageQuality],
) -> tuple[ModelArtifact, float]:
    """Run a stage and keep its result; returns that and its seconds."""
    directory.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    after = _run_stage(stage, artifact, directory, on_progress, done)
    seconds = time.perf_counter() - start
    after = replace(after, key=key)
    _keep(directory, artifact, after, seconds)
    return after, seconds


def _run_stage(
    stage: Stage,
    artifact: ModelArtifact,
    directory: Path,
    on_progress: OnProgress,
    done: Sequence[StageQuality],
) -> ModelArtifact:
    try:
        stage.requires(artifact)
        result = stage.run(artifact, directory, on_progress)
        stage.ensures(artifact, result)
    except InputError:
        raise
    except FastformersError as error:
        names = ", ".join(quality.stage for quality in done)
        raise StageError(f"stage {stage.name} (after {names}): {error}") from error
    return result


def _keep(directory: Path, before: ModelArtifact, after: ModelArtifact, seconds: float) -> None:
    """Save the result of a stage; the marker is written last.

    A new model is kept as a directory that `from_pretrained`, and so `ablate --student`, can read.
    """
    if after.model is not before.model:
        after.model.save_pretrained(directory / _MODEL)
        save_tokenizer(after.tokenizer_json, directory / _MODEL)
    graph = None if after.graph is None else str(after.graph.relative_to(after.work))
    fields = {
        "seconds": seconds,
        "graph": graph,
        "precision": after.precision,
        "float_projections": after.float_projections,
        "pruning": after.pruning,
    }
    with whole_file(directory / _DONE) as unfinished:
        unfinished.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def _load(directory: Path, artifact: ModelArtifact) -> tuple[ModelArtifact, float] | None:
    """Result of an earlier run of the same stage, and its seconds; None if there is none."""
    if not is_kept(directory):
        return None
    fields = json.loads((directory / _DONE).read_text(encoding="utf-8"))
    graph = None if fields["graph"] is None else artifact.work / fields["graph"]
    if graph is not None and not weights_path(graph).is_file():
        return None  # the graph without its weights
    model, tokenizer_json = artifact.model, artifact.tokenizer_json
    if (directory / _MODEL).is_dir():
        model = load_model(directory / _MODEL)
        tokenizer_json = (directory / _MODEL / TOKENIZER_FILE).read_text(encoding="utf-8")
    after = replace(
        artifact,
        model=model,
        tokenizer_json=tokenizer_json,
        graph=graph,
        precision=fields["precision"],
        float_projections=tuple(fields["float_projections"]),
        pruning=fields.get("pruning"),
    )
    return after, float(fields["seconds"])
