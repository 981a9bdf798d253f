"""The slices that are cut, as a few numbers each; which are left, and where a shard lies.

    receipts of slices -> [slice_table] -> shards to score, slices to cut, places of dead letters

A rerun learns from the receipts what is known and what is left. Only shards that are still to be
scored become objects: of all others the table has the sums, and what it takes to find the rows of a
shard in their file without walking through all of them. This module knows nothing of drivers.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastformers.cluster.corpus.slices import Slice
from fastformers.cluster.records.bad_rows import BadRows
from fastformers.cluster.records.receipts_log import LoggedRecords, read_log
from fastformers.cluster.records.tally import ShardCounts
from fastformers.cluster.shards.identity import PREPARED_FILE, read_record
from fastformers.cluster.shards.layout import TOKENS, Shard
from fastformers.cluster.shards.preparation import SliceReceipt, receipt_name
from fastformers.cluster.shards.shard_set import ShardSet, make_key, split_key
from fastformers.cluster.storage.ahead import side_by_side
from fastformers.cluster.storage.directory import Directory
from fastformers.errors import InputError

SLICE_LOG = "slice_receipts"
# Columns of the table; paths are hashes, because only whether two are equal matters.
_KEY, _NEXT, _SHARDS, _ROWS, _UNIQUE, _TOKENS, _UNIQUE_TOKENS, _FIRST, _LAST, _LAST_ROWS = range(10)
_WIDTH = 10


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a slice begins.

    Attributes:
        key: Number of the slice, or of the part of it.
        corpus_row: Number of its first row in the corpus.
        path_hash: Hash of the file that the rows before it are of.
        file_row: Rows of that file before it.
    """

    key: int
    corpus_row: int
    path_hash: int
    file_row: int


