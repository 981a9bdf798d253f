"""The processor of this machine, and the facts about its generation.

    /proc/cpuinfo -> [cpu] -> cost profile -> cost on other machines

A cloud often hides the name of the processor ("Intel(R) Xeon(R) Processor") but not its family and
model numbers, and it may mask an extension that the silicon has. So both are read: the generation
by number, the extensions by flag. All facts about a generation are in one table here, by which
estimates for other machines are scaled. This module knows nothing of bundles or prices.
"""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

# Extension by the kernel's flags; the first flags are x86, the last are arm64.
_FEATURE_OF_FLAG = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "vnni",
    "amx_int8": "amx",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
}
FEATURES = tuple(_FEATURE_OF_FLAG.values())

# Flags of the kernel that begin so are of vector and matrix arithmetic, on x86 and Arm; not smep.
_ARITHMETIC = re.compile(r"avx|amx|fma|f16c|asimd|fphp|i8mm|bf16|sve|sme(?!p$)")
_NUMBERS = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision"),
)

# An x86 stepping has four bits.
_ALL_STEPPINGS = range(16)
_INTEL, _AMD = "GenuineIntel", "AuthenticAMD"


@dataclass(frozen=True)
class X86:
    """The numbers by which the kernel names a generation of x86 processors."""

    vendor: str
    family: int
    models: range
    steppings: range = _ALL_STEPPINGS


@dataclass(frozen=True, kw_only=True)
class CpuGeneration:
    """One generation of processors: how it is recognized, and what its cores can do.

    Attributes:
        numbers: Identification in /proc/cpuinfo: the numbers of an x86 processor, or the part
            number of an Arm core (MIDR).
        features: Members of `FEATURES` that it has and that matter to a bundle.
        int8_per_cycle: int8 multiply-adds a core can issue in a cycle; where kernels are known to
            reach less of it than ours do on a Zen 5, as much less.
        float_per_cycle: float32 multiply-adds a core can issue in a cycle.
        clock_ghz: Sustained clock, used where the machine's own is not known.
        watts_per_core: Design power of a large model divided by its cores; assumed for most Arm
            processors.
    """

    numbers: X86 | str
    features: tuple[str, ...]
    int8_per_cycle: float
    float_per_cycle: float
    clock_ghz: float
    watts_per_core: float

    @property
    def is_arm(self) -> bool:
        """Whether it runs the arm64 instruction set; x86-64 otherwise."""
        return isinstance(self.numbers, str)


# AMX tiles could issue 1,024 a cycle. ONNX Runtime's own kernel takes 2.2 to 4.3 times as many as
# with VNNI on matrices of 1,024 to 4,096 (microsoft/onnxruntime#14042). Tiles are small beside the
# cost of loading them, the more so at the widths of a student, of which nobody has published: so
# twice VNNI, below the least of these. `bench --profile-out` on such a machine says more.
AMX_INT8 = 256.0
_AVX512 = ("avx2", "avx512")
_VNNI = (*_AVX512, "vnni")
_AMX = (*_VNNI, "amx")
_I8MM = ("neon", "dotprod", "i8mm", "sve")

