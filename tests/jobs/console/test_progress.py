"""What a person sees of a long job, on a clock that only the test moves."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from fastformers.jobs.console import progress
from fastformers.jobs.console.progress import (
    ProgressDisplay,
    can_draw_over,
    show_progress,
    waiting,
)

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


@pytest.fixture
def shown(monkeypatch):
    """All that is written, to a log or to a terminal."""
    for name in ("CI", "JPY_PARENT_PID", "FORCE_COLOR", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def use(*, is_terminal=False, width=100, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file = Terminal() if is_terminal else io.StringIO()
        console = Console(file=file, soft_wrap=True, width=width, markup=False)
        monkeypatch.setattr(progress, "console", console)
        return file

    return use


def test_a_log_gets_a_line_in_so_many_seconds_with_the_time_left(clock, shown):
    file = shown()
    with show_progress(line_every_s=10) as update:
        for second in range(26):
            clock.now = 1000.0 + second
            update("train", second, 100)
    assert file.getvalue().splitlines() == [
        "train: 10%, ETA 1:30, 10 of 100",
        "train: 20%, ETA 1:20, 20 of 100",
    ]


def test_the_time_left_counts_from_where_the_work_was_taken_up(clock, shown):
    file = shown()
    with show_progress(line_every_s=10) as update:
        update("train", 500, 1000)
        clock.now += 100
        update("train", 600, 1000)
    assert file.getvalue() == "train: 60%, ETA 6:40, 600 of 1,000\n"


def test_the_next_thing_starts_anew(clock, shown):
    file = shown()
    with show_progress(line_every_s=10) as update:
        update("train", 0, 100)
        clock.now += 9
        update("evaluate", 0, 7200)
        clock.now += 9
        update("evaluate", 5, 7200)
        clock.now += 1
        update("evaluate", 10, 7200)
    assert file.getvalue() == "evaluate: 0%, ETA 1:59:50, 10 of 7,200\n"


def test_there_is_no_time_left_before_anything_was_done_and_remarks_come_last(clock, shown):
    file = shown()
    with ProgressDisplay(line_every_s=1) as display:
        for _ in range(2):
            display.update("score", 0.25, lambda: ["[none]", "2"], ["slow", "node a: late"])
            clock.now += 1
    assert file.getvalue() == "score: 25%, [none], 2; slow; node a: late\n"


def test_a_time_left_that_is_known_better_is_shown_in_place_of_the_share_s(capsys):
    with ProgressDisplay(line_every_s=0) as display:
        display.update("score", 0.1, lambda: ["7 rows"], time_left="3:05 (2:50-3:30)")
    assert capsys.readouterr().err == "score: 10%, ETA 3:05 (2:50-3:30), 7 rows\n"


def test_what_is_not_shown_is_not_described(clock, shown):
    shown()
    with ProgressDisplay(line_every_s=10) as display:
        for share in (0.1, 0.2):
            clock.now += 4
            display.update("score", share, lambda: pytest.fail("described"))
    progress.console.quiet = True
    with ProgressDisplay(line_every_s=0) as display:
        display.update("score", 0.1, lambda: pytest.fail("described"))


def test_a_terminal_gets_a_bar_which_is_gone_at_the_end(clock, shown):
    file = shown(is_terminal=True)
    with show_progress(line_every_s=10) as update:
        update("train", 0, 4)
        clock.now += 30
        update("train", 2, 4)
    text = ESCAPES.sub("", file.getvalue())
    assert re.search("train ━+.*50%, ETA 0:30, 2 of 4", text)
    assert file.getvalue().endswith("\x1b[2K")  # the line is erased


def test_a_full_bar_makes_room_for_the_next(clock, shown):
    shown(is_terminal=True)
    with ProgressDisplay() as display:
        display.update("train", 0.5, lambda: ["half"])
        assert display._line.numbers == ("50%", "half")
        display.update("train", 1.0, lambda: ["all"])
        assert display._line is None
        display.update("evaluate", 0.25, lambda: ["some"])
        assert (display._line.what, display._line.share) == ("evaluate", 0.25)


def test_beside_a_clock_a_terminal_gets_lines_as_a_log_does(clock, shown):
    file = shown(is_terminal=True)
    with show_progress(line_every_s=10, is_live=False) as update:
        update("step 1", 0, 4)
        clock.now += 10
        update("step 1", 1, 4)
    assert ESCAPES.sub("", file.getvalue()) == "step 1: 25%, ETA 0:30, 1 of 4\n"


@pytest.mark.parametrize(
    ("environment", "draws"),
    [
        ({}, True),
        ({"CI": "false"}, True),
        ({"NO_COLOR": "1"}, True),
        ({"CI": "true"}, False),
        ({"TERM": "dumb"}, False),
        ({"JPY_PARENT_PID": "7"}, False),
    ],
)
def test_a_line_is_drawn_over_where_somebody_watches_a_terminal(shown, environment, draws):
    shown(is_terminal=True, **environment)
    assert can_draw_over(progress.console) is draws


def test_nothing_is_drawn_over_in_a_pipe_whatever_is_said_of_colors(shown):
    shown(FORCE_COLOR="1")
    assert progress.console.is_terminal  # of colors: tables have them
    assert not can_draw_over(progress.console)


def test_what_is_waited_for_is_shown_at_once_with_the_clock(clock, shown):
    file = shown(is_terminal=True)
    with waiting("starting Ray") as wait_for:
        assert "starting Ray, 0 s" in ESCAPES.sub("", file.getvalue())
        clock.now += 75
        wait_for("starting 2 actors")
        assert "starting 2 actors, 0 s" in ESCAPES.sub("", file.getvalue())
    assert ProgressDisplay.shown is None


def test_a_wait_inside_other_work_is_shown_on_its_line(clock, shown):
    file = shown(is_terminal=True)
    with ProgressDisplay() as display:
        with waiting("starting Ray"):
            assert ProgressDisplay.shown is display
            clock.now += 75
            display._live.refresh()
        assert "starting Ray, 1:15" in ESCAPES.sub("", file.getvalue())
        assert display._waits_for is None
        display.wait_for("starting 2 actors")
        display.update("scored", 0.5, lambda: ["7 rows/s"])
        assert display._waits_for is None


def test_a_log_gets_a_line_for_a_long_wait_and_again_while_it_goes_on(clock, shown, monkeypatch):
    file = shown()
    monkeypatch.setattr(progress, "_LOOK_EVERY_S", 3600)  # the test looks in place of the thread
    with ProgressDisplay() as display:
        display.wait_for("listing the corpus")
        display._tell_wait()
        display.wait_for("starting Ray")
        for seconds in (0.4, 0.6, 9, 1, 9):
            clock.now += seconds
            display._tell_wait()
        display.wait_for("starting 2 actors")
        clock.now += 1
        display._tell_wait()
    assert file.getvalue().splitlines() == [
        *("starting Ray, 1 s", "starting Ray, 11 s", "starting 2 actors, 1 s")
    ]
