"""
Read workbooks with python-calamine-plus: fast, and .xlsx and .xlsm in bounded memory.

Its rich stream is taken for them, twice as slow as the plain one, for what the plain one does not tell: an error from
a text that looks like one, a formula never computed from a blank, a cell's number format, and merges. Rows that hold
none of these need it not: see plain_sheet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from python_calamine_plus import CalamineWorkbook, SheetVisibleEnum

from wdh_luigi.batches import BATCH_CELLS, BATCH_ROWS, FIRST_ROWS, Batch, Column, in_batches
from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, format_matters
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import package, plain_sheet, rules
from wdh_luigi.workbook.around import Around, around_of
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet
from wdh_luigi.workbook.plain_sheet import PlainSheet

_KINDS: dict[str, rules.TabKind] = {
    "ChartSheet": "chart",
    "DialogSheet": "dialog",
    "MacroSheet": "macro",
    "Vba": "macro",
}
_FAR = re.compile(r"[A-Z]{3}")  # a column beyond ZZ
_PARTS = attrgetter("value"), attrgetter("data_type"), attrgetter("style_id")
_REMEMBERED = 20_000  # cells
_LONG = 60  # characters, of a text that is not remembered


def open_book(path: Path, shown: str, around: Around | None = None) -> Book:
    """
    Open an .xlsx or .xlsm workbook.

    Args:
        shown: the workbook's name in messages.
        around: what is around its sheets' rows, where the workbook was looked through before.
    Raises:
        WorkbookError: it cannot be read.
    """
    if re.search("[\ud800-\udfff]", str(path)):  # calamine opens no such path
        raise WorkbookError(shown, "its name or folder is not UTF-8", "rename it")
    with rules.as_damaged(shown):
        return CalamineBook(path, shown, around or around_of(path))


class CalamineBook(Book):
    """An .xlsx or .xlsm workbook, streamed."""

    gives_formats = True

    def __init__(self, path: Path, shown: str, around: Around) -> None:
        self._shown = shown
        self._path = path
        self._book = CalamineWorkbook.from_path(path)
        self._merges: dict[str, list[Merge]] = {}
        self._last_rows: dict[str, int | None] = {}
        self._started: dict[str, Any] = {}  # the stream from which merges were read, and no rows yet
        self._plain_sheets = plain_sheet.PlainSheets(path, around)
        self._looked_at: dict[str, PlainSheet | None] = {}
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
        return chain.from_iterable(batch.by_rows() for batch in self.batches(sheet))

    def batches(self, sheet: str) -> Iterator[Batch]:
        """Yield the same rows, side by side."""
        return self._batches(sheet) if self._is_worksheet(sheet) else iter(())

    def _batches(self, sheet: str) -> Iterator[Batch]:
        merges = self.merges(sheet)
        raw = self._raw_batches(sheet)
        if merges:
            rows = (row for batch in raw for row in batch.by_rows())
            yield from in_batches(rules.tidy(rows, merges, self._shown, sheet))
        else:
            yield from rules.tidy_batches(raw, self._shown, sheet)

    def _raw_batches(self, sheet: str) -> Iterator[Batch]:
        with rules.as_damaged(self._shown, sheet):
            first: int | None = 1
            if plain := self._plain(sheet):
                yield from plain.batches()
                first = plain.rest
            if first is not None:
                yield from self._streamed(self._started.pop(sheet, None) or self._stream(sheet, first), first)

    def _streamed(self, stream: Any, first: int) -> Iterator[Batch]:
        formats = [style["number_format"] or "" for style in stream.styles]
        columns = _Columns({style: text for style, text in enumerate(formats) if format_matters(text)})
        above = first - 1
        for rows in _some(stream):  # those that are not in the file come as blank ones
            found = columns.of(rows)
            _refuse_places(above, rows, len(found))
            yield Batch(range(above + 1, above + 1 + len(rows)), found)
            above += len(rows)

    def _plain(self, sheet: str) -> PlainSheet | None:
        if sheet not in self._looked_at:
            self._looked_at[sheet] = self._plain_sheets.of(self._index(sheet))
        return self._looked_at[sheet]

    def _stream(self, sheet: str, first: int = 1) -> Any:
        """
        Start a stream from a row on, which reads the whole sheet for its merges first; it ends the stream before.

        Its rows are as wide as the sheet's ``<dimension>`` says, or as the widest so far. Where that is far, as for a
        format of whole rows, or not true, the width is looked up, as 16,384 cells a row would take minutes, and more
        than Excel has all memory.
        """
        index = self._index(sheet)
        self._started.clear()
        stream = self._book.stream_sheet_by_index(index, rich=True, min_row=first - 1)
        if _FAR.search(stream.dimension or ""):
            last = package.last_column(self._path, index) or rules.MOST_COLUMNS
            rules.refuse_place(1, last)
            # One column more, to see what is beyond.
            stream = self._book.stream_sheet_by_index(index, rich=True, min_row=first - 1, max_col=last)
        self._last_rows[sheet] = rules.last_row(stream.dimension or "")
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
            if self._plain(sheet):
                return []
            if sheet not in self._merges:
                self._started[sheet] = self._stream(sheet)
            return self._merges[sheet]

    def last_row(self, sheet: str) -> int | None:
        """Return the last row that the ``<dimension>`` names, of a sheet whose rows were asked for."""
        plain = self._looked_at.get(sheet)
        return plain.last_row if plain else self._last_rows.get(sheet)

    def close(self) -> None:
        """Let go of the file."""
        self._book.close()


def _some(stream: Iterable[list[Any]]) -> Iterator[list[list[Any]]]:
    """Yield rows of the stream, so many at a time that memory holds them: they may become wider all at once."""
    rows: list[list[Any]] = []
    most = FIRST_ROWS
    for row in stream:
        rows.append(row)
        if len(rows) == most or len(rows) * len(row) >= BATCH_CELLS:
            yield rows
            rows, most = [], BATCH_ROWS
    if rows:
        yield rows


def _refuse_places(above: int, rows: list[list[Any]], width: int) -> None:
    """Refuse rows with a cell where Excel has none; ``width``: how many columns hold anything."""
    if width > rules.MOST_COLUMNS:
        for number, row in enumerate(rows, above + 1):
            if any(cell.value != "" or cell.formula is not None for cell in row[rules.MOST_COLUMNS :]):
                rules.refuse_place(number, width)
    rules.refuse_place(above + len(rows), 1)


class _Columns:
    """
    Makes columns of what the stream says of cells: their values, kinds ("n" for a number, "s" for a text) and styles.

    Args:
        matters: style -> number format, of those that say more than the number.
    """

    def __init__(self, matters: dict[int, str]) -> None:
        self._matters = matters
        self._known = _Known(matters)
        self._text = _Texts(self._known).__getitem__

    def of(self, rows: Sequence[Sequence[Any]]) -> list[Column]:
        """Put rows of the stream side by side, as far as one holds anything."""
        width = max(map(len, rows))
        if any(len(row) < width for row in rows):
            rows = [[*row, *[_NO_CELL] * (width - len(row))] for row in rows]
        cells = list(chain.from_iterable(rows))
        values, kinds, styles = (list(map(part, cells)) for part in _PARTS)
        columns = [
            self._column(values[at::width], kinds[at::width], styles[at::width], cells[at::width])
            for at in range(width)
        ]
        while columns and columns[-1].cells == [None]:
            columns.pop()
        return columns

    def _column(self, values: list[Any], kinds: list[str], styles: list[int], said: list[Any]) -> Column:
        if values.count("") == len(values) and all(one.formula is None for one in said):
            return Column([None])
        kind = set(kinds)
        number_format = "" if kind == _TEXTS else self._format(values, kinds, styles)
        if number_format is None:
            cells = list(map(self._known.__getitem__, zip(values, kinds, styles, strict=True)))
        elif kind <= _USUAL and (usual := self._usual(values)) is not None:
            cells = usual
        else:
            cells = [self._known[value, kind, _NO_STYLE] for value, kind in zip(values, kinds, strict=True)]
        if self._known.asks:
            self._known.asks = False
            for at, cell in enumerate(cells):
                if cell is _ASK:
                    style = styles[at] if number_format is None else _NO_STYLE
                    cells[at] = _cell(values[at], kinds[at], style, said[at].formula, self._matters)
        return Column([None] if not any(cell is not None for cell in cells) else cells, number_format or "")

    def _usual(self, values: list[Any]) -> list[Any] | None:
        """Return the cells of numbers and texts; None where a number is not finite, or too large to be sure of."""
        types = set(map(type, values))
        numbers = values if str not in types else [value for value in values if type(value) is not str]
        most = rules.FIFTEEN_DIGITS
        if numbers and not (all(map(math.isfinite, numbers)) and min(numbers) > -most and max(numbers) < most):
            return None
        cells = values
        if str in types:
            cells = [self._text(value) if type(value) is str else value for value in values]
        if any(map(float.is_integer, numbers if int not in types else (one for one in numbers if type(one) is float))):
            cells = [int(cell) if type(cell) is float and cell.is_integer() else cell for cell in cells]
        return cells

    def _format(self, values: list[Any], kinds: list[str], styles: list[int]) -> str | None:
        """Return the number format that all numbers of a column have, "" where none matters; None where they differ."""
        if self._matters.keys().isdisjoint(styles):
            return ""
        of_numbers = {
            style for value, kind, style in zip(values, kinds, styles, strict=True) if kind == "n" and value != ""
        }
        if self._matters.keys().isdisjoint(of_numbers):
            return ""
        return self._matters.get(of_numbers.pop()) if len(of_numbers) == 1 else None


class _NoCell:
    """Stands for a cell beyond the end of a row that is shorter than others."""

    value, data_type, style_id, formula = "", "n", 0, None


_NO_CELL = _NoCell()
_NO_STYLE = -1
_TEXTS, _USUAL = {"s"}, {"s", "n"}


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


class _Texts(dict[str, Any]):
    """The same of texts, and of blank numbers, by their values alone."""

    def __init__(self, known: _Known) -> None:
        self._known = known

    def __missing__(self, value: str) -> Any:
        cell = self._known[value, "s", _NO_STYLE]
        if len(self) >= _REMEMBERED:
            self.clear()
        if cell is not _ASK and len(value) <= _LONG:  # an asking one must be met again and again
            self[value] = cell
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
