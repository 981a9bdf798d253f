"""Measurements under version control: a file of JSON for each, by its name.

    last line of a command -> [filed] -> fastformers/benchmark/results/NAME.json -> views, figures

What is filed is the last line of a measuring command, whose `measured` says with which command,
when, where and with what; or a table of an earlier measurement that was filed by hand. This module
knows nothing of READMEs.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fastformers.benchmark
from fastformers.atomic_file import whole_file
from fastformers.cluster.json_values import parse_last_json
from fastformers.errors import InputError

DIRECTORY = Path(fastformers.benchmark.__path__[0]).resolve() / "results"
# What must be known of a measurement before a README shows it.
CONDITIONS = ("command", "at", "machine", "versions")
# How the command line of a measurement begins that no command of the project made.
NO_COMMAND = "none of the project: "
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
# Directories of an absolute path: no part of an address, a ratio or a relative path.
_DIRECTORIES = re.compile(r"(?<![\w.:/~*-])/(?:[\w.+@~-]+/)+")


@dataclass(frozen=True, kw_only=True)
class Filed:
    """One measurement.

    Attributes:
        name: Name of its file, without the suffix.
        content: What was measured, by key; `measured` has the conditions.
    """

    name: str
    content: Mapping[str, Any]

    @property
    def commands(self) -> list[str]:
        """The command lines that measured it, and measure it anew."""
        command = self.measured["command"]
        return [command] if isinstance(command, str) else list(command)

    @property
    def measured(self) -> Mapping[str, Any]:
        """The conditions: command, date, machine, versions."""
        conditions: Mapping[str, Any] = self.content["measured"]
        return conditions

    def value(self, path: str) -> Any:
        """What stands at a path of keys and places in lists, such as `steps.-1.seconds`.

        In a table that was filed by hand, a row is named by its first cell and a cell of it by the
        head of its column: `table.Ray Data tuned.rows/s`.

        Raises:
            InputError: Nothing stands there.
        """
        found: Any = self.content
        for key in path.split("."):
            try:
                found = found[int(key)] if isinstance(found, list) else _look_up(found, key)
            except (KeyError, IndexError, ValueError, TypeError):
                known = ", ".join(found) if isinstance(found, dict) else type(found).__name__
                raise InputError(f"{self.name}.{path}: no {key} in it ({known})") from None
        return found


def _look_up(found: Any, key: str) -> Any:
    """A value of an object by its key; of a table, a row by its first cell, as an object."""
    if key in found or "rows" not in found:
        return found[key]
    for first, *cells in found["rows"]:
        if _plain(first) == key:
            heads = map(_plain, found["columns"][1:])
            numbers = (cell[0] if isinstance(cell, list) else cell for cell in cells)
            return dict(zip(heads, numbers, strict=True))
    raise KeyError(key)


def _plain(text: object) -> str:
    return str(text).replace("*", "").replace("`", "")


def load(name: str, directory: Path) -> Filed:
    """Read a measurement by its name.

    Raises:
        InputError: There is none of this name, or it does not say how it was measured.
    """
    path = directory / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; file it with `add FILE --as {name}`") from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error})") from None
    _check(content, str(path))
    return Filed(name=name, content=content)


def load_all(pattern: str, directory: Path) -> list[Filed]:
    """Read all measurements whose names match a pattern with `*`, in the order of their names.

    Raises:
        InputError: None does, or one cannot be read.
    """
    if "*" not in pattern:
        return [load(pattern, directory)]
    names = sorted(path.stem for path in directory.glob("*.json"))
    found = [load(name, directory) for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(f"{pattern}: no file in {directory} has such a name")
    return found


def add(source: Path, name: str, given: Mapping[str, str], directory: Path) -> tuple[Filed, bool]:
    """File the last line of a command.

    Args:
        source: File whose last line is the JSON that a command printed, or that is one JSON.
        name: Name to file it under; an older measurement of the name is replaced.
        given: Conditions that the file does not have, or has otherwise, by name.
        directory: Where measurements are filed.

    Returns:
        What was filed, and whether it replaced another.

    Raises:
        InputError: The file or the name cannot be used, or a condition is missing.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"--as {name}: give small letters, digits and hyphens")
    content = without_directories(_read_last_json(source))
    own = content.get("measured", {})
    if not isinstance(own, dict):
        raise InputError(f"{source}: its `measured` is no object: {own!r:.40}")
    content["measured"] = {**_conditions_in(content), **own, **given}
    _check(content, str(source))
    path = directory / f"{name}.json"
    is_replaced = path.exists()
    write(path, content)
    return Filed(name=name, content=content), is_replaced


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a measurement so that a change of one number is a change of one line."""
    with whole_file(path) as unfinished:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        unfinished.write_text(_joined_lists(text), encoding="utf-8")


def _joined_lists(text: str) -> str:
    """Lists on one line each if they begin with a plain value, as the rows of a table are read."""
    plain = r'(?:"(?:[^"\\]|\\.)*"|[-+\w.]+)'
    later = rf"(?:{plain}|\[[^\[\]\n]*\])"
    lists = re.compile(rf"\[\n\s*({plain}(?:,\n\s*{later})*)\n\s*\]")
    for _ in ("inner lists", "outer lists"):
        text = lists.sub(lambda found: "[" + re.sub(r",\n\s*", ", ", found[1]) + "]", text)
    return text


def _read_last_json(source: Path) -> dict[str, Any]:
    try:
        return parse_last_json(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: is no text ({error})") from None
    except ValueError:
        raise InputError(f"{source}: neither the file nor its last line is a JSON object") from None


def without_directories(found: Any) -> Any:
    """What was read, with the last part of each absolute path: directories are of one machine."""
    if isinstance(found, dict):
        return {key: without_directories(value) for key, value in found.items()}
    if isinstance(found, list):
        return [without_directories(value) for value in found]
    return _DIRECTORIES.sub("", found) if isinstance(found, str) else found


def _conditions_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions that commands have beside `measured`, under keys of their own."""
    found: dict[str, Any] = {}
    if "measured_at" in content:
        found["at"] = content["measured_at"]
    if "versions" in content:
        found["versions"] = content["versions"]
    cores = content.get("cores", content.get("num_cores"))
    if "cpu_model" in content:
        found["machine"] = f"{cores} cores of {content['cpu_model']}"
    return found


def _check(content: object, where: str) -> None:
    measured = content.get("measured") if isinstance(content, dict) else None
    if not isinstance(measured, dict):
        raise InputError(f"{where}: has no `measured`, which says how it was measured")
    missing: Sequence[str] = [name for name in CONDITIONS if not measured.get(name)]
    if missing:
        flags = ", ".join(f"--{name}" for name in missing)
        raise InputError(f"{where}: does not say {', '.join(missing)}; give {flags}")
    command = measured["command"]
    if not all(
        isinstance(line, str) for line in (command if isinstance(command, list) else [command])
    ):
        raise InputError(f"{where}: its `command` is no command line: {command!r:.40}")
