"""Tell what a file is by its bytes, whatever its name says, and refuse what is no workbook, each in its own words."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import IO

from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import ole, zipped
from wdh_luigi.workbook.refused import AGAIN, ASK, RESAVE, SAVE_AS, Cut, Kind, Refused

_HEAD = 1 << 16
_FRESH_SECONDS = 120
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_SIGNATURES = {
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"SQLite format 3": "an SQLite database",
}
_OLD_EXCEL = (b"\x09\x00\x04\x00", b"\x09\x02\x06\x00", b"\x09\x04\x06\x00")  # BOF of BIFF2, BIFF3 and BIFF4
_HTML = re.compile(r"<!doctype\s+html|<(html|head|body|table|meta|title|script)[\s>]", re.IGNORECASE)
_XML_2003 = "urn:schemas-microsoft-com:office:spreadsheet"


def check(path: Path, shown: str, seen: zipped.Seen = lambda part, piece: None) -> Kind:
    """
    Tell a workbook's format by its content.

    Args:
        shown: the workbook's name in messages.
        seen: as in zipped.kind, of a zip archive.
    Raises:
        WorkbookError: it is no workbook that can be read; says what it is instead.
    """
    try:
        return _check(path, seen)
    except Cut as cut:
        raise _cut(path, shown, cut) from cut
    except Refused as refused:
        raise WorkbookError(shown, refused.what, refused.mend) from refused
    except PermissionError as error:
        raise WorkbookError(shown, "may not be read", "give this user the right to read it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise WorkbookError(shown, f"cannot be read ({getattr(error, 'strerror', error)})", AGAIN) from error


def _check(path: Path, seen: zipped.Seen) -> Kind:
    _refuse_special(path)
    if path.name.startswith(("~$", ".~lock.")):
        raise Refused("a lock file, which Excel keeps while a workbook is open", "close the workbook")
    # Without O_NONBLOCK, opening a FIFO that took the file's place just now would wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _refuse_mode(os.fstat(file.fileno()).st_mode)
        return _kind(file, seen)


def _refuse_special(path: Path) -> None:
    try:
        _refuse_mode(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise Refused(f"a link to a file that is not there ({path.readlink()})", AGAIN) from None
        raise Refused("no such file", AGAIN) from None


def _refuse_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise Refused(f"not a file, but {_SPECIAL.get(stat.S_IFMT(mode), 'something else')}", "remove it")


def _kind(file: IO[bytes], seen: zipped.Seen) -> Kind:
    head = file.read(_HEAD)
    if not head:
        raise Cut("empty (0 bytes)")
    if head.startswith(b"PK"):
        return zipped.kind(file, seen)
    if head.startswith(ole.SIGNATURE):
        return ole.kind(file)
    _refuse_other(head)
    raise Refused(f"not a workbook (its first bytes are {head[:8].hex(' ')})", RESAVE)


def _refuse_other(head: bytes) -> None:
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            raise Refused(f"{name}, not a workbook", ASK)
    if head.startswith(_OLD_EXCEL):
        raise Refused("a workbook of Excel 4 or older", SAVE_AS)
    if head.startswith(b"\x09\x08"):
        raise Refused("an .xls workbook without its container", SAVE_AS)
    if not head.strip(b"\0"):
        raise Cut("nothing but zero bytes")
    text = _decoded(head)
    if text is not None:
        raise Refused(f"{_text_kind(text)}, not a workbook", SAVE_AS)


def _decoded(head: bytes) -> str | None:
    """Decode a text's first bytes; None when they are no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "replace")
    if re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return head[: len(head) - 4 if len(head) == _HEAD else None].decode(encoding)
        except UnicodeDecodeError:
            continue
    return head.decode("latin-1")


def _text_kind(text: str) -> str:
    start = text.lstrip()
    if start.startswith("<?xml") and _XML_2003 in text:
        return "an XML Spreadsheet 2003"
    if start.startswith("<?xml") and "office:document" in text:
        return "a flat OpenDocument file"
    if _HTML.search(start[:4096]):
        return "an HTML page"
    if start[:4096].lower().startswith("mime-version:"):
        return "a web archive (MHTML)"
    if start.startswith("<?xml"):
        return "an XML file"
    return "text (CSV or the like)"


def _cut(path: Path, shown: str, cut: Cut) -> WorkbookError:
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        age = _FRESH_SECONDS
    if 0 <= age < _FRESH_SECONDS:
        mend = "wait until it is there in full, and run again; or send it again"
        return WorkbookError(shown, f"{cut.what}; perhaps it is still being written (it was {age:.0f} s ago)", mend)
    return WorkbookError(shown, cut.what, RESAVE)
