import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fastformers.cache import CACHE_VARIABLE
from fastformers.cluster.delivery.bundle_delivery import deliver_bundle, find_bundle, pin_bundle
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import BundleError, StorageError
from fastformers.inference.bundle import open_bundle, write_bundle

REPOSITORY = Path(__file__).parents[3]
MONTH_S = 31 * 24 * 3600
MINE = "mine"


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """The bundles in the cache of this host, which is empty."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


@pytest.fixture
def other_host(tmp_path, monkeypatch):
    """Goes to another host, whose cache is empty."""

    def go(name="other"):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / name))
        return tmp_path / name / "bundles"

    return go


@pytest.fixture
def source(bundle, tmp_path):
    """A bundle of the user's own, which may change."""
    return Path(shutil.copytree(bundle.path, tmp_path / MINE))


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """Puts the files of a directory into a bucket; returns their URI."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)

    def upload(path):
        uri = f"{s3_server.uri}/{MINE}"
        target = open_directory(uri)
        for file in path.iterdir():
            with target.write(file.name) as written:
                written.write(file.read_bytes())
        return uri

    return upload


def replace_bundle(bundle, path, **changes):
    """Write another bundle over the one at a path."""
    return write_bundle(
        replace(bundle, path=path, labels=("black", "white"), **changes),
        model=bundle.model_path,
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def files_of(path):
    """Contents by name; the card is for people, and stays where it was."""
    return {f.name: f.read_bytes() for f in path.iterdir() if f.name != "README.md"}


def test_what_happens_at_the_path_later_changes_nothing(bundle, source, host):
    pinned = pin_bundle(source)
    replace_bundle(bundle, source)
    assert open_bundle(source).labels == ("black", "white")
    assert pinned.open() == replace(bundle, path=host / pinned.digest, source=str(source))
    shutil.rmtree(source)
    assert pinned.open().labels == bundle.labels
    assert str(pinned.open()) == str(source)


def test_only_the_files_of_the_bundle_are_copied_and_only_once(bundle, source, host):
    (source / "notes.txt").write_text("not of the bundle")
    pinned = pin_bundle(source)
    assert names(host) == [pinned.digest]
    assert files_of(pinned.path) == files_of(bundle.path)
    before = pinned.path.stat().st_ino
    assert pin_bundle(str(source)) == pinned
    assert pinned.path.stat().st_ino == before
    assert pinned.path.stat().st_mode & 0o777 == 0o755


def test_bundles_that_cut_a_corpus_otherwise_are_kept_apart(bundle, source, host):
    first = pin_bundle(source)
    profile = replace(bundle.cost_profile, seconds_per_row=(2e-4, 2e-3))
    write_bundle(
        replace(bundle, path=source, cost_profile=profile),
        model=bundle.model_path,
        tokenizer_json=(bundle.path / "tokenizer.json").read_text(),
    )
    second = pin_bundle(source)
    assert second.open().digest == first.open().digest
    assert second.digest != first.digest
    assert names(host) == sorted([first.digest, second.digest])


def test_a_bundle_that_is_damaged_at_its_path_is_refused_although_a_copy_is_there(source):
    pin_bundle(source)
    model = source / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{MINE}: model.onnx differs from its SHA-256"):
        pin_bundle(source)


def test_a_pinned_bundle_travels(source):
    pinned = pin_bundle(source)
    sent = pickle.dumps(pinned)
    assert len(sent) < 1000
    assert pickle.loads(sent) == pinned


def test_a_node_gets_the_packed_bundle_and_keeps_it(bundle, source, other_host):
    pinned = pin_bundle(source)
    packed = pinned.pack()
    there = other_host()
    path = deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=None)
    assert path == there / pinned.digest
    assert files_of(path) == files_of(bundle.path)
    assert names(there) == [pinned.digest]
    assert deliver_bundle(pinned.digest, fetch=None, bucket=None) == path


def test_a_node_with_no_way_to_the_bundle_says_so(other_host, source):
    digest = pin_bundle(source).digest
    other_host()
    with pytest.raises(BundleError, match=f"bundle {digest} is not on this host"):
        deliver_bundle(digest, fetch=None, bucket=None)


def test_a_fetch_that_fails_is_one_line(other_host, source):
    digest = pin_bundle(source).digest
    other_host()

    def fetch():
        raise ConnectionError("the object was lost\nwith a long story")

    with pytest.raises(BundleError, match="cannot be had: the object was lost") as caught:
        deliver_bundle(digest, fetch=fetch, bucket=None)
    assert "\n" not in str(caught.value)


def cut(packed):
    return packed[:-1]


def lengthen(packed):
    return packed + b"x"


def flip(packed):
    return packed[:-9] + bytes([packed[-9] ^ 1]) + packed[-8:]


def forget_header(packed):
    return packed.partition(b"\n")[2]


def rename(old, new):
    def change(packed):
        header, _, contents = packed.partition(b"\n")
        sizes = {new if name == old else name: n for name, n in json.loads(header).items()}
        return json.dumps(sizes).encode() + b"\n" + contents

    return change


def resize(packed):
    header, _, contents = packed.partition(b"\n")
    sizes = json.loads(header)
    sizes["tokenizer.json"] += sizes["model.onnx"] + 5
    sizes["model.onnx"] = -5
    return json.dumps(sizes).encode() + b"\n" + contents


@pytest.mark.parametrize(
    "change",
    [
        *(cut, lengthen, flip, forget_header, resize, lambda packed: b"", lambda packed: b"[]\n"),
        rename("model.onnx", "../../stolen"),
        rename("model.onnx", "/tmp/stolen"),
        rename("model.onnx", "unknown"),
        rename("bundle.json", "unknown"),
    ],
)
def test_bytes_that_are_not_the_bundle_are_refused(change, source, other_host, tmp_path):
    pinned = pin_bundle(source)
    packed = change(pinned.pack())
    there = other_host()
    before = sorted(path for path in tmp_path.rglob("*") if there.parent not in path.parents)
    with pytest.raises(BundleError, match="the driver's copy of the bundle") as caught:
        deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=None)
    assert "\n" not in str(caught.value)
    assert names(there) == []
    after = [path for path in tmp_path.rglob("*") if there.parent not in path.parents]
    assert sorted(after) == sorted([*before, there.parent])


def test_another_bundle_is_not_taken_for_it(bundle, source, other_host):
    digest = pin_bundle(source).digest
    replace_bundle(bundle, source)
    other = pin_bundle(source).pack()
    there = other_host()
    with pytest.raises(BundleError, match=f"holds another bundle .* than the run's .{digest[:12]}"):
        deliver_bundle(digest, fetch=lambda: other, bucket=None)
    assert names(there) == []


def test_a_bundle_of_a_bucket_is_read_there_by_every_node(bundle, bucket, other_host):
    uri = bucket(bundle.path)
    pinned = pin_bundle(uri)
    assert pinned.source == uri
    assert str(pinned.open()) == uri
    there = other_host()
    path = deliver_bundle(pinned.digest, fetch=None, bucket=pinned.bucket)
    assert path == there / pinned.digest
    assert files_of(path) == files_of(bundle.path)


def test_of_a_bundle_that_is_in_the_cache_only_the_manifest_is_read(bundle, bucket, s3_server):
    pinned = pin_bundle(bundle.path)
    uri = bucket(bundle.path)
    s3_server.forget()
    assert pin_bundle(uri).path == pinned.path
    assert s3_server.count("GET", "bundle.json") > 0
    assert s3_server.count("GET") == s3_server.count("GET", "bundle.json")


def test_a_bundle_replaced_in_its_bucket_is_not_taken(bundle, source, bucket, other_host):
    uri = bucket(source)
    pinned = pin_bundle(uri)
    packed = pinned.pack()
    replace_bundle(bundle, source)
    bucket(source)
    other_host()
    with pytest.raises(BundleError, match=f"{uri}: holds another bundle .* after the run began"):
        deliver_bundle(pinned.digest, fetch=None, bucket=pinned.bucket)
    path = deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=pinned.bucket)
    assert open_bundle(path).labels == bundle.labels


def test_the_bucket_is_asked_only_if_the_driver_cannot_be(bundle, bucket, s3_server, other_host):
    pinned = pin_bundle(bucket(bundle.path))
    packed = pinned.pack()
    s3_server.forget()
    other_host("second")
    deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=pinned.bucket)
    assert s3_server.count() == 0

    def fetch():
        raise ConnectionError("object lost")

    there = other_host("third")
    path = deliver_bundle(pinned.digest, fetch=fetch, bucket=pinned.bucket)
    assert path == there / pinned.digest
    assert s3_server.count("GET", "bundle.json") > 0


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("bundle.json", r"not a bundle \(no bundle.json\)"),
        ("model.onnx.data", "model.onnx.data is missing"),
    ],
)
def test_a_bucket_without_the_bundle(source, bucket, lost, message):
    (source / lost).unlink()
    uri = bucket(source)
    with pytest.raises(BundleError, match=f"{uri}: {message}"):
        pin_bundle(uri)


def test_a_bucket_that_refuses_is_one_line(bundle, bucket, s3_server, other_host):
    uri = bucket(bundle.path)
    pinned = pin_bundle(uri)
    packed = cut(pinned.pack())
    other_host()
    s3_server.is_denied = True
    with pytest.raises(StorageError, match=rf"{uri}/bundle\.json: access denied") as caught:
        pin_bundle(uri)
    assert "\n" not in str(caught.value)
    both = rf"the driver's copy of the bundle: damaged .*; {uri}/bundle\.json: access denied"
    with pytest.raises(BundleError, match=both) as caught:
        deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=pinned.bucket)
    assert "\n" not in str(caught.value)


def test_options_reach_the_bucket_of_a_bundle(bundle, s3_server, tmp_path, monkeypatch):
    options = StorageOptions(s3_server.storage_options)
    uri = f"{s3_server.uri}/mine"
    for file in bundle.path.iterdir():
        with open_directory(uri, options).write(file.name) as written:
            written.write(file.read_bytes())
    pinned = pickle.loads(pickle.dumps(pin_bundle(uri, options)))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "node"))
    assert pinned.deliver(None).open().digest == bundle.digest
    assert "test-secret-key" not in f"{pinned!r} {pinned.bucket}"


def test_a_damaged_copy_is_made_again(source, caplog):
    pinned = pin_bundle(source)
    packed = pinned.pack()
    (pinned.path / "model.onnx").write_bytes(b"rot")
    with caplog.at_level(logging.WARNING), pytest.raises(BundleError, match="not on this host"):
        deliver_bundle(pinned.digest, fetch=None, bucket=None)
    assert "damaged; it is made again" in caplog.text
    assert deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=None) == pinned.path
    (pinned.path / "tokenizer.json").unlink()
    assert pin_bundle(source) == pinned
    assert pinned.open().digest == open_bundle(source).digest


def test_a_full_disk_is_one_line_and_leaves_nothing(source, host, monkeypatch):
    def fill_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(BundleError, match=f"disk full; free space, or set {CACHE_VARIABLE}"):
        pin_bundle(source)
    assert names(host) == []


def test_a_cache_that_cannot_be_made_names_the_variable(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(BundleError, match=f"cannot be written .* set {CACHE_VARIABLE} to"):
        pin_bundle(source)


def test_those_who_pin_at_once_share_one_copy(source, host):
    together = threading.Barrier(8)

    def pin(_):
        together.wait()
        return pin_bundle(source).path

    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(pin, range(8)))
    assert len(paths) == 1
    assert names(host) == [paths.pop().name]


def age(path):
    then = time.time() - MONTH_S
    os.utime(path, (then, then))


HOLD = """
import sys
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
pin_bundle(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def hold_in_another_process(source):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_bundle_is_removed_when_no_process_has_used_it_for_a_month(
    bundle, source, host, tmp_path
):
    held = hold_in_another_process(source)
    try:
        [entry] = host.iterdir()
        age(entry)
        young = replace_bundle(bundle, tmp_path / "young")
        pin_bundle(young.path)
        assert entry.name in names(host)
    finally:
        held.send_signal(signal.SIGKILL)
        held.communicate()
    pin_bundle(replace_bundle(bundle, tmp_path / "younger", max_length=32).path)
    assert entry.name not in names(host)
    assert young.manifest_digest in names(host)
    assert len(names(host)) == 2


def test_use_makes_a_bundle_young_again(bundle, source, host, tmp_path):
    hold_in_another_process(source).communicate()
    [entry] = host.iterdir()
    age(entry)
    hold_in_another_process(source).communicate()
    pin_bundle(replace_bundle(bundle, tmp_path / "new").path)
    assert entry.name in names(host)


def test_what_a_killed_process_left_half_made_goes_with_time(bundle, source, host):
    left = host / ".incomplete-killed"
    (left / "digest").mkdir(parents=True)
    (left / "digest" / "model.onnx").write_text("half")
    pin_bundle(source)
    assert left.name in names(host)
    age(left)
    pin_bundle(replace_bundle(bundle, source).path)
    assert left.name not in names(host)


def test_a_removed_bundle_is_brought_again(source, host):
    pinned = pin_bundle(source)
    packed = pinned.pack()
    shutil.rmtree(host / pinned.digest)
    assert find_bundle(pinned.digest) is None
    assert deliver_bundle(pinned.digest, fetch=lambda: packed, bucket=None) == pinned.path
    assert find_bundle(pinned.digest) == pinned.path
