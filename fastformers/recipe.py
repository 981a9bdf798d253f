"""A recipe: the stages from a teacher to a bundle, each checked and measured.

    teacher -> [trim_vocabulary] -> export -> [quantize or float16] -> bundle

A stage is a function from one draft of the model to the next, with a name, what it requires of
its input and what it ensures of its result. `run_recipe` runs them in order and measures accuracy
and agreement with the teacher after each; distilling and pruning are further stages of this kind.
"""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from fastformers.bundle import StageQuality
from fastformers.encoder import Encoder
from fastformers.errors import FastformersError, InputError, StageError
from fastformers.evaluate import check_quality, measure_quality, teacher_logits
from fastformers.examples import Examples, encode_labels
from fastformers.export import class_names, max_positions, read_encoder
from fastformers.graph import write_graph
from fastformers.quantize import MIN_AGREEMENT, choose_ranges, run_graph
from fastformers.tokenizer import TokenizedRows, Tokenizer
from fastformers.vocabulary import trim_embeddings, trim_tokenizer

logger = logging.getLogger(__name__)

CALIBRATION_ROWS = 256
# Float graphs differ from PyTorch by rounding alone: 1e-6 on the five architectures tested.
MAX_EXPORT_ERROR = 1e-3
# Of the largest logit. 0.0015 with a classifier on MiniLM's 6 layers; float16 keeps 11 bits.
MAX_FLOAT16_ERROR = 0.02


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The model between two stages.

    Attributes:
        model: The PyTorch model, while there is one to change.
        tokenizer_json: Its serialized tokenizer.
        max_length: Tokens a row is truncated to.
        text_pairs: Whether a row is two texts.
        train: Labelled training examples.
        scratch: Directory for graphs.
        encoder: Weights of the exported graph.
        graph: The exported graph.
        precision: Of the graph.
        float_projections: What an int8 graph still does in float, by its name in the graph.
    """

    model: PreTrainedModel
    tokenizer_json: str
    max_length: int
    text_pairs: bool
    train: Examples
    scratch: Path
    encoder: Encoder | None = None
    graph: Path | None = None
    precision: str = "float32"
    float_projections: tuple[str, ...] = ()

    def tokenize(self, examples: Examples) -> TokenizedRows:
        """Token ids of examples as this draft reads them."""
        tokenizer = Tokenizer(self.tokenizer_json, max_length=self.max_length)
        return tokenizer.encode(examples.texts, examples.text_pairs)

    def logits(self, examples: Examples) -> NDArray[np.float32]:
        """Logits (N, C) of the graph, or of the PyTorch model while there is no graph."""
        rows = self.tokenize(examples)
        return (
            teacher_logits(self.model, rows) if self.graph is None else run_graph(self.graph, rows)
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: As shown in tables.
        requires: Raises unless the draft can enter the stage.
        run: Makes the next draft.
        ensures: Raises unless the result is sound; gets the draft before and after.
    """

    name: str
    requires: Callable[[Draft], None]
    run: Callable[[Draft], Draft]
    ensures: Callable[[Draft, Draft], None]


def run_recipe(
    draft: Draft,
    stages: Sequence[Stage],
    *,
    eval_examples: Examples,
    eval_path: Path,
    max_accuracy_drop: float,
    on_stage: Callable[[StageQuality], None] = lambda quality: None,
) -> tuple[Draft, list[StageQuality]]:
    """Run stages in order, measuring quality before the first and after each.

    Args:
        draft: The teacher.
        stages: What to do to it.
        eval_examples: Held-out examples for the quality gate.
        eval_path: Where they come from, for messages.
        max_accuracy_drop: Points of accuracy (0-100) that the whole recipe may cost.
        on_stage: Called with each measurement as it is made.

    Returns:
        The last draft, and the quality of the teacher and after each stage.

    Raises:
        StageError: A stage's pre- or postcondition does not hold.
        QualityError: A stage loses more than allowed.
        InputError: The labels of the evaluation file do not match the model.
    """
    positions = max_positions(draft.model.config)
    if draft.max_length > positions:
        raise InputError(f"--max-length {draft.max_length}: the teacher has {positions} positions")
    labels_N = encode_labels(eval_examples.labels, class_names(draft.model.config), eval_path)
    teacher_logits_NC = draft.logits(eval_examples)
    qualities: list[StageQuality] = []

    def record(stage: str, logits_NC: NDArray[np.float32], draft: Draft, seconds: float) -> None:
        quality = measure_quality(logits_NC, teacher_logits_NC=teacher_logits_NC, labels_N=labels_N)
        measured = StageQuality(
            stage=stage,
            accuracy=quality.accuracy,
            agreement=quality.agreement,
            num_rows=len(labels_N),
            model_bytes=_model_bytes(draft),
            seconds=seconds,
        )
        qualities.append(measured)
        on_stage(measured)
        check_quality(
            quality,
            teacher_accuracy=qualities[0].accuracy,
            max_accuracy_drop=max_accuracy_drop,
            stage=stage,
        )

    record("teacher", teacher_logits_NC, draft, 0.0)
    for stage in stages:
        start = time.perf_counter()
        draft = _run_stage(stage, draft, [quality.stage for quality in qualities])
        seconds = time.perf_counter() - start
        record(stage.name, draft.logits(eval_examples), draft, seconds)
    return draft, qualities


