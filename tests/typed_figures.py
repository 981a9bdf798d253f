"""Figures in a README's prose that are neither written from a measurement nor known to be none.

    README -> paragraphs -> [typed_figures] -> what must be marked

A figure is a number with a unit of measurements (times, %, rows/s, s, MB, points, USD), all numbers
of a list that ends so, or a number with a fraction. Versions and the level of an interval are none,
and neither is what stands in code or in a table of flags. Settings, limits, conditions of a
measurement, arithmetic and what others published stand in `typed_figures.toml`, as they read.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

_LIST = Path(__file__).with_suffix(".toml")
_NUMBER = r"(?:#|[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)"  # "#" is a marked one
_MORE = rf"(?:{_NUMBER}(?:%|x| ?m?s)?(?:,? and |,? to |,? or | of |, |-))*"
_UNIT = "|".join(
    (
        r"%|x\b(?! \d)|times\b|points?\b|USD\b|nats\b|k?Wh\b",  # "4 x 312" is a shape
        r"[a-z-]+/s\b|(?:\w+ )?(?:a|an|per) (?:second|minute|hour)\b",
        r"(?:ms|us|ns|s|h)\b|(?:core-)?(?:second|minute|hour)s?\b",
        r"[kKMGT]i?B\b|bytes\b|[GT](?:FLOPS|OPS|FLOP/s)\b",
    )
)
_FIGURE = re.compile(
    rf"(?<![\w.,#/-]){_MORE}{_NUMBER} ?(?:{_UNIT})|(?<![\w.,#/-])[-+±]?\d[\d,]*\.\d+(?!\w)"
)
_NO_FIGURE = re.compile(
    r"\b(?:Python|Ray|Spark|KubeRay|MLPerf|torch|onnxruntime|ONNX Runtime from|capability) \d+\.\d+"
    r"(?: to \d+\.\d+)?(?![\d.]*\d)|\d+(?:\.\d+){2,}|arXiv[: ]\d+\.\d+|\d+% intervals?\b"
)


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """Paragraphs of a README as they read, each on one line.

    Args:
        lines: Its lines outside of fences, with "#" for what is marked.
    """
    text = "\n".join(line for line in lines if not line.startswith("| `--"))
    for paragraph in text.split("\n\n"):
        without_code = re.sub(r"`[^`]*`", "`", " ".join(paragraph.split()))
        yield re.sub(r"\]\([^)]*\)", "]", without_code)


def typed_in(paragraph: str, known: Iterable[str]) -> list[str]:
    """Figures of a paragraph that are typed, each with what stands around it.

    Args:
        paragraph: A paragraph of `paragraphs`.
        known: Snippets whose figures are no measurements.
    """
    for snippet in known:
        paragraph = paragraph.replace(snippet, "...")
    paragraph = _NO_FIGURE.sub("...", paragraph)
    return [
        paragraph[max(found.start() - 40, 0) : found.end() + 40]
        for found in _FIGURE.finditer(paragraph)
        if re.search(r"\d", found[0])
    ]


def known_in(file: str) -> list[str]:
    """Snippets of a README whose figures are no measurements."""
    listed: dict[str, dict[str, list[str]]] = tomllib.loads(_LIST.read_text(encoding="utf-8"))
    return [snippet for snippets in listed.get(file, {}).values() for snippet in snippets]
