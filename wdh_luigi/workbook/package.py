"""What the parts of an Open Packaging archive (.xlsx, .xlsb) say about each other."""

from __future__ import annotations

import posixpath
import re
from functools import reduce
from pathlib import Path
from xml.etree.ElementTree import fromstring
from zipfile import ZipFile

_CHUNK = 1 << 20
_BOOK = re.compile(r"(^|/)workbook[^/]*\.xml$", re.IGNORECASE)
# The attributes of each cell that is not closed at once, as one with a format only is.
_CELL = re.compile(rb"<(?:[^\s<>/:]+:)?c(?=[\s>])([^<>]*)(?<!/)>")
_PLACE = re.compile(rb"\sr\s*=\s*[\"']([A-Z]+)[0-9]+[\"']")


def relations(archive: ZipFile, part: str) -> dict[str, tuple[str, str]]:
    """Read what a part refers to: kind and part by identifier."""
    folder, name = posixpath.split(part)
    listed = fromstring(archive.read(posixpath.join(folder, "_rels", f"{name}.rels")))
    return {
        one.get("Id", ""): (
            one.get("Type", "").rpartition("/")[2],
            posixpath.normpath(posixpath.join("/", folder, one.get("Target", ""))).lstrip("/"),
        )
        for one in listed
    }


def last_column(path: Path, sheet: int) -> int | None:
    """
    Find the last column, counted from 1, in which a cell of an .xlsx holds anything but a format.

    Args:
        sheet: its index among the workbook's tabs.
    Returns:
        None where a cell names no place, so that only a parser could tell.
    """
    last = b""
    with ZipFile(path) as archive, archive.open(sheet_part(archive, sheet)) as source:
        tail = b""
        while chunk := source.read(_CHUNK):
            text = tail + chunk
            for attributes in _CELL.findall(text):
                place = _PLACE.search(attributes)
                if place is None:
                    return None
                last = max(last, place[1], key=column_number)
            tail = text[text.rfind(b"<") :]
    return column_number(last) or None


def column_number(letters: bytes) -> int:
    """Return the number, counted from 1, of the column of some letters; 0 of none."""
    return reduce(lambda column, letter: column * 26 + letter - ord("A") + 1, letters, 0)


def sheet_part(archive: ZipFile, sheet: int) -> str:
    """Return the name of the part that holds a sheet, by its index among the workbook's tabs."""
    book = book_part(archive)
    tabs = [one for one in fromstring(archive.read(book)).iter() if one.tag.rpartition("}")[2] == "sheet"]
    relation = next(value for name, value in tabs[sheet].attrib.items() if name.endswith("}id"))
    _, part = relations(archive, book)[relation]
    return next(name for name in archive.namelist() if name.lower() == part.lower())


def book_part(archive: ZipFile) -> str:
    """Return the name of the part that lists the tabs."""
    return next(name for name in archive.namelist() if _BOOK.search(name))
