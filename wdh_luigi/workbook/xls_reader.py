"""
Read .xls with xlrd.

python-calamine-plus is ten times faster with it, but it tells an error from a text by its looks only, gives no number
formats (so that 0.055 shown as 5.50% is not known for a ratio), and panics now and then; xlrd takes a second for
the 65,536 rows that a sheet may have. The OLE container is not left to xlrd: see ole.book.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xlrd
from openpyxl.styles.numbers import is_timedelta_format
from openpyxl.utils.datetime import MAC_EPOCH, WINDOWS_EPOCH

from wdh_luigi.cells import Cell, ErrorCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import ole, rules
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet

_SAVE_AS = "open it in Excel and save it as Excel Workbook (.xlsx)"


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xls workbook of Excel 5 or newer.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it cannot be read.
    """
    with rules.as_damaged(shown):
        return XlsBook(path, shown)


class XlsBook(Book):
    """A workbook whose sheets xlrd parses, each when it is asked for."""

    gives_formats = True

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        try:
            with path.open("rb") as file:
                records = ole.book(file)
            self._book: Any = xlrd.open_workbook(
                file_contents=records, logfile=io.StringIO(), formatting_info=True, on_demand=True, ragged_rows=True
            )
        except UnicodeDecodeError as error:
            raise _undecodable(shown) from error
        self._epoch = MAC_EPOCH if self._book.datemode else WINDOWS_EPOCH
        states = self._book._sheet_visibility  # type: ignore[attr-defined]  # missing in types-xlrd
        self.sheets = [
            Sheet(name, hidden=bool(state)) for name, state in zip(self._book.sheet_names(), states, strict=True)
        ]

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield the rows that hold a value."""
        merges = self.merges(sheet)
        return rules.tidy(self._raw_rows(sheet), merges, self._shown, sheet)

    def _raw_rows(self, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet):
            tab = self._tab(sheet)
            for row in range(tab.nrows):
                yield row + 1, [self._cell(cell) for cell in tab.row(row)]

    def _cell(self, cell: Any) -> Cell:
        value = cell.value
        if cell.ctype == xlrd.XL_CELL_NUMBER:
            return rules.number(value, self._format(cell))
        if cell.ctype == xlrd.XL_CELL_TEXT:
            return rules.text(value)
        if cell.ctype == xlrd.XL_CELL_DATE:
            return rules.moment_of(value, self._epoch, is_timedelta_format(self._format(cell)))
        if cell.ctype == xlrd.XL_CELL_BOOLEAN:
            return bool(value)
        if cell.ctype == xlrd.XL_CELL_ERROR:
            return ErrorCell(xlrd.error_text_from_code.get(value, "#VALUE!"))
        return None

    def _format(self, cell: Any) -> str:
        styles, style = self._book.xf_list, cell.xf_index
        if style is None or style >= len(styles):  # as some writers leave it
            return "General"
        number_format: str = self._book.format_map[styles[style].format_key].format_str
        return number_format

    def _tab(self, sheet: str) -> Any:
        rules.refuse_twins(self.sheets, sheet, self._shown)
        with rules.as_damaged(self._shown, sheet):
            try:
                return self._book.sheet_by_name(sheet)
            except UnicodeDecodeError as error:
                raise _undecodable(self._shown) from error

    def merges(self, sheet: str) -> list[Merge]:
        """List the merged ranges."""
        ranges = self._tab(sheet).merged_cells
        return rules.in_order(Merge(top + 1, left + 1, bottom, right) for top, bottom, left, right in ranges)

    def last_row(self, sheet: str) -> int | None:
        """Return the number of rows that hold a cell."""
        return int(self._tab(sheet).nrows)

    def close(self) -> None:
        """Let go of the file."""
        self._book.release_resources()


def _undecodable(shown: str) -> WorkbookError:
    return WorkbookError(shown, "its text cannot be decoded (an unknown code page)", _SAVE_AS)
