"""status.json of a run: there from the claim on, and true when the run ends."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastformers.cluster.records.quotes import read_quotes
from fastformers.cluster.records.sessions import read_sessions
from fastformers.cluster.report.forecasts.quoting import Quoter
from fastformers.cluster.report.status import RunStatus
from fastformers.cluster.scheduling.forecast.time_left import TimeLeft
from fastformers.cluster.scheduling.progress import MachineKind, Progress
from fastformers.cluster.shards.claim_file import new_claim
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.errors import ClaimedError, ScoringError
from fastformers.jobs.console.status_file import StatusFile


@pytest.fixture
def output(tmp_path):
    return open_directory(str(tmp_path))


@pytest.fixture
def claim():
    return SimpleNamespace(record=new_claim(0.0), check=lambda: None)


def read(output):
    return RunStatus.from_json(output.read_json("status.json"), path="status.json")


def news(rows):
    return Progress(
        elapsed_s=10.0,
        num_done=1,
        num_known=4,
        num_rows=rows,
        num_tokens=rows,
        num_errors=0,
        num_retries=0,
        predicted_done_s=1.0,
        predicted_left_s=3.0,
        num_slices_left=0,
        machine_s={MachineKind(): 10.0},
        num_nodes=1,
        num_actors=2,
    )


def quoter():
    return Quoter("r1", 0.0, lambda machines: sum(machines.values()))


def status_file(output, **changes):
    return StatusFile(
        output, "scored", lambda progress: sum(progress.machine_s.values()), **changes
    )


def test_nothing_is_written_before_the_output_is_claimed(output, tmp_path):
    with pytest.raises(ClaimedError), status_file(output):
        raise ClaimedError("another run works there")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "interrupted", None),
        (SystemExit(15), "interrupted", None),
        (ScoringError("row 7:\n  null text"), "failed", "row 7: null text"),
        (KeyError(), "failed", "KeyError()"),
    ],
)
def test_the_last_state_is_how_the_run_ended(output, claim, error, state, reason):
    try:
        with status_file(output) as file:
            file.begin(claim, quoter())
            shown = file.add(news(30))
            assert (shown.state, shown.usd, shown.rows) == ("running", 10.0, 30)
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    status = read(output)
    assert (status.state, status.reason, status.rows) == (state, reason, 30)
    assert status.run == claim.record.run


def test_the_file_is_written_again_and_again(output, claim):
    with status_file(output, every_s=0.01) as file:
        file.begin(claim, quoter())
        for rows in (1, 2, 3):
            file.add(news(rows))
            while output.read_json("status.json") is None or read(output).rows != rows:
                pass
            assert read(output).state == "running"


def test_a_run_whose_output_was_taken_over_writes_no_more(output, claim):
    def check():
        raise ClaimedError("taken over")

    with pytest.raises(ClaimedError), status_file(output, every_s=0.01) as file:
        file.begin(claim, quoter())
        while output.read_json("status.json") is None:
            pass
        claim.check = check
        file.add(news(30))
        check()
    assert read(output).rows == 0


def test_a_storage_that_fails_ends_no_run(output, claim, monkeypatch):
    tried = []

    def fail(self, name, value):
        tried.append(name)
        raise OSError("SlowDown")

    with status_file(output, every_s=0.01) as file:
        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write_json", fail)
            file.begin(claim, quoter())
            while len(tried) < 3:
                pass
        file.add(news(30))
    assert read(output).state == "finished"


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ScoringError("no"), "failed")],
)
def test_the_session_s_record_says_how_it_ended(output, claim, make_report, error, state):
    session = replace(make_report().sessions[0], run=claim.record.run, state="running")
    try:
        with status_file(output, every_s=0.01) as file:
            file.begin(claim, quoter())
            file.keep(session)
            while not Path(output.path, "sessions", f"{session.run}.json").exists():
                pass
            assert read_sessions(output, but="")[0].state == "killed"  # to one that comes later
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    assert read_sessions(output, but="") == (replace(session, state=state),)
    assert read_sessions(output, but=file.run) == ()


def test_quotes_are_written_as_soon_as_there_are_any(output, claim):
    left = TimeLeft(seconds=30.0, low_s=25.0, high_s=36.0)
    with status_file(output) as file:
        file.begin(claim, quoter())
        shown = file.add(replace(news(30), time_left=left, machines={MachineKind(): 1}))
        assert shown.quote is not None
    assert read_quotes(output) == file.quotes
    assert [quote.share for quote in file.quotes.history] == [0.25]


def test_a_run_that_quotes_nothing_leaves_no_file_of_quotes(output, claim):
    with status_file(output) as file:
        file.begin(claim, quoter())
        file.add(news(30))
    assert output.read_json("quotes.json") is None
