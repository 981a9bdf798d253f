"""What a job baseline is told, its one clock, and its answer.

    stdin -> [work] -> scripts -> [work] -> last line of stdout

The clock starts when libraries are imported and processes are up, and stops when the last row is on
disk: models are loaded and texts are read within it. Everything before it is the start-up.

This module and the others of this folder are imported by interpreters that have none of our
packages, so they import the standard library alone, and within functions what a baseline needs.
"""

import importlib.metadata
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REASON_CHARACTERS = 300  # some errors bring all that they were given


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work that every baseline does.

    Attributes:
        files: Parquet files with the columns `id` and `text`.
        model: Hugging Face directory of the classifier.
        stock_graph: ONNX Runtime's stock int8 graph of it.
        float_graph: The same graph before it was quantized.
        tokenizer: Its tokenizer.json.
        labels: Names of its classes.
        max_length: Tokens that a row is truncated to.
        train: Parquet file with the columns `text` and `label`, a class by its number; or None.
        scratch: Directory for what is made once and used in every turn.
        output: Directory that predictions are written to: Parquet files with the column `id`, and
            with `label` if there are labels.
        num_workers: Processes of one core each.
        started_at: Unix time at which the baseline was started.
    """

    files: tuple[str, ...]
    model: str
    stock_graph: str
    float_graph: str
    tokenizer: str
    labels: tuple[str, ...]
    max_length: int
    train: str | None
    scratch: str
    output: str
    num_workers: int
    started_at: float

    @classmethod
    def from_json(cls, content: str) -> "Work":
        """The work that was written as JSON."""
        fields = json.loads(content)
        fields |= {key: tuple(fields[key]) for key in ("files", "labels")}
        return cls(**fields)


class Clock:
    """The one clock: made when everything is up, stopped when the last row is on disk."""

    def __init__(self, work: Work) -> None:
        self.startup_s = time.time() - work.started_at
        self.seconds = 0.0
        self._start = time.perf_counter()

    def stop(self) -> None:
        """The last row is on disk."""
        self.seconds = time.perf_counter() - self._start

    def answer(self, setting: str, packages: Sequence[str]) -> dict[str, Any]:
        """What a baseline answers.

        Args:
            setting: How it ran, for people.
            packages: Packages whose versions are said.
        """
        return {
            "seconds": self.seconds,
            "startup_s": self.startup_s,
            "setting": setting,
            "versions": {name: importlib.metadata.version(name) for name in packages},
        }


def read_share(work: Work, share: int = 0, num_shares: int = 1) -> tuple[list[int], list[str]]:
    """Ids and texts of every `num_shares`-th row, from the row `share` on."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(file, columns=["id", "text"]) for file in work.files]
    ids = [row for table in tables for row in table["id"].to_pylist()]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    return ids[share::num_shares], texts[share::num_shares]


def write_share(work: Work, share: int, ids: Sequence[int], **columns: Any) -> None:
    """Write the predictions of a share."""
    import pyarrow as pa
    import pyarrow.parquet

    path = Path(work.output) / f"part-{share:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table({"id": ids, **columns}), path)


def refuse(reason: str) -> SystemExit:
    """What ends a baseline that would not run as it should: the reason is its last line."""
    return SystemExit(" ".join(reason.split())[:REASON_CHARACTERS])