# All facts about a generation by itself stand here; a price table only names it.
#
# Numbers: Linux arch/x86/include/asm/intel-family.h; AMD's revision guides for families 17h, 19h
# and 1Ah; Arm's technical reference manuals. Cascade Lake is Skylake's model from stepping 5 on.
# Issue rates from the vendors' optimization guides. AVX2: two multiply units of 32 int8 each, and
# three instructions where VNNI has one. AVX-512 without VNNI: two units of 64, three instructions
# on them. VNNI: two units of 64; Zen 4 splits 512 bits, so 64 in all.
# Arm: SMMLA multiplies 32 int8, UDOT 16, on each of the four units of a Neoverse V1 or V2 and of
# the two of an N1 or N2 (Arm's Software Optimization Guides, "ASIMD matrix multiply-accumulate" and
# "dot product"): 128, 64 and 32 a cycle. The fastest kernels published reach less of that than ONNX
# Runtime's do of VNNI. On a core of a Graviton4 at 2.8 GHz, from the first-level cache: 437 GFLOPS
# with i8mm, 257 with dot products (robertknight/rten#827, 2025-07-27), which is 61% and 72%; on a
# core of a Zen 5 by itself at 4.1 GHz: 920, 88%. So i8mm counts 0.61/0.88 of its units, and dot
# products 0.72/0.88. (437 is as much as a virtual CPU of a Zen 5 gets while its host is busy, 444.)
# Design power: Xeon 8168 205 W / 24 cores, 8275CL 240/24, 8375C 300/32, 8480+ 350/56, 8592+ 350/64,
# 6972P 500/96; EPYC 7742 225/64, 7763 280/64, 9654 360/96, 9755 500/128; Ampere Altra Q80 250/80;
# the other Arm processors publish none.
CPU_GENERATIONS: dict[str, CpuGeneration] = {
    name: CpuGeneration(
        numbers=numbers,
        features=features,
        int8_per_cycle=int8,
        float_per_cycle=floats,
        clock_ghz=clock,
        watts_per_core=watts,
    )
    for name, numbers, features, int8, floats, clock, watts in (
        ("skylake", X86(_INTEL, 6, range(85, 86), range(5)), _AVX512, 42.7, 32, 3.4, 8.5),
        ("cascade-lake", X86(_INTEL, 6, range(85, 86), range(5, 16)), _VNNI, 128, 32, 3.4, 10.0),
        ("ice-lake", X86(_INTEL, 6, range(106, 109)), _VNNI, 128, 32, 3.5, 9.4),
        ("sapphire-rapids", X86(_INTEL, 6, range(143, 144)), _AMX, AMX_INT8, 32, 3.0, 6.3),
        ("emerald-rapids", X86(_INTEL, 6, range(207, 208)), _AMX, AMX_INT8, 32, 3.0, 5.5),
        ("granite-rapids", X86(_INTEL, 6, range(173, 175)), _AMX, AMX_INT8, 32, 3.6, 5.2),
        ("rome", X86(_AMD, 23, range(48, 64)), ("avx2",), 32, 16, 2.7, 3.5),
        ("milan", X86(_AMD, 25, range(16)), ("avx2",), 32, 16, 3.4, 4.4),
        ("genoa", X86(_AMD, 25, range(16, 32)), _VNNI, 64, 16, 3.7, 3.8),
        ("turin", X86(_AMD, 26, range(32)), _VNNI, 128, 32, 4.1, 3.9),
        ("neoverse-n1", "0xd0c", ("neon", "dotprod"), 26, 8, 3.0, 3.1),
        ("neoverse-n2", "0xd49", _I8MM, 44.5, 8, 3.4, 3.0),
        ("neoverse-v1", "0xd40", _I8MM, 89, 16, 2.6, 3.0),
        ("neoverse-v2", "0xd4f", _I8MM, 89, 16, 2.8, 3.0),
    )
}


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor as its kernel describes it.

    Attributes:
        model: Name as the kernel gives it.
        generation: Name in `CPU_GENERATIONS`, for example "milan"; None if it is not there.
        features: Members of `FEATURES` that can be used here.
    """

    model: str
    generation: str | None
    features: tuple[str, ...]


def read_processor(root: Path = Path("/")) -> Processor:
    """Processor of this machine, from its kernel; generation and features are Linux only."""
    fields = _read_cpuinfo(root / "proc/cpuinfo")
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    features = tuple(name for flag, name in _FEATURE_OF_FLAG.items() if flag in flags)
    model = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(model=model, generation=_identify(fields), features=features)


def read_isa(root: Path = Path("/")) -> tuple[str, ...]:
    """The kernel's names of all instruction sets for arithmetic that this machine has."""
    fields = _read_cpuinfo(root / "proc/cpuinfo")
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return tuple(flag for flag in flags if _ARITHMETIC.match(flag))


def read_cpu_numbers(root: Path = Path("/")) -> dict[str, str]:
    """The numbers by which the kernel knows the processor: of x86 or of Arm (MIDR)."""
    fields = _read_cpuinfo(root / "proc/cpuinfo")
    return {name: fields[name] for name in _NUMBERS if name in fields}


def _identify(fields: dict[str, str]) -> str | None:
    """Name of the generation that the fields of /proc/cpuinfo belong to."""
    if "CPU part" in fields:
        numbers = {generation.numbers: name for name, generation in CPU_GENERATIONS.items()}
        return numbers.get(fields["CPU part"])
    texts = [fields.get(name, "") for name in ("cpu family", "model", "stepping")]
    if not all(text.isdecimal() for text in texts):
        return None
    family, model, stepping = map(int, texts)
    for name, generation in CPU_GENERATIONS.items():
        known = generation.numbers
        if (
            isinstance(known, X86)
            and (known.vendor, known.family) == (fields.get("vendor_id"), family)
            and model in known.models
            and stepping in known.steppings
        ):
            return name
    return None


def kernel_text(path: Path) -> str:
    """The text of a file in /proc or /sys; "" where this kernel does not have it."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_cpuinfo(path: Path) -> dict[str, str]:
    """Fields of the first processor."""
    fields: dict[str, str] = {}
    for line in kernel_text(path).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def read_cpu_model(root: Path = Path("/")) -> str:
    """Name of this machine's processor, as its kernel gives it."""
    return read_processor(root).model


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What can be seen of a machine, whatever part of it this process may use.

    Attributes:
        processor: Its processor.
        num_cpus: Logical CPUs.
        memory_bytes: Memory.
    """

    processor: Processor
    num_cpus: int
    memory_bytes: int


def read_machine() -> Machine:
    """This machine, from its kernel."""
    return Machine(
        processor=read_processor(),
        num_cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
