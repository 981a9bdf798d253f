"""The stages of a recipe: what each requires, does and ensures.

    teacher -> [trim_vocabulary -> distill -> prune -> export -> quantize or float16] -> bundle

Each function returns one `Stage` for recipe.py to run; the work itself is in the module of the
same name. A stage changes nothing of the artifact it is given.
"""

import copy
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from fastformers.compression.artifact import ModelArtifact, digest_of
from fastformers.compression.distill import DistillConfig, distill, replace_gelu
from fastformers.compression.prune import measure_importance, prune_model
from fastformers.compression.pruning_plan import Budget, plan_pruning, plan_rounds
from fastformers.compression.recipe import Stage
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.export.calibration import choose_ranges
from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.inference.tasks import measure_agreement
from fastformers.models.forward import OnProgress
from fastformers.models.loading import task_of
from fastformers.models.vocabulary import trim_embeddings, trim_tokenizer

CALIBRATION_ROWS = 256
IMPORTANCE_ROWS = 2048
# Float graphs differ from PyTorch by rounding alone: 1e-6 to 1e-5 on the architectures tested.
MAX_EXPORT_ERROR = 1e-3
# Of the largest logit. 0.0015 with a classifier on MiniLM's 6 layers; float16 keeps 11 bits.
MAX_FLOAT16_ERROR = 0.02
# What decides how a graph is laid, from weights read to nodes written.
_GRAPH_MODULES = (
    "export/attention",
    "export/encoder",
    "export/graph",
    "export/int8",
    "export/read_encoder",
    "export/torch_arrays",
    "inference/onnx_files",
    "models/architectures/architecture",
    "models/architectures/bert",
    "models/architectures/deberta",
    "models/architectures/distilbert",
    "models/architectures/electra",
    "models/architectures/modernbert",
    "models/architectures/mpnet",
    "models/architectures/roberta",
)


def trim_vocabulary_stage(max_words: int) -> Stage:
    """Drop words that the training texts do not use, most frequent first to stay."""

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
        settings={"max_words": max_words},
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def distill_stage(
    make_student: Callable[[ModelArtifact], PreTrainedModel],
    *,
    student: str,
    use_relu: bool,
    config: DistillConfig,
    transfer: Examples | None,
) -> Stage:
    """Train a student of the artifact's model on its answers.

    Args:
        make_student: From the teacher's artifact to where the student starts.
        student: What tells this student from others, for resuming.
        use_relu: Whether ReLU takes the place of GELU.
        config: What to learn from.
        transfer: Further examples without labels, answered by the teacher alone.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        start = make_student(artifact)
        student = _distilled(
            replace_gelu(start) if use_relu else start,
            artifact,
            config=config,
            transfer=transfer,
            directory=directory,
            on_progress=on_progress,
        )
        return replace(artifact, model=student)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        if after.model.num_parameters() > before.model.num_parameters():
            raise StageError("the student is larger than its teacher")

    return Stage(
        name="distill",
        settings={
            "student": student,
            "use_relu": use_relu,
            "config": digest_of(asdict(config)),
            "transfer": _digest_examples(transfer),
        },
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def _distilled(
    start: PreTrainedModel,
    artifact: ModelArtifact,
    *,
    config: DistillConfig,
    transfer: Examples | None,
    directory: Path,
    on_progress: OnProgress,
) -> PreTrainedModel:
    """A student that learned from the artifact's model."""
    examples = artifact.train if transfer is None else artifact.train.joined(transfer)
    student = distill(
        start,
        artifact.model,
        artifact.tokenize(examples),
        artifact.targets(artifact.train) if config.hard_weight else None,
        config=config,
        outputs=artifact.directory("teacher") / f"answers-{_digest_examples(examples)[:16]}",
        checkpoints=directory / "checkpoints",
        on_progress=on_progress,
    )
    shutil.rmtree(directory / "checkpoints")
    return student


