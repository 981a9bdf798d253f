"""Texts to token ids and lengths.

    corpus -> [tokenizer] -> lengths -> shards -> batches

This module uses the `tokenizers` library alone and the one file in the bundle; it knows nothing of
corpora or models. Ids are kept flat and as narrow as the vocabulary allows: a 30,000-word
vocabulary fits uint16.

Shape suffixes: N rows, B rows of one batch, T tokens of each of its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as _Tokenizer

# Of a single text longer than this many characters per token of `max_length`, only the start is
# tokenized at first, cut between two words: the rest cannot matter if the start fills the row.
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
        length = self.offsets[rows_B[0] + 1] - self.offsets[rows_B[0]]
        ids_BT = self.ids[self.offsets[rows_B][:, None] + np.arange(length)]
        return ids_BT.astype(np.int64)

    def batch_types(self, rows_B: NDArray[np.intp]) -> NDArray[np.int64]:
        """Token types (B, T): 1 for the second text of a pair."""
        length = self.offsets[rows_B[0] + 1] - self.offsets[rows_B[0]]
        starts_B = length - self.second_lengths_N[rows_B].astype(np.int64)
        types_BT: NDArray[np.int64] = (np.arange(length) >= starts_B[:, None]).astype(np.int64)
        return types_BT


class Tokenizer:
    """The tokenizer of a bundle, truncating as its model was trained to."""

    def __init__(self, tokenizer_json: str, *, max_length: int) -> None:
        self._tokenizer = _Tokenizer.from_str(tokenizer_json)
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._max_length = max_length
        self._max_characters = _CHARACTERS_PER_TOKEN * max_length
        wide = self._tokenizer.get_vocab_size() > np.iinfo(np.uint16).max + 1
        self._id_type = np.uint32 if wide else np.uint16

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary; all ids are below it."""
        return int(self._tokenizer.get_vocab_size())

    def encode(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> TokenizedRows:
        """Tokenize N texts, or N pairs of texts."""
        ids = [np.empty(0, self._id_type)]
        lengths: list[int] = []
        second_lengths: list[int] = []
        for start in range(0, len(texts), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            pairs = None if text_pairs is None else text_pairs[chunk]
            for encoding in self._encode(texts[chunk], pairs):
                row = encoding.ids
                ids.append(np.array(row, self._id_type))
                lengths.append(len(row))
                second_lengths.append(0 if pairs is None else sum(encoding.type_ids))
        return TokenizedRows(
            ids=np.concatenate(ids),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            second_lengths_N=np.array(second_lengths, np.uint16),
        )

    def _encode(self, texts: Sequence[str], text_pairs: Sequence[str] | None) -> list[Encoding]:
        """Encodings of a chunk; of a long single text, the start is tried first."""
        if text_pairs is not None:
            # How a pair shares the row depends on the whole length of both texts.
            pairs = list(zip(texts, text_pairs, strict=True))
            return list(self._tokenizer.encode_batch_fast(pairs))
        starts = [self._start(text) for text in texts]
        encodings = list(self._tokenizer.encode_batch_fast(starts))
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            if len(start) < len(text) and len(encodings[row]) < self._max_length:
                encodings[row] = self._tokenizer.encode_batch_fast([text])[0]
        return encodings

    def _start(self, text: str) -> str:
        """The whole words among the first characters of a text."""
        if len(text) <= self._max_characters:
            return text
        end = self._max_characters
        while end and text[end] not in " \t\n\r":
            end -= 1
        return text[:end].rstrip(" \t\n\r")


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
