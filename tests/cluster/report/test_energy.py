import importlib.util
import logging
import re
import socket
import threading
import time

import pytest

from fastformers.cluster.report import energy as energy_module
from fastformers.cluster.report.energy import EnergyMeter
from fastformers.errors import InputError
from fastformers.installation import how_to_install


def test_without_codecarbon_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(how_to_install("energy"))):
        EnergyMeter("USA")


def test_an_unknown_country_is_refused_before_the_run():
    pytest.importorskip("codecarbon", reason="energy needs the extra `energy`")
    with pytest.raises(InputError, match="--energy XXQ"):
        EnergyMeter("XXQ")


@pytest.mark.filterwarnings("default")  # its dependencies'
@pytest.mark.parametrize(
    ("platform", "machine", "counters", "is_read"),
    [
        ("linux", "x86_64", (), False),
        ("linux", "x86_64", ("is_rapl_available",), True),
        ("linux", "aarch64", ("is_raspberry",), True),
        ("linux", "x86_64", ("is_powermetrics_available", "is_emi_available"), False),
        ("darwin", "arm64", ("is_powermetrics_available",), False),
        ("darwin", "x86_64", ("is_powermetrics_available",), True),
        ("win32", "AMD64", ("is_emi_available",), True),
    ],
)
def test_the_basis_is_whether_counters_can_be_read(
    monkeypatch, platform, machine, counters, is_read
):
    pytest.importorskip("codecarbon", reason="energy needs the extra `energy`")
    from codecarbon.core import cpu, powermetrics, windows_emi

    for module, name in (
        *((cpu, "is_rapl_available"), (cpu, "is_raspberry"), (cpu, "is_powergadget_available")),
        *((powermetrics, "is_powermetrics_available"), (windows_emi, "is_emi_available")),
    ):
        monkeypatch.setattr(module, name, lambda name=name: name in counters)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert energy_module._reads_cpu_counters() is is_read


@pytest.mark.filterwarnings("default")  # codecarbon's own, and its dependencies'
def test_energy_of_a_block_without_network_files_or_noise(tmp_path, monkeypatch, capfd):
    pytest.importorskip("codecarbon", reason="energy needs the extra `energy`")

    def refuse(*_):
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    meter = EnergyMeter("deu")
    assert meter.energy is None
    start = time.perf_counter()
    with meter:
        pass
    held_s = time.perf_counter() - start
    energy = meter.energy
    assert energy.country == "DEU"
    assert energy.kwh == pytest.approx(energy.cpu_kwh + energy.gpu_kwh + energy.memory_kwh)
    assert energy.kwh >= 0
    assert 0 <= energy.covered_s <= held_s
    assert energy.cpu_basis in ("read", "modelled")
    assert list(tmp_path.iterdir()) == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [t for t in threading.enumerate() if t.name == "energy"]


@pytest.fixture(autouse=True)
def codecarbon_logger():
    logger = logging.getLogger("codecarbon")
    was = logger.disabled
    yield
    logger.disabled = was
