"""What the parts of `fastformers bench` measured, as values.

    engines, operators, whole jobs -> [parts] -> BenchReport

A part that did not run, and a number that could not be formed, is a `NotRun` with its reason:
whoever decides that something does not run writes the reason. Ratios above 1 mean that fastformers
is faster. Cases are those of `fastformers.benchmark.timing`, for example "8x128", or "rows". This
module knows neither how anything is measured nor how it is shown.
"""

import statistics
from dataclasses import dataclass

from fastformers.jobs.benchmarks.peers.catalog import (
    JOB_BASELINES,
    BaselineName,
    Family,
)


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """Stands where something was not measured.

    Attributes:
        reason: Why, for people.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One number and what it was chosen from.

    Attributes:
        value: The ratio of the case that counts.
        by_case: The ratio of every case.
    """

    value: float
    by_case: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EngineRates:
    """All engines on one number of threads.

    Attributes:
        num_threads: Threads of each engine.
        tokens_per_second: Rates by case, then by name of the engine.
        agreement: Share of the rows that get our engine's label, 0 to 1, by name; empty without
            rows.
    """

    num_threads: int
    tokens_per_second: dict[str, dict[str, float]]
    agreement: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class EnginesPart:
    """Our engine beside the others, on one thread and on all cores.

    Attributes:
        over_stock: Our rate over that of ONNX Runtime's stock int8 recipe, on one thread.
        over_openvino: The same over the fastest way to run OpenVINO by itself.
        rates: What was measured, the fewest threads first.
    """

    over_stock: Ratio | NotRun
    over_openvino: Ratio | NotRun
    rates: tuple[EngineRates, ...]


@dataclass(frozen=True, kw_only=True)
class OperatorShares:
    """Where one case's time goes on one core.

    Attributes:
        case: The case that was profiled.
        ours: Share of our graph's time by operator, 0 to 1.
        ours_of_peak: Share of an operator's time that its arithmetic needs at the peak, 0 to 1.
        stock: As `ours`, of the stock recipe's graph; empty without the checkpoint.
    """

    case: str
    ours: dict[str, float]
    ours_of_peak: dict[str, float]
    stock: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class OperatorsPart:
    """How near our graph comes to what this machine can compute, on one core.

    Attributes:
        of_peak: Least time of the arithmetic over the time that it took.
        int8_gops: Peak of int8 arithmetic here, in 1e9 operations a second.
        float_gops: The same of float32.
        whole_model_at_peak_tokens_per_second: Rate at which the whole model's arithmetic would run
            at the peak, by case; empty without the checkpoint.
        operators: Shares of the operators.
    """

    of_peak: Ratio | NotRun
    int8_gops: float
    float_gops: float
    whole_model_at_peak_tokens_per_second: dict[str, float]
    operators: OperatorShares


@dataclass(frozen=True, kw_only=True)
class JobPart:
    """The whole job on the whole corpus, and its engine alone. Names are the keys of the last line.

    Attributes:
        job_rows_per_second: Rate of the whole job, the median of the repeats.
        engine_rows_per_second: Rate of the same actors on the same batches in memory, the median.
        job_wall_s: Seconds of each job from start to end.
        rows, unique_rows, tokens: Counts of the corpus.
        saved_by_scoring_equal_texts_once: Share of the corpus's tokens, 0 to 1.
        padding_efficiency: Tokens of text over tokens computed, 0 to 1; None if none was computed.
        phase_s: Seconds of all actors by phase, of the first job.
        predicted_over_inferred: Seconds that the cost profile predicted over those measured.
        num_actors: Number of actors that worked.
    """

    job_rows_per_second: float
    engine_rows_per_second: float
    job_wall_s: tuple[float, ...]
    rows: int
    unique_rows: int
    tokens: int
    saved_by_scoring_equal_texts_once: float
    padding_efficiency: float | None
    phase_s: dict[str, float]
    predicted_over_inferred: float
    num_actors: int

    @property
    def job_over_engine(self) -> float:
        """Share of the engine's rate that the whole job keeps, 0 to 1."""
        return self.job_rows_per_second / self.engine_rows_per_second


@dataclass(frozen=True, kw_only=True)
class BaselineRate:
    """What one whole job reached, ours or of others. Names are the keys of the last line.

    Attributes:
        rows_per_second: The median of the turns.
        rows_per_second_by_turn: That of each turn; of runs before this was kept, the median alone.
        rows: How many texts it scored in a turn.
        seconds: How long that took, on the one clock, the median.
        startup_s: Seconds before that clock, the median; None of runs before this was kept.
        accuracy: Share of its labels that are right, 0 to 1; None without labels.
        setting: How it ran, for people.
        versions: Versions of its libraries.
    """

    rows_per_second: float
    rows_per_second_by_turn: tuple[float, ...]
    rows: int
    seconds: float
    startup_s: float | None
    accuracy: float | None
    setting: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RatioRange:
    """Our rate over another in each turn.

    Attributes:
        value: The median.
        least, most: The spread.
    """

    value: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class BaselinesPart:
    """Whole jobs of others, and ours on texts of the same corpus in turns with them.

    Attributes:
        ours: What our job reached.
        by_name: What each baseline reached; every baseline has its entry.
    """

    ours: BaselineRate
    by_name: dict[BaselineName, BaselineRate | NotRun]

    def our_ratio(self, name: BaselineName) -> RatioRange | NotRun:
        """Our rate over that of a baseline, turn by turn."""
        found = self.by_name[name]
        if isinstance(found, NotRun):
            return found
        ratios = [
            ours / theirs
            for ours, theirs in zip(
                self.ours.rows_per_second_by_turn, found.rows_per_second_by_turn, strict=True
            )
        ]
        return RatioRange(value=statistics.median(ratios), least=min(ratios), most=max(ratios))

    def fastest(self, family: Family) -> BaselineName | NotRun:
        """The way to run a tool that was fastest."""
        members = [name for name, job in JOB_BASELINES.items() if job.family == family]
        measured = self.measured()
        ran = [name for name in members if name in measured]
        if not ran:
            found = self.by_name[members[0]]
            return found if isinstance(found, NotRun) else members[0]
        return max(ran, key=lambda name: measured[name].rows_per_second)

    def measured(self) -> dict[BaselineName, BaselineRate]:
        """The baselines that ran, in the order of `JOB_BASELINES`."""
        return {
            name: found
            for name in JOB_BASELINES
            if not isinstance(found := self.by_name[name], NotRun)
        }
