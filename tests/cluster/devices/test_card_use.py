"""How busy a card was, as a library of NVML's names says that keeps samples."""

from types import SimpleNamespace

import pytest

from fastformers.cluster.devices.card_use import CardUse
from fastformers.cluster.devices.cards import Card


class NVMLError(Exception):
    """As NVML's."""


class FakeNvml:
    """Keeps samples of (microseconds, percent)."""

    NVML_GPU_UTILIZATION_SAMPLES = 1
    NVMLError = NVMLError

    def __init__(self, *samples):
        self.samples, self.asked = list(samples), []

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        if index > 1:
            raise NVMLError("no such device")
        return f"card {index}"

    def nvmlDeviceGetSamples(self, handle, kind, last):
        self.asked.append((handle, kind, last))
        if not self.samples:
            raise NVMLError("not found")
        return 1, [
            SimpleNamespace(timeStamp=time, sampleValue=SimpleNamespace(uiVal=percent))
            for time, percent in self.samples
        ]


def test_it_is_the_mean_of_the_samples_since_the_last_time():
    nvml = FakeNvml((10, 100), (20, 100))
    use = CardUse(nvml, Card(index=1))
    assert use.take() is None  # those were there before
    nvml.samples += [(30, 50), (40, 100)]
    assert use.take() == 0.75
    nvml.samples += [(50, 0)]
    assert use.take() == 0.0
    assert nvml.asked[-1] == ("card 1", 1, 40)


def test_a_card_that_keeps_no_samples_has_no_share():
    assert CardUse(FakeNvml(), Card(index=0)).take() is None


def test_a_card_that_nvml_does_not_know_is_an_error_of_its_own():
    with pytest.raises(NVMLError):
        CardUse(FakeNvml(), Card(index=2))


def test_where_anything_is_missing_nothing_is_counted():
    assert CardUse.open(None) is None


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_library_that_is_missing_or_finds_no_driver_counts_nothing(monkeypatch, is_installed):
    import sys

    nvml = FakeNvml()
    monkeypatch.setattr(nvml, "nvmlInit", lambda: nvml.nvmlDeviceGetHandleByIndex(9))
    monkeypatch.setitem(sys.modules, "pynvml", nvml if is_installed else None)
    assert CardUse.open(Card(index=0)) is None
