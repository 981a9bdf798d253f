"""The stages that write a graph.

    trained model -> [export -> quantize or float16] -> bundle

Each function returns the `Stage` for recipe.py to run. A stage does not change the artifact that it
is given. This module knows nothing of training.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from fastformers.compression.artifact import ModelArtifact
from fastformers.compression.own_pipeline import odd_examples, rows_for_outputs, show_example
from fastformers.compression.recipe import Stage
from fastformers.compression.recipe_config import (
    QuantizeConfig,
)
from fastformers.compression.stages.model_stages import require_no_graph
from fastformers.errors import StageError
from fastformers.export.calibration import choose_ranges
from fastformers.export.encoder import EncoderWeights
from fastformers.export.graph import GRAPH_VERSION, write_graph
from fastformers.export.read_encoder import read_encoder
from fastformers.inference.onnx_files import measure_graph_bytes
from fastformers.models.forward import OnProgress
from fastformers.models.loading import task_of
from fastformers.models.variants.token_reduction import reduction_of

CALIBRATION_ROWS = 256
# Float graphs differ from PyTorch by rounding alone: 1e-6 to 1e-5 on the architectures tested.
MAX_EXPORT_ERROR = 1e-3
# Share of the rows in which a graph may keep another token than PyTorch does, because two of them
# receive the same attention but for rounding; of 256 tokens, about one choice in 2,000 is so close.
MAX_CLOSE_CHOICES = 0.1
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
        drops = reduction_of(before.model.config).drops
        for examples in (sample, rows_for_outputs(after, odd_examples(after))):
            errors_N = np.abs(before.logits(examples) - after.logits(examples)).max(axis=1)
            num_close = int(MAX_CLOSE_CHOICES * len(errors_N)) if drops else 0
            row = int(np.nan_to_num(errors_N, nan=np.inf).argsort()[-1 - num_close])
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
