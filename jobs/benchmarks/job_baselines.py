"""Whole jobs that a user could run instead of ours, each in a process of its own.

    corpus -> different texts -> [job_baselines] -> rows a second of each baseline

A baseline gets texts that all differ, so that what scoring equal texts once saves is no part of the
comparison, and runs `baseline_scripts.py` under an interpreter that has its library: none of its
threads, memory or warnings are ours. This module knows nothing of how a baseline works.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from fastformers.cluster.corpus.reading import read_all
from fastformers.cluster.corpus.slices import open_corpus
from fastformers.cluster.settings import CorpusSettings
from fastformers.cluster.shards.preparation import READ_CHUNK_BYTES
from fastformers.jobs.benchmarks.parts import BaselineName, NotRun

TEXT_COLUMN = "text"
# Rows of a file, and so of a block in which Ray Data can sort; found by tuning that job.
_FILE_ROWS = 3125
_TIMEOUT_S = 7200


@dataclass(frozen=True, kw_only=True)
class BaselineJob:
    """The work that every baseline does.

    Attributes:
        files: Parquet files with a text column `text`.
        model: Hugging Face directory of the classifier.
        stock_graph: ONNX Runtime's stock int8 graph of it.
        tokenizer: Its tokenizer.json.
        max_length: Tokens that a row is truncated to.
        scratch: Directory for what a baseline writes.
    """

    files: tuple[str, ...]
    model: str
    stock_graph: str
    tokenizer: str
    max_length: int
    scratch: str


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """What a baseline did.

    Attributes:
        rows: How many rows it scored.
        seconds: From when its libraries were imported (and Ray was up) to the last row.
        setting: How it ran, for people.
        versions: Versions of its libraries.
    """

    rows: int
    seconds: float
    setting: str
    versions: dict[str, str]


def write_different_texts(
    uri: str, settings: CorpusSettings, *, num_rows: int, directory: Path
) -> list[str]:
    """Write the first rows of a corpus whose texts differ as Parquet files.

    Args:
        uri: The corpus.
        settings: Its text column, its limit, and whether unreadable files are skipped.
        num_rows: Number of texts; fewer are written if the corpus has no more.
        directory: Directory to make and write to.

    Returns:
        Paths of the files.
    """
    corpus = open_corpus(
        uri,
        text_columns=(settings.text_column,),
        options=settings.read_options,
    )
    texts: dict[str, None] = {}
    reads = (
        rows
        for slice_ in corpus.plan_slices(limit=settings.limit)
        for rows in read_all(corpus.reader, slice_.pieces, chunk_bytes=READ_CHUNK_BYTES)
    )
    for rows in reads:
        good = [text for n, text in enumerate(rows.texts[0]) if n not in rows.errors]
        texts.update(dict.fromkeys(good))
        if len(texts) >= num_rows:
            break
    directory.mkdir(parents=True)
    chosen = list(texts)[:num_rows]
    files = []
    for number, start_row in enumerate(range(0, len(chosen), _FILE_ROWS)):
        part = chosen[start_row : start_row + _FILE_ROWS]
        table = pa.table({"id": range(start_row, start_row + len(part)), TEXT_COLUMN: part})
        files.append(str(directory / f"part-{number:05d}.parquet"))
        pyarrow.parquet.write_table(table, files[-1])
    return files


def run_baseline(
    name: BaselineName, work: BaselineJob, *, num_workers: int, python: Path
) -> BaselineResult | NotRun:
    """Run a baseline and wait for it.

    Args:
        name: Which one.
        work: What it does.
        num_workers: Processes of one core each.
        python: Interpreter that has its library.

    Returns:
        What it did, or why it failed: in most cases the last line that it said.
    """
    script = Path(__file__).with_name("baseline_scripts.py")
    # Baselines take turns with our own jobs, which may be clients of another Ray cluster.
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    try:
        finished = subprocess.run(
            [str(python), str(script), name],
            input=json.dumps({**asdict(work), "num_workers": num_workers}),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return NotRun(reason=f"took more than {_TIMEOUT_S} s")
    lines = finished.stdout.strip().splitlines()
    if finished.returncode != 0 or not lines:
        said = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        return NotRun(reason=said[-1])
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
        return BaselineResult(**answer)
    except (ValueError, TypeError):
        return NotRun(reason=f"answered {lines[-1]!r}")
