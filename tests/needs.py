"""What a test cannot run without."""

import os
import shutil
from importlib.util import find_spec

import pytest

# Where it is set, as CI does, a test that finds no browser fails; elsewhere it is skipped.
BROWSER_IS_NEEDED = "BROWSER_IS_NEEDED"


def need_openvino() -> None:
    """Skip a test, or a module of tests, where OpenVINO is not installed; it is not loaded here."""
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed", allow_module_level=True)


def need_browser() -> tuple[str, str]:
    """Paths of Chromium and its driver; skips a test where they or selenium are missing."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    missing = [
        *([] if find_spec("selenium") else ["selenium (extra `test`)"]),
        *([] if chromium else ["chromium or google-chrome (Debian: chromium)"]),
        *([] if driver else ["chromedriver (Debian: chromium-driver)"]),
    ]
    if chromium and driver and not missing:
        return chromium, driver
    reason = f"the page is not seen without {', '.join(missing)}"
    if os.environ.get(BROWSER_IS_NEEDED):
        pytest.fail(f"{reason}; {BROWSER_IS_NEEDED} is set")
    pytest.skip(reason)
