"""What `fastformers status` says of an output, from its files alone."""

import argparse
import io
import json
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

import fastformers.jobs.status
from fastformers.cluster.report.status import StatusTally
from fastformers.cluster.scheduling.progress import MachineKind, Progress
from fastformers.cluster.shards.claim_file import new_claim, put_claim, release_claim
from fastformers.cluster.shards.identity import PREPARED_FILE, RUN_FILE, write_record
from fastformers.cluster.storage.directory import open_directory
from fastformers.jobs.console.cli import main
from fastformers.jobs.status import Heartbeat

PROGRESS = Progress(
    elapsed_s=100.0,
    num_done=1,
    num_known=4,
    num_rows=3000,
    num_tokens=9,
    num_errors=0,
    num_retries=0,
    predicted_done_s=1.0,
    predicted_left_s=3.0,
    num_slices_left=0,
    machine_s={MachineKind(): 100.0},
    num_nodes=1,
    num_actors=2,
)


@pytest.fixture
def output(tmp_path):
    directory = open_directory(str(tmp_path / "out"))
    directory.create()
    home = directory.child("__run__")
    home.create()
    write_record(home, RUN_FILE, {})
    return home


def place_of(home):
    """The output that the user names."""
    return home.path.removesuffix("/__run__")


@pytest.fixture
def command(output, capsys):
    """Runs the command; returns its exit status, what it printed last, and what it said."""

    def run(*options):
        status = main(["status", place_of(output), *options])
        captured = capsys.readouterr()
        return status, json.loads(captured.out or "null"), captured.err

    return run


def write_status(output, claim, **changes):
    status = StatusTally(claim, "scored", lambda progress: 0.5).add(PROGRESS)
    output.write_json("status.json", replace(status, **changes).to_json())


def far(**changes):
    """The claim of a process that this machine cannot see."""
    return replace(new_claim(0.0), host="far", machine="another", pid=7, **changes)


def test_a_run_that_lives_is_running_and_the_line_says_how_far_it_is(output, command):
    claim = new_claim(0.0)
    put_claim(output, claim)
    write_status(output, claim)
    status, shown, said = command()
    assert status == 0
    assert said == (
        f"running on {claim}: scored: 25%, 30 rows/s, 0.5000 USD, 1/4 shards, 3,000 rows "
        "(30/s overall), 2 actors on 1 node\n"
    )
    assert (shown["state"], shown["rows"], shown["usd"]) == ("running", 3000, 0.5)
    assert shown["output"] == place_of(output)


def test_the_status_of_an_earlier_run_is_not_shown_for_this_one(output, command):
    claim = new_claim(0.0)
    put_claim(output, claim)
    write_status(output, new_claim(0.0))
    status, shown, said = command()
    assert (status, said) == (0, f"running on {claim}: starting\n")
    assert shown == {"output": place_of(output), "state": "running"}


def test_a_run_whose_process_is_gone_was_killed(output, command):
    claim = replace(new_claim(0.0), process_start=1)
    put_claim(output, claim)
    write_status(output, claim)
    status, shown, said = command()
    assert (status, shown["state"], shown["rows"]) == (3, "stale", 3000)
    assert said.startswith(f"stale: the run on {claim} was killed; run the same command again")


def test_a_run_that_gave_its_output_back_says_how_it_ended(output, command):
    write_status(output, new_claim(0.0), state="interrupted")
    status, shown, said = command()
    assert (status, shown["state"]) == (3, "interrupted")
    assert "run the same command again to go on. Last: scored: 25%" in said
    write_status(output, new_claim(0.0), state="failed", reason="row 7: null text")
    status, shown, said = command()
    assert (status, shown["state"], shown["reason"]) == (3, "failed", "row 7: null text")
    assert ": row 7: null text. Last: scored: 25%" in said


def test_a_run_that_could_not_say_how_it_ended_was_interrupted(output, command):
    assert command()[:2] == (3, {"output": place_of(output), "state": "interrupted"})
    write_status(output, new_claim(0.0))  # it says "running", and nobody holds the output
    status, shown, _ = command()
    assert (status, shown["state"]) == (3, "interrupted")


@pytest.mark.parametrize("has_status", [True, False])
def test_a_finished_run_shows_its_report(output, command, make_report, has_status):
    report = make_report(rows=123)
    output.write_json("report.json", report.to_json())
    if has_status:
        write_status(output, new_claim(0.0), state="finished")
    status, shown, said = command()
    assert status == 0
    assert shown == {**report.summarize(), "state": "finished", "output": place_of(output)}
    assert said.startswith("finished ")
    assert "per million rows" in said  # the bill


