"""Odd Parquet files, by what is odd about them."""

import gzip
import io
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tests.jobs.odd.corpus import Bad, Odd

TEXTS = ["a cat", "the dog ran", "a cat", "good film"]
NULL = Bad("null text")


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def stored(**options: Any) -> Odd:
    """The same rows, stored in another way."""
    table = {"text": TEXTS, "id": [4, None, 2, 1]}
    return Odd(
        files={"a.parquet": parquet(table, **options)}, rows=TEXTS, kept={"id": [4, None, 2, 1]}
    )


def texts(values: pa.Array, *rows: str | Bad, **facts: Any) -> Odd:
    """Texts of some type."""
    return Odd(files={"a.parquet": parquet({"text": values})}, rows=list(rows), **facts)


def kept(values: pa.Array, found: list[Any] | None = None, **facts: Any) -> Odd:
    """A kept column of some type."""
    content = parquet({"text": TEXTS[: len(values)], "id": values})
    kept = {"id": values.to_pylist() if found is None else found}
    return Odd(files={"a.parquet": content}, rows=TEXTS[: len(values)], kept=kept, **facts)


def invalid_utf8() -> pa.Array:
    """A column of strings, of which one is none."""
    return pa.array([b"a cat", b"caf\xe9"]).view(pa.string())


def with_groups(*sizes: int) -> bytes:
    """Row groups of these sizes."""
    file, table = io.BytesIO(), pa.table({"text": TEXTS * 3, "id": range(12)})
    with pyarrow.parquet.ParquetWriter(file, table.schema) as writer:
        start = 0
        for size in sizes:
            writer.write_table(table.slice(start, size))
            start += size
    return file.getvalue()


def twice_named() -> bytes:
    file = io.BytesIO()
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def damaged() -> bytes:
    """Three row groups, of which the second has lost its page."""
    content = parquet(
        {"text": ["a cat", "MARK", "it ran"]},
        row_group_size=1,
        use_dictionary=False,
        compression="none",
        write_statistics=False,
    )
    start = content.index(b"MARK") - 4
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


