"""Quotes are kept at marks, so that there are few of them, and come back as they were written."""

from dataclasses import replace

import pytest

from fastformers.cluster.records.quotes import (
    MARKS,
    QUOTES_FILE,
    Quotes,
    read_quotes,
    write_quotes,
)
from fastformers.cluster.storage.directory import open_directory
from fastformers.errors import InputError
from tests.conftest import make_early_quote, make_quote


@pytest.fixture
def home(tmp_path):
    return open_directory(str(tmp_path))


def keep(quotes, share):
    """What becomes of quotes when a run is so far."""
    if not quotes.is_due(share):
        return quotes
    return replace(quotes, history=(*quotes.history, make_quote(share=share)))


def test_one_is_kept_for_each_mark_however_long_the_run_is():
    quotes = Quotes()
    for number in range(100_001):
        quotes = keep(quotes, number / 100_000)
    assert [round(quote.share, 4) for quote in quotes.history] == list(MARKS)
    assert MARKS[0] == 0.01
    assert {0.1, 0.5} < set(MARKS)


def test_a_session_that_goes_on_keeps_none_of_a_mark_that_was_passed():
    quotes = Quotes()
    for share in (0.004, 0.07, 0.075, 0.51, 0.5, 0.52, 0.3, 0.56):
        quotes = keep(quotes, share)
    assert [quote.share for quote in quotes.history] == [0.07, 0.51, 0.56]


def test_they_come_back_as_they_were_written(home):
    assert read_quotes(home) == Quotes()
    quotes = Quotes(history=(make_quote(), make_quote(share=0.5)), early=make_early_quote())
    write_quotes(home, quotes)
    assert read_quotes(home) == quotes


@pytest.mark.parametrize("content", [[], {"history": []}, {"history": [{}], "early": None}])
def test_damage_is_named_and_what_to_do(home, content):
    home.write_json(QUOTES_FILE, content)
    with pytest.raises(InputError, match=r"quotes\.json: damaged: .*; delete it"):
        read_quotes(home)
