"""The record of a directory's work, whole, damaged, foreign and of other versions."""

import json
import re

import pytest

from fastformers.cluster.shards.identity import (
    FORMAT_VERSION,
    PREPARED_FILE,
    RUN_FILE,
    read_record,
    write_record,
)
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import ChangedWorkError, InputError

IDENTITY = {"bundle": "8c8c", "limit": None, "keep columns": ["id"]}
REMEDY = "choose another directory, or delete this one and make it again"


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "out").mkdir()
    return open_directory(str(tmp_path / "out"))


def read(directory, file=RUN_FILE):
    return read_record(directory, file, named="--output out")


@pytest.mark.parametrize(
    ("file", "options", "state"),
    [
        (RUN_FILE, {}, {}),
        (PREPARED_FILE, {"complete": False}, {"complete": False}),
        (PREPARED_FILE, {"complete": True}, {"complete": True}),
    ],
)
def test_a_record_comes_back_as_it_was_written(directory, file, options, state):
    write_record(directory, file, IDENTITY, **options)
    expected = {"format_version": FORMAT_VERSION, "identity": IDENTITY, **state}
    assert read(directory, file) == expected


def test_a_directory_without_record_has_none(directory, tmp_path):
    write_record(directory, RUN_FILE, IDENTITY)
    assert read(directory, PREPARED_FILE) is None
    assert read(open_directory(str(tmp_path / "none"))) is None


def test_a_record_that_was_cut_off_is_refused_by_its_path(directory, tmp_path):
    write_record(directory, RUN_FILE, IDENTITY)
    path = tmp_path / "out" / RUN_FILE
    path.write_bytes(path.read_bytes()[:-20])
    message = f"{path}: is not JSON, so it is not ours; choose another directory"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read(directory)


@pytest.mark.parametrize(
    "content",
    [
        [],
        7,
        {},
        {"identity": None},
        {"format_version": 2},
        {"format_version": 2, "identity": "8c8c"},
    ],
)
@pytest.mark.parametrize("file", [RUN_FILE, PREPARED_FILE])
def test_a_file_of_somebody_else_is_refused_by_its_name(directory, file, content):
    directory.write_json(file, content)
    message = f"--output out: {file} is not ours; choose another directory"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read(directory, file)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ({}, "an older version of fastformers (format 0, this one reads 4)"),
        ({"format_version": 1}, "an older version of fastformers (format 1, this one reads 4)"),
        ({"format_version": 5}, "a newer version of fastformers (format 5, this one reads 4)"),
        ({"format_version": "2a"}, "a newer version of fastformers (format 2a, this one reads 4)"),
    ],
)
@pytest.mark.parametrize("file", [RUN_FILE, PREPARED_FILE])
def test_a_record_of_another_version_is_refused_by_its_name(
    directory, tmp_path, file, version, words
):
    (tmp_path / "out" / file).write_text(json.dumps({**version, "identity": IDENTITY}))
    message = f"--output out: {file} was written by {words}; {REMEDY}"
    with pytest.raises(ChangedWorkError, match=f"^{re.escape(message)}$"):
        read(directory, file)
