"""Rows that are hard to read back, their bytes in each format, and the check that none is lost."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

import fastformers.cluster.corpus.slices
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.shards import preparation

# NUL: CSV has none, the reader drops it.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
tricky = st.sampled_from(
    ['say "hi"', "a,b", "a\nb", "a\r\nb", "a\rb", "\ufeffa", "a\u2028b\x85c", "é", "😀 ok", '"']
)
rows = st.lists(
    st.fixed_dictionaries({"text": texts | tricky, "id": st.integers(0, 99), "note": texts}),
    min_size=1,
    max_size=12,
)
sizes = st.sampled_from([1, 2, 7, 30, 2**24])
SAMPLE = [
    {"text": 'first "one", quoted', "id": 0, "note": ""},
    {"text": "line\nbreak", "id": 1, "note": "é\r\n"},
    {"text": "", "id": 2, "note": '"'},
    {"text": "😀" * 5, "id": 3, "note": "x" * 40},
    {"text": "last", "id": 4, "note": "\n\n"},
]


def encode_csv(rows, *, lineterminator="\n", quoting=csv.QUOTE_ALL):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator=lineterminator, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def encode_json(rows, *, newline=b"\n", ensure_ascii=True):
    return b"".join(json.dumps(row, ensure_ascii=ensure_ascii).encode() + newline for row in rows)


def check_same(read, rows, *, id_type=int):
    """What was read is what was written; blank texts are bad rows."""
    assert read.texts == ["" if not row["text"].strip() else row["text"] for row in rows]
    assert set(read.errors) == {i for i, row in enumerate(rows) if not row["text"].strip()}
    assert set(read.errors.values()) <= {"column 'text': empty text"}
    assert read.kept == {
        "id": [id_type(row["id"]) for row in rows],
        "note": [row["note"] for row in rows],
    }


def check_round_trip(read_corpus, name, content, rows, size, **kinds):
    """Write, open and read with slices and chunks of a size."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", size)
        patch.setattr(preparation, "READ_CHUNK_BYTES", size)
        path = Path(folder) / name
        path.write_bytes(content)
        check_same(
            read_corpus(
                open_corpus(str(path), text_columns=("text",), keep_columns=("id", "note"))
            ),
            rows,
            **kinds,
        )
