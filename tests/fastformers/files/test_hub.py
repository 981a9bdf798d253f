"""What comes from a hub, what goes there, and what is said where it cannot."""

import builtins
import socket
from pathlib import Path

import pytest

from fastformers.errors import InputError, StorageError
from fastformers.files.hub import (
    HubPlace,
    fetch_files,
    find_model,
    parse_hub_uri,
    parse_repository,
    push_files,
)
from tests.hub_server import TOKEN


def test_places_are_named_as_the_hub_does():
    place = HubPlace("org/a-model_1.0", "refs/pr/3")
    assert parse_hub_uri("hf://org/a-model_1.0@refs/pr/3") == place
    assert str(place) == "hf://org/a-model_1.0@refs/pr/3"
    assert parse_hub_uri(str(Path("hf://org/name"))) == HubPlace("org/name")  # hf:/org/name
    assert parse_hub_uri("hf://org/name/") == parse_repository("org/name") == HubPlace("org/name")
    for text in ("s3://org/name", "org/name", "hf", ""):
        assert parse_hub_uri(text) is None
    for text in ("name", "a/b/c", "/org/name", "./a", "../a", "org/na me", "org/", "a//b"):
        assert parse_repository(text) is None
    for text in ("hf://", "hf://name", "hf://a/b/c", "hf://a/b@"):
        with pytest.raises(InputError, match="give hf://org/name"):
            parse_hub_uri(text)


@pytest.fixture
def model(tmp_path):
    """Files as a repository of a model has them, for several libraries."""
    files = (
        *("config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "pytorch_model.bin"),
        *("modules.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin"),
        *("onnx/model.onnx", "onnx/config.json", "openvino/x.json", "tf_model.h5", "README.md"),
    )
    for name in files:
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def files_of(path):
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_a_model_is_fetched_at_one_commit_without_the_weights_of_others(hub, model):
    commit = hub.add("org/model", model)
    found = find_model(Path("org/model"))
    assert (found.name, found.revision) == ("org/model", commit)
    del hub.requests[:]
    assert find_model(found.path) == found  # who looks again gets the same commit
    assert hub.requests == []
    assert files_of(found.path) == {
        *("config.json", "tokenizer.json", "vocab.txt", "model.safetensors"),
        *("modules.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin"),
    }


def test_a_repository_of_something_else_holds_no_model(hub, model):
    (model / "config.json").unlink()
    (model / "modules.json").unlink()
    hub.add("org/data", model)
    with pytest.raises(InputError, match=r"hf://org/data: holds no model \(none of config\.json, "):
        find_model(Path("org/data"))


def test_older_weights_are_fetched_where_there_are_no_others(hub, model):
    (model / "model.safetensors").unlink()
    hub.add("org/model", model)
    assert (find_model(Path("org/model@main")).path / "pytorch_model.bin").is_file()


def test_a_directory_comes_before_a_repository_of_its_name(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    model.rename(tmp_path / "org" / "model")
    found = find_model(Path("org/model"))
    assert (found.path, found.name, found.revision) == (Path("org/model"), "model", None)
    assert hub.requests == []


def test_a_path_that_cannot_be_a_repository_is_left_to_who_reads_it(hub):
    assert find_model(Path("/nowhere/model")).path == Path("/nowhere/model")
    assert hub.requests == []


def test_what_was_fetched_is_there_without_a_network(hub, model, monkeypatch):
    hub.add("org/model", model)
    first = find_model(Path("org/model"))
    hub.status = 503
    assert find_model(Path("org/model")) == first
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    del hub.requests[:]
    assert find_model(Path("org/model")) == first
    assert hub.requests == []


def line_of(error):
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert TOKEN not in text
    return text


def test_a_repository_that_is_missing_or_not_for_the_user_is_one_line(hub, model, monkeypatch):
    hub.add("org/private", model, private=True)
    hub.add("org/gated", model, gated=True)
    for name in ("org/none", "org/private"):
        with pytest.raises(InputError) as error:
            find_model(Path(name))
        assert line_of(error) == (
            f"{name}: no such directory here, and hf://{name}: the hub has no such repository, or "
            "it is private; check the name, and log in by hf auth login or HF_TOKEN if it is yours"
        )
    with pytest.raises(InputError, match="hf://org/gated: is gated; ask for access"):
        fetch_files(HubPlace("org/gated"), "config.json")
    with pytest.raises(InputError, match="hf://org/private@v2: the repository has no such rev"):
        fetch_files(HubPlace("org/private", "v2"), "config.json", token=TOKEN)
    path = fetch_files(HubPlace("org/private"), "nothing.json", token=TOKEN)
    assert not (path / "nothing.json").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (fetch_files(HubPlace("org/private"), "config.json") / "config.json").is_file()


def test_no_network_is_one_line_that_says_what_to_do(hub, monkeypatch, capfd, caplog):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as free:  # nobody will answer there
        address = f"127.0.0.1:{free.getsockname()[1]}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", f"http://user:pass@{address}")
    template = f"http://{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    for ask in (
        lambda: fetch_files(HubPlace("org/model"), "config.json"),
        lambda: push_files("org/model", {"a": b""}, message="m", token=TOKEN),
        lambda: find_model(Path("org/model")),
    ):
        with pytest.raises(StorageError, match=r"http://\*\*\*@127\S+ cannot be reached") as error:
            ask()
        assert "pass" not in line_of(error)
    assert (capfd.readouterr().err, caplog.text) == ("", "")
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="HF_HUB_OFFLINE forbids to fetch it") as error:
        fetch_files(HubPlace("org/model"), "config.json")
    line_of(error)


def test_without_the_library_the_extra_is_named(monkeypatch):
    load = builtins.__import__

    def refuse(name, *arguments):
        if name.startswith("huggingface_hub"):
            raise ModuleNotFoundError(name=name)
        return load(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"hf://a/b: huggingface_hub is not .*\[hub\]"):
        fetch_files(HubPlace("a/b"), "config.json")


def test_files_are_pushed_by_one_commit(hub, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    files = {
        "model.onnx": tmp_path / "model.onnx",
        "README.md": b"---\nlibrary_name: fastformers\n",
    }
    url = push_files("org/new", files, message="first", private=True, token=TOKEN)
    repository = hub.repositories["org/new"]
    (commit,) = repository.commits
    assert url == f"{hub.address}/org/new/commit/{commit}"
    assert repository.private
    assert repository.commits[commit] == {
        "model.onnx": b"graph",
        "README.md": b"---\nlibrary_name: fastformers\n",
    }
    push_files("hf://org/new", {"model.onnx": b"other"}, message="second", token=TOKEN)
    assert len(repository.commits) == 2


def test_a_push_that_is_refused_is_one_line(hub):
    with pytest.raises(InputError, match=r"hf://org/new: the hub refuses it \(401\); log in"):
        push_files("org/new", {"a": b""}, message="m")
    with pytest.raises(InputError, match=r"Invalid metadata in README\.md\. - no .* in \*{3}$"):
        push_files("org/new", {"README.md": TOKEN.encode()}, message="m", token=TOKEN)
    for name in ("new", "org/new@main"):
        with pytest.raises(InputError, match=f"{name}: give the repository as org/name"):
            push_files(name, {}, message="m")
