"""Any bytes under any name, through the real command: each row has its place, or one line says why.

What a reader gives of such bytes is tested beside the formats; here it is what a run writes.
"""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fastformers.cluster.corpus import slices
from fastformers.cluster.shards import preparation
from fastformers.formats.readers import ReadOptions
from fastformers.formats.text_file_config import TextFileConfig
from tests.fastformers.formats.any_bytes import COMPRESS, named_contents
from tests.fastformers.formats.files import open_file, read_chunks
from tests.jobs.odd.accounts import check_accounts
from tests.jobs.odd.corpus import Bad

FLAGS = {
    "escape": ("--csv-escape", "\\"),
    "quote": ("--csv-quote", "none"),
    "latin-1": ("--encoding", "latin-1"),
    "short rows": ("--max-row-bytes", "40"),
    "everything": ("--keep-columns", "*"),
    "places": ("--keep-columns", "__file__,__row__"),
}
OPTIONS = {
    "escape": {"csv_escape": "\\"},
    "quote": {"csv_quote": "none"},
    "latin-1": {"encoding": "latin-1"},
    "short rows": {"max_row_bytes": 40},
}


@settings(deadline=None, max_examples=250)
@given(
    named_contents(),
    st.sampled_from(list(COMPRESS)),
    st.sampled_from([None, *FLAGS]),
    st.sampled_from([20, 2**24]),
)
def test_every_row_of_any_bytes_has_its_place_or_one_line_says_why(
    score, scorer, named_content, compression, chosen, chunk_bytes
):
    name, content = named_content
    if chosen in ("escape", "quote") and not name.startswith(("a.csv", "a.tsv")):
        chosen = None  # these are refused where no file is CSV
    options = ReadOptions(text_files=TextFileConfig(**OPTIONS.get(chosen, {})))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        corpus, output = Path(folder, name), Path(folder, "out")
        corpus.write_bytes(COMPRESS[compression](content))
        patch.setattr(slices, "MAX_SLICE_BYTES", chunk_bytes)
        patch.setattr(preparation, "READ_CHUNK_BYTES", chunk_bytes)
        status, out, lines = score(corpus, output, "--max-bad-rows", "100%", *FLAGS.get(chosen, ()))
        event(f"status {status}")
        if status != 0:
            assert (status, out) == (2, "")
            assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
            assert str(corpus) in lines[-1] or chosen == "everything"
            return
        rows = read_rows(corpus, options)
        check_accounts(rows, output, scorer)
        assert json.loads(out)["rows"] == len(rows)


def read_rows(path, options):
    """Text of each row of a file, or why it is bad."""
    rows = []
    for chunk in read_chunks(open_file(path, options), path, part_bytes=2**24, chunk_bytes=2**24):
        rows += [
            Bad(chunk.errors[row]) if row in chunk.errors else text
            for row, text in enumerate(chunk.texts[0])
        ]
    return rows
