"""How a drawing comes into a page: colors, font and width are the page's own.

    plots -> a function that draws -> [theme] -> SVG as part of report.html

Each plot is drawn twice, for a desktop and for a phone, because a drawing that only shrinks cannot
be read; the page shows the one that fits. Colors are placeholders that become CSS variables, so
light and dark are one drawing. This module knows nothing of what is drawn. Needs the extra
`report`.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fastformers.figure import Palette, render_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEME = Palette(
    ink="#010101",
    muted="#010102",
    grid="#010103",
    paper="#010104",
    background="none",
    bad="#010105",
    series=tuple(f"#0102{number:02x}" for number in range(1, 7)),
)
_VARIABLE_OF = {
    THEME.ink: "ink",
    THEME.muted: "muted",
    THEME.grid: "grid",
    THEME.paper: "paper",
    THEME.bad: "bad",
    **{color: f"series-{number}" for number, color in enumerate(THEME.series, start=1)},
}
_WIDE, _NARROW = 720, 340


def render_twice(
    draw: Callable[[bool, "Figure"], None], name: str, label: str, heights: tuple[int, int]
) -> str:
    """Two SVGs, for a wide and a narrow page, with a label for screen readers.

    Args:
        draw: Draws on a figure, in colors of `THEME`, and is told whether the page is wide.
        name: Name of the plot, for ids that no other plot of the page has.
        label: What the plot shows, for people who cannot see it.
        heights: Heights of both drawings, in points.
    """
    drawings = []
    for kind, width, height in zip(("wide", "narrow"), (_WIDE, _NARROW), heights, strict=True):
        svg = render_svg(partial(draw, kind == "wide"), width=width, height=height, palette=THEME)
        drawings.append(_embed(svg, f"{name}-{kind}", label, kind))
    return "\n".join(drawings)


def _embed(svg: str, prefix: str, label: str, kind: str) -> str:
    """An SVG file as part of a page: its ids are its own, its colors the page's."""
    for color, variable in _VARIABLE_OF.items():
        svg = svg.replace(color, f"var(--{variable})")
    root = ElementTree.fromstring(svg)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    used = {target for element in root.iter() for target in _targets(element)}
    for element in root.iter():
        element.tag = _plain_name(element.tag)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            name = _plain_name(key)
            if name == "id" and value in used:
                element.set(name, f"{prefix}-{value}")
            elif name == "href":
                element.set(name, f"#{prefix}-{value.removeprefix('#')}")
            elif name != "id":
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    root.set("class", kind)
    return ElementTree.tostring(root, encoding="unicode")


def _targets(element: ElementTree.Element) -> list[str]:
    """Ids of other elements that an element refers to."""
    targets = []
    for key, value in element.attrib.items():
        if _plain_name(key) == "href":
            targets.append(value.removeprefix("#"))
        elif "url(#" in value:
            targets.append(value.partition("url(#")[2].partition(")")[0])
    return targets


def _plain_name(name: str) -> str:
    """A tag or attribute without its namespace."""
    return name.rpartition("}")[2]


def draw_legend(figure: "Figure", is_wide: bool) -> None:
    """Above the plot, in as many columns as the labels leave room for."""
    _, labels = figure.axes[0].get_legend_handles_labels()
    room = 100 if is_wide else 44  # letters
    columns = max(1, min(len(labels), room // (max(map(len, labels)) + 5)))
    figure.legend(loc="outside upper left", ncols=columns)
