"""Texts to token ids and lengths.

    corpus -> [tokenizer] -> lengths -> shards -> batches

This module uses the `tokenizers` library alone and the one file in the bundle; it knows nothing of
corpora or models. Ids are kept flat and as narrow as the vocabulary allows: a 30,000-word
vocabulary fits uint16.

Shape suffixes: N rows, B rows of one batch, T tokens of each of its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as _Tokenizer

# Of a text longer than this many characters per token of `max_length`, only the start is tokenized
# at first, cut between two words: the rest cannot matter if the start fills the row.
_CHARACTERS_PER_TOKEN = 40
# The library's own record of a text is a hundred times larger than its ids; it is held for
# this many texts at a time.
_CHUNK_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class TokenizedRows:
    """Token ids of N rows, one after the other.

    Attributes:
        ids: All ids, flat; uint16 or uint32.
        offsets: Start of each row and end of the last, (N + 1,).
        second_lengths_N: Number of tokens at the end of each row that belong to the second text of
            a pair, its separator included; zeros for single texts.
    """

    ids: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    second_lengths_N: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each row, special tokens included."""
        lengths_N: NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]
        return lengths_N

    def slice(self, start: int, stop: int) -> "TokenizedRows":
        """Rows from `start` to before `stop`."""
        first, last = self.offsets[start], self.offsets[stop]
        return TokenizedRows(
            ids=self.ids[first:last],
            offsets=self.offsets[start : stop + 1] - first,
            second_lengths_N=self.second_lengths_N[start:stop],
        )

    def batch_ids(self, rows_B: NDArray[np.intp]) -> NDArray[np.int64]:
        """Ids (B, T) of rows that all have one length."""
        start = self.offsets[rows_B[0]]
        length = self.offsets[rows_B[0] + 1] - start
        if (np.diff(rows_B) == 1).all():  # as in a shard, whose rows are sorted by length
            ids_BT = self.ids[start : start + len(rows_B) * length].reshape(len(rows_B), length)
        else:
            ids_BT = self.ids[self.offsets[rows_B][:, None] + np.arange(length)]
        return ids_BT.astype(np.int64)

    def batch_types(self, rows_B: NDArray[np.intp]) -> NDArray[np.int64]:
        """Token types (B, T): 1 for the second text of a pair."""
        length = self.offsets[rows_B[0] + 1] - self.offsets[rows_B[0]]
        starts_B = length - self.second_lengths_N[rows_B].astype(np.int64)
        types_BT: NDArray[np.int64] = (np.arange(length) >= starts_B[:, None]).astype(np.int64)
        return types_BT


