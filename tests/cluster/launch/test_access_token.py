import os

import pytest

from fastformers.cluster.launch.access_token import write_token
from fastformers.errors import InputError


def test_a_token_is_made_once_and_its_owner_alone_reads_it(tmp_path):
    previous = os.umask(0)
    try:
        path = write_token(tmp_path)
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    assert write_token(tmp_path) == path
    assert path.read_text() == token
    (tmp_path / "other").mkdir()
    assert write_token(tmp_path / "other").read_text() != token


def test_a_token_that_others_read_is_refused(tmp_path):
    path = write_token(tmp_path)
    path.chmod(0o640)
    with pytest.raises(InputError, match="others may read the token; chmod 600") as error:
        write_token(tmp_path)
    assert path.read_text() not in str(error.value)


def test_an_empty_token_is_refused(tmp_path):
    path = write_token(tmp_path)
    path.write_text("")
    with pytest.raises(InputError, match="the token is empty; delete the file"):
        write_token(tmp_path)
