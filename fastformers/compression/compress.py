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
from fastformers.compression.cascade.build import SecondGraph, check_second, make_cascade
from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.own_pipeline import check_own_pipeline
from fastformers.compression.quality import QualityGate
from fastformers.compression.recipe import run_recipe
from fastformers.compression.recipe_config import RecipeConfig
from fastformers.compression.search.candidate import RecipeCandidate, describe, evaluate_candidate
from fastformers.compression.search.run_search import (
    HeldOutExamples,
    LeftOut,
    SearchProgress,
    search,
)
from fastformers.compression.stages.plan import plan_stages
from fastformers.compression.stages.token_checks import check_token_settings
from fastformers.compression.transfer_curve import CurvePoint, measure_curve
from fastformers.data.examples import Examples
from fastformers.data.splitting import leave_out_known, split_off
from fastformers.data.targets import settle_labels
from fastformers.data.training_files import TrainingFiles
from fastformers.data.transfer_sample import TransferSample
from fastformers.digest import digest_of, library_versions
from fastformers.errors import InputError
from fastformers.export.encoder import count_multiply_adds
from fastformers.export.read_encoder import read_encoder
from fastformers.files.hub import FoundModel, find_model
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.cascade.margins import CASCADE_TASKS
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
    """Result of `compress`.

    Attributes:
        bundle: The bundle.
        chosen: The recipe that made it.
        candidates: All recipes that were tried.
        left_out: What a search did not measure, and why.
        curve: Quality of the recipe by number of texts without labels, if it was asked for.
    """

    bundle: Bundle
    chosen: RecipeCandidate
    candidates: Sequence[RecipeCandidate]
    left_out: Sequence[LeftOut] = ()
    curve: Sequence[CurvePoint] = ()


