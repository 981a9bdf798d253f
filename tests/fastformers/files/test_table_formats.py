import json
import sys

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet
import pytest

from fastformers.errors import InputError
from fastformers.files.listing import list_files


def listing(path):
    return list_files(pyarrow.fs.LocalFileSystem(), str(path), str(path), (".parquet",)).files


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), path)


@pytest.fixture
def make_delta(tmp_path):
    """Makes a table of Delta Lake of one current file and one that was replaced."""

    def make(*, reader_features=None, configuration=None):
        table = tmp_path / "a table"
        put(table / "lang=d%25e" / "new #1.parquet")
        put(table / "lang=d%25e" / "old.parquet")
        protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
        if reader_features is not None:
            protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
            protocol |= {"readerFeatures": reader_features, "writerFeatures": reader_features}
        fields = [
            {
                "name": name,
                "type": "string",
                "nullable": True,
                "metadata": {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": f"column-{number}",
                }
                if configuration
                else {},
            }
            for number, name in enumerate(("text", "lang"), 1)
        ]
        add = {
            "partitionValues": {} if configuration else {"lang": "d%e"},
            "modificationTime": 1,
            "dataChange": True,
            "size": 400,
        }
        metadata = {
            "id": "0",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": [] if configuration else ["lang"],
            "configuration": configuration or {},
        }
        commits = [
            [
                {"protocol": protocol},
                {"metaData": metadata},
                {"add": {**add, "path": "lang=d%2525e/old.parquet"}},
            ],
            [
                {"remove": {"path": "lang=d%2525e/old.parquet", "dataChange": True}},
                {"add": {**add, "path": "lang=d%2525e/new%20%231.parquet"}},
            ],
        ]
        (table / "_delta_log").mkdir()
        for number, actions in enumerate(commits):
            lines = "\n".join(map(json.dumps, actions))
            (table / "_delta_log" / f"{number:020d}.json").write_text(lines)
        return table

    return make


@pytest.mark.parametrize("features", [None, ["deletionVectors", "timestampNtz"]])
def test_the_current_files_of_a_delta_table_are_those_of_its_log(make_delta, features):
    pytest.importorskip("deltalake")
    table = make_delta(reader_features=features)
    [file] = listing(table)
    assert file.path == f"{table}/lang=d%25e/new #1.parquet"
    assert file.size_bytes > 0


def test_a_delta_table_whose_columns_have_other_names_in_its_files_is_refused(make_delta):
    pytest.importorskip("deltalake")
    table = make_delta(
        reader_features=["columnMapping"], configuration={"delta.columnMapping.mode": "name"}
    )
    with pytest.raises(InputError, match=r"a table: .*columnMapping.*write its current rows"):
        listing(table)


def test_a_log_that_cannot_be_read_is_one_line(make_delta):
    pytest.importorskip("deltalake")
    table = make_delta()
    (table / "_delta_log" / f"{0:020d}.json").write_text("not JSON")
    with pytest.raises(InputError, match="the log of the table cannot be read") as caught:
        listing(table)
    assert "\n" not in str(caught.value)


def test_a_delta_table_is_refused_by_name_without_its_library(make_delta, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InputError, match=r"is a table of Delta Lake.*\[tables\]"):
        listing(make_delta())


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v3.metadata.json", "Iceberg"),
        ("metadata/00001-abc.metadata.json", "Iceberg"),
    ],
)
def test_other_tables_are_refused_by_name(tmp_path, log, kind):
    put(tmp_path / "data" / "a.parquet")
    (tmp_path / log).parent.mkdir(exist_ok=True)
    (tmp_path / log).write_text("{}")
    with pytest.raises(InputError, match=f"is a table of {kind}.*write its current rows"):
        listing(tmp_path)


@pytest.mark.parametrize("inside", ["", "*", "lang=d%25e", "lang=d%25e/*.parquet"])
def test_a_table_is_noticed_from_above_and_from_inside(make_delta, inside):
    table = make_delta()
    place = table / inside if inside else table.parent
    with pytest.raises(InputError, match=f"{table} is a table of Delta Lake.*directory alone"):
        listing(place)


def test_a_directory_that_is_called_metadata_makes_no_table(tmp_path):
    put(tmp_path / "a.parquet")
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "notes.json").write_text("{}")
    assert len(listing(tmp_path)) == 1
