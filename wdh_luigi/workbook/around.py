"""What stands before and behind the rows of an .xlsx workbook's sheets, caught as its parts are read for their sums."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from wdh_luigi.workbook import zipped
from wdh_luigi.workbook.refused import Refused

BEGIN, END = b"<sheetData>", b"</sheetData>"
_MOST = 1 << 22  # bytes of it
_SHEET = re.compile(r"/worksheets/[^/]+\.xml$", re.IGNORECASE)
_MAIN = re.compile(
    r"\{(http://schemas\.openxmlformats\.org/spreadsheetml/2006/main|http://purl\.oclc\.org/ooxml/spreadsheetml/main)\}"
    r"worksheet"
)


class Around:
    """The surroundings of all sheets of a workbook."""

    def __init__(self) -> None:
        self._sheets: dict[str, _Sheet] = {}

    def take(self, part: str, piece: bytes) -> None:
        """Take in the next piece of a part."""
        if part in self._sheets or _SHEET.search(part):
            self._sheets.setdefault(part, _Sheet()).take(piece)

    def of(self, part: str) -> Element | None:
        """Return a sheet without its rows; None where what is around them is not easily told from them."""
        return self._sheets[part].element() if part in self._sheets else None


def around_of(path: Path) -> Around:
    """Return the surroundings of a workbook's sheets."""
    found = Around()
    with suppress(Refused), path.open("rb") as file:  # what it is refused for, the library says as well
        zipped.kind(file, found.take)
    return found


class _Sheet:
    """A sheet as its pieces come."""

    def __init__(self) -> None:
        self._head, self._tail = b"", b""
        self._rows: bytes | None = None  # the last of them so far
        self._ended = False
        self._odd = False

    def take(self, piece: bytes) -> None:
        """Take in the next piece."""
        if self._odd:  # whatever comes: no more of it is kept
            return
        if self._ended:
            self._tail += piece
        elif self._rows is None:
            self._head, begin, rows = (self._head + piece).partition(BEGIN)
            if begin:
                self._take_rows(rows)
        else:
            self._take_rows(self._rows[-len(END) :] + piece)
        self._odd = self._odd or len(self._head) + len(self._tail) > _MOST

    def _take_rows(self, rows: bytes) -> None:
        self._rows, end, self._tail = rows.partition(END)
        self._ended = bool(end)
        if b"!" in self._rows:  # which is looked for much faster than the two
            self._odd = self._odd or b"<!" in self._rows  # a comment, of which rows may be a part

    def element(self) -> Element | None:
        """Return all but the rows."""
        if self._odd or not self._ended or b"<!" in self._head + self._tail:
            return None
        try:
            found = fromstring(self._head + BEGIN + END + self._tail)
        except ParseError:
            return None
        return found if _MAIN.fullmatch(found.tag) else None
