"""The stages that write a graph.

    trained model -> [export -> quantize or float16] -> bundle

Each function returns the `Stage` for recipe.py to run. A stage does not change the artifact that it
is given. This module knows nothing of training.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.own_pipeline import odd_examples, rows_for_outputs, show_example
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    QuantizeConfig,
)
from fastformers.compression.stages.model_stages import require_no_graph
from fastformers.data.examples import Examples
from fastformers.errors import StageError
from fastformers.export.calibration import choose_ranges
from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import GRAPH_VERSION, write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.export.token_choices import measure_choice_gaps
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.models.forward import OnProgress
from fastformers.models.loading import task_of
from fastformers.models.variants.token_reduction import reduction_of

CALIBRATION_ROWS = 256
# Float graphs differ from PyTorch by rounding alone: 1e-6 to 1e-5 on the architectures tested.
MAX_EXPORT_ERROR = 1e-3
# Where two tokens of a row receive the same attention but for this share of it, rounding may have
# the graph keep the other one, and its logits then differ by more.
CLOSE_CHOICE = 1e-4
# Share of the largest logit. It is 0.0015 with a classifier on MiniLM's 6 layers; float16 keeps
# 11 bits.
MAX_FLOAT16_ERROR = 0.02


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
            errors_N = np.nan_to_num(errors_N, nan=np.inf)
            errors_N[_closely_chosen(after, examples, errors_N)] = 0
            row = int(errors_N.argmax())
            if not errors_N[row] <= MAX_EXPORT_ERROR:
                raise StageError(
                    f"the graph's logits differ from PyTorch's by {errors_N[row]:.2g} for "
                    f"{show_example(examples, row)}"
                )

    return Stage(
        name="export",
        settings={"graph_version": GRAPH_VERSION},
        requires=require_no_graph,
        run=run,
        ensures=ensures,
    )


def _closely_chosen(
    artifact: ModelArtifact, examples: Examples, errors_N: NDArray[np.float32]
) -> list[int]:
    """Rows that differ because rounding decided which tokens go on.

    Every such row is shown to be one: the graph says how close its choices were.
    """
    rows = np.flatnonzero(np.isfinite(errors_N) & (errors_N > MAX_EXPORT_ERROR)).tolist()
    if not rows or not reduction_of(artifact.model.config).drops:
        return []
    gaps = measure_choice_gaps(
        _encoder(artifact), artifact.tokenize(examples), rows, text_pairs=artifact.text_pairs
    )
    return [row for row, gap in zip(rows, gaps, strict=True) if gap < CLOSE_CHOICE]


def quantize_stage(config: QuantizeConfig) -> Stage:
    """Turn the projections into int8, except for those that would harm the outputs too much."""

    def run(artifact: ModelArtifact, directory: Path, on_progress: OnProgress) -> ModelArtifact:
        encoder = _encoder(artifact)
        choosing = artifact.choosing.sample(CALIBRATION_ROWS)
        groups_N = None if choosing.groups is None else np.array(choosing.groups)
        ranges, float_projections = choose_ranges(
            encoder,
            artifact.tokenize(artifact.train.sample(CALIBRATION_ROWS)),
            artifact.tokenize(choosing),
            text_pairs=artifact.text_pairs,
            scratch=directory,
            agreement_of=partial(task_of(artifact.model).measure_agreement, groups_N=groups_N),
            dynamic=config.is_dynamic,
            min_agreement=config.min_int8_agreement / 100,
            on_progress=on_progress,
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
        errors_N = np.abs(expected_NC - after.logits(sample)).max(axis=1)
        # A row for which float16 keeps another token differs by more: most rows must not. What it
        # does to the outputs is the quality after the stage.
        drops = reduction_of(after.model.config).drops
        error = float(np.median(errors_N) if drops else errors_N.max())
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
