"""
Read workbooks with python-calamine-plus: fast, and .xlsx and .xlsm in bounded memory.

Its rich stream is taken for them, twice as slow as the plain one, for what the plain one does not tell: an error from
a text that looks like one, a formula never computed from a blank, a cell's number format, and merges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from python_calamine_plus import CalamineWorkbook, SheetVisibleEnum

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, format_matters
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import package, rules
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet

_KINDS: dict[str, rules.TabKind] = {
    "ChartSheet": "chart",
    "DialogSheet": "dialog",
    "MacroSheet": "macro",
    "Vba": "macro",
}
_FAR = re.compile(r"[A-Z]{3}")  # a column beyond ZZ
_LAST_ROW = re.compile(r"\d+$", re.ASCII)
_PARTS = attrgetter("value", "data_type", "style_id")
_ALL_PARTS = attrgetter("value", "data_type", "style_id", "formula")
_REMEMBERED = 20_000  # cells
_LONG = 60  # characters, of a text that is not remembered
_MOST = 1e15  # beyond it, and for what is no number, rules.number has its say


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xlsx or .xlsm workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it cannot be read.
    """
    if re.search("[\ud800-\udfff]", str(path)):  # calamine opens no such path
        raise WorkbookError(shown, "its name or folder is not UTF-8", "rename it")
    with rules.as_damaged(shown):
        return CalamineBook(path, shown)


class CalamineBook:
    """An .xlsx or .xlsm workbook, streamed."""

    gives_formats = True

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._path = path
        self._book = CalamineWorkbook.from_path(path)
        self._merges: dict[str, list[Merge]] = {}
        self._last_rows: dict[str, int | None] = {}
        self._started: dict[str, Any] = {}  # the stream from which merges were read, and no rows yet
        self.sheets = [
            Sheet(
                one.name,
                _KINDS.get(str(one.typ).rpartition(".")[2], "worksheet"),
                one.visible != SheetVisibleEnum.Visible,
            )
            for one in self._book.sheets_metadata
        ]
        if not self.sheets:  # a missing xl/workbook.xml reads like that
            raise ValueError("there is no sheet in it")

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield the rows that hold a value; a second sheet's rows end the first's."""
        return self._rows(sheet) if self._is_worksheet(sheet) else iter(())

    def _rows(self, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet):
            stream = self._started.pop(sheet, None) or self._stream(sheet)
        yield from rules.tidy(self._raw_rows(stream, sheet), self._merges[sheet], self._shown, sheet)

    def _raw_rows(self, stream: Any, sheet: str) -> Iterator[Row]:
        with rules.as_damaged(self._shown, sheet):
            formats = [style["number_format"] or "" for style in stream.styles]
            matters = {style: text for style, text in enumerate(formats) if format_matters(text)}
            known = _Known(matters)
            for number, cells in enumerate(stream, 1):  # rows that are not in the file come as blank ones
                while cells and cells[-1].value == "" and cells[-1].formula is None:
                    cells.pop()
                rules.refuse_place(number, len(cells) or 1)
                # A figure, the most frequent cell and the least often repeated, needs nothing done.
                row = [
                    value
                    if type(value) is float
                    and kind == "n"
                    and style not in matters
                    and not value.is_integer()
                    and -_MOST < value < _MOST
                    else known[value, kind, style]
                    for value, kind, style in map(_PARTS, cells)
                ]
                if known.asks:
                    known.asks = False
                    row = [
                        _cell(*_ALL_PARTS(one), matters) if cell is _ASK else cell
                        for cell, one in zip(row, cells, strict=True)
                    ]
                yield number, row

    def _stream(self, sheet: str) -> Any:
        """
        Start a stream, which reads the whole sheet for its merges first; it ends the stream before.

        Its rows are as wide as the sheet's ``<dimension>`` says. Where that is far, as for a format of whole rows, or
        not true, the width is looked up, as 16,384 cells a row would take minutes, and more than Excel has all memory.
        """
        index = self._index(sheet)
        self._started.clear()
        stream = self._book.stream_sheet_by_index(index, rich=True)
        if _FAR.search(stream.dimension or ""):
            last = package.last_column(self._path, index) or rules.MOST_COLUMNS
            rules.refuse_place(1, last)
            stream = self._book.stream_sheet_by_index(index, rich=True, max_col=last)  # one more, to see what is beyond
        last_row = _LAST_ROW.search(stream.dimension or "")
        self._last_rows[sheet] = int(last_row[0]) if last_row else None
        self._merges[sheet] = rules.in_order(
            Merge(top + 1, left + 1, bottom + 1, right + 1)
            for (top, left), (bottom, right) in stream.merged_cell_ranges or ()
        )
        return stream

    def _index(self, sheet: str) -> int:
        return [one.name for one in self.sheets].index(sheet)

    def _is_worksheet(self, sheet: str) -> bool:
        rules.refuse_twins(self.sheets, sheet, self._shown)
        return self.sheets[self._index(sheet)].kind == "worksheet"

    def merges(self, sheet: str) -> list[Merge]:
        """List the merged ranges."""
        if not self._is_worksheet(sheet):
            return []
        with rules.as_damaged(self._shown, sheet):
            if sheet not in self._merges:
                self._started[sheet] = self._stream(sheet)
            return self._merges[sheet]

    def last_row(self, sheet: str) -> int | None:
        """Return the last row that the ``<dimension>`` names, of a sheet whose rows were asked for."""
        return self._last_rows.get(sheet)

    def close(self) -> None:
        """Let go of the file."""
        self._book.close()


class _Known(dict[tuple[Any, str, int], Any]):
    """
    Cells by what the stream says of them, made once: its kind tells True from 1, and 1 from 1.0 nothing does.

    Where the formula matters as well, which is seldom and costs time to look at, _ASK stands for the cell, and
    ``asks`` is set.
    """

    def __init__(self, matters: dict[int, str]) -> None:
        self._matters = matters
        self.asks = False

    def __missing__(self, parts: tuple[Any, str, int]) -> Any:
        value, kind, style = parts
        if value == "" or (kind == "s" and "_x" in value):
            self.asks = True
            return _ASK
        cell = _cell(value, kind, style, None, self._matters)
        if len(self) >= _REMEMBERED:
            self.clear()
        if not isinstance(cell, str) or len(cell) <= _LONG:
            self[parts] = cell
        return cell


_ASK = object()


def _cell(value: Any, kind: str, style: int, formula: str | None, matters: dict[int, str]) -> Cell:
    if kind == "n":
        if value == "":
            return None if formula is None else ErrorCell(NEVER_COMPUTED)
        return rules.number(value, matters.get(style))
    if kind == "s":  # a formula's text alone comes with its escapes
        return rules.text(value if formula is None else rules.unescape(value))
    if kind == "e":
        return ErrorCell(value)
    if isinstance(value, float):
        return ErrorCell("#VALUE!")
    return rules.moment(value) if isinstance(value, datetime) else value
