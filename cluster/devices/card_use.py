"""How busy a GPU was, as its driver counted.

    NVML -> [card_use] -> share of the time -> receipt -> report

NVML keeps the last samples of whether a kernel ran (some 100, a sixth of a second apart), so that
nothing has to run beside the engine: they are read when a shard is done. The library (`pynvml`,
package nvidia-ml-py) is optional. This module starts no CUDA.
"""

from typing import Any, Protocol, Self

from fastformers.cluster.devices.cards import Card


class Nvml(Protocol):
    """The part of `pynvml` that is used here; its names are NVML's own."""

    NVML_GPU_UTILIZATION_SAMPLES: int
    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetSamples(self, handle: Any, kind: int, last: int) -> Any: ...


def read_driver_version() -> str | None:
    """Version of the NVIDIA driver; None where it, or the library that asks it, is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


class CardUse:
    """Reads the samples of one card since it was last asked."""

    def __init__(self, nvml: Nvml, card: Card) -> None:
        """Begin to count now.

        Raises:
            nvml.NVMLError: There is no driver, or no such card.
        """
        nvml.nvmlInit()
        self._nvml, self._handle = nvml, nvml.nvmlDeviceGetHandleByIndex(card.index)
        self._last = 0
        self.take()

    @classmethod
    def open(cls, card: Card | None) -> Self | None:
        """The counter of a card; None where the library, the driver or the card is not there."""
        if card is None:
            return None
        try:
            import pynvml
        except ImportError:
            return None
        try:
            return cls(pynvml, card)
        except pynvml.NVMLError:
            return None

    def take(self) -> float | None:
        """Share of the time since the last call in which a kernel ran, 0-1.

        None where the driver has no sample since then, because that was a moment ago, or because
        this kind of card keeps none.
        """
        kind = self._nvml.NVML_GPU_UTILIZATION_SAMPLES
        try:
            _, samples = self._nvml.nvmlDeviceGetSamples(self._handle, kind, self._last)
        except self._nvml.NVMLError:
            return None
        new = [sample for sample in samples if sample.timeStamp > self._last]
        if not new:
            return None
        self._last = max(sample.timeStamp for sample in new)
        return float(sum(sample.sampleValue.uiVal for sample in new) / len(new) / 100)
