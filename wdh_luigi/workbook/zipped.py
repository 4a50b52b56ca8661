"""Look into a zip archive: which workbook it is, or why it is none."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from wdh_luigi.workbook.refused import ASK, NO_PASSWORD, RESAVE, SAVE_AS, Cut, Kind, Refused
from wdh_luigi.workbook.zip_part import ZipPart

MOST_UNPACKED = 512 << 20
_MOST_LISTING = 16 << 20  # of a part that lists parts; real ones take kilobytes
_CHUNK = 1 << 16
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".emf", ".wmf")
_TYPES = "[Content_Types].xml"
_BOOK = re.compile(r"(^|/)workbook[^/]*\.xml$")  # some writers number it: xl/workbook2.xml
_BINARY_BOOK = re.compile(r"(^|/)workbook[^/]*\.bin$")
_OTHER = {
    b"wordprocessingml": "a Word document",
    b"presentationml": "a PowerPoint presentation",
    b"visio": "a Visio drawing",
}
_WORKBOOK_NAME = re.compile(r"\.(xlsx|xlsm|xls|xlsb|ods|csv)$", re.IGNORECASE)

Seen = Callable[[str, bytes], None]


def kind(file: IO[bytes], seen: Seen = lambda part, piece: None) -> Kind:
    """
    Tell which workbook a zip archive is.

    Args:
        seen: called with the pieces of each part but pictures, as they are read for its checksum.
    Raises:
        Refused: encrypted, damaged, too large, or no workbook.
    """
    try:
        with ZipFile(file) as archive:
            return _kind(archive, seen)
    except BadZipFile as error:
        if "not a zip file" in str(error):  # its directory, which stands at the end, is not there
            raise Cut("damaged (the end of the file is missing)") from error
        raise Refused(f"damaged ({error})", RESAVE) from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError, ValueError, OverflowError) as error:
        raise Refused(f"damaged ({type(error).__name__}: {error})", RESAVE) from error


def _kind(archive: ZipFile, seen: Seen) -> Kind:
    parts = {part.filename: part for part in archive.infolist()}
    _refuse_large(parts)
    if any(part.flag_bits & 1 for part in parts.values()):
        raise Refused("encrypted", NO_PASSWORD)
    if _TYPES in parts:
        found = _ooxml(archive, parts)
    elif "content.xml" in parts or "mimetype" in parts:
        found = _open_document(archive, parts)
    else:
        found = _refuse_archive(parts)
    _check_sums(archive, parts, seen)
    return found


def _refuse_large(parts: dict[str, ZipInfo]) -> None:
    unpacked = sum(part.file_size for part in parts.values())
    if unpacked > MOST_UNPACKED:
        size, most = unpacked >> 20, MOST_UNPACKED >> 20
        raise Refused(f"too large ({size:,} MB unpacked, limit {most} MB)", "split the workbook")


def _check_sums(archive: ZipFile, parts: dict[str, ZipInfo], seen: Seen) -> None:
    """
    Read each part but pictures, for its checksum, its true size and its name.

    python-calamine checks neither: of 400 workbooks with a bit or three flipped, it gave wrong values for 80 without an
    error. It takes a second for the largest workbook.
    """
    for name in parts:
        if not name.lower().endswith(_PICTURES):
            source = ZipPart(archive, name)
            while piece := source.read(_CHUNK):
                seen(name, piece)


def _ooxml(archive: ZipFile, parts: dict[str, ZipInfo]) -> Kind:
    types = _read(archive, parts[_TYPES]).replace(b"\0", b"")  # without NUL, UTF-16 is read as well
    for content_type, name in _OTHER.items():
        if content_type in types.lower():
            raise Refused(f"{name}, not a workbook", ASK)
    found = {name.lower() for name in parts}
    if any(_BINARY_BOOK.search(name) for name in found):
        return "xlsb"
    if any(_BOOK.search(name) for name in found):
        return "xlsx"
    if b"spreadsheetml" in types or b"ms-excel" in types:
        raise Refused("damaged (its workbook part is missing)", RESAVE)
    return _refuse_archive(parts)


def _open_document(archive: ZipFile, parts: dict[str, ZipInfo]) -> Kind:
    manifest = b""
    if "META-INF/manifest.xml" in parts:
        manifest = _read(archive, parts["META-INF/manifest.xml"])
    if b"encryption-data" in manifest:
        raise Refused("encrypted", "open it, save it without a password, and send it again")
    stated = _read(archive, parts["mimetype"]) if "mimetype" in parts else manifest
    if b"opendocument.spreadsheet" not in stated:
        raise Refused("an OpenDocument file, but not a spreadsheet", SAVE_AS)
    if "content.xml" not in parts:
        raise Refused("damaged (content.xml is missing)", RESAVE)
    return "ods"


def _refuse_archive(parts: dict[str, ZipInfo]) -> Kind:
    if any(name.startswith("Index/") and name.endswith(".iwa") for name in parts):
        raise Refused("an Apple Numbers document", "export it from Numbers as Excel (.xlsx)")
    inside = [name for name in parts if _WORKBOOK_NAME.search(name)]
    if inside:
        more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
        raise Refused(f"a zip archive with {', '.join(inside[:3])}{more} in it", "unpack it into the inbox")
    raise Refused("a zip archive, not a workbook", ASK)


def _read(archive: ZipFile, part: ZipInfo) -> bytes:
    with archive.open(part) as source:
        return source.read(_MOST_LISTING)
