"""The record of who works in a directory, and whether that process still lives.

    run -> [claim_file] -> claim.json of an output -> second start, `fastformers status`

The run that holds a directory raises `beat` every few seconds. Whether it lives is judged by that
number and by the processes of this machine, never by comparing the clocks of two machines. This
module knows nothing of jobs, and decides nothing.
"""

import fcntl
import os
import platform
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fastformers.cluster.formatting import format_time
from fastformers.cluster.storage.directory import TEMPORARY_SUFFIX, Directory
from fastformers.errors import InputError

CLAIM_FILE = "claim.json"
FORMAT_VERSION = 1

# "gone": it ended; "stopped": it stands still, as after SIGSTOP; "unknown": not of this machine.
Liveness = Literal["gone", "alive", "stopped", "unknown"]


@dataclass(frozen=True, kw_only=True)
class ClaimRecord:
    """Who works in a directory.

    Attributes:
        run: Identifier of the run, unique for each start of a command.
        host: Name of the machine, for people.
        pid: Process of the command.
        machine: Identifier of the machine's boot and of its namespace of processes, because
            containers of one machine may share a host name; None where the system does not tell.
        process_start: Start of the process in ticks since boot, because numbers of processes are
            used again; None where the system does not tell.
        started_at: Start of the run by the clock of its machine, in seconds since 1970.
        beat: Number that rises while the run lives.
        beat_at: When it was raised by the clock of that machine, in seconds since 1970; for people.
    """

    run: str
    host: str
    pid: int
    machine: str | None
    process_start: int | None
    started_at: float
    beat: int
    beat_at: float

    def __str__(self) -> str:
        """Host, process and start, for messages."""
        return f"{self.host} (process {self.pid}) since {format_time(self.started_at)} UTC"

    def to_json(self) -> dict[str, Any]:
        """Content of claim.json."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def new_claim(now: float) -> ClaimRecord:
    """The claim of a run that this process starts.

    Args:
        now: Time of day, in seconds since 1970.
    """
    pid = os.getpid()
    return ClaimRecord(
        run=uuid.uuid4().hex,
        host=platform.node(),
        pid=pid,
        machine=_identify_machine(),
        process_start=_read_process(pid)[1],
        started_at=now,
        beat=0,
        beat_at=now,
    )


def read_claim(directory: Directory) -> ClaimRecord | None:
    """Who works in a directory; None if nobody does.

    Raises:
        InputError: The file is not ours, or of another version.
    """
    content = directory.read_json(CLAIM_FILE)
    return None if content is None else _parse(content, f"{directory}/{CLAIM_FILE}")


def judge_process(claim: ClaimRecord) -> Liveness:
    """What becomes of the process of a claim, as far as this machine can see."""
    if claim.machine is None or claim.machine != _identify_machine():
        return "unknown"
    if claim.host != platform.node():
        return "unknown"
    state, start = _read_process(claim.pid)
    if state is None:
        return "unknown" if _exists(claim.pid) else "gone"  # /proc may hide processes of others
    if start != claim.process_start or state in "ZX":
        return "gone"
    return "stopped" if state in "Tt" else "alive"


def put_claim(directory: Directory, claim: ClaimRecord) -> None:
    """Write a claim, whatever is there."""
    directory.write_json(CLAIM_FILE, claim.to_json())


def put_claim_if_absent(directory: Directory, claim: ClaimRecord) -> bool | None:
    """Write a claim where none is; of several processes that try at once exactly one succeeds.

    Returns:
        Whether it is written; None where the storage has no such operation. `pyarrow.fs` offers
        none for buckets, and some shared filesystems know no hard links.

    Raises:
        StorageError: It cannot be written.
    """
    if not directory.is_local:
        return None
    name = f".{CLAIM_FILE}.{claim.run}{TEMPORARY_SUFFIX}"
    directory.write_json(name, claim.to_json())
    complete = Path(directory.path, name)
    try:
        Path(directory.path, CLAIM_FILE).hardlink_to(complete)
    except FileExistsError:
        return False
    except OSError:
        return None
    finally:
        complete.unlink(missing_ok=True)
    return True


def replace_claim(directory: Directory, left: ClaimRecord, claim: ClaimRecord) -> bool | None:
    """Write a claim in place of one that its run has left behind.

    Of several processes that try at once exactly one succeeds.

    Returns:
        Whether it is written: not if the claim that was left has changed since. None where the
        storage has no locks, which is so for buckets and for some shared filesystems.

    Raises:
        StorageError: It cannot be written.
    """
    if not directory.is_local:
        return None
    lock = os.open(directory.path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        os.close(lock)
        return None
    try:
        if read_claim(directory) != left:
            return False
        put_claim(directory, claim)
        return True
    finally:
        os.close(lock)


def release_claim(directory: Directory, run: str) -> None:
    """Remove the claim of a run that ends, unless another run holds the directory now."""
    claim = read_claim(directory)
    if claim is not None and claim.run == run:
        directory.delete_file(CLAIM_FILE)


def _parse(content: object, path: str) -> ClaimRecord:
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: is not a claim that this version of fastformers reads; if no run of another "
            "version works there, delete it"
        )
    values = {key: value for key, value in content.items() if key != "format_version"}
    try:
        return ClaimRecord(**values)
    except TypeError as error:
        raise InputError(f"{path}: is damaged; if no run works there, delete it") from error


def _identify_machine() -> str | None:
    """The boot of this machine and the namespace of its processes; None where that is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _read_process(pid: int) -> tuple[str | None, int | None]:
    """State of a process and its start in ticks since boot; None for both if it cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None, None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
