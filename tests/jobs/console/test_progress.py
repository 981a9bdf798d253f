"""What a person sees of a long job, on a clock that only the test moves."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from fastformers.jobs.console import progress
from fastformers.jobs.console.progress import ProgressDisplay, show_progress


@pytest.fixture
def clock(monkeypatch):
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


@pytest.fixture
def shown(monkeypatch):
    """All that is written, to a log or to a terminal."""

    def use(*, is_terminal=False):
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=is_terminal, soft_wrap=True, width=100, markup=False
        )
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


def test_there_is_no_time_left_before_anything_was_done(clock, shown):
    file = shown()
    with ProgressDisplay(line_every_s=1) as display:
        for _ in range(2):
            display.update("score", 0.25, lambda: "[none]")
            clock.now += 1
    assert file.getvalue() == "score: 25%, [none]\n"


def test_what_is_not_shown_is_not_described(clock, shown):
    shown()
    with ProgressDisplay(line_every_s=10) as display:
        for share in (0.1, 0.2):
            clock.now += 4
            display.update("score", share, lambda: pytest.fail("described"))


def test_a_terminal_gets_a_bar_which_is_gone_at_the_end(clock, shown):
    file = shown(is_terminal=True)
    with show_progress(line_every_s=10) as update:
        update("train", 0, 4)
        clock.now += 30
        update("train", 2, 4)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "train" in text
    assert "━" in text
    assert "50%, ETA 0:30, 2 of 4" in text
    assert file.getvalue().endswith("\x1b[2K")  # the line is erased


def test_a_full_bar_makes_room_for_the_next(clock, shown):
    shown(is_terminal=True)
    with ProgressDisplay(line_every_s=10) as display:
        display.update("train", 0.5, lambda: "half")
        (task,) = display._bar.tasks
        assert (task.description, task.completed) == ("train", 0.5)
        display.update("train", 1.0, lambda: "all")
        assert display._bar.tasks == []
        display.update("evaluate", 0.25, lambda: "some")
        (task,) = display._bar.tasks
        assert (task.description, task.completed) == ("evaluate", 0.25)


def test_beside_a_clock_a_terminal_gets_lines_as_a_log_does(clock, shown):
    file = shown(is_terminal=True)
    with show_progress(line_every_s=10, is_live=False) as update:
        update("step 1", 0, 4)
        clock.now += 10
        update("step 1", 1, 4)
    assert "━" not in file.getvalue()
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    assert text == "step 1: 25%, ETA 0:30, 1 of 4\n"


def test_a_narrow_terminal_shows_a_long_text_to_its_end(clock, shown):
    file = shown(is_terminal=True)
    with ProgressDisplay(line_every_s=10) as display:
        display.update("scored", 0.5, lambda: " ".join(["many words"] * 20) + " at the end")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "at the end" in text
    assert max(len(line) for line in text.replace("\r", "\n").splitlines()) <= 100
