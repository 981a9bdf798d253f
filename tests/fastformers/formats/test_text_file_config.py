"""What can be said of text files, and what cannot be meant."""

import pytest

from fastformers.errors import InputError
from fastformers.formats.text_file_config import TextFileConfig


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"encoding": "klingon"}, "--encoding klingon"),
        ({"encoding": "rot13"}, "--encoding rot13"),
        ({"csv_delimiter": "::"}, "--csv-delimiter '::': give one character"),
        ({"csv_quote": "\n"}, "--csv-quote"),
        ({"csv_escape": '"'}, "give different characters"),
        ({"max_row_bytes": 0}, "--max-row-bytes 0: give at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        TextFileConfig(**options)


@pytest.mark.parametrize(
    ("written", "meant"), [("\\t", "\t"), ("tab", "\t"), (";", ";"), (None, None)]
)
def test_a_tab_can_be_written_in_a_shell(written, meant):
    assert TextFileConfig(csv_delimiter=written).delimiter == meant


def test_the_word_none_is_no_quote():
    assert TextFileConfig(csv_quote="none").quote is None
    assert TextFileConfig().quote == '"'
    assert TextFileConfig(csv_quote="none").identity != TextFileConfig().identity
