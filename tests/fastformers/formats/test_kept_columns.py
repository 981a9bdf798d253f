import itertools

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
import pytest

from fastformers.errors import InputError
from fastformers.formats.file_set import open_files
from fastformers.formats.kept_columns import choose_names, find_field, read_nested
from fastformers.formats.readers import ReadOptions


def put(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path)


def read(place, *keep, text=("text",), **options):
    """First texts, errors by row, kept columns and misfits of all files, each read at once."""
    opened = open_files(
        pyarrow.fs.LocalFileSystem(),
        str(place),
        str(place),
        text_columns=text,
        keep_columns=keep,
        options=ReadOptions(**options),
    )
    parts = [
        opened.reader.read(file.path, start=0, stop=None, max_rows=None, chunk_bytes=2**20)
        for file in opened.files
    ]
    texts = list(itertools.chain.from_iterable(part.texts[0] for part in parts))
    reasons = [reason for part in parts for reason in part.errors.values()]
    kept = pa.concat_tables([part.kept for part in parts])
    return texts, reasons, kept, [part.unfit for part in parts]


def test_files_without_rows_have_no_say_and_null_fits_any_type(tmp_path):
    put(tmp_path / "0.parquet", text=pa.nulls(0), k=pa.nulls(0))
    put(tmp_path / "1.parquet", other=pa.array([], pa.int64()))
    put(tmp_path / "2.parquet", text=pa.nulls(2), k=[1, 2])
    put(tmp_path / "3.parquet", text=["a", "b"], k=pa.nulls(2))
    texts, reasons, kept, _ = read(tmp_path, "k")
    assert texts == ["", "", "a", "b"]
    assert reasons == ["column 'text': null text"] * 2
    assert kept["k"].to_pylist() == [1, 2, None, None]


LAYOUTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]


def test_text_in_any_layout_is_one_thing(tmp_path):
    for number, layout in enumerate(LAYOUTS):
        values = pa.array([f"value {number}", None]).cast(layout)
        put(tmp_path / f"{number}.parquet", text=pa.array(["a", "b"]).cast(layout), k=values)
    texts, reasons, kept, unfit = read(tmp_path, "k")
    assert (texts, reasons) == (["a", "b"] * 5, [])
    assert kept.schema.types == [pa.large_string()]
    assert kept["k"].to_pylist()[::2] == [f"value {number}" for number in range(5)]
    assert not any(unfit)


def test_bytes_are_text_if_asked(tmp_path):
    put(tmp_path / "a.parquet", text=[b"good", b"bad \xff"], k=[b"\xc3\xa4", b"\xff"])
    with pytest.raises(InputError, match=r"holds binary, not text.*pass --binary-text if"):
        read(tmp_path)
    texts, reasons, kept, unfit = read(tmp_path, "k", binary_text=True)
    assert (texts, reasons) == (["good", ""], ["column 'text': invalid UTF-8"])
    assert (kept["k"].to_pylist(), unfit) == (["ä", None], [{"k": 1}])


def test_directories_are_columns(tmp_path):
    for name in ("year=2023/month=01/l=d%C3%A9", "year=2024/month=02/l=__HIVE_DEFAULT_PARTITION__"):
        put(tmp_path / name / "a.parquet", text=["a"])
    put(tmp_path / "b.parquet", text=["b"])
    *_, kept, unfit = read(tmp_path, "year", "month,l")
    assert kept.schema.types == [pa.int64(), pa.string(), pa.string()]
    assert kept.to_pydict() == {
        "year": [None, 2023, 2024],
        "month": [None, "01", "02"],  # as it is written
        "l": [None, "dé", None],
    }
    assert not any(unfit)


def test_a_column_comes_before_a_directory_of_its_name(tmp_path):
    put(tmp_path / "k=1" / "a.parquet", text=["a"], k=["own"])
    put(tmp_path / "k=2" / "b.parquet", text=["b"])
    assert read(tmp_path, "k")[2]["k"].to_pylist() == ["own", "2"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".jsonl.gz"])
