import numpy as np
import pytest

from fastformers.atomic_file import whole_file


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
