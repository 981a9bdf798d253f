"""What a file holds decides, not its name: it is read, or refused by what it is."""

import bz2
import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.errors import InputError
from fastformers.files.file_kind import HEAD_BYTES, keeps_ascii

CSV = "text,id\none,1\nzwölf,2\n"
LINES = '{"text": "one"}\n{"text": "zwölf"}\n'


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lambda b: pa.compress(b, "zstd", asbytes=True)]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_compressed_and_encoded_text_under_any_name(read, name, compress, encoding):
    assert read(name, compress(CSV.encode(encoding))) == ["one", "zwölf"]
    name = name.replace("csv", "jsonl")
    assert read(name, compress(LINES.encode(encoding))) == ["one", "zwölf"]


@pytest.mark.parametrize(
    ("encoding", "word", "is_cut"),
    [
        ("latin-1", "üß", True),
        ("cp1252", "“x”", True),
        ("koi8-r", "да", True),
        ("utf-8-sig", "да", True),
        ("utf-16-be", "да", False),
        ("cp037", "üß", False),  # EBCDIC
        ("shift_jis", "ソ表十", False),  # the second byte of each is a backslash
        ("gbk", "誠乗", False),
    ],
)
def test_an_encoding_may_be_named(read, encoding, word, is_cut):
    assert keeps_ascii(encoding) == is_cut
    content = f'text\nshort\n"{word}"\n'.encode(encoding)
    assert read("a.csv", content, encoding=encoding) == ["short", word]
    line = json.dumps({"text": word}, ensure_ascii=False)
    assert read("a.jsonl", f"{line}\n{line}\n".encode(encoding), encoding=encoding) == [word] * 2
    assert read("a.json", f"[{line},\n{line}]".encode(encoding), encoding=encoding) == [word] * 2


def parquet_bytes():
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"PK\x03\x04" + bytes(40), "a zip archive .*; unpack it"),
        ("a.csv", parquet_bytes(), "it is Parquet; let its name end in .parquet"),
        ("a.jsonl", gzip.compress(parquet_bytes()), "it is Parquet"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES.encode())), "gzip-compressed twice"),
        ("a.csv.gz", gzip.compress(bytes(257) + b"ustar" + bytes(600)), "a tar archive"),
        ("a.csv", b"\xfd7zXZ\x00" + bytes(20), "xz-compressed"),
        ("a.jsonl", b"<!DOCTYPE html><title>Not found</title>", "an HTML page"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
        ("a.csv", CSV.encode("utf-16-le"), "UTF-16-LE; pass --encoding utf-16-le"),
        ("a.csv", LINES.encode(), "it holds JSON, not CSV"),
        ("a.csv", b'[{"text": "a"}]', "it holds JSON, not CSV|corpus is empty"),
        ("a.parquet", gzip.compress(b"text"), "it is gzip-compressed, not Parquet"),
        ("a.parquet", CSV.encode(), "it is not Parquet; let its name say"),
        (
            "a.json",
            json.dumps({"text": "a", "id": 1}, indent=2).encode(),
            "goes over several lines",
        ),
        (
            "a.json",
            b'{\n  "rows": [\n    {"text": "a"},\n    {"text": "b"}\n  ]\n}\n',
            "goes over several lines; write one on each line",
        ),
        ("a.json", b"[1, 2, 3]", "no element of its first MiB is a JSON object"),
        ("a.csv", b"text,id\rone,1\rtwo,2\r", "lines end in carriage returns"),
    ],
    # Compressed bytes hold the time, and all processes must give a test the same name.
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_what_cannot_be_read_is_refused_by_what_it_is(read, name, content, reason):
    with pytest.raises(InputError, match=reason) as refused:
        read(name, content)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"Obj,text\na,b\n", b"PARTS,text\na,b\n", b"BZh9,text\na,b\n"])
def test_text_that_only_begins_like_another_format_is_text(read, content):
    assert read("a.csv", content) == ["b"]


def test_a_head_is_enough_for_what_is_refused():
    assert HEAD_BYTES > 257 + 5
