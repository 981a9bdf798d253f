"""Every drawing of the project goes through here: its style, its colors and how it is saved.

    a function that draws -> [figure] -> SVG as part of a page, or an SVG or PNG file

Callers draw on a matplotlib figure and say how large it is, in points of 1/72 inch. matplotlib,
of the extra `report`, is imported only when something is drawn. For a page each plot is drawn
twice, for a desktop and for a phone, because a drawing that only shrinks cannot be read; the page
shows the one that fits. This module knows nothing of what is drawn.
"""

import importlib.util
import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastformers.atomic_file import whole_file
from fastformers.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
_POINTS_PER_INCH = 72
# A PNG file has two pixels for each point, so that it is sharp on screens of high density.
_PNG_DPI = 2 * _POINTS_PER_INCH


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colors of a drawing, each as #rrggbb.

    Attributes:
        ink: Text and labels.
        muted: Explanations, and everything that is not the subject of the drawing.
        grid: Axes and grid lines.
        paper: Gaps between areas.
        background: Background; "none" where the drawing lies on a page.
        bad: Failures.
        series: One color for each series.
    """

    ink: str
    muted: str
    grid: str
    paper: str
    background: str
    bad: str
    series: tuple[str, ...]


# Files are shown on light and on dark pages, so the background is part of the drawing.
FILE_PALETTE = Palette(
    ink="#1b1f24",
    muted="#59636e",
    grid="#d5d9df",
    paper="#ffffff",
    background="#ffffff",
    bad="#c62f2f",
    series=("#2f6fc1", "#d97706", "#2e8b6f", "#8a5cc2", "#b0457b", "#7f98b8", "#9a8b1f"),
)


# A page has its own colors, light and dark: these are placeholders that become its CSS variables.
THEME = Palette(
    ink="#010101",
    muted="#010102",
    grid="#010103",
    paper="#010104",
    background="none",
    bad="#010105",
    series=tuple(f"#0102{number:02x}" for number in range(1, 8)),
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


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One horizontal bar.

    Attributes:
        name: Text to the left of the bar; may have several lines.
        value: Length of the bar.
        label: Value as it is shown, to the right of the bar.
        color: Color of the bar's area.
        hatch: Pattern over the area, for example "///"; empty for none.
    """

    name: str
    value: float
    label: str
    color: str
    hatch: str = ""


def can_draw() -> bool:
    """Whether the extra `report` is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def require_drawing() -> None:
    """Check that drawings can be made, before the work that ends in one.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib  # noqa: F401


def check_picture(path: Path, flag: str) -> None:
    """Refuse a file that cannot be drawn, before the work that it would show.

    Args:
        path: File that the picture is to be written to.
        flag: Option that names the file, for the message.

    Raises:
        InputError: The name ends in neither .svg nor .png, or the directory is missing.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{flag} {path}: give a name that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"{flag} {path}: no such directory")
    require_drawing()


def render_svg(
    draw: Callable[["Figure"], None],
    *,
    width: float,
    height: float,
    palette: Palette = FILE_PALETTE,
) -> str:
    """Draw, and return the text of an SVG file, in which letters are text and not paths.

    Args:
        draw: Draws on the figure that it is given.
        width: Width in points.
        height: Height in points.
        palette: Colors of text, axes and background; `draw` itself uses the others.
    """
    file = io.StringIO()
    with _drawn(draw, width, height, palette) as figure:
        figure.savefig(file, format="svg", metadata=_metadata("svg"))
    return file.getvalue()


def save_figure(
    draw: Callable[["Figure"], None],
    paths: Sequence[Path],
    *,
    width: float,
    height: float,
) -> None:
    """Write the drawing to each path, as SVG or PNG by its suffix.

    Each file is drawn separately, because the layout depends on the size of a pixel. A file is
    complete or absent, and equal drawings give equal files.

    Args:
        draw: Draws on the figure that it is given.
        paths: Files to write; their names end in .svg or .png.
        width: Width in points.
        height: Height in points.
    """
    for path in paths:
        kind = path.suffix.removeprefix(".")
        with _drawn(draw, width, height, FILE_PALETTE) as figure, whole_file(path) as unfinished:
            dpi = _PNG_DPI if kind == "png" else _POINTS_PER_INCH
            figure.savefig(unfinished, format=kind, dpi=dpi, metadata=_metadata(kind))


def draw_bars(axes: "Axes", bars: Sequence[Bar]) -> None:
    """Draw horizontal bars from the top down, each with its name to the left and its label."""
    places = range(len(bars))
    areas = axes.barh(
        places,
        [bar.value for bar in bars],
        color=[bar.color for bar in bars],
        hatch=[bar.hatch for bar in bars],
        height=0.7,
    )
    axes.bar_label(areas, labels=[bar.label for bar in bars], padding=4)
    axes.set_yticks(places, [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)


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


@contextmanager
def _drawn(
    draw: Callable[["Figure"], None], width: float, height: float, palette: Palette
) -> Iterator["Figure"]:
    """Yield a figure with the drawing, in the project's style until the figure is saved."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style.context(["default", _style(palette)]):
        figure = Figure(
            figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH),
            dpi=_POINTS_PER_INCH,
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.04),
        )
        draw(figure)
        yield figure


def _style(palette: Palette) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "fastformers",
        "text.parse_math": False,
        "font.size": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "axes.titlesize": 12,
        "axes.titlelocation": "left",
        "figure.facecolor": palette.background,
        "axes.facecolor": palette.background,
        "text.color": palette.ink,
        "axes.labelcolor": palette.muted,
        "axes.edgecolor": palette.grid,
        "xtick.color": palette.grid,
        "ytick.color": palette.grid,
        "xtick.labelcolor": palette.muted,
        "ytick.labelcolor": palette.muted,
        "ytick.major.size": 0,
        "grid.color": palette.grid,
        "hatch.color": palette.paper,
        "legend.frameon": False,
        "legend.borderpad": 0,
        "legend.handlelength": 1.2,
        "legend.handleheight": 0.9,
        "legend.columnspacing": 1.4,
    }


def _metadata(kind: str) -> dict[str, None]:
    """Metadata that leaves out whatever differs between two equal drawings."""
    return {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
