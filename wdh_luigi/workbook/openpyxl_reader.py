"""
Read .xlsx and .xlsm with openpyxl: slow, but well kept; the referee of the fast reader.

openpyxl's full mode keeps every cell in memory (3 GiB for a million rows of 7) and fails over charts, pivots and
comments that nobody asked for; its read-only mode believes a wrong ``<dimension>`` and knows no merges. Both modes
read cells with one parser, which is used here alone: rows stream, and only what makes a cell is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, iterparse

from openpyxl.cell.text import Text
from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS, BUILTIN_FORMATS_MAX_SIZE
from openpyxl.styles.stylesheet import apply_stylesheet
from openpyxl.worksheet._reader import WorkSheetParser
from openpyxl.worksheet.cell_range import CellRange
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import rules, sniff
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet

_MAIN = f"{{{SHEET_MAIN_NS}}}"
_CHUNK = 1 << 20
_MERGE = re.compile(rb"[<:]mergeCell\s")
_RESAVE = "open it in Excel and save it again"


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xlsx or .xlsm workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it is no workbook, or openpyxl cannot read it.
    """
    kind = sniff.check(path, shown)
    if kind != "xlsx":
        raise WorkbookError(shown, f"openpyxl reads .xlsx and .xlsm, this is .{kind}", "set reader: auto")
    with rules.as_damaged(shown):
        return OpenpyxlBook(path, shown)


class OpenpyxlBook(Book):
    """A workbook whose sheets openpyxl parses, each when its rows are asked for."""

    gives_formats = True

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._file = path.open("rb")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # openpyxl's remarks about styles, which nobody asked for
                self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        self._reader = ExcelReader(self._file, data_only=True, keep_links=False)  # a path would have to end in .xlsx
        self._reader.read_manifest()
        self._strings = _shared_strings(self._reader)
        self._reader.read_workbook()
        self._styles: Any = self._reader.wb
        apply_stylesheet(self._reader.archive, self._styles)
        self.sheets: list[Sheet] = []
        self._parts: dict[str, str] = {}
        for sheet, relation in self._reader.parser.find_sheets():
            kind = rules.tab_kind(relation.Type.rpartition("/")[2])
            self.sheets.append(Sheet(sheet.name, kind, sheet.state != "visible"))
            if kind == "worksheet":
                self._parts[sheet.name] = relation.target
        if not self.sheets:
            _refuse_strict(self._shown)

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield the rows that hold a value."""
        merges = self.merges(sheet)
        return rules.tidy(self._raw_rows(sheet), merges, self._shown, sheet) if sheet in self._parts else iter(())

    def _raw_rows(self, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet), self._part(sheet) as source:
            above = 0
            cells = (cell for _, row in self._parser(source).parse() for cell in row)
            for number, row in groupby(cells, key=itemgetter("row")):
                if number <= above:
                    raise ValueError(f"row {number} stands below row {above}")
                above = number
                yield number, self._row(row)
            if not above:
                self._refuse_other_namespace(sheet)

    def _refuse_other_namespace(self, sheet: str) -> None:
        """Refuse a sheet that looks empty to openpyxl only because its XML says what it says in another namespace."""
        with self._part(sheet) as source:
            _, root = next(iter(iterparse(source, ("start",))))
        if not root.tag.startswith(_MAIN):
            raise ValueError(f"the sheet is XML of {root.tag}")

    def _row(self, cells: Iterable[dict[str, Any]]) -> list[Cell]:
        values: list[Cell] = []
        for cell in cells:
            rules.refuse_place(cell["row"], cell["column"])
            values += [None] * (cell["column"] - len(values))
            values[cell["column"] - 1] = self._cell(cell)
        return values

    def _cell(self, cell: dict[str, Any]) -> Cell:
        value = cell["value"]
        if cell["data_type"] == "e":
            return ErrorCell(value or "#VALUE!")
        if isinstance(value, str):
            return rules.text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return rules.number(value, self._format(cell["style_id"]))
        return rules.moment(value) if isinstance(value, datetime) else value

    def _format(self, style: int) -> str | None:
        number: int = self._styles._cell_styles[style].numFmtId
        if number < BUILTIN_FORMATS_MAX_SIZE:
            return BUILTIN_FORMATS.get(number)
        own: str = self._styles._number_formats[number - BUILTIN_FORMATS_MAX_SIZE]
        return own

    def _parser(self, source: IO[bytes]) -> WorkSheetParser:
        book = self._styles
        return _Parser(source, self._strings, True, book.epoch, book._date_formats, book._timedelta_formats)

    def _part(self, sheet: str) -> IO[bytes]:
        part = self._parts[sheet]
        if part not in self._reader.valid_files:  # openpyxl leaves such a sheet out, silently
            raise WorkbookError(self._shown, "damaged (the sheet's part is missing)", _RESAVE, sheet=sheet)
        return self._reader.archive.open(part)

    def merges(self, sheet: str) -> list[Merge]:
        """List the merged ranges."""
        rules.refuse_twins(self.sheets, sheet, self._shown)
        if sheet not in self._parts:
            return []
        with rules.as_damaged(self._shown, sheet):
            with self._part(sheet) as source:
                if not _may_hold_merges(source):
                    return []
            with self._part(sheet) as source:
                return rules.in_order(_merges(source))

    def last_row(self, sheet: str) -> int | None:
        """Return nothing: it is known when the rows are read."""
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._reader.archive.close()
        self._file.close()


class _Parser(WorkSheetParser):
    """openpyxl's parser, which also tells a formula never computed from a blank, and decodes ``_x000D_`` once."""

    def parse_row(self, row: Any) -> Any:
        with warnings.catch_warnings():  # around no yield, as the filters are everybody's
            warnings.simplefilter("ignore")  # about dates out of range, which come as errors
            return super().parse_row(row)

    def parse_cell(self, element: Any) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        if cell["value"] is None:
            if _never_computed(element):
                cell |= {"data_type": "e", "value": NEVER_COMPUTED}
        elif cell["data_type"] == "s" and element.get("t") != "s":  # shared strings are decoded already
            cell["value"] = rules.unescape(cell["value"])
        return cell


