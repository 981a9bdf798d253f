import os
from pathlib import Path

import numpy as np
import pytest

from fastformers.atomic_file import check_writable, keep_json, whole_file


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "logits.npy"
    path.write_bytes(b"old")
    with whole_file(path) as unfinished:
        np.save(unfinished, np.arange(3))
        assert path.read_bytes() == b"old"
    assert np.load(path).tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "done.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_kept_is_not_made_again(tmp_path):
    path = tmp_path / "shares.json"
    assert keep_json(path, lambda: (0.8, 0.7)) == [0.8, 0.7]
    assert keep_json(path, lambda: pytest.fail("made again")) == [0.8, 0.7]


def test_whether_a_file_can_be_written_is_known_without_writing_it(tmp_path, monkeypatch):
    before = tmp_path.stat().st_mtime_ns
    check_writable(tmp_path / "a" / "b" / "c.json")
    monkeypatch.chdir(tmp_path)
    check_writable(Path("c.json"))
    assert (list(tmp_path.iterdir()), tmp_path.stat().st_mtime_ns) == ([], before)
    (tmp_path / "file").write_text("x")
    check_writable(tmp_path / "file")  # which would be replaced
    with pytest.raises(NotADirectoryError) as caught:
        check_writable(tmp_path / "file" / "c.json")
    assert caught.value.filename == str(tmp_path / "file" / "c.json")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "a" / "c.json")
