"""A server on loopback that speaks the Hugging Face hub's protocol, for what fastformers asks it.

It keeps repositories of models in memory, commit by commit: it says what a revision holds, gives
files, and takes commits. Of storage for large files (LFS, Xet) it needs none: it asks for every
file as part of the commit, as the hub does for small ones.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_aSecretThatNobodyMaySee"
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_API = re.compile(
    r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree|preupload|commit)/(?P<revision>.+)"
)


@dataclass
class Repository:
    """Commits by name, each with its files, and the commit of each branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Add a commit that holds these files and those of the branch."""
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        name = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name


class HubServer:
    """The server; `repositories` are what it holds, `requests` what it was asked."""

    def __init__(self) -> None:
        """Begin with no repositories."""
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.status: int | None = None  # answers all requests
        self.address = ""

    def add(self, name: str, directory: Path, *, branch: str = "main", **settings: bool) -> str:
        """Put a directory's files into a repository; returns the commit."""
        repository = self.repositories.setdefault(name, Repository(**settings))
        files = {
            str(path.relative_to(directory)): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        return repository.commit(files, branch=branch)


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """Run a server until the block ends."""
    server = HubServer()
    handler = type("Handler", (_Handler,), {"hub": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """A file's commit, digest and size."""
        self._answer_get()

    def do_GET(self) -> None:
        """A file, or what a revision is or holds."""
        self._answer_get()

    def do_POST(self) -> None:
        """A new repository, or a commit."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._note()
        if self.hub.status is not None:
            return self._send(self.hub.status)
        if path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            is_card = card.startswith("---\nlibrary_name: fastformers\n")
            errors = [] if is_card else [{"message": f"no metadata in {card}"}]
            return self._json({"errors": errors, "warnings": []}, 200 if is_card else 400)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.hub.repositories
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories.setdefault(name, Repository(private=private))
            return self._json({"url": f"{self.hub.address}/{name}"}, 409 if known else 200)
        found = _API.fullmatch(path)
        assert found is not None, path
        repository = self.hub.repositories[found["repo"]]
        if found["what"] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        oid = repository.commit(added, branch=found["revision"])
        url = f"{self.hub.address}/{found['repo']}/commit/{oid}"
        return self._json({"commitUrl": url, "commitOid": oid})

    def _answer_get(self) -> None:
        path = self._note()
        found = _API.fullmatch(path) or _FILE.fullmatch(path)
        if self.hub.status is not None or found is None:
            return self._send(self.hub.status or 404)
        repository = self.hub.repositories.get(found["repo"])
        is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not is_known):
            return self._send(401 if not is_known else 404, {"X-Error-Code": "RepoNotFound"})
        if repository.gated:
            return self._send(403, {"X-Error-Code": "GatedRepo"})
        commit = repository.branches.get(found["revision"], found["revision"])
        files = repository.commits.get(commit)
        if files is None:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
                for name, content in files.items()
            ]
            siblings = [{"rfilename": name} for name in files]
            is_tree = found["what"] == "tree"
            return self._json(
                listed
                if is_tree
                else {"id": found["repo"], "sha": commit, "siblings": siblings, "tags": []}
            )
        if found["name"] not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[found["name"]]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_digest(content)}"'}
        return self._send(200, headers, content)

    def _note(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(
        self, status: int, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
