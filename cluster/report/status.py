"""Where a run stands, as a value, as status.json, and as one line.

    driver -> Progress -> [status] -> line of the console
                                   -> status.json -> [status] -> `fastformers status`

The line says how far the run is, how fast, what it has cost, and what is slow and why. The file has
the same numbers, under the names of the attributes. This module knows nothing of terminals, and
neither reads nor writes a file.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from fastformers.cluster.formatting import (
    format_clock,
    format_duration_range,
    format_usd_range,
)
from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.records.quotes import Quote
from fastformers.cluster.scheduling.progress import Progress
from fastformers.cluster.shards.claim_file import ClaimRecord
from fastformers.errors import InputError
from fastformers.formatting import format_count

FORMAT_VERSION = 2  # raised whenever a key comes, goes or changes its meaning
Unit = Literal["scored", "prepared"]

_RECENT_S = 60.0
_MAX_NOTICES = 3  # of a line; the file has all
# What actors do beside running the model: the share of their time from which it is called slow, by
# our judgment, and what it is. Tokenizing is what a preparation is for.
_SLOW = {
    "read": (0.2, "reading the corpus"),
    "tokenize": (0.5, "tokenizing"),
    "write": (0.2, "writing predictions"),
    "wait": (0.2, "waiting for work"),
    "store": (0.05, "waiting for the storage"),
}


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        run, host, pid: Identifier of the run, its machine and process, as in claim.json.
        state: "running", "finished", "interrupted" or "failed".
        reason: Why it failed; None in the other states.
        unit: What is done with shards: "scored" or "prepared".
        started_at, written_at: ISO times in UTC by the clock of the run's machine.
        elapsed_s: Seconds since its start.
        share: Share that is done, 0-1, by predicted seconds.
        left_s: Seconds that are left at the pace so far; None where nothing is done yet.
        shards_done, shards_known: Shards finished in this run; shards known to this run.
        slices_left: Slices of the corpus that are not read yet.
        rows: Rows of the shards finished in this run.
        rows_per_second, rows_per_second_now: Over the whole run; over the last minute.
        usd: USD so far, of all machines.
        quote: What the whole run will cost and when it ends, with 90% intervals; None before enough
            of it is done to say.
        num_nodes, num_actors: How many work now.
        doing: Number of actors by what they do now.
        recent: Share of the actors' time in the last minute by what they did, 0-1.
        notices: What the user should know, such as storage that does not answer.
    """

    run: str
    host: str
    pid: int
    state: str
    reason: str | None
    unit: str
    started_at: str
    written_at: str
    elapsed_s: float
    share: float
    left_s: float | None
    shards_done: int
    shards_known: int
    slices_left: int
    rows: int
    rows_per_second: float
    rows_per_second_now: float
    usd: float
    quote: Quote | None
    num_nodes: int
    num_actors: int
    doing: dict[str, int]
    recent: dict[str, float]
    notices: tuple[str, ...]

    def numbers(self) -> list[str]:
        """Forecast, speed, USD so far, shards, rows, what actors do; what matters most is first."""
        quote = self.quote
        forecast = (
            [] if quote is None else [format_usd_range(quote.usd, quote.usd_low, quote.usd_high)]
        )
        so_far = "" if quote is None else " so far"
        parts = [
            *forecast,
            f"{self.rows_per_second_now:,.0f} rows/s",
            f"{self.usd:.4f} USD{so_far}",
            f"{self.shards_done}/{self.shards_known} shards",
        ]
        if self.slices_left:
            parts.append(f"{format_count(self.slices_left, 'slice')} to read")
        parts.append(f"{self.rows:,} rows ({self.rows_per_second:,.0f}/s overall)")
        if self.num_actors:
            actors = format_count(self.num_actors, "actor")
            nodes = format_count(self.num_nodes, "node")
            parts.append(f"{actors} on {nodes}{self._describe_recent()}")
        else:
            parts.append("waiting for a node")
        return parts

    def remarks(self) -> list[str]:
        """What the user should know beside them: what is slow and why, and what nodes say."""
        slow = self.explain_slow()
        return [*([slow] if slow else []), *self.notices[:_MAX_NOTICES]]

    def describe(self) -> str:
        """Numbers and remarks in one line."""
        return "; ".join([", ".join(self.numbers()), *self.remarks()])

    @property
    def waits_for(self) -> str | None:
        """What a run waits for before anything of it is done; None afterwards."""
        if self.share > 0 or self.shards_done:
            return None
        if not self.num_actors:
            return "starting actors"
        if self.shards_known:
            return f"waiting for the first shards to be {self.unit}"
        return "reading the first slice"

    @property
    def time_left(self) -> str | None:
        """The time that is left, with its interval as soon as that is known; None before."""
        quote = self.quote
        if quote is None:
            return None if self.left_s is None else format_clock(self.left_s)
        at, *ends = (
            datetime.fromisoformat(time)
            for time in (quote.at, quote.ends_at, quote.ends_at_low, quote.ends_at_high)
        )
        return format_duration_range(*((end - at).total_seconds() for end in ends))

    def describe_whole(self) -> str:
        """The line of `describe` with what a display of progress puts around it."""
        left = "" if self.time_left is None else f"ETA {self.time_left}, "
        return f"{self.unit}: {100 * self.share:.0f}%, {left}{self.describe()}"

    def explain_slow(self) -> str | None:
        """What keeps actors from running the model, if that takes long; not of the first minute."""
        over = {
            what: self.recent.get(what, 0.0) / limit
            for what, (limit, _) in _SLOW.items()
            if (self.unit, what) != ("prepared", "tokenize")
        }
        what = max(over, key=lambda name: over[name])
        if self.elapsed_s < _RECENT_S or over[what] < 1:
            return None
        return f"slow: {100 * self.recent[what]:.0f}% of the actors' time is {_SLOW[what][1]}"

    def _describe_recent(self) -> str:
        shares = sorted(self.recent.items(), key=lambda item: -item[1])
        shown = [f"{what} {100 * share:.0f}%" for what, share in shares if share >= 0.005]
        return f" ({', '.join(shown)})" if shown else ""

    def to_json(self) -> dict[str, Any]:
        """Content of status.json."""
        return {"format_version": FORMAT_VERSION, **to_plain(self)}

    @classmethod
    def from_json(cls, content: object, *, path: str) -> "RunStatus":
        """The status from which `to_json` made `content`.

        Raises:
            InputError: It is no status of ours, of another version, or damaged.
        """
        if isinstance(content, dict) and content.get("format_version") == 1:
            content = {**content, "format_version": FORMAT_VERSION, "quote": None}
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: is not a status that this version of fastformers reads; take the version "
                "that wrote it"
            )
        values = {key: value for key, value in content.items() if key != "format_version"}
        try:
            status: RunStatus = from_plain(cls, values)
        except ValueError as error:
            raise InputError(
                f"{path}: damaged: {error}; a running command writes it anew"
            ) from error
        return status


