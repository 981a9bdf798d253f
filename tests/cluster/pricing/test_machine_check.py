from dataclasses import replace

import pytest

from fastformers.cluster.pricing.machine_check import find_mismatch, price_owned_part
from fastformers.cluster.pricing.prices import load_prices
from fastformers.inference.cpu import Machine, Processor, read_machine

TABLE = load_prices()
C5 = TABLE["c5.4xlarge"]  # Skylake or Cascade Lake, 8 cores, 16 CPUs, 32 GiB, 0.68 USD


def machine(*, generation="skylake", num_cpus=16, gib=31.0):
    processor = Processor(model="Intel(R) Xeon(R)", generation=generation, features=())
    return Machine(processor=processor, num_cpus=num_cpus, memory_bytes=int(gib * 2**30))


@pytest.mark.parametrize("generation", ["skylake", "cascade-lake", None])
def test_a_machine_of_its_type_has_no_mismatch(generation):
    assert find_mismatch(C5, machine(generation=generation)) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"num_cpus": 4}, "4 CPUs, not 16"),
        ({"num_cpus": 1}, "1 CPU, not 16"),
        ({"gib": 64}, "64 GiB of memory, not 32"),
        (
            {"generation": "turin"},
            "Intel(R) Xeon(R) (turin), not Intel Skylake-SP/Cascade",
        ),
    ],
)
def test_what_differs_is_named(changes, what):
    mismatch = find_mismatch(C5, machine(**changes))
    assert mismatch.startswith(f"priced as c5.4xlarge, but it has {what}")
    assert ";" not in mismatch


def test_the_part_of_a_machine_is_priced_as_such():
    half = price_owned_part(C5, num_cores=4, seen=machine(num_cpus=8))
    assert half.usd_per_hour == pytest.approx(0.34)
    assert half.label.startswith("4 of the 8 cores of c5.4xlarge on demand, us-east-1, ")
    assert half.label.endswith(", 50% of 0.68 USD/h")
    assert str(half).endswith("; priced as c5.4xlarge, but it has 8 CPUs, not 16")
    assert (half.is_estimate, half.instance_type) == (False, "c5.4xlarge")


@pytest.mark.parametrize("num_cores", [0, 8, 64])
def test_a_whole_machine_or_a_larger_one_costs_the_list_price(num_cores):
    assert price_owned_part(C5, num_cores=num_cores).usd_per_hour == 0.68


def test_a_machine_with_gpus_is_rented_for_them():
    gpus = replace(C5, gpu_name="T4-16GB", gpu_count=1)
    assert price_owned_part(gpus, num_cores=2).usd_per_hour == 0.68


def test_this_machine_is_seen():
    here = read_machine()
    assert here.num_cpus >= 1
    assert here.memory_bytes > 2**28
