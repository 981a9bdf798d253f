"""A table of a README, and its Markdown.

    view of measurements -> [table] -> lines of Markdown

This module knows nothing of what is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastformers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are shown.

    Attributes:
        columns: Heads of the columns.
        rows: Cells of each row, as many as there are columns.
        right: Places of the columns that stand at the right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()

    def to_markdown(self) -> str:
        """The lines of the table, each with its end."""
        rules = ["---:" if place in self.right else "---" for place in range(len(self.columns))]
        return "".join(f"{_line(cells)}\n" for cells in (self.columns, rules, *self.rows))


def read_table(content: Mapping[str, Any], where: str) -> Table:
    """A table that was filed as one.

    Args:
        content: `columns`; `rows` of cells, each a text, a number in the format of its column
            (`formats`, as Python's, `"{:,.1f}"`), a list of a number and a format of its own, or
            null; and `right`, the places of the columns at the right.
        where: Name of the measurement, for messages.

    Raises:
        InputError: A row has another number of cells, or a number has no format.
    """
    columns = tuple(content["columns"])
    formats = content.get("formats", [None] * len(columns))
    rows = []
    for number, row in enumerate(content["rows"], start=1):
        if len(row) != len(columns):
            raise InputError(f"{where}: row {number} has {len(row)} cells of {len(columns)}")
        try:
            rows.append(tuple(map(_show, row, formats)))
        except (AttributeError, ValueError) as error:
            raise InputError(f"{where}: row {number}: a number without a format") from error
    return Table(columns=columns, rows=tuple(rows), right=frozenset(content.get("right", ())))


def _show(cell: Any, form: str | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        *numbers, form = cell
        return str(form).format(*numbers)
    if form is None:
        raise ValueError("no format")
    return form.format(cell)


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
