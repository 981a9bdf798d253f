"""Any bytes under any name: rows, or one line; and the same rows however a file is cut."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastformers.errors import InputError
from fastformers.formats.readers import ReadOptions
from fastformers.formats.records import record_stream
from fastformers.formats.text_file_config import TextFileConfig
from tests.fastformers.formats.any_bytes import COMPRESS, named_contents
from tests.fastformers.formats.files import open_file, read_all

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]
options = st.builds(
    ReadOptions,
    skip_unreadable=st.booleans(),
    text_files=st.builds(
        TextFileConfig,
        max_row_bytes=st.sampled_from([8, 40, 2**24]),
        csv_escape=st.sampled_from([None, "\\"]),
        csv_quote=st.sampled_from(['"', "none"]),
        encoding=st.sampled_from([None, None, None, "latin-1", "utf-16-le", "shift_jis"]),
    ),
)


@settings(deadline=None, max_examples=1500)
@given(named_contents(), st.sampled_from(list(COMPRESS)), options, st.data())
def test_any_bytes_give_the_same_rows_however_they_are_cut_or_one_line(
    named_content, compression, options, data
):
    name, content = named_content
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / name
        path.write_bytes(COMPRESS[compression](content))
        try:
            reader = open_file(path, options)
            expected = read_all(reader, path, part_bytes=2**24, chunk_bytes=2**24)
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            return
        part_bytes, chunk_bytes = (data.draw(st.sampled_from([1, 3, 20, 100])) for _ in range(2))
        patch.setattr(record_stream, "_ROW_BYTES", 1)
        if data.draw(st.booleans()):  # each chunk in another process
            patch.setattr(record_stream, "_MAX_OPEN", 0)
        cuts = {"part_bytes": part_bytes, "chunk_bytes": chunk_bytes}
        assert read_all(reader, path, **cuts) == expected
        limit = data.draw(st.integers(1, max(1, len(expected))))
        assert read_all(reader, path, **cuts, limit=limit) == expected[:limit]


texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ['"', "a,b", "a\nb", "a\r\nb", "\\", '\\"', "a\tb", "[{", "\ufeff", " ", "\x00"]
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(texts, min_size=1, max_size=6),
    st.sampled_from(list(COMPRESS)),
    st.sampled_from(ENCODINGS),
    st.sampled_from([1, 30, 2**24]),
)
def test_every_format_gives_the_same_rows(texts, compression, encoding, size):
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "text"], lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    stored = {
        ".csv": table.getvalue(),
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".json": json.dumps(rows, indent=size % 2, ensure_ascii=False),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        pyarrow.parquet.write_table(
            pa.table({"text": texts, "id": range(len(texts))}), f"{folder}/a.parquet"
        )
        for suffix, text in stored.items():
            content = COMPRESS[compression](text.encode(encoding))
            (Path(folder) / f"a{suffix}").write_bytes(content)
        for suffix in [".parquet", *stored]:
            path = Path(folder) / f"a{suffix}"
            reader = open_file(path, ReadOptions())
            found[suffix] = read_all(reader, path, part_bytes=size, chunk_bytes=size)
    assert found[".parquet"] == [
        text if text and not text.isspace() else "column 'text': empty text" for text in texts
    ]
    assert all(rows == found[".parquet"] for rows in found.values())
