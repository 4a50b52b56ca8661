"""The rules of Book that every reader keeps in the same way: what a number, a moment, a text and a row become."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Literal

from wdh_luigi.batches import Batch
from wdh_luigi.cells import Cell, ErrorCell, NumberCell, format_matters
from wdh_luigi.errors import WdhError, WorkbookError
from wdh_luigi.workbook.book import Merge, Row, Sheet

TabKind = Literal["worksheet", "chart", "macro", "dialog"]

MOST_CELLS = 20_000_000
MOST_ROWS, MOST_COLUMNS = 1_048_576, 16_384
FIFTEEN_DIGITS = 10**15  # what Excel keeps of a number: beyond, its digits are not the ones that were typed
_TAB_KINDS: dict[str, TabKind] = {
    "chartsheet": "chart",
    "dialogsheet": "dialog",
    "xlMacrosheet": "macro",
    "xlIntlMacrosheet": "macro",
}
_LAST_ROW = re.compile(r"\d+$", re.ASCII)
_ESCAPED = re.compile(r"(?:_x[0-9A-Fa-f]{4}_)+")


def number(value: float, number_format: str | None = None) -> Cell:
    """
    Make a cell of a number: int when it is whole and Excel kept its digits, else float.

    Excel writes 5 and 5.0 alike, so that how the file spells a number says nothing.
    """
    if not math.isfinite(value):
        return ErrorCell("#NUM!")
    plain = int(value) if abs(value) < FIFTEEN_DIGITS and value == int(value) else float(value)
    return NumberCell(plain, number_format) if number_format and format_matters(number_format) else plain


def numbers(values: Sequence[float]) -> list[Cell]:
    """Do the same to many, all at once where they are as numbers mostly are."""
    if values and not (min(values) > -FIFTEEN_DIGITS and max(values) < FIFTEEN_DIGITS):
        return [number(value) for value in values]
    if any(map(float.is_integer, values)):
        return [int(value) if value.is_integer() else value for value in values]
    return list(values)


def moment_of(serial: float, epoch: datetime, elapsed: bool) -> Cell:
    """
    Make a cell of a number that is formatted as a date or a time; out of Excel's range, Excel shows ####.

    Args:
        epoch: of the workbook's date system, 1900 or 1904.
        elapsed: its format counts hours beyond 24, as "[h]:mm" does.
    """
    from openpyxl.utils.datetime import from_excel  # here, as it brings all of openpyxl, a tenth of a second

    try:
        value = from_excel(serial, epoch, timedelta=elapsed)
    except (OverflowError, ValueError):
        return ErrorCell("#VALUE!")
    return moment(value) if isinstance(value, datetime) else value


def moment(value: datetime) -> date:
    """Make a cell of a point in time: a date when it is midnight, as Excel tells no date from its midnight."""
    return value.date() if value.time() == value.min.time() else value


def text(value: str) -> str | None:
    """Make a cell of a text: None when there is nothing to see, and no CR, which Excel does not show either."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if value.strip() else None


def unescape(value: str) -> str:
    """Decode ``_x000D_`` and the like (ECMA-376, 22.9.2.19, ST_Xstring)."""
    return _ESCAPED.sub(_decode, value) if "_x" in value else value


def _decode(escaped: re.Match[str]) -> str:
    units = bytes.fromhex("".join(escaped[0][at + 2 : at + 6] for at in range(0, len(escaped[0]), 7)))
    return units.decode("utf-16-be", "replace")  # two escapes may be the halves of one character


def last_row(dimension: str) -> int | None:
    """Return the last row of the range that a ``<dimension>`` names; None where it names none."""
    found = _LAST_ROW.search(dimension)
    return int(found[0]) if found else None


def tidy(rows: Iterable[Row], merges: Sequence[Merge], shown: str, sheet: str) -> Iterator[Row]:
    """
    Blank what merges hide, cut blank cells at the end, leave out rows without a value.

    Raises:
        WorkbookError: the values stand in a box of more than 20 million cells.
    """
    hidden = _Hidden(merges)
    first, widest = 0, 0
    for row, cells in rows:
        if merges:
            hidden.blank(row, cells)
        while cells and cells[-1] is None:
            cells.pop()
        if cells:
            first = first or row
            if len(cells) > widest:
                widest = len(cells)
            if (row - first + 1) * widest > MOST_CELLS:
                refuse_box(row - first + 1, widest, shown, sheet)
            yield row, cells