def test_a_finished_preparation_shows_its_report(output, command, make_report):
    shutil.rmtree(output.path)
    output = open_directory(place_of(output))
    write_record(output, PREPARED_FILE, {}, complete=True)
    report = make_report()
    output.write_json("report.json", report.to_json())
    status, shown, said = command()
    assert (status, shown["state"]) == (0, "finished")
    assert shown.keys() == {*report.summarize_preparation(), "state"}
    assert len(said.splitlines()) == 1


def test_the_report_of_an_earlier_run_is_not_shown_for_one_that_was_interrupted(
    output, command, make_report
):
    output.write_json("report.json", make_report().to_json())
    write_status(output, new_claim(0.0), state="interrupted")
    status, shown, said = command()
    assert (status, shown["state"], shown["rows"]) == (3, "interrupted", 3000)
    assert "per million" not in said


@pytest.mark.parametrize("name", ["out", "absent"])
def test_where_no_run_was_is_one_line(tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    assert main(["status", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith(f"error: {tmp_path / name}: no run was ever there; name the --output")


def test_watching_ends_with_the_run(output, command, monkeypatch):
    claim = new_claim(0.0)
    put_claim(output, claim)
    write_status(output, claim)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            write_status(output, claim, state="interrupted")
            release_claim(output, claim.run)

    monkeypatch.setattr(fastformers.jobs.status.time, "sleep", sleep)
    status, shown, said = command("--watch", "5")
    assert slept == [5.0] * 3
    assert (status, shown["state"]) == (3, "interrupted")
    assert [line.split()[0] for line in said.splitlines()] == [*["running"] * 3, "interrupted"]
    slept.clear()
    put_claim(output, claim)
    command("--watch")
    assert slept == [10.0] * 3


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e300", "soon"])
def test_a_time_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["status", "out", "--watch", text])
    assert f"argument --watch: {text}: give seconds above 0, such as 30" in capsys.readouterr().err


class Listener:
    """Clocks that move when it sleeps, and a far run whose heart beats at some moments."""

    def __init__(self, output, *, age_s, beats=()):
        self.output, self.now, self.beats = output, 0.0, list(beats)
        self.claim = far(beat_at=-age_s)
        put_claim(output, self.claim)
        self.heartbeat = Heartbeat(
            output, clock=lambda: self.now, time_of_day=lambda: self.now, sleep=self.sleep
        )

    def sleep(self, seconds):
        self.now += seconds
        while self.beats and self.beats[0] <= self.now:
            self.beats.pop(0)
            self.claim = replace(self.claim, beat=self.claim.beat + 1)
            put_claim(self.output, self.claim)

    def is_alive(self):
        return self.heartbeat.is_alive(self.claim)


@pytest.mark.parametrize(
    ("age_s", "beats", "is_alive", "listened_s"),
    [
        (0, (), True, 0),
        (44, (), True, 0),
        (46, (), False, 15),
        (46, (9,), True, 9),
        (7200, (9,), True, 9),  # the clocks differ by hours
        (-7200, (9,), True, 9),
        (-7200, (), False, 15),
    ],
)
def test_a_heartbeat_elsewhere_is_judged_by_its_age_and_by_listening(
    output, age_s, beats, is_alive, listened_s
):
    listener = Listener(output, age_s=age_s, beats=beats)
    assert listener.is_alive() is is_alive
    assert listener.now == listened_s


def test_a_watched_heartbeat_is_judged_by_what_is_seen_of_it(output):
    listener = Listener(output, age_s=0, beats=(40,))
    for now in (10, 20, 30, 39, 50, 60, 84):
        listener.sleep(now - listener.now)
        assert listener.is_alive()
    listener.sleep(30)
    assert not listener.is_alive()


def test_a_terminal_gets_one_line_that_changes(output, command, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=60, color_system=None)
    monkeypatch.setattr(fastformers.jobs.status, "console", terminal)
    monkeypatch.setattr(fastformers.jobs.status, "can_draw_over", lambda on: on is terminal)
    monkeypatch.setattr(
        fastformers.jobs.status.time, "sleep", lambda seconds: release_claim(output, claim.run)
    )
    claim = new_claim(0.0)
    put_claim(output, claim)
    assert command("--watch")[0] == 3
    shown, _, last = screen.getvalue().rpartition("\x1b[2K")  # erases the line
    assert f"running on {claim.host}" in shown
    assert "interrupted: " in last
    assert "running" not in last


def test_seconds_are_parsed():
    assert fastformers.jobs.status._seconds("2.5") == 2.5
    with pytest.raises(argparse.ArgumentTypeError, match="-1: give seconds above 0"):
        fastformers.jobs.status._seconds("-1")