def test_where_a_row_is_from_can_be_kept(tmp_path, write_rows, suffix):
    paths = [
        write_rows(tmp_path / f"{name}{suffix}", [{"text": f"{name} {row}"} for row in range(3)])
        for name in "ab"
    ]
    kept = read(tmp_path, "__file__", "__row__")[2].to_pydict()
    assert kept["__file__"] == [str(path) for path in paths for _ in range(3)]
    assert kept["__row__"] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_fields_of_columns_by_dots(tmp_path, write_rows, suffix):
    rows = [
        {"meta": {"lang": "de", "body": {"text": "eins"}}},
        {"meta": None},
        {"meta": {"lang": None, "body": {"text": "drei"}}},
    ]
    path = write_rows(tmp_path / f"a{suffix}", rows)
    texts, reasons, kept, _ = read(path, "meta.lang", "meta", text=("meta.body.text",))
    assert texts == ["eins", "", "drei"]
    assert reasons == ["column 'meta.body.text': null text"]
    assert kept["meta.lang"].to_pylist() == ["de", None, None]
    assert kept["meta"].to_pylist() == [row["meta"] for row in rows]
    with pytest.raises(InputError, match=r"no column 'meta\.none' \(--keep-columns\); it has meta"):
        read(path, "meta.none", text=("meta.lang",))
    with pytest.raises(InputError, match=r"no column 'meta\.none' \(--text-column"):
        read(path, text=("meta.none",))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_column_with_a_dot_in_its_name_comes_before_a_field(tmp_path, write_rows, suffix):
    row = {"text": "a", "a.b": "column", "a": {"b": "field", "c.d": "inner"}}
    kept = read(write_rows(tmp_path / f"a{suffix}", [row]), "a.b", "a.c.d")[2]
    assert kept.to_pylist() == [{"a.b": "column", "a.c.d": "inner"}]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_column_that_some_files_lack_is_null_there(tmp_path, write_rows, suffix):
    write_rows(tmp_path / f"a{suffix}", [{"text": "a", "x": "1"}])
    write_rows(tmp_path / f"b{suffix}", [{"text": "b", "y,z": "2"}])
    kept = read(tmp_path, "x", "y,z")[2]
    assert kept.to_pydict() == {"x": ["1", None], "y,z": [None, "2"]}
    kept = read(tmp_path, "*", "__row__")[2]
    assert kept.to_pydict() == {
        "text": ["a", "b"],
        "x": ["1", None],
        "y,z": [None, "2"],
        "__row__": [0, 0],
    }


def test_of_all_columns_those_of_files_that_were_not_opened_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("fastformers.formats.file_set.SAMPLE_FILES", 1)
    put(tmp_path / "a.parquet", text=["a"])
    put(tmp_path / "b.parquet", text=["b", "c"], new=[1, 2])
    assert read(tmp_path, "*")[3] == [{}, {"*": 2}]


def test_what_is_not_read_is_told(tmp_path, caplog):
    put(tmp_path / "a.parquet", text=["a"])
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.parquet").symlink_to("nowhere")
    read(tmp_path, skip_unreadable=True)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/b.txt: of another format, not read",
        f"{tmp_path}/c.parquet: is a broken link (to nowhere); skipped",
    ]


@pytest.mark.parametrize(
    ("given", "known", "names", "missing"),
    [
        (("a", "b"), "ab", ["a", "b"], []),
        (("b,a",), "ab", ["b", "a"], []),
        (("a, b ",), "ab", ["a", "b"], []),
        (("a,b",), ["a,b", "a", "b"], ["a,b"], []),
        (("a,b", "a"), ["a,b", "a", "b"], ["a,b", "a"], []),
        ((" a",), [" a", "a"], [" a"], []),
        (("*",), "ab", ["a", "b"], []),
        (("b", "*"), "ab", ["b", "a"], []),
        (("a,x", "y"), "ab", ["a"], ["x", "y"]),
        ((",",), "ab", [], [","]),
        ((), "ab", [], []),
    ],
)
def test_names_are_those_of_columns_before_they_are_lists(given, known, names, missing):
    assert choose_names(given, list(known), flag="--f") == (names, missing)


@pytest.mark.parametrize("given", [("a", "a"), ("a,b,a",), ("b", "a,b")])
def test_a_name_that_is_given_twice_is_refused(given):
    with pytest.raises(InputError, match=r"--f names the column '[ab]' twice"):
        choose_names(given, ["a", "b"], flag="--f")


def test_a_name_leads_through_objects_only():
    record = {"a": {"b": [1]}, "c": [{"d": 1}], "e": None}
    assert read_nested(record, "a.b") == [1]
    assert [read_nested(record, name) for name in ("a.x", "c.d", "e.f", "a.b.c")] == [None] * 4
    fields = pa.schema([("c", pa.list_(pa.struct([("d", pa.int8())])))])
    assert find_field(fields, "c.d") == []
