"""An S3-speaking server on loopback that fails as a real one does, and counts its requests.

    tests -> pyarrow -> [proxy in this process] -> moto in a process of its own

The proxy decides by a seeded choice which requests fail and how, so that a test can be repeated.
Other processes, such as Ray's actors, reach it by its endpoint like any other.
"""

import contextlib
import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest

# "slow_down": 503, "error": 500, "reset": the connection is reset before or after the request was
# served, "cut": the connection ends midway in the body of the answer.
Fault = Literal["slow_down", "error", "reset", "cut"]
FAULTS: tuple[Fault, ...] = ("slow_down", "error", "reset", "cut")
_CODES = {"slow_down": (503, "SlowDown"), "error": (500, "InternalError")}
_HOP_HEADERS = ("connection", "keep-alive", "transfer-encoding", "expect", "content-length")
_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Request:
    """A request that reached the server, and how it was answered; status 0: not at all.

    Attributes:
        began, ended: When it came in and when it was answered, in seconds.
    """

    method: str
    path: str
    status: int
    fault: str | None
    began: float = 0.0
    ended: float = 0.0


@dataclass
class S3Server:
    """A server with knobs; the fixture sets them back before each test.

    Attributes:
        port: Port on 127.0.0.1.
        bucket: Name of an empty bucket.
        failing_share: Share of requests that fail, 0 to 1.
        faults: How they fail, each as likely.
        only: Methods that may fail or are late; all if empty.
        delay_s: Seconds by which each answer is late.
        outage: How all requests fail, or None.
        is_denied: Whether all requests are answered with 403 AccessDenied.
        deny_after: Number of requests after which they are.
        requests: What came in since the last `forget`.
    """

    port: int
    bucket: str = ""
    failing_share: float = 0.0
    faults: tuple[Fault, ...] = FAULTS
    only: tuple[str, ...] = ()
    delay_s: float = 0.0
    outage: Fault | None = None
    is_denied: bool = False
    deny_after: int | None = None
    requests: list[Request] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        """The endpoint with its scheme, as AWS_ENDPOINT_URL has it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """The bucket."""
        return f"s3://{self.bucket}"

    @property
    def storage_options(self) -> dict[str, str]:
        """Value of --storage-options."""
        return {
            "endpoint_override": self.endpoint,
            "region": "us-east-1",
            "access_key": "test-access-key",
            "secret_key": "test-secret-key",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables of the environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test-access-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def fail(self, share: float, *, seed: int = 0, faults: tuple[Fault, ...] = FAULTS) -> None:
        """From now on a share of the requests fails."""
        with self._lock:
            self.failing_share, self.faults, self._random = share, faults, random.Random(seed)

    def forget(self) -> None:
        """Count requests from now on."""
        self.requests.clear()

    def count(self, method: str | None = None, containing: str = "") -> int:
        """Number of requests of a method whose path contains a text."""
        return sum(
            method in (None, request.method) and containing in request.path
            for request in list(self.requests)
        )

    def set_back(self) -> None:
        """Nothing fails, nothing is late, nothing was counted; an empty bucket."""
        self.fail(0.0)
        self.only, self.delay_s, self.outage, self.is_denied = (), 0.0, None, False
        self.deny_after = None
        self.bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("PUT", f"/{self.bucket}")
        assert connection.getresponse().status == 200
        connection.close()
        self.forget()

    def choose_fault(self, method: str) -> Fault | None:
        """How a request fails, or None."""
        if self.outage is not None:
            return self.outage
        if self.only and method not in self.only:
            return None
        with self._lock:
            if self._random.random() < self.failing_share:
                return self._random.choice(self.faults)
        return None


class _Proxy(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 512

    def __init__(self, moto_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.moto_port = moto_port
        self.s3 = S3Server(port=self.server_address[1])
        self.handlers: set[_Handler] = set()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no error of the test."""

    def end(self) -> None:
        """Close the server and every connection."""
        self.shutdown()
        self.server_close()
        for handler in list(self.handlers):
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 5
        while self.handlers and time.monotonic() < deadline:
            time.sleep(0.01)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 2**16
    server: _Proxy

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.server.moto_port, timeout=60)
        self.server.handlers.add(self)

    def finish(self) -> None:
        try:
            with contextlib.suppress(OSError):
                super().finish()
        finally:
            self.upstream.close()
            self.server.handlers.discard(self)

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def _serve(self) -> None:
        self.began = time.perf_counter()
        s3, body = self.server.s3, self._read_body()
        self.fault = s3.choose_fault(self.command)
        if s3.delay_s and (not s3.only or self.command in s3.only):
            time.sleep(s3.delay_s)
        if s3.is_denied or (s3.deny_after is not None and len(s3.requests) >= s3.deny_after):
            self._refuse(403, "AccessDenied")
        elif self.fault in _CODES:
            self._refuse(*_CODES[self.fault])
        elif self.fault == "reset" and zlib.crc32(self.path.encode()) % 2:  # others once served
            self._reset()
        else:
            self._forward(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _forward(self, body: bytes) -> None:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_HEADERS}
        headers["Content-Length"] = str(len(body))
        self.upstream.request(self.command, self.path, body, headers)
        answer = self.upstream.getresponse()
        content = answer.read()
        if self.fault == "reset" or (self.fault == "cut" and not content):
            self._reset()
        else:
            self._answer(answer.status, dict(answer.headers.items()), content)

    def _refuse(self, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(status, {"Content-Type": "application/xml"}, content)

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self._record(status)
        length = len(content)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_HEADERS:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = int(value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.fault == "cut":
            self.wfile.write(content[: length // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _reset(self) -> None:
        self._record(0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _record(self, status: int) -> None:
        ended = time.perf_counter()
        self.server.s3.requests.append(
            Request(self.command, self.path, status, self.fault, self.began, ended)
        )


@contextlib.contextmanager
def run_s3_server() -> Iterator[S3Server]:
    """The server, for as long as the block runs; for scripts as well as for tests."""
    moto = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with moto:
        proxy = _Proxy(int(moto.stdout.readline()))
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            proxy.s3.set_back()
            yield proxy.s3
        finally:
            proxy.end()
            thread.join()
            moto.terminate()


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    """The server of the whole session; tests take `s3_server`."""
    with run_s3_server() as server:
        yield server


@pytest.fixture
def s3_server(s3_process: S3Server) -> S3Server:
    """An S3-speaking server with an empty bucket, at which nothing fails yet."""
    s3_process.set_back()
    return s3_process
