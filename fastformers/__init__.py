"""Compress transformers and score very large text corpora with them.

    scorer = fastformers.Scorer("bundle/")
    predictions = scorer.score(["a text", "another"])

The public names are loaded when they are first used, so that importing a module of this package
loads that module and nothing else: `fastformers.errors` does not wait for ONNX Runtime.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastformers.version import VERSION

if TYPE_CHECKING:
    from fastformers.errors import FastformersError
    from fastformers.inference.bundle import Bundle, open_bundle
    from fastformers.inference.scorer import Predictions, Scorer

__all__ = ["Bundle", "FastformersError", "Predictions", "Scorer", "open_bundle"]
__version__ = VERSION

_MODULE_OF = {
    "Bundle": "fastformers.inference.bundle",
    "FastformersError": "fastformers.errors",
    "Predictions": "fastformers.inference.scorer",
    "Scorer": "fastformers.inference.scorer",
    "open_bundle": "fastformers.inference.bundle",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
