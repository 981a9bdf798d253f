import json
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow.fs
import pytest

from fastformers.cluster.storage.filesystems import Store, connect, resolve
from fastformers.cluster.storage.options import NO_OPTIONS, StorageOptions
from fastformers.errors import InputError, StorageError

REPOSITORY = Path(__file__).parents[3]
HIDDEN = StorageOptions({"secret_key": "hidden", "access_key": "hidden"})


@pytest.mark.parametrize(
    ("uri", "store", "path"),
    [
        ("s3://b", Store("s3", "b"), "b"),
        ("s3://b/", Store("s3", "b"), "b"),
        ("s3://b/a/c/", Store("s3", "b"), "b/a/c"),
        ("s3://b/a%20b", Store("s3", "b"), "b/a b"),
        ("s3://b/part-?.parquet", Store("s3", "b"), "b/part-?.parquet"),
        ("s3://b/**/*.csv", Store("s3", "b"), "b/**/*.csv"),
        ("gs://b/a", Store("gs", "b"), "b/a"),
        ("gcs://b/a", Store("gs", "b"), "b/a"),
        ("abfs://c/a", Store("abfs", "c"), "c/a"),
        ("abfss://c/a", Store("abfs", "c"), "c/a"),
        (
            "s3://b/a?region=eu-west-1&anonymous=true",
            Store("s3", "b", StorageOptions({"region": "eu-west-1", "anonymous": True})),
            "b/a",
        ),
        (
            "abfs://c@me.dfs.core.windows.net/a",
            Store("abfs", "c", StorageOptions({"account_name": "me"})),
            "c/a",
        ),
        ("gs://anonymous@b/a", Store("gs", "b", StorageOptions({"anonymous": True})), "b/a"),
        ("file:///a/b", Store("file"), "/a/b"),
    ],
)
def test_a_uri_is_a_store_and_a_path(uri, store, path):
    assert connect(uri) == (store, path)


def test_options_of_a_uri_are_its_own_and_come_before_those_of_the_command():
    options = StorageOptions({"region": "us-east-1", "access_key": "k"})
    store, _ = connect("s3://b/a?region=eu-west-1", options)
    assert store.options == StorageOptions({"region": "eu-west-1", "access_key": "k"})
    assert connect("s3://b/a", options)[0].options == options
    assert connect("/a", options)[0] == Store("file")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://KEY:hidden@b/a", r"s3://\*\*\*@b/a: credentials in a URI would be shown"),
        ("s3://KEY:hid/den+=@b/a", r"s3://\*\*\*@b/a: credentials in a URI would be shown"),
        ("s3://hidden@b/a", "credentials in a URI would be shown"),
        ("abfs://c:hidden@me.dfs.core.windows.net/a", "credentials in a URI would be shown"),
        ("s3://b/a?secret_key=hidden", r"s3://b/a\?\*\*\*: give credentials by"),
        ("s3://b/a?session_token=hidden", "give credentials by"),
        ("abfs://c/a?account_key=hidden", "give credentials by"),
        ("s3://b/a?colour=red", "s3:// has no option 'colour'"),
        ("gs://b/a?region=x", "gs:// has no option 'region'"),
        ("s3://b/a?scheme=ftp", "scheme must be http or https"),
        ("s3:///a", "names no bucket"),
        ("hdfs://host/a", "unknown scheme; give a path, s3://, gs:// or abfs://"),
        ("https://me:hidden@host/a", "unknown scheme"),
        ("file://relative/a", "begins with /"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_its_secrets(uri, reason):
    with pytest.raises(InputError, match=reason) as caught:
        connect(uri)
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_shows_no_secret():
    store, _ = connect("s3://b/a", HIDDEN)
    service = store.service
    assert "hidden" not in f"{store!r} {store} {service!r} {store.filesystem.handler!r}"


def test_a_store_travels_by_its_name_and_says_nothing_where_it_arrives():
    store, _ = connect("s3://b/a", HIDDEN)
    arrived = pickle.loads(pickle.dumps(store))
    assert arrived == store
    assert hash(arrived) == hash(store)
    assert arrived.options.of_scheme("s3") == HIDDEN.of_scheme("s3")
    assert (store.service.tells, store.service.has_answered) == (True, False)
    assert (arrived.service.tells, arrived.service.has_answered) == (False, True)


def test_a_filesystem_travels_as_its_store(s3_server):
    filesystem, path = resolve(f"{s3_server.uri}/a", StorageOptions(s3_server.storage_options))
    arrived = pickle.loads(pickle.dumps(filesystem))
    assert arrived == filesystem
    assert arrived != resolve("s3://other/a")[0]
    assert arrived.get_file_info(path).type == pyarrow.fs.FileType.NotFound


def test_a_client_is_made_once_and_when_it_is_needed(s3_server, monkeypatch):
    made = []
    build = pyarrow.fs.S3FileSystem

    def make(**given):
        made.append(given)
        return build(**given)

    monkeypatch.setattr(pyarrow.fs, "S3FileSystem", make)
    options = StorageOptions(s3_server.storage_options)
    filesystem, path = resolve(f"{s3_server.uri}/a", options)
    copies = [pickle.loads(pickle.dumps(filesystem)) for _ in range(3)]
    assert made == []
    for copy in copies:
        copy.get_file_info(path)
    [given] = made
    assert given["allow_delayed_open"] is True
    assert given["endpoint_override"] == s3_server.endpoint.removeprefix("http://")
    assert given["scheme"] == "http"
    assert given["retry_strategy"].max_attempts > 1


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_environment_says_where_a_bucket_is(s3_server, monkeypatch, variable):
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, s3_server.endpoint)
    filesystem, path = resolve(s3_server.uri)
    assert filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory


