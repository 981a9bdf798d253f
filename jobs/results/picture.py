"""A picture of a README, drawn from a measurement and kept beside it as an SVG file.

    view of measurements -> [picture] -> fastformers/benchmark/results/NAME.svg

A picture that shows other texts than its file is drawn anew. Equal numbers give equal texts, but
another version of matplotlib sets them otherwise; that alone is no reason to draw. This module
knows nothing of what is drawn.
"""

import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing and what it shows.

    Attributes:
        name: Name of its file, without the suffix.
        label: What it shows, for people who cannot see it.
        draw: Draws it to a file.
    """

    name: str
    label: str
    draw: Callable[[Path], None]

    def update(self, directory: Path) -> bool:
        """Draw it in a directory unless its file there shows the same; whether it was drawn."""
        path = directory / f"{self.name}.svg"
        if self.is_current(directory):
            return False
        self.draw(path)
        return True

    def is_current(self, directory: Path) -> bool:
        """Whether its file in a directory shows what it would show now."""
        path = directory / f"{self.name}.svg"
        if not path.exists():
            return False
        with tempfile.TemporaryDirectory() as scratch:
            now = Path(scratch) / path.name
            self.draw(now)
            return _texts(now) == _texts(path)

    def to_markdown(self, folder: str) -> str:
        """The line that shows it, from a README at whose side the folder of pictures is."""
        return f"![{self.label}]({folder}/{self.name}.svg)\n"


def _texts(path: Path) -> list[str]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: is no SVG file ({error}); remove it") from error
    return ["".join(element.itertext()) for element in root.iter() if _is_text(element)]


def _is_text(element: ElementTree.Element) -> bool:
    return element.tag.rpartition("}")[2] == "text"
