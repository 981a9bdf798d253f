"""A metadata service that speaks as those of AWS, GCP and Azure do, and clusters of no nodes."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cluster.nodes.fake_cluster import Cluster

TOKEN = "a-token-of-version-2"


class _Handler(BaseHTTPRequestHandler):
    """Refuses what the real services refuse; the items are those of `server.items`."""

    def log_message(self, *arguments):
        pass

    def answer(self, status, text="", flavor=None):
        body = text if isinstance(text, bytes) else text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if flavor:
            self.send_header("Metadata-Flavor", flavor)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        self.server.requests.append(f"PUT {self.path}")
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not self.server.has_tokens:
            self.answer(404)
        elif self.path == "/latest/api/token" and seconds.isdigit() and int(seconds) <= 21600:
            self.answer(200, TOKEN)
        else:
            self.answer(400)

    def do_GET(self):
        self.server.requests.append(f"GET {self.path}")
        self.server.may_answer.wait(60.0)
        address = urlsplit(self.path)
        item, query = address.path, parse_qs(address.query)
        text = self.server.items.get(item)
        if item.startswith("/latest/"):
            is_allowed = self.headers.get("X-aws-ec2-metadata-token") == TOKEN
            refusal, flavor = 401, None
        elif item.startswith("/computeMetadata/"):
            is_allowed = self.headers.get("Metadata-Flavor") == "Google"
            refusal, flavor = 403, self.server.flavor
        else:
            is_allowed = self.headers.get("Metadata") == "true" and "api-version" in query
            is_allowed &= "/compute/" not in item or query.get("format") == ["text"]
            refusal, flavor = 400, None
        if not is_allowed:
            self.answer(refusal)
        elif isinstance(text, int):
            self.answer(text, self.server.text_of_errors, flavor)
        elif text is None:
            self.answer(404, "<html>not found</html>", flavor)
        else:
            self.answer(200, text, flavor)


class MetadataServer(ThreadingHTTPServer):
    """Items by path, which a test may change at any time; an integer is a status to fail with.

    Attributes:
        requests: Method and path of each request, in their order.
        may_answer: Cleared by a test whose service is slow.
        flavor: The header by which Google's service names itself.
        has_tokens: Whether it gives tokens, as version 2 of AWS's service does.
        text_of_errors: What it says together with a status to fail with.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.items, self.requests, self.flavor = {}, [], "Google"
        self.has_tokens, self.text_of_errors = True, ""
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.host = f"127.0.0.1:{self.server_port}"
        self.url = f"http://{self.host}"

    def handle_error(self, request, client_address):
        """A client that no longer waits is no error of the test."""


@pytest.fixture
def metadata_server():
    """A running `MetadataServer` without items."""
    server = MetadataServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.may_answer.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cluster_of(clock):
    """Make a cluster whose nodes and supervisors do what the test says."""
    return lambda *states, **options: Cluster(clock, *states, **options)
