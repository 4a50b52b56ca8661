"""
Read .xlsb: records of BIFF12 (MS-XLSB) in a zip archive, streamed.

python-calamine-plus drops the cells of short records (BrtShortIsst and the like, which name no column), gives neither
number formats nor merges, and makes the whole box of cells in memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format, is_timedelta_format
from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH

from wdh_luigi.cells import Cell, ErrorCell
from wdh_luigi.workbook import package, rules
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet

_CHUNK = 1 << 20
_BOOK = re.compile(r"(^|/)workbook[^/]*\.bin$", re.IGNORECASE)
_ROW, _SST_ITEM, _FORMAT, _STYLE, _RICH_CELL, _BOOK_PROPERTIES, _SHEET, _MERGE = 0, 19, 44, 47, 62, 153, 156, 176
_BEGIN_CELL_STYLES, _END_CELL_STYLES = 617, 618
_MERGE_HEAD = b"\xb0\x01\x10"  # a merge's record number and length, as they stand in the file
_FIRST_SHORT, _SHORT_TO_LONG = 12, 11
_ERRORS = {
    0x00: "#NULL!",
    0x07: "#DIV/0!",
    0x0F: "#VALUE!",
    0x17: "#REF!",
    0x1D: "#NAME?",
    0x24: "#NUM!",
    0x2A: "#N/A",
    0x2B: "#GETTING_DATA",
}


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xlsb workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it cannot be read.
    """
    with rules.as_damaged(shown):
        return XlsbBook(path, shown)


class XlsbBook(Book):
    """A workbook of binary records, streamed."""

    gives_formats = True

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._archive = ZipFile(path)
        try:
            self._read()
        except BaseException:
            self._archive.close()
            raise

    def _read(self) -> None:
        book = next(name for name in self._archive.namelist() if _BOOK.search(name))
        relations = package.relations(self._archive, book)
        self._epoch = WINDOWS_EPOCH
        self.sheets: list[Sheet] = []
        self._parts: dict[str, str] = {}
        for kind, record in self._records(book):
            if kind == _BOOK_PROPERTIES and record[0] & 1:
                self._epoch = MAC_EPOCH
            elif kind == _SHEET:
                self._add_sheet(record, relations)
        parts = dict(relations.values())
        self._strings = self._shared_strings(parts.get("sharedStrings"))
        self._formats = self._cell_formats(parts.get("styles"))

    def _add_sheet(self, record: bytes, relations: dict[str, tuple[str, str]]) -> None:
        (state,) = struct.unpack_from("<I", record)
        relation, end = _text(record, 8)
        name, _ = _text(record, end)
        tab, part = relations[relation]
        kind = rules.tab_kind(tab)
        self.sheets.append(Sheet(name, kind, state != 0))
        if kind == "worksheet":
            self._parts[name] = part

    def _shared_strings(self, part: str | None) -> list[str]:
        if part is None:
            return []
        return [_text(record, 1)[0] for kind, record in self._records(part) if kind == _SST_ITEM]

    def _cell_formats(self, part: str | None) -> list[str]:
        """List the number format of each cell style."""
        own, numbers, listed = dict(BUILTIN_FORMATS), [], False
        for kind, record in self._records(part) if part else ():
            if kind == _FORMAT:
                own[struct.unpack_from("<H", record)[0]] = _text(record, 2)[0]
            elif kind in (_BEGIN_CELL_STYLES, _END_CELL_STYLES):
                listed = kind == _BEGIN_CELL_STYLES
            elif kind == _STYLE and listed:
                numbers.append(struct.unpack_from("<H", record, 2)[0])
        return [own.get(number, "General") for number in numbers]

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield the rows that hold a value."""
        merges = self.merges(sheet)
        return rules.tidy(self._raw_rows(sheet), merges, self._shown, sheet) if sheet in self._parts else iter(())

    def _raw_rows(self, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet):
            row, cells = 0, list[Cell]()
            for kind, record in self._records(self._parts[sheet]):
                if kind == _ROW:
                    if row:
                        yield row, cells
                    above, row, cells = row, struct.unpack_from("<I", record)[0] + 1, []
                    if row <= above:
                        raise ValueError(f"row {row} stands below row {above}")
                elif kind in _VALUES:
                    self._add_cell(row, cells, kind, record)
            if row:
                yield row, cells

    def _add_cell(self, row: int, cells: list[Cell], kind: int, record: bytes) -> None:
        if _FIRST_SHORT <= kind < _FIRST_SHORT + 7:
            column, at, kind = len(cells), 0, kind - _SHORT_TO_LONG
        else:
            (column,), at = struct.unpack_from("<I", record), 4
        rules.refuse_place(row, column + 1)
        cells += [None] * (column + 1 - len(cells))
        value = _VALUES[kind](record, at + 4)
        if kind == _SHARED:
            cells[column] = rules.text(self._strings[_index(record, at + 4)])
        elif isinstance(value, float):
            style = struct.unpack_from("<I", record, at)[0] & 0xFFFFFF
            cells[column] = self._number(value, self._formats[style] if style < len(self._formats) else "General")
        else:
            cells[column] = rules.text(value) if isinstance(value, str) else value

    def _number(self, value: float, number_format: str) -> Cell:
        if is_date_format(number_format):
            return rules.moment_of(value, self._epoch, is_timedelta_format(number_format))
        return rules.number(value, number_format)

    def merges(self, sheet: str) -> list[Merge]:
        """List the merged ranges."""
        rules.refuse_twins(self.sheets, sheet, self._shown)
        if sheet not in self._parts:
            return []
        with rules.as_damaged(self._shown, sheet):
            part = self._parts[sheet]
            if not self._holds(part, _MERGE_HEAD):
                return []
            ranges = (struct.unpack("<4I", record) for kind, record in self._records(part) if kind == _MERGE)
            return rules.in_order(
                Merge(top + 1, left + 1, bottom + 1, right + 1) for top, bottom, left, right in ranges
            )

    def _holds(self, part: str, wanted: bytes) -> bool:
        with self._archive.open(part) as source:
            tail = b""
            while chunk := source.read(_CHUNK):
                if wanted in tail + chunk:
                    return True
                tail = chunk[-len(wanted) :]
        return False

    def _records(self, part: str) -> Iterator[tuple[int, bytes]]:
        """Yield a part's records, as (number, content)."""
        with self._archive.open(part) as source:
            data, at = source.read(_CHUNK), 0
            while True:
                if len(data) - at < 6:  # the longest head of a record
                    data, at = data[at:] + source.read(_CHUNK), 0
                    if not data:
                        return
                kind, length, start = _head(data, at)
                while len(data) < start + length:
                    more = source.read(max(_CHUNK, start + length - len(data)))
                    if not more:
                        raise EOFError(f"{part} ends within a record")
                    data, start, at = data[at:] + more, start - at, 0
                at = start + length
                yield kind, data[start:at]

    def last_row(self, sheet: str) -> int | None:
        """Return nothing: it is known when the rows are read."""
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Decode a record's number and length: 7 bits a byte, the low ones first; return where its content starts too."""
    kind = data[at]
    at += 1
    if kind & 0x80:
        kind = kind & 0x7F | (data[at] & 0x7F) << 7
        at += 1
    length = 0
    for shift in (0, 7, 14, 21):
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return kind, length, at


