"""Which engine, graph and token budget each kind of actor scores with.

    bundle, settings -> [scoring] -> Scoring of each kind -> job -> workers, report

A kind of actor is the device that computes for it. All three are chosen once for a run, by its
driver, and are part of its identity; an actor never chooses. The driver may have no card, so that
what is chosen for cards follows from the bundle alone. This module knows nothing of actors or Ray.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastformers.cluster.settings import ScoringSettings
from fastformers.errors import InputError
from fastformers.inference.autotune import EngineChoice
from fastformers.inference.bundle import Bundle
from fastformers.inference.engine import Device

CARD_ENGINE = "onnxruntime-cuda"
# A card is full from 16k tokens on, and 64k fit every card; where they do not, the engine halves.
CARD_BATCH_TOKENS = 32 * 1024
# Graphs that a card has kernels for, the fastest first: int8 operators run on CPUs alone.
_CARD_PRECISIONS = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How actors of one kind score.

    Attributes:
        device: Kind of the actors.
        engine: Name of the engine that runs the graph.
        precision: Precision of the graph's matrix products.
        max_batch_tokens: Token budget of a batch.
    """

    device: Device
    engine: str
    precision: str
    max_batch_tokens: int

    @property
    def identity(self) -> dict[str, Any]:
        """Values that are equal when the same work is run again."""
        return asdict(self)


def graphs_of(bundle: Bundle) -> dict[str, Path]:
    """The graphs of a bundle by their precision, that of its cost profile first."""
    return {bundle.precision: bundle.model_path}


def choose_precisions(bundle: Bundle, settings: ScoringSettings) -> dict[Device, str]:
    """The graph that each kind of actor of a run will run, by its precision.

    Raises:
        InputError: The bundle has no such graph, or none that a card can run.
    """
    graphs = graphs_of(bundle)
    has = f"it has {' and '.join(graphs)}"
    wanted = settings.precision
    if wanted is not None and wanted not in graphs:
        raise InputError(
            f"--precision {wanted}: {bundle} has no such graph, {has}; compress --precision "
            f"{','.join((*graphs, wanted))} makes a bundle with both"
        )
    precisions: dict[Device, str] = {}
    if settings.device != "cuda":
        precisions["cpu"] = wanted or next(iter(graphs))
    if settings.uses_gpus:
        able = [name for name in _CARD_PRECISIONS if name in graphs and wanted in (None, name)]
        if not able:
            asked = f"--device {settings.device}"
            asked += "" if wanted is None else f" --precision {wanted}"
            raise InputError(
                f"{asked}: {bundle} has no graph for GPUs ({has}); compress --precision "
                f"{','.join((*graphs, 'float16'))} makes one"
            )
        precisions["cuda"] = able[0]
    return precisions


def plan_scorings(
    precisions: Mapping[Device, str], choice: EngineChoice | None, *, max_batch_tokens: int | None
) -> tuple[Scoring, ...]:
    """How each kind of actor scores, those on cores first.

    Args:
        precisions: The graph of each kind.
        choice: Engine and budget of actors on cores; None where none of them scores.
        max_batch_tokens: The user's token budget, for cards where only they score; None for what
            they are known to take.
    """
    scorings = []
    if choice is not None:
        scorings.append(
            Scoring(
                device="cpu",
                engine=choice.engine,
                precision=precisions["cpu"],
                max_batch_tokens=choice.max_batch_tokens,
            )
        )
    if "cuda" in precisions:
        own = max_batch_tokens if choice is None else None
        scorings.append(
            Scoring(
                device="cuda",
                engine=CARD_ENGINE,
                precision=precisions["cuda"],
                max_batch_tokens=own or CARD_BATCH_TOKENS,
            )
        )
    return tuple(scorings)
