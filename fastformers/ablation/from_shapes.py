"""The paper's own models by shape, on random weights: how fast its ablation is on this machine.

    lengths -> [from_shapes] -> steps -> ablation

Speed does not depend on the weights, so none have to be trained or fetched; accuracy is not
measured, and every step says so. BERT-base and the 4 x 312 student are the paper's; so are the
shares of heads and feed-forward neurons that its pruned students lost.

Shape suffixes: N texts, V vocabulary, D hidden width, W heads x head width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.ablation.measure import Ablation, AblationStep
from fastformers.ablation.steps import (
    DISTILLED,
    INT8_GRAPH,
    MULTI_INSTANCE,
    engine_step,
    instances_step,
    pytorch_baselines,
    pytorch_step,
)
from fastformers.ablation.texts import TextsConfig, load_texts, time_tokenization
from fastformers.benchmark.random_models import (
    EncoderShape,
    random_classifier,
    random_rows,
    write_random_int8,
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
MAX_LENGTH = 512  # positions of BERT, and what the paper pads to


@dataclass(frozen=True, kw_only=True)
class SmallerShape:
    """A further step: the student's graph again, in a smaller or faster shape."""

    name: str
    shape: EncoderShape
    paper_cumulative: float | None  # None for a step that the paper does not have


@dataclass(frozen=True, kw_only=True)
class AblationShapes:
    """A teacher, its student, and what becomes of the student."""

    name: str
    teacher: EncoderShape
    student: EncoderShape
    smaller: tuple[SmallerShape, ...]


# The paper swaps GELU for ReLU while it distills. Its pruned FFNs are rounded up to multiples of
# 16, which the kernels like: 912 for 900 and 608 for 600, so no more is cut than the paper cut.
_STUDENT = EncoderShape(
    num_layers=4, width=312, num_heads=12, head_width=26, ffn_width=1200, activation="relu"
)
_HALF = replace(_STUDENT, num_heads=8, ffn_width=608)
BERT_BASE = AblationShapes(
    name="bert-base",
    teacher=EncoderShape(
        num_layers=12, width=768, num_heads=12, head_width=64, ffn_width=3072, activation="gelu"
    ),
    student=_STUDENT,
    smaller=(
        SmallerShape(
            name="+ pruning, 25% of heads and 25% of FFN",
            shape=replace(_STUDENT, num_heads=9, ffn_width=912),
            paper_cumulative=178.67,
        ),
        SmallerShape(
            name="+ pruning, 33% of heads and 50% of FFN",
            shape=_HALF,
            paper_cumulative=233.87,
        ),
        SmallerShape(
            name="not the paper's: the same size as 4 heads of 52",
            shape=replace(_HALF, num_heads=4, head_width=52),
            paper_cumulative=None,
        ),
    ),
)
# Cumulative speed-ups of the paper's Table 3 up to its multi-instance step.
_PAPER_CUMULATIVE = (1.0, 3.51, 32.64, 73.66, 129.29)
ABLATION_SHAPES = {BERT_BASE.name: BERT_BASE}


def boolq_lengths(num_rows: int) -> NDArray[np.int64]:
    """Lengths (N,) that are distributed as BoolQ's, in random order, the same each time."""
    shares_N = (np.arange(num_rows) + 0.5) / num_rows * 100
    lengths_N = np.interp(shares_N, _PERCENTILES, _BOOLQ_TOKENS).round().astype(np.int64)
    shuffled_N: NDArray[np.int64] = np.random.default_rng(0).permutation(lengths_N)
    return shuffled_N


