"""One line that shows how far a job is, as wide as the terminal: what matters most stays longest.

    progress -> [live_line] -> rich

The name of the work, a bar, then as many numbers as there is room for, the most important first.
What the user should know, such as a storage that does not answer, stands on lines of its own below.
This module knows nothing of what is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_MIN_BAR, _MAX_BAR = 10, 30  # cells
_WIDTH_FOR_BAR = 40  # narrower, the numbers need all of it


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """How far a job is.

    Attributes:
        what: Name of the work.
        share: Share that is done, 0-1.
        numbers: Numbers to show, the most important first.
        remarks: Lines to show below.
    """

    what: str
    share: float
    numbers: Sequence[str]
    remarks: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        has_bar = width >= _WIDTH_FOR_BAR
        room = width - cell_len(self.what) - 1 - (_MIN_BAR + 1 if has_bar else 0)
        text = fit(self.numbers, room)
        line = Table.grid(padding=(0, 1, 0, 0))
        cells: list[Text | ProgressBar] = [Text(self.what), Text(text)]
        if has_bar:
            left = width - cell_len(self.what) - cell_len(text) - 2
            bar_width = max(_MIN_BAR, min(_MAX_BAR, left))
            cells.insert(1, ProgressBar(total=1.0, completed=self.share, width=bar_width))
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        yield line
        for remark in self.remarks:
            yield Text(remark, style="dim", overflow="fold")


@dataclass(frozen=True, kw_only=True)
class WaitingLine:
    """What is waited for, and a sign of life beside it.

    Attributes:
        spinner: The sign of life; one for the whole wait, so that it turns evenly.
        text: What is waited for, and for how long.
    """

    spinner: Spinner
    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        sign = self.spinner.render(console.get_time())
        assert isinstance(sign, Text)
        yield Text.assemble(sign, f" {self.text}", no_wrap=True, overflow="ellipsis")


def fit(numbers: Sequence[str], width: int) -> str:
    """The first numbers, separated by commas, that fit into a width; always at least one."""
    text = numbers[0]
    for number in numbers[1:]:
        longer = f"{text}, {number}"
        if cell_len(longer) > width:
            break
        text = longer
    return text
