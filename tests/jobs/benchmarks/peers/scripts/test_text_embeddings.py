"""The router is a program of the machine; here it is one that answers as its documentation says."""

import sys

import pyarrow as pa
import pyarrow.parquet
import pytest

from fastformers.jobs.benchmarks.peers.scripts import text_embeddings
from fastformers.jobs.benchmarks.peers.scripts.text_embeddings import run_router
from fastformers.jobs.benchmarks.peers.scripts.work import Work

ROUTER = f"""#!{sys.executable}
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if "--version" in sys.argv:
    print("text-embeddings-router 1.9.4")
    sys.exit()
if "broken" in sys.argv:
    sys.exit(3)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert content["truncate"] is True and len(content["inputs"]) <= 32
        scores = [len(text) % 2 for (text,) in content["inputs"]]
        even = {{"label": "even", "score": 0.5}}
        found = [[even, {{"label": "odd", "score": score}}] for score in scores]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_):
        pass

port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    program = tmp_path / "bin" / text_embeddings.PROGRAM
    program.parent.mkdir()
    program.write_text(ROUTER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    table = pa.table({"id": range(5, 75), "text": ["x" * (n % 13 + 1) for n in range(70)]})
    pyarrow.parquet.write_table(table, tmp_path / "texts.parquet")

    def make(model="model"):
        return Work(
            files=(str(tmp_path / "texts.parquet"),),
            model=model,
            stock_graph="",
            float_graph="",
            tokenizer="",
            labels=("even", "odd"),
            max_length=24,
            train=None,
            scratch=str(tmp_path),
            output=str(tmp_path / "output"),
            num_workers=2,
            started_at=0.0,
        )

    return make


def test_each_row_has_the_label_that_the_router_scored_highest(work, tmp_path):
    answer = run_router(work())
    table = pyarrow.parquet.read_table(tmp_path / "output").sort_by("id")
    assert table["id"].to_pylist() == list(range(5, 75))
    assert table["label"].to_pylist() == ["even" if n % 13 % 2 else "odd" for n in range(70)]
    assert answer["versions"] == {"text-embeddings-router": "1.9.4"}
    assert answer["seconds"] > 0


def test_a_router_that_ends_is_not_waited_for(work):
    with pytest.raises(SystemExit, match="ended with status 3"):
        run_router(work("broken"))