def build_shape_ablation(
    shapes: AblationShapes,
    config: TextsConfig,
    *,
    tokenizer: Path,
    cpus_of_instance: Sequence[tuple[int, ...]],
    scratch: Path,
) -> Ablation:
    """Make models of random weights and lay out the paper's steps.

    Args:
        shapes: The models.
        config: The texts whose lengths count; without a file, BoolQ's lengths.
        tokenizer: `tokenizer.json` that the texts are tokenized by.
        cpus_of_instance: Logical CPUs of each one-threaded instance, one instance for each core.
        scratch: Directory for the graphs; they are read when the ablation is measured.

    Raises:
        InputError: The texts or the tokenizer cannot be read, or are longer than 512 tokens.
    """
    max_length = config.max_length or MAX_LENGTH
    if max_length > MAX_LENGTH:
        raise InputError(f"--max-length {max_length}: {shapes.name} has {MAX_LENGTH} positions")
    lengths_N, tokenization_s, texts = _measure_lengths(config, tokenizer, max_length)
    rows = random_rows(lengths_N, vocabulary=shapes.teacher.vocabulary)
    num_cores = len(cpus_of_instance)
    baselines = pytorch_baselines(
        random_classifier(shapes.teacher, max_length),
        rows,
        padded_to=max_length,
        num_threads=num_cores,
        baseline_rows=config.baseline_rows,
        logits_NC=None,
        tokenization_s=tokenization_s,
    )
    distilled = pytorch_step(
        DISTILLED,
        random_classifier(shapes.student, max_length),
        rows,
        num_threads=num_cores,
        logits_NC=None,
        tokenization_s=tokenization_s,
    )

    def instances(name: str, graph: Path, *, is_aside: bool) -> AblationStep:
        profile = measure_cost_profile(OnnxEngine(graph), max_length=max_length)
        return instances_step(
            name,
            graph,
            rows,
            cpus_of_instance=cpus_of_instance,
            max_batch_tokens=profile.max_batch_tokens,
            tokenization_s=tokenization_s,
            is_aside=is_aside,
        )

    graph = write_random_int8(shapes.student, scratch / "student.onnx", rows, max_length)
    whole = engine_step(
        INT8_GRAPH, graph, rows, num_threads=num_cores, tokenization_s=tokenization_s
    )
    steps = [*baselines, distilled, whole, instances(MULTI_INSTANCE, graph, is_aside=False)]
    models = [shapes.teacher] * 2 + [shapes.student] * 3
    papers: list[float | None] = [*_PAPER_CUMULATIVE]
    for index, smaller in enumerate(shapes.smaller):
        graph = write_random_int8(smaller.shape, scratch / f"smaller{index}.onnx", rows, max_length)
        steps.append(instances(smaller.name, graph, is_aside=smaller.paper_cumulative is None))
        models.append(smaller.shape)
        papers.append(smaller.paper_cumulative)
    return Ablation(
        steps=tuple(
            _with_shape(step, model, paper)
            for step, model, paper in zip(steps, models, papers, strict=True)
        ),
        lengths_N=lengths_N,
        labels_N=None,
        description=f"shapes of {shapes.name}, random weights (speed only), on {texts}",
    )


def _measure_lengths(
    config: TextsConfig, tokenizer: Path, max_length: int
) -> tuple[NDArray[np.int64], float | None, str]:
    """Lengths (N,) of the texts, what tokenizing took, and where the lengths come from."""
    if config.eval is None:
        lengths_N = boolq_lengths(config.limit or BOOLQ_ROWS)
        return lengths_N.clip(max=max_length), None, "BoolQ's lengths"
    examples, path = load_texts(config)
    try:
        tokenizer_json = tokenizer.read_text(encoding="utf-8")
        json.loads(tokenizer_json)
    except (OSError, ValueError) as error:
        raise InputError(f"--tokenizer {tokenizer}: is not a tokenizer.json file") from error
    rows, tokenization_s = time_tokenization(examples, tokenizer_json, max_length)
    by = f"{tokenizer.parent.name}/{tokenizer.name}"
    return rows.lengths_N, tokenization_s, f"the lengths of {path.name} by {by}"


def _with_shape(
    step: AblationStep, shape: EncoderShape, paper_cumulative: float | None
) -> AblationStep:
    note = f"random weights, speed only; {shape}; {step.note}"
    if paper_cumulative is not None:
        note += f"; the paper: {paper_cumulative:.2f}x"
    return replace(step, note=note)