class StatusTally:
    """Makes the status of a run from what its driver reports."""

    def __init__(
        self,
        claim: ClaimRecord,
        unit: Unit,
        usd_so_far: Callable[[Progress], float],
        quote: Callable[[Progress], Quote | None] = lambda progress: None,
    ) -> None:
        """Begin a run.

        Args:
            claim: The run's claim on its output.
            unit: What is done with shards.
            usd_so_far: What all machines have cost by a report.
            quote: What the whole run will cost and take by a report.
        """
        self._quote = quote
        self._claim = claim
        self._unit = unit
        self._usd_so_far = usd_so_far
        self._rows: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._doing: deque[tuple[float, Mapping[str, float]]] = deque()
        self._first: tuple[float, float] | None = None
        self._last_s = 0.0

    def add(self, progress: Progress) -> RunStatus:
        """Take a report; returns the status that follows from it."""
        now = progress.elapsed_s
        self._rows.append((now, progress.num_rows))
        passed_s = now - self._last_s
        self._doing.append((now, {what: passed_s * n for what, n in progress.doing.items()}))
        self._last_s = now
        while len(self._rows) > 1 and now - self._rows[1][0] >= _RECENT_S:
            self._rows.popleft()
        while now - self._doing[0][0] > _RECENT_S:
            self._doing.popleft()
        known_s = progress.predicted_done_s + progress.predicted_left_s
        share = progress.predicted_done_s / known_s if known_s else 0.0
        before_s, before_rows = self._rows[0]
        return RunStatus(
            run=self._claim.run,
            host=self._claim.host,
            pid=self._claim.pid,
            state="running",
            reason=None,
            unit=self._unit,
            started_at=_iso(self._claim.started_at),
            written_at=_iso(self._claim.started_at + now),
            elapsed_s=now,
            share=share,
            left_s=self._estimate_left_s(now, share),
            shards_done=progress.num_done,
            shards_known=progress.num_known,
            slices_left=progress.num_slices_left,
            rows=progress.num_rows,
            rows_per_second=_rate(progress.num_rows, now),
            rows_per_second_now=_rate(progress.num_rows - before_rows, now - before_s),
            usd=self._usd_so_far(progress),
            quote=self._quote(progress),
            num_nodes=progress.num_nodes,
            num_actors=progress.num_actors,
            doing=dict(progress.doing),
            recent=self._recent_shares(),
            notices=progress.notices,
        )

    def begin(self) -> RunStatus:
        """The status before the driver's first report."""
        return self.add(Progress())

    def _estimate_left_s(self, now: float, share: float) -> float | None:
        """Seconds that are left, from the share done since the driver's first report."""
        if self._first is None:
            self._first = None if now == 0 else (now, share)
            return None
        first_s, first_share = self._first
        gained = share - first_share
        return (now - first_s) * (1 - share) / gained if gained > 0 else None

    def _recent_shares(self) -> dict[str, float]:
        seconds: dict[str, float] = {}
        for _, doing_s in self._doing:
            for what, actor_s in doing_s.items():
                seconds[what] = seconds.get(what, 0.0) + actor_s
        total_s = sum(seconds.values())
        return {what: actor_s / total_s for what, actor_s in seconds.items()} if total_s else {}


def _rate(number: int, seconds: float) -> float:
    return number / seconds if seconds > 0 else 0.0


def _iso(seconds: float) -> str:
    """A moment in seconds since 1970 as an ISO time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
