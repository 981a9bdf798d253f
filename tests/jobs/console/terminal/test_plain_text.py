"""What names and texts hold never reaches the terminal as a command, and no secret is shown."""

import io
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from fastformers.jobs.console.output import ConsoleHandler, PlainConsole, console, run
from fastformers.jobs.console.terminal.plain_text import plain

HOSTILE = "a\x1b[2Jb\rc\x07d\x9b31me\x1b]0;title\x07[/b][red]:smile:\u202etxt\udcff"
SHOWN = r"a\x1b[2Jb\x0dc\x07d\x9b31me\x1b]0;title\x07[/b][red]:smile:\u202etxt\udcff"


@pytest.fixture
def screen():
    """A terminal without colors, and what was written to it."""
    written = io.StringIO()
    options = {"width": 300, "soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
    return PlainConsole(file=written, force_terminal=True, color_system=None, **options), written


def test_what_would_command_a_terminal_is_shown():
    assert plain(HOSTILE) == SHOWN
    assert plain("tab\there,\nüñí 日本 👍") == "tab\there,\nüñí 日本 👍"


@given(st.text())
def test_plain_text_is_the_same_when_it_is_shown_again(text):
    assert plain(plain(text)) == plain(text)
    assert not any(ord(c) < 32 and c not in "\t\n" for c in plain(text))


def make_table():
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    return table


@pytest.mark.parametrize("make", [lambda: HOSTILE, make_table])
def test_strings_are_shown_whole(screen, make):
    terminal, written = screen
    terminal.print(make())
    assert SHOWN in written.getvalue()
    assert "\x1b" not in written.getvalue()


def test_texts_and_bars_send_nothing_but_their_own_commands(screen):
    terminal, written = screen
    terminal.print(Text(HOSTILE))
    with Progress(TextColumn("{task.description}", markup=False), console=terminal) as bar:
        bar.add_task(HOSTILE)
        bar.refresh()
    output = written.getvalue()
    assert r"a\x1b[2J" in output
    assert "\x1b[2J" not in output
    assert "\x1b]0;" not in output
    assert "\x1b[?25l" in output  # the bar hides the cursor


def test_errors_and_warnings_go_the_same_way(capsys):
    class HostileError(OSError):
        pass

    def job():
        raise HostileError(5, "Input/output error", f"dir/{HOSTILE}")

    assert run(job) == 2
    assert capsys.readouterr().err == f"error: dir/{SHOWN}: Input/output error\n"
    record = logging.LogRecord("a", logging.WARNING, "", 0, "file %s", (HOSTILE,), None)
    ConsoleHandler().handle(record)
    assert capsys.readouterr().err == f"file {SHOWN}\n"
    assert isinstance(console, PlainConsole)


@pytest.mark.parametrize("error", [OSError("When reading: no answer"), BrokenPipeError()])
def test_an_error_of_a_store_is_one_line(capsys, error):
    def job():
        raise error

    assert run(job) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert len(line) > 10


def test_a_uri_that_was_taken_for_a_path_shows_no_secret():
    assert plain(str(Path("s3://AKIAX:se/cret@b/x: no such file"))) == "s3:/***@b/x: no such file"


def test_no_secret_is_shown(capsys):
    uri = "s3://AKIAX:se/cr+et=@bucket/a?endpoint=x&secret_key=hidden"

    def job():
        return {"output": uri}

    assert run(job) == 0
    console.print(f"reading {uri} now, not mail@example.org nor http://head:8265/a@b")
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "s3://***@bucket/a?endpoint=x&secret_key=***" in text
        assert "se/cr" not in text
        assert "AKIAX" not in text
    assert "mail@example.org nor http://head:8265/a@b" in captured.err
