"""Say where a run stands, from any terminal: reads only its output directory.

fastformers status OUTPUT

Exit status 0: it is running or finished. 3: it ended before all was done, or its heartbeat stopped;
run the same command again to go on. 2: no run was ever there.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rich.live import Live
from rich.text import Text

from fastformers.cluster.formatting import format_short_duration
from fastformers.cluster.json_values import to_plain
from fastformers.cluster.report.run_report import REPORT_FILE, RunReport
from fastformers.cluster.report.status import RunStatus
from fastformers.cluster.report.tables import render_bill
from fastformers.cluster.shards.claim_file import ClaimRecord, judge_process, read_claim
from fastformers.cluster.shards.identity import STATUS_FILE, find_home
from fastformers.cluster.storage.directory import Directory, open_directory
from fastformers.errors import InputError
from fastformers.jobs.console.arguments import add_storage_arguments
from fastformers.jobs.console.command_line.idle_flags import STORAGE, refuse_idle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import can_draw_over

# Heartbeats come every 10 s (`ClaimTimes`); a little more than one of them is waited for.
_STALE_S, _LISTEN_S, _POLL_S = 45.0, 15.0, 1.0
_WATCH_EVERY_S = 10.0
_ENDED_EARLY = 3
_GO_ON = "run the same command again to go on"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers status`."""
    parser = CommandParser(
        prog="fastformers status",
        description=__doc__,
    )
    parser.add_argument("output", help="--output of a `fastformers score` or `prepare`")
    add_storage_arguments(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_WATCH_EVERY_S,
        metavar="SECONDS",
        help=f"show it again every so many seconds until the run ends (once; without a number: "
        f"{_WATCH_EVERY_S:g})",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers status`."""
    options = parse(arguments)
    states: list[str] = []

    def job() -> dict[str, Any]:
        refuse_idle(options, (STORAGE,))
        output = open_directory(options.output, options.storage_options)
        heartbeat = Heartbeat(_home_of(output))
        found = find_run(output, heartbeat)
        if options.watch is not None:
            found = _watch(output, heartbeat, found, every_s=options.watch)
        console.print(found.line)
        if found.report is not None and found.is_scored:
            console.print(render_bill(found.report))
        states.append(found.state)
        return found.summarize()

    exit_status = run(job, options)
    return _ENDED_EARLY if states and states[0] not in ("running", "finished") else exit_status


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """What an output says about its run.

    Attributes:
        output: The output.
        state: "running", "finished", "interrupted", "failed" or "stale": its heartbeat stopped.
        line: The same for people, with where it stands.
        is_scored: Whether shards are scored, not only prepared.
        status: What the run wrote last; None before that.
        report: Its report, if it is finished.
    """

    output: str
    state: str
    line: str
    is_scored: bool
    status: RunStatus | None
    report: RunReport | None

    def summarize(self) -> dict[str, Any]:
        """What the last line shows."""
        shown: dict[str, Any] = {}
        if self.report is not None and self.is_scored:
            shown = self.report.summarize()
        elif self.report is not None:
            shown = self.report.summarize_preparation()
        elif self.status is not None:
            shown = to_plain(self.status)
        return {**shown, "output": self.output, "state": self.state}


class Heartbeat:
    """Judges whether a run lives: by its process on this machine, else by its heartbeat.

    A heartbeat that is old, or from the future, by this machine's clock is listened to before it is
    judged: the clocks of two machines may differ.
    """

    def __init__(
        self,
        home: Directory,
        *,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to listen in the directory of a run's records; clocks are in seconds."""
        self._home = home
        self._clock, self._time_of_day, self._sleep = clock, time_of_day, sleep
        self._seen: tuple[str, int] | None = None
        self._seen_at = 0.0

    def is_alive(self, claim: ClaimRecord) -> bool:
        """Whether the run of a claim that was just read lives."""
        liveness = judge_process(claim)
        if liveness in ("alive", "gone"):
            return liveness == "alive"
        before, self._seen = self._seen, (claim.run, claim.beat)
        if before != self._seen:
            self._seen_at = self._clock()
        if before is None:
            is_fresh = 0 <= self._time_of_day() - claim.beat_at < _STALE_S
            return is_fresh or self._hears_a_beat()
        return self._clock() - self._seen_at < _STALE_S

    def _hears_a_beat(self) -> bool:
        start = self._clock()
        while self._clock() - start < _LISTEN_S:
            self._sleep(_POLL_S)
            claim = read_claim(self._home)
            if claim is None or (claim.run, claim.beat) != self._seen:
                return True
        return False


def find_run(output: Directory, heartbeat: Heartbeat) -> FoundRun:
    """What an output says about its run.

    Raises:
        InputError: No run was ever there, or a file there is not ours.
    """
    home = _home_of(output)
    content = home.read_json(STATUS_FILE)
    path = f"{home}/{STATUS_FILE}"
    status = None if content is None else RunStatus.from_json(content, path=path)
    claim = read_claim(home)
    if claim is not None:
        if status is not None and status.run != claim.run:
            status = None  # of an earlier run
        state, line = _describe_claimed(claim, status, is_alive=heartbeat.is_alive(claim))
        report = None
    else:
        report = _read_report(home)
        state, line = _describe_ended(status, report)
        report = report if state == "finished" else None
    return FoundRun(
        output=str(output),
        state=state,
        line=line,
        is_scored=home != output,
        status=status,
        report=report,
    )


def _home_of(output: Directory) -> Directory:
    """Directory of the records of the run.

    Raises:
        InputError: No run was ever there.
    """
    home = find_home(output, named=str(output))
    if home is None:
        raise InputError(
            f"{output}: no run was ever there; name the --output of a fastformers score or prepare"
        )
    return home


def _describe_claimed(
    claim: ClaimRecord, status: RunStatus | None, *, is_alive: bool
) -> tuple[str, str]:
    """State of a run that holds its output, and the line for it."""
    stands = status.describe_whole() if status is not None and status.num_nodes else "starting"
    if is_alive:
        return "running", f"running on {claim}: {stands}"
    if judge_process(claim) == "gone":
        return "stale", f"stale: the run on {claim} was killed; {_GO_ON}. Last: {stands}"
    age_s = max(0.0, time.time() - claim.beat_at)
    since = f"for {format_short_duration(age_s)}" if age_s > _STALE_S else "any more"
    return "stale", f"stale: no heartbeat {since} from {claim}; {_GO_ON}. Last: {stands}"


def _describe_ended(status: RunStatus | None, report: RunReport | None) -> tuple[str, str]:
    """State of a run that gave its output back, and the line for it."""
    if status is None:
        if report is not None:
            return "finished", f"finished after {format_short_duration(report.wall_s)}"
        return "interrupted", f"interrupted: it has ended, and did not say where it stood; {_GO_ON}"
    who = f"on {status.host}, begun {status.started_at}"
    if status.state == "finished":
        return "finished", f"finished {who}: {status.describe_whole()}"
    if status.state == "failed":
        return "failed", f"failed {who}: {status.reason}. Last: {status.describe_whole()}"
    return "interrupted", f"interrupted {who}; {_GO_ON}. Last: {status.describe_whole()}"


def _read_report(home: Directory) -> RunReport | None:
    content = home.read_json(REPORT_FILE)
    if content is None:
        return None
    return RunReport.from_json(
        content,
        path=f"{home}/{REPORT_FILE}",
        remedy="run the same command again, it does nothing twice",
    )


def _watch(output: Directory, heartbeat: Heartbeat, found: FoundRun, *, every_s: float) -> FoundRun:
    """Show a run until it runs no more: one line that changes in a terminal, elsewhere lines."""
    is_live = can_draw_over(console)
    live = Live(console=console, auto_refresh=False, transient=True)
    with live if is_live else nullcontext():
        while found.state == "running":
            if is_live:
                live.update(Text(found.line), refresh=True)
            else:
                console.print(found.line)
            time.sleep(every_s)
            found = find_run(output, heartbeat)
    return found


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text}: give seconds above 0, such as 30")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
