"""The stages of a recipe: what each requires, does and ensures.

    RecipeConfig -> [stages] -> recipe.run_recipe
    teacher -> [trim_vocabulary -> distill -> prune -> export -> quantize or float16] -> bundle

Each function takes the config of one stage and returns the `Stage` for recipe.py to run; the work
itself is in other modules, which take plain values. A stage does not change the artifact that it is
given.
"""

import copy
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.distill import distill, replace_gelu
from fastformers.compression.own_pipeline import odd_examples, rows_for_outputs, show_example
from fastformers.compression.prune import measure_importance, prune_model
from fastformers.compression.pruning_plan import plan_pruning, plan_rounds
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    DistillConfig,
    PruneConfig,
    QuantizeConfig,
    RecipeConfig,
    StudentConfig,
    TrimConfig,
)
from fastformers.compression.student import cut_layers, cut_width, load_student, spread_layers
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.export.calibration import choose_ranges
from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import GRAPH_VERSION, write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.manifest import FLOAT16_FILE, MODEL_FILE
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.models.forward import OnProgress
from fastformers.models.loading import task_of
from fastformers.models.model_files import digest_checkpoint
from fastformers.models.vocabulary import trim_embeddings, trim_tokenizer

CALIBRATION_ROWS = 256
IMPORTANCE_ROWS = 2048
# Float graphs differ from PyTorch by rounding alone: 1e-6 to 1e-5 on the architectures tested.
MAX_EXPORT_ERROR = 1e-3
# Share of the largest logit. It is 0.0015 with a classifier on MiniLM's 6 layers; float16 keeps
# 11 bits.
MAX_FLOAT16_ERROR = 0.02


