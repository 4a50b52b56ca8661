"""Which keys were met, and whether all rows of a key say the same: a million of them in some 45 MiB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FIRST_SLOTS = 1 << 10


@dataclass(slots=True)
class Repeated:
    """A key that was met more than once: its text, the rows of it, and whether they differ."""

    key: str
    rows: list[int]
    differ: bool


class Keys:
    """
    The first row of each key, as hashes of its text: 128 bits of the key and 64 of all that the row says.

    A dict of the texts themselves would be the largest thing in memory by far. Two keys of a million share their 128
    bits once in some 10^26 workbooks.
    """

    def __init__(self) -> None:
        self._slots = array("I", bytes(4 * _FIRST_SLOTS))  # open addressing: 0, or 1 more than an index below
        self._hashes = array("q")
        self._checks = array("q")
        self._said = array("q")
        self._rows = array("I")
        self._repeated: dict[int, Repeated] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def are_first(self, keys: Sequence[str], said: Sequence[str], rows: Sequence[int]) -> list[bool]:
        """
        Note rows; tell of each whether its key was not met before.

        Args:
            keys: the text of each row's key.
            said: the text of all that each row says.
            rows: their numbers.
        """
        while 2 * (len(self) + len(keys)) > len(self._slots):
            self._grow()
        slots, hashes, checks, mask = self._slots, self._hashes, self._checks, len(self._slots) - 1
        first = []
        for key, says, row, hashed in zip(keys, said, rows, map(_hash, keys), strict=True):
            slot = hashed & mask
            while index := slots[slot]:
                if hashes[index - 1] == hashed and checks[index - 1] == _check(key):
                    self._repeat(index - 1, key, hash(says), row)
                    break
                slot = (slot + 1) & mask
            else:
                hashes.append(hashed)
                checks.append(_check(key))
                self._said.append(hash(says))
                self._rows.append(row)
                slots[slot] = len(hashes)
            first.append(not index)
        return first

    def _grow(self) -> None:
        self._slots = slots = array("I", bytes(8 * len(self._slots)))
        mask = len(slots) - 1
        for index, hashed in enumerate(self._hashes, 1):
            slot = hashed & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = index

    def _repeat(self, index: int, key: str, said: int, row: int) -> None:
        found = self._repeated.setdefault(index, Repeated(key, [self._rows[index]], False))
        found.rows.append(row)
        found.differ = found.differ or said != self._said[index]

    def repeated(self) -> Iterator[Repeated]:
        """Yield the keys that were met more than once, in the order in which they were met."""
        for _, found in sorted(self._repeated.items()):
            yield found


_hash = hash


def _check(key: str) -> int:
    return hash(key + "\0")