class Tokenizer:
    """The tokenizer of a bundle, truncating as its model was trained to.

    A row is put together here and not by the library, which makes an `Encoding` of every piece that
    truncation cuts off, and of every combination of such pieces of a pair.
    """

    def __init__(self, tokenizer_json: str, *, max_length: int) -> None:
        """Read a tokenizer.

        Args:
            tokenizer_json: Serialized tokenizer; its truncation says on which side texts are cut.
            max_length: Tokens of the longest row, special tokens included.
        """
        self._tokenizer = _Tokenizer.from_str(tokenizer_json)
        self._keeps_end = (self._tokenizer.truncation or {}).get("direction") == "left"
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_characters = _CHARACTERS_PER_TOKEN * max_length
        probe = self._find_probe()
        self._single = self._read_layout(probe, None, max_length)
        self._pair = self._read_layout(probe, probe, max_length)
        special_ids = [*self._single.special_ids, *self._pair.special_ids]
        largest = max([*self._tokenizer.get_vocab().values(), *special_ids])
        self._vocab_size = largest + 1
        self._id_type = np.uint32 if largest > np.iinfo(np.uint16).max else np.uint16

    @property
    def vocab_size(self) -> int:
        """Number that all ids are below; a vocabulary with gaps has fewer tokens."""
        return self._vocab_size

    def encode(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> TokenizedRows:
        """Tokenize N texts, or N pairs of texts."""
        layout = self._single if text_pairs is None else self._pair
        columns = [texts] if text_pairs is None else [texts, text_pairs]
        ids = [np.empty(0, self._id_type)]
        lengths: list[int] = []
        second_lengths: list[int] = []
        for start in range(0, len(texts), _CHUNK_ROWS):
            chunk = [column[start : start + _CHUNK_ROWS] for column in columns]
            for contents in zip(*self._encode(chunk, layout.room), strict=True):
                row, num_second = layout.row(contents, keeps_end=self._keeps_end)
                ids.append(np.array(row, self._id_type))
                lengths.append(len(row))
                second_lengths.append(0 if text_pairs is None else num_second)
        return TokenizedRows(
            ids=np.concatenate(ids),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            second_lengths_N=np.array(second_lengths, np.uint16),
        )

    def _encode(self, columns: Sequence[Sequence[str]], room: int) -> list[list[list[int]]]:
        """Ids of each text of each column, without special tokens.

        Of a long text the start is tried first: it is enough if it fills the row, unless both texts
        of a pair do, where the longer one gets an odd token.
        """
        starts = [[self._start(text) for text in column] for column in columns]
        contents = [self._ids(column) for column in starts]
        for row, texts in enumerate(zip(*columns, strict=True)):
            is_full = [len(column[row]) >= room for column in contents]
            needs_count = len(columns) == 2 and all(is_full) and room % 2 == 1
            for at, text in enumerate(texts):
                if len(starts[at][row]) < len(text) and (needs_count or not is_full[at]):
                    (contents[at][row],) = self._ids([text])
        return contents

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _start(self, text: str) -> str:
        """The whole words among the first characters of a text."""
        if len(text) <= self._max_characters or self._keeps_end:
            return text
        end = self._max_characters
        while end and text[end] not in " \t\n\r":
            end -= 1
        return text[:end].rstrip(" \t\n\r")

    def _find_probe(self) -> str:
        """A text that has a token, to see where special tokens stand."""
        candidates = chain("a0.", self._tokenizer.get_vocab())
        return next(text for text in candidates if self._ids([text])[0])

    def _read_layout(self, text: str, text_pair: str | None, max_length: int) -> "_Layout":
        encoding = self._tokenizer.encode(text, text_pair)
        tokens = zip(encoding.ids, encoding.sequence_ids, encoding.type_ids, strict=True)
        parts: list[_Part] = []
        for sequence, run in groupby(tokens, key=lambda token: token[1]):
            ids, _, types = zip(*run, strict=True)
            parts += (
                [_Part(text=sequence, second=types[0])]
                if sequence is not None
                else [_Part(ids=[one], second=kind) for one, kind in zip(ids, types, strict=True)]
            )
        return _Layout(parts=parts, max_length=max_length)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A special token of a row, or the place of a text.

    Attributes:
        text: Number of the text that stands here; None for a special token.
        ids: The special token.
        second: Token type: 1 if it belongs to the second text of a pair.
    """

    text: int | None = None
    ids: Sequence[int] = ()
    second: int


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where special tokens and texts stand in a row, and how many tokens it may have."""

    parts: Sequence[_Part]
    max_length: int

    @property
    def special_ids(self) -> list[int]:
        """Ids of the special tokens."""
        return [one for part in self.parts for one in part.ids]

    @property
    def room(self) -> int:
        """Tokens that are left for the texts."""
        return max(0, self.max_length - len(self.special_ids))

    def row(self, contents: Sequence[list[int]], *, keeps_end: bool) -> tuple[list[int], int]:
        """Ids of a row, and how many of them belong to the second text.

        Args:
            contents: Ids of each text, at least as many as there is room for, if it has them.
            keeps_end: Whether a long text loses its start, not its end.
        """
        shares = share_room([len(ids) for ids in contents], self.room)
        kept = [
            ids[len(ids) - share :] if keeps_end else ids[:share]
            for ids, share in zip(contents, shares, strict=True)
        ]
        row: list[int] = []
        num_second = 0
        for part in self.parts:
            ids = part.ids if part.text is None else kept[part.text]
            row += ids
            num_second += part.second * len(ids)
        return row, num_second


def share_room(lengths: Sequence[int], room: int) -> list[int]:
    """Tokens that each text of a row keeps, as the libraries' strategy "longest_first" has it.

    A short text keeps all; two long ones get half of the room each, the longer one an odd token.

    Args:
        lengths: Tokens of one or two texts.
        room: Tokens that both may have together.
    """
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    shorter = min(*lengths, room // 2)
    kept = [shorter, room - shorter]
    return kept[::-1] if lengths[0] > lengths[1] else kept


def find_unique(rows: TokenizedRows) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Number rows by content, so that rows with equal ids are scored once.

    Returns:
        For each of N rows the number of its content (N,), and for each content the first row
        that has it (U,).
    """
    number_of: dict[tuple[bytes, int], int] = {}
    unique_N = np.empty(len(rows), np.int32)
    first_U: list[int] = []
    bounds = rows.offsets.tolist()
    for row, second_length in enumerate(rows.second_lengths_N.tolist()):
        content = (rows.ids[bounds[row] : bounds[row + 1]].tobytes(), second_length)
        number = number_of.setdefault(content, len(first_U))
        if number == len(first_U):
            first_U.append(row)
        unique_N[row] = number
    return unique_N, np.array(first_U, np.intp)
