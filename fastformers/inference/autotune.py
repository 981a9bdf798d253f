"""Choose engine and token budget for this machine, by measurement.

    bundle -> [autotune] -> engine, token budget -> plan of a run

Both decide predictions to the last bit: the budget says which rows share a batch, the engine how
sums are rounded. So they are chosen once for a run, by its driver, and become part of its identity;
an actor never chooses. Measurements are kept by bundle, processor and engine version, so every run
on one kind of machine chooses alike. This module knows nothing of corpora or Ray.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from fastformers.atomic_file import whole_file
from fastformers.cache import cache_directory
from fastformers.clock import CpuTimer
from fastformers.errors import BundleError, InputError
from fastformers.inference.bundle import Bundle
from fastformers.inference.cascade.record import first_graph, graphs_by_share, second_graph
from fastformers.inference.cost_profile import measure_budgets, warn_if_busy
from fastformers.inference.cpu import read_cpu_model
from fastformers.inference.engine import Device, Engine, EngineError
from fastformers.inference.engines import (
    AUTO,
    ENGINES,
    REFERENCE_ENGINE,
    candidate_names,
    open_engine,
)
from fastformers.inference.engines.card_measures import (
    CardEngine,
    choose_budget,
    measure_card_budgets,
)

logger = logging.getLogger(__name__)

# Larger budgets are left out once the smaller ones took this long: a model so slow has matrix
# products that are large enough at any budget.
_MEASURE_S = 2.0
# int8 engines do not round at the same places: logits of 1.2 moved by 0.02 in a 4 x 312
# student (OpenVINO 2026.4 against onnxruntime 1.32). A wrong operator moves them by their size.
# A card computes in float16 what ONNX Runtime computes in float32 from the same weights.
_ROUNDING: dict[Device, float] = {"cpu": 0.1, "cuda": 0.03}
_CHECKED_LENGTHS = (7, 64, 512)


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Engine and token budget of a run.

    Attributes:
        engine: Name of the engine that runs the graph, one of `ENGINES`.
        max_batch_tokens: Token budget of a batch.
    """

    engine: str
    max_batch_tokens: int


def tune(
    bundle: Bundle,
    *,
    engine: str,
    max_batch_tokens: int | None = None,
    cache: Path | None = None,
) -> EngineChoice:
    """Choose the fastest engine and token budget on one core of this machine, or on its GPU.

    Nothing is measured where the bundle's own cost profile was measured on this processor and
    engine, or where engine and budget are both given. "auto" compares all engines that are
    installed and that compute the bundle as ONNX Runtime does, with which its quality was measured.
    Of a cascade, both graphs run on one engine with one budget: the one that is fastest for all
    rows in the first and the expected share of them in the second.

    Args:
        bundle: Bundle that will score.
        engine: Name of the engine, or "auto" for the fastest on CPUs.
        max_batch_tokens: Token budget of a batch; None for the fastest.
        cache: Directory of earlier measurements; `cache_directory("tuning")` by default.

    Raises:
        InputError: The engine is not installed, or computes other logits than ONNX Runtime.
        BundleError: The engine cannot load the bundle's graph.
    """
    candidates = open_right_engines(bundle, engine, num_threads=1)
    if len(candidates) == 1 and max_batch_tokens is not None:
        return EngineChoice(engine=next(iter(candidates)), max_batch_tokens=max_batch_tokens)
    cache = cache_directory("tuning") if cache is None else cache
    best: dict[tuple[str, int], float] = {}
    for name, candidate in candidates.items():
        if len(candidates) == 1 and _is_profiled(bundle, candidate):
            return EngineChoice(engine=name, max_batch_tokens=bundle.cost_profile.max_batch_tokens)
        for budget, seconds in _measured_of_all(bundle, name, candidate, cache).items():
            best[name, budget] = seconds
    name, budget = min(best, key=lambda choice: best[choice])
    if ENGINES[name].device == "cuda":
        budget = choose_budget({budget: best[one, budget] for one, budget in best if one == name})
    return EngineChoice(engine=name, max_batch_tokens=max_batch_tokens or budget)


