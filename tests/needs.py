"""What a test cannot run without."""

from importlib.util import find_spec

import pytest


def need_openvino() -> None:
    """Skip a test, or a module of tests, where OpenVINO is not installed; it is not loaded here."""
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed", allow_module_level=True)
