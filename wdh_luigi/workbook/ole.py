"""
Look into an OLE compound file (MS-CFB): whether it is an .xls workbook that can be read, or what it is instead.

To tell that, only the directory and the first bytes of the workbook's stream are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

from wdh_luigi.workbook.refused import ASK, NO_PASSWORD, RESAVE, SAVE_AS, Cut, Kind, Refused

SIGNATURE = bytes.fromhex("d0cf11e0a1b11ae1")
_HEAD = 8192
_LAST_SECTOR = 0xFFFFFFFA  # above stand marks: free, end of chain and the like
_BOF, _FILEPASS, _BIFF5 = 0x0809, 0x002F, 0x0500
_OTHER = {
    "WordDocument": "a Word document (.doc)",
    "PowerPoint Document": "a PowerPoint presentation (.ppt)",
    "__properties_version1.0": "an Outlook message (.msg)",
    "VisioDocument": "a Visio drawing",
}


@dataclass(frozen=True)
class _Stream:
    start: int
    size: int


def kind(file: IO[bytes]) -> Kind:
    """
    Tell an .xls workbook from the other documents in OLE files.

    Raises:
        Refused: encrypted, damaged, or no workbook.
    """
    _refuse_encrypted(book(file, _HEAD))
    return "xls"


def book(file: IO[bytes], most: int | None = None) -> bytes:
    """
    Read the stream that holds an .xls workbook's records.

    xlrd does the same, but goes round for ever where a damaged chain of sectors bites its tail.

    Args:
        most: read no more bytes than that, though all must be there.
    Raises:
        Refused: damaged, or no workbook.
    """
    try:
        container = _Container(file)
        streams = container.streams()
        _refuse_other(streams)
        return container.read(streams.get("Workbook") or streams["Book"], most)
    except (struct.error, IndexError) as error:
        raise Cut("damaged (its container ends too early)") from error


def _refuse_other(streams: dict[str, _Stream]) -> None:
    if "EncryptedPackage" in streams:
        raise Refused("encrypted", NO_PASSWORD)
    if "\tDRMContent" in streams:
        raise Refused("encrypted (rights management)", "ask for a copy without protection")
    if "Workbook" in streams or "Book" in streams:
        return
    for name, document in _OTHER.items():
        if name in streams:
            raise Refused(f"{document}, not a workbook", ASK)
    raise Refused("damaged (no workbook in its container)", RESAVE)


def _refuse_encrypted(head: bytes) -> None:
    """Look for FILEPASS, which stands among the first records (MS-XLS, 2.1.7.20.3)."""
    if len(head) < 6:
        raise Cut("damaged (the workbook in its container is empty)")
    number, length, version = struct.unpack_from("<HHH", head)
    if number != _BOF:
        raise Refused("a workbook of Excel 4 or older" if number & 0xFF == 9 else "damaged (no beginning)", SAVE_AS)
    if version < _BIFF5:
        raise Refused("a workbook of Excel 4 or older", SAVE_AS)
    at = 0
    while at + 4 <= len(head):
        number, length = struct.unpack_from("<HH", head, at)
        if number == _FILEPASS:
            raise Refused("encrypted", NO_PASSWORD)
        at += 4 + length


class _Container:
    """An OLE file's sectors, its chains of sectors and its directory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._length = file.seek(0, 2)
        file.seek(0)
        header = file.read(512)
        shift, mini_shift = struct.unpack_from("<HH", header, 30)
        if shift not in (9, 12) or mini_shift != 6:
            raise Refused("damaged (its container's header is not as it should be)", RESAVE)
        self._size = 1 << shift
        self._mini_stream = _LAST_SECTOR
        (fat_sectors,) = struct.unpack_from("<I", header, 44)
        self._directory, self._smallest = struct.unpack_from("<I4xI", header, 48)
        self._mini_fat, _, more, more_count = struct.unpack_from("<IIII", header, 60)
        places = list(struct.unpack_from("<109I", header, 76))
        for _ in range(min(more_count, self._length // self._size)):
            *listed, more = self._numbers(more)
            places += listed
        self._fat = [place for place in places if place < _LAST_SECTOR][:fat_sectors]

    def streams(self) -> dict[str, _Stream]:
        """List the streams by name, in whatever storage they are."""
        found: dict[str, _Stream] = {}
        for sector in self._chain(self._directory):
            entries = self._sector(sector)
            for at in range(0, self._size, 128):
                length, kind = struct.unpack_from("<HB", entries, at + 64)
                name = entries[at : at + max(0, min(length, 64) - 2)].decode("utf-16-le", "replace")
                if kind == 5:
                    self._mini_stream = struct.unpack_from("<I", entries, at + 116)[0]
                elif kind == 2:
                    found.setdefault(name, _Stream(*struct.unpack_from("<II", entries, at + 116)))
        return found

    def read(self, stream: _Stream, most: int | None = None) -> bytes:
        """Read a stream; all of it must be there."""
        if stream.size < self._smallest:
            return self._read_small(stream)
        sectors = list(islice(self._chain(stream.start), -(-stream.size // self._size)))
        last = stream.size - (len(sectors) - 1) * self._size  # of which some writers write no more than there is
        ends = [(sector + 2) * self._size for sector in sectors[:-1]] + [(sectors[-1] + 1) * self._size + last]
        if last > self._size or max(ends) > self._length:
            raise Cut("damaged (the end of the file is missing)")
        read = sectors[: None if most is None else -(-most // self._size)]
        return b"".join(self._sector(sector) for sector in read)[: stream.size]

    def _read_small(self, stream: _Stream) -> bytes:
        """Read a stream out of the one that holds all small ones, in pieces of 64 bytes."""
        holder = list(self._chain(self._mini_stream))
        numbers = [number for sector in self._chain(self._mini_fat) for number in self._numbers(sector)]
        pieces, piece = [], stream.start
        for _ in range(-(-stream.size // 64)):
            sector, at = divmod(piece * 64, self._size)
            pieces.append(self._sector(holder[sector])[at : at + 64])
            piece = numbers[piece]
        return b"".join(pieces)[: stream.size]

    def _chain(self, sector: int) -> Iterator[int]:
        longest = self._length // self._size
        for _ in range(longest + 1):  # a chain may bite its tail
            if sector >= _LAST_SECTOR:
                return
            yield sector
            in_fat, at = divmod(sector, self._size // 4)
            sector = self._numbers(self._fat[in_fat])[at]

    def _numbers(self, sector: int) -> tuple[int, ...]:
        return struct.unpack(f"<{self._size // 4}I", self._sector(sector))

    def _sector(self, sector: int) -> bytes:
        self._file.seek((sector + 1) * self._size)
        return self._file.read(self._size)
