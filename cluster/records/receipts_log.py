"""A log of receipts, so that a rerun reads one object where it would read a thousand files.

    receipts -> [receipts_log] -> receipts/000000.jsonl.gz -> rerun

    OUTPUT/receipts/            receipts of shards, beside the predictions
    SHARDS/slice_receipts/      receipts of slices, beside the shards

Each object holds a thousand records, one JSON value a line; the last one is written again as it
fills. The log is a shortcut and never the truth: a record counts only if the file that it speaks of
is there, and what the log does not have is read from the files. So nothing fails because of it: an
object that is damaged is skipped, and one that cannot be written is given up with a warning. A
thread of its own writes the objects, so that slow storage keeps nobody waiting. This module knows
nothing of drivers.
"""

import gzip
import json
import logging
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from fastformers.cluster.shards.predictions import read_receipt
from fastformers.cluster.shards.receipts import Receipt
from fastformers.cluster.shards.shard_set import key_of, split_key
from fastformers.cluster.storage.directory import Directory

logger = logging.getLogger(__name__)

RECORDS_AN_OBJECT, FLUSH_EVERY_S = 1000, 30.0
CLOSE_S, CLOSE_AFTER_ERROR_S = 120.0, 5.0
_MAX_WAITING = 32  # objects; where storage does not keep up, the log has gaps
_NAME = re.compile(r"(\d{6,})\.jsonl\.gz")


class ReceiptsLog:
    """Writes records to a directory, which is made when the first are written."""

    def __init__(
        self,
        directory: Directory,
        *,
        next_number: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up a log.

        Args:
            directory: Directory of the log.
            next_number: Number of the next object, see `read_log`.
            clock: Clock that says when it is time to write what is there.
        """
        self._directory = directory
        self._number = next_number
        self._clock = clock
        self._lines: list[bytes] = []
        self._num_written = 0
        self._due = 0.0
        self._thread: threading.Thread | None = None
        self._waiting: SimpleQueue[tuple[str, list[bytes]] | None] = SimpleQueue()

    def add(self, record: Any) -> None:
        """Add a record; it is written with the others of its object, or when it is time."""
        if len(self._lines) == self._num_written:
            self._due = self._clock() + FLUSH_EVERY_S
        self._lines.append(json.dumps(record, separators=(",", ":")).encode())
        if len(self._lines) >= RECORDS_AN_OBJECT:
            self._write()
            self._lines, self._num_written = [], 0
            self._number += 1

    def flush_if_due(self) -> None:
        """Write the last object as it is, where a record waits for long and no write is waiting."""
        is_due = len(self._lines) > self._num_written and self._clock() >= self._due
        if is_due and self._waiting.empty():
            self._write()

    def close(self, *, timeout_s: float = CLOSE_S) -> None:
        """Write what is left, and wait until all is written, but no longer than `timeout_s`."""
        if len(self._lines) > self._num_written:
            self._write()
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning(
                "%s: not all of the log is written; the next run reads the files instead",
                self._directory,
            )

    def _write(self) -> None:
        """Hand the last object as it is now to the thread."""
        self._num_written = len(self._lines)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="receipts log", daemon=True)
            self._thread.start()
        name = f"{self._number:06d}.jsonl.gz"
        if self._waiting.qsize() < _MAX_WAITING:
            self._waiting.put((name, list(self._lines)))
        else:
            logger.warning(
                "%s/%s: left out, the storage does not keep up; the next run reads the files "
                "instead",
                self._directory,
                name,
            )

    def _run(self) -> None:
        is_made = False
        while (item := self._waiting.get()) is not None:
            name, lines = item
            try:
                if not is_made:
                    self._directory.create()
                    is_made = True
                with self._directory.write(name) as file:
                    file.write(gzip.compress(b"\n".join(lines), 1))
            except BaseException as error:  # whatever it is, the files have all that the log has
                logger.warning(
                    "%s/%s: cannot be written (%s); the next run reads the files instead",
                    self._directory,
                    name,
                    error,
                )


@dataclass(frozen=True, kw_only=True)
class LoggedRecords:
    """What is in a log.

    Attributes:
        objects: Its objects, newest first, as lists of records, newest first.
        next_number: Number of the object after the newest.
    """

    objects: Iterable[list[Any]] = ()
    next_number: int = 0


def read_log(directory: Directory) -> LoggedRecords:
    """List a log; its objects are read as they are asked for, and those damaged are left out."""
    numbers = sorted(
        (int(found[1]) for name in directory.list_files() if (found := _NAME.fullmatch(name))),
        reverse=True,
    )
    names = [f"{number:06d}.jsonl.gz" for number in numbers]
    contents = directory.map_files(names, lambda name: _read(directory, name))
    return LoggedRecords(
        objects=map(_parse, contents), next_number=numbers[0] + 1 if numbers else 0
    )


def load_receipts(
    predictions: Directory,
    log: LoggedRecords,
    *,
    on_unlogged: Callable[[Receipt], None] = lambda receipt: None,
) -> Iterator[Receipt]:
    """Receipts of the predictions that are there and whole, one for each shard.

    A record of the log counts where a file of its size is there; the other files are read.

    Args:
        predictions: Directory of the predictions; it is listed once.
        log: Log of their receipts.
        on_unlogged: Takes the receipts that the log does not have.
    """
    sizes = {
        key: size
        for name, size in predictions.list_sizes().items()
        if (key := key_of(name)) is not None and name == _file_name(key)
    }
    for receipts in map(_to_receipts, log.objects):
        for receipt in receipts:
            key = key_of(receipt.shard)
            if key is not None and receipt.file_bytes and sizes.get(key) == receipt.file_bytes:
                del sizes[key]
                yield receipt
    left = sorted(sizes)
    found = predictions.map_files(
        map(_file_name, left), lambda name: read_receipt(predictions, name)
    )
    for key, unlogged in zip(left, found, strict=True):
        if unlogged is not None:
            receipt = replace(unlogged, file_bytes=sizes[key])
            on_unlogged(receipt)
            yield receipt


def _file_name(key: int) -> str:
    """Name of the file of a shard's predictions."""
    slice_index, number = split_key(key)
    return f"part-{slice_index:06d}-{number:05d}.parquet"


def _to_receipts(records: list[Any]) -> list[Receipt]:
    """The receipts of an object; none if they are not all ours."""
    try:
        return [Receipt(**record) for record in records]
    except TypeError:
        return []


def _read(directory: Directory, name: str) -> bytes:
    """Content of an object; empty if it is gone."""
    try:
        return directory.read_bytes(name)
    except FileNotFoundError:
        return b""


def _parse(content: bytes) -> list[Any]:
    """Records of an object, newest first; none if it is damaged."""
    try:
        lines = gzip.decompress(content).split(b"\n")
        return [json.loads(line) for line in reversed(lines) if line]
    except (OSError, EOFError, zlib.error, ValueError):
        return []