NOON = datetime(2026, 11, 26, 12, 0, 0, 123456, tzinfo=UTC)
PLAIN = parquet({"text": TEXTS})
NESTED = pa.array([{"text": "a cat", "lang": "en"}, None, {"text": "ok", "lang": None}])
PARQUET_FILES = {
    **{
        f"compressed with {name}": stored(compression=name)
        for name in ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
    },
    "data pages of version 2": stored(data_page_version="2.0"),
    "format 1.0": stored(version="1.0"),
    "no dictionary": stored(use_dictionary=False),
    "no statistics": stored(write_statistics=False),
    "a page index and checksums": stored(write_page_index=True, write_page_checksum=True),
    "no Arrow schema": stored(store_schema=False),
    "pages of a byte": stored(data_page_size=1, write_batch_size=1),
    "a row group a row": stored(row_group_size=1),
    "delta encodings": stored(
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED"},
    ),
    "row groups without rows": Odd(
        files={"a.parquet": with_groups(0, 5, 0, 0, 7, 0)},
        rows=TEXTS * 3,
        kept={"id": list(range(12))},
    ),
    "one row": texts(pa.array(["ok"]), "ok"),
    "no rows": texts(pa.array([], pa.string()), refused="the corpus is empty"),
    "0 bytes": Odd(files={"a.parquet": b""}, refused="a.parquet"),
    "cut": Odd(files={"a.parquet": PLAIN[:-20]}, refused="a.parquet: cannot be read"),
    "its beginning is lost": Odd(files={"a.parquet": b"\0" * 4 + PLAIN[4:]}, rows=TEXTS),
    "CSV by another name": Odd(files={"a.parquet": b"text\na\n"}, refused="a.parquet: cannot"),
    "called CSV": Odd(files={"a.csv": PLAIN}, refused="it is Parquet"),
    "called JSON": Odd(files={"a.jsonl": PLAIN}, refused="it is Parquet"),
    "compressed as a whole": Odd(files={"a.parquet.gz": gzip.compress(PLAIN)}, refused="gzip"),
    "named in capitals": Odd(files={"A.PARQUET": PLAIN}, rows=TEXTS),
    "long strings": texts(pa.array(TEXTS, pa.large_string()), *TEXTS),
    "string views": texts(pa.array(TEXTS, pa.string_view()), *TEXTS),
    "dictionaries": texts(pa.array(TEXTS).dictionary_encode(), *TEXTS),
    "dictionaries of long strings": texts(
        pa.array(TEXTS, pa.large_string()).dictionary_encode(), *TEXTS
    ),
    "dictionaries with nulls": texts(
        pa.array(["ok", None, "ok"]).dictionary_encode(), "ok", NULL, "ok"
    ),
    "bytes": Odd(files={"a.parquet": parquet({"text": [b"ok"]})}, refused="--binary-text"),
    "bytes that are text": texts(
        pa.array([b"a cat", b"\xff", None]),
        *("a cat", Bad("invalid UTF-8"), NULL),
        flags=("--binary-text",),
    ),
    "strings that are not UTF-8": texts(invalid_utf8(), "a cat", Bad("invalid UTF-8")),
    "nulls, empty texts and spaces": texts(
        pa.array([None, "", " \n", "\0", "ok"]), NULL, Bad("empty"), Bad("empty"), "\0", "ok"
    ),
    "nulls alone": texts(pa.nulls(2), NULL, NULL, refused="null text"),
    "numbers": Odd(files={"a.parquet": parquet({"text": [1]})}, refused="holds int64"),
    "lists of texts": Odd(files={"a.parquet": parquet({"text": [["a"]]})}, refused="holds list"),
    "a struct": Odd(files={"a.parquet": parquet({"text": NESTED})}, refused="holds struct"),
    "texts inside a struct": Odd(
        files={"a.parquet": parquet({"m": NESTED})},
        rows=["a cat", NULL, "ok"],
        flags=("--text-column", "m.text"),
        kept={"m.lang": ["en", None, None]},
    ),
    "a name with a dot": Odd(
        files={"a.parquet": parquet({"m.text": ["ok"], "m": [{"text": "no"}]})},
        rows=["ok"],
        flags=("--text-column", "m.text"),
    ),
    "names of emoji, commas and spaces": Odd(
        files={"a.parquet": parquet({"\U0001f600 a, b": ["ok"], " ": [1], "x,y": [2]})},
        rows=["ok"],
        flags=("--text-column", "\U0001f600 a, b"),
        kept={" ": [1], "x,y": [2]},
    ),
    "a name twice": Odd(files={"a.parquet": twice_named()}, refused="'text'"),
    "a name that the predictions have": Odd(
        files={"a.parquet": parquet({"text": ["ok"], "label": [1]})},
        flags=("--keep-columns", "label"),
        refused="--keep-columns label: the predictions have a column of that name",
    ),
    "a column of everything": Odd(
        files={"a.parquet": parquet({"text": ["ok"], "a": [1], "b": [None]})},
        rows=["ok"],
        flags=("--keep-columns", "*"),
    ),
    "kept NaN": kept(pa.array([float("nan"), None, 1.5])),
    "kept half floats": kept(pa.array([1.5, None], pa.float16())),
    "kept uint64": kept(pa.array([2**64 - 1, None], pa.uint64())),
    "kept decimals": kept(pa.array([Decimal("1.10"), None, Decimal("-9.99")])),
    "kept wide decimals": kept(pa.array([Decimal(10**50)], pa.decimal256(60, 2))),
    "kept times with zones": kept(pa.array([NOON, None], pa.timestamp("us", "Europe/Berlin"))),
    "kept times without zones": kept(pa.array([NOON.replace(tzinfo=None), None])),
    "kept nanoseconds": kept(pa.array([1, None], pa.timestamp("ns"))),
    "kept times as Impala has them": Odd(
        files={
            "a.parquet": parquet(
                {"text": ["ok"], "id": pa.array([1000], pa.timestamp("ns"))},
                use_deprecated_int96_timestamps=True,
            )
        },
        rows=["ok"],
        kept={"id": pa.array([1000], pa.timestamp("ns")).to_pylist()},
    ),
    "a damaged row group": Odd(
        files={"a.parquet": damaged()}, refused="row group 1 cannot be read"
    ),
    "a damaged row group that may be": Odd(
        files={"a.parquet": damaged()},
        rows=["a cat", Bad("unreadable row group"), "it ran"],
        flags=("--skip-unreadable-files",),
    ),
    "kept dates and times of day": kept(
        pa.array(
            [{"d": date(9999, 12, 31), "t": time(1, 2, 3, 4)}, {"d": date(1, 1, 1), "t": None}]
        )
    ),
    "kept lists": kept(pa.array([[1, None], None, []])),
    "kept lists of one length": kept(pa.array([[1, 2], None], pa.list_(pa.int8(), 2))),
    "kept long lists": kept(pa.array([["x"], []], pa.large_list(pa.large_string()))),
    "kept maps": kept(pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32()))),
    "kept dictionaries": kept(pa.array(["x", None, "x"]).dictionary_encode()),
    "kept bytes": kept(pa.array([b"\xff\0", None, b""])),
    "kept bytes of one length": kept(pa.array([b"ab", None], pa.binary(2))),
    "kept UUIDs": kept(pa.array([uuid.UUID(int=7).bytes], pa.uuid()), [uuid.UUID(int=7)]),
    "kept nulls": kept(pa.nulls(3)),
    "kept structs without fields": kept(pa.array([{"a": {"b": 1}}, {"a": None}, None])),
    "kept strings that are not UTF-8": Odd(
        files={"a.parquet": parquet({"text": ["a", "b"], "id": invalid_utf8()})},
        rows=["a", "b"],
        kept={"id": ["a cat", "caf\ufffd"]},
    ),
}
