"""Write every table and figure of the READMEs from filed measurements.

python -m fastformers.jobs.results
python -m fastformers.jobs.results add FILE --as NAME

The first form measures nothing: it writes the marked places of the READMEs anew, and prints for
each measurement the command that makes it anew. The second files what a command printed (its last
line, in FILE); its conditions are in it, and those of older measurements are given by flags.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastformers
from fastformers.atomic_file import whole_file
from fastformers.errors import InputError
from fastformers.jobs.console.command_parser import PlainParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.results import filed, markdown, views
from fastformers.jobs.results.picture import Picture
from fastformers.jobs.results.table import Table

ROOT = Path(fastformers.__path__[0]).resolve().parent
READMES = (
    "README.md",
    "fastformers/README.md",
    "fastformers/benchmark/README.md",
    "cluster/README.md",
    "jobs/README.md",
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of the tool."""
    parser = PlainParser(prog="python -m fastformers.jobs.results", description=__doc__)
    adding = parser.add_subparsers(dest="action", metavar="add").add_parser(
        "add", help="file what a command printed"
    )
    adding.add_argument("file", type=Path, metavar="FILE", help="what the command printed")
    adding.add_argument("--as", dest="name", required=True, help="name to file it under")
    adding.add_argument("--command", help="the command line that measured it (the file's own)")
    adding.add_argument("--at", help="ISO date of the measurement (the file's own)")
    adding.add_argument("--machine", help="machine, and what else ran on it (the file's own)")
    adding.add_argument("--versions", help="versions of the libraries (the file's own)")
    adding.add_argument("--title", help="what was measured, where a table names it (none)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool."""
    options = parse(arguments)
    return run(lambda: _add(options) if options.action == "add" else _rewrite(), options)


def rendered(file: str, text: str, on_picture: Callable[[Picture], object]) -> str:
    """A README with its marked places as the filed measurements have them.

    Args:
        file: Path of the README in the checkout.
        text: What it says now.
        on_picture: Called with each picture that it shows.

    Raises:
        InputError: A marker or a measurement cannot be used; names file and line.
    """
    folder = os.path.relpath(filed.DIRECTORY, (ROOT / file).parent)

    def render(view: str, names: tuple[str, ...]) -> str:
        shown = views.make_view(view, [_load_all(name) for name in names])
        if isinstance(shown, Table):
            return shown.to_markdown()
        on_picture(shown)
        return shown.to_markdown(folder)

    return markdown.rewrite(text, file, render=render, load=_load)


def _load(name: str) -> filed.Filed:
    return filed.load(name, filed.DIRECTORY)


def _load_all(pattern: str) -> list[filed.Filed]:
    return filed.load_all(pattern, filed.DIRECTORY)


def _rewrite() -> Mapping[str, Any]:
    changed: list[str] = []
    commands: dict[str, list[str]] = {}

    def update(picture: Picture) -> None:
        if picture.update(filed.DIRECTORY):
            changed.append(f"{picture.name}.svg")

    for file in _readmes():
        path = ROOT / file
        before = path.read_text(encoding="utf-8")
        after = rendered(file, before, update)
        if after != before:
            changed.append(file)
            with whole_file(path) as unfinished:
                unfinished.write_text(after, encoding="utf-8")
        for one in shown_in(after):
            commands[one.name] = one.commands
            console.print("\n    ".join([f"{file}: {one.name}", *one.commands]))
    console.print(f"written anew: {', '.join(changed) or 'nothing, all is as measured'}")
    return {"changed": changed, "commands": commands}


def shown_in(text: str) -> list[filed.Filed]:
    """Measurements that a README shows, each once, in its order."""
    names = dict.fromkeys(name for place in markdown.places(text) for name in place.names)
    return [one for name in names for one in _load_all(name)]


def _readmes() -> Sequence[str]:
    if not (ROOT / READMES[0]).exists():
        raise InputError(f"{ROOT}: is no checkout of the project, which has the READMEs")
    return READMES


def _add(options: argparse.Namespace) -> Mapping[str, Any]:
    given = {
        name: value
        for name in (*filed.CONDITIONS, "title")
        if (value := getattr(options, name)) is not None
    }
    one, is_replaced = filed.add(options.file, options.name, given, filed.DIRECTORY)
    path = os.path.relpath(filed.DIRECTORY / f"{one.name}.json")
    console.print(f"{'replaced' if is_replaced else 'filed'}: {path}; `make results` shows it")
    return {"file": path, "replaced": is_replaced}


if __name__ == "__main__":
    sys.exit(main())
