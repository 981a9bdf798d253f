"""Marked places of a README, and what stands there.

    README, measurements -> [markdown] -> README

A table stands between `<!-- results: VIEW NAME ... -->` and `<!-- end -->`, and is written anew as
a whole. A figure in a sentence is followed by `<!--NAME.path:format-->`, and is replaced alone; the
format is Python's, or `.2p`: 100 times the number. Both are comments, so readers see the figures
alone. This module knows nothing of what a view shows.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastformers.errors import InputError
from fastformers.jobs.results.filed import Filed

_BLOCK = re.compile(
    r"^<!-- results: (?P<view>[\w-]+)(?P<names>(?: [\w*.-]+)+) -->\n"
    r"(?:(?!^<!-- results:).)*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)
_FIGURE = re.compile(
    r"(?P<old>(?:(?<![\w)])[-+])?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?%?)"
    r"<!--(?P<name>[a-z0-9][a-z0-9-]*)\.(?P<path>[^:<>\n]+)(?::(?P<format>[^<>\s]*?))?-->"
)
# What looks like a marker must be one, or a figure would stay as it was typed.
_MARKER = re.compile(r"<!-- end -->|<!--(?:.*?-->)?", re.DOTALL)
_END = "<!-- end -->"


@dataclass(frozen=True)
class Place:
    """A marked place.

    Attributes:
        line: Number of its line.
        names: Names of the measurements that stand there.
    """

    line: int
    names: tuple[str, ...]


def rewrite(
    text: str,
    where: str,
    *,
    render: Callable[[str, tuple[str, ...]], str],
    load: Callable[[str], Filed],
) -> str:
    """The text with all marked places written anew.

    Args:
        text: Markdown.
        where: Name of the file, for messages.
        render: Makes the lines of a view of measurements by their names.
        load: Reads a measurement by its name.

    Raises:
        InputError: A marker is spelled wrongly, or what it names cannot be shown.
    """
    _check_markers(text, where)

    def block(found: re.Match[str]) -> str:
        names = tuple(found["names"].split())
        with _at(text, found, where):
            lines = render(found["view"], names)
        return f"<!-- results: {found['view']} {' '.join(names)} -->\n{lines}{_END}"

    def figure(found: re.Match[str]) -> str:
        with _at(text, found, where):
            shown = _show(load(found["name"]).value(found["path"]), found["format"] or "")
            marked = shown + found[0].removeprefix(found["old"])
            again = _FIGURE.fullmatch(marked)
            if again is None or again["old"] != shown:  # it could not be replaced the next time
                raise InputError(f"{found['name']}.{found['path']}: {shown!r} is no figure")
        return marked

    return _BLOCK.sub(block, _FIGURE.sub(figure, text))


def places(text: str) -> Iterator[Place]:
    """All marked places of a text."""
    for pattern in (_BLOCK, _FIGURE):
        for found in pattern.finditer(text):
            names = found["names"].split() if pattern is _BLOCK else [found["name"]]
            yield Place(_line_of(text, found), tuple(names))


def without_markers(text: str) -> str:
    """What a reader sees: the text without comments, and without their lines."""
    return re.sub(r"<!--.*?-->", "", re.sub(r"^<!--[^\n]*-->\n", "", text, flags=re.MULTILINE))


def unmarked(text: str) -> str:
    """The text without what was written from measurements: "#" for a figure, no table."""
    return _FIGURE.sub("#", _BLOCK.sub("", text))


@contextmanager
def _at(text: str, found: re.Match[str], where: str) -> Iterator[None]:
    """Put file and line in front of what is refused inside."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}:{_line_of(text, found)}: {error}") from error


def _line_of(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start()) + 1


def _check_markers(text: str, where: str) -> None:
    known = [(one.start(), one.end()) for p in (_BLOCK, _FIGURE) for one in p.finditer(text)]
    for marker in _MARKER.finditer(text):
        if not any(start <= marker.start() < end for start, end in known):
            shown = marker[0].splitlines()[0]
            raise InputError(
                f"{where}:{_line_of(text, marker)}: {shown}: is neither behind a figure nor "
                f"the beginning or the end of a table (<!-- results: VIEW NAME --> to {_END})"
            )


def _show(value: object, form: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is no number")
    try:
        if form.endswith("p"):
            return format(100 * value, f"{form[:-1]}f")
        return format(value, form)
    except ValueError as error:
        raise InputError(f"format {form}: {error}") from None
