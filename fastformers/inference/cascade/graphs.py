"""Open and measure the one or two graphs that score a bundle's rows on cores.

    bundle, engine's name -> [graphs] -> engines -> Scorer, cost profiles

This module knows nothing of rows and of how those that go on are chosen.
"""

from typing import TYPE_CHECKING

from fastformers.clock import CpuTimer
from fastformers.inference.cascade.record import expected_profile, second_graph
from fastformers.inference.cost_profile import CostProfile, measure_budgets, measure_cost_profile
from fastformers.inference.engine import Engine, OnnxEngine
from fastformers.inference.engines import open_engine

if TYPE_CHECKING:
    from fastformers.inference.bundle import Bundle


def open_graphs(bundle: "Bundle", engine: str, *, num_threads: int) -> tuple[Engine, Engine | None]:
    """Load a bundle's graph into the named engine, and the second one where there is one.

    Raises:
        BundleError: The engine cannot load a graph, or it is not the one of the manifest.
        InputError: The engine is not known or not installed.
    """
    first = open_engine(engine, bundle.model_path, num_threads=num_threads)
    bundle.check_graph(first.input_names, first.num_outputs)
    if bundle.cascade is None:
        return first, None
    part = second_graph(bundle)
    second = open_engine(engine, part.model_path, num_threads=num_threads)
    part.check_graph(second.input_names, second.num_outputs)
    return first, second


def measure_both(
    first: Engine, second: Engine, *, share: float, max_length: int
) -> tuple[CostProfile, CostProfile]:
    """Cost profiles of the graphs of a cascade, at the token budget that is best for both together.

    Args:
        first, second: One-thread engines of the graphs.
        share: Share of rows that go on to the second.
        max_length: Longest row, in tokens.
    """
    timer = CpuTimer()
    budgets, others = (
        measure_budgets(engine, max_length=max_length, timer=timer) for engine in (first, second)
    )
    best = min(budgets, key=lambda budget: budgets[budget] + share * others[budget])
    own, other = (
        measure_cost_profile(engine, max_length=max_length, max_batch_tokens=best)
        for engine in (first, second)
    )
    return own, other


def measure_profile(bundle: "Bundle") -> CostProfile:
    """Cost profile of a bundle on one core of this machine: of a cascade, the expected one."""
    first = OnnxEngine(bundle.model_path)
    if bundle.cascade is None:
        return measure_cost_profile(first, max_length=bundle.max_length)
    second, cascade = OnnxEngine(second_graph(bundle).model_path), bundle.cascade
    own, other = measure_both(first, second, share=cascade.share, max_length=bundle.max_length)
    return expected_profile(own, other, cascade.share_by_length)
