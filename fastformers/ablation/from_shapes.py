"""Build the paper's Table 3 from the shapes of its models, with random weights.

    lengths + shapes -> [from_shapes] -> steps -> measure

Speed does not depend on the weights, so none have to be trained or downloaded; accuracy is not
measured, and the note of every step says so. This module knows nothing of how random models are
made.

Shape suffixes: N texts.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.ablation.measure import Ablation, AblationStep
from fastformers.ablation.shapes import AblationShapes
from fastformers.ablation.steps import INT8_GRAPH, GraphModel, TorchModel, build_steps
from fastformers.ablation.texts import LabeledTexts, TextsConfig, TimedRows, time_tokenization
from fastformers.benchmark.encoder_shapes import EncoderShape
from fastformers.benchmark.random_models import (
    MAX_LENGTH,
    make_random_model,
    random_rows,
    write_int8_graph,
)
from fastformers.errors import InputError
from fastformers.inference.cost_profile import measure_cost_profile
from fastformers.inference.engine import OnnxEngine

# Percentiles of the tokens of BoolQ's 3,270 validation examples (question and passage as a pair,
# BERT's uncased vocabulary, truncated to 512; mean 132.1), taken from the data set on 2026-11-24.
_PERCENTILES = (*range(0, 100, 5), 98, 99, 99.5, 100)
_BOOLQ_TOKENS = (
    *(22, 49, 61, 69, 78, 86, 92, 100, 106, 112, 119, 127),
    *(134, 143, 152, 164, 177, 194, 215, 256, 308, 376, 432, 512),
)
BOOLQ_ROWS = 3270


def boolq_lengths(num_rows: int) -> NDArray[np.int64]:
    """Lengths (N,) that are distributed as BoolQ's, in a random order that is always the same."""
    shares_N = (np.arange(num_rows) + 0.5) / num_rows * 100
    lengths_N = np.interp(shares_N, _PERCENTILES, _BOOLQ_TOKENS).round().astype(np.int64)
    shuffled_N: NDArray[np.int64] = np.random.default_rng(0).permutation(lengths_N)
    return shuffled_N


def build_shape_ablation(
    shapes: AblationShapes,
    config: TextsConfig,
    texts: LabeledTexts | None,
    *,
    tokenizer: Path,
    cpus_of_instance: Sequence[tuple[int, ...]],
    scratch: Path,
) -> Ablation:
    """Make models of random weights and build the paper's steps.

    Args:
        shapes: Shapes of the models.
        config: Settings of the texts whose lengths count; without a file, BoolQ's are used.
        texts: What `load_texts` returned for that config, if it names a file.
        tokenizer: `tokenizer.json` that tokenizes the texts.
        cpus_of_instance: Logical CPUs of each one-threaded instance, one instance for each core.
        scratch: Empty directory for the graphs, which are read when the ablation is measured.

    Raises:
        InputError: The texts or the tokenizer cannot be read, or are longer than 512 tokens.
    """
    max_length = config.max_length or MAX_LENGTH
    if max_length > MAX_LENGTH:
        raise InputError(f"--max-length {max_length}: {shapes.name} has {MAX_LENGTH} positions")
    lengths_N, tokenization_s, source = _measure_lengths(config, texts, tokenizer, max_length)
    rows = random_rows(lengths_N, vocab_size=shapes.teacher.vocab_size)
    timed = TimedRows(rows=rows, tokenization_s=tokenization_s)

    graph_shapes = [(INT8_GRAPH, shapes.student), *((s.name, s.shape) for s in shapes.smaller)]
    steps = build_steps(
        teacher=_make_torch_model(shapes.teacher, timed, max_length),
        student=_make_torch_model(shapes.student, timed, max_length),
        graphs=[
            _make_graph(name, shape, timed, max_length, scratch / f"graph{index}.onnx")
            for index, (name, shape) in enumerate(graph_shapes)
        ],
        padded_to=max_length,
        baseline_rows=config.baseline_rows,
        cpus_of_instance=cpus_of_instance,
    )
    papers = (*shapes.paper_cumulative, *(smaller.paper_cumulative for smaller in shapes.smaller))
    asides = (*(False for _ in shapes.paper_cumulative), *(s.is_aside for s in shapes.smaller))
    return Ablation(
        steps=tuple(_beside_paper(*parts) for parts in zip(steps, papers, asides, strict=True)),
        lengths_N=lengths_N,
        labels_N=None,
        description=f"shapes of {shapes.name}, random weights (speed only), on {source}",
    )


def _make_torch_model(shape: EncoderShape, texts: TimedRows, max_length: int) -> TorchModel:
    model = make_random_model(shape, max_length=max_length)
    return TorchModel(model=model, texts=texts, logits_NC=None, note=_note(shape))


def _make_graph(
    name: str, shape: EncoderShape, texts: TimedRows, max_length: int, path: Path
) -> GraphModel:
    model = make_random_model(shape, max_length=max_length)
    write_int8_graph(model, path, rows=texts.rows.slice(0, 1), text_pairs=True)
    profile = measure_cost_profile(OnnxEngine(path), max_length=max_length)
    return GraphModel(
        name=name,
        path=path,
        texts=texts,
        max_batch_tokens=profile.max_batch_tokens,
        note=_note(shape),
    )


def _measure_lengths(
    config: TextsConfig, texts: LabeledTexts | None, tokenizer: Path, max_length: int
) -> tuple[NDArray[np.int64], float | None, str]:
    """Lengths (N,) of the texts, seconds of their tokenization, and the source of the lengths."""
    if texts is None:
        lengths_N = boolq_lengths(config.limit or BOOLQ_ROWS)
        return lengths_N.clip(max=max_length), None, "BoolQ's lengths"
    examples, path = texts
    try:
        tokenizer_json = tokenizer.read_text(encoding="utf-8")
        json.loads(tokenizer_json)
    except (OSError, ValueError) as error:
        raise InputError(f"--tokenizer {tokenizer}: is not a tokenizer.json file") from error
    timed = time_tokenization(examples, tokenizer_json, max_length)
    by = f"{tokenizer.parent.name}/{tokenizer.name}"
    return timed.rows.lengths_N, timed.tokenization_s, f"the lengths of {path.name} by {by}"


def _note(shape: EncoderShape) -> str:
    return f"random weights, speed only; {shape}"


def _beside_paper(
    step: AblationStep, paper_cumulative: float | None, is_aside: bool
) -> AblationStep:
    """The step with the paper's number in its note, where the paper has such a step."""
    note = step.note
    if paper_cumulative is not None:
        note += f"; the paper: {paper_cumulative:.2f}x"
    return replace(step, note=note, is_aside=is_aside)
