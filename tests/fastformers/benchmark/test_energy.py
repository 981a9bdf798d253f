"""Electricity comes from the processor's counters, and else is said to be assumed."""

import time

import pytest

from fastformers.benchmark import energy as module
from fastformers.benchmark.energy import EnergyMeter

TURIN = (
    "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nstepping\t: 1\nflags\t\t: avx2\n"
)


# Of AMD's servers: 65 kJ, three minutes at 350 W.
RANGE_UJ = 65_532_610_987


def write_zone(path, name, microjoules, largest=RANGE_UJ):
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
    second = write_zone(power / "intel-rapl:1", "package-1", RANGE_UJ - 100_000)
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


def test_a_counter_that_starts_again_twice_during_long_work_is_read_meanwhile(
    tmp_path, root, monkeypatch
):
    zone = write_zone(tmp_path / "powercap" / "intel-rapl:0", "package-0", 0)
    seen, read = [], module._read
    monkeypatch.setattr(module, "_READ_EVERY_S", 0.001)
    monkeypatch.setattr(module, "_read", lambda path: seen.append(read(path)) or seen[-1])

    def work():
        ends_s = time.monotonic() + 30
        for microjoules in (60_000_000_000, 5_000_000_000) * 2:
            new = zone.with_name("new")
            new.write_text(f"{microjoules}\n")
            new.replace(zone)
            while seen[-1] != microjoules:
                assert time.monotonic() < ends_s
                time.sleep(0.001)

    _, energy = EnergyMeter(tmp_path / "powercap", root).measure(work)
    assert energy.joules == pytest.approx(2 * RANGE_UJ / 1e6 + 5000)


def test_a_counter_that_was_not_read_in_time_says_nothing(tmp_path, root, monkeypatch):
    """The process was suspended, or its thread waited: 70 s at up to 1,000 W are over 65 kJ."""
    zone = write_zone(tmp_path / "powercap" / "intel-rapl:0", "package-0", 0)
    moments = iter([0.0, 60.0, 100.0, 170.0])
    monkeypatch.setattr(module, "_now_s", lambda: next(moments))
    meter = EnergyMeter(tmp_path / "powercap", root)
    _, energy = meter.measure(lambda: zone.write_text("500\n"))
    assert energy.joules == pytest.approx(500e-6)
    _, energy = meter.measure(lambda: zone.write_text("900\n"))
    assert energy.joules is None
    assert energy.source.startswith("unknown: the counters of RAPL stood still or could not be")


def test_a_package_that_cannot_be_read_leaves_no_part_that_is_taken_for_the_whole(tmp_path, root):
    power = tmp_path / "powercap"
    write_zone(power / "intel-rapl:0", "package-0", 1)
    write_zone(power / "intel-rapl:1", "package-1", 1).unlink()
    _, energy = EnergyMeter(power, root).measure(lambda: None)
    assert energy.source.startswith("assumed: core-seconds")
