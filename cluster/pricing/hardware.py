"""How fast the processors and GPUs that clouds rent are, compared with each other.

    measured machine -> [hardware] -> speed on a machine nobody measured -> estimate

The rule for CPUs: speed of a physical core = clock / cycles, where

    cycles = INT8_WORK / int8 multiply-adds a cycle + FLOAT_WORK / float multiply-adds a cycle

for an int8 bundle, and the float part alone for any other. Both rates are what the vector units can
issue. The two amounts of work are one measurement: on a core of an EPYC Zen 5 (128 and 32 a cycle)
an int8 student of 4 layers x 312 reached 45,000 tokens a second, where its int8 products at the
core's measured peak would have allowed 79,000 (onnxruntime 1.32, 2026-11): 57% of the cycles.

For GPUs: published throughput of BERT-large, by arithmetic, less for narrow matrices.

Neither rule is good to better than its error factor, which goes with every figure that it makes:
the true cost is taken to lie between the figure divided and multiplied by it. The factors are
judgment: the rule ignores caches, memory and how well a kernel is written for a processor.
This module knows nothing of prices, corpora or Ray.
"""

from dataclasses import dataclass

INT8_WORK, FLOAT_WORK = 0.57 * 128, 0.43 * 32

# AMX tiles could issue 1,024 a cycle. They are credited with twice VNNI: tiles are small beside the
# cost of loading them at the widths of a student, and no published figure covers such models.
_AMX_INT8_PER_CYCLE = 256.0


@dataclass(frozen=True, kw_only=True)
class CpuGeneration:
    """What cores of one generation can do.

    Attributes:
        features: Vector extensions that matter here.
        int8_per_cycle: int8 multiply-adds a core can issue in a cycle.
        float_per_cycle: float32 multiply-adds a core can issue in a cycle.
        clock_ghz: Sustained clock where the machine's own is not known.
        watts_per_core: Design power of a large model of it over its cores; Arm's are assumed.
    """

    features: tuple[str, ...]
    int8_per_cycle: float
    float_per_cycle: float
    clock_ghz: float
    watts_per_core: float


_AVX512 = ("avx2", "avx512")
_VNNI = (*_AVX512, "vnni")
_AMX = (*_VNNI, "amx")
_I8MM = ("neon", "dotprod", "i8mm", "sve")

# Issue rates from the vendors' optimization guides. AVX2: two multiply units of 32 int8 each, and
# three instructions where VNNI has one. AVX-512 without VNNI: two units of 64, three instructions
# on them. VNNI: two units of 64; Zen 4 splits 512 bits, so 64 in all. Neoverse N: two units of 16
# (dot products) or 32 (i8mm) int8; Neoverse V: four. Design power: Xeon 8168 205 W / 24 cores,
# 8275CL 240/24, 8375C 300/32, 8480+ 350/56, 8592+ 350/64, 6972P 500/96; EPYC 7742 225/64, 7763
# 280/64, 9654 360/96, 9755 500/128; Ampere Altra Q80 250/80; the other Arm processors' is secret.
CPU_GENERATIONS: dict[str, CpuGeneration] = {
    name: CpuGeneration(
        features=features,
        int8_per_cycle=int8,
        float_per_cycle=floats,
        clock_ghz=clock,
        watts_per_core=watts,
    )
    for name, features, int8, floats, clock, watts in (
        ("skylake", _AVX512, 42.7, 32, 3.4, 8.5),
        ("cascade-lake", _VNNI, 128, 32, 3.4, 10.0),
        ("ice-lake", _VNNI, 128, 32, 3.5, 9.4),
        ("sapphire-rapids", _AMX, _AMX_INT8_PER_CYCLE, 32, 3.0, 6.3),
        ("emerald-rapids", _AMX, _AMX_INT8_PER_CYCLE, 32, 3.0, 5.5),
        ("granite-rapids", _AMX, _AMX_INT8_PER_CYCLE, 32, 3.6, 5.2),
        ("rome", ("avx2",), 32, 16, 2.7, 3.5),
        ("milan", ("avx2",), 32, 16, 3.4, 4.4),
        ("genoa", _VNNI, 64, 16, 3.7, 3.8),
        ("turin", _VNNI, 128, 32, 4.1, 3.9),
        ("neoverse-n1", ("neon", "dotprod"), 32, 8, 3.0, 3.1),
        ("neoverse-n2", _I8MM, 64, 8, 3.4, 3.0),
        ("neoverse-v1", _I8MM, 128, 16, 2.6, 3.0),
        ("neoverse-v2", _I8MM, 128, 16, 2.8, 3.0),
    )
}
# What a processor that hides its generation is taken for: the fastest with its extensions, so that
# no other type looks better than it is.
_FASTEST = (("amx", "granite-rapids"), ("vnni", "turin"), ("avx512", "skylake"), ("avx2", "milan"))

