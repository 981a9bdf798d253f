"""Compress transformers and score very large text corpora with them.

scorer = fastformers.Scorer("bundle/")
predictions = scorer.score(["a text", "another"])
"""

from fastformers.errors import FastformersError
from fastformers.inference.bundle import Bundle, open_bundle
from fastformers.inference.scorer import Predictions, Scorer

__all__ = ["Bundle", "FastformersError", "Predictions", "Scorer", "open_bundle"]
__version__ = "0.1.0"
