"""Measure our engine beside the others, and where the time goes, as the parts of the report.

    subject -> [engines] -> EnginesPart, OperatorsPart

`fastformers.benchmark.comparison` runs the clock; this module decides on how many threads, and
which of the numbers count. It knows nothing of whole jobs.
"""

from collections.abc import Callable, Sequence

from fastformers.benchmark.comparison import (
    Comparison,
    OperatorBreakdown,
    compare_engines,
)
from fastformers.benchmark.timing import Rates
from fastformers.cluster.execution.topology import discover_topology
from fastformers.jobs.benchmarks.parts import (
    EngineRates,
    EnginesPart,
    NotRun,
    OperatorShares,
    OperatorsPart,
    Ratio,
)
from fastformers.jobs.benchmarks.subject import Subject

# The engine's ratios are of real rows where there are any, else of this shape.
FALLBACK_CASE = "8x128"
# The share of the peak is of a fixed shape, whose arithmetic is known exactly.
_PEAK_CASE = "1x128"


def measure_engines(
    subject: Subject,
    *,
    max_batch_tokens: int,
    repeats: int,
    on_rates: Callable[[EngineRates], None],
) -> list[Comparison]:
    """Compare engines on one core and on all.

    Args:
        subject: What is measured.
        max_batch_tokens: Token budget of our batches.
        repeats: How many times; the median counts.
        on_rates: Called with each comparison as soon as it is measured; the next may take minutes.

    Returns:
        One comparison a number of threads, the fewest threads first.
    """
    comparisons = []
    for num_threads in sorted({1, discover_topology().num_usable_cores}):
        comparison = compare_engines(
            subject.bundle,
            max_batch_tokens=max_batch_tokens,
            baselines=subject.baselines,
            rows=subject.rows,
            num_threads=num_threads,
            repeats=repeats,
        )
        on_rates(_describe_rates(comparison))
        comparisons.append(comparison)
    return comparisons


def describe_engines(comparisons: Sequence[Comparison], ours: str) -> EnginesPart:
    """The part of the report.

    Args:
        comparisons: At least one; the ratios are those of the first, which is on one thread.
        ours: Name of our engine among the candidates.
    """
    one = comparisons[0].rates
    return EnginesPart(
        over_stock=_ratio(one, ours, "ORT stock"),
        over_openvino=_ratio(one, ours, "OpenVINO"),
        rates=tuple(map(_describe_rates, comparisons)),
    )


def describe_operators(
    breakdown: OperatorBreakdown, comparisons: Sequence[Comparison], ours: str
) -> OperatorsPart:
    """The part of the report.

    Args:
        breakdown: Profiles on one core.
        comparisons: As for `describe_engines`; empty if engines were not timed, so that no share of
            the peak can be formed.
        ours: Name of our engine among the candidates.
    """
    of_peak: Ratio | NotRun = NotRun(reason="--parts leaves engines out")
    if comparisons:
        by_case = breakdown.share_of_peak(comparisons[0].rates, ours)
        of_peak = Ratio(value=by_case[_PEAK_CASE], by_case=by_case)
    return OperatorsPart(
        of_peak=of_peak,
        int8_gops=breakdown.peak.int8_ops_per_second / 1e9,
        float_gops=breakdown.peak.float_ops_per_second / 1e9,
        whole_model_at_peak_tokens_per_second=breakdown.dense_limits(),
        operators=OperatorShares(
            case=FALLBACK_CASE,
            ours=breakdown.ours[FALLBACK_CASE].shares,
            ours_of_peak=breakdown.ours[FALLBACK_CASE].of_peak(breakdown.peak),
            stock=breakdown.stock[FALLBACK_CASE].shares if breakdown.stock else {},
        ),
    )


def _describe_rates(comparison: Comparison) -> EngineRates:
    return EngineRates(
        num_threads=comparison.num_threads,
        tokens_per_second=comparison.rates.by_case,
        agreement=comparison.agreement,
    )


def _ratio(rates: Rates, ours: str, prefix: str) -> Ratio | NotRun:
    """Our rate over the best of the others whose names start with `prefix`."""
    by_case = {
        case: rates.ratio(case, ours, name)
        for case in rates.by_case
        if (name := rates.best(case, prefix)) is not None
    }
    if not by_case:  # the others run the checkpoint's weights
        return NotRun(reason="no --teacher")
    case = "rows" if "rows" in by_case else FALLBACK_CASE
    return Ratio(value=by_case[case], by_case=by_case)
