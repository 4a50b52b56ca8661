"""A part of a zip archive, unpacked by zlib-ng: what zipfile does by zlib, in about half of the time."""

from __future__ import annotations

from copy import copy
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from zlib_ng import zlib_ng

_PACKED = 1 << 14  # bytes at a time: for larger pieces than these give it takes longer to get memory
_HEADLESS = -15  # deflate as zip has it, without a header of its own


class ZipPart:
    """
    A part, to be read once from its begin on.

    Args:
        archive: other parts of it may be read meanwhile.
    Raises:
        BadZipFile: here or as it is read: damaged.
        NotImplementedError: packed in a way that is not known.
    """

    def __init__(self, archive: ZipFile, name: str) -> None:
        self._part = archive.getinfo(name)
        raw = copy(self._part)
        self._inflate = None
        if raw.compress_type == ZIP_DEFLATED:
            # Given by zipfile as it is packed, as if that was all there is to it.
            raw.compress_type, raw.file_size = ZIP_STORED, raw.compress_size
            del raw.CRC
            self._inflate = zlib_ng.decompressobj(_HEADLESS)
        self._source = archive.open(raw)
        self._left, self._checksum = self._part.file_size, 0

    def read(self, wanted: int) -> bytes:
        """Return the next so many bytes, or what is left; at the end it is held against its size and checksum."""
        if self._inflate is None:
            return self._source.read(wanted)
        pieces = []
        while wanted and (piece := self._piece(self._inflate, wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _piece(self, inflate: zlib_ng._Decompress, most: int) -> bytes:
        piece = b""
        try:
            while not (piece or inflate.eof) and (packed := inflate.unconsumed_tail or self._source.read(_PACKED)):
                piece = inflate.decompress(packed, min(most, self._left + 1))
            piece = piece or inflate.flush()
        except zlib_ng.error as error:  # type: ignore[misc]  # its stub does not say that it is an exception
            raise BadZipFile(f"{self._part.filename}: {error}") from error
        self._left -= len(piece)
        self._checksum = zlib_ng.crc32(piece, self._checksum)
        if self._left < 0 or (not piece and (self._left or self._checksum != self._part.CRC)):
            raise BadZipFile(f"Bad CRC-32 for file {self._part.filename!r}")
        return piece
