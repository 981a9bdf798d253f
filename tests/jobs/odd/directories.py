"""Odd directories of corpora, by what is odd about them."""

import os

import pyarrow as pa

from tests.jobs.odd.corpus import Bad, Link, Odd, Pipe
from tests.jobs.odd.parquet_files import invalid_utf8, parquet

A, B = b'{"text": "a cat", "id": 1}\n', b'{"text": "the dog ran", "id": 2}\n'
BOTH = ["a cat", "the dog ran"]
IDS = {"id": [1, 2]}
SKIP = ("--skip-unreadable-files",)
# Names that mean something to a shell, a URI, a glob, a terminal or a mark-up language.
NAMES = [
    *("a b", "a#b", "a%20b", "a?b=c", "a[b]", "a[/b]", "a*", "a\nb", "a\tb", "a\\b", "a'b", 'a"b'),
    *(
        "-a",
        "~a",
        "a:b",
        "a&b",
        "a+b",
        "caf\xe9",
        "cafe\u0301",
        "\U0001f600",
        "a\x1b[31mb",
        "$HOME",
    ),
    *("a\u202eb", "{a}", "a,b", "a" * 240),
]


def both(*, second: str = "b.jsonl", first: str = "a.jsonl", **facts) -> Odd:
    return Odd(files={first: A, second: B}, rows=BOTH, kept=IDS, **facts)


def corpus(files: dict, *rows: str | Bad, **facts) -> Odd:
    return Odd(files=files, rows=list(rows), **{"path": "", **facts})


def columns(*tables: dict, rows: list | None = None, **facts) -> Odd:
    """Parquet files whose columns differ."""
    files = {f"{number}.parquet": parquet(table) for number, table in enumerate(tables)}
    texts = [text for table in tables for text in pa.array(table["text"]).to_pylist()]
    return Odd(files=files, rows=texts if rows is None else rows, path="", **facts)


