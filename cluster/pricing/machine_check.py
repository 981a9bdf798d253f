"""Whether a machine is of the type that it is priced as, and the share of it that a job owns.

    row of the price table, what is seen of the machine -> [machine_check] -> HourlyPrice -> bill

A type that the user names may be wrong, and a container may own a part of a machine: the price is
then that of the part, and the bill says what differs. What cannot be seen, such as the generation
of a processor that hides it, is not held against a type. This module knows nothing of jobs.
"""

from dataclasses import replace

from fastformers.cluster.pricing.prices import HourlyPrice, InstancePrice, price_on_demand
from fastformers.formatting import format_count
from fastformers.inference.cpu import Machine

# The kernel keeps some memory for itself, and clouds round: less than this is no difference.
_MEMORY_TOLERANCE = 0.15


def price_owned_part(
    price: InstancePrice, *, num_cores: int, seen: Machine | None = None
) -> HourlyPrice:
    """On-demand price of the part of a machine that a job may use.

    A machine with GPUs is rented for them, and so is priced whole.

    Args:
        price: The type that it is priced as.
        num_cores: Physical cores that the job may use of it; 0 for all.
        seen: What the machine is; None where that is not known.
    """
    whole = price_on_demand(price)
    mismatch = None if seen is None else find_mismatch(price, seen)
    if price.gpu_count or not 0 < num_cores < price.physical_cores:
        return replace(whole, mismatch=mismatch)
    share = num_cores / price.physical_cores
    return replace(
        whole,
        usd_per_hour=share * whole.usd_per_hour,
        label=f"{num_cores} of the {format_count(price.physical_cores, 'core')} of {whole.label}, "
        f"{100 * share:.3g}% of {whole.usd_per_hour:g} USD/h",
        mismatch=mismatch,
    )


def find_mismatch(price: InstancePrice, seen: Machine) -> str | None:
    """What differs between a type and a machine, for people; None if nothing does."""
    found: list[str] = []
    if seen.num_cpus != price.vcpus:
        found.append(f"{format_count(seen.num_cpus, 'CPU')}, not {price.vcpus}")
    memory_gib = seen.memory_bytes / 2**30
    if abs(memory_gib / price.memory_gib - 1) > _MEMORY_TOLERANCE:
        found.append(f"{memory_gib:.3g} GiB of memory, not {price.memory_gib:g}")
    generation = seen.processor.generation
    if generation is not None and price.cpu_generation not in (None, generation):
        is_named = generation.replace("-", " ") in price.cpu.lower()
        if not is_named:  # a type may have one of several
            found.append(f"{seen.processor.model} ({generation}), not {price.cpu}")
    return f"priced as {price.instance_type}, but it has {'; '.join(found)}" if found else None
