"""The graphs of one bundle: the one that it is named after, and further ones for other devices.

    bundle, precision -> [further_graph] -> the bundle, with that graph in the first place

A mixed pool of CPUs and GPUs scores with one bundle directory: int8 for the cores, float16 for the
cards, each with its own measured quality. Tokenizer, labels and cost profile are the same for all.
This module knows nothing of devices.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastformers.errors import InputError
from fastformers.inference.description.stage_quality import StageQuality

if TYPE_CHECKING:
    from fastformers.inference.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class FurtherGraph:
    """A graph beside the one that a bundle is named after.

    Attributes:
        precision: Precision that it computes in.
        file: Name of its ONNX file.
        quality: Quality of the model in this precision; None in a bundle without measurements.
    """

    precision: str
    file: str
    quality: StageQuality | None

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The graph that a manifest's fields speak of."""
        quality = fields["quality"]
        return cls(
            precision=fields["precision"],
            file=fields["file"],
            quality=None if quality is None else StageQuality(**quality),
        )


def graphs_of(bundle: "Bundle") -> dict[str, Path]:
    """The ONNX files of a bundle by precision, the first one first."""
    further = {graph.precision: bundle.path / graph.file for graph in bundle.further_graphs}
    return {bundle.precision: bundle.model_path, **further}


def qualities_of(bundle: "Bundle") -> tuple[StageQuality, ...]:
    """Quality after each stage of the recipe, of each graph, and at last of a cascade."""
    others = [graph.quality for graph in bundle.further_graphs]
    if bundle.cascade is not None:
        others += [bundle.cascade.second_quality, bundle.cascade.quality]
    return (*bundle.stages, *(quality for quality in others if quality is not None))


def choose_graph(bundle: "Bundle", precision: str) -> "Bundle":
    """The bundle with the graph of a precision in the first place.

    Its `model_path`, its last stage and its `digest` are then those of that graph.

    Raises:
        InputError: The bundle has no such graph.
    """
    if precision == bundle.precision:
        return bundle
    others = [graph for graph in bundle.further_graphs if graph.precision != precision]
    chosen = [graph for graph in bundle.further_graphs if graph.precision == precision]
    if not chosen:
        raise InputError(
            f"--precision {precision}: {bundle} has {' and '.join(graphs_of(bundle))} alone; make "
            f"it again with compress --precision {precision}"
            f"{', or int8,float16 for both' if precision in ('int8', 'float16') else ''}"
        )
    (graph,) = chosen
    before = FurtherGraph(
        precision=bundle.precision,
        file=bundle.model_file,
        quality=bundle.stages[-1] if bundle.stages else None,
    )
    return replace(
        bundle,
        precision=precision,
        model_file=graph.file,
        stages=(*bundle.stages[:-1], *([graph.quality] if graph.quality else [])),
        further_graphs=(before, *others),
    )
