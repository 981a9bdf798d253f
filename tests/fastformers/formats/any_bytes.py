"""Any bytes under any name, most often such as the name promises."""

import bz2
import gzip

import pyarrow as pa
from hypothesis import strategies as st

NAMES = ["a.csv", "a.csv.gz", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"]
COMPRESS = {
    "nothing": bytes,
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "bz2": bz2.compress,
    "zstd": lambda content: pa.compress(content, "zstd", asbytes=True),
}
# Bytes that mean something to one format or the other, and bytes that mean nothing.
pieces = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'",;\t\n\r\\{}[]: a1\0'),
        b"\r\n",
        b'""',
        b'"text"',
        b"text,id\n",
        b'{"text": "a", "id": 1}\n',
        b'{"text": "b\\n"},',
        b'[{"text": "c"},\n',
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"PAR1",
        b"\x1f\x8b\x08",
    ]
)
beginnings = {
    "csv": [b"", b"text\nx\n", b"text,id\na,b\n", b"text;id\n1;2\n"],
    "tsv": [b"text\tid\na\tb\n"],
    "jsonl": [b"", b"[", b'{"text": "x"}\n', b'[{"text": "x"},'],
    "json": [b"[", b'{"text": "x"}\n', b'[{"text": "x"},\n'],
    "parquet": [b"", b"PAR1"],
}


@st.composite
def named_contents(draw):
    """A name and bytes, most often such as the name promises."""
    name = draw(st.sampled_from(NAMES))
    first = draw(st.sampled_from(beginnings[name.split(".")[1]]))
    return name, first + b"".join(draw(st.lists(pieces | st.binary(max_size=3), max_size=40)))
