import inspect
import sys
import warnings
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.data.demo_corpus import (
    LIBRARIES,
    SCHEMA,
    Docstring,
    Library,
    collect_docstrings,
    is_heldout_file,
    list_sources,
    parse_docstrings,
    plan_heldout,
    read_docstrings,
    write_docstrings,
)
from fastformers.errors import InputError, StorageError

STDLIB = next(library for library in LIBRARIES if library.package is None)
HERBS = Library(name="herbs", package="herbs")

SOURCE = b'''"""The module.

    More of it,
        indented.
"""
raise RuntimeError("imported, not parsed")

class Outer:
    """A class."""

    class Inner:
        """A class in a class."""

    def method(self):
        """A method."""
        def local():
            """A function in a method."""

def empty():
    """ """

def plain():
    "One line."

try:
    async def coroutine():
        """An async function,
           on two lines.
        """
except ImportError:
    def fallback(path="\\d"):
        """A function in a handler."""

def bytes_are_no_docstring():
    b"bytes"
'''


@pytest.fixture
def herbs(tmp_path, monkeypatch):
    """Package `herbs` on the import path, which no test may import."""
    root = tmp_path / "site" / "herbs"
    for path, text in {
        "__init__.py": SOURCE,
        "broken.py": b'"""Never seen."""\ndef (',
        "latin.py": b'"""Undecodable: \xff."""',
        "null.py": b'"""Null byte."""\n\0',
        "declared.py": b'# coding: latin-1\n"""Caf\xe9."""',
        "sub/b.py": b'"""In a folder."""',
        "sub.py": b'"""Beside a folder of the same name."""',
        "tests/test_it.py": b'"""A test."""',
        "notes.txt": b'"""No source."""',
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield root
    assert "herbs" not in sys.modules


def test_every_kind_of_docstring_is_found_in_the_order_of_the_file():
    assert parse_docstrings(SOURCE) == [
        ("<module>", "The module.\n\nMore of it,\n    indented."),
        ("Outer", "A class."),
        ("Outer.Inner", "A class in a class."),
        ("Outer.method", "A method."),
        ("Outer.method.<locals>.local", "A function in a method."),
        ("plain", "One line."),
        ("coroutine", "An async function,\non two lines."),
        ("fallback", "A function in a handler."),
    ]


def test_names_are_those_that_python_gives():
    source = dedent('''
        class A:
            def f(self):
                """Text."""
                class B:
                    def g(self):
                        """Text."""
                return B
    ''')
    scope: dict[str, type] = {}
    exec(source, scope)
    method = scope["A"].f
    assert [name for name, _ in parse_docstrings(source.encode())] == [
        method.__qualname__,
        method(None).g.__qualname__,
    ]


def test_invalid_escapes_in_a_library_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_docstrings(b'"""A \\d escape."""') == [("<module>", r"A \d escape.")]


def test_half_a_surrogate_pair_can_be_stored():
    [(_, text)] = parse_docstrings(b'"""Half: \\ud800."""')
    assert pa.array([text]).to_pylist() == ["Half: ?."]


def test_broken_files_tests_and_other_files_are_skipped(herbs):
    rows = list(read_docstrings(HERBS))
    assert list(dict.fromkeys(row.module for row in rows)) == [
        "__init__.py",
        "declared.py",
        "sub.py",
        "sub/b.py",
    ]
    assert rows[0] == Docstring(
        text="The module.\n\nMore of it,\n    indented.",
        library="herbs",
        module="__init__.py",
        name="<module>",
    )
    assert "Café." in [row.text for row in rows]


def test_a_root_inside_an_excluded_folder_is_still_read(tmp_path):
    source = tmp_path / "site-packages" / "herbs" / "a.py"
    source.parent.mkdir(parents=True)
    source.touch()
    assert list_sources(source.parent) == [source]
    assert list_sources(tmp_path) == []


def test_a_part_of_a_package_is_a_library_of_its_own(herbs):
    part = Library(name="herbs.sub", package="herbs.sub")
    assert collect_docstrings([part]).drop_columns("heldout").to_pylist() == [
        {"text": "In a folder.", "library": "herbs.sub", "module": "b.py", "name": "<module>"}
    ]


def _module(library: str, *, heldout: bool) -> str:
    names = (f"m{number}.py" for number in range(1000))
    return next(name for name in names if is_heldout_file(library, name) is heldout)


def _row(library: str, text: str, *, heldout: bool) -> Docstring:
    return Docstring(
        text=text, library=library, module=_module(library, heldout=heldout), name="<module>"
    )


def test_a_text_that_training_sees_is_never_held_out():
    rows = [
        _row("a", "in both", heldout=True),
        _row("a", "unseen", heldout=True),
        _row("b", "unseen", heldout=True),
        _row("a", "trained", heldout=False),
        _row("b", "in both", heldout=False),
        _row("b", "in both", heldout=True),
    ]
    assert plan_heldout(rows) == [False, True, True, False, False, False]


def test_a_fifth_of_the_files_is_held_out():
    num_heldout = sum(is_heldout_file("a", f"folder/module_{number}.py") for number in range(5000))
    assert 900 < num_heldout < 1100


def test_the_side_of_a_file_never_changes():
    # A fixed list, because the demo bundle was trained and evaluated on this split.
    modules = ["abc.py", "enum.py", "glob.py", "heapq.py", "shlex.py", "textwrap.py"]
    assert [module for module in modules if is_heldout_file("python", module)] == [
        "glob.py",
        "shlex.py",
        "textwrap.py",
    ]


def test_a_missing_library_names_itself_and_the_remedy():
    absent = Library(name="absent", package="no_such_package")
    with pytest.raises(InputError, match=r"'absent' is not installed: .*pip install"):
        collect_docstrings([absent])


def test_a_missing_part_names_itself_and_the_remedy(herbs):
    absent = Library(name="herbs.oil", package="herbs.oil")
    with pytest.raises(InputError, match=r"'herbs\.oil' is not installed: .*pip install"):
        collect_docstrings([absent])


def test_a_library_without_sources_is_refused(herbs):
    for source in herbs.rglob("*.py"):
        source.unlink()
    with pytest.raises(InputError, match=r"no docstrings of library 'herbs'; its \.py files"):
        collect_docstrings([HERBS])


def test_the_file_holds_the_table_and_nothing_else_is_left(herbs, tmp_path):
    path = tmp_path / "new" / "corpus.parquet"
    table = write_docstrings(path, [HERBS])
    assert pyarrow.parquet.read_table(path).equals(table)
    assert table.num_rows == 11
    assert table.schema == SCHEMA
    assert list(path.parent.iterdir()) == [path]


def test_two_runs_write_the_same_bytes(herbs, tmp_path):
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for path in paths:
        write_docstrings(path, [HERBS])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_refused_write_leaves_no_partial_file(herbs, tmp_path):
    taken = tmp_path / "taken"
    (taken / "corpus.parquet").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"corpus\.parquet: cannot be written"):
        write_docstrings(taken / "corpus.parquet", [HERBS])
    assert [path.name for path in taken.iterdir()] == ["corpus.parquet"]


def test_libraries_have_distinct_names():
    assert len({library.name for library in LIBRARIES}) == len(LIBRARIES)


def test_the_standard_library_of_this_python_is_a_corpus(tmp_path):
    path = tmp_path / "corpus.parquet"
    table = write_docstrings(path, [STDLIB])
    assert table.num_rows > 4000
    assert set(table["library"].to_pylist()) == {"python"}
    rows = {(row["module"], row["name"]): row["text"] for row in table.to_pylist()}
    assert rows["textwrap.py", "dedent"] == inspect.getdoc(dedent)
    assert not any(Path(module).parts[0] in {"test", "site-packages"} for module, _ in rows)
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).num_rows == 4096
