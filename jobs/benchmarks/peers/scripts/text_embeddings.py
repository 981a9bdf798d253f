"""text-embeddings-inference: its router on this machine, asked over HTTP.

Work -> [text_embeddings] -> predictions

The router is a Rust program (or a container image) and in no Python package, so it cannot be
installed from here: it runs where `text-embeddings-router` is on the PATH, built for CPUs as its
page "Using TEI locally with CPU" says. Requests carry as many texts as its default allows, sorted
by length, two of them for each core, so that it always has one to go on with. It has no option for
a shorter text than its model reads, so texts are cut there, and its setting says so. The router is
up with its model loaded when the clock starts.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastformers.jobs.benchmarks.peers.scripts.work import (
    Clock,
    Work,
    read_share,
    refuse,
    write_share,
)

PROGRAM = "text-embeddings-router"
_REQUEST_TEXTS = 32  # the router's default of --max-client-batch-size
_START_S, _REQUEST_S = 120, 300


def run_router(work: Work) -> dict[str, Any]:
    """One router on all cores."""
    import pyarrow.parquet  # noqa: F401

    program = shutil.which(PROGRAM)
    if program is None:
        raise refuse(
            f"{PROGRAM} is not on the PATH: it is a Rust program or a container image, in no "
            "Python package"
        )
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = said.stdout.split()[-1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    router = subprocess.Popen(
        [program, "--model-id", work.model, "--hostname", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(router, f"http://127.0.0.1:{port}/health")
        clock = Clock(work)
        _classify(work, f"http://127.0.0.1:{port}/predict")
        clock.stop()
    finally:
        router.terminate()
        router.wait()
    setting = f"one router on all cores, {_REQUEST_TEXTS} texts a request, cut where the model ends"
    answer = clock.answer(setting, ())
    return {**answer, "versions": {PROGRAM: version}}


def _classify(work: Work, url: str) -> None:
    ids, texts = read_share(work)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    parts = [order[n : n + _REQUEST_TEXTS] for n in range(0, len(order), _REQUEST_TEXTS)]

    def ask(rows: list[int]) -> list[str]:
        content = {"inputs": [[texts[row]] for row in rows], "truncate": True}
        request = urllib.request.Request(
            url, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=_REQUEST_S) as response:
            found = json.load(response)
        return [max(classes, key=lambda c: c["score"])["label"] for classes in found]

    with ThreadPoolExecutor(2 * work.num_workers) as pool:
        found = [label for labels in pool.map(ask, parts) for label in labels]
    write_share(work, 0, [ids[row] for row in order], label=found)


def _wait_for(router: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if router.poll() is not None:
            raise refuse(f"{PROGRAM} ended with status {router.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise refuse(f"{PROGRAM} was not ready after {_START_S} s")