def prune_stage(
    *,
    heads: float,
    ffn: float,
    budget: Budget,
    multiple_of: int,
    num_rounds: int,
    use_labels: bool,
    config: DistillConfig | None,
    transfer: Examples | None,
) -> Stage:
    """Remove the least important heads and neurons, then learn from the model as it came in.

    Args:
        heads: Share of all heads to remove.
        ffn: Share of all feed-forward neurons to remove.
        budget: Whether each layer loses the same share.
        multiple_of: Feed-forward widths become multiples of it.
        num_rounds: Importance, pruning and distillation are repeated so often.
        use_labels: Whether importance is measured on the labels or without any.
        config: How to distill after each round; None leaves it out.
        transfer: Further examples without labels for that.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        sample = artifact.train.sample(IMPORTANCE_ROWS)
        rows = artifact.tokenize(sample)
        targets_N = artifact.targets(sample) if use_labels else None
        model = artifact.model
        shares = zip(plan_rounds(heads, num_rounds), plan_rounds(ffn, num_rounds), strict=True)
        for number, (heads_now, ffn_now) in enumerate(shares):
            importance = measure_importance(model, rows, targets_N, on_progress)
            plan = plan_pruning(
                importance,
                prune_heads=heads_now,
                prune_ffn=ffn_now,
                budget=budget,
                multiple_of=multiple_of,
            )
            model = prune_model(model, plan)
            if config is not None:
                model = _distilled(
                    model,
                    artifact,
                    config=config,
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
            "heads": heads,
            "ffn": ffn,
            "budget": budget,
            "multiple_of": multiple_of,
            "num_rounds": num_rounds,
            "use_labels": use_labels,
            "config": None if config is None else digest_of(asdict(config)),
            "transfer": _digest_examples(transfer),
        },
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def export_stage() -> Stage:
    """Lay the float graph."""

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        graph = directory / "model.onnx"
        write_graph(_encoder(artifact), graph, text_pairs=artifact.text_pairs)
        return replace(artifact, graph=graph)

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        sample = after.train.sample(16)
        error = float(np.abs(before.logits(sample) - after.logits(sample)).max())
        if not error <= MAX_EXPORT_ERROR:
            raise StageError(f"the graph's logits are off PyTorch's by {error:.2g}")

    return Stage(
        name="export",
        settings={"code": _digest_graph_code()},
        requires=_require_no_graph,
        run=run,
        ensures=ensures,
    )


def quantize_stage(*, dynamic: bool, min_agreement: float) -> Stage:
    """Turn the projections into int8, those apart that would cost too much.

    Args:
        dynamic, min_agreement: As for `choose_ranges`.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        encoder = _encoder(artifact)
        sample = artifact.train.sample(CALIBRATION_ROWS)
        groups_N = None if sample.groups is None else np.array(sample.groups)
        ranges, float_projections = choose_ranges(
            encoder,
            artifact.tokenize(sample),
            text_pairs=artifact.text_pairs,
            scratch=directory,
            agreement_of=partial(measure_agreement, task_of(artifact.model), groups_N=groups_N),
            dynamic=dynamic,
            min_agreement=min_agreement,
        )
        graph = directory / "model.onnx"
        write_graph(encoder, graph, text_pairs=artifact.text_pairs, ranges=ranges)
        precision = "int8-dynamic" if dynamic else "int8"
        return replace(
            artifact, graph=graph, precision=precision, float_projections=float_projections
        )

    return Stage(
        name="quantize",
        settings={"rows": CALIBRATION_ROWS, "dynamic": dynamic, "min_agreement": min_agreement},
        requires=_require_float_graph,
        run=run,
        ensures=_ensure_smaller,
    )


def float16_stage() -> Stage:
    """Lay the graph in float16, for GPUs.

    An x86 CPU has next to no float16 kernels and computes it in float32, from the rounded weights:
    that is what the postcondition and the quality after the stage measure there.
    """

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        graph = directory / "model.onnx"
        write_graph(_encoder(artifact), graph, text_pairs=artifact.text_pairs, float16=True)
        return replace(artifact, graph=graph, precision="float16")

    def ensures(before: ModelArtifact, after: ModelArtifact) -> None:
        _ensure_smaller(before, after)
        sample = after.train.sample(16)
        expected_NC = before.logits(sample)
        error = float(np.abs(expected_NC - after.logits(sample)).max())
        if not error <= MAX_FLOAT16_ERROR * float(np.abs(expected_NC).max()):
            raise StageError(
                f"the float16 graph's logits are off by {error:.2g}; the model may need numbers "
                "beyond 65,504, which float16 does not have; keep --precision float32"
            )

    return Stage(
        name="float16", settings={}, requires=_require_float_graph, run=run, ensures=ensures
    )


def _digest_graph_code() -> str:
    """A graph that was kept by code that lays graphs differently is not taken for today's."""
    modules = [Path(__file__).parents[1] / f"{name}.py" for name in _GRAPH_MODULES]
    return digest_of([module.read_text(encoding="utf-8") for module in modules])


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


def _digest_examples(examples: Examples | None) -> str:
    return "" if examples is None else digest_of(examples.texts, examples.text_pairs)
