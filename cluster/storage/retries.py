"""Do something in a bucket, and wait where its service does not answer.

    Directory, readers -> [retries] -> pyarrow filesystem

`pyarrow.fs` tries a request a few times, for some seconds in all. That does for a lost packet; a
service that is down or overloaded comes back after minutes, and a job of a thousand machines should
be there then. So what failed is done again until it succeeds, at random times that grow apart, so
that ten thousand actors do not come back all at once. What no waiting can mend (a wrong endpoint,
key or bucket) is refused at once. Operations must leave the same when they are done twice.
"""

import errno
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from fastformers.cluster.storage.outages import OutageRecord, record
from fastformers.errors import StorageError

T = TypeVar("T")

# How long a service may be away, the longest wait before the first time that something is done
# again, and before any other time. Seconds.
LIMIT_S, FIRST_WAIT_S, LONGEST_WAIT_S = 900.0, 0.5, 20.0

# pyarrow raises an OSError with a text for whatever a service says, so that text is all there is.
_S3_CODE = re.compile(r"AWS Error (?P<code>[A-Z_0-9]+)(?: \(HTTP status (?P<status>\d+)\))?")
_GCS_CODE = re.compile(r"google::cloud::Status\((?P<code>[A-Z_]+)")
_AZURE_CODE = re.compile(r"Azure Error: \[(?P<code>\w*)\]")
_CURL_CODE, _CURL_TEXT = re.compile(r"curlCode: (\d+)"), re.compile(r"curlCode: \d+, ([^;]+)")
_NO_KEY = re.compile(r"AWS Error NO_SUCH_KEY|Azure Error: \[BlobNotFound\]")
_NOT_A_FILE = re.compile("Not a regular file|Would delete bucket")
_NO_BUCKET = re.compile(r"Bucket '[^']*' not found")
_PREFIX = re.compile(r"^When .*? in bucket '[^']*': ")
_REQUEST_ID = re.compile(r" \(Request ID: [^)]*\)")
_DENIED = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"),
    *("UNRECOGNIZED_CLIENT", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("INVALID_SIGNATURE", "INCOMPLETE_SIGNATURE", "OPT_IN_REQUIRED", "NOT_INITIALIZED"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED"),
    *("AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch"),
    *("InsufficientAccountPermissions", "InvalidAuthenticationInfo", "AccountIsDisabled"),
    *("NoAuthenticationInformation", "PublicAccessNotPermitted"),
)
_MISSING = ("NO_SUCH_BUCKET", "ContainerNotFound", "FilesystemNotFound")
_REFUSED = (
    *("VALIDATION", "INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_COMBINATION", "MALFORMED_QUERY"),
    *("INVALID_ACTION", "INVALID_QUERY_PARAMETER", "MISSING_ACTION", "MISSING_PARAMETER"),
    *("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "UNIMPLEMENTED", "OUT_OF_RANGE"),
    *("InvalidResourceName", "InvalidUri", "AuthorizationProtocolMismatch"),
)
# Codes of curl: a malformed URL, no such proxy or host, no connection, no TLS, a bad certificate.
_UNREACHABLE = ("3", "5", "6", "7", "35", "60")

_threads, _NEVER = threading.local(), threading.Event()


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How a process waits, by which clock and chance.

    Attributes:
        clock: Monotonic clock, in seconds.
        sleep: Waits for some seconds, or until this thread shall stop.
        chance: Random number of [0, 1).
        record: Record of what waits.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = lambda seconds: _stop_of_thread().wait(seconds)
    chance: Callable[[], float] = random.random
    record: OutageRecord = field(default_factory=record)


@dataclass(kw_only=True)
class Service:
    """A bucket, as one process knows it.

    Attributes:
        name: Its URI.
        endpoint: Where it is looked for, for messages.
        redact: Takes secrets out of a text.
        tells: Whether lines tell the user of this process when it is away.
        has_answered: Whether it is known to be there, so that a failed connection is an outage
            and not a wrong endpoint.
        waiting: How to wait for it.
    """

    name: str
    endpoint: str
    redact: Callable[[str], str]
    tells: bool
    has_answered: bool
    waiting: Waiting = field(default_factory=Waiting)

    def persist(self, path: str, act: Callable[[], T]) -> T:
        """Do something until the service answers.

        Args:
            path: What it is about, as a URI.
            act: What to do; it may be done several times.

        Raises:
            FileNotFoundError, NotADirectoryError: As `act` raises it: the service has answered.
            StorageError: The service refuses, cannot be reached, or does not come back; or the
                block of `until` was ended.
        """
        waiting, key, start, longest_s = self.waiting, object(), None, FIRST_WAIT_S
        teller = self.name if self.tells else ""
        begun, has_answered = waiting.clock(), False
        try:
            while True:
                try:
                    result = act()
                    self.has_answered = has_answered = True
                    return result
                except (FileNotFoundError, NotADirectoryError):
                    self.has_answered = has_answered = True
                    raise
                except OSError as error:
                    reason = self._check(path, error, waiting.clock() - begun)
                start = begun if start is None else start
                waiting.record.wait(key, teller, path, start, reason)
                waiting.sleep(waiting.chance() * longest_s)
                if _stop_of_thread().is_set():
                    raise StorageError(f"{path}: was not waited for any longer ({reason})")
                longest_s = min(2 * longest_s, LONGEST_WAIT_S)
        finally:
            waiting.record.end(key, teller, has_answered=has_answered)

    def attempt(self, path: str, act: Callable[[], None]) -> None:
        """Do something once; it is no error if the service is away.

        Args:
            path: What it is about, as a URI.
            act: What to do.

        Raises:
            FileNotFoundError, NotADirectoryError: As `act` raises it.
            StorageError: The service refuses or cannot be reached, which no waiting mends.
        """
        try:
            act()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            self._check(path, error, 0.0)

    def _check(self, path: str, error: OSError, waited_s: float) -> str:
        """Reason of an error that may pass.

        Raises:
            FileNotFoundError: There is no such object.
            StorageError: It will not pass, or did not.
        """
        text = str(error)
        reason = self.redact(describe(text))
        if _NO_KEY.search(text):
            raise FileNotFoundError(errno.ENOENT, "No such file", path) from None
        found = _S3_CODE.search(text) or _GCS_CODE.search(text) or _AZURE_CODE.search(text)
        codes = found.groupdict() if found else {}
        code, status = codes.get("code"), int(codes.get("status") or 0)
        curl = _CURL_CODE.search(text)
        # No cause is chained: it would show what `redact` took out.
        if code in _MISSING or _NO_BUCKET.match(text):
            raise StorageError(f"{path}: there is no bucket {self.name}; make it first") from None
        if code in _DENIED or status in (401, 403) or isinstance(error, PermissionError):
            raise StorageError(
                f"{path}: access denied ({reason}); check the credentials in --storage-options or "
                "the environment"
            ) from None
        if _NOT_A_FILE.match(text):
            raise StorageError(f"{path}: is a directory or a bucket, not a file") from None
        if code in _REFUSED or (300 <= status < 500 and status not in (408, 425, 429)):
            raise StorageError(f"{path}: refused by {self.endpoint} ({reason})") from None
        if not self.has_answered and curl is not None and curl[1] in _UNREACHABLE:
            raise StorageError(
                f"{path}: {self.endpoint} cannot be reached ({reason}); check the endpoint in "
                "--storage-options or the environment, and the network"
            ) from None
        if waited_s > LIMIT_S:
            raise StorageError(
                f"{path}: no answer for {waited_s / 60:.0f} minutes ({reason}); what is finished "
                "is kept, run the same command again"
            ) from None
        return reason


@contextmanager
def until(stop: threading.Event) -> Iterator[None]:
    """While the block runs, what this thread waits for is given up when `stop` is set."""
    before = _stop_of_thread()
    _threads.stop = stop
    try:
        yield
    finally:
        _threads.stop = before


def _stop_of_thread() -> threading.Event:
    stop: threading.Event = getattr(_threads, "stop", _NEVER)
    return stop


def describe(text: str) -> str:
    """What a service said, without what the caller knows, in one short line."""
    line = " ".join(_REQUEST_ID.sub("", _PREFIX.sub("", text)).split())
    if (curl := _CURL_TEXT.search(line)) is not None:
        return curl[1]
    return line if len(line) <= 200 else f"{line[:199]}…"
