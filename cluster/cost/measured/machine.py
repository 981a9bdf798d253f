"""What a machine is that a profile was measured on, so that somebody else can judge the profile.

    kernel, packages, matrix products -> [machine] -> profile

A profile may come from a stranger, so it says whatever decides a speed, and nothing of whose the
machine is: no name, address, path, user or kernel build. This module knows nothing of bundles and
prices.
"""

import platform
from dataclasses import dataclass

from fastformers.digest import versions_of
from fastformers.inference.cpu import read_cpu_numbers, read_isa, read_machine

# What runs while a bundle is measured.
_PACKAGES = ("numpy", "onnxruntime", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class MeasuredMachine:
    """A machine, as far as it decides a speed.

    Attributes:
        num_cpus: Logical CPUs of the machine.
        memory_gib: Memory that its kernel has, rounded to a tenth.
        cpu_numbers: Identification of the processor by the kernel's names, for processors whose
            generation is not known yet.
        isa: Instruction sets for vector and matrix arithmetic, by the kernel's names.
        python: Version of Python.
        versions: Versions of this project and of the packages that ran, by name.
        int8_gops, float_gops: Multiplications and additions of large matrix products that one core
            reaches while the others idle, in 1e9 a second; None where they were not measured.
    """

    num_cpus: int
    memory_gib: float
    cpu_numbers: dict[str, str]
    isa: tuple[str, ...]
    python: str
    versions: dict[str, str]
    int8_gops: float | None
    float_gops: float | None


def describe_machine(
    *, int8_gops: float | None = None, float_gops: float | None = None
) -> MeasuredMachine:
    """This machine.

    Args:
        int8_gops: What matrix products reach on it in int8, in 1e9 operations a second, if known.
        float_gops: The same in float32.
    """
    machine = read_machine()
    return MeasuredMachine(
        num_cpus=machine.num_cpus,
        memory_gib=round(machine.memory_bytes / 2**30, 1),
        cpu_numbers=read_cpu_numbers(),
        isa=read_isa(),
        python=platform.python_version(),
        versions=versions_of(_PACKAGES),
        int8_gops=int8_gops,
        float_gops=float_gops,
    )
