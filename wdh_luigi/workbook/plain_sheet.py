"""
The rows of an .xlsx sheet straight from its XML, as far as they are written as programs write large tables.

That is: no merges, and in each row, cell after cell, numbers, texts and blanks. Reading them so takes half of the
library's time; what they mean is told by the module beside (meaning). From the first row on that holds anything else,
such as a formula, a date or an error, the library is to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, islice, repeat
from operator import lt
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError
from zipfile import ZipFile

from wdh_luigi.batches import Batch, Column
from wdh_luigi.cells import ErrorCell, NumberCell
from wdh_luigi.workbook import package, rules
from wdh_luigi.workbook.around import BEGIN, END, Around
from wdh_luigi.workbook.headings import letters
from wdh_luigi.workbook.meaning import Kind, Other, Says, ask
from wdh_luigi.workbook.zip_part import ZipPart

_CHUNK = 1 << 18  # bytes: some thousand rows, a batch
_FIRST_CHUNK = 1 << 14  # those that are searched for the headings
_LEAST = 1 << 20  # bytes of a sheet: with fewer, asking the library takes longer than it saves
_MOST_COLUMNS = 100
_ROW, _ROW_END = b'<row r="([0-9]+)"(?: [A-Za-z0-9:]+="[^"<>&]*")*>', b"</row>"
_MOST_ROW = 1 << 23  # bytes
_MOST_SAID = 8  # things that the cells of one column say
_CELL = re.compile(b'<c r="([A-Z]{1,3})[0-9]+"([^<>]*>)')
_VALUES: dict[str | Kind, bytes] = {
    Kind.BLANK: b"(/>)",
    Kind.SHARED: b"<v>([0-9]+)</v></c>",
    Kind.INLINE: b'<is><t((?: xml:space="preserve")?>[^<>]+)</t></is></c>',
}
_TAGS: dict[str | Kind, int] = {Kind.BLANK: 1, Kind.INLINE: 6}  # of a cell, where they are not four
_NUMBER = b"<v>([-+.0-9eE]+)</v></c>"


class PlainSheets:
    """
    The sheets of a workbook, as far as they are plain.

    Args:
        around: what is around their rows.
    """

    def __init__(self, path: Path, around: Around) -> None:
        self._path = path
        self._around = around
        self._says: Says | None = None  # the same for all sheets

    def of(self, index: int) -> PlainSheet | None:
        """
        Return a sheet, by its index among the tabs; None where it is not plain, or not understood.

        What is wrong with it, if anything, is the library's to say.
        """
        try:
            return self._look(index)
        except MemoryError:
            raise
        except Exception:  # of a damaged file, any
            return None

    def _look(self, index: int) -> PlainSheet | None:
        with ZipFile(self._path) as archive:
            part = package.sheet_part(archive, index)
            if archive.getinfo(part).file_size < _LEAST:
                return None
            around = self._around.of(part)
            if around is None or any(_name(one) == "mergeCell" for one in around.iter()):
                return None
            if self._says is None:
                self._says = ask(archive, part, index)
        return PlainSheet(self._path, part, _last_row(around), self._says)


def _last_row(around: Element) -> int | None:
    return rules.last_row(next((one.get("ref", "") for one in around if _name(one) == "dimension"), ""))


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


class PlainSheet:
    """
    A sheet without merges.

    Attributes:
        last_row: as its ``<dimension>`` names it.
        rest: the row from which the library is to go on when ``batches()`` has ended; None where none is left.
    """

    def __init__(self, path: Path, part: str, last_row: int | None, says: Says) -> None:
        self._path, self._part = path, part
        self._says = says
        self.last_row = last_row
        self.rest: int | None = 1

    def batches(self) -> Iterator[Batch]:
        """Yield the rows above ``rest``."""
        # The first piece has a pattern of its own: in its headings, texts stand above the numbers.
        patterns = chain([_Pattern(self._says)], repeat(_Pattern(self._says)))
        self.rest = first = 1
        try:
            for text, pattern in zip(_pieces(self._path, self._part), patterns, strict=False):
                batch = pattern.batch(text)
                _check_upwards(first, batch.rows)
                if batch.rows:
                    yield batch
                    self.rest = first = batch.rows[-1] + 1
            self.rest = None
        except (Other, ParseError, ValueError, LookupError):
            return


def _check_upwards(first: int, rows: Sequence[int]) -> None:
    if rows and not (first <= rows[0] and rows[-1] <= rules.MOST_ROWS and all(map(lt, rows, islice(rows, 1, None)))):
        raise Other


def _pieces(path: Path, part: str) -> Iterator[bytes]:
    """Yield what is between the begin and the end of the rows, cut behind rows."""
    with ZipFile(path) as archive:
        source = ZipPart(archive, part)
        text = source.read(_FIRST_CHUNK)
        while BEGIN not in text and (chunk := source.read(_CHUNK)):
            text += chunk
        text = text.partition(BEGIN)[2]
        while chunk := source.read(_CHUNK):
            whole, end, rest = text.rpartition(_ROW_END)
            yield whole + end
            text = rest + chunk
            if len(text) > _MOST_ROW:
                raise Other
    yield text.partition(END)[0]


class _Pattern:
    """
    How rows are written, learnt from them: in each column, what cells say before their values.

    A pattern of nothing but this finds values twice as fast as one of all that may be.
    """

    def __init__(self, says: Says) -> None:
        self._says = says
        self._said: dict[bytes, dict[bytes, str | Kind]] = {}  # column -> what cells say -> what they are
        self._row = re.compile(b"(?!)")

    def batch(self, text: bytes) -> Batch:
        """Return the rows of a piece of the sheet."""
        rows, values = self._rows_of(text)
        if not _is_all(text, rows, values):
            self._learn(text)
            rows, values = self._rows_of(text)
        if not _is_all(text, rows, values):
            raise Other
        of_columns = [list(of_column) for _, of_column in groupby(values, lambda one: one.column)]
        columns = dict.fromkeys(self._said, _NO_COLUMN) | {
            of[0].column: self._column(of, len(rows)) for of in of_columns
        }
        return Batch(rows, list(columns.values()) if rows else [])

    def _rows_of(self, text: bytes) -> tuple[list[int], list[_Values]]:
        """Return the numbers of the rows that are written so, and what is in their columns, each kind by itself."""
        found = self._row.findall(text)
        if not found:
            return [], []
        rows, *across, _ = zip(*found, strict=True)
        kinds = ((column, kind) for column, said in self._said.items() for kind in said.values())
        each = [_Values(*kind, values, list(filter(None, values))) for kind, values in zip(kinds, across, strict=True)]
        return list(map(int, rows)), [values for values in each if values.filled]

    def _learn(self, text: bytes) -> None:
        """Add what the cells of a piece say to what is known."""
        for column, said in set(_CELL.findall(text)):
            self._said.setdefault(column, {})[said] = self._says.kind(said)
        width = max(map(package.column_number, self._said), default=0)
        if width > _MOST_COLUMNS or any(len(said) > _MOST_SAID for said in self._said.values()):
            raise Other
        columns = [letters(at).encode() for at in range(width)]
        self._said = {column: self._said.get(column, {}) for column in columns}
        cells = b"".join(_of_cell(column, said) for column, said in self._said.items())
        # The last group is always empty: of a single one, findall makes no tuples.
        self._row = re.compile(_ROW + cells + _ROW_END + b"()")

    def _column(self, values: Sequence[_Values], rows: int) -> Column:
        """Return a column's cells."""
        formats = {one.kind for one in values if isinstance(one.kind, str)}
        there = [one for one in values if one.kind is not Kind.BLANK]
        each = [self._cells(one, formatted=len(formats) > 1) for one in there]
        cells: list[Any] = [None]
        if len(each) == 2 and sum(map(len, each)) == rows:  # most columns of two kinds, in half of the time
            ones, others = map(iter, each)
            cells = [next(ones) if value else next(others) for value in there[0].of_rows]
        else:
            for one, of_kind in zip(there, each, strict=True):
                cells = of_kind if len(of_kind) == rows else _put(of_kind, one.of_rows, cells)
        return Column(cells, formats.pop() if len(formats) == 1 else "")

    def _cells(self, values: _Values, *, formatted: bool) -> list[Any]:
        """Return the cells of one kind; numbers with their format where a column has several."""
        cells = self._says.cells(values.kind, values.filled)
        if formatted and isinstance(values.kind, str) and values.kind:
            return [cell if type(cell) is ErrorCell else NumberCell(cell, values.kind) for cell in cells]
        return cells