class SliceTable:
    """The slices that are cut, or the parts of them, by number."""

    def __init__(self) -> None:
        self._cells = array("q")

    def add(self, receipt: SliceReceipt, key: int) -> None:
        """Add a slice, or replace it.

        Args:
            receipt: Its receipt.
            key: Its number, see `SliceReceipt.key`.
        """
        counts = ShardCounts()
        first = last = last_rows = 0
        for shard in receipt.shards:
            counts.add(shard)
            for path, num_rows in shard.spans:
                path_hash = hash(path)
                last_rows = num_rows + (last_rows if path_hash == last else 0)
                last = path_hash
                first = first or last
        self._cells.extend(
            (
                key,
                -1
                if receipt.rest is None
                else make_key(receipt.rest.index, receipt.rest.first_shard),
                counts.num_shards,
                counts.num_rows,
                counts.num_unique,
                counts.num_tokens,
                counts.num_unique_tokens,
                first,
                last,
                last_rows,
            )
        )

    def rows(self) -> NDArray[np.int64]:
        """The table in corpus order, a row for each slice."""
        table = np.frombuffer(self._cells, np.int64).reshape(-1, _WIDTH)
        order = np.argsort(table[:, _KEY], kind="stable")
        keys = table[order, _KEY]
        is_newest = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        rows: NDArray[np.int64] = table[order[is_newest]]
        return rows

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Replace the table by rows of it."""
        self._cells = array("q", rows.tobytes())

    def find(self, shards: ShardSet) -> list[Place]:
        """Places of the slices that these shards were cut from, in corpus order."""
        rows = self.rows()
        owners = np.searchsorted(rows[:, _KEY], shards.keys(), side="right") - 1
        wanted = set(owners.tolist())
        places: list[Place] = []
        corpus_row = path_hash = file_row = 0
        for number, row in enumerate(rows.tolist() if wanted else []):
            if number in wanted:
                places.append(
                    Place(
                        key=row[_KEY],
                        corpus_row=corpus_row,
                        path_hash=path_hash,
                        file_row=file_row,
                    )
                )
            corpus_row += row[_ROWS]
            if not row[_ROWS]:
                continue
            is_one_file = row[_LAST_ROWS] == row[_ROWS] and row[_FIRST] == path_hash
            path_hash = row[_LAST]
            file_row = row[_LAST_ROWS] + (file_row if is_one_file else 0)
        return places


@dataclass(kw_only=True)
class CutSlices:
    """What the receipts of slices say.

    Attributes:
        table: Slices that are cut.
        known: Sums over their shards.
        shards: Shards that are still to be scored, in corpus order.
        slices: Slices still to cut, in corpus order.
        skipped_files: Files that could not be read, with the reason.
        bad_rows: Their rows, good and bad.
        unfit: Number of values that have no place in the kept columns, by column, see `Rows`.
    """

    table: SliceTable = field(default_factory=SliceTable)
    known: ShardCounts = field(default_factory=ShardCounts)
    shards: list[Shard] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    skipped_files: dict[str, str] = field(default_factory=dict)
    bad_rows: BadRows = field(default_factory=BadRows)
    unfit: Counter[str] = field(default_factory=Counter)

    def take_slices(self) -> list[Slice]:
        """The slices still to cut, which are held here no longer."""
        slices, self.slices = self.slices, []
        return slices

    def take_shards(self) -> list[Shard]:
        """The shards still to be scored, which are held here no longer."""
        shards, self.shards = self.shards, []
        return shards


def load_slices(
    directory: Directory,
    log: LoggedRecords,
    slices: Sequence[Slice] | None,
    *,
    done: ShardSet,
    scores: bool = True,
    bad_rows: BadRows | None = None,
    on_unlogged: Callable[[SliceReceipt], None] = lambda receipt: None,
) -> CutSlices:
    """What is cut, what of it is still to be scored, and what is left to cut.

    A slice is cut again if one of its shards is missing that still has to be scored.

    Args:
        directory: Directory of the preparation.
        log: Log of the receipts of its slices.
        slices: All slices of the corpus; None where the preparation is complete.
        done: Shards whose predictions are on disk.
        scores: Whether the shards that are not done are wanted.
        bad_rows: Sums that the rows of the slices are added to; None for new ones.
        on_unlogged: Takes the receipts that the log does not have.

    Raises:
        InputError: The preparation should be complete, and was interrupted.
    """
    if slices is None:
        _check_complete(directory)
    files, names = map(
        ShardSet,
        side_by_side(directory.child(TOKENS).list_files, directory.child("slices").list_files),
    )
    found = _Found(
        directory,
        files,
        names,
        done=done,
        scores=scores,
        bad_rows=bad_rows or BadRows(),
    )
    for key, receipt in found.read(log, on_unlogged):
        found.add(key, receipt)
    rows = found.table.rows()
    if slices is not None:
        rows, left = found.follow(rows, slices)
    else:
        left = []
    sums = rows.sum(axis=0).tolist()
    found.table.keep(rows)
    return CutSlices(
        table=found.table,
        known=ShardCounts(*sums[_SHARDS : _UNIQUE_TOKENS + 1]),
        shards=[shard for key in rows[:, _KEY].tolist() for shard in found.waiting.get(key, ())],
        slices=left,
        skipped_files=found.skipped_files,
        bad_rows=found.bad_rows,
        unfit=found.add_unfit(rows[:, _KEY].tolist()),
    )


def load_shards(directory: Directory) -> list[Shard]:
    """All shards of a complete preparation, in corpus order.

    Raises:
        InputError: The preparation was interrupted.
    """
    log = read_log(directory.child(SLICE_LOG))
    return load_slices(directory, log, None, done=ShardSet()).shards


class _Found:
    """The receipts of slices as they are found, in no order."""

    def __init__(
        self,
        directory: Directory,
        files: ShardSet,
        names: ShardSet,
        *,
        done: ShardSet,
        scores: bool,
        bad_rows: BadRows,
    ) -> None:
        self.table = SliceTable()
        self.waiting: dict[int, tuple[Shard, ...]] = {}
        self.skipped_files: dict[str, str] = {}
        self.bad_rows = bad_rows
        self._unfit: dict[int, dict[str, int]] = {}
        self._directory = directory
        self._files, self._done, self._scores = files, done, scores
        self._names = names
        self._rests: dict[int, Slice] = {}

    def read(
        self, log: LoggedRecords, on_unlogged: Callable[[SliceReceipt], None]
    ) -> Iterator[tuple[int, SliceReceipt]]:
        """Receipts of the slices whose file is there: from the log, then from the files."""
        seen = ShardSet()
        for key, receipt in _parse(log.objects):
            if self._names.has_key(key) and seen.add_key(key):
                yield key, receipt
        left = [key for key in self._names.keys().tolist() if not seen.has_key(key)]
        slices = self._directory.child("slices")
        found = slices.map_files(
            (receipt_name(*split_key(key)) for key in left),
            lambda name: SliceReceipt.from_json(slices.read_json(name)),
        )
        for key, receipt in zip(left, found, strict=True):
            on_unlogged(receipt)
            yield key, receipt

    def add(self, key: int, receipt: SliceReceipt) -> None:
        """Take a receipt, unless a shard of it is missing."""
        missing = tuple(shard for shard in receipt.shards if shard.name not in self._done)
        if not all(shard.name in self._files for shard in missing):
            return
        self.table.add(receipt, key)
        self.skipped_files.update(receipt.skipped)
        self.bad_rows.add_slice(receipt)
        if receipt.unfit:
            self._unfit[key] = receipt.unfit
        if missing and self._scores:
            self.waiting[key] = missing
        rest = receipt.rest
        if rest and not self._names.has_key(make_key(rest.index, rest.first_shard)):
            self._rests[key] = rest

    def add_unfit(self, keys: Iterable[int]) -> Counter[str]:
        """Sum of what these slices have no place for in the kept columns."""
        total: Counter[str] = Counter()
        for key in keys:
            total.update(self._unfit.get(key, {}))
        return total

    def follow(
        self, rows: NDArray[np.int64], slices: Sequence[Slice]
    ) -> tuple[NDArray[np.int64], list[Slice]]:
        """Rows of the table that the slices lead to, one part after the other, and what is left."""
        place_of = dict(zip(rows[:, _KEY].tolist(), range(len(rows)), strict=True))
        next_of = rows[:, _NEXT].tolist()
        taken: list[int] = []
        left: list[Slice] = []
        for slice_ in slices:
            last: int | None = None
            key = make_key(slice_.index, slice_.first_shard)
            while key in place_of and (last is None or key > last):
                last = key
                taken.append(place_of[key])
                key = next_of[place_of[key]]
            if key >= 0:
                left.append(slice_ if last is None else self._rest_of(last))
        return rows[taken], left

    def _rest_of(self, key: int) -> Slice:
        rest = self._rests.get(key) or load_slice_receipt(self._directory, key).rest
        assert rest is not None
        return rest


def load_slice_receipt(directory: Directory, key: int) -> SliceReceipt:
    """The receipt of a slice, or of a part of it, from its file.

    Raises:
        InputError: It is not JSON.
    """
    return SliceReceipt.from_json(
        directory.child("slices").read_json(receipt_name(*split_key(key)))
    )


def _parse(objects: Iterable[list[Any]]) -> Iterator[tuple[int, SliceReceipt]]:
    """Receipts of slices in the log; an object that does not hold ours is left out."""
    for records in objects:
        try:
            parsed = [(int(record["key"]), SliceReceipt.from_json(record)) for record in records]
        except (KeyError, TypeError, ValueError):
            continue
        yield from parsed


def _check_complete(directory: Directory) -> None:
    record = read_record(directory, PREPARED_FILE, named=str(directory))
    if record is None or not record["complete"]:
        raise InputError(f"{directory}: preparation is incomplete; run the same prepare again")
