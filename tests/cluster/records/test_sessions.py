import json
from dataclasses import replace
from pathlib import Path

import pytest

from fastformers.cluster.records.sessions import read_sessions, write_session
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError


@pytest.fixture
def home(tmp_path):
    return open_directory(str(tmp_path))


@pytest.fixture
def session(make_report):
    return make_report().sessions[1]


def test_sessions_are_read_in_the_order_of_their_starts_without_the_one_that_asks(home, session):
    later = replace(session, run="a", started_at="2026-11-25T01:00:00+00:00", usd=0.25)
    for one in (later, session, replace(session, run="own")):
        write_session(home, one)
    write_session(home, replace(later, usd=0.5))  # in place of the one before
    assert read_sessions(home, but="own") == (session, replace(later, usd=0.5))


def test_one_that_did_not_end_was_killed(home, session):
    write_session(home, replace(session, state="running"))
    [found] = read_sessions(home, but="")
    assert found == replace(session, state="killed")


def test_without_a_record_there_is_none(home):
    assert read_sessions(home, but="") == ()


def test_a_damaged_record_is_refused_by_what_is_wrong(home, session):
    write_session(home, session)
    [path] = Path(home.path, "sessions").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "usd": "much"}))
    with pytest.raises(InputError, match="damaged: usd is of type str, not float; delete"):
        read_sessions(home, but="")
