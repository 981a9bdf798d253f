"""What each sort of terminal gets to see of a command: real ones, of the operating system."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

# A command that waits, works and ends as all of them do.
COMMAND = """
import sys, time
from rich.table import Table
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import ProgressDisplay, waiting

def job():
    with waiting("starting Ray"):
        time.sleep(1.2)
    with ProgressDisplay() as display:
        for share in (0.25, 0.5):
            display.update("scored", share, lambda: ["12,345 rows/s", "0.0123 USD"], ["slow: why"])
    table = Table(title="Bill")
    table.add_row("rows", style="red")
    console.print(table)
    return {"rows": 2000}

sys.exit(run(job, CommandParser(prog="job").parse_args()))
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SETTINGS = {
    *("CI", "NO_COLOR", "FORCE_COLOR", "JPY_PARENT_PID", "COLUMNS", "TTY_INTERACTIVE", "TERM"),
}


@pytest.fixture
def run():
    """Runs the command in a terminal of so many columns; what it showed there and on stdout."""

    def start(*flags, width=80, stdout_is_terminal=False, **environment):
        screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        inherited = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *flags],
            stdin=subprocess.DEVNULL,
            stdout=terminal if stdout_is_terminal else subprocess.PIPE,
            stderr=terminal,
            env={**inherited, "TERM": "xterm-256color", **environment},
        )
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(screen, 4096):
                shown += part
        os.close(screen)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, shown
        return shown.decode(), (out or b"").decode()

    return start


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_waits_and_progress_on_one_line_and_no_json(run, width):
    shown, _ = run(stdout_is_terminal=True, width=width)
    frames = [ESCAPES.sub("", frame).strip() for frame in re.split(r"[\r\n]+", shown)]
    assert any(re.fullmatch(r"\S starting Ray, 0 s", frame) for frame in frames)
    assert any(re.fullmatch(r"\S starting Ray, 1 s", frame) for frame in frames)
    progress = [frame for frame in frames if "50%" in frame]
    assert re.fullmatch(r"scored [━╸╺]{10,} 50%, ETA 0:00, 12,345 rows/s, 0.0123 USD", progress[-1])
    assert "slow: why" in frames
    assert max(map(len, frames)) <= width
    assert 'rows":' not in shown


def test_asked_for_a_terminal_shows_the_json_line_too(run):
    shown, _ = run("--json", "--quiet", stdout_is_terminal=True)
    assert json.loads(shown) == {"rows": 2000}  # and nothing else


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}, {"JPY_PARENT_PID": "1"}])
def test_where_nothing_can_be_drawn_over_lines_come(run, environment):
    shown, out = run(**environment)
    lines = shown.splitlines()
    assert "starting Ray, 1 s" in lines
    assert "\x1b[2K" not in shown
    assert json.loads(out) == {"rows": 2000}


def test_colors_are_left_out_where_nobody_wants_them(run):
    color = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert color.search(run()[0])
    assert not color.search(run(NO_COLOR="1")[0])
