"""Which keys were met, and whether all rows of a key say the same: a million of them in some 45 MiB."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import lt

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
        self._led = 0  # rows that slots lead to; the keys of those behind were each met for the first time
        self._greatest = ""
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
        self._hashes.fromlist(list(map(_hash, keys)))
        self._checks.fromlist(list(map(hash, map("\0".__add__, keys))))
        self._said.fromlist(list(map(hash, said)))
        self._rows.extend(rows)
        # Most workbooks are sorted by their keys. One that is greater than all before it cannot have been met, and
        # needs a slot only when another one is looked for.
        ascending = all(map(lt, chain([self._greatest], keys), keys))
        first = [True] * len(keys) if ascending else self._look_for(keys)
        self._greatest = max(chain([self._greatest], keys))
        self._count += sum(first)
        return first

    def _look_for(self, keys: Sequence[str]) -> list[bool]:
        """Tell of the keys of the last rows whether they were not met before."""
        before = len(self._hashes) - len(keys)
        self._make_room(len(keys))
        self._lead(range(self._led + 1, before + 1))
        self._led = len(self._hashes)
        slots, hashes, checks, mask = self._slots, self._hashes, self._checks, len(self._slots) - 1
        first = [True] * len(keys)
        for index in range(before, len(hashes)):
            hashed = hashes[index]
            slot = hashed & mask
            while met := slots[slot]:
                if hashes[met - 1] == hashed and checks[met - 1] == checks[index]:
                    first[index - before] = False
                    self._repeat(met - 1, keys[index - before], index)
                    break
                slot = (slot + 1) & mask
            else:
                slots[slot] = index + 1
        return first

    def _make_room(self, keys: int) -> None:
        """Let there be twice as many slots as keys, with so many that are to come."""
        size = len(self._slots)
        while 2 * (len(self) + keys) > size:
            size *= 2
        if size > len(self._slots):
            former, self._slots = self._slots, array("I", bytes(4 * size))
            self._lead(filter(None, former))

    def _lead(self, met: Iterable[int]) -> None:
        """Lead to keys from free slots; no two of them are the same."""
        slots, hashes, mask = self._slots, self._hashes, len(self._slots) - 1
        for one in met:
            slot = hashes[one - 1] & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = one

    def _repeat(self, met: int, key: str, index: int) -> None:
        found = self._repeated.setdefault(met, Repeated(key, [self._rows[met]], False))
        found.rows.append(self._rows[index])
        found.differ = found.differ or self._said[index] != self._said[met]

    def repeated(self) -> Iterator[Repeated]:
        """Yield the keys that were met more than once, in the order in which they were met."""
        for _, found in sorted(self._repeated.items()):
            yield found


_hash = hash
