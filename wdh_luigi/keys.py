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
        self._count = 0
        # of every row; those of rows that repeat a key are led to by no slot
        self._hashes = array("q")
        self._checks = array("q")
        self._said = array("q")
        self._rows = array("I")
        self._repeated: dict[int, Repeated] = {}

    def __len__(self) -> int:
        return self._count

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
        before = len(hashes)
        noted = list(map(_hash, keys))
        hashes.extend(noted)
        checks.extend(map(_check, keys))
        self._said.extend(map(hash, said))
        self._rows.extend(rows)
        first = [True] * len(keys)
        for index, hashed in enumerate(noted, before):
            slot = hashed & mask
            while met := slots[slot]:
                if hashes[met - 1] == hashed and checks[met - 1] == checks[index]:
                    first[index - before] = False
                    self._repeat(met - 1, keys[index - before], index)
                    break
                slot = (slot + 1) & mask
            else:
                slots[slot] = index + 1
        self._count += sum(first)
        return first

    def _grow(self) -> None:
        former, hashes = self._slots, self._hashes
        self._slots = slots = array("I", bytes(8 * len(former)))
        mask = len(slots) - 1
        for met in former:
            if met:
                slot = hashes[met - 1] & mask
                while slots[slot]:
                    slot = (slot + 1) & mask
                slots[slot] = met

    def _repeat(self, met: int, key: str, index: int) -> None:
        found = self._repeated.setdefault(met, Repeated(key, [self._rows[met]], False))
        found.rows.append(self._rows[index])
        found.differ = found.differ or self._said[index] != self._said[met]

    def repeated(self) -> Iterator[Repeated]:
        """Yield the keys that were met more than once, in the order in which they were met."""
        for _, found in sorted(self._repeated.items()):
            yield found


_hash = hash


def _check(key: str) -> int:
    return hash(key + "\0")