def _never_computed(cell: Element) -> bool:
    if cell.find(f"{_MAIN}f") is None:
        return False
    value = cell.find(f"{_MAIN}v")  # empty but there, in a cell of texts: computed, to the empty text
    return value is None or cell.get("t") != "str"


def _shared_strings(reader: ExcelReader) -> list[str]:
    """Read the shared strings as openpyxl does, which however takes ``_x005F_x000D_`` for ``_x000D_``."""
    package: Any = reader.package
    part = package.find(SHARED_STRINGS)
    if part is None:
        return []
    strings = []
    with reader.archive.open(part.PartName[1:]) as source:
        for _, element in iterparse(source):
            if element.tag == f"{_MAIN}si":
                text: Any = Text.from_tree(element)  # type: ignore[arg-type]  # the stubs know no Element
                strings.append(rules.unescape(text.content))
                element.clear()
    return strings


def _may_hold_merges(source: IO[bytes]) -> bool:
    """Tell quickly whether a sheet has merges; they stand after its cells, and must be known before them."""
    chunk = source.read(_CHUNK)
    if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, in which the pattern is not found
        return True
    while chunk:
        if _MERGE.search(chunk):
            return True
        following = source.read(_CHUNK)
        chunk = chunk[-16:] + following if following else b""
    return False


def _merges(source: IO[bytes]) -> Iterator[Merge]:
    for _, element in iterparse(source):
        if element.tag == f"{_MAIN}mergeCell":
            merged = CellRange(element.get("ref", ""))
            yield Merge(merged.min_row, merged.min_col, merged.max_row, merged.max_col)
        if element.tag == f"{_MAIN}row":
            element.clear()


def _refuse_strict(shown: str) -> None:
    what = "openpyxl finds no sheet in it (is it a Strict Open XML Spreadsheet?)"
    raise WorkbookError(shown, what, "save it as Excel Workbook (.xlsx), or set reader: auto")
