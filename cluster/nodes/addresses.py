"""Which Ray cluster a command works on: a named one, one that runs on this machine, or its own.

    --address, environment, Ray's record -> [addresses] -> ray_pool

Ray writes the address of the cluster that `ray start` made or joined on a machine into a file; a
script that `ray submit` copied to the head finds its cluster there. This module connects to
nothing but a port, and does not load Ray.
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastformers.errors import InputError

# Set by Ray's job server in the process that a job starts with.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# As `ray start` names its record, and where its directory may be, most important first.
_RECORD = Path("ray") / "ray_current_cluster"
_TEMPORARY_DIRECTORIES = ("RAY_TMPDIR", "TMPDIR")
_ANSWERS_WITHIN_S = 3.0
# A socket's path has at most so many bytes, and Ray adds so many to its directory, as in
# session_2026-11-26_03-46-12_399942_1234567/sockets/plasma_store.
_SOCKET_PATH_BYTES, _SESSION_BYTES = 107, 65
_CLUSTER_ANSWERS_WITHIN_S = 10.0
# How a client of gRPC begins (RFC 9113, 3.4); a server that works answers with its own settings.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_OWN = "local"
_RECORDED = "auto"


@dataclass(frozen=True)
class ClusterAddress:
    """A decision, and what the user should know of it.

    Attributes:
        address: Host and port of a cluster; None for one of the command's own on this machine.
        notice: A line to show, where neither a flag nor a variable names the cluster.
    """

    address: str | None
    notice: str | None = None


def answers(address: str) -> bool:
    """Whether something listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    except (OSError, ValueError):
        return False
    return True


def resolve_address(
    flag: str | None,
    environ: Mapping[str, str],
    *,
    answers: Callable[[str], bool] = answers,
    uid: int | None = None,
) -> ClusterAddress:
    """Choose the cluster: `--address`, then RAY_ADDRESS, then Ray's record here, then an own one.

    Args:
        flag: Value of `--address`, if it was given: host:port, `auto` for the cluster that runs
            here, or `local` for one of the command's own.
        environ: Environment of the process.
        answers: Says whether something listens at an address.
        uid: User whose clusters are used without being asked for; the process's own if None.

    Raises:
        InputError: The address is no cluster's, or it is `auto` and no cluster runs here.
    """
    check_address(flag, environ)
    name, wanted = _wanted(flag, environ)
    if wanted == _OWN:
        return ClusterAddress(None)
    if wanted and wanted != _RECORDED:
        return ClusterAddress(wanted)
    record = find_record(environ)
    recorded = _read(record)
    if wanted == _RECORDED:
        if recorded is None or not answers(recorded):
            raise InputError(
                f"{name} auto: no Ray cluster runs on this machine ({record}); start one with ray "
                "start --head, or give the address of another as HOST:PORT"
            )
        return ClusterAddress(recorded)
    if recorded is None:
        return ClusterAddress(None)
    if record.stat().st_uid not in (0, os.getuid() if uid is None else uid):
        return ClusterAddress(
            None, f"starting Ray here; --address {recorded} is a cluster of another user's"
        )
    if not answers(recorded):
        return ClusterAddress(
            None,
            f"starting Ray here: the cluster at {recorded}, which {record} names, does not answer",
        )
    return ClusterAddress(
        recorded, f"using the Ray cluster at {recorded}; --address local starts one of its own"
    )


def find_record(environ: Mapping[str, str]) -> Path:
    """The file in which `ray start` keeps the address of the cluster of this machine."""
    named = (environ[name] for name in _TEMPORARY_DIRECTORIES if name in environ)
    return Path(next(named, "/tmp")) / _RECORD


def check_socket_paths(environ: Mapping[str, str]) -> None:
    """Refuse a directory for temporary files that is too deep for Ray's sockets.

    Raises:
        InputError: A path of Ray's would be longer than a socket's may be.
    """
    directory = str(find_record(environ).parent)
    most = _SOCKET_PATH_BYTES - _SESSION_BYTES
    if len(os.fsencode(directory)) > most:
        name = next((name for name in _TEMPORARY_DIRECTORIES if name in environ), "the directory")
        raise InputError(
            f"{name} makes Ray work in {directory}, which is too long for its sockets (at most "
            f"{most} bytes); set RAY_TMPDIR to a shorter directory, such as /tmp"
        )


def check_output(output: str, environ: Mapping[str, str]) -> None:
    """Refuse a relative output in a job of Ray's job server.

    A job runs in a directory of Ray's session, which is deleted with the session.

    Raises:
        InputError: The output is neither a URI nor an absolute path, and this is such a job.
    """
    if _JOB_VARIABLE in environ and "://" not in output and not Path(output).is_absolute():
        raise InputError(
            f"--output {output}: a job of Ray's job server runs in a directory that is deleted "
            "with the session; give an absolute path of a shared disk, or a URI"
        )


def check_address(flag: str | None, environ: Mapping[str, str]) -> None:
    """Refuse an address that no cluster can have, before anything is asked or written.

    Raises:
        InputError: `--address`, or RAY_ADDRESS without it, is that of a client or a job server.
    """
    name, address = _wanted(flag, environ)
    scheme, separator, _ = (address or "").partition("://")
    if not separator:
        return
    server = address if scheme in ("http", "https") else "http://HEAD:8265"
    what = {
        "ray": "Ray's client protocol would run the driver here, away from the corpus",
        "http": "this is a job server, not a cluster",
        "https": "this is a job server, not a cluster",
    }.get(scheme, "an address is HOST:PORT, auto or local")
    raise InputError(
        f"{name} {address}: {what}; use ray job submit --address {server} -- fastformers score ..."
    )


def check_answers(address: str) -> None:
    """Refuse an address in seconds where no cluster answers; Ray itself would try for minutes.

    Raises:
        InputError: Nothing answers there, or no cluster does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():  # "auto", or a name that Ray resolves
        return
    try:
        with socket.create_connection((host, int(port)), _CLUSTER_ANSWERS_WITHIN_S) as connection:
            connection.sendall(_HELLO)
            answer = connection.recv(1) if "RAY_USE_TLS" not in os.environ else b"unknown"
    except OSError as error:
        reason = error.strerror or str(error)
    else:
        if answer:
            return
        reason = "what listens there is no control store of Ray's"
    raise InputError(
        f"--address {address}: no Ray cluster answers there ({reason}); start one with ray start "
        "--head, or leave --address out"
    )


def _wanted(flag: str | None, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """What names the cluster, and the address there."""
    return ("--address", flag) if flag else ("RAY_ADDRESS", environ.get("RAY_ADDRESS"))


def _read(record: Path) -> str | None:
    try:
        return record.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
