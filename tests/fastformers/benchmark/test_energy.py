"""Electricity comes from the processor's counters, and else is said to be assumed."""

import pytest

from fastformers.benchmark.energy import EnergyMeter

TURIN = (
    "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nstepping\t: 1\nflags\t\t: avx2\n"
)


def write_zone(path, name, microjoules, largest=1_000_000):
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{largest}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(TURIN)
    return tmp_path


def test_counters_of_packages_and_memory_are_added_also_where_one_starts_again(tmp_path, root):
    power = tmp_path / "powercap"
    first = write_zone(power / "intel-rapl:0", "package-0", 100)
    second = write_zone(power / "intel-rapl:1", "package-1", 900_000)
    memory = write_zone(power / "intel-rapl:0:1", "dram", 5)
    cores = write_zone(power / "intel-rapl:0:0", "core", 1)  # part of the package
    meter = EnergyMeter(power, root)

    def work():
        first.write_text("300100\n")
        second.write_text("50000\n")
        memory.write_text("10005\n")
        cores.write_text("777777\n")
        return "done"

    result, energy = meter.measure(work)
    assert result == "done"
    assert energy.joules == pytest.approx(0.3 + 0.15 + 0.01)
    assert energy.source.startswith("measured by RAPL")


def test_without_counters_core_seconds_are_multiplied_and_the_assumption_is_said(tmp_path, root):
    def work():
        return sum(i * i for i in range(300_000))

    _, energy = EnergyMeter(tmp_path / "none", root).measure(work)
    assert energy.core_seconds > 0
    assert energy.joules == pytest.approx(3.9 * energy.core_seconds)
    assert energy.source.startswith("assumed: core-seconds x 3.9 W")
    assert "turin" in energy.source


def test_counters_that_only_root_reads_are_none_and_an_unknown_processor_has_no_joules(tmp_path):
    zone = write_zone(tmp_path / "powercap" / "intel-rapl:0", "package-0", 1)
    zone.unlink()
    zone.mkdir()  # what cannot be read as a file
    _, energy = EnergyMeter(tmp_path / "powercap", tmp_path).measure(lambda: None)
    assert energy.joules is None
    assert energy.source.startswith("unknown: no RAPL here")


def test_counters_that_stand_still_or_vanish_are_no_measurement_of_nothing(tmp_path, root):
    zone = write_zone(tmp_path / "powercap" / "intel-rapl:0", "package-0", 100)
    for work in (lambda: None, zone.unlink):
        zone.write_text("100\n")
        meter = EnergyMeter(tmp_path / "powercap", root)
        meter.measure(lambda: zone.write_text("500\n"))
        assert meter.source.startswith("measured by RAPL")
        _, energy = meter.measure(work)
        assert energy.joules is None
        assert energy.source == meter.source
        assert energy.source.startswith("unknown: the counters of RAPL stood still")
