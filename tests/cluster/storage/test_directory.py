import errno
import pickle
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastformers.cluster.storage.directory
from fastformers.cluster.storage.directory import TEMPORARY_SUFFIX, open_directory
from fastformers.cluster.storage.filesystems import resolve
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import InputError, StorageError
from tests.cluster.no_rights import no_rights

REPOSITORY = Path(__file__).parents[3]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def directory(tmp_path):
    home = open_directory(str(tmp_path / "out"))
    home.create()
    return home


def names(directory):
    """All that is there, hidden files included."""
    return sorted(path.name for path in Path(directory.path).iterdir())


@pytest.fixture
def bucket(s3_server):
    return open_directory(f"{s3_server.uri}/out", StorageOptions(s3_server.storage_options))


def test_a_file_is_invisible_until_it_is_complete(directory):
    with directory.write("a.bin") as file:
        file.write(b"half")
        file.flush()
        assert not (Path(directory.path) / "a.bin").exists()
        file.write(b" and half")
    assert (Path(directory.path) / "a.bin").read_bytes() == b"half and half"
    assert names(directory) == ["a.bin"]


def test_the_old_file_stays_until_the_new_one_is_complete(directory):
    directory.write_json("a.json", "old")
    with directory.write("a.json") as file:
        file.write(b'"new"')
        file.flush()
        assert directory.read_json("a.json") == "old"
    assert directory.read_json("a.json") == "new"


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (RuntimeError("boom"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.EIO, "Input/output error"), StorageError),
    ],
)
def test_nothing_is_left_of_a_write_that_failed(directory, raised, seen):
    directory.write_json("a.json", "old")
    with pytest.raises(seen), directory.write("a.json") as file:
        file.write(b"half")
        raise raised
    assert names(directory) == ["a.json"]
    assert directory.read_json("a.json") == "old"


@pytest.mark.parametrize("raised", [RuntimeError("boom"), KeyboardInterrupt()])
def test_nothing_is_left_of_an_upload_that_failed(bucket, raised):
    bucket.create()
    with pytest.raises(type(raised)), bucket.write("a.bin") as file:
        file.write(b"half")
        raise raised
    assert bucket.list_files() == []


def test_an_upload_arrives_whole(bucket):
    bucket.create()
    bucket.write_json("a.json", {"rows": 3})
    table = pa.table({"k": [1, 2]})
    with bucket.write("t.parquet") as file:
        pyarrow.parquet.write_table(table, file)
    assert bucket.read_json("a.json") == {"rows": 3}
    assert bucket.list_files() == ["a.json", "t.parquet"]
    with bucket.open_input("t.parquet") as file:
        assert pyarrow.parquet.read_table(file).equals(table)


def test_what_a_killed_writer_left_is_deleted_and_nothing_else(directory):
    directory.write_json("kept.json", 1)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\n"
            "from fastformers.cluster.storage.directory import open_directory\n"
            "with open_directory(sys.argv[1]).write('part.parquet') as file:\n"
            "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n",
            directory.path,
        ],
        cwd=REPOSITORY,
    )
    assert killed.returncode == -9
    names = directory.list_files()
    assert len(names) == 2
    assert "part.parquet" not in names
    assert any(name.endswith(TEMPORARY_SUFFIX) for name in names)

    directory.delete_leftovers()
    assert directory.list_files() == ["kept.json"]


def test_deleting_leftovers_of_a_directory_that_is_not_there(tmp_path):
    open_directory(str(tmp_path / "none")).delete_leftovers()
    assert not (tmp_path / "none").exists()