def _text(record: bytes, at: int) -> tuple[str, int]:
    """Decode a text with its length before it; return where it ends too."""
    (length,) = struct.unpack_from("<I", record, at)
    if length == 0xFFFFFFFF:  # a text that is not there
        return "", at + 4
    end = at + 4 + 2 * length
    if end > len(record):
        raise EOFError("a text is longer than its record")
    return record[at + 4 : end].decode("utf-16-le", "replace"), end


def _rk(record: bytes, at: int) -> float:
    """Decode a number in 30 bits: a whole number, or the high half of a float; maybe a hundredth of it."""
    (packed,) = struct.unpack_from("<i", record, at)
    value = float(packed >> 2) if packed & 2 else struct.unpack("<d", struct.pack("<Ii", 0, packed & ~3))[0]
    return value / 100 if packed & 1 else value


def _real(record: bytes, at: int) -> float:
    value: float = struct.unpack_from("<d", record, at)[0]
    return value


def _error(record: bytes, at: int) -> ErrorCell:
    return ErrorCell(_ERRORS.get(record[at], "#VALUE!"))


def _bool(record: bytes, at: int) -> bool:
    return record[at] != 0


def _string(record: bytes, at: int) -> str:
    return _text(record, at)[0]


def _rich_string(record: bytes, at: int) -> str:
    return _text(record, at + 1)[0]


def _index(record: bytes, at: int) -> int:
    index: int = struct.unpack_from("<I", record, at)[0]
    return index


def _blank(record: bytes, at: int) -> None:
    return None


_SHARED = 7
_Value = Callable[[bytes, int], float | str | ErrorCell | None]
_LONG: dict[int, _Value] = {1: _blank, 2: _rk, 3: _error, 4: _bool, 5: _real, 6: _string, _SHARED: _index}
_VALUES: dict[int, _Value] = {
    **_LONG,
    **{kind + _SHORT_TO_LONG: value for kind, value in _LONG.items()},
    **{8: _string, 9: _real, 10: _bool, 11: _error},  # of formulas
    _RICH_CELL: _rich_string,
}
