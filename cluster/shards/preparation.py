"""Read a slice, cut it into shards, and write them down.

    slices -> [preparation] -> shards, receipt of the slice -> actors, slice table

    prepared.json                     identity of the preparation, and whether it is complete
    slices/000003-00000.json          shards that one read of slice 3 gave, and what is left of it
    tokens/part-000003-00001.parquet  a shard

A slice's receipt is written after its shards, so what a killed run left half done is cut again.
This module knows nothing of Ray, models or prices.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from fastformers.cluster.corpus.reading import read_pieces
from fastformers.cluster.corpus.slices import Piece, Slice
from fastformers.cluster.shards.layout import (
    TOKENS,
    Shard,
    build_shard_table,
    cut_shards,
    cut_spans,
)
from fastformers.cluster.shards.receipts import OTHER_REASONS, count_reasons, kind_of_reason
from fastformers.cluster.shards.shard_set import make_key
from fastformers.cluster.storage.directory import Directory
from fastformers.formats.readers import FileReader, Rows
from fastformers.inference.cost_profile import CostProfile
from fastformers.inference.tokenizer import TokenizedRows, Tokenizer

READ_CHUNK_BYTES = 16 * 2**20
# Chunks of text that a slice may hold at once, should its files hold more than their sizes promise.
_MAX_CHUNKS = 4


@dataclass(frozen=True, kw_only=True)
class SliceReceipt:
    """What came out of reading a slice, or the beginning of one.

    Attributes:
        index: Place of the slice among those of the corpus.
        first_shard: Number of the first shard cut from it, here or in a later part.
        shards: Shards in corpus order; none where no row was in it.
        rest: Part of the slice that is left to read, or None.
        bad: Bad rows by kind, the commonest first, see `receipts.count_reasons`.
        bad_example: Place and reason of the first row of the commonest kind; None without one.
        phase_s: Seconds of the actor's cores by phase.
        skipped: Files that could not be read and were left out, with the reason.
        unfit: Number of values that have no place in the kept columns, by column, see `Rows`.
    """

    index: int
    first_shard: int
    shards: tuple[Shard, ...]
    rest: Slice | None
    phase_s: dict[str, float]
    skipped: dict[str, str] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    bad_example: str | None = None
    unfit: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> int:
        """Number of the slice or the part of it, see `shard_set`."""
        return make_key(self.index, self.first_shard)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "SliceReceipt":
        """The receipt that `dataclasses.asdict` turned into `fields`."""
        rest = fields["rest"]
        return cls(
            index=fields["index"],
            first_shard=fields["first_shard"],
            shards=tuple(Shard.from_json(shard) for shard in fields["shards"]),
            rest=None
            if rest is None
            else Slice(
                index=rest["index"],
                pieces=tuple(Piece(**piece) for piece in rest["pieces"]),
                first_shard=rest["first_shard"],
            ),
            phase_s=fields["phase_s"],
            skipped=fields["skipped"],
            bad=fields["bad"],
            bad_example=fields["bad_example"],
            unfit=fields["unfit"],
        )


@dataclass(frozen=True, kw_only=True)
class _SliceRows:
    """Rows of a slice as read.

    Attributes:
        rows: The rows.
        spans: File and number of rows of each piece.
        skipped: Files that were left out, with the reason.
        left: Pieces that are left to read.
        cpu_s: Seconds that cores took to read it.
    """

    rows: Rows
    spans: list[tuple[str, int]]
    skipped: dict[str, str]
    left: tuple[Piece, ...]
    cpu_s: float

    @property
    def num_rows(self) -> int:
        """Number of rows, good and bad."""
        return len(self.rows.texts[0])


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How slices become shards; travels to the actors.

    Attributes:
        directory: Directory that shards are written to.
        reader: Reader of the corpus.
        cost_profile: Profile that predicts the seconds of a row.
        shard_seconds: Seconds on one core that a shard should take.
    """

    directory: Directory
    reader: FileReader
    cost_profile: CostProfile
    shard_seconds: float

    def prepare(
        self,
        slice_: Slice,
        tokenizer: Tokenizer,
        computing: AbstractContextManager[Any],
        on_phase: Callable[[str], None] = lambda phase: None,
    ) -> SliceReceipt:
        """Read, tokenize and cut a slice, then write its shards and last its receipt.

        Args:
            slice_: Slice to read.
            tokenizer: Tokenizer of the bundle.
            computing: Lock that is held while tokenizing; other jobs of the actor wait for it.
            on_phase: Function that is told "read", "tokenize" or "write" as each of them begins.
        """
        on_phase("read")
        read = self._read(slice_)
        rows = read.rows
        good_N = np.array([row for row in range(read.num_rows) if row not in rows.errors], np.intp)
        texts = [[column[row] for row in good_N.tolist()] for column in rows.texts]
        with computing:
            on_phase("tokenize")
            start = time.perf_counter()
            tokens = tokenizer.encode(texts[0], texts[1] if len(texts) > 1 else None)
            tokenize_s = time.perf_counter() - start
        on_phase("write")
        written = list(self._write_shards(slice_, read, tokens, good_N))
        bad = count_reasons(rows.errors.values())
        receipt = SliceReceipt(
            index=slice_.index,
            first_shard=slice_.first_shard,
            shards=tuple(shard for shard, _ in written),
            rest=Slice(
                index=slice_.index,
                pieces=read.left,
                first_shard=slice_.first_shard + len(written),
            )
            if read.left
            else None,
            phase_s={
                "read": read.cpu_s,
                "tokenize": tokenize_s,
                "write": sum(cpu_s for _, cpu_s in written),
            },
            skipped=read.skipped,
            bad=bad,
            bad_example=_find_example(rows.errors, next(iter(bad)), slice_, read.spans)
            if bad
            else None,
            unfit=rows.unfit,
        )
        name = receipt_name(slice_.index, slice_.first_shard)
        self.directory.child("slices").write_json(name, asdict(receipt))
        return receipt

    def _write_shards(
        self, slice_: Slice, read: _SliceRows, tokens: TokenizedRows, good_N: NDArray[np.intp]
    ) -> Iterator[tuple[Shard, float]]:
        """Cut a slice and write its shards, in a bucket at once; each with its seconds of CPU."""
        rows, directory = read.rows, self.directory.child(TOKENS)
        seconds_N = np.zeros(read.num_rows)
        seconds_N[good_N] = self.cost_profile.estimate_seconds(tokens.lengths_N)
        runs = {
            f"{slice_.index:06d}-{number:05d}": run
            for number, run in enumerate(
                cut_shards(seconds_N, slice_.shard_seconds or self.shard_seconds),
                slice_.first_shard,
            )
        }

        def write(name: str) -> tuple[Shard, float]:
            start, run = time.thread_time(), runs[name]
            first, last = np.searchsorted(good_N, [run.start, run.stop])
            table = build_shard_table(
                tokens.slice(int(first), int(last)),
                good_N[first:last] - run.start,
                {r - run.start: e for r, e in rows.errors.items() if r in run},
                rows.kept.slice(run.start, len(run)),
            )
            shard = self._describe(name, table, cut_spans(read.spans, run))
            with directory.write(shard.file_name) as file:
                pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=False)
            return shard, time.thread_time() - start

        return directory.map_files(runs, write)

    def _read(self, slice_: Slice) -> _SliceRows:
        """Read pieces until a large one has a rest, or their text takes too much memory."""
        parts: list[Rows] = []
        spans: list[tuple[str, int]] = []
        skipped: dict[str, str] = {}
        left: tuple[Piece, ...] = ()
        cpu_s, num_characters = 0.0, 0
        with closing(
            read_pieces(self.reader, slice_.pieces, chunk_bytes=READ_CHUNK_BYTES)
        ) as reads:
            number = 0  # pieces that were read to their ends
            for read in reads:
                parts.append(read.rows)
                spans.append((read.piece.path, read.rows.num_rows))
                cpu_s += read.cpu_s
                num_characters += sum(len(text) for column in read.rows.texts for text in column)
                if read.skipped is not None:
                    skipped[read.piece.path] = read.skipped
                if read.rest is None:
                    number += 1
                elif not read.is_ahead:
                    left = (read.rest, *slice_.pieces[number + 1 :])
                    break
                if read.rest is None and num_characters > _MAX_CHUNKS * READ_CHUNK_BYTES:
                    left = slice_.pieces[number:]
                    break
        return _SliceRows(
            rows=_concatenate(parts), spans=spans, skipped=skipped, left=left, cpu_s=cpu_s
        )

    def _describe(self, name: str, table: pa.Table, spans: tuple[tuple[str, int], ...]) -> Shard:
        lengths = pa.compute.list_value_length(table["input_ids"]).drop_null().to_numpy()
        unique_N = table["unique"].drop_null().to_numpy()
        return Shard(
            name=name,
            num_rows=table.num_rows,
            num_unique=len(lengths),
            num_tokens=int(lengths[unique_N].sum()) if len(unique_N) else 0,
            num_unique_tokens=int(lengths.sum()),
            predicted_s=self.cost_profile.estimate_total_seconds(lengths),
            spans=spans,
        )


