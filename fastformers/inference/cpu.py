"""Which processor this machine has: its generation and the vector extensions that it lets us use.

    /proc/cpuinfo -> [cpu] -> cost profile -> cost on other machines

A cloud often hides the name of the processor ("Intel(R) Xeon(R) Processor") but not its family and
model numbers, and it may mask an extension that the silicon has. So both are read: the generation
by number, the extensions by flag. This module knows nothing of speed or prices.
"""

import platform
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

# (vendor, family, first model, last model): generation. Linux arch/x86/include/asm/intel-family.h;
# AMD's revision guides for families 17h, 19h and 1Ah.
_X86_GENERATIONS = {
    ("GenuineIntel", 6, 85, 85): "skylake",  # Cascade Lake from stepping 5 on
    ("GenuineIntel", 6, 106, 108): "ice-lake",
    ("GenuineIntel", 6, 143, 143): "sapphire-rapids",
    ("GenuineIntel", 6, 207, 207): "emerald-rapids",
    ("GenuineIntel", 6, 173, 174): "granite-rapids",
    ("AuthenticAMD", 23, 48, 63): "rome",
    ("AuthenticAMD", 25, 0, 15): "milan",
    ("AuthenticAMD", 25, 16, 31): "genoa",
    ("AuthenticAMD", 26, 0, 31): "turin",
}
# MIDR part numbers, Arm's technical reference manuals.
_ARM_GENERATIONS = {
    "0xd0c": "neoverse-n1",
    "0xd40": "neoverse-v1",
    "0xd49": "neoverse-n2",
    "0xd4f": "neoverse-v2",
}


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What is known of a processor.

    Attributes:
        model: Name as the kernel gives it.
        generation: For example "milan" or "neoverse-v1"; None if it is not one we know.
        features: Those of `FEATURES` that can be used here.
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


def _identify(fields: dict[str, str]) -> str | None:
    if "CPU part" in fields:
        return _ARM_GENERATIONS.get(fields["CPU part"])
    numbers = [fields.get(name, "") for name in ("cpu family", "model", "stepping")]
    if not all(number.isdecimal() for number in numbers):
        return None
    family, model, stepping = map(int, numbers)
    for (vendor, its_family, first, last), generation in _X86_GENERATIONS.items():
        if (vendor, its_family) == (fields.get("vendor_id"), family) and first <= model <= last:
            is_cascade_lake = generation == "skylake" and stepping >= 5
            return "cascade-lake" if is_cascade_lake else generation
    return None


def _read_cpuinfo(path: Path) -> dict[str, str]:
    """Fields of the first processor."""
    fields: dict[str, str] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    return fields


def read_cpu_model(root: Path = Path("/")) -> str:
    """Name of this machine's processor, as its kernel gives it."""
    return read_processor(root).model
