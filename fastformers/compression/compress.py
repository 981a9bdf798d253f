"""Compress a teacher into a bundle: the offline half from end to end.

    teacher + labeled texts -> [compress: recipe or search] -> model, quality, cost -> bundle

This module knows nothing of how stages work.
"""

import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.own_pipeline import check_own_pipeline
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe_config import CompressConfig
from fastformers.compression.search import RecipeCandidate, evaluate_candidate, search
from fastformers.compression.stages.token_checks import check_token_settings
from fastformers.data.examples import Examples
from fastformers.data.targets import settle_labels
from fastformers.data.training_files import TrainingFiles
from fastformers.digest import digest_of, library_versions
from fastformers.errors import InputError
from fastformers.export.encoder import count_multiply_adds
from fastformers.export.read_encoder import read_encoder
from fastformers.files.hub import FoundModel, find_model
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.description.further_graph import FurtherGraph
from fastformers.inference.description.label_names import TEACHER_LABELS, check_label_names
from fastformers.inference.description.stage_quality import StageQuality
from fastformers.inference.engine import OnnxEngine
from fastformers.inference.tasks import EMBEDDING
from fastformers.models.architectures import shrinkable_architecture_of
from fastformers.models.forward import OnProgress
from fastformers.models.loading import (
    default_max_length,
    label_names,
    load_model,
    load_tokenizer,
    task_of,
)
from fastformers.models.losses import DISTILLABLE_TASKS
from fastformers.models.model_files import digest_checkpoint
from fastformers.models.variants.token_reduction import reduction_of


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Result of `compress`: the bundle, the recipe that made it, and all that were tried."""

    bundle: Bundle
    chosen: RecipeCandidate
    candidates: Sequence[RecipeCandidate]


def compress(
    config: CompressConfig,
    files: TrainingFiles | None = None,
    *,
    on_labels: Callable[[str], None] = lambda meaning: None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Compressed:
    """Run the recipe, or search for one, and write the bundle.

    Called again after an interruption, it resumes from what is in the working directory.

    Args:
        config: Teacher, files, recipe and allowed loss.
        files: What `CompressConfig.load_files` returned; None to call it here.
        on_labels: Called before any work with what the labels were taken for.
        on_stage: Called with the quality after each stage of a recipe, as it is measured.
        on_candidate: Called with each candidate of a search.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        InputError: A path, column, label or model cannot be used.
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: More accuracy was lost than allowed; no bundle is written.
    """
    found = find_model(config.teacher)
    config = replace(config, teacher=found.path)
    files = files or config.load_files()
    train, evaluation, transfer = files.train, files.evaluation, files.transfer
    model = load_model(config.teacher)
    if config.label_names:
        check_label_names(config.label_names, label_names(model), flag="--label-names")
    settled = settle_labels(
        [(config.train, train), (config.eval, evaluation)],
        task_of(model),
        label_names(model),
        new_names=config.label_names,
    )
    train, evaluation = settled.files
    on_labels(settled.meaning)
    teacher = _open_teacher(config, model, train, evaluation)
    _check_recipe(config, teacher.model)
    gate = QualityGate(
        teacher,
        evaluation,
        config.eval,
        max_accuracy_drop=config.allowed_drop,
        on_progress=on_progress,
    )
    if config.search:
        chosen, candidates = search(
            teacher,
            config.recipe,
            gate,
            transfer=transfer,
            on_candidate=on_candidate,
            on_progress=on_progress,
        )
    else:
        chosen = evaluate_candidate(
            teacher,
            config.recipe,
            gate,
            transfer=transfer,
            on_stage=on_stage,
            on_progress=on_progress,
        )
        for quality in (chosen.qualities[-1], *(quality for _, quality in chosen.further)):
            gate.check(quality)
        candidates = [chosen]
    bundle = _write(config, chosen, found)
    if config.work is None:
        shutil.rmtree(config.work_directory)
    return Compressed(bundle=bundle, chosen=chosen, candidates=candidates)


def _open_teacher(
    config: CompressConfig, model: PreTrainedModel, train: Examples, evaluation: Examples
) -> ModelArtifact:
    tokenizer_json, tokenizer_limit = load_tokenizer(config.teacher)
    if task_of(model) == EMBEDDING and train.text_pairs is not None:
        raise InputError(f"{config.teacher} embeds single texts; leave the pair column out")
    max_length = config.max_length or default_max_length(model, tokenizer_limit)
    decisive = [
        digest_checkpoint(config.teacher),
        train.digest,
        evaluation.digest,
    ]
    artifact = ModelArtifact(
        key=digest_of(decisive, max_length, library_versions()),
        model=model,
        tokenizer_json=tokenizer_json,
        max_length=max_length,
        text_pairs=train.text_pairs is not None,
        train=train,
        train_path=config.train,
        work=config.work_directory,
    )
    check_own_pipeline(config.teacher, artifact)
    return artifact


def _check_recipe(config: CompressConfig, model: PreTrainedModel) -> None:
    """Refuse stages that are not for this teacher; a search leaves them out by itself."""
    student, prune, task = config.recipe.student, config.recipe.prune, task_of(model)
    is_trained = student.is_wanted or prune.is_wanted or config.recipe.tokens.is_wanted
    if is_trained and task not in DISTILLABLE_TASKS:
        raise InputError(
            f"{config.teacher}: its task is {task}; students and pruning are for "
            f"{', '.join(map(str, DISTILLABLE_TASKS))}: leave students and pruning out"
        )
    if task == EMBEDDING and (student.student or student.student_width):
        raise InputError(
            f"{config.teacher} embeds texts, and a student's vectors are compared with its own: "
            "give --student-layers, and no --student or --student-width"
        )
    is_cut = student.student_layers or student.student_width or prune.is_wanted
    if student.student is None and is_cut:
        shrinkable_architecture_of(model.config)
    check_token_settings(config.recipe, model, config.teacher)


def _write(config: CompressConfig, chosen: RecipeCandidate, teacher: FoundModel) -> Bundle:
    artifact = chosen.artifact
    assert artifact.graph is not None
    further_models = [graph.graph for graph, _ in chosen.further if graph.graph is not None]
    engine = OnnxEngine(artifact.graph)
    encoder = read_encoder(artifact.model)
    bundle = Bundle(
        path=config.output,
        task=task_of(artifact.model),
        labels=config.label_names or label_names(artifact.model),
        num_outputs=engine.num_outputs,
        max_length=artifact.max_length,
        text_pairs=artifact.text_pairs,
        input_names=engine.input_names,
        precision=artifact.precision,
        multiply_adds_per_token=count_multiply_adds(encoder),
        num_layers=len(encoder.layers),
        width=encoder.width,
        stages=chosen.qualities,
        provenance={
            **_provenance(config, chosen, teacher),
            "float_projections": list(artifact.float_projections),
            **({} if artifact.pruning is None else {"pruning": artifact.pruning}),
        },
        cost_profile=chosen.cost_profile,
        files={},
        further_graphs=tuple(
            FurtherGraph(precision=graph.precision, file=path.name, quality=quality)
            for path, (graph, quality) in zip(further_models, chosen.further, strict=True)
        ),
    )
    return write_bundle(
        bundle,
        model=artifact.graph,
        tokenizer_json=artifact.tokenizer_json,
        further_models=further_models,
    )


def _provenance(
    config: CompressConfig, chosen: RecipeCandidate, teacher: FoundModel
) -> dict[str, Any]:
    others: dict[str, Any] = {}
    if teacher.revision is not None:
        others["teacher_revision"] = teacher.revision
    if config.label_names:
        others[TEACHER_LABELS] = list(label_names(chosen.artifact.model))
    if shares := reduction_of(chosen.artifact.model.config).keep_shares:
        others["keep_tokens"] = list(shares)
    return {
        "teacher": teacher.name,
        **others,
        "train": config.train.name,
        "eval": config.eval.name,
        "recipe": chosen.name,
        "python": platform.python_version(),
        **library_versions(),
    }