def compress(
    config: CompressConfig,
    files: TrainingFiles | None = None,
    *,
    on_labels: Callable[[str], None] = lambda meaning: None,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
    on_candidate: Callable[[RecipeCandidate], None] = lambda candidate: None,
    on_plan: Callable[[SearchProgress], None] = lambda progress: None,
    on_point: Callable[[CurvePoint], None] = lambda point: None,
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
        on_plan: Called before each of them with how far the search is.
        on_point: Called with each point of the curve over texts without labels.
        on_progress: Called with the name of the work, how much is done, and how much there is.

    Raises:
        InputError: A path, column, label or model cannot be used.
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: More accuracy was lost than allowed; no bundle is written.
    """
    found = find_model(config.teacher)
    config = replace(config, teacher=found.path)
    files = files or config.load_files()
    if config.cascade.cascade:
        files = _hold_out(config, files)
    transfer = None if files.transfer is None else files.transfer.examples
    model = load_model(config.teacher)
    if config.label_names:
        check_label_names(config.label_names, label_names(model), flag="--label-names")
    others = [] if files.held_out is None else [(config.held_out_path, files.held_out)]
    settled = settle_labels(
        [(config.train, files.train), (config.eval, files.evaluation), *others],
        task_of(model),
        label_names(model),
        new_names=config.label_names,
    )
    train, evaluation, *held_out = settled.files
    on_labels(settled.meaning)
    teacher = _open_teacher(config, model, train, evaluation)
    _check_recipe(config, teacher.model)
    second = _check_cascade(config, teacher)
    gate = QualityGate(
        teacher,
        evaluation,
        config.eval,
        max_accuracy_drop=config.allowed_drop,
        on_progress=on_progress,
    )
    left_out: Sequence[LeftOut] = ()
    if config.search:
        found_recipes = search(
            teacher,
            config.recipe,
            gate,
            transfer=transfer,
            held_out=next(
                (HeldOutExamples(examples=one, path=config.held_out_path) for one in held_out), None
            ),
            max_hours=config.max_hours,
            on_candidate=on_candidate,
            on_plan=on_plan,
            on_progress=on_progress,
        )
        chosen, candidates = found_recipes.chosen, found_recipes.candidates
        left_out = found_recipes.left_out
    else:
        chosen = evaluate_candidate(
            teacher,
            config.recipe,
            gate,
            transfer=transfer,
            on_stage=on_stage,
            on_progress=on_progress,
        )
        for examples in held_out:
            chosen = _put_cascade(
                config,
                teacher,
                chosen,
                gate,
                examples,
                second=second,
                on_stage=on_stage,
                on_progress=on_progress,
            )
        candidates = [chosen]
    curve: Sequence[CurvePoint] = ()
    if config.transfer_curve and transfer is not None:  # before the check: it says what would help
        curve = measure_curve(
            teacher,
            config.recipe,
            gate,
            transfer,
            whole=chosen.qualities[-1],
            on_point=on_point,
            on_progress=on_progress,
        )
    for quality in (chosen.quality, *(quality for _, quality in chosen.further)):
        gate.check(quality)
    origin = {**_provenance(config, chosen, found), **_origin_of_transfer(files.transfer, curve)}
    bundle = _write(config, chosen, origin)
    if config.work is None:
        shutil.rmtree(config.work_directory)
    return Compressed(
        bundle=bundle, chosen=chosen, candidates=candidates, left_out=left_out, curve=curve
    )


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
    if student.is_static:
        return
    if task == EMBEDDING and (student.student or student.student_width):
        raise InputError(
            f"{config.teacher} embeds texts, and a student's vectors are compared with its own: "
            "give --student-layers, and no --student or --student-width"
        )
    is_cut = student.student_layers or student.student_width or prune.is_wanted
    if student.student is None and is_cut:
        shrinkable_architecture_of(model.config)
    check_token_settings(config.recipe, model, config.teacher)


def _hold_out(config: CompressConfig, files: TrainingFiles) -> TrainingFiles:
    """The files with rows that set the threshold of a cascade, which nothing is trained on.

    Of rows that the user holds out, those that train or evaluate, too, are left out.

    Raises:
        InputError: There are too few rows, or answers are chosen among rows.
    """
    if files.evaluation.overlaps is not None:
        raise InputError(
            f"{config.eval}: an answer is chosen among rows by their logits, and those of a "
            "cascade are of two graphs; leave --cascade out"
        )
    train, held_out = files.train, files.held_out
    if held_out is None:
        train, held_out = split_off(train, but=files.evaluation, path=str(config.train))
    else:
        known = (train, files.evaluation)
        held_out = leave_out_known(held_out, *known, path=str(config.held_out_path))
    return replace(files, train=train, held_out=held_out)


def _check_cascade(config: CompressConfig, teacher: ModelArtifact) -> SecondGraph | None:
    """Refuse a cascade that cannot be; returns the graph of the bundle that is to be the second."""
    task = task_of(teacher.model)
    if config.cascade.cascade and task not in CASCADE_TASKS:
        raise InputError(
            f"{config.teacher}: its task is {task}; a cascade is for "
            f"{' and '.join(map(str, CASCADE_TASKS))}: leave --cascade out"
        )
    if config.cascade.cascade_with is None:
        return None
    labels = config.label_names or label_names(teacher.model)
    return SecondGraph.of_bundle(check_second(config.cascade.cascade_with, teacher, labels))


def _put_cascade(
    config: CompressConfig,
    teacher: ModelArtifact,
    chosen: RecipeCandidate,
    gate: QualityGate,
    held_out: Examples,
    *,
    second: SecondGraph | None,
    on_stage: Callable[[StageQuality], None],
    on_progress: OnProgress,
) -> RecipeCandidate:
    """The candidate with a second graph behind its own: a bundle's, or the whole teacher's."""
    quality = None
    if second is None:
        recipe = RecipeConfig(trim=config.recipe.trim, quantize=config.recipe.quantize)
        artifact, qualities = run_recipe(
            teacher, plan_stages(recipe, None), gate, on_progress=on_progress
        )
        second = SecondGraph.of_artifact(artifact, describe(recipe))
        quality = replace(qualities[-1], stage="second")
    made = make_cascade(
        chosen.artifact,
        second,
        gate,
        held_out,
        config.held_out_path,
        max_drop=config.cascade.cascade_drop,
        second_quality=quality,
    )
    for stage in (made.cascade.second_quality, made.cascade.quality):
        assert stage is not None
        on_stage(stage)
    return chosen.followed_by(made, second.name, gate)


def _write(config: CompressConfig, chosen: RecipeCandidate, origin: dict[str, Any]) -> Bundle:
    artifact = chosen.artifact
    assert artifact.graph is not None
    further_models = [graph.graph for graph, _ in chosen.further if graph.graph is not None]
    second_models = [] if chosen.cascade is None else [chosen.cascade.graph]
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
            **origin,
            "float_projections": list(artifact.float_projections),
            **({} if artifact.pruning is None else {"pruning": artifact.pruning}),
        },
        cost_profile=chosen.cost_profile,
        files={},
        further_graphs=tuple(
            FurtherGraph(precision=graph.precision, file=path.name, quality=quality)
            for path, (graph, quality) in zip(further_models, chosen.further, strict=True)
        ),
        cascade=None if chosen.cascade is None else chosen.cascade.cascade,
    )
    return write_bundle(
        bundle,
        model=artifact.graph,
        tokenizer_json=artifact.tokenizer_json,
        further_models=[*further_models, *second_models],
    )


def _provenance(
    config: CompressConfig, chosen: RecipeCandidate, teacher: FoundModel
) -> dict[str, Any]:
    others: dict[str, Any] = {}
    if teacher.revision is not None:
        others["teacher_revision"] = teacher.revision
    if chosen.cascade is not None:
        others["held_out"] = config.held_out_path.name
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


def _origin_of_transfer(
    sample: TransferSample | None, curve: Sequence[CurvePoint]
) -> dict[str, Any]:
    """What `provenance` says of texts without labels."""
    if sample is None:
        return {}
    found: dict[str, Any] = {"transfer": sample.name, "transfer_texts": len(sample.examples)}
    if curve:
        found["transfer_curve"] = [point.describe() for point in curve]
    return found
