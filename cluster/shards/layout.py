"""Cut tokenized rows into shards of equal predicted cost, and lay a shard out as a table.

    rows -> tokens -> [layout] -> actors -> predictions

A shard is leased, retried and committed as one. It is a contiguous run of corpus rows, stored
sorted by length with equal texts next to each other; `place` restores corpus order. Token ids are
already made and stored once for each different text, so a scoring actor tokenizes nothing.
Everything here is a pure function of its arguments and knows nothing of files or actors.

Shape suffixes: N rows of the corpus, U different texts of a shard.
"""

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastformers.inference.tokenizer import TokenizedRows, find_unique

# Directory of the shards' files, in that of the preparation.
TOKENS = "tokens"
# Seconds on one core. Short shards leave little idle time at the end of a run, long ones find
# more equal texts; a 200th of the work, within these bounds, costs under 1% of either.
MIN_SHARD_SECONDS, MAX_SHARD_SECONDS, SHARDS_PER_CORPUS = 2.0, 20.0, 200
# On a GPU a shard is some seconds of work at most, and batches are filled by its slice: the rows of
# a length stand together in it.
MIN_GPU_SHARD_TOKENS, MAX_GPU_SHARD_TOKENS, GPU_SHARDS_PER_CORPUS = 2**20, 2**23, 64
_BYTES_PER_TOKEN = 4.5  # English and WordPiece; only sizes the shards


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A shard as it is known without reading its file.

    A run may know a million of them, so those of one file share its name.

    Attributes:
        name: "SLICE-NUMBER", with six and five digits: in name order, shards are in corpus order.
        num_rows: Rows of the corpus, bad ones included.
        num_unique: Different texts, each of which is scored once.
        num_tokens: Tokens of all good rows.
        num_unique_tokens: Tokens that are scored.
        predicted_s: Seconds on one core, from the bundle's cost profile.
        spans: File and number of rows of each stretch of the corpus, in order.
    """

    name: str
    num_rows: int
    num_unique: int
    num_tokens: int
    num_unique_tokens: int
    predicted_s: float
    spans: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        spans = tuple((sys.intern(path), num_rows) for path, num_rows in self.spans)
        object.__setattr__(self, "spans", spans)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values alone, and unpickle through the constructor, which shares names."""
        return _restore_shard, tuple(getattr(self, name) for name in self.__slots__)

    @property
    def file_name(self) -> str:
        """Name of the shard's file, and of the file of its predictions."""
        return f"part-{self.name}.parquet"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Shard":
        """The shard that `dataclasses.asdict` turned into `values`."""
        return cls(**values)


def _restore_shard(*values: Any) -> Shard:
    return Shard(**dict(zip(Shard.__slots__, values, strict=True)))


def plan_shard_seconds(
    text_bytes: int, seconds_per_token: float, *, for_gpus: bool = False
) -> float:
    """Core-seconds of a shard; depends on the size of the corpus, never on which actor scores it.

    Args:
        text_bytes: Size of the corpus.
        seconds_per_token: Core-seconds of a token.
        for_gpus: Whether actors on GPUs score it.
    """
    if for_gpus:
        share = text_bytes / _BYTES_PER_TOKEN / GPU_SHARDS_PER_CORPUS
        return min(max(share, MIN_GPU_SHARD_TOKENS), MAX_GPU_SHARD_TOKENS) * seconds_per_token
    total_s = text_bytes / _BYTES_PER_TOKEN * seconds_per_token
    return min(max(total_s / SHARDS_PER_CORPUS, MIN_SHARD_SECONDS), MAX_SHARD_SECONDS)


def plan_num_shards(text_bytes: int, seconds_per_token: float) -> int:
    """About how many shards a corpus of that size is cut into."""
    total_s = text_bytes / _BYTES_PER_TOKEN * seconds_per_token
    return max(1, round(total_s / plan_shard_seconds(text_bytes, seconds_per_token)))


