"""Electricity of the driver's node during a run, measured or modeled by codecarbon.

    run -> [energy] -> report

codecarbon reads the CPU's own counters (RAPL) and the GPUs' (NVML) where the machine shows them; a
virtual machine rarely does, and then it multiplies load by the CPU's nominal power. Every
number says which of the two it is. Other nodes of the cluster are not seen from here. Nothing is
sent or looked up on a network, and no file is written. This module knows nothing of the job.
"""

import importlib.metadata
import importlib.util
import json
import logging
import platform
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from fastformers.cluster.report.run_report import Energy
from fastformers.errors import InputError
from fastformers.installation import how_to_install

COUNTRY_VARIABLE = "CODECARBON_COUNTRY_ISO_CODE"
_SAMPLE_EVERY_S = 15.0


class EnergyMeter:
    """Watches this machine while a block runs; `energy` holds the result afterwards.

    codecarbon takes seconds to look at the hardware, so it does that on a thread of its own while
    Ray starts.
    """

    def __init__(self, country: str) -> None:
        """Check that it can measure, and prepare to.

        Args:
            country: ISO code (three letters) of the country whose electricity mix counts.

        Raises:
            InputError: codecarbon is not installed, or does not know the country.
        """
        self.energy: Energy | None = None
        self._country = _check_country(country)
        self._tracker: Any = None
        self._thread = threading.Thread(target=self._start, name="energy", daemon=True)

    def __enter__(self) -> "EnergyMeter":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._thread.join()
            self.energy = self._stop()

    def _start(self) -> None:
        logging.getLogger("codecarbon").disabled = True  # it writes to stderr as it is imported
        import codecarbon

        tracker = codecarbon.OfflineEmissionsTracker(
            country_iso_code=self._country,
            output_methods=[],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            log_level="critical",
            allow_multiple_runs=True,
            measure_power_secs=_SAMPLE_EVERY_S,
            tracking_mode="machine",
        )
        tracker.start()
        self._tracker = tracker

    def _stop(self) -> Energy | None:
        """What was measured, or None where codecarbon gave up: it hides its own errors."""
        if self._tracker is None:
            return None
        self._tracker.stop()
        data = getattr(self._tracker, "final_emissions_data", None)
        if data is None:
            return None
        return Energy(
            kwh=data.energy_consumed,
            cpu_kwh=data.cpu_energy,
            gpu_kwh=data.gpu_energy,
            memory_kwh=data.ram_energy,
            co2_kg=data.emissions,
            country=self._country,
            cpu_basis="read" if _reads_cpu_counters() else "modelled",
            gpu_basis="read" if data.gpu_count else "none",
            covered_s=data.duration,
            source=f"codecarbon {importlib.metadata.version('codecarbon')}",
        )


def _reads_cpu_counters() -> bool:
    """Whether codecarbon finds counters of the CPU's energy here; where not, it models it.

    It tries counters in this order; on Apple's own processors it always models.
    """
    from codecarbon.core import cpu, powermetrics, windows_emi

    if sys.platform == "linux":
        return bool(cpu.is_rapl_available() or cpu.is_raspberry())
    if sys.platform == "win32":
        return bool(windows_emi.is_emi_available() or cpu.is_powergadget_available())
    if platform.machine() == "arm64":
        return False
    return bool(cpu.is_powergadget_available() or powermetrics.is_powermetrics_available())


def how_to_measure() -> str:
    """What to do for the energy of a run."""
    return f"{how_to_install('energy')}; then give --energy COUNTRY, such as USA"


def _check_country(country: str) -> str:
    spec = importlib.util.find_spec("codecarbon")
    if spec is None or spec.origin is None:
        raise InputError(f"--energy needs codecarbon, which is not installed: {how_to_measure()}")
    mixes = Path(spec.origin).parent / "data/private_infra/global_energy_mix.json"
    known = json.loads(mixes.read_text(encoding="utf-8"))
    code = country.upper()
    if code not in known:
        raise InputError(
            f"--energy {country}: codecarbon has no electricity mix of it; give a country's ISO "
            "code of three letters, such as USA, DEU or IND"
        )
    return code
