import bz2
import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fastformers.data import labeled_files
from fastformers.data.labeled_files import read_rows, say_left_out
from fastformers.errors import InputError
from fastformers.formats.text_file_config import TextFileConfig


def read(path, texts=("text",), others=("label",)):
    rows = read_rows(path, text_columns=texts, other_columns=others)
    return rows.texts, rows.others.to_pydict(), dict(rows.left_out)


def lines_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


ROWS = [{"text": f"text {row}", "label": row % 2} for row in range(5)]
EXPECTED = ((["text 0", "text 1", "text 2", "text 3", "text 4"],), {"label": [0, 1, 0, 1, 0]}, {})


@pytest.mark.parametrize(("end", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_compressed_files_are_read(tmp_path, end, compress):
    path = tmp_path / f"rows.jsonl.{end}"
    path.write_bytes(compress(lines_of(ROWS)))
    assert read(path) == EXPECTED


@pytest.mark.parametrize("name", ["", "*.jsonl", "part-[01].jsonl"])
def test_a_directory_or_glob_is_read_in_the_order_of_names(tmp_path, name):
    (tmp_path / "part-1.jsonl").write_bytes(lines_of(ROWS[2:]))
    (tmp_path / "part-0.jsonl").write_bytes(lines_of(ROWS[:2]))
    (tmp_path / "_SUCCESS").touch()
    assert read(tmp_path / name) == EXPECTED


def test_a_column_that_is_not_asked_for_may_hold_anything(tmp_path):
    odd = [[1], {"a": 1}, None, "x", 2**70]
    rows = [{**row, "other": other} for row, other in zip(ROWS, odd, strict=True)]
    (tmp_path / "rows.jsonl").write_bytes(lines_of(rows))
    assert read(tmp_path / "rows.jsonl") == EXPECTED


def test_categories_are_text_and_dates_stay_text(tmp_path):
    texts = pa.array(["2024-01-01", "x", "2024-01-01"]).dictionary_encode()
    labels = pa.array(["good", "bad", "good"]).dictionary_encode()
    pyarrow.parquet.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "r.parquet")
    (column,), others, _ = read(tmp_path / "r.parquet")
    assert (column, others["label"]) == (["2024-01-01", "x", "2024-01-01"], ["good", "bad", "good"])
    (tmp_path / "r.jsonl").write_bytes(lines_of([{"text": "2024-01-01", "label": "2024-01-02"}]))
    assert read(tmp_path / "r.jsonl") == ((["2024-01-01"],), {"label": ["2024-01-02"]}, {})


def test_bad_rows_are_counted_by_reason_and_the_others_stay_together(tmp_path):
    content = b"text,more,label\na,x,1\n,y,2\nb,\xff,3\nc,z\nd,w,4\n"
    (tmp_path / "rows.csv").write_bytes(content)
    texts, others, left_out = read(tmp_path / "rows.csv", texts=("text", "more"))
    assert (texts, others) == ((["a", "d"], ["x", "w"]), {"label": ["1", "4"]})
    assert sum(left_out.values()) == 3
    assert {"column 'text': empty text", "column 'more': invalid UTF-8"} < set(left_out)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_files_larger_than_a_chunk_are_read_to_their_end(tmp_path, monkeypatch, name):
    monkeypatch.setattr(labeled_files, "_CHUNK_BYTES", 100)
    texts = [f"text {row}" for row in range(200)]
    table = pa.table({"text": texts, "label": [str(row) for row in range(200)]})
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, tmp_path / name)
    elif name.endswith("jsonl"):
        (tmp_path / name).write_bytes(lines_of(table.to_pylist()))
    else:
        pyarrow.parquet.write_table(table, tmp_path / name, row_group_size=7)
    assert read(tmp_path / name) == ((texts,), {"label": table["label"].to_pylist()}, {})


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.parquet"])
def test_a_damaged_file_is_refused_without_a_flag_that_there_is_not(tmp_path, name):
    table = pa.table({"text": [f"text {row**7}" for row in range(9999)], "label": [1] * 9999})
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(table, tmp_path / name, compression="none")
        content = bytearray((tmp_path / name).read_bytes())
        content[1000:90000] = b"\xff" * 89000
    else:
        content = gzip.compress(lines_of(table.to_pylist()))[:-5000]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*cannot be read.*; repair( or remove)? it$"):
        read(tmp_path / name)


def test_more_than_two_texts_and_none(tmp_path):
    rows = [{"a": "1", "b": "2", "c": "3", "d": {"e": [{"f": 1}]}}]
    (tmp_path / "rows.jsonl").write_bytes(lines_of(rows))
    assert read(tmp_path / "rows.jsonl", ("a", "b", "c"), ()) == ((["1"], ["2"], ["3"]), {}, {})
    assert read(tmp_path / "rows.jsonl", (), ("d",)) == ((), {"d": [{"e": [{"f": 1}]}]}, {})


def test_what_is_left_out_is_one_line(tmp_path, caplog):
    say_left_out(tmp_path, Counter(), 3, "a text")
    assert not caplog.messages
    say_left_out(tmp_path, Counter(a=4, b=3, c=2, d=1), 1990, "a text")
    assert caplog.messages == [
        f"{tmp_path}: 10 of 2,000 rows are left out: a (4), b (3), c (2), ..."
    ]
    with pytest.raises(InputError, match=r"no row has a text: a \(4\)"):
        say_left_out(tmp_path, Counter(a=4), 0, "a text")


def test_files_without_rows_are_not_called_a_corpus(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(InputError, match=r"rows\.csv: no labeled rows are in it$"):
        read(tmp_path / "rows.csv")


def test_encoding_and_dialect_can_be_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("text~label\n'caf\xe9 ~ cr\xe8me'~1\nplain~0\n".encode("latin-1"))
    config = TextFileConfig(encoding="latin-1", csv_delimiter="~", csv_quote="'")
    rows = read_rows(path, text_columns=("text",), other_columns=("label",), text_files=config)
    assert rows.texts == (["caf\xe9 ~ cr\xe8me", "plain"],)
    assert rows.others.to_pydict() == {"label": ["1", "0"]}


def test_files_of_which_no_row_can_be_read_name_the_flags_that_say_how(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    left_out = read_rows(path, text_columns=("text",), other_columns=("label",)).left_out
    with pytest.raises(InputError, match=r"invalid UTF-8 \(1\); --encoding and the --csv flags"):
        say_left_out(path, left_out, 0, "a text")
