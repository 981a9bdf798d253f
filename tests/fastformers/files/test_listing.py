import json
import os
from pathlib import Path

import pyarrow.fs
import pytest

from fastformers.errors import InputError
from fastformers.files.listing import list_files

SUFFIXES = (".jsonl", ".json")


@pytest.fixture
def place(tmp_path):
    """A directory with two files and a subdirectory."""
    put(tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "sub" / "c.jsonl.gz")
    return tmp_path


def put(*paths, content="{}"):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def listing(path, output=None):
    return list_files(
        pyarrow.fs.LocalFileSystem(), str(path), str(path), SUFFIXES, output=output and str(output)
    )


def names(path, root=None, **options):
    found = listing(path, **options).files
    return [os.path.relpath(file.path, root or path) for file in found]


def test_sizes_and_times_are_those_of_the_files(place):
    [file, *_] = listing(place).files
    found = Path(file.path).stat()
    assert (file.size_bytes, file.mtime_ns) == (2, found.st_mtime_ns)


def test_a_file_with_several_names_is_read_once_under_one_that_is_no_link(place):
    os.link(place / "b.jsonl", place / "x.jsonl")
    (place / "0.jsonl").symlink_to("a.jsonl")
    (place / "0dir").symlink_to("sub")
    (place / "sub" / "loop").symlink_to(place)
    found = listing(place)
    assert names(place) == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz"]
    assert found.left_out == (
        f"{place}/0.jsonl and 1 other: the same file by another name (a link), read once",
    )


def test_links_that_lead_elsewhere_are_followed(place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    put(elsewhere / "d.jsonl")
    (place / "linked").symlink_to(elsewhere)
    assert names(place)[2] == "linked/d.jsonl"


@pytest.mark.parametrize("name", ["gone.jsonl", "gone", "gone.jsonl.gz"])
def test_a_broken_link_is_named(place, name):
    (place / name).symlink_to("nowhere")
    assert listing(place).unreadable == {f"{place}/{name}": "is a broken link (to nowhere)"}


def test_what_is_no_file_is_named(place):
    os.mkfifo(place / "pipe.jsonl")
    (place / "round.jsonl").symlink_to("round.jsonl")
    found = listing(place).unreadable
    assert found[f"{place}/pipe.jsonl"] == "is no regular file"
    assert found[f"{place}/round.jsonl"].startswith("cannot be read (")
    assert len(found) == 2


def test_a_directory_that_cannot_be_listed_is_named(place, monkeypatch):
    real = os.scandir

    def scan(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)  # root may list everything
    assert listing(place).unreadable == {f"{place}/sub": "cannot be listed (Permission denied)"}


def test_a_name_that_is_no_text_is_named(place):
    Path(os.fsdecode(os.fsencode(place) + b"/caf\xe9.jsonl")).write_text("{}")
    assert listing(place).unreadable == {
        f"{place}/caf\\udce9.jsonl": "has a name that is not UTF-8; rename it"
    }


def test_files_of_other_formats_are_told_and_hidden_ones_are_not(place):
    put(place / "README.md", place / "b.txt", place / "_SUCCESS", place / ".a.jsonl.crc")
    put(place / "_temporary" / "d.jsonl", place / "_part=1" / "e.jsonl")
    found = listing(place)
    assert names(place)[0] == "_part=1/e.jsonl"
    assert found.left_out == (f"{place}/README.md and 1 other: of another format, not read",)


RECORDS = {
    "__run__/run.json": {"format_version": 3, "identity": {}},
    "prepared.json": {"format_version": 3, "complete": True, "identity": {}},
    "bundle.json": {"format_version": 1, "digest": "x"},
}


@pytest.mark.parametrize("record", RECORDS)
def test_what_this_project_wrote_is_no_part_of_a_corpus(place, record):
    put(place / "sub" / "own" / record, content=json.dumps(RECORDS[record]))
    put(place / "sub" / "own" / "predictions" / "p.jsonl", place / "sub" / "owner.jsonl")
    assert names(place) == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz", "sub/owner.jsonl"]
    assert listing(place).left_out == (f"{place}/sub/own: written by fastformers, not read",)
    assert names(place / "**" / "*.jsonl", place) == ["a.jsonl", "b.jsonl", "sub/owner.jsonl"]
    with pytest.raises(InputError, match="own: was written by fastformers and is no corpus"):
        listing(place / "sub" / "own")
    assert names(place / "sub" / "own" / "predictions") == ["p.jsonl"]


@pytest.mark.parametrize("content", ["{}", "[1]", "not JSON", '{"identity": 1}'])
def test_a_file_that_has_only_the_name_of_a_record_is_data(place, content):
    put(place / "sub" / "run.json", content=content)
    assert names(place) == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz", "sub/run.json"]


def test_the_output_of_the_run_is_no_part_of_its_corpus(place):
    put(place / "out" / "predictions" / "p.jsonl")
    assert names(place, output=place / "out") == ["a.jsonl", "b.jsonl", "sub/c.jsonl.gz"]


def test_an_output_that_is_the_directory_of_the_corpus_is_refused(place):
    with pytest.raises(InputError, match=r"--output .*: is the directory of the corpus"):
        listing(place, output=place)


ODD = ["with space", "#1", "100%", "%41", "what?", "[x]", "a*", "[/b]", "{a,b}", "ä"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_taken_as_they_are(tmp_path, name):
    put(tmp_path / name / f"{name.replace('/', '')}.jsonl", tmp_path / "z" / "other.jsonl")
    [found] = listing(tmp_path / name).files
    assert names(found.path) == ["."]
    glob = tmp_path / name / "*.jsonl"
    assert [file.path for file in listing(glob).files] == [found.path]


def test_messages_name_the_place_as_it_was_given(tmp_path):
    put(tmp_path / "[/b] 100%" / "a.txt")
    with pytest.raises(InputError) as caught:
        listing(tmp_path / "[/b] 100%")
    assert str(caught.value) == f"{tmp_path}/[/b] 100%: no .jsonl or .json file there"
