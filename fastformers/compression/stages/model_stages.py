"""The stages that make a PyTorch student of the teacher.

    teacher -> [trim_vocabulary -> distill] -> prune -> keep_tokens -> export

Each function takes the config of one stage and returns the `Stage` for recipe.py to run; the work
itself is in other modules, which take plain values. A stage does not change the artifact that it is
given. This module knows nothing of graphs.
"""

import copy
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fastformers.atomic_file import replace_directory
from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.pruning.prune import measure_importance
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    DistillConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.stages.prune_planning import IMPORTANCE_ROWS
from fastformers.compression.students.distill import distill, replace_gelu
from fastformers.compression.students.static_student import make_static_student
from fastformers.compression.students.student import (
    cut_layers,
    cut_width,
    load_student,
    spread_layers,
)
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.models.forward import OnProgress, count_embeddings, takes_token_types
from fastformers.models.loading import load_model
from fastformers.models.model_files import digest_checkpoint
from fastformers.models.trainer import seeded
from fastformers.models.variants.reduced_layers import change_reduction
from fastformers.models.variants.token_reduction import TokenPool, reduction_of
from fastformers.models.vocabulary import trim_embeddings, trim_tokenizer, type_pairs


def require_no_graph(artifact: ModelArtifact) -> None:
    if artifact.graph is not None:
        raise StageError("changes the PyTorch model; it must come before export")


def trim_vocabulary_stage(config: TrimConfig) -> Stage:
    """Drop tokens that the training texts do not use; the most frequent ones stay."""
    max_words = config.trim_vocabulary
    assert max_words is not None, "`plan_stages` leaves the stage out where all tokens stay"

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        rows = artifact.tokenize(artifact.train)
        counts_V = np.bincount(rows.ids, minlength=artifact.model.config.vocab_size)
        tokenizer_json, old_ids = trim_tokenizer(
            artifact.tokenizer_json, counts_V, max_words=max_words
        )
        model = copy.deepcopy(artifact.model)
        trim_embeddings(model, old_ids)
        return replace(artifact, model=model, tokenizer_json=tokenizer_json)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        largest = int(after.tokenize(after.train.sample(64)).ids.max())
        if largest >= after.model.config.vocab_size:
            raise StageError(f"token id {largest} has no embedding any more")

    return Stage(
        name="trim_vocabulary",
        settings=asdict(config),
        requires=require_no_graph,
        run=run,
        ensures=ensures,
    )


def distill_stage(
    student: StudentConfig, config: DistillConfig, transfer: Examples | None
) -> Stage:
    """Train a student on the outputs of the artifact's model.

    Args:
        student: Starting point of the student.
        config: Losses and training.
        transfer: Further examples without labels, for which the teacher's outputs alone count.
    """
    config = config.settled(is_static=student.is_static)

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        if student.is_static and artifact.text_pairs and not takes_token_types(artifact.model):
            artifact = replace(artifact, tokenizer_json=type_pairs(artifact.tokenizer_json))
        start = _start_student(student, artifact, transfer, config.training.seed, on_progress)
        ensures(artifact, replace(artifact, model=start))  # before it is trained
        model = distill_from(
            artifact,
            start,
            config=config,
            transfer=transfer,
            directory=directory,
            on_progress=on_progress,
        )
        return replace(artifact, model=model)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        if after.model.num_parameters() > before.model.num_parameters():
            raise StageError("the student is larger than its teacher")

    return Stage(
        name="distill",
        settings={
            **_start_settings(student),
            # Its files, not its name: another checkpoint may take the place of an earlier one.
            "student": None if student.student is None else digest_checkpoint(student.student),
            **asdict(config),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=require_no_graph,
        run=run,
        ensures=ensures,
        makes_student=True,
    )


def _start_settings(config: StudentConfig) -> dict[str, object]:
    """What decides how a student starts: how to pool does not where nothing is pooled."""
    settings = asdict(config)
    if config.pool_tokens is None:
        for name in ("pool_tokens", "pool_how", "pool_before_layer"):
            del settings[name]
    return settings


def _start_student(
    config: StudentConfig,
    artifact: ModelArtifact,
    transfer: Examples | None,
    seed: int,
    on_progress: OnProgress,
) -> PreTrainedModel:
    """The student before training: a checkpoint, part of the teacher, or static vectors of it."""
    model = artifact.model
    if config.is_static:
        examples = artifact.train if transfer is None else artifact.train.joined(transfer)
        return make_static_student(
            model,
            artifact.tokenizer_json,
            np.bincount(artifact.tokenize(examples).ids, minlength=count_embeddings(model)),
            width=config.student_width,
            text_pairs=artifact.text_pairs,
            seed=seed,
            on_progress=on_progress,
        )
    if config.student is not None:
        with seeded(seed):  # its head is new
            model = load_student(config.student, model, artifact.tokenizer_json)
    if config.student_layers is not None:
        num_layers = model.config.num_hidden_layers
        model = cut_layers(model, spread_layers(num_layers, config.student_layers))
    if config.student_width is not None:
        rows = artifact.tokenize(artifact.train.sample(IMPORTANCE_ROWS))
        model = cut_width(model, config.student_width, measure_importance(model, rows))
    if not config.keep_gelu:
        model = replace_gelu(model)
    return model if config.pool_tokens is None else _pooled(model, config)


def _pooled(model: PreTrainedModel, config: StudentConfig) -> PreTrainedModel:
    """A copy of the model that pools its tokens."""
    assert config.pool_tokens is not None
    model = copy.deepcopy(model)
    pool = TokenPool(
        before_layer=config.pool_before_layer, every=config.pool_tokens, how=config.pool_how
    )
    change_reduction(model, replace(reduction_of(model.config), pool=pool))
    return model


def distill_from(
    artifact: ModelArtifact,
    student: PreTrainedModel,
    *,
    config: DistillConfig,
    transfer: Examples | None,
    directory: Path,
    on_progress: OnProgress,
    soft_share: float = 0.0,
) -> PreTrainedModel:
    """The student after it learned from the artifact's teacher.

    Args:
        artifact: The training rows, and the teacher: that from which the first student was made.
        student: The student before.
        config: Losses and training.
        transfer: Further examples without labels, for which the teacher's outputs alone count.
        directory: Directory of the stage, for checkpoints.
        on_progress: Called with the name of the work, how much is done, and how much there is.
        soft_share: Share of the steps in which tokens that will go still stay.
    """
    examples = artifact.train if transfer is None else artifact.train.joined(transfer)
    teacher = artifact.teacher or artifact
    trained = distill(
        student,
        teacher.model,
        artifact.tokenize(examples),
        artifact.targets(artifact.train) if config.hard_weight else None,
        config=config,
        outputs=teacher.answers(examples),
        checkpoints=directory / "checkpoints",
        soft_share=soft_share,
        on_progress=on_progress,
    )
    shutil.rmtree(directory / "checkpoints")
    return trained


def keep_model(path: Path, make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """The model that an earlier attempt kept in this directory, or else a new one."""
    if path.is_dir():
        return load_model(path)
    model = make()
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    replace_directory(unfinished, path)
    return model


def plan_recovery(epochs: float, distill: DistillConfig) -> DistillConfig | None:
    """Distillation after something was left out of the model; None where there is none."""
    if epochs == 0:
        return None
    distill = distill.settled(is_static=False)
    return replace(distill, training=replace(distill.training, epochs=epochs))