def tidy_batches(batches: Iterable[Batch], shown: str, sheet: str) -> Iterator[Batch]:
    """Do the same to batches of rows, where there are no merges."""
    first, widest = 0, 0
    for batch in batches:
        found = _without_blanks(batch)
        if found.rows:
            first, widest = first or found.rows[0], max(widest, len(found.columns))
            refuse_box(found.rows[-1] - first + 1, widest, shown, sheet)
            yield found


def _without_blanks(batch: Batch) -> Batch:
    """Leave out rows without a value, and columns at the end without one."""
    columns = list(batch.columns)
    while columns and all(cell is None for cell in columns[-1].cells):
        columns.pop()
    batch = Batch(batch.rows, columns)
    if columns and not all(None in column.cells for column in columns):
        return batch
    each = [column.each(len(batch.rows)) for column in columns]
    holding = [any(cell is not None for cell in cells) for cells in zip(*each, strict=True)]
    return batch.chosen(holding)


def refuse_box(rows: int, columns: int, shown: str, sheet: str) -> None:
    """Refuse a sheet whose values stand in a box of more than 20 million cells."""
    if rows * columns > MOST_CELLS:
        what = f"too large ({rows:,} rows x {columns:,} columns, limit {MOST_CELLS:,} cells)"
        raise WorkbookError(shown, what, "delete what stands far from the table, or split the workbook", sheet=sheet)


def tab_kind(relation: str) -> TabKind:
    """Tell a tab's kind by the last word of its relation's type (ECMA-376, part 1, 12.3)."""
    return _TAB_KINDS.get(relation, "worksheet")


def in_order(merges: Iterable[Merge]) -> list[Merge]:
    """Sort merges by where they start."""
    return sorted(merges, key=lambda merge: (merge.first_row, merge.first_column))


def refuse_place(row: int, column: int) -> None:
    """Refuse a cell beyond XFD1048576, before a row is made that long."""
    if not (1 <= row <= MOST_ROWS and 1 <= column <= MOST_COLUMNS):
        raise ValueError(f"a cell in row {row}, column {column}; Excel has {MOST_ROWS} rows and {MOST_COLUMNS} columns")


class _Hidden:
    """The cells that merges hide, asked for row by row and downwards."""

    def __init__(self, merges: Sequence[Merge]) -> None:
        self._starting: defaultdict[int, list[Merge]] = defaultdict(list)
        for merge in merges:
            self._starting[merge.first_row].append(merge)
        self._starts = sorted(self._starting, reverse=True)
        self._open: list[Merge] = []

    def blank(self, row: int, cells: list[Cell]) -> None:
        while self._starts and self._starts[-1] <= row:
            self._open += self._starting[self._starts.pop()]
        if not self._open:
            return
        self._open = [merge for merge in self._open if merge.last_row >= row]
        for merge in self._open:
            start = merge.first_column if row == merge.first_row else merge.first_column - 1
            for column in range(start, min(merge.last_column, len(cells))):
                cells[column] = None


def refuse_twins(sheets: Sequence[Sheet], sheet: str, shown: str) -> None:
    """Refuse to read a sheet whose name is not there exactly once: which one would it be?"""
    found = sum(1 for one in sheets if one.name == sheet)
    if found == 0:
        names = ", ".join(one.name for one in sheets)
        raise WorkbookError(shown, f"no sheet {sheet!r}; it has: {names}", "name one of these")
    if found > 1:
        raise WorkbookError(shown, f"{found} sheets have one name", "rename one in Excel", sheet=sheet)


@contextmanager
def as_damaged(shown: str, sheet: str | None = None) -> Iterator[None]:
    """Turn whatever a reader may raise over a workbook's bytes into one WorkbookError."""
    try:
        yield
    except (WdhError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError as error:
        mend = "split the workbook, or set WDH_READ_MEMORY_MB higher"
        raise WorkbookError(shown, "needs more memory than it may take", mend, sheet=sheet) from error
    except BaseException as error:  # a panic of a Rust reader (pyo3 PanicException) is no Exception
        what = f"damaged ({_reason(error)})"
        raise WorkbookError(shown, what, "open it in Excel and save it again", sheet=sheet) from error


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return f"{kind}: {lines[0][:160]}" if lines else kind
