"""Files of a bucket that fails, read through pyarrow as the readers of a corpus do."""

import gzip
import io
import pickle

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet
import pytest

from fastformers.cluster.storage import filesystems
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.filesystems import connect
from fastformers.cluster.storage.options import StorageOptions
from fastformers.cluster.storage.patient import PatientFile
from fastformers.cluster.storage.retries import Waiting

TABLE = pa.table({"n": list(range(50_000)), "text": [f"row {n}" for n in range(50_000)]})


@pytest.fixture
def store(s3_server, monkeypatch):
    """A bucket that is not waited for between two attempts."""
    monkeypatch.setattr(filesystems, "CLIENT_ATTEMPTS", 1)
    store, _ = connect(s3_server.uri, StorageOptions(s3_server.storage_options))
    store.service.waiting = Waiting(sleep=lambda seconds: None)
    return store


@pytest.fixture
def directory(s3_server, store):
    return open_directory(s3_server.uri, store.options)


@pytest.fixture
def parquet(directory):
    """Path of a Parquet file of several row groups."""
    with directory.write("t.parquet") as file:
        pyarrow.parquet.write_table(TABLE, file, row_group_size=5_000)
    return f"{directory.path}/t.parquet"


def test_a_parquet_file_is_read_whatever_fails_midway(s3_server, store, parquet):
    filesystem = pickle.loads(pickle.dumps(store.filesystem))
    with pyarrow.parquet.ParquetFile(parquet, filesystem=filesystem) as file:
        parts = []
        for group in range(file.metadata.num_row_groups):
            s3_server.fail(0.5, seed=group)
            parts.append(file.read_row_group(group))
    assert pa.concat_tables(parts).equals(TABLE)
    assert any(request.fault for request in s3_server.requests)


def test_a_file_moves_as_any_other(store, parquet):
    whole = io.BytesIO()
    pyarrow.parquet.write_table(TABLE, whole, row_group_size=5_000)
    content = whole.getvalue()
    with PatientFile(store, parquet) as file:
        assert file.read(4) == b"PAR1"
        assert file.seek(-4, io.SEEK_END) == len(content) - 4
        assert file.read() == b"PAR1"
        assert file.read(10) == b""
        assert file.seek(100) == file.tell() == 100
        assert file.seek(5, io.SEEK_CUR) == 105
        assert file.read(50) == content[105:155]
        target = bytearray(20)
        assert file.readinto(target) == 20
        assert bytes(target) == content[155:175]
        file.seek(len(content) - 3)
        assert file.readinto(target) == 3
        assert file.readinto(target) == 0
    assert file.closed


def test_a_stream_reads_far_ahead(s3_server, store, directory):
    text = "n,text\n" + "".join(f"{n},{'x' * 90}\n" for n in range(100_000))
    for name, content in (("a.csv", text.encode()), ("a.csv.gz", gzip.compress(text.encode()))):
        with directory.write(name) as file:
            file.write(content)
        s3_server.forget()
        with store.filesystem.open_input_stream(f"{directory.path}/{name}") as file:
            assert pyarrow.csv.read_csv(file).num_rows == 100_000
        assert s3_server.count("GET") <= 1 + len(content) // 2**22 + 1


def test_a_stream_waits_too(s3_server, store, directory):
    with directory.write("a") as file:
        file.write(b"x" * 10_000_000)
    s3_server.fail(0.5, seed=4)
    with store.filesystem.open_input_stream(f"{directory.path}/a") as file:
        assert file.read() == b"x" * 10_000_000
    assert any(request.fault for request in s3_server.requests)


def test_what_is_not_there_is_said_so(store):
    with pytest.raises(FileNotFoundError):
        store.filesystem.open_input_file(f"{store.bucket}/none")
    with pytest.raises(FileNotFoundError):
        store.filesystem.copy_file(f"{store.bucket}/none", f"{store.bucket}/b")
    with pytest.raises(FileNotFoundError):
        store.filesystem.delete_file(f"{store.bucket}/none")
    info = store.filesystem.get_file_info(f"{store.bucket}/none")
    assert info.type == pyarrow.fs.FileType.NotFound


def test_a_file_that_is_gone_although_the_answer_was_lost_is_deleted(s3_server, store, directory):
    s3_server.only = ("DELETE",)
    for number in range(8):  # of half of the names, the request is served before it is reset
        directory.write_json(f"{number}.json", 1)
        s3_server.fail(1.0, faults=("reset",))
        store.service.waiting = Waiting(sleep=lambda seconds: s3_server.fail(0.0))
        store.filesystem.delete_file(f"{directory.path}/{number}.json")
    assert directory.list_files() == []
    answered = [r.path for r in s3_server.requests if (r.method, r.status) == ("DELETE", 204)]
    assert 0 < len(answered) < 8


def test_whatever_changes_files_waits_too(s3_server, store, directory):
    s3_server.fail(0.4, seed=5)
    filesystem, home = store.filesystem, f"{directory.path}/d"
    filesystem.create_dir(home)
    with filesystem.open_output_stream(f"{home}/none") as file:
        file.write(b"")
    directory.child("d").write_json("a.json", 1)
    filesystem.copy_file(f"{home}/a.json", f"{home}/b.json")
    assert directory.child("d").list_files() == ["a.json", "b.json", "none"]
    filesystem.delete_file(f"{home}/a.json")
    filesystem.delete_dir_contents(home)
    assert directory.child("d").list_files() == []
    filesystem.delete_dir(home)
    assert directory.list_files() == []
