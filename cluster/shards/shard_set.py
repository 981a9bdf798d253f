"""A set of shard names that takes about 9 bytes for each, whatever their number.

    listings, receipts -> [shard_set] -> what is done, what has errors

A name is two numbers, so it is kept as one: most of them in a sorted array, the last ones added in
a set beside it. This module knows nothing of files, receipts or drivers.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_NAME = re.compile(r"(?:part-)?(\d{1,9})-(\d{1,9})(?:\.parquet|\.json)?")
_NUMBER_BITS = 31
_MIN_FRESH, _SEALED_FOR_EACH_FRESH = 8192, 16


def key_of(name: str) -> int | None:
    """A number for the name of a shard, of its file, or of a slice's receipt; None for others.

    Numbers have the order of the names: that of the corpus.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return make_key(int(found[1]), int(found[2]))


def make_key(slice_index: int, number: int) -> int:
    """The number for the shard, or the slice's receipt, of these two numbers."""
    return slice_index << _NUMBER_BITS | number


def split_key(key: int) -> tuple[int, int]:
    """The two numbers of which `make_key` made one."""
    return key >> _NUMBER_BITS, key & (1 << _NUMBER_BITS) - 1


class ShardSet:
    """Names of shards, or of their files, in no order."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._sealed: NDArray[np.int64] = np.empty(0, np.int64)
        self._fresh: set[int] = set()
        for name in names:
            self.add(name)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._sealed) + len(self._fresh)

    def __contains__(self, name: object) -> bool:
        """Whether a shard of that name was added."""
        key = key_of(name) if isinstance(name, str) else None
        return key is not None and self.has_key(key)

    def add(self, name: str) -> bool:
        """Add the name of a shard; returns whether it is one and was not there."""
        key = key_of(name)
        return key is not None and self.add_key(key)

    def add_key(self, key: int) -> bool:
        """Add a shard by its number, see `key_of`; returns whether it was not there."""
        if self.has_key(key):
            return False
        self._fresh.add(key)
        if len(self._fresh) >= max(_MIN_FRESH, len(self._sealed) // _SEALED_FOR_EACH_FRESH):
            self._sealed, self._fresh = self.keys(), set()
        return True

    def keys(self) -> NDArray[np.int64]:
        """The names as numbers, see `key_of`, ascending."""
        fresh = np.fromiter(self._fresh, np.int64, len(self._fresh))
        return np.sort(np.concatenate([self._sealed, fresh]), kind="stable")

    def has_key(self, key: int) -> bool:
        """Whether a shard of this number was added."""
        if key in self._fresh:
            return True
        place = int(self._sealed.searchsorted(key))
        return place < len(self._sealed) and int(self._sealed[place]) == key