@pytest.fixture
def full_disk(directory, monkeypatch):
    """Whatever is written to the directory goes to /dev/full, which has no room."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    name = uuid.UUID(int=0)
    monkeypatch.setattr(fastformers.cluster.storage.directory.uuid, "uuid4", lambda: name)

    def expect(file_name):
        temporary = Path(directory.path) / f".{file_name}.{name.hex}{TEMPORARY_SUFFIX}"
        temporary.symlink_to("/dev/full")

    return expect


@pytest.mark.parametrize("num_bytes", [1, 100_000])  # fails when closed, fails when written
def test_a_full_disk_is_one_line_that_names_the_file(directory, full_disk, num_bytes):
    full_disk("a.bin")
    with pytest.raises(StorageError, match="disk full") as caught, directory.write("a.bin") as file:
        file.write(b"x" * num_bytes)
    assert str(caught.value).startswith(f"{directory.path}/a.bin: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert names(directory) == []


@pytest.mark.parametrize("num_rows", [1, 200_000])
def test_a_full_disk_under_a_parquet_file(directory, full_disk, num_rows):
    full_disk("a.parquet")
    table = pa.table({"k": list(range(num_rows))})
    with (
        pytest.raises(StorageError, match=r"a\.parquet: disk full"),
        directory.write("a.parquet") as file,
    ):
        pyarrow.parquet.write_table(table, file)
    assert names(directory) == []


@pytest.fixture
def locked():
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o555)
        yield open_directory(path)
        Path(path).chmod(0o755)


def test_a_directory_without_permission_is_refused_when_it_is_claimed(locked):
    with no_rights(), pytest.raises(StorageError, match="Permission denied") as caught:
        locked.create()
    assert str(caught.value).startswith(f"{locked.path}: ")


@pytest.mark.parametrize("act", ["write", "create"])
def test_no_permission_to_write(locked, act):
    with no_rights(), pytest.raises(StorageError, match="Permission denied") as caught:
        locked.write_json("a.json", 1) if act == "write" else locked.child("a.json").create()
    assert str(caught.value).startswith(f"{locked.path}/a.json: ")


def test_a_directory_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/out: cannot be written"):
        open_directory(str(tmp_path / "file" / "out")).create()


def test_writing_where_no_directory_is(tmp_path):
    with pytest.raises(StorageError, match=r"none/a\.json: cannot be written: No such file"):
        open_directory(str(tmp_path / "none")).write_json("a.json", 1)


@pytest.mark.parametrize("uri", ["foo://bucket/key", "http://host/file", "file://relative/path"])
def test_an_unknown_scheme_is_refused_in_one_line(uri):
    with pytest.raises(InputError, match=uri) as caught:
        resolve(uri)
    assert "\n" not in str(caught.value)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve("a/b")[1] == str(tmp_path / "a" / "b")
    assert resolve("~/b")[1] == "/home/someone/b"
    assert resolve(f"file://{tmp_path}/c")[1] == str(tmp_path / "c")
    assert open_directory("a/").path == str(tmp_path / "a")
    assert open_directory("/").path == "/"


def test_listing_is_sorted_and_of_files_only(directory):
    for name in ("b", "a", "c"):
        directory.write_json(name, 0)
    directory.child("d").create()
    directory.child("d").write_json("e", 0)
    assert directory.list_files() == ["a", "b", "c"]
    assert directory.child("none").list_files() == []


def test_only_a_directory_with_nothing_in_it_is_empty(directory):
    assert directory.is_empty()
    assert directory.child("none").is_empty()
    directory.child("sub").create()
    assert not directory.is_empty()


def test_a_missing_json_file_is_none(directory, tmp_path):
    (tmp_path / "file").write_text("")
    assert directory.read_json("none.json") is None
    assert directory.child("none").read_json("none.json") is None
    assert open_directory(str(tmp_path / "file")).read_json("none.json") is None


@settings(deadline=None)
@given(json_values)
def test_json_comes_back(value):
    with tempfile.TemporaryDirectory() as path:
        directory = pickle.loads(pickle.dumps(open_directory(path)))
        directory.write_json("a.json", value)
        assert directory.read_json("a.json") == value


def test_a_directory_that_can_be_written_to_is_not_made(tmp_path):
    path = tmp_path / "a" / "out"
    open_directory(str(path)).check_writable()
    assert not path.parent.exists()
    (tmp_path / "a").write_text("x")
    with pytest.raises(StorageError, match="a/out: cannot be written: Not a directory"):
        open_directory(str(path)).check_writable()


def test_a_bucket_that_can_be_written_to_is_left_as_it_is(bucket):
    bucket.check_writable()
    assert bucket.list_files() == []