class _Values(NamedTuple):
    """
    Values of one kind in a column.

    Attributes:
        of_rows: of each row, empty where its cell is of another kind.
        filled: those that are not.
    """

    column: bytes
    kind: str | Kind
    of_rows: Sequence[bytes]
    filled: Sequence[bytes]


_NO_COLUMN = Column([None])


def _is_all(text: bytes, rows: Sequence[int], values: Iterable[_Values]) -> bool:
    """Tell whether there is nothing else in a piece of XML: each < of it belongs to a row or a cell that was found."""
    return text.count(b"<") == 2 * len(rows) + sum(_TAGS.get(one.kind, 4) * len(one.filled) for one in values)


def _of_cell(column: bytes, said: Mapping[bytes, str | Kind]) -> bytes:
    """Return what matches a column's cell, or none, in a row whose number is the first group."""
    each = [re.escape(one.removesuffix(b"/>")) + _VALUES.get(kind, _NUMBER) for one, kind in said.items()]
    return b'(?:<c r="%s\\1"(?:%s))?' % (column, b"|".join(each)) if each else b""


def _put(of_kind: Sequence[Any], values: Sequence[bytes], cells: Sequence[Any]) -> list[Any]:
    """Put cells where values are not empty, among others; ``cells`` may be one that all rows have."""
    following = iter(of_kind)
    others = cells if len(cells) > 1 else repeat(cells[0])
    return [next(following) if value else other for value, other in zip(values, others, strict=False)]