# Beside the cores a server feeds memory, network, fans and its power supply: taken as half of them.
NODE_WATTS_PER_CORE_WATT = 1.5

SAME_GENERATION_ERROR, SAME_EXTENSIONS_ERROR, OTHER_EXTENSIONS_ERROR = 1.15, 1.3, 1.6
UNKNOWN_ERROR = 2.0
GPU_ERROR, GPU_PEAK_ERROR = 2.0, 2.5


@dataclass(frozen=True, kw_only=True)
class Core:
    """A physical core, as far as its speed goes.

    Attributes:
        generation: A name of `CPU_GENERATIONS`.
        features: Extensions that can be used; empty means all that the generation has.
        clock_ghz: Sustained clock.
        is_guess: True where the generation was hidden.
    """

    generation: str
    features: tuple[str, ...]
    clock_ghz: float
    is_guess: bool = False

    def speed(self, *, is_int8: bool) -> float:
        """Rows a second, in a unit of its own: only ratios of two cores mean something."""
        generation = CPU_GENERATIONS[self.generation]
        cycles = FLOAT_WORK / generation.float_per_cycle
        if is_int8:
            cycles += INT8_WORK / _int8_per_cycle(generation, self.features)
        return self.clock_ghz / cycles


def plan_core(
    *, generation: str | None, features: tuple[str, ...], clock_ghz: float | None = None
) -> Core:
    """The core that a processor has, or the fastest it could have where that is hidden."""
    known = generation if generation in CPU_GENERATIONS else None
    guess = next((name for feature, name in _FASTEST if feature in features), "granite-rapids")
    if known is None and "neon" in features:
        guess = "neoverse-v2" if "i8mm" in features else "neoverse-n1"
    name = known or guess
    return Core(
        generation=name,
        features=features,
        clock_ghz=clock_ghz or CPU_GENERATIONS[name].clock_ghz,
        is_guess=known is None,
    )


def error_between(measured: Core, other: Core) -> float:
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
class Gpu:
    """What is published of a GPU.

    Attributes:
        bert_large_per_s: BERT-large rows a second, MLPerf Inference 4.1 offline, int8 or fp8; None
            where only the peak is used.
        int8_peak: Dense int8 multiply-adds a second, from the maker's data sheet.
        watts: Board power.
    """

    bert_large_per_s: float | None
    int8_peak: float
    watts: float

    def multiply_adds_per_s(self, width: int) -> float:
        """What it reaches on matrices of that width: less than on BERT-large's where narrower."""
        reached = (
            self.bert_large_per_s * _BERT_LARGE_MULTIPLY_ADDS
            if self.bert_large_per_s is not None
            else self.int8_peak * _LOWEST_SHARE_OF_PEAK
        )
        return reached * min(1.0, width / _BERT_LARGE_WIDTH)

    @property
    def error(self) -> float:
        """Error factor of what it reaches."""
        return GPU_ERROR if self.bert_large_per_s is not None else GPU_PEAK_ERROR


# 24 layers of 12 x 1024^2 weights, times the mean of about 180 tokens that SQuAD 1.1 has at most
# 384: submissions leave padding out, and counting it would flatter the GPU.
_BERT_LARGE_WIDTH = 1024
_BERT_LARGE_MULTIPLY_ADDS = 24 * 12 * _BERT_LARGE_WIDTH**2 * 180
# L4 reached the least of its peak among the three that are published (43, 50 and 51%).
_LOWEST_SHARE_OF_PEAK = 0.43
GPUS: dict[str, Gpu] = {
    name: Gpu(bert_large_per_s=per_s, int8_peak=tera_operations * 1e12 / 2, watts=watts)
    for name, per_s, tera_operations, watts in (
        ("T4-16GB", None, 130, 70),
        ("L4-24GB", 964, 242, 72),
        ("A10G-24GB", None, 140, 300),
        ("L40S-48GB", 3422, 733, 350),
        ("A100-40GB", None, 624, 400),
        ("A100-80GB", None, 624, 400),
        ("H100-80GB", 9110, 1979, 700),
        ("H100-NVL-94GB", None, 1671, 400),
        ("RTX-PRO-6000-96GB", None, 1000, 600),
    )
}


def _int8_per_cycle(generation: CpuGeneration, features: tuple[str, ...]) -> float:
    """Its rate without the extensions that are masked."""
    if not features or "neon" in generation.features:
        return generation.int8_per_cycle
    for feature, limit in (("amx", _AMX_INT8_PER_CYCLE), ("vnni", 128.0), ("avx512", 42.7)):
        if feature in features:
            return min(generation.int8_per_cycle, limit)
    return min(generation.int8_per_cycle, 32.0)
