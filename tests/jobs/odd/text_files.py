"""Odd CSV and JSON files, by what is odd about them."""

import bz2
import gzip
import io
import json
import zipfile
from decimal import Decimal

import pyarrow as pa

from tests.jobs.odd.corpus import Bad, Odd

EMPTY = Bad("empty text")
ROWS = {"id": ["1", "2"]}
TEXTS = ["a cat", "the dog ran"]
TABLE = "id,text\n1,a cat\n2,the dog ran\n"
LINES = '{"id": "1", "text": "a cat"}\n{"id": "2", "text": "the dog ran"}\n'


def zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.csv", content)
    return file.getvalue()


def csv(text: str | bytes, *rows: str | Bad, name: str = "a.csv", **facts) -> Odd:
    content = text.encode() if isinstance(text, str) else text
    return Odd(files={name: content}, rows=list(rows), **facts)


def same(content: bytes, name: str, *flags: str, **facts) -> Odd:
    """Bytes that mean the two rows of `TABLE`."""
    return Odd(files={name: content}, rows=TEXTS, kept=ROWS, flags=flags, **facts)


def jsonl(text: str | bytes, *rows: str | Bad, name: str = "a.jsonl", **facts) -> Odd:
    return csv(text, *rows, name=name, **facts)


CSV_FILES = {
    "byte order mark": same(TABLE.encode("utf-8-sig"), "a.csv"),
    "byte order mark before a quote": same(
        TABLE.replace("id,text", '"id","text"').encode("utf-8-sig"), "a.csv"
    ),
    "UTF-16 with its mark": same(TABLE.encode("utf-16"), "a.csv"),
    "UTF-32 with its mark": same(TABLE.encode("utf-32"), "a.csv"),
    "UTF-16 without a mark": csv(TABLE.encode("utf-16-le"), refused="--encoding utf-16-le"),
    "UTF-16 that is named": same(TABLE.encode("utf-16-be"), "a.csv", "--encoding", "utf-16-be"),
    "latin-1": csv(
        "id,text\n1,caf\xe9\n2,a cat\n".encode("latin-1"),
        *(Bad("invalid UTF-8"), "a cat"),
        kept=ROWS,
    ),
    "latin-1 that is named": csv(
        "id,text\n1,caf\xe9\n2,a cat\n".encode("latin-1"),
        *("caf\xe9", "a cat"),
        flags=("--encoding", "latin-1"),
        kept=ROWS,
    ),
    "cut inside a character": csv(b"text\na cat\ncaf\xc3", "a cat", Bad("invalid UTF-8")),
    "gzip that is not said": same(gzip.compress(TABLE.encode()), "a.csv"),
    "gzip that is no gzip": same(TABLE.encode(), "a.csv.gz"),
    "zstd called gzip": same(zstd(TABLE.encode()), "a.csv.gz"),
    "bzip2": same(bz2.compress(TABLE.encode()), "a.csv.bz2"),
    "gzip of several parts": same(
        gzip.compress(TABLE[:20].encode()) + gzip.compress(TABLE[20:].encode()), "a.csv.gz"
    ),
    "gzip twice": csv(gzip.compress(gzip.compress(TABLE.encode())), refused="compressed twice"),
    "gzip that is cut": csv(
        gzip.compress(TABLE.encode() * 2000)[:-40], refused="a.csv", name="a.csv.gz"
    ),
    "zip archive": csv(zipped(TABLE.encode()), refused="a zip archive"),
    "HTML page": csv("<!DOCTYPE html><html>no such page</html>", refused="an HTML page"),
    "Git LFS pointer": csv(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", refused="Git LFS"
    ),
    "JSON in CSV": csv(LINES, refused="it holds JSON"),
    "lines that end in CRLF": same(TABLE.replace("\n", "\r\n").encode(), "a.csv"),
    "lines that end in one way or the other": same(
        TABLE.replace("\n", "\r\n", 1).encode(), "a.csv"
    ),
    "lines that end in CR": csv(TABLE.replace("\n", "\r"), refused="carriage returns"),
    "CR inside a field": csv("text,n\na\rcat,1\nok,2\n", "a\rcat", "ok"),
    "line breaks of all kinds in quotes": csv(
        'text,n\n"a\r\ncat\n\rsat\r",1\nok,2\n', "a\r\ncat\n\rsat\r", "ok"
    ),
    "line separators that are none": csv(
        "text,n\na\u2028b\u2029c\x85d\x0be\x0cf\x1cg,1\nok,2\n",
        *("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "ok"),
    ),
    "quote that is not closed": csv(
        'text,n\na cat,1\n"the dog,2\nit ran,3\n', "a cat", Bad("not CSV"), "it ran"
    ),
    "quote behind text": csv('text,n\n6" nail,1\nok,2\n', '6" nail', "ok"),
    "text behind a quote": csv('text,n\n"a" cat,1\nok,2\n', Bad("not CSV"), "ok"),
    "backslash before a quote": csv(
        'text,n\n"a \\"cat\\" sat",1\nok,2\n', Bad("--csv-escape"), "ok"
    ),
    "backslash that is named": csv(
        'text,n\n"a \\"cat\\" sat",1\nok,2\n',
        *('a "cat" sat', "ok"),
        flags=("--csv-escape", "\\"),
    ),
    "no quotes": csv('text,n\n"a cat,1\nok,2\n', '"a cat', "ok", flags=("--csv-quote", "none")),
    "ragged rows": csv(
        "id,text\n1,a cat\n2\n3,a,b\n4,it ran\n",
        *("a cat", Bad("1 fields"), Bad("3 fields"), "it ran"),
        kept={"id": ["1", None, None, "4"]},
    ),
    "comma at the end of each row": csv("id,text\n1,a,\n2,b,\n", refused="the last of them empty"),
    "NUL": csv("text,n\na\0cat,1\nok,2\n", "a\0cat", "ok"),
    "end of file as DOS has it": csv("text,n\na cat,1\n\x1a", "a cat", Bad("1 fields")),
    "no line break at the end": same(TABLE.strip().encode(), "a.csv"),
    "blank lines": same(TABLE.replace("\n", "\n\n\r\n").encode() + b"\n\n", "a.csv"),
    "blank lines first": same(b"\n\r\n" + TABLE.encode(), "a.csv"),
    "semicolons": same(TABLE.replace(",", ";").encode(), "a.csv", said="';' separates"),
    "tabs that are not said": same(TABLE.replace(",", "\t").encode(), "a.csv", said="separates"),
    "tabs": same(TABLE.replace(",", "\t").encode(), "a.tsv"),
    "control characters as delimiters": same(
        TABLE.replace(",", "\x01").encode(), "a.csv", "--csv-delimiter", "\x01"
    ),
    "Excel's line before the header": csv("sep=;\nid;text\n1;a cat\n", refused="no column 'text'"),
    "header twice": csv("text,text\na,b\n", refused="'text'"),
    "header with spaces": csv("id, text\n1, a cat\n", refused="' text'"),
    "index without a name": csv(",text\n0,a cat\n1,ok\n", "a cat", "ok", kept={"": ["0", "1"]}),
    "header alone": csv("id,text\n", refused="the corpus is empty"),
    "header without a line break": csv("text", refused="the corpus is empty"),
    "0 bytes": csv("", refused="the corpus is empty"),
    "nothing but line breaks": csv("\n\n\n", refused="the corpus is empty"),
    "one row": csv("text\na cat", "a cat"),
    "texts without anything": csv('id,text\n1,\n2,""\n3,"  "\n4,NA\n', EMPTY, EMPTY, EMPTY, "NA"),
    "all rows bad": csv("id,text\n1,\n2,\n", EMPTY, EMPTY, refused="empty text"),
    "a line that is too long": csv(
        f"text,n\n{'a cat ' * 100},1\nok,2\n",
        *(Bad("--max-row-bytes"), "ok"),
        flags=("--max-row-bytes", "200"),
    ),
    "a text of 2 MiB": csv(f"text\n{'a cat ' * 2**18}\nok\n", "a cat " * 2**18, "ok"),
    "a delimiter at the end of the header, too": csv("text,\na cat,\nok,\n", "a cat", "ok"),
    "columns without names": csv(",,text\n1,2,ok\n", "ok"),
    "columns without names, all kept": csv(
        ",,text\n1,2,ok\n", flags=("--keep-columns", "*"), refused="two columns are called ''"
    ),
    "5,000 columns": csv(
        ",".join(["text", *map(str, range(5000))]) + "\nok" + ",x" * 5000 + "\n",
        *("ok",),
        kept={"4999": ["x"]},
    ),
    "5,000 other columns": csv(",".join(map(str, range(5000))) + "\n1\n", refused="4,950 more"),
    "a text longer than a batch": csv(
        f"text\n{'a cat ' * 60}\nok\n",
        *("a cat " * 60, "ok"),
        flags=("--max-batch-tokens", "10"),
    ),
    "a gzip bomb": csv(
        gzip.compress(b"text\n" + b"0" * 2**25 + b"\nok\n"),
        *(Bad("--max-row-bytes"), "ok"),
        name="a.csv.gz",
    ),
    "combined and directed characters": csv(
        "text\ne\u0301a\u0308\n\U0001f468\u200d\U0001f469\u200d\U0001f467\n\u202eabc\u202c\n\ufeffa\n",
        *("e\u0301a\u0308", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u202eabc\u202c"),
        "\ufeffa",
    ),
}

DEEP = "[" * 5000 + "]" * 5000
JSON_FILES = {
    "byte order mark": same(LINES.encode("utf-8-sig"), "a.jsonl"),
    "UTF-16 with its mark": same(LINES.encode("utf-16"), "a.jsonl"),
    "UTF-32 with its mark": same(LINES.encode("utf-32"), "a.ndjson"),
    "latin-1": jsonl(
        LINES.replace("cat", "caf\xe9").encode("latin-1"), Bad("invalid UTF-8"), TEXTS[1]
    ),
    "gzip that is not said": same(gzip.compress(LINES.encode()), "a.jsonl"),
    "gzip that is no gzip": same(LINES.encode(), "a.jsonl.gz"),
    "zstd": same(zstd(LINES.encode()), "a.jsonl.zst"),
    "gzip with something behind": jsonl(
        gzip.compress(LINES.encode()) + b"\0" * 512, refused="cannot be read", name="a.jsonl.gz"
    ),
    "CRLF": same(LINES.replace("\n", "\r\n").encode(), "a.jsonl"),
    "blank lines": same(f"\n \n{LINES}\n\t\n\r\n".replace("}\n", "}\n\n").encode(), "a.jsonl"),
    "no line break at the end": same(LINES.strip().encode(), "a.jsonl"),
    "line separators that are none": jsonl(
        '{"text": "a\u2028b\x85c"}\n{"text": "ok"}\n', "a\u2028b\x85c", "ok"
    ),
    "array": same(f"[{LINES.strip().replace('}', '},', 1)}]".encode(), "a.json"),
    "array on several lines": same(
        json.dumps(list(map(json.loads, LINES.splitlines())), indent=2).encode(), "a.jsonl"
    ),
    "array in gzip": same(
        gzip.compress(json.dumps(list(map(json.loads, LINES.splitlines()))).encode()), "a.json.gz"
    ),
    "array of anything": jsonl(
        '[{"text": "a cat"}, 3, "text", null, [{"text": "no"}], {"text": "ok"}]',
        *("a cat", Bad("int"), Bad("str"), Bad("NoneType"), Bad("list"), "ok"),
    ),
    "array that is cut": jsonl(
        '[{"text": "a cat"}, {"text": "the d', refused="the file may be cut off", name="a.json"
    ),
    "array that is cut, of which the rest is wanted": jsonl(
        '[{"text": "a cat"}, {"text": "the d',
        *("a cat", Bad("the file may be cut off")),
        name="a.json",
        flags=("--skip-unreadable-files",),
    ),
    "array of nothing": jsonl("[]", refused="the corpus is empty"),
    "0 bytes": jsonl("", refused="the corpus is empty"),
    "blank lines alone": jsonl("\n \n\t\n", refused="the corpus is empty"),
    "an object over several lines": jsonl(
        json.dumps({"text": "a cat"}, indent=2), refused="goes over several lines"
    ),
    "an object around the array": jsonl(
        '{"data": [{"text": "a cat"}]}', refused="no column 'text'", name="a.json"
    ),
    "an array on each line": jsonl('["a cat"]\n["ok"]\n', refused="is a JSON object"),
    "texts on each line": jsonl('"a cat"\n"ok"\n', refused="is a JSON object"),
    "CSV in JSON": jsonl(TABLE, refused="is a JSON object"),
    "two objects on a line": jsonl(
        '{"text": "a"} {"text": "b"}\n{"text": "ok"}\n', Bad("not JSON"), "ok"
    ),
    "comma behind each object": jsonl(
        '{"text": "a"},\n{"text": "b"},\n', refused="is a JSON object"
    ),
    "last line is cut": jsonl('{"text": "a cat"}\n{"text": "the d', "a cat", Bad("not JSON")),
    "NUL at the end": jsonl(b'{"text": "a cat"}\n\0\0\0\0', "a cat", Bad("not JSON")),
    "NUL that is escaped": jsonl('{"text": "a\\u0000b"}\n', "a\0b"),
    "half of a character": jsonl(
        '{"text": "\\ud83d", "id": "1"}\n{"text": "ok", "id": "\\ud83d"}\n',
        *(Bad("invalid UTF-8"), "ok"),
        kept={"id": ["1", "\ufffd"]},
    ),
    "emoji that is escaped": jsonl('{"text": "\\ud83d\\ude00"}\n', "\U0001f600"),
    "a key twice": jsonl('{"text": "no", "text": "ok", "id": 1}\n', "ok", kept={"id": [1]}),
    "deep arrays": jsonl(
        f'{{"text": "ok", "id": 1}}\n{{"text": "a", "id": {DEEP}}}\n',
        *("ok", Bad("not JSON")),
        kept={"id": [1, None]},
    ),
    "a number of 5,000 digits": jsonl(
        f'{{"text": "a cat"}}\n{{"text": "a", "id": {"9" * 5000}}}\n', "a cat", Bad("not JSON")
    ),
    "no texts": jsonl(
        '{"text": null}\n{"text": 3}\n{"text": ["a"]}\n{}\n{"text": ""}\n{"text": "ok"}\n',
        *(Bad("null"), Bad("int"), Bad("list"), Bad("null"), EMPTY, "ok"),
    ),
    "numbers for texts": jsonl('{"text": 3}\n{"text": 4.5}\n', refused="not text"),
    "integers beyond 64 bits": jsonl(
        f'{{"text": "a", "id": {2**64}}}\n{{"text": "b", "id": -1}}\n',
        *("a", "b"),
        kept={"id": [Decimal(2**64), Decimal(-1)]},
    ),
    "integers beyond 128 bits": jsonl(
        f'{{"text": "a", "id": {10**60}}}\n{{"text": "b", "id": 1}}\n',
        *("a", "b"),
        kept={"id": [str(10**60), "1"]},
    ),
    "NaN and infinity": jsonl(
        '{"text": "a", "id": NaN}\n{"text": "b", "id": -Infinity}\n{"text": "c", "id": 1}\n',
        *("a", "b", "c"),
        kept={"id": [float("nan"), float("-inf"), 1.0]},
    ),
    "kept values of all types": jsonl(
        '{"text": "a", "id": 1}\n{"text": "b", "id": "x"}\n{"text": "c", "id": {"k": [true]}}\n'
        '{"text": "d", "id": null}\n{"text": "e"}\n',
        *("a", "b", "c", "d", "e"),
        kept={"id": ["1", "x", '{"k": [true]}', None, None]},
    ),
    "kept objects that differ": jsonl(
        '{"text": "a", "id": {"k": 1}}\n{"text": "b", "id": {"l": "x"}}\n',
        *("a", "b"),
        kept={"id": [{"k": 1, "l": None}, {"k": None, "l": "x"}]},
    ),
    "kept objects without keys": jsonl('{"text": "a", "id": {}}\n', "a", kept={"id": ["{}"]}),
    "fields inside objects": jsonl(
        '{"m": {"text": "a", "id": 1}}\n{"m": null}\n{"m": {"text": "c"}}\n{"m.text": "d"}\n',
        *("a", Bad("null"), "c", "d"),
        flags=("--text-column", "m.text"),
        kept={"m.id": [1, None, None, None]},
    ),
    "a key without a name": jsonl('{"": "x", "text": "a"}\n', "a", kept={"": ["x"]}),
    "a line that is too long": jsonl(
        f'{{"text": "{"a cat " * 100}"}}\n{{"text": "ok"}}\n',
        *(Bad("--max-row-bytes"), "ok"),
        flags=("--max-row-bytes", "200"),
    ),
}
