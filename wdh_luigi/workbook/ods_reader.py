"""
Read .ods: one XML part in a zip archive (OpenDocument 1.3, part 3), streamed.

python-calamine-plus gives an error cell as 0 or as blank, as the file says so beside the word "error", and neither
percentages nor merges; pandas and odfpy make the whole document in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from xml.etree.ElementTree import Element, iterparse
from zipfile import ZipFile

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell
from wdh_luigi.workbook import rules
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet
from wdh_luigi.workbook.ods_styles import Styles

_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_CALCEXT = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}"
_CELL, _COVERED = f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"
_ROW, _COLUMN, _SHEET = f"{_TABLE}table-row", f"{_TABLE}table-column", f"{_TABLE}table"
_TYPE, _FORMULA, _STYLE = f"{_OFFICE}value-type", f"{_TABLE}formula", f"{_TABLE}style-name"
_DEFAULT_STYLE, _REPEATED = f"{_TABLE}default-cell-style-name", f"{_TABLE}number-columns-repeated"
_ERROR = re.compile(r"#[A-Z/0]+[!?A]|Err:\d+")
_DURATION = re.compile(r"(-?)P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,](\d+))?S)?")


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .ods workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it cannot be read.
    """
    with rules.as_damaged(shown):
        return OdsBook(path, shown)


class OdsBook(Book):
    """A spreadsheet document, streamed anew for each question."""

    gives_formats = True

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._archive = ZipFile(path)
        self._styles = Styles()
        self.sheets: list[Sheet] = []
        try:
            if "styles.xml" in self._archive.namelist():
                with self._archive.open("styles.xml") as source:
                    for _, element in iterparse(source):
                        self._styles.add(element)
            for element, depth in self._elements():
                self._styles.add(element)
                if element.tag == _SHEET and depth == 1:
                    name, style = element.get(f"{_TABLE}name", ""), element.get(_STYLE, "")
                    self.sheets.append(Sheet(name, hidden=self._styles.hides(style)))
        except BaseException:
            self._archive.close()
            raise

    def _elements(self, sheet: str | None = None) -> Iterator[tuple[Element, int]]:
        """Yield each element at its end, and how many tables it stands in; with a sheet, only those of its table."""
        path: list[str] = []
        tables, wanted = 0, sheet is None
        with self._archive.open("content.xml") as source:
            for event, element in iterparse(source, ("start", "end")):
                if event == "start":
                    if element.tag == _SHEET and (tables or path[-1:] == [f"{_OFFICE}spreadsheet"]):
                        tables += 1
                        wanted = wanted if tables > 1 else sheet in (None, element.get(f"{_TABLE}name", ""))
                    path.append(element.tag)
                    continue
                path.pop()
                if wanted:
                    yield element, tables
                if element.tag == _SHEET and tables:
                    tables -= 1
                    wanted = wanted if tables else sheet is None
                if tables < 2 and element.tag in (_ROW, _SHEET):
                    element.clear()

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield the rows that hold a value."""
        rules.refuse_twins(self.sheets, sheet, self._shown)
        return rules.tidy(self._raw_rows(sheet), (), self._shown, sheet)

    def _raw_rows(self, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet):
            row, columns = 1, list[str]()
            for element, depth in self._elements(sheet):
                if depth != 1:
                    continue
                if element.tag == _COLUMN:
                    columns += [element.get(_DEFAULT_STYLE, "")] * _repeats(element, rules.MOST_COLUMNS - len(columns))
                elif element.tag == _ROW:
                    cells = self._cells(element, columns)
                    repeats = int(element.get(f"{_TABLE}number-rows-repeated", 1))
                    for number in range(row, row + repeats) if cells else ():
                        rules.refuse_place(number, len(cells))
                        yield number, list(cells)
                    row += repeats

    def _cells(self, row: Element, columns: list[str]) -> list[Cell]:
        """Make a row's cells; blank ones at its end are left out, as they may be repeated to the end of the sheet."""
        cells: list[Cell] = []
        blanks = 0
        for element in row:
            if element.tag not in (_CELL, _COVERED):
                continue
            at = len(cells) + blanks
            style = element.get(_STYLE) or row.get(_DEFAULT_STYLE) or (columns[at] if at < len(columns) else "")
            cell = self._cell(element, style) if element.tag == _CELL else None  # a covered one is under a merge
            if cell is None:
                blanks += _repeats(element, rules.MOST_COLUMNS)
                continue
            repeats = _repeats(element, rules.MOST_COLUMNS)
            rules.refuse_place(1, at + repeats)
            cells += [None] * blanks + [cell] * repeats
            blanks = 0
        return cells

    def _cell(self, element: Element, style: str) -> Cell:
        kind = element.get(_TYPE)
        if kind is None and not len(element) and _FORMULA not in element.attrib:
            return None
        text = _text(element)
        if _is_error(element, text):
            return ErrorCell(text or "#VALUE!")
        if kind in ("float", "currency"):
            return rules.number(float(element.get(f"{_OFFICE}value", "nan")), self._styles.number_format(style))
        if kind == "percentage":
            return rules.number(float(element.get(f"{_OFFICE}value", "nan")), "0.00%")
        if kind == "date":
            return _date(element.get(f"{_OFFICE}date-value", ""))
        if kind == "time":
            return _time(element.get(f"{_OFFICE}time-value", ""))
        if kind == "boolean":
            return element.get(f"{_OFFICE}boolean-value") == "true"
        if kind is None and not text and _FORMULA in element.attrib:
            return ErrorCell(NEVER_COMPUTED)
        return rules.text(text or element.get(f"{_OFFICE}string-value", ""))

    def merges(self, sheet: str) -> list[Merge]:
        """List the merged ranges."""
        rules.refuse_twins(self.sheets, sheet, self._shown)
        with rules.as_damaged(self._shown, sheet):
            return rules.in_order(self._merges(sheet))

    def _merges(self, sheet: str) -> Iterator[Merge]:
        row = 1
        for element, depth in self._elements(sheet):
            if depth == 1 and element.tag == _ROW:
                column = 1
                for cell in element:
                    height = int(cell.get(f"{_TABLE}number-rows-spanned", 1))
                    width = int(cell.get(f"{_TABLE}number-columns-spanned", 1))
                    if height > 1 or width > 1:
                        yield Merge(row, column, row + height - 1, column + width - 1)
                    column += _repeats(cell, rules.MOST_COLUMNS) if cell.tag in (_CELL, _COVERED) else 0
                row += int(element.get(f"{_TABLE}number-rows-repeated", 1))

    def last_row(self, sheet: str) -> int | None:
        """Return nothing: it is known when the rows are read."""
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()