def cut_shards(seconds_N: NDArray[np.float64], shard_seconds: float) -> list[range]:
    """Cut rows into contiguous runs of about equal cost, none empty.

    Args:
        seconds_N: Predicted seconds of each row.
        shard_seconds: Seconds that a shard should take.
    """
    if len(seconds_N) == 0:
        return []
    ends_N = np.cumsum(seconds_N)
    num_shards = min(len(seconds_N), max(1, round(ends_N[-1] / shard_seconds)))
    marks = ends_N[-1] * np.arange(1, num_shards) / num_shards
    cuts = np.unique(np.searchsorted(ends_N, marks) + 1)
    cuts = cuts[cuts < len(seconds_N)]
    bounds = [0, *cuts.tolist(), len(seconds_N)]
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def cut_spans(spans: list[tuple[str, int]], rows: range) -> tuple[tuple[str, int], ...]:
    """The part of a slice's spans that a run of its rows covers."""
    covered: list[tuple[str, int]] = []
    start = 0
    for path, num_rows in spans:
        overlap = min(rows.stop, start + num_rows) - max(rows.start, start)
        if overlap > 0:
            covered.append((path, overlap))
        start += num_rows
    return tuple(covered)


def build_shard_table(
    rows: TokenizedRows, good_N: NDArray[np.intp], errors: dict[int, str], kept: pa.Table
) -> pa.Table:
    """Lay a shard out: one line for each row, sorted by length, bad rows last.

    Args:
        rows: Token ids of the good rows.
        good_N: Place in the shard of each good row, ascending.
        errors: Reason for each bad row, by its place.
        kept: Columns that pass through, all rows in corpus order.

    Returns:
        Columns `place`, `unique` (number of the row's text, null for a bad row), `input_ids` (null
        but for the first row of each text), `second_length`, `error`, and the kept columns with
        "keep." before their names.
    """
    num_rows = kept.num_rows if kept.num_columns else len(good_N) + len(errors)
    unique_N, first_U = find_unique(rows)
    by_length_U = np.argsort(rows.lengths_N[first_U], kind="stable")
    rank_U = np.empty_like(by_length_U)
    rank_U[by_length_U] = np.arange(len(by_length_U))
    number_N = rank_U[unique_N]
    order_N = np.argsort(number_N, kind="stable")
    is_first_N = np.diff(number_N[order_N], prepend=-1) > 0
    bad = np.array(sorted(errors), np.int32)
    place = np.concatenate([good_N[order_N], bad]).astype(np.int32)
    tail = pa.nulls(len(bad), pa.int32())
    columns = {
        "place": pa.array(place),
        "unique": pa.concat_arrays([pa.array(number_N[order_N].astype(np.int32)), tail]),
        "input_ids": _id_lists(rows, first_U[by_length_U], is_first_N, len(bad)),
        "second_length": pa.concat_arrays(
            [
                pa.array(rows.second_lengths_N[order_N]),
                pa.nulls(len(bad), pa.uint16()),
            ]
        ),
        "error": pa.array(
            [None] * len(good_N) + [errors[row] for row in bad.tolist()], pa.string()
        ),
    }
    table = pa.table(columns)
    assert table.num_rows == num_rows
    for name in kept.column_names:
        table = table.append_column(f"keep.{name}", kept[name].take(pa.array(place)))
    return table


def read_shard_table(table: pa.Table) -> TokenizedRows:
    """Token ids of a shard's U different texts, ascending by length."""
    unique = table.filter(table["input_ids"].is_valid())
    lists = unique["input_ids"].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    offsets = lists.offsets.to_numpy().astype(np.int64)
    ids = (
        lists.values.to_numpy()[offsets[0] : offsets[-1]] if len(lists) else np.empty(0, np.uint16)
    )
    return TokenizedRows(
        ids=ids,
        offsets=offsets - offsets[0] if len(lists) else np.zeros(1, np.int64),
        second_lengths_N=unique["second_length"].to_numpy().astype(np.uint16),
    )


def _id_lists(
    rows: TokenizedRows, first_U: NDArray[np.intp], is_first_N: NDArray[np.bool_], num_bad: int
) -> pa.Array:
    lengths_U = rows.lengths_N[first_U]
    starts_U = np.repeat(rows.offsets[first_U] - np.cumsum(lengths_U) + lengths_U, lengths_U)
    ids = rows.ids[starts_U + np.arange(lengths_U.sum())]
    lengths = np.zeros(len(is_first_N) + num_bad, np.int64)
    lengths[: len(is_first_N)][is_first_N] = lengths_U
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    missing = np.ones(len(lengths), bool)
    missing[: len(is_first_N)] = ~is_first_N
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids), mask=pa.array(missing))