def plan_stages(
    config: RecipeConfig, transfer: Examples | None, *, precision: str | None = None
) -> list[Stage]:
    """The stages of a recipe that end in one of its graphs, in order.

    Args:
        config: Settings of the recipe.
        transfer: Further examples without labels, for which the teacher's outputs alone count.
        precision: Precision of the graph; by default that which the bundle is named after.
    """
    first = config.quantize.precisions[0]
    precision = precision or first
    stages = []
    if config.trim.trim_vocabulary is not None:
        stages.append(trim_vocabulary_stage(config.trim))
    if config.student.is_wanted:
        stages.append(distill_stage(config.student, config.distill, transfer))
    if config.prune.is_wanted:
        stages.append(prune_stage(config.prune, config.distill, transfer))
    stages.append(export_stage())
    if precision in ("int8", "int8-dynamic"):
        stages.append(quantize_stage(config.quantize))
    elif precision == "float16":
        stages.append(float16_stage(MODEL_FILE if precision == first else FLOAT16_FILE))
    return stages


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
        requires=_require_no_graph,
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

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        model = _distill_from(
            artifact,
            _start_student(student, artifact),
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
            **asdict(student),
            # Its files, not its name: another checkpoint may take the place of an earlier one.
            "student": None if student.student is None else digest_checkpoint(student.student),
            **asdict(config),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def _start_student(config: StudentConfig, artifact: ModelArtifact) -> PreTrainedModel:
    """The student before training: a checkpoint, or part of the teacher."""
    model = artifact.model
    if config.student is not None:
        model = load_student(config.student, model, artifact.tokenizer_json)
    if config.student_layers is not None:
        num_layers = model.config.num_hidden_layers
        model = cut_layers(model, spread_layers(num_layers, config.student_layers))
    if config.student_width is not None:
        rows = artifact.tokenize(artifact.train.sample(IMPORTANCE_ROWS))
        model = cut_width(model, config.student_width, measure_importance(model, rows))
    return model if config.keep_gelu else replace_gelu(model)


def _distill_from(
    artifact: ModelArtifact,
    student: PreTrainedModel,
    *,
    config: DistillConfig,
    transfer: Examples | None,
    directory: Path,
    on_progress: OnProgress,
) -> PreTrainedModel:
    """The student after it learned from the artifact's model."""
    examples = artifact.train if transfer is None else artifact.train.joined(transfer)
    trained = distill(
        student,
        artifact.model,
        artifact.tokenize(examples),
        artifact.targets(artifact.train) if config.hard_weight else None,
        config=config,
        outputs=artifact.directory("teacher") / f"answers-{examples.digest[:16]}",
        checkpoints=directory / "checkpoints",
        on_progress=on_progress,
    )
    shutil.rmtree(directory / "checkpoints")
    return trained


def prune_stage(config: PruneConfig, distill: DistillConfig, transfer: Examples | None) -> Stage:
    """Remove the least important heads and neurons, then distill from the model as it came in.

    Args:
        config: How much to prune, and in how many rounds.
        distill: Distillation after each round, except for its epochs, which `config` has.
        transfer: Further examples without labels for that distillation.
    """
    recovery = _plan_recovery(config, distill)

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        sample = artifact.train.sample(IMPORTANCE_ROWS)
        rows = artifact.tokenize(sample)
        targets_N = None if config.prune_without_labels else artifact.targets(sample)
        model = artifact.model
        rounds = zip(
            plan_rounds(config.prune_heads, config.prune_rounds),
            plan_rounds(config.prune_ffn, config.prune_rounds),
            strict=True,
        )
        for number, (heads_now, ffn_now) in enumerate(rounds):
            plan = plan_pruning(
                measure_importance(model, rows, targets_N, on_progress),
                prune_heads=heads_now,
                prune_ffn=ffn_now,
                budget=config.prune_budget,
                multiple_of=config.prune_multiple_of,
            )
            model = prune_model(model, plan)
            if recovery is not None:
                model = _distill_from(
                    artifact,
                    model,
                    config=recovery,
                    transfer=transfer,
                    directory=directory / f"round{number}",
                    on_progress=on_progress,
                )
        return replace(artifact, model=model)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        if after.model.num_parameters() >= before.model.num_parameters():
            raise StageError("nothing was pruned; ask for larger shares")

    return Stage(
        name="prune",
        settings={
            **asdict(config),
            "recovery": None if recovery is None else asdict(recovery),
            "transfer": "" if transfer is None else transfer.digest,
        },
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def _plan_recovery(config: PruneConfig, distill: DistillConfig) -> DistillConfig | None:
    """Distillation after each round of pruning; None leaves it out."""
    if config.prune_epochs == 0:
        return None
    return replace(distill, training=replace(distill.training, epochs=config.prune_epochs))


def export_stage() -> Stage:
    """Write the float graph."""

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        graph = directory / "model.onnx"
        write_graph(_encoder(artifact), graph, text_pairs=artifact.text_pairs)
        return replace(artifact, graph=graph)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        sample = after.train.sample(16)
        for examples in (sample, rows_for_outputs(after, odd_examples(after))):
            errors_N = np.abs(before.logits(examples) - after.logits(examples)).max(axis=1)
            row = int(np.nan_to_num(errors_N, nan=np.inf).argmax())
            if not errors_N[row] <= MAX_EXPORT_ERROR:
                raise StageError(
                    f"the graph's logits differ from PyTorch's by {errors_N[row]:.2g} for "
                    f"{show_example(examples, row)}"
                )

    return Stage(
        name="export",
        settings={"graph_version": GRAPH_VERSION},
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def quantize_stage(config: QuantizeConfig) -> Stage:
    """Turn the projections into int8, except for those that would harm the outputs too much."""

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        encoder = _encoder(artifact)
        sample = artifact.train.sample(CALIBRATION_ROWS)
        groups_N = None if sample.groups is None else np.array(sample.groups)
        ranges, float_projections = choose_ranges(
            encoder,
            artifact.tokenize(sample),
            text_pairs=artifact.text_pairs,
            scratch=directory,
            agreement_of=partial(task_of(artifact.model).measure_agreement, groups_N=groups_N),
            dynamic=config.is_dynamic,
            min_agreement=config.min_int8_agreement / 100,
        )
        graph = directory / "model.onnx"
        write_graph(encoder, graph, text_pairs=artifact.text_pairs, ranges=ranges)
        return replace(
            artifact,
            graph=graph,
            precision=config.precisions[0],
            float_projections=float_projections,
        )

    return Stage(
        name="quantize",
        settings={**asdict(config), "rows": CALIBRATION_ROWS},
        requires=_require_float_graph,
        run=run,
        ensures=_ensure_smaller,
    )


def float16_stage(file: str) -> Stage:
    """Write the graph in float16, for GPUs.

    An x86 CPU has next to no float16 kernels and computes it in float32, from the rounded weights:
    that is what the postcondition and the quality after the stage measure there.

    Args:
        file: Name of the ONNX file.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        graph = directory / file
        write_graph(_encoder(artifact), graph, text_pairs=artifact.text_pairs, float16=True)
        return replace(artifact, graph=graph, precision="float16")

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        sample = after.train.sample(16)
        expected_NC = before.logits(sample)
        error = float(np.abs(expected_NC - after.logits(sample)).max())
        if not error <= MAX_FLOAT16_ERROR * float(np.abs(expected_NC).max()):
            raise StageError(
                f"the float16 graph's logits differ by {error:.2g}; the model may need numbers "
                "beyond 65,504, which float16 does not have; keep --precision float32"
            )

    return Stage(
        name="float16",
        settings={"file": file},
        requires=_require_float_graph,
        run=run,
        ensures=ensures,
    )


def _require_float_graph(artifact: ModelArtifact) -> None:
    if artifact.graph is None or artifact.precision != "float32":
        raise StageError("needs a float graph; run export first")


def _ensure_smaller(before: ModelArtifact, after: ModelArtifact) -> None:
    assert before.graph is not None and after.graph is not None
    if measure_graph_bytes(after.graph) >= measure_graph_bytes(before.graph):
        raise StageError(f"the {after.precision} graph is no smaller than the float one")


def _encoder(artifact: ModelArtifact) -> EncoderWeights:
    """The model's weights, with no more positions than rows can have tokens."""
    return replace(read_encoder(artifact.model), max_length=artifact.max_length)


def _require_no_graph(artifact: ModelArtifact) -> None:
    if artifact.graph is not None:
        raise StageError("changes the PyTorch model; it must come before export")