def test_options_come_before_the_environment(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    filesystem, path = resolve(s3_server.uri, StorageOptions(s3_server.storage_options))
    assert filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory


def test_a_wrong_endpoint_is_refused_at_once(s3_server):
    options = StorageOptions({**s3_server.storage_options, "endpoint_override": "127.0.0.1:9"})
    filesystem, path = resolve(s3_server.uri, options)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        filesystem.get_file_info(path)
    assert "secret" not in str(caught.value)


def test_options_that_exclude_each_other_are_one_line():
    store, _ = connect("s3://b", StorageOptions({"access_key": "hidden", "region": "x"}))
    with pytest.raises(InputError, match=r"s3://b: .*secret_key.* \(--storage-options\)") as caught:
        _ = store.client
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "options", "kind"),
    [
        ("gs://b/a", {"anonymous": True}, "gcs"),
        ("gs://b/a", {"anonymous": True, "endpoint_override": "http://127.0.0.1:9"}, "gcs"),
        ("abfs://c/a", {"account_name": "me", "account_key": "aGlkZGVu"}, "abfs"),
        ("abfs://c@me.dfs.core.windows.net/a", {"sas_token": "?sv=1&sig=2"}, "abfs"),
        (
            "abfs://c/a",
            {"account_name": "me", "account_key": "aGlkZGVu", "endpoint_override": "http://h:1"},
            "abfs",
        ),
    ],
)
def test_clients_of_the_other_clouds_are_made(uri, options, kind):
    store, _ = connect(uri, StorageOptions(options))
    assert store.client.type_name == kind
    assert store.uri_of(f"{store.bucket}/a").startswith(uri.partition("://")[0])


def test_azure_takes_its_account_from_the_environment(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    store, _ = connect("abfs://c1/a", NO_OPTIONS)
    with pytest.raises(InputError, match="abfs://c1: no account: give account_name"):
        _ = store.client
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "me")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "aGlkZGVu")
    assert store.client.type_name == "abfs"


def test_a_process_that_used_a_bucket_ends_cleanly(s3_server):
    code = (
        "import sys, json\n"
        "from fastformers.cluster.storage.directory import open_directory\n"
        "from fastformers.cluster.storage.options import parse_storage_options\n"
        "directory = open_directory(sys.argv[1], parse_storage_options(sys.argv[2]))\n"
        "directory.write_json('a.json', 1)\n"
        "contents = directory.map_files(['a.json'] * 9, directory.read_bytes)\n"
        "print(directory.read_json('a.json'), list(contents)[-1])\n"
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            code,
            s3_server.uri,
            json.dumps(s3_server.storage_options),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1 b'1'\n", "")