def open_right_engines(bundle: Bundle, option: str, *, num_threads: int) -> dict[str, Engine]:
    """Open the engines that an option allows and that compute the bundle correctly, by name.

    Of a cascade, the engines of the first graph, where they compute the second correctly, too.

    Raises:
        InputError: The chosen engine is not installed, or computes other logits than ONNX Runtime.
        BundleError: The chosen engine cannot load the bundle's graph.
    """
    candidates: dict[str, Engine] = {}
    for name in candidate_names(option):
        try:
            engine = _open_right(first_graph(bundle), name, num_threads)
            if bundle.cascade is not None:
                _open_right(second_graph(bundle), name, num_threads)
        except (BundleError, EngineError, InputError):
            if option != AUTO or name == REFERENCE_ENGINE:
                raise
        else:
            candidates[name] = engine
    return candidates


def _open_right(bundle: Bundle, name: str, num_threads: int) -> Engine:
    """An engine of the one graph of a bundle, checked against the manifest and ONNX Runtime."""
    engine = open_engine(name, bundle.model_path, num_threads=num_threads)
    bundle.check_graph(engine.input_names, engine.num_outputs)
    if name != REFERENCE_ENGINE:
        _check_agrees(bundle, engine, _ROUNDING[ENGINES[name].device])
    return engine


def _check_agrees(bundle: Bundle, engine: Engine, rounding: float) -> None:
    """Refuse an engine whose logits differ from ONNX Runtime's on the CPU by more than rounding."""
    reference = open_engine(REFERENCE_ENGINE, bundle.model_path, num_threads=1)
    rng = np.random.default_rng(0)
    vocab_size = bundle.load_tokenizer().vocab_size
    for length in {min(length, bundle.max_length) for length in _CHECKED_LENGTHS}:
        ids_BT = rng.integers(0, vocab_size, (4, length))
        types_BT = np.sort(rng.integers(0, 2, ids_BT.shape), axis=1)
        expected_BC, logits_BC = (one.run(ids_BT, types_BT) for one in (reference, engine))
        tolerance = rounding * max(1.0, float(np.abs(expected_BC).max()))
        if not np.abs(logits_BC - expected_BC).max() <= tolerance:
            raise InputError(
                f"--engine: {engine.name} computes other logits for {bundle} than "
                f"{reference.name}, with which its quality was measured; use {REFERENCE_ENGINE}"
            )


def _is_profiled(bundle: Bundle, engine: Engine) -> bool:
    profile = bundle.cost_profile
    is_here = profile.engine == engine.name and profile.cpu_model == read_cpu_model()
    return is_here and not profile.is_rough


def _measured_of_all(bundle: Bundle, name: str, engine: Engine, cache: Path) -> dict[int, float]:
    """Expected seconds per token at each token budget, of both graphs where it is a cascade.

    Args:
        bundle: The bundle.
        name: Name of the engine.
        engine: Engine of its first graph.
        cache: Directory of earlier measurements.
    """
    (first, _), *others = graphs_by_share(bundle)
    seconds = _measured(first, name, engine, cache)
    for graph, share in others:
        own = open_engine(name, graph.model_path, num_threads=1)
        added = _measured(graph, name, own, cache)
        seconds = {one: seconds[one] + share * added[one] for one in seconds if one in added}
    return seconds


def _measured(bundle: Bundle, name: str, engine: Engine, cache: Path) -> dict[int, float]:
    """Seconds per token at each token budget, from the cache or measured now.

    What was measured on a busy machine is not kept.
    """
    key = json.dumps([bundle.digest, read_cpu_model(), engine.name])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return {int(budget): float(s) for budget, s in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("%s: cannot be read (%s); measuring again", path, error)
    if ENGINES[name].device == "cuda":
        seconds = measure_card_budgets(cast(CardEngine, engine), max_length=bundle.max_length)
    else:
        timer = CpuTimer()
        seconds = measure_budgets(
            engine, max_length=bundle.max_length, timer=timer, limit_s=_MEASURE_S
        )
        if warn_if_busy(timer, f"{engine.name} with {bundle}"):
            return seconds
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(seconds))
    except OSError as error:
        logger.warning("%s: cannot be written (%s); the next run measures again", path, error)
    return seconds
