"""English text that every base install already has: the docstrings of its libraries.

    [demo_corpus] -> labeled corpus -> demo, and finetune of the bundle that the package contains

The text is a docstring, the label is the library that it was found in. Sources are parsed with
`ast`, never imported. Rows stay in the order of the files and equal texts are all kept, because a
scoring job meets unordered lengths and repeated texts too. This module knows nothing of tokens or
models.

About a fifth of the files is held out, so that a model trained on the others is evaluated on
files that it has never seen.

The libraries were chosen so that a linear SVM is right for 0.883 of the held-out rows; what other
choices would give is in fastformers/README.md.
"""

import ast
import importlib.util
import logging
import os
import sysconfig
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from fastformers.atomic_file import whole_file
from fastformers.errors import InputError, StorageError
from fastformers.installation import how_to_install

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Library:
    """A body of Python sources that becomes one class of the corpus.

    Attributes:
        name: Label of its rows.
        package: Import name, dotted for a part of a package; None is the standard library.
    """

    name: str
    package: str | None


LIBRARIES = (
    Library(name="python", package=None),
    Library(name="numpy", package="numpy"),
    Library(name="pygments", package="pygments"),
    Library(name="ray.data", package="ray.data"),
    Library(name="ray.rllib", package="ray.rllib"),
    Library(name="ray.serve", package="ray.serve"),
)

# Folders that are no part of the library, or that only some machines have: tests, third-party code,
# parts that Linux distributions package apart, and parts that Python 3.12 and 3.13 removed.
EXCLUDED_FOLDERS = frozenset(
    [
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "thirdparty",
        "tkinter",
        "idlelib",
        "turtledemo",
        "distutils",
        "lib2to3",
    ]
)

# One file in this many is held out.
HELDOUT_EVERY = 5

# Rows in a row group of the Parquet file: a reader that splits by row group gets four or five.
ROWS_PER_GROUP = 4096

SCHEMA = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("library", pa.string(), nullable=False),
        pa.field("module", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("heldout", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Docstring:
    """One docstring and where it was found.

    Attributes:
        text: The docstring without its indentation; never empty.
        library: Name of the library.
        module: Path of the file below the library's root, with forward slashes.
        name: Qualified name of the object in that file; `<module>` for the file itself.
    """

    text: str
    library: str
    module: str
    name: str


def write_docstrings(path: Path, libraries: Sequence[Library] = LIBRARIES) -> pa.Table:
    """Collect the corpus and write it to a Parquet file, which appears only when complete.

    Raises:
        InputError: A library is not installed, or its sources are not.
        StorageError: The file cannot be written.
    """
    table = collect_docstrings(libraries)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            pyarrow.parquet.write_table(table, unfinished, row_group_size=ROWS_PER_GROUP)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error}") from error
    return table


def collect_docstrings(libraries: Sequence[Library] = LIBRARIES) -> pa.Table:
    """All docstrings of the libraries, in their order and that of files and lines.

    Returns:
        Columns `text`, `library`, `module`, `name` as in `Docstring`, and `heldout` (bool), which
        depends on all libraries given (see `plan_heldout`).

    Raises:
        InputError: A library is not installed, or its sources are not.
    """
    rows = [row for library in libraries for row in read_docstrings(library)]
    return pa.table(
        {
            "text": [row.text for row in rows],
            "library": [row.library for row in rows],
            "module": [row.module for row in rows],
            "name": [row.name for row in rows],
            "heldout": plan_heldout(rows),
        },
        schema=SCHEMA,
    )


def plan_heldout(rows: Sequence[Docstring]) -> list[bool]:
    """Decide which rows evaluate a model that is trained on the others.

    A file is held out by a hash of its library and path, so the choice is the same on every machine
    and does not change when other files are added or removed. A text that also occurs in a training
    file proves nothing about a model, so it is never held out.
    """
    in_heldout_file = [is_heldout_file(row.library, row.module) for row in rows]
    seen = {row.text for row, held in zip(rows, in_heldout_file, strict=True) if not held}
    return [held and row.text not in seen for row, held in zip(rows, in_heldout_file, strict=True)]


def is_heldout_file(library: str, module: str) -> bool:
    """Whether a file is on the held-out side."""
    return zlib.crc32(f"{library}/{module}".encode()) % HELDOUT_EVERY == 0


def read_docstrings(library: Library) -> Iterator[Docstring]:
    """The docstrings of one library; files that do not parse are skipped.

    Raises:
        InputError: The library is not installed, or its sources are not.
    """
    root = _find_root(library)
    num_found = 0
    for path in list_sources(root):
        module = path.relative_to(root).as_posix()
        try:
            found = parse_docstrings(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            logger.debug("%s: skipped: %s", path, error)
            continue
        num_found += len(found)
        for name, text in found:
            yield Docstring(text=text, library=library.name, module=module, name=name)
    if num_found == 0:
        raise InputError(
            f"{root}: no docstrings of library {library.name!r}; its .py files must be there"
        )


def _find_root(library: Library) -> Path:
    """The folder of a library, found without importing it."""
    if library.package is None:
        return Path(sysconfig.get_paths()["stdlib"])
    # `find_spec` of a dotted name imports its parent, so only the first part is asked for.
    top, *rest = library.package.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations if spec else None) or ():
        root = Path(location).joinpath(*rest)
        if root.is_dir():
            return root
    raise InputError(f"library {library.name!r} is not installed: {how_to_install()}")


def list_sources(root: Path) -> list[Path]:
    """The Python files below a folder, sorted by path, without `EXCLUDED_FOLDERS`."""
    sources: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED_FOLDERS]
        sources += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(sources, key=Path.as_posix)


def parse_docstrings(source: bytes) -> list[tuple[str, str]]:
    """Qualified name and text of each docstring of a Python file, in the order of its lines.

    Raises:
        SyntaxError: The source is not Python, or not in the encoding that it declares.
        ValueError: The source holds a null byte (some releases of Python).
    """
    with warnings.catch_warnings():
        # Invalid escapes in the libraries' files do not concern our user.
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    found: list[tuple[str, str]] = []
    _add_docstring(tree, "<module>", found)
    _walk_definitions(tree, "", found)
    return found


def _walk_definitions(node: ast.AST, prefix: str, found: list[tuple[str, str]]) -> None:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef(name=name):
                _add_docstring(child, prefix + name, found)
                _walk_definitions(child, f"{prefix}{name}.", found)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                _add_docstring(child, prefix + name, found)
                _walk_definitions(child, f"{prefix}{name}.<locals>.", found)
            case ast.stmt() | ast.ExceptHandler() | ast.match_case():
                _walk_definitions(child, prefix, found)


def _add_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
    name: str,
    found: list[tuple[str, str]],
) -> None:
    text = ast.get_docstring(node, clean=True)
    if text and not text.isspace():
        # Half a surrogate pair is legal in a Python string, but no file can hold it.
        found.append((name, text.encode("utf-8", "replace").decode("utf-8")))
