import dataclasses
import os

import pyarrow as pa
import pyarrow.parquet
import pytest

import fastformers.cluster.corpus.slices
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.shards import preparation
from fastformers.errors import InputError
from fastformers.formats.readers import ReadOptions

SUFFIXES = [".parquet", ".jsonl", ".csv", ".jsonl.gz", ".csv.gz"]


def open_texts(uri, *, keep=(), skip=False, text=("text",)):
    return open_corpus(
        str(uri),
        text_columns=tuple(text),
        keep_columns=tuple(keep),
        options=ReadOptions(skip_unreadable=skip),
    )


def names(corpus, root):
    return [os.path.relpath(file.path, root) for file in corpus.files]


def rows_of(*texts):
    return [{"text": text} for text in texts]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_file(tmp_path, write_rows, read_corpus, suffix):
    path = write_rows(tmp_path / f"a{suffix}", rows_of("one", "two"))
    write_rows(tmp_path / f"b{suffix}", rows_of("three"))
    assert read_corpus(open_texts(path)).texts == ["one", "two"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_directory_is_read_in_name_order_with_all_below_it(
    tmp_path, write_rows, read_corpus, suffix
):
    for name in ("b", "a/z/2", "c", "a/1", "B"):
        write_rows(tmp_path / f"{name}{suffix}", rows_of(f"{name} 0", f"{name} 1"))
    corpus = open_texts(tmp_path)
    order = ["B", "a/1", "a/z/2", "b", "c"]
    assert names(corpus, tmp_path) == [f"{name}{suffix}" for name in order]
    assert read_corpus(corpus).texts == [f"{name} {row}" for name in order for row in (0, 1)]


def test_hidden_and_foreign_files_are_ignored(tmp_path, write_rows):
    for name in ("a.jsonl", ".hidden.jsonl", "_SUCCESS.jsonl", "sub/_b.jsonl", "sub/c.jsonl"):
        write_rows(tmp_path / name, rows_of("text"))
    for name in ("README.md", "_SUCCESS", ".a.jsonl.crc"):
        (tmp_path / name).write_text("no rows")
    assert names(open_texts(tmp_path), tmp_path) == ["a.jsonl", "sub/c.jsonl"]


@pytest.mark.parametrize("hidden", ["_temporary/0", ".ipynb_checkpoints"])
def test_hidden_directories_are_ignored(tmp_path, write_rows, hidden):
    """Writers keep uncommitted files there; pyarrow.dataset ignores them as well."""
    write_rows(tmp_path / "a.jsonl", rows_of("text"))
    write_rows(tmp_path / hidden / "a.jsonl", rows_of("text"))
    assert names(open_texts(tmp_path), tmp_path) == ["a.jsonl"]


@pytest.mark.parametrize("name", ["_rows.jsonl", ".rows.jsonl"])
def test_a_file_that_is_named_itself_is_read_whatever_its_name(tmp_path, write_rows, name):
    path = write_rows(tmp_path / name, rows_of("text"))
    assert names(open_texts(path), tmp_path) == [name]


def test_a_corpus_below_a_hidden_directory_is_read(tmp_path, write_rows):
    write_rows(tmp_path / ".cache" / "_data" / "a.jsonl", rows_of("text"))
    assert len(open_texts(tmp_path / ".cache" / "_data").files) == 1


def test_a_glob_takes_what_matches(tmp_path, write_rows):
    for name in ("2023/a", "2023/b", "2024/a", "2025/a"):
        write_rows(tmp_path / f"{name}.jsonl", rows_of("text"))
    write_rows(tmp_path / "2023/a.csv", rows_of("text"))

    def match(pattern):
        return names(open_texts(tmp_path / pattern), tmp_path)

    assert match("*/a.jsonl") == ["2023/a.jsonl", "2024/a.jsonl", "2025/a.jsonl"]
    assert match("202[34]/*.jsonl") == ["2023/a.jsonl", "2023/b.jsonl", "2024/a.jsonl"]
    assert match("2023/?.csv") == ["2023/a.csv"]


def test_a_relative_glob(tmp_path, write_rows, monkeypatch):
    write_rows(tmp_path / "a.jsonl", rows_of("text"))
    monkeypatch.chdir(tmp_path)
    assert names(open_texts("*.jsonl"), tmp_path) == ["a.jsonl"]


def test_a_star_stays_in_its_directory(tmp_path, write_rows):
    """As in a shell, in Python's glob and in every tool that reads corpora."""
    write_rows(tmp_path / "a.jsonl", rows_of("new"))
    write_rows(tmp_path / "old" / "a.jsonl", rows_of("old"))
    assert names(open_texts(tmp_path / "*.jsonl"), tmp_path) == ["a.jsonl"]


def test_two_stars_stand_for_any_directories(tmp_path, write_rows):
    for name in ("a.jsonl", "x/a.jsonl", "x/y/a.jsonl", "x/y/b.jsonl"):
        write_rows(tmp_path / name, rows_of("text"))
    every = ["a.jsonl", "x/a.jsonl", "x/y/a.jsonl"]
    assert names(open_texts(tmp_path / "**" / "a.jsonl"), tmp_path) == every
    assert names(open_texts(tmp_path / "x" / "**" / "*.jsonl"), tmp_path) == [
        *("x/a.jsonl", "x/y/a.jsonl", "x/y/b.jsonl")
    ]


def test_a_path_that_exists_is_no_glob(tmp_path, write_rows):
    path = write_rows(tmp_path / "set [1]" / "a[b].jsonl", rows_of("text"))
    assert names(open_texts(tmp_path / "set [1]"), tmp_path) == ["set [1]/a[b].jsonl"]
    assert names(open_texts(path), tmp_path) == ["set [1]/a[b].jsonl"]


@pytest.mark.parametrize("name", ["none.jsonl", "none", "none/*.jsonl"])
def test_no_such_file(tmp_path, name):
    with pytest.raises(InputError, match=r"none.*: no "):
        open_texts(tmp_path / name)


def test_a_file_of_another_format(tmp_path):
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(InputError, match=r"a\.xlsx: expected \.parquet, \.jsonl"):
        open_texts(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match=r"no \.parquet, \.jsonl"):
        open_texts(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_corpus_without_rows(tmp_path, write_rows, suffix):
    path = write_rows(tmp_path / f"a{suffix}", rows_of("text"))
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    elif suffix == ".csv":
        path.write_text("text\n")
    else:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r": the corpus is empty$"):
        open_texts(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_empty_files_among_others_have_no_rows(tmp_path, write_rows, read_corpus, suffix):
    for name in "abc":
        write_rows(tmp_path / f"{name}{suffix}", rows_of(name))
    if suffix == ".parquet":
        schema = pa.schema([("text", pa.string())])
        pyarrow.parquet.write_table(schema.empty_table(), tmp_path / "b.parquet")
    else:
        (tmp_path / f"b{suffix}").write_bytes(b"")
    assert read_corpus(open_texts(tmp_path)).texts == ["a", "c"]


def test_formats_are_not_mixed(tmp_path, write_rows):
    write_rows(tmp_path / "a.csv", rows_of("text"))
    write_rows(tmp_path / "b.jsonl", rows_of("text"))
    with pytest.raises(InputError, match=r"mixes \.csv, \.jsonl"):
        open_texts(tmp_path)


def test_one_format_may_have_several_suffixes(tmp_path, write_rows, read_corpus):
    files = ["a.jsonl", "b.ndjson", "c.json", "d.jsonl.gz"]
    for name in files:
        write_rows(tmp_path / name, rows_of(name))
    assert read_corpus(open_texts(tmp_path)).texts == files


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(path):
    path.write_bytes(b"not Parquet at all, but long enough for a footer")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, replace, empty])
