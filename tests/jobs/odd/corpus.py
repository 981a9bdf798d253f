"""An odd corpus, and what is true of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bad:
    """A row without a prediction, and a part of the reason."""

    reason: str


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


class Pipe:
    """A named pipe, which a reader would wait for."""


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A corpus as people have them.

    Attributes:
        files: Content by name, in no order.
        rows: The text of each row that it truly has, or why the row is bad.
        kept: Values of kept columns, by name; `--keep-columns` names them.
        flags: Further flags.
        path: What is scored, below the directory of the files; by default the only file.
        refused: Part of the one line that it is refused with; then no row was scored, unless
            `rows` are given: these have their predictions and dead letters all the same.
        said: Part of what the command says while it works.
        unfit: Number of values that the report counts, by column.
    """

    files: Mapping[str, bytes | Link | Pipe]
    rows: list[str | Bad] = field(default_factory=list)
    kept: Mapping[str, list[Any]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    path: str | None = None
    refused: str | None = None
    said: str | None = None
    unfit: Mapping[str, int] = field(default_factory=dict)

    def write(self, directory: Path) -> str:
        """Write the files; returns the path to score."""
        directory.mkdir()
        for name, content in self.files.items():
            path = directory / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, Link):
                path.symlink_to(content.target)
            else:
                os.mkfifo(path)
        path = self.path
        if path is None:
            path = next(iter(self.files)) if len(self.files) == 1 else ""
        return f"{directory}/{path}" if path else str(directory)
