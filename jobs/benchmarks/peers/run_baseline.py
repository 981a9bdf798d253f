"""Run a whole job of others once, in a process and under an interpreter of its own.

    Part -> [run_baseline] -> scripts -> JobRun

None of a baseline's threads, memory or warnings are ours, and of our package it can import nothing
but what stands in `scripts`. However it ends, so do the processes that it started. This module
knows nothing of how a baseline works.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

import pyarrow.dataset

import fastformers
from fastformers.jobs.benchmarks.parts import NotRun
from fastformers.jobs.benchmarks.peers.catalog import BaselineName
from fastformers.jobs.benchmarks.peers.scripts import main
from fastformers.jobs.benchmarks.peers.scripts.work import REASON_CHARACTERS, Work
from fastformers.jobs.benchmarks.peers.texts import ID_COLUMN, LABEL_COLUMN, Part

_TIMEOUT_S = 7200

_ERROR = re.compile(r"\b\w*(?:Error|Exception): .+")
_WARNING = re.compile(r"\b\w*Warning: ")
# What vLLM ends with where another of its processes failed.
_POINTER = re.compile(r"(?:stack ?trace|traceback)\b.*\babove", re.IGNORECASE)
_QUOTED = re.compile(r"'(.+)'")


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """One run of a whole job, ours or of others, on the one clock.

    Attributes:
        rows: How many rows it scored.
        seconds: From when libraries are imported and processes are up to the last row on disk.
        startup_s: Seconds before that.
        setting: How it ran, for people.
        versions: Versions of its libraries.
        labels: Label of each row by its id; empty where it gives none.
    """

    rows: int
    seconds: float
    startup_s: float
    setting: str
    versions: dict[str, str]
    labels: dict[int, str]


def run_baseline(
    name: BaselineName, work: Work, part: Part, *, python: Path, output: Path
) -> JobRun | NotRun:
    """Run a baseline and wait for it.

    Args:
        name: Which one.
        work: What it does, but for the texts and the output.
        part: The texts.
        python: Interpreter that has its packages.
        output: Directory for its predictions; must not be there.

    Returns:
        What it did, or why it failed.
    """
    work = replace(work, files=part.files, output=str(output), started_at=time.time())
    answer = _ask(name, work, python)
    if isinstance(answer, NotRun):
        return answer
    table = read_predictions(output)
    if table is None or sorted(table) != list(part.ids):
        found = 0 if table is None else len(table)
        return NotRun(reason=f"wrote {found} of {part.num_rows} rows")
    try:
        labels = {row: label for row, label in table.items() if label is not None}
        return JobRun(rows=len(table), labels=labels, **answer)
    except TypeError:
        return NotRun(reason=f"answered {answer!r}")


def read_predictions(directory: Path) -> dict[int, str | None] | None:
    """The label of each row by its id, or None for each where there are no labels."""
    if not directory.is_dir():
        return None
    dataset = pyarrow.dataset.dataset(directory, format="parquet", exclude_invalid_files=True)
    has_labels = LABEL_COLUMN in dataset.schema.names
    columns = [ID_COLUMN, LABEL_COLUMN] if has_labels else [ID_COLUMN]
    table = dataset.to_table(columns=columns)
    ids: Sequence[int] = table[ID_COLUMN].to_pylist()
    labels = table[LABEL_COLUMN].to_pylist() if has_labels else [None] * len(ids)
    return dict(zip(ids, labels, strict=True))


def _ask(name: BaselineName, work: Work, python: Path) -> dict[str, Any] | NotRun:
    """The answer of a baseline."""
    # Files, not pipes: processes that outlive it would hold these open.
    with TemporaryFile("w+", errors="replace") as said, TemporaryFile("w+") as answered:
        process = subprocess.Popen(
            [str(python), "-P", "-m", main.__name__, name],
            stdin=subprocess.PIPE,
            stdout=answered,
            stderr=said,
            text=True,
            env=_environment(Path(work.scratch)),
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(asdict(work)), timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return NotRun(reason=f"took more than {_TIMEOUT_S} s")
        finally:
            _end(process)
        lines, said_lines = _lines_of(answered), _lines_of(said)
    if process.returncode != 0 or not lines:
        return NotRun(reason=_find_reason(lines, said_lines) or f"exit status {process.returncode}")
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except ValueError:
        return NotRun(reason=f"answered {lines[-1]!r}")
    return answer


def _find_reason(answered: Sequence[str], said: Sequence[str]) -> str | None:
    """Why a baseline failed: its last line, or the error that this line points to.

    Args:
        answered: Lines of its standard output, where vLLM writes its log.
        said: Lines of its standard error, which Python may end with warnings.
    """
    plain = [line for line in said if line[:1].strip() and not _WARNING.search(line)]
    last = plain[-1] if plain else None
    if last is None or not _POINTER.search(last):
        return last
    errors = [found[0] for line in (*answered, *said) if (found := _ERROR.search(line))]
    for error in reversed(errors):
        if not _POINTER.search(error):
            return error[:REASON_CHARACTERS]
        if quoted := _QUOTED.search(error):
            return quoted[1][:REASON_CHARACTERS]
    return last


def _end(process: "subprocess.Popen[str]") -> None:
    """End a baseline, if it still runs, and whatever it has started and left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines_of(file: TextIO) -> list[str]:
    file.seek(0)
    return file.read().strip().splitlines()


def _environment(scratch: Path) -> dict[str, str]:
    """Environment variables of a baseline, which finds our package and nothing beside it."""
    alone = scratch / "import"
    if not alone.exists():
        alone.mkdir(parents=True)
        package = Path(fastformers.__file__).parent
        (alone / package.name).symlink_to(package, target_is_directory=True)
    # Baselines take turns with our own jobs, which may be clients of another Ray cluster.
    inherited = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return inherited | {
        "PYTHONPATH": str(alone),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
