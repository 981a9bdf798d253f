"""What each session of a run did and cost: one start of the command, until it ended or was killed.

    summary -> Session -> [sessions] -> __run__/sessions/RUN.json -> report of a later session

A session writes its record while it works, every few seconds, so that one that is killed is on the
bill, too, but for the last seconds. A record that still says "running" when another session reads
it is of one that was killed. This module adds nothing up, and knows nothing of nodes or prices.
"""

from dataclasses import dataclass, replace
from typing import Any

from fastformers.cluster.json_values import from_plain, to_plain
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError

SESSIONS_DIRECTORY = "sessions"
RUNNING, KILLED = "running", "killed"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Core-seconds that were paid for under one heading of the bill, and their price in USD."""

    core_s: float
    usd: float


@dataclass(frozen=True, kw_only=True)
class Session:
    """One start of the command.

    Attributes:
        run: Identifier of the session, that of its claim.
        state: "running", then "finished", "interrupted" or "failed"; "killed" where it did not end.
        started_at: ISO time of the start, in UTC.
        wall_s: Seconds from the start to the end, or until it was heard of last.
        shards, rows, tokens: What it scored; where shards are only prepared, nothing.
        retries: Leases that were lost with their actor.
        num_machines, num_actors: How many worked.
        machine_s: Seconds of all machines that were paid for.
        usd: Their price.
        price: Where the price, or that of each type, comes from, for people.
        price_is_estimate: Whether that of any machine is an estimate.
        price_mismatches: What machines are seen to have that their types have not, for people.
        spent: Where the money went, by heading.
        phase_s: Seconds of all actors by phase, idle ones included.
        predicted_core_s, measured_core_s: Core-seconds of running the model.
    """

    run: str
    state: str
    started_at: str
    wall_s: float
    shards: int
    rows: int
    tokens: int
    retries: int
    num_machines: int
    num_actors: int
    machine_s: float
    usd: float
    price: str
    price_is_estimate: bool
    price_mismatches: tuple[str, ...]
    spent: dict[str, Spent]
    phase_s: dict[str, float]
    predicted_core_s: float
    measured_core_s: float


def write_session(home: Directory, session: Session) -> None:
    """Write the record of a session, in place of the one before.

    Raises:
        StorageError: It cannot be written.
    """
    directory = home.child(SESSIONS_DIRECTORY)
    directory.create()
    directory.write_json(f"{session.run}.json", to_plain(session))


def read_sessions(home: Directory, *, but: str) -> tuple[Session, ...]:
    """The sessions of a run in the order of their starts.

    Args:
        home: Directory of the records of the run.
        but: The session that asks, which is left out.

    Raises:
        InputError: A record is not ours, or damaged.
    """
    directory = home.child(SESSIONS_DIRECTORY)
    names = [name for name in directory.list_files() if name.endswith(".json")]
    contents = directory.map_files((n for n in names if n != f"{but}.json"), directory.read_json)
    found = [_parse(content, f"{directory}") for content in contents]
    return tuple(sorted(found, key=lambda session: (session.started_at, session.run)))


def _parse(content: Any, path: str) -> Session:
    try:
        session: Session = from_plain(Session, content)
    except ValueError as error:
        raise InputError(
            f"{path}: the record of a session is damaged: {error}; delete it, and its cost is not "
            "on the bill"
        ) from error
    return replace(session, state=KILLED) if session.state == RUNNING else session
