"""Compress transformers and score very large text corpora with them.

    scorer = fastformers.Scorer("bundle/")
    predictions = scorer.score(["a text", "another"])
    report = fastformers.score("corpus/", bundle="bundle/", output="scored/")

The public names are loaded when they are first used, so that importing a module of this package
loads that module and nothing else: `fastformers.errors` does not wait for ONNX Runtime.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastformers.version import VERSION

if TYPE_CHECKING:
    from fastformers.errors import FastformersError
    from fastformers.inference.bundle import Bundle, open_bundle
    from fastformers.inference.outputs.predictions import Predictions
    from fastformers.inference.scorer import Scorer
    from fastformers.jobs.compress import compress
    from fastformers.jobs.cost import estimate_cost
    from fastformers.jobs.score import score

__all__ = [
    "Bundle",
    "FastformersError",
    "Predictions",
    "Scorer",
    "compress",
    "estimate_cost",
    "open_bundle",
    "score",
]
__version__ = VERSION

_MODULE_OF = {
    "Bundle": "fastformers.inference.bundle",
    "FastformersError": "fastformers.errors",
    "Predictions": "fastformers.inference.outputs.predictions",
    "Scorer": "fastformers.inference.scorer",
    "compress": "fastformers.jobs.compress",
    "estimate_cost": "fastformers.jobs.cost",
    "open_bundle": "fastformers.inference.bundle",
    "score": "fastformers.jobs.score",
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
