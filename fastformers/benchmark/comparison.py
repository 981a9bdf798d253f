"""Compare a bundle's engines with other ways to run the same weights, on one core or on all.

    bundle (+ teacher) + rows -> [comparison] -> rates, agreement, share of the machine's peak

This module combines timing.py (rates), baselines.py (the other engines) and operator_profile.py
(where the time goes). Without the teacher's weights only our own engines run. It knows nothing of
Ray, recipes or prices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastformers.benchmark.operator_profile import (
    GemmPeak,
    OperatorProfile,
    measure_gemm_peak,
    profile_operators,
)
from fastformers.benchmark.timing import (
    SHAPES,
    Candidate,
    Rates,
    case_name,
    engine_candidate,
    fixed_batch,
    measure_rates,
    predict_all,
)
from fastformers.inference.autotune import open_right_engines
from fastformers.inference.bundle import Bundle
from fastformers.inference.engines import AUTO
from fastformers.inference.tokenizer import TokenizedRows

if TYPE_CHECKING:
    from fastformers.benchmark.baselines import BaselineModels


_TOKENS_OF_CASE = {case_name(rows, length): rows * length for rows, length in SHAPES}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rates and agreement of all candidates on the same number of threads.

    Attributes:
        num_threads: Threads of every candidate.
        rates: Tokens a second by case and candidate.
        agreement: Share of the rows to which a candidate gives our engine's label, 0-1, by
            candidate; empty without rows.
    """

    num_threads: int
    rates: Rates
    agreement: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class OperatorBreakdown:
    """Time and arithmetic of the operators of our graph and of the stock one, on one core.

    Attributes:
        peak: Speed of large matrix products on this machine.
        ours: Profiles of the bundle's graph on ONNX Runtime, by case.
        stock: Profiles of the stock recipe's graph, which computes every layer for every token;
            empty without the teacher's weights.
    """

    peak: GemmPeak
    ours: dict[str, OperatorProfile]
    stock: dict[str, OperatorProfile]

    def share_of_peak(self, rates: Rates, name: str) -> dict[str, float]:
        """Least time of our graph's own arithmetic over the time that it took, 0-1, by case.

        Args:
            rates: Measured rates of the fixed shapes.
            name: Candidate of `rates` that ran our graph.
        """
        return {
            case: self.ours[case].least_seconds(self.peak) * rates.by_case[case][name] / tokens
            for case, tokens in _TOKENS_OF_CASE.items()
        }

    def dense_limits(self) -> dict[str, float]:
        """Tokens a second if the whole model's arithmetic ran at the peak, by case."""
        return {
            case: _TOKENS_OF_CASE[case] / profile.least_seconds(self.peak)
            for case, profile in self.stock.items()
        }


def our_name(engine: str) -> str:
    """Name of one of our own engines among the candidates."""
    return f"fastformers {engine}"


def compare_engines(
    bundle: Bundle,
    *,
    max_batch_tokens: int,
    baselines: "BaselineModels | None",
    rows: TokenizedRows | None,
    num_threads: int,
    repeats: int,
) -> Comparison:
    """Time all candidates in turns.

    Args:
        bundle: Our model; it runs in every engine that is installed and computes it right.
        max_batch_tokens: Token budget of our batches.
        baselines: The same weights for the other engines; None for our engines alone.
        rows: Real rows; None for the fixed shapes alone.
        num_threads: Threads of every candidate.
        repeats: Number of turns; the median counts.
    """
    candidates: list[Candidate] = [
        engine_candidate(our_name(name), engine, max_batch_tokens=max_batch_tokens)
        for name, engine in open_right_engines(bundle, AUTO, num_threads=num_threads).items()
    ]
    if baselines is not None:
        from fastformers.benchmark.baselines import make_baselines

        candidates += make_baselines(
            baselines, num_threads=num_threads, max_batch_tokens=max_batch_tokens
        )
    rates = measure_rates(
        candidates,
        rows=rows,
        vocab_size=bundle.load_tokenizer().vocab_size,
        repeats=repeats,
    )
    agreement = {} if rows is None else _agreement(candidates, rows)
    return Comparison(num_threads=num_threads, rates=rates, agreement=agreement)


def _agreement(candidates: Sequence[Candidate], rows: TokenizedRows) -> dict[str, float]:
    """Share of the rows (0-1) to which each candidate gives the first candidate's label."""
    labels = {c.name: predict_all(c, rows).argmax(axis=1) for c in candidates}
    ours_N = labels[candidates[0].name]
    return {name: float(np.mean(labels_N == ours_N)) for name, labels_N in labels.items()}


def profile_engines(bundle: Bundle, baselines: "BaselineModels | None") -> OperatorBreakdown:
    """Profile the operators of the bundle's graph, and of the stock one, at every fixed shape."""
    vocab_size = bundle.load_tokenizer().vocab_size
    ours: dict[str, OperatorProfile] = {}
    stock: dict[str, OperatorProfile] = {}
    stock_baseline = None
    if baselines is not None:
        from fastformers.benchmark.baselines import StockBaseline

        stock_baseline = StockBaseline(baselines.stock_graph, num_threads=1)
    for num_rows, length in SHAPES:
        case = case_name(num_rows, length)
        batch = fixed_batch(num_rows, length, vocab_size=vocab_size)
        inputs = {"input_ids": batch.ids_BT, "token_type_ids": np.zeros_like(batch.ids_BT)}
        ours[case] = profile_operators(
            bundle.model_path,
            {name: inputs[name] for name in bundle.input_names},
            skip_norm_fusion=True,
        )
        if baselines is not None and stock_baseline is not None:
            stock[case] = profile_operators(
                baselines.stock_graph, stock_baseline.feed(batch), skip_norm_fusion=False
            )
    return OperatorBreakdown(peak=measure_gemm_peak(), ours=ours, stock=stock)
