"""How fast the processors and GPUs that clouds rent out are, compared with each other.

    measured machine -> [hardware] -> speed of a machine that was not -> estimate

The rule for CPUs: speed of a physical core = clock / cycles, where

    cycles = INT8_WORK / int8 multiply-adds a cycle + FLOAT_WORK / float multiply-adds a cycle

for an int8 bundle, and the float part alone for any other. Both rates are what the vector units can
issue (`CPU_GENERATIONS` of fastformers/inference/cpu.py, where this machine's is recognized too).
The two amounts of work are one measurement: on a core of an EPYC Zen 5 (128 and 32 a cycle)
an int8 student of 4 layers x 312 reached 45,000 tokens a second, where its int8 products at the
core's measured peak would have allowed 79,000 (onnxruntime 1.32, 2026-11): 57% of the cycles.

For GPUs: published throughput of BERT-large, by arithmetic, less for narrow matrices. It is of int8
(or fp8), and our graph for GPUs is float16, whose peak is half as high on each of these: so half.
One card was held against it: an H200, whose processors are an H100's, did 1.01 times as much with
BERT-base and 1.22 times with the 4 x 312 student as the rule says of an H100 (131 tokens a row,
onnxruntime-gpu 1.31.1, 2026-11-26).

Each rule has an error factor, which goes with every figure that the rule makes: in 95 of 100 cases
the true cost is taken to lie between the figure divided and multiplied by it (`log_spread`). The
factors here are judgment: the rules ignore caches, memory and how well a kernel is written for a
processor. Profiles of machines that were measured correct them (`learn_error`).
This module knows nothing of prices, corpora or Ray.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from fastformers.inference.cpu import AMX_INT8, CPU_GENERATIONS, CpuGeneration

INT8_WORK, FLOAT_WORK = 0.57 * 128, 0.43 * 32

# Power of a server over that of its cores: memory, network, fans and power supply are assumed to
# draw half as much as the cores.
NODE_WATTS_PER_CORE_WATT = 1.5

SAME_GENERATION_ERROR, SAME_EXTENSIONS_ERROR, OTHER_EXTENSIONS_ERROR = 1.15, 1.3, 1.6
UNKNOWN_ERROR = 2.0
GPU_ERROR, GPU_PEAK_ERROR = 2.0, 2.5
# A GPU that was measured, in another machine: its clocks and its cooling may differ.
SAME_GPU_ERROR = 1.15
# A machine that another int8 bundle was measured on: theirs may differ in width and in the share of
# int8 work.
OTHER_BUNDLE_ERROR = 1.2
# Each rule's error factor by judgment, by the rule's name for people.
CPU_RULES = {
    "same generation": SAME_GENERATION_ERROR,
    "same instruction sets": SAME_EXTENSIONS_ERROR,
    "other instruction sets": OTHER_EXTENSIONS_ERROR,
    "hidden processor": UNKNOWN_ERROR,
}
GPU_RULES = {"GPU by MLPerf": GPU_ERROR, "GPU by its peak": GPU_PEAK_ERROR}

# Extensions of x86 and Arm processors, the strongest first.
_BY_STRENGTH = ("amx", "vnni", "avx512", "avx2", "i8mm", "dotprod", "neon")


# Standard deviations of a normal distribution on each side of its mean that hold 95% of it.
_SPREADS_OF_95_PERCENT = NormalDist().inv_cdf(0.975)
# Machines whose measurement would weigh as much as the judgment does.
_JUDGED_MACHINES = 4


def log_spread(error_factor: float) -> float:
    """Standard deviation of the logarithm of true over predicted seconds.

    The logarithm is taken to be normal around 0: half of the predictions are too high.

    Args:
        error_factor: Factor within which 95% of the predictions are right; 1 where measured.
    """
    return math.log(error_factor) / _SPREADS_OF_95_PERCENT


def error_between_measurements(values: Sequence[float]) -> float:
    """Error factor of one more measurement, by how those that are there differ; 1 of a single one.

    Args:
        values: Seconds or rates, above 0, of machines that should be alike.
    """
    if len(values) < 2:
        return 1.0
    return _error_of(statistics.stdev(map(math.log, values)))


def learn_error(judged: float, ratios: Sequence[float]) -> float:
    """An error factor, after predictions were held against measurements.

    The judgment counts as `_JUDGED_MACHINES` machines that were off by its own spread: the mean of
    a scaled inverse chi-squared posterior of the variance around 0 (Gelman et al., Bayesian Data
    Analysis, section 2.6).

    Args:
        judged: The factor before anything was measured.
        ratios: Measured over predicted seconds, one of each machine.
    """
    if not ratios:
        return judged
    squares = _JUDGED_MACHINES * log_spread(judged) ** 2 + sum(math.log(r) ** 2 for r in ratios)
    return _error_of(math.sqrt(squares / (_JUDGED_MACHINES + len(ratios))))


def _error_of(spread: float) -> float:
    """The error factor of a standard deviation of logarithms: the inverse of `log_spread`."""
    return math.exp(_SPREADS_OF_95_PERCENT * spread)


def join_errors(*error_factors: float) -> float:
    """Error factor of a figure that several independent errors go into."""
    return math.exp(math.hypot(*map(math.log, error_factors)))


@dataclass(frozen=True, kw_only=True)
class CpuSpec:
    """What decides the speed of a physical core.

    Attributes:
        generation: A name of `CPU_GENERATIONS`.
        features: Extensions that can be used; empty means all that the generation has.
        clock_ghz: Sustained clock.
        is_guess: True where the processor hides its generation.
    """

    generation: str
    features: tuple[str, ...]
    clock_ghz: float
    is_guess: bool

    @property
    def name(self) -> str:
        """Its generation, for people."""
        return f"{self.generation} or the like" if self.is_guess else self.generation

    def speed(self, *, is_int8: bool) -> float:
        """Rows a second, in a unit of its own: only ratios of two cores mean something."""
        generation = CPU_GENERATIONS[self.generation]
        cycles = FLOAT_WORK / generation.float_per_cycle
        if is_int8:
            cycles += INT8_WORK / _int8_per_cycle(generation, self.features)
        return self.clock_ghz / cycles


def plan_cpu(
    *, generation: str | None, features: tuple[str, ...], clock_ghz: float | None = None
) -> CpuSpec:
    """The core of a processor, or the fastest that it could have where the generation is hidden."""
    is_known = generation in CPU_GENERATIONS
    name = generation if generation in CPU_GENERATIONS else _fastest_with(features)
    return CpuSpec(
        generation=name,
        features=features,
        clock_ghz=clock_ghz or CPU_GENERATIONS[name].clock_ghz,
        is_guess=not is_known,
    )


def _fastest_with(features: tuple[str, ...]) -> str:
    """The generation assumed for a processor that hides its own, by its extensions.

    It is the fastest generation that has the strongest of them and no stronger ones, so that no
    other type looks better than it is; without any extension, the fastest of all.
    """
    strongest = next((name for name in _BY_STRENGTH if name in features), None)
    names = list(CPU_GENERATIONS)
    if strongest is not None:
        able = {n: g.features for n, g in CPU_GENERATIONS.items() if strongest in g.features}
        fewest = min(map(len, able.values()))
        names = [name for name, its_features in able.items() if len(its_features) == fewest]
    return max(names, key=lambda n: plan_cpu(generation=n, features=()).speed(is_int8=True))


def error_between(measured: CpuSpec, other: CpuSpec) -> float:
    """Error factor of a speed that was scaled from one core to another."""
    if measured.is_guess or other.is_guess:
        return UNKNOWN_ERROR
    if measured.generation == other.generation:
        return SAME_GENERATION_ERROR
    rates = [CPU_GENERATIONS[core.generation] for core in (measured, other)]
    if rates[0].int8_per_cycle == rates[1].int8_per_cycle and (
        set(rates[0].features) == set(rates[1].features)
    ):
        return SAME_EXTENSIONS_ERROR
    return OTHER_EXTENSIONS_ERROR


@dataclass(frozen=True, kw_only=True)
class GpuSpec:
    """Published figures of a GPU.

    Attributes:
        bert_large_per_s: BERT-large rows a second, MLPerf Inference 4.1 offline, int8 or fp8; None
            where only the peak is used.
        int8_peak: Dense int8 multiply-adds a second, from the maker's data sheet.
        watts: Board power.
        words: Words by which the driver's name of the card is recognized.
    """

    bert_large_per_s: float | None
    int8_peak: float
    watts: float
    words: tuple[str, ...]

    def multiply_adds_per_s(self, width: int) -> float:
        """Rate in float16 on matrices of this width, lower where they are narrow."""
        reached = (
            self.bert_large_per_s * _BERT_LARGE_MULTIPLY_ADDS
            if self.bert_large_per_s is not None
            else self.int8_peak * _LOWEST_SHARE_OF_PEAK
        )
        return reached * _FLOAT16_OF_INT8 * min(1.0, width / _BERT_LARGE_WIDTH)

    @property
    def error(self) -> float:
        """Error factor of `multiply_adds_per_s`."""
        return GPU_ERROR if self.bert_large_per_s is not None else GPU_PEAK_ERROR


# Float16 over int8, by the data sheets: on tensor cores of each of these GPUs.
_FLOAT16_OF_INT8 = 0.5
# 24 layers of 12 x 1024^2 weights, times about 180 tokens, the mean length of SQuAD 1.1 cut at 384:
# submissions leave padding out, and counting it would flatter the GPU.
_BERT_LARGE_WIDTH = 1024
_BERT_LARGE_MULTIPLY_ADDS = 24 * 12 * _BERT_LARGE_WIDTH**2 * 180
# The smallest share of the peak that a GPU reached: the L4's, of three published (43, 50 and 51%).
_LOWEST_SHARE_OF_PEAK = 0.43
GPUS: dict[str, GpuSpec] = {
    name: GpuSpec(
        bert_large_per_s=per_s,
        int8_peak=tera_operations * 1e12 / 2,
        watts=watts,
        words=tuple(words.split()),
    )
    for name, per_s, tera_operations, watts, words in (
        ("T4-16GB", None, 130, 70, "T4"),
        ("L4-24GB", 964, 242, 72, "L4"),
        ("A10G-24GB", None, 140, 300, "A10G"),
        ("L40S-48GB", 3422, 733, 350, "L40S"),
        ("A100-40GB", None, 624, 400, "A100 40GB"),
        ("A100-80GB", None, 624, 400, "A100 80GB"),
        ("H100-80GB", 9110, 1979, 700, "H100 80GB"),
        ("H100-NVL-94GB", None, 1671, 400, "H100 NVL"),
        ("H200-141GB", None, 1979, 700, "H200"),
        ("RTX-PRO-6000-96GB", None, 1000, 600, "RTX PRO 6000"),
    )
}


def find_gpu_name(card: str) -> str | None:
    """Name in price tables of a card, by the driver's name of it; None if it is not known.

    Args:
        card: Name such as "NVIDIA A100-SXM4-80GB".
    """
    words = card.replace("-", " ").split()
    known = (name for name, gpu in GPUS.items() if set(gpu.words) <= set(words))
    return next(known, None)


def _int8_per_cycle(generation: CpuGeneration, features: tuple[str, ...]) -> float:
    """The generation's int8 rate without the extensions that are masked."""
    if not features or generation.is_arm:
        return generation.int8_per_cycle
    for feature, limit in (("amx", AMX_INT8), ("vnni", 128.0), ("avx512", 42.7)):
        if feature in features:
            return min(generation.int8_per_cycle, limit)
    return min(generation.int8_per_cycle, 32.0)