def test_an_unreadable_parquet_file_is_named_or_skipped(tmp_path, write_rows, read_corpus, damage):
    for name in "abc":
        write_rows(tmp_path / f"{name}.parquet", rows_of(f"{name} 0", f"{name} 1"))
    damage(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="--skip-unreadable-files") as caught:
        open_texts(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/b.parquet: cannot be read")
    assert "\n" not in str(caught.value)

    corpus = open_texts(tmp_path, skip=True)
    assert list(corpus.skipped) == [f"{tmp_path}/b.parquet"]
    assert corpus.skipped[f"{tmp_path}/b.parquet"]
    assert names(corpus, tmp_path) == ["a.parquet", "b.parquet", "c.parquet"]
    assert read_corpus(corpus).texts == ["a 0", "a 1", "c 0", "c 1"]


def test_a_compressed_file_that_is_not_is_named_or_skipped(tmp_path, write_rows, read_corpus):
    write_rows(tmp_path / "a.jsonl.gz", rows_of("text"))
    (tmp_path / "b.jsonl.gz").write_bytes(b"not gzip at all")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: no line of its first MiB"):
        open_texts(tmp_path)
    assert read_corpus(open_texts(tmp_path, skip=True)).texts == ["text"]


def test_nothing_is_left_after_skipping(tmp_path, write_rows):
    for name in "ab":
        empty(write_rows(tmp_path / f"{name}.parquet", rows_of("text")))
    with pytest.raises(InputError, match="corpus is empty; 2 unreadable files skipped"):
        open_texts(tmp_path, skip=True)


def test_the_digest_tells_every_change(tmp_path, write_rows):
    path = write_rows(tmp_path / "a.jsonl", rows_of("text"))
    write_rows(tmp_path / "b.jsonl", rows_of("text"))
    digests = [open_texts(tmp_path).digest]
    assert open_texts(tmp_path).digest == digests[0]

    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # touched
    digests.append(open_texts(tmp_path).digest)
    touched_ns = path.stat().st_mtime_ns
    write_rows(path, rows_of("longer text"))
    os.utime(path, ns=(0, touched_ns))  # modified
    digests.append(open_texts(tmp_path).digest)
    path.rename(tmp_path / "a2.jsonl")
    digests.append(open_texts(tmp_path).digest)
    write_rows(tmp_path / "c.jsonl", rows_of("text"))  # added
    digests.append(open_texts(tmp_path).digest)
    (tmp_path / "b.jsonl").unlink()
    digests.append(open_texts(tmp_path).digest)
    assert len(set(digests)) == 6


@pytest.mark.parametrize("slice_bytes", [1, 200, 2**24])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_slices_cover_all_rows_in_order_up_to_the_limit(
    tmp_path, write_rows, read_corpus, monkeypatch, suffix, slice_bytes
):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", slice_bytes)
    texts = [f"row {row}" for row in range(17)]
    for name, rows in {"a": texts[:7], "b": texts[7:8], "c": texts[8:]}.items():
        write_rows(tmp_path / f"{name}{suffix}", rows_of(*rows))
    corpus = open_texts(tmp_path)
    slices = corpus.plan_slices()
    assert [slice_.index for slice_ in slices] == list(range(len(slices)))
    if slice_bytes != 200:
        assert (len(slices) > 1) == (slice_bytes == 1)
    assert read_corpus(corpus).texts == texts
    for limit in (1, 2, 6, 7, 8, 9, 12, 16, 17, 18, 1000):
        assert read_corpus(corpus, limit=limit).texts == texts[:limit]


@pytest.mark.parametrize("size", [1, 100, 2**24])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_numbered_by_file_however_a_file_is_cut(
    tmp_path, write_rows, read_corpus, monkeypatch, suffix, size
):
    monkeypatch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", size)
    monkeypatch.setattr(preparation, "READ_CHUNK_BYTES", size)
    for name in "ab":
        write_rows(tmp_path / f"{name}{suffix}", rows_of(*(f"{name} {row}" for row in range(9))))
    corpus = open_texts(tmp_path, keep=("__row__",))
    for limit in (None, 5, 12):
        assert read_corpus(corpus, limit=limit).kept == {"__row__": [*range(9), *range(9)][:limit]}


def test_slices_gather_small_parts_and_hold_no_more_than_their_size(tmp_path, write_rows):
    for number in range(10):
        write_rows(tmp_path / f"{number}.jsonl", rows_of("x" * 87))  # 100 bytes a file
    corpus = open_texts(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastformers.cluster.corpus.slices, "MAX_SLICE_BYTES", 300)
        slices = corpus.plan_slices()
    assert [len(slice_.pieces) for slice_ in slices] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("text_bytes", "slice_bytes"),
    [(100, 2**20), (2**26, 2**20), (2**28, 2**22), (2**30, 2**24), (2**40, 2**24)],
)
def test_a_small_corpus_has_small_slices_so_that_all_actors_start_at_once(
    tmp_path, write_rows, text_bytes, slice_bytes
):
    write_rows(tmp_path / "a.jsonl", rows_of("text"))
    corpus = open_texts(tmp_path)
    [file] = corpus.files
    size = text_bytes // corpus.reader.expansion
    files = (dataclasses.replace(file, size_bytes=size),)
    corpus = dataclasses.replace(corpus, files=files)
    assert corpus.slice_bytes == slice_bytes


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_missing_column_lists_those_there_are(tmp_path, write_rows, suffix):
    write_rows(tmp_path / f"a{suffix}", [{"body": "text", "id": 1}])
    with pytest.raises(InputError, match=r"no column 'text' \(--text-column.*it has body, id$"):
        open_texts(tmp_path)
    with pytest.raises(InputError, match=r"no column 'title' \(--text-.*it has body, id$"):
        open_texts(tmp_path, text=("body", "title"))
    with pytest.raises(InputError, match=r"no column 'key' \(--keep-columns\); it has body, id$"):
        open_texts(tmp_path, text=("body",), keep=("id", "key"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_column_missing_in_a_later_file_names_the_file(tmp_path, write_rows, suffix):
    write_rows(tmp_path / f"a{suffix}", rows_of("text"))
    write_rows(tmp_path / f"b{suffix}", [{"body": "text"}])
    with pytest.raises(InputError, match=rf"b\{suffix}: no column 'text'"):
        open_texts(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "value", "kind"),
    [
        (".parquet", 3, "int64"),
        (".parquet", b"text", "binary"),
        (".parquet", ["text"], "list"),
        (".jsonl", 3, "int"),
        (".jsonl", ["text"], "list"),
        (".jsonl", {"en": "text"}, "dict"),
    ],
)
def test_a_text_column_of_another_type_is_refused(tmp_path, write_rows, suffix, value, kind):
    write_rows(tmp_path / f"a{suffix}", rows_of(value, value))
    with pytest.raises(InputError, match=rf"column 'text' holds {kind}.*not text"):
        open_texts(tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), "str")])
