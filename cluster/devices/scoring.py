"""Which engine, graph and token budget each kind of actor scores with.

    bundle, settings -> [scoring] -> Scoring of each kind -> job -> workers, report

A kind of actor is the device that computes for it. All three are chosen once for a run, by its
driver, and are part of its identity; an actor never chooses. The driver may have no card; then the
budget of cards is one that suits all. This module knows nothing of actors or Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastformers.cluster.settings import ScoringSettings
from fastformers.errors import InputError
from fastformers.inference.autotune import EngineChoice, tune
from fastformers.inference.bundle import Bundle
from fastformers.inference.description.further_graph import choose_graph, graphs_of
from fastformers.inference.engine import Device
from fastformers.inference.engines import AUTO, CUDA_ENGINE, check_installed
from fastformers.inference.engines.cuda_setup import check_cuda

# Where the driver has no card: the best of 16k, 32k and 64k tokens on an H200 (2026-11-26), for
# BERT-base by 2% and the 4 x 312 student by 9%; where they do not fit, the engine halves them.
CARD_BATCH_TOKENS = 64 * 1024
_GPU_BUDGET = "max batch tokens on GPUs"
# Graphs that are laid out for cards: int8 operators run on CPUs alone.
_CARD_PRECISIONS = ("float16",)


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


def choose_precisions(bundle: Bundle, settings: ScoringSettings) -> dict[Device, str]:
    """The graph that each kind of actor of a run will run, by its precision.

    Raises:
        InputError: The bundle has no such graph, or none that a card can run.
    """
    graphs, wanted = list(graphs_of(bundle)), settings.precision
    if bundle.cascade is not None and (settings.uses_gpus or wanted not in (None, *graphs)):
        asked = f"--device {settings.device}" if settings.uses_gpus else f"--precision {wanted}"
        raise InputError(
            f"{asked}: {bundle} is a cascade, which runs on cores alone in {bundle.precision} and "
            f"{bundle.cascade.precision}; give a bundle of one graph"
        )
    if wanted is not None:
        choose_graph(bundle, wanted)
    precisions: dict[Device, str] = {}
    if settings.device == "cpu" and wanted is None and graphs == ["float16"]:
        raise InputError(
            f"--device cpu: {bundle} has float16 alone, which is for GPUs: give --device cuda, or "
            "--precision float16 to score with it on cores, slowly"
        )
    if settings.device != "cuda":
        precisions["cpu"] = wanted or graphs[0]
    if settings.uses_gpus:
        able = [name for name in _CARD_PRECISIONS if name in graphs and wanted in (None, name)]
        if not able:
            asked = f"--device {settings.device}"
            asked += "" if wanted is None else f" --precision {wanted}"
            raise InputError(
                f"{asked}: {bundle} has no graph for GPUs (it has {' and '.join(graphs)}); make it "
                "again with compress --precision int8,float16, or float16 for GPUs alone"
            )
        precisions["cuda"] = able[0]
    return precisions


def choose_gpu_budget(bundle: Bundle) -> int:
    """The best token budget on a GPU of this machine; without one, what all are known to take.

    Args:
        bundle: Bundle with the graph for GPUs in the first place.

    Raises:
        InputError: The GPU of this machine computes other logits than the CPU.
        BundleError: It cannot load the graph.
    """
    try:
        check_cuda()
    except InputError:
        return CARD_BATCH_TOKENS
    return tune(bundle, engine=CUDA_ENGINE).max_batch_tokens


def choose_scorings(
    bundle: Bundle,
    settings: ScoringSettings,
    *,
    engine: str,
    max_batch_tokens: int | None,
    recorded: Mapping[str, Any],
) -> tuple[Scoring, ...]:
    """How each kind of actor scores, those on cores first.

    Args:
        bundle: Bundle of the run.
        settings: What the user asked for.
        engine: Name of the engine on cores, or "auto" to leave it open.
        max_batch_tokens: Token budget of a batch on cores, or on GPUs where only they score; None
            to leave it open.
        recorded: Identity of an earlier run into the same output, which chose what is left open.

    Raises:
        InputError: The bundle has no such graph, or an engine is not installed or computes it
            wrongly.
        BundleError: An engine cannot load its graph.
    """
    precisions = choose_precisions(bundle, settings)
    scorings = []
    if "cpu" in precisions:
        graph = choose_graph(bundle, precisions["cpu"])
        choice = _recorded_choice(recorded, engine, max_batch_tokens) or tune(
            graph, engine=engine, max_batch_tokens=max_batch_tokens
        )
        scorings.append(
            Scoring(
                device="cpu",
                engine=choice.engine,
                precision=precisions["cpu"],
                max_batch_tokens=choice.max_batch_tokens,
            )
        )
    if "cuda" in precisions:
        graph = choose_graph(bundle, precisions["cuda"])
        own = max_batch_tokens if settings.device == "cuda" else None
        scorings.append(
            Scoring(
                device="cuda",
                engine=CUDA_ENGINE,
                precision=precisions["cuda"],
                max_batch_tokens=own or recorded.get(_GPU_BUDGET) or choose_gpu_budget(graph),
            )
        )
    return tuple(scorings)


def identify_scorings(bundle: Bundle, scorings: Sequence[Scoring]) -> dict[str, Any]:
    """What must not change between two runs of the same command, by name for messages."""
    first, last = scorings[0], scorings[-1]
    return {
        "precision": [scoring.precision for scoring in scorings],
        "bundle": [choose_graph(bundle, scoring.precision).digest for scoring in scorings],
        "max batch tokens": first.max_batch_tokens,
        "engine": first.engine,
        **({_GPU_BUDGET: last.max_batch_tokens} if last.device == "cuda" else {}),
    }


def _recorded_choice(
    recorded: Mapping[str, Any], engine: str, max_batch_tokens: int | None
) -> EngineChoice | None:
    """What an interrupted run chose for cores, where the user leaves it open; else None."""
    if not {"engine", "max batch tokens"} <= recorded.keys():
        return None
    if engine not in (AUTO, recorded["engine"]):
        return None
    check_installed(recorded["engine"])
    return EngineChoice(
        engine=recorded["engine"],
        max_batch_tokens=max_batch_tokens or recorded["max batch tokens"],
    )
