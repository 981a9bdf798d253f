"""Texts to token ids and lengths.

    corpus -> [tokenizer] -> lengths -> shards -> batches

Uses the `tokenizers` library alone, from the one file in the bundle. Ids are kept flat and as
narrow as the vocabulary allows: a 30,000-word vocabulary fits uint16.

Shape suffixes: N rows, B rows of one batch, T tokens of each of its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as _Tokenizer

# A text longer than this many characters per token of `max_length` is first tried by its start:
# the rest cannot matter once the start alone fills the row.
_CHARACTERS_PER_TOKEN = 40


@dataclass(frozen=True, kw_only=True)
class TokenizedRows:
    """Token ids of N rows, one after the other.

    Attributes:
        ids: All ids, flat; uint16 or uint32.
        offsets: Where each row starts, and where the last ends, (N + 1,).
        second_lengths_N: How many tokens at the end of each row belong to the second text of a
            pair, its separator included; zeros for single texts.
    """

    ids: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    second_lengths_N: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each row, special tokens included."""
        lengths_N: NDArray[np.int64] = np.diff(self.offsets)
        return lengths_N  # type: ignore[no-any-return]

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
        return (np.arange(length) >= starts_B[:, None]).astype(np.int64)


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

    def encode(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None
    ) -> TokenizedRows:
        """Tokenize N texts, or N pairs of texts."""
        encodings = self._encode(texts, text_pairs)
        lengths = np.fromiter((len(e) for e in encodings), np.int64, len(encodings))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.empty(offsets[-1], self._id_type)
        for encoding, start, end in zip(encodings, offsets, offsets[1:], strict=False):
            ids[start:end] = encoding.ids
        second_lengths = np.zeros(len(encodings), np.uint16)
        if text_pairs is not None:
            second_lengths[:] = [sum(e.type_ids) for e in encodings]
        return TokenizedRows(ids=ids, offsets=offsets, second_lengths_N=second_lengths)

    def _encode(self, texts: Sequence[str], text_pairs: Sequence[str] | None) -> list[Encoding]:
        limit = self._max_characters
        starts = [text[:limit] for text in texts]
        if text_pairs is None:
            encodings = self._tokenizer.encode_batch_fast(starts)
            long = [row for row, text in enumerate(texts) if len(text) > limit]
        else:
            pairs = list(zip(starts, (text[:limit] for text in text_pairs), strict=True))
            encodings = self._tokenizer.encode_batch_fast(pairs)
            long = [
                row
                for row, (text, pair) in enumerate(zip(texts, text_pairs, strict=True))
                if len(text) > limit or len(pair) > limit
            ]
        for row in long:
            if len(encodings[row]) < self._max_length:  # its start does not fill the row
                whole = texts[row] if text_pairs is None else (texts[row], text_pairs[row])
                encodings[row] = self._tokenizer.encode_batch_fast([whole])[0]
        return list(encodings)
