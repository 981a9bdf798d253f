"""Put a bundle together: graph, tokenizer, quality, cost, and what it came from.

    chosen candidate, origin of its rows -> [assemble] -> bundle

Its qualities are those on the evaluation rows; which rows chose, `provenance` says. This module
knows nothing of how stages work or of what was tried.
"""

import platform
from collections.abc import Sequence
from typing import Any

from fastformers.compression.compress_config import CompressConfig
from fastformers.compression.search.candidate import RecipeCandidate
from fastformers.compression.transfer_curve import CurvePoint
from fastformers.data.splitting import SplitRows
from fastformers.data.transfer_sample import TransferSample
from fastformers.digest import library_versions
from fastformers.export.encoder import count_multiply_adds
from fastformers.export.read_encoder import read_encoder
from fastformers.files.hub import FoundModel
from fastformers.inference.bundle import Bundle, write_bundle
from fastformers.inference.description.further_graph import FurtherGraph
from fastformers.inference.description.label_names import TEACHER_LABELS
from fastformers.inference.engine import OnnxEngine
from fastformers.models.loading import label_names, task_of
from fastformers.models.variants.token_reduction import reduction_of


def assemble(config: CompressConfig, chosen: RecipeCandidate, origin: dict[str, Any]) -> Bundle:
    """Write the bundle of a candidate.

    Args:
        config: Where it is written, and its names of labels.
        chosen: The candidate, measured on the evaluation rows.
        origin: What `provenance` says of teacher, rows and versions.
    """
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


def provenance(
    config: CompressConfig, selected: RecipeCandidate, teacher: FoundModel, split: SplitRows
) -> dict[str, Any]:
    """What a bundle says of its origin: teacher, rows that trained, chose and judged, versions.

    Args:
        config: Files and settings.
        selected: What was chosen, as it was measured when it was.
        teacher: The teacher.
        split: The rows that trained and those that chose.
    """
    others: dict[str, Any] = {}
    if teacher.revision is not None:
        others["teacher_revision"] = teacher.revision
    if config.label_names:
        others[TEACHER_LABELS] = list(label_names(selected.artifact.model))
    if shares := reduction_of(selected.artifact.model.config).keep_shares:
        others["keep_tokens"] = list(shares)
    choosing: dict[str, Any] = {}
    if split.select is not None:
        choosing["select"] = split.select_path.name
        choosing["select_rows"] = len(split.select)
        choosing["chosen_on_select"] = choices_of(config, selected)
        if config.search:
            choosing["select_quality"] = selected.quality.quality
            choosing["select_drop_points"] = selected.drop
    return {
        "teacher": teacher.name,
        **others,
        "train": config.train.name,
        "train_rows": len(split.train),
        **choosing,
        "eval": config.eval.name,
        "recipe": selected.name,
        "python": platform.python_version(),
        **library_versions(),
    }


def choices_of(config: CompressConfig, selected: RecipeCandidate) -> list[str]:
    """What of a bundle rows chose: a search may have chosen one without a threshold or int8."""
    is_single = selected.cascade is None
    idle = {
        "the threshold": is_single,
        "what is in int8": is_single and selected.config.student.is_static,
    }
    return [name for name in config.choices if not idle.get(name, False)]


def origin_of_transfer(
    sample: TransferSample | None, curve: Sequence[CurvePoint]
) -> dict[str, Any]:
    """What `provenance` says of texts without labels."""
    if sample is None:
        return {}
    found: dict[str, Any] = {"transfer": sample.name, "transfer_texts": len(sample.examples)}
    if curve:
        found["transfer_curve"] = [point.describe() for point in curve]
    return found