def _run_stage(stage: Stage, draft: Draft, done: Sequence[str]) -> Draft:
    try:
        stage.requires(draft)
        result = stage.run(draft)
        stage.ensures(draft, result)
    except InputError:
        raise
    except FastformersError as error:
        raise StageError(f"stage {stage.name} (after {', '.join(done)}): {error}") from error
    return result


def _model_bytes(draft: Draft) -> int:
    if draft.graph is not None:
        return draft.graph.stat().st_size
    return sum(p.numel() * p.element_size() for p in draft.model.parameters())


def trim_vocabulary_stage(max_words: int) -> Stage:
    """Drop words that the training texts do not use, most frequent first to stay."""

    def run(draft: Draft) -> Draft:
        rows = draft.tokenize(draft.train)
        counts_V = np.bincount(rows.ids, minlength=draft.model.config.vocab_size)
        tokenizer_json, old_ids = trim_tokenizer(
            draft.tokenizer_json, counts_V, max_words=max_words
        )
        model = copy.deepcopy(draft.model)
        trim_embeddings(model, old_ids)
        return replace(draft, model=model, tokenizer_json=tokenizer_json)

    def ensures(before: Draft, after: Draft) -> None:
        largest = int(after.tokenize(after.train.sample(64)).ids.max())
        if largest >= after.model.config.vocab_size:
            raise StageError(f"token id {largest} has no embedding any more")

    return Stage(name="trim_vocabulary", requires=_require_no_graph, run=run, ensures=ensures)


def export_stage() -> Stage:
    """Lay the float graph."""

    def run(draft: Draft) -> Draft:
        encoder = read_encoder(draft.model)
        encoder = replace(encoder, places_PE=encoder.places_PE[: draft.max_length])
        graph = draft.scratch / "float32.onnx"
        write_graph(encoder, graph, text_pairs=draft.text_pairs)
        return replace(draft, encoder=encoder, graph=graph)

    def ensures(before: Draft, after: Draft) -> None:
        sample = after.train.sample(16)
        error = float(np.abs(before.logits(sample) - after.logits(sample)).max())
        if not error <= MAX_EXPORT_ERROR:
            raise StageError(f"the graph's logits are off PyTorch's by {error:.2g}")

    return Stage(name="export", requires=_require_no_graph, run=run, ensures=ensures)


def quantize_stage(*, dynamic: bool = False, min_agreement: float = MIN_AGREEMENT) -> Stage:
    """Turn the projections into int8, those apart that would cost too much.

    Args:
        dynamic, min_agreement: As for `choose_ranges`.
    """

    def run(draft: Draft) -> Draft:
        ranges, float_projections = choose_ranges(
            _encoder(draft),
            draft.tokenize(draft.train.sample(CALIBRATION_ROWS)),
            text_pairs=draft.text_pairs,
            scratch=draft.scratch,
            dynamic=dynamic,
            min_agreement=min_agreement,
        )
        graph = draft.scratch / "int8.onnx"
        write_graph(_encoder(draft), graph, text_pairs=draft.text_pairs, ranges=ranges)
        precision = "int8-dynamic" if dynamic else "int8"
        return replace(draft, graph=graph, precision=precision, float_projections=float_projections)

    return Stage(name="quantize", requires=_require_float_graph, run=run, ensures=_ensure_smaller)


def float16_stage() -> Stage:
    """Lay the graph in float16, for GPUs.

    An x86 CPU has next to no float16 kernels and computes it in float32, from the rounded weights:
    that is what the postcondition and the quality after the stage measure there.
    """

    def run(draft: Draft) -> Draft:
        graph = draft.scratch / "float16.onnx"
        write_graph(_encoder(draft), graph, text_pairs=draft.text_pairs, float16=True)
        return replace(draft, graph=graph, precision="float16")

    def ensures(before: Draft, after: Draft) -> None:
        _ensure_smaller(before, after)
        sample = after.train.sample(16)
        expected_NC = before.logits(sample)
        error = float(np.abs(expected_NC - after.logits(sample)).max())
        if not error <= MAX_FLOAT16_ERROR * float(np.abs(expected_NC).max()):
            raise StageError(
                f"the float16 graph's logits are off by {error:.2g}; the model may need numbers "
                "beyond 65,504, which float16 does not have; keep --precision float32"
            )

    return Stage(name="float16", requires=_require_float_graph, run=run, ensures=ensures)


def _require_float_graph(draft: Draft) -> None:
    if draft.graph is None or draft.precision != "float32":
        raise StageError("needs a float graph; run export first")


def _ensure_smaller(before: Draft, after: Draft) -> None:
    if _model_bytes(after) >= _model_bytes(before):
        raise StageError(f"the {after.precision} graph is no smaller than the float one")


def _encoder(draft: Draft) -> Encoder:
    assert draft.encoder is not None  # made together with the graph, which stages require
    return draft.encoder


def _require_no_graph(draft: Draft) -> None:
    if draft.graph is not None:
        raise StageError("changes the PyTorch model; it must come before export")
