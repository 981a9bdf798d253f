import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastformers.cache import CACHE_VARIABLE
from fastformers.cluster.delivery import node_check
from fastformers.cluster.delivery.bundle_delivery import pin_bundle
from fastformers.cluster.delivery.node_check import (
    check_canary,
    check_host,
    check_node,
    digest_source,
    make_node_check,
    measure_free_memory,
    read_versions,
)
from fastformers.cluster.storage.directory import open_directory
from fastformers.cluster.storage.options import StorageOptions
from fastformers.errors import NodeUnfitError
from fastformers.inference.engine import OnnxEngine
from tests.cluster.no_rights import no_rights
from tests.needs import need_openvino

REPOSITORY = Path(__file__).parents[3]
GIB = 2**30


@pytest.fixture
def pinned(bundle):
    return pin_bundle(bundle.path)


@pytest.fixture
def request_(pinned, tmp_path):
    """What a driver asks for that scores into a directory."""
    output = open_directory(str(tmp_path / "out"))
    output.create()
    request = make_node_check(
        pinned, engine="onnxruntime", readable=(output,), writable=(output, output)
    )
    return pickle.loads(pickle.dumps(request))


@pytest.fixture
def other_host(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "other"))
    return tmp_path / "other" / "bundles"


def refusal(check, *arguments, **options):
    """The one line of a refusal."""
    with pytest.raises(NodeUnfitError) as caught:
        check(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert str(pickle.loads(pickle.dumps(caught.value))) == line
    return line


def with_versions(request, **changes):
    return replace(request, versions={**request.versions, **changes})


def test_a_node_like_the_driver_is_fit(request_, pinned, tmp_path):
    assert check_node(request_, fetch=None) == pinned
    assert list((tmp_path / "out").iterdir()) == []


def test_a_node_without_the_bundle_gets_it(request_, pinned, other_host):
    packed = pinned.pack()
    assert check_node(request_, fetch=lambda: packed).path == other_host / pinned.digest


def test_a_node_without_the_bundle_that_audits_gets_it_and_needs_room_for_both(
    pinned, bundle_factory, tmp_path, other_host, monkeypatch
):
    monkeypatch.undo()  # the driver's cache
    auditor = pin_bundle(bundle_factory(tmp_path / "auditor", num_layers=1).path)
    request = make_node_check(pinned, auditor=auditor, engine="onnxruntime")
    alone = make_node_check(pinned, engine="onnxruntime")
    files_bytes = sum(file.stat().st_size for file in auditor.path.iterdir())
    assert request.memory_bytes - alone.memory_bytes == 2 * files_bytes
    packed, packed_auditor = pinned.pack(), auditor.pack()
    monkeypatch.setenv(CACHE_VARIABLE, str(other_host.parent))
    needs = (request.disk_bytes + files_bytes) / 2**20
    with monkeypatch.context() as patch:
        patch.setattr(node_check.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
        assert f"the bundle needs {needs:,.0f}" in refusal(check_host, request)
    check_node(request, fetch=lambda: packed, fetch_auditor=lambda: packed_auditor)
    assert {path.name for path in other_host.iterdir()} == {pinned.digest, auditor.digest}
    wrong = replace(request, auditors_canary=request.canary)
    assert refusal(check_node, wrong, fetch=None).startswith("computes ")


def test_a_node_that_cannot_get_the_bundle_is_unfit(request_, other_host):
    def fetch():
        raise ConnectionError("object lost")

    assert refusal(check_node, request_, fetch=fetch) == (
        "the driver's copy of the bundle cannot be had: object lost"
    )


def test_a_run_that_only_prepares_loads_no_engine(pinned, monkeypatch):
    monkeypatch.setattr(OnnxEngine, "__init__", lambda *_, **__: pytest.fail("loads an engine"))
    request = make_node_check(pinned, engine=None)
    assert "onnxruntime" not in request.versions
    assert request.memory_bytes < make_memory_of_scoring(pinned, monkeypatch)
    assert check_node(request, fetch=None) == pinned


def make_memory_of_scoring(pinned, monkeypatch):
    monkeypatch.undo()
    return make_node_check(pinned, engine="onnxruntime").memory_bytes


@pytest.mark.parametrize(
    ("package", "theirs"),
    [
        ("onnxruntime", "1.30.0"),
        ("tokenizers", "0.1"),
        ("ray", "2.0.0"),
        ("Python", "3.8"),
        ("fastformers' source", "0123456789ab"),
        ("numpy", "1.26.4"),
        ("pyarrow", "1.0.0"),
    ],
)
def test_versions_that_may_change_a_prediction_are_refused(request_, package, theirs):
    here = read_versions("onnxruntime")[package]
    line = refusal(check_host, with_versions(request_, **{package: theirs}))
    assert line == (
        f"{package} {here} here, {theirs} in the driver (install the same wheels on all nodes)"
    )


def test_all_that_is_wrong_is_in_one_line(request_, tmp_path):
    request = with_versions(request_, onnxruntime="1.30.0", tokenizers="0.1")
    request = replace(
        request, memory_bytes=2**60, readable=(open_directory(str(tmp_path / "none")),)
    )
    line = refusal(check_host, request)
    versions, memory, directory = line.split("; ")
    assert ", tokenizers" in versions or ", onnxruntime" in versions
    assert memory.endswith(f"GiB of memory free, an actor needs about {2**30:.1f}")
    assert directory == f"cannot read {tmp_path}/none: No such file or directory"


@pytest.mark.parametrize("package", ["numpy", "pyarrow"])
def test_packages_that_only_carry_data_may_differ_a_little(request_, package):
    major = request_.versions[package].partition(".")[0]
    check_host(with_versions(request_, **{package: f"{major}.99.0"}))


def test_a_package_that_is_missing(request_, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    here = request_.versions["tokenizers"]
    assert refusal(check_host, request_).startswith(f"tokenizers missing here, {here} in the dr")


def test_the_engine_of_the_run_is_compared_and_no_other(pinned):
    need_openvino()
    versions = read_versions("openvino")
    assert "openvino" in versions
    assert "onnxruntime" not in versions
    request = replace(make_node_check(pinned, engine=None), versions={**versions, "openvino": "1"})
    assert refusal(check_host, request).startswith("openvino 20")


def test_another_line_of_the_source_is_another_version(tmp_path):
    def digest(root):
        script = (
            "from fastformers.cluster.delivery import node_check; print(node_check.digest_source())"
        )
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=True,
        ).stdout.strip()

    shutil.copytree(REPOSITORY / "fastformers", tmp_path / "copy" / "fastformers")
    assert digest(tmp_path / "copy") == digest_source()
    with (tmp_path / "copy/fastformers/cluster/settings.py").open("a") as file:
        file.write("# changed\n")
    assert digest(tmp_path / "copy") != digest_source()


def test_delivery_and_check_load_neither_ray_nor_an_engine_by_themselves():
    script = (
        "import sys\nimport fastformers.cluster.delivery.bundle_delivery\n"
        "import fastformers.cluster.delivery.node_check\n"
        "sys.exit(bool({'ray', 'onnxruntime'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_too_little_memory_names_both_numbers(request_, monkeypatch):
    monkeypatch.setattr(node_check, "measure_free_memory", lambda: int(0.3 * GIB))
    line = refusal(check_host, replace(request_, memory_bytes=int(0.6 * GIB)))
    assert line == "has 0.3 GiB of memory free, an actor needs about 0.6"
    check_host(replace(request_, memory_bytes=int(0.3 * GIB)))


def write_cgroup(root, path, *, limit, used, cached=0):
    group = root / "sys/fs/cgroup" / path
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_the_limit_of_a_container_counts(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/container\n")
    free = measure_free_memory(tmp_path)
    assert free > 2**20
    write_cgroup(tmp_path, "pod", limit=4000, used=1000)
    write_cgroup(tmp_path, "pod/container", limit="max", used=500)
    assert measure_free_memory(tmp_path) == 3000
    write_cgroup(tmp_path, "pod/container", limit=2000, used=1900, cached=700)
    assert measure_free_memory(tmp_path) == 800
    write_cgroup(tmp_path, "", limit=100, used=700)  # a container that sees its own group as root
    assert measure_free_memory(tmp_path) == 0


def test_the_disk_needs_room_for_the_bundle_only_where_it_is_not(request_, other_host, pinned):
    request = replace(request_, disk_bytes=2**60)
    line = refusal(check_host, request)
    assert line.startswith("has ")
    assert line.endswith(f"MiB free at {other_host}, the bundle needs 1,099,511,627,776")
    packed = pinned.pack()
    check_node(request_, fetch=lambda: packed)
    check_host(request)


def test_directories_without_permission(request_):
    with tempfile.TemporaryDirectory() as path:
        locked = open_directory(path)
        request = replace(request_, readable=(locked,), writable=(locked,))
        Path(path).chmod(0)
        with no_rights():
            line = refusal(check_host, request)
        Path(path).chmod(0o700)
    assert line.endswith(
        f"cannot read {path}: Permission denied; cannot write to {path}: Permission denied"
    )


def test_a_cache_that_this_user_cannot_see(request_, tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory() as path:
        monkeypatch.setenv(CACHE_VARIABLE, f"{path}/locked")
        Path(path).chmod(0)
        with no_rights():
            line = refusal(check_host, replace(request_, readable=(), writable=()))
        Path(path).chmod(0o700)
    assert line == (
        f"cannot use {path}/locked/bundles (Permission denied); set {CACHE_VARIABLE} to another "
        "directory"
    )


def test_a_filesystem_that_is_mounted_read_only(request_, tmp_path):
    mount = tmp_path / "mnt"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,ro", "tmpfs"]
    mounted = subprocess.run(["mount", *options, str(mount)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    try:
        request = replace(request_, writable=(open_directory(str(mount)),))
        assert refusal(check_host, request) == (f"cannot write to {mount}: Read-only file system")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.fixture
def bucket(s3_server):
    """A directory in a bucket that answers."""
    directory = open_directory(f"{s3_server.uri}/out", StorageOptions(s3_server.storage_options))
    directory.write_json("a.json", 1)
    return directory


def test_a_bucket_is_read_and_written_for_a_moment(request_, bucket, s3_server):
    s3_server.forget()
    check_host(replace(request_, readable=(bucket,), writable=(bucket,)))
    assert s3_server.count("PUT", "node-check") == s3_server.count("DELETE", "node-check") == 1
    assert bucket.list_files() == ["a.json"]
    none = bucket.child("none")
    assert refusal(check_host, replace(request_, readable=(none,))) == (
        f"cannot read {none}: No such file or directory"
    )


def test_a_node_that_a_bucket_refuses_is_unfit(request_, bucket, s3_server):
    s3_server.is_denied = True
    line = refusal(check_host, replace(request_, writable=(bucket,)))
    assert line.startswith(f"cannot write to {bucket}: {bucket}: access denied")


def test_a_bucket_that_is_away_is_no_fault_of_the_node(request_, bucket, s3_server):
    s3_server.outage = "error"
    check_host(replace(request_, readable=(bucket,), writable=(bucket,)))
    assert s3_server.count() > 2


def test_wrong_scores_are_refused_with_both_numbers(request_, pinned, monkeypatch):
    run = OnnxEngine.run
    monkeypatch.setattr(OnnxEngine, "run", lambda *arguments: 0 * run(*arguments) + 7.25)
    expected = request_.canary.logits_NC.ravel()
    farthest = expected[np.argmax(np.abs(7.25 - expected))]
    for line in (
        refusal(check_canary, pinned.path, request_.canary),
        refusal(check_node, request_, fetch=None),
    ):
        assert line.startswith(f"computes a score of 7.25, expected {farthest:.4g} within")


def test_an_engine_that_cannot_load_the_bundle(request_, tmp_path):
    assert "not a bundle" in refusal(check_canary, tmp_path, request_.canary)