def test_text_in_any_of_arrows_types(tmp_path, read_corpus, kind):
    path = tmp_path / "a.parquet"
    texts = ["one", "two", "one", "three"]
    table = pa.table({"text": pa.array(texts).cast(kind)})
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    assert read_corpus(open_texts(path)).texts == texts


@pytest.mark.parametrize("role", ["text", "keep"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_column_that_is_there_twice_is_refused(tmp_path, suffix, role):
    columns = ["text", "text", "k"] if role == "text" else ["text", "k", "k"]
    if suffix == ".csv":
        (tmp_path / "a.csv").write_text(f"{','.join(columns)}\na,b,c\n")
    else:
        table = pa.Table.from_arrays([pa.array(["a"])] * 3, columns)
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a\{suffix}.*'{columns[1]}'"):
        open_texts(tmp_path, keep=("k",))


def test_kept_columns_take_a_type_that_holds_what_all_opened_files_hold(
    tmp_path, write_rows, read_corpus
):
    write_rows(tmp_path / "a.jsonl", [{"text": "one", "id": 1, "n": 1}])
    write_rows(tmp_path / "b.jsonl", [{"text": "two", "id": "1", "n": 0.5}])
    write_rows(tmp_path / "c.jsonl", [{"text": "three", "n": None}])
    read = read_corpus(open_texts(tmp_path, keep=("id", "n")))
    assert read.kept == {"id": ["1", "1", None], "n": [1.0, 0.5, None]}
    assert (read.errors, read.unfit) == ({}, {})


def test_kept_columns_may_differ_in_whether_they_are_nullable(tmp_path, read_corpus):
    for name, nullable in (("a", False), ("b", True)):
        schema = pa.schema([("text", pa.string()), pa.field("id", pa.int64(), nullable=nullable)])
        table = pa.table([[name], [1]], schema=schema)
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert read_corpus(open_texts(tmp_path, keep=("id",))).kept == {"id": [1, 1]}