DIRECTORIES = {
    **{
        f"a file named {name[:20]!r}": Odd(
            files={f"{name}.jsonl": A}, rows=["a cat"], kept={"id": [1]}
        )
        for name in NAMES
    },
    **{
        f"a directory named {name[:20]!r}": Odd(
            files={f"{name}/a.jsonl": A, f"{name}/b.jsonl": B}, rows=BOTH, kept=IDS, path=name
        )
        for name in ("a b", "a#b", "a%20b", "a?b", "[b]", "*", "\U0001f600", "a.jsonl")
    },
    "a name that is not UTF-8": corpus(
        {"a.jsonl": A, os.fsdecode(b"\xff.jsonl"): B}, refused="rename it"
    ),
    "a glob": both(path="*.jsonl"),
    "a glob of directories": corpus({"x/1/a.jsonl": A, "y/1/a.jsonl": B}, *BOTH, path="**/a.jsonl"),
    "a glob of nothing": corpus({"a.jsonl": A}, path="b*.jsonl", refused="b*.jsonl"),
    "deep directories": both(second="b/c/d/e/f/g/h/i/b.jsonl"),
    "compressed or not": both(first="a.jsonl", second="b.ndjson"),
    "names of other formats": Odd(
        files={"a.jsonl": A, "README.md": b"#", "b.jsonl": B, "x.py": b"", "a.jsonl.tmp": b"no"},
        rows=BOTH,
        path="",
        said="of another format, not read",
    ),
    "two formats": corpus({"a.jsonl": A, "b.csv": b"text\nb\n"}, refused="mixes .csv, .jsonl"),
    "no format": corpus({"a.txt": A, "b": B}, refused="no .parquet"),
    "hidden files": corpus(
        {"a.jsonl": A, ".b.jsonl": B, "_b.jsonl": B, "_tmp/b.jsonl": B, ".git/b.jsonl": B}, "a cat"
    ),
    "what Spark leaves": corpus(
        {
            "part-00000.jsonl": A,
            "_SUCCESS": b"",
            ".part-00000.jsonl.crc": b"crc",
            "_started_1": b"",
            "part-00001.jsonl": B,
        },
        *BOTH,
    ),
    "files without rows": corpus(
        {"0.jsonl": b"", "a.jsonl": A, "b.jsonl": b"\n\n", "c.jsonl": B, "d.jsonl": b""}, *BOTH
    ),
    "CSV files without rows": corpus(
        {"0.csv": b"", "1.csv": b"other\n", "2.csv": b"text\nok\n", "3.csv": b"text\n"}, "ok"
    ),
    "files without rows alone": corpus({"a.jsonl": b"", "b.jsonl": b""}, refused="is empty"),
    "a link to a file of it": corpus(
        {"a.jsonl": A, "b.jsonl": Link("a.jsonl")}, "a cat", said="once"
    ),
    "a link to another file": corpus(
        {"x/a.jsonl": A, "y/b.jsonl": Link("../x/a.jsonl")}, "a cat", path="y"
    ),
    "a link to the directory itself": corpus({"a.jsonl": A, "x/up": Link("..")}, "a cat"),
    "a link to itself": corpus({"a.jsonl": A, "b.jsonl": Link("b.jsonl")}, refused="b.jsonl"),
    "a broken link": corpus({"a.jsonl": A, "b.jsonl": Link("none")}, refused="broken link"),
    "a broken link that may be": corpus(
        {"a.jsonl": A, "b.jsonl": Link("none")}, "a cat", flags=SKIP, said="broken link"
    ),
    "a pipe": corpus({"a.jsonl": A, "b.jsonl": Pipe()}, refused="no regular file"),
    "a pipe alone": corpus({"b.jsonl": Pipe()}, path="b.jsonl", refused="b.jsonl"),
    "a directory named as a file": corpus({"a.jsonl/a.jsonl": A, "b.jsonl": B}, *BOTH),
    "partitions": corpus(
        {"year=2023/a.jsonl": A, "year=__HIVE_DEFAULT_PARTITION__/a.jsonl": B},
        *BOTH,
        kept={"year": [2023, None]},
    ),
    "partitions with escapes": corpus(
        {"city=S%C3%A3o%20P/a.jsonl": A, "city=01/a.jsonl": B},
        *reversed(BOTH),
        kept={"city": ["01", "S\xe3o P"]},
    ),
    "partitions of huge numbers": corpus(
        {f"n={'9' * 200}/a.jsonl": A, "n=1/a.jsonl": B},
        *reversed(BOTH),
        kept={"n": ["1", "9" * 200]},
    ),
    "a partition that is a column, too": corpus(
        {"id=7/a.jsonl": A, "id=8/a.jsonl": B}, *BOTH, kept={"id": [1, 2]}
    ),
    "rows and files that are kept": Odd(
        files={"a.jsonl": A + b"\n" + B}, rows=BOTH, kept={"__row__": [0, 1]}
    ),
    "a file that cannot be read": corpus(
        {"a.csv": b"text\nok\n", "b.csv": b"PK\x03\x04"}, refused="b.csv: cannot be read"
    ),
    "a file that cannot be read and may be": corpus(
        {"a.csv": b"text\nok\n", "b.csv": b"PK\x03\x04"}, "ok", flags=SKIP, said="zip"
    ),
    "a file without the text column": corpus(
        {"a.csv": b"text\nok\n", "b.csv": b"body\nok\n"}, refused="b.csv: no column 'text'"
    ),
    "columns in another order": corpus(
        {"a.csv": b"id,text\n1,a\n", "b.csv": b"text,x,id\nb,9,2\n"},
        *("a", "b"),
        kept={"id": ["1", "2"], "x": [None, "9"]},
    ),
    "other delimiters in other files": corpus(
        {"a.csv": b"id;text\n1;a\n", "b.csv": b"id,text\n2,b\n"}, refused="b.csv"
    ),
    "other encodings and ends of lines in other files": corpus(
        {
            "a.csv": "id,text\n1,caf\xe9\n".encode("utf-16"),
            "b.csv": "\ufeffid,text\r\n2,caf\xe9\r\n".encode(),
        },
        *("caf\xe9", "caf\xe9"),
        kept={"id": ["1", "2"]},
    ),
    "integers, then fractions": columns(
        {"text": ["a"], "id": [1]}, {"text": ["b"], "id": [1.5]}, kept={"id": [1.0, 1.5]}
    ),
    "integers, then texts": columns(
        {"text": ["a"], "id": [1]}, {"text": ["b"], "id": ["x"]}, kept={"id": ["1", "x"]}
    ),
    "nulls, then anything": columns(
        {"text": pa.nulls(1), "id": pa.nulls(1)},
        {"text": ["b"], "id": [[1]]},
        rows=[Bad("null"), "b"],
        kept={"id": [None, [1]]},
    ),
    "a column that is missing": columns(
        {"text": ["a"], "id": [1]}, {"text": ["b"]}, kept={"id": [1, None]}
    ),
    "texts of other types": columns(
        {"text": ["a"]},
        {"text": pa.array(["b"], pa.large_string())},
        {"text": pa.array(["c"], pa.string_view())},
        {"text": pa.array(["d"]).dictionary_encode()},
    ),
    "texts that are numbers in one": columns(
        {"text": ["a"]}, {"text": [1]}, rows=[], refused="1.parquet"
    ),
    "signed, then unsigned": columns(
        {"text": ["a"], "id": [-1]},
        {"text": ["b"], "id": pa.array([2**63], pa.uint64())},
        kept={},
        flags=("--keep-columns", "id"),
    ),
    "kept bytes, then texts": columns(
        {"text": ["a"], "id": [b"\xff"]}, {"text": ["b"], "id": invalid_utf8()[:1]}
    ),
}