def _repeats(element: Element, most: int) -> int:
    return min(int(element.get(_REPEATED, 1)), most + 1)


def _is_error(cell: Element, text: str) -> bool:
    """Tell an error: LibreOffice says so since 4.1; before, it is a formula's 0 that is shown as one."""
    return cell.get(f"{_CALCEXT}value-type") == "error" or (
        _FORMULA in cell.attrib and cell.get(_TYPE) != "string" and _ERROR.fullmatch(text) is not None
    )


def _text(cell: Element) -> str:
    return "\n".join("".join(_pieces(part)) for part in cell if part.tag == f"{_TEXT}p")


def _pieces(element: Element) -> Iterator[str]:
    yield element.text or ""
    for part in element:
        if part.tag == f"{_TEXT}s":
            yield " " * int(part.get(f"{_TEXT}c", 1))
        elif part.tag == f"{_TEXT}tab":
            yield "\t"
        elif part.tag == f"{_TEXT}line-break":
            yield "\n"
        elif part.tag.startswith(_TEXT):  # spans and links; not a comment, which is no text of the cell
            yield from _pieces(part)
        yield part.tail or ""


def _date(value: str) -> Cell:
    day, _, clock = value.partition("T")
    try:
        whole, _, fraction = clock.partition(".")
        moment = datetime.fromisoformat(f"{day}T{whole}" if clock else day)
        return rules.moment(moment.replace(microsecond=int(f"{fraction:0<6.6}")))
    except ValueError:  # before year 1 or after 9999
        return ErrorCell("#VALUE!")


def _time(value: str) -> Cell:
    found = _DURATION.fullmatch(value)
    if not found:
        return ErrorCell("#VALUE!")
    sign, days, hours, minutes, seconds, fraction = found.groups(default="0")
    span = timedelta(
        days=int(days),
        hours=int(hours),
        minutes=int(minutes),
        seconds=int(seconds),
        microseconds=int(f"{fraction:0<6.6}"),
    )
    if sign == "-":
        return -span
    return (datetime.combine(date.min, time()) + span).time() if span < timedelta(days=1) else span