def receipt_name(slice_index: int, first_shard: int) -> str:
    """Name of the receipt of a slice, or of the part of it that begins with that shard."""
    return f"{slice_index:06d}-{first_shard:05d}.json"


def _concatenate(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    errors: dict[int, str] = {}
    unfit: Counter[str] = Counter()
    first = 0
    for part in parts:
        unfit.update(part.unfit)
        errors.update({first + row: reason for row, reason in part.errors.items()})
        first += len(part.texts[0])
    return Rows(
        texts=tuple(
            [text for part in parts for text in part.texts[place]]
            for place in range(len(parts[0].texts))
        ),
        errors=errors,
        kept=pa.concat_tables([part.kept for part in parts]),
        unfit=dict(unfit),
    )


def _find_example(
    errors: dict[int, str], kind: str, slice_: Slice, spans: list[tuple[str, int]]
) -> str:
    """File, row and reason of the first bad row of a kind; rows count from 0."""
    is_other = kind == OTHER_REASONS
    row = first = min(row for row in errors if is_other or kind_of_reason(errors[row]) == kind)
    rows_of_file: Counter[str] = Counter()
    for path, num_rows in spans:
        if row < num_rows:
            break
        rows_of_file[path] += num_rows
        row -= num_rows
    piece = next(piece for piece in slice_.pieces if piece.path == path)
    row += piece.first_row + rows_of_file[path]
    is_counted = not piece.start or piece.max_rows is not None  # from the file's start
    part = "" if is_counted else f" of the part from byte {piece.start}"
    return f"{path}: row {row}{part}: {errors[first]}"
