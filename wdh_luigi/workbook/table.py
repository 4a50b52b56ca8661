"""A domain's table in a sheet: its data rows as read, and the profile of what was found on the way."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from wdh_luigi import spellings
from wdh_luigi.batches import Batch, Column
from wdh_luigi.cells import MERGED, Cell, ErrorCell, NumberCell, Texts
from wdh_luigi.errors import WorkbookError
from wdh_luigi.schema import Domain
from wdh_luigi.workbook import headings
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet
from wdh_luigi.workbook.headings import SEARCHED_ROWS, Headings, MissingHeadings, UnclearHeadings, letters


@dataclass
class Extremes:
    """The smallest and the largest bare number of a column, by size without its sign and zero left out."""

    count: int = 0
    smallest: Decimal | None = None
    smallest_cell: str = ""
    largest: Decimal | None = None
    largest_cell: str = ""

    def add(self, number: Decimal, cell: str) -> None:
        """Count one more number."""
        self.count += 1
        size = abs(number)
        if self.smallest is None or size < abs(self.smallest):
            self.smallest, self.smallest_cell = number, cell
        if self.largest is None or size > abs(self.largest):
            self.largest, self.largest_cell = number, cell


@dataclass
class Profile:
    """
    What a sheet is like, complete once all its rows were read.

    Attributes:
        sheet: its name.
        headings: where the headings are and what they say.
        top: the rows down to the headings, as read.
        rows_read: data rows.
        skipped: rows below the headings that are no data: {"row", "to", "reason"}, ``to`` included.
        extremes: figure field -> its bare numbers' extremes.
        merged: periods and codes that count for several rows: (column from 0, first row, last row).
        gives_formats: the reader tells number formats, so that a percentage is known from a bare number.
    """

    sheet: str
    headings: Headings
    top: list[Row]
    gives_formats: bool
    rows_read: int = 0
    skipped: list[dict[str, int | str]] = field(default_factory=list)
    extremes: dict[str, Extremes] = field(default_factory=dict)
    merged: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def rows_skipped(self) -> int:
        """Count the skipped rows."""
        return sum(int(span["to"]) - int(span["row"]) + 1 for span in self.skipped)


class Table:
    """
    A domain's rows in one sheet of an open workbook.

    ``batches()``, or ``rows()``, can be asked for once; ``profile`` is complete when it has ended.
    """

    def __init__(
        self,
        book: Book,
        sheet: str,
        found: Headings,
        merges: Sequence[Merge],
        top: list[Row],
        domain: Domain,
        begun: Iterator[Batch] | None = None,
    ):
        """Make a table; ``begun`` are all of the sheet's rows, where a reader that was begun for the top goes on."""
        self._book = book
        self._begun = begun
        self._domain = domain
        self._fill = _Merged(merges, found, domain)
        self.profile = Profile(sheet, found, [row for row in top if row[0] <= found.row], book.gives_formats)
        self._above = found.row
        self._identity = [found.columns[name] for name in _identity(domain) if name in found.columns]
        figures = {name: found.columns[name] for name in domain.names("figure") if name in found.columns}
        codes = [found.columns[name] for name in domain.names("code")]
        self._saying = codes + list(figures.values())
        self.profile.extremes = {name: Extremes() for name in figures}
        self._bare = {at: _BareNumbers(at, self.profile.extremes[name]) for name, at in figures.items()}
        self.profile.merged = self._fill.downwards

    def rows(self) -> Iterator[Row]:
        """Yield the data rows, cells from column A, values of vertical merges filled in."""
        for batch in self.batches():
            yield from batch.by_rows()

    def batches(self) -> Iterator[Batch]:
        """Yield the same rows, side by side."""
        for batch in self._begun or self._book.batches(self.profile.sheet):
            if batch.rows[0] <= self.profile.headings.row:
                batch = batch.chosen([number > self.profile.headings.row for number in batch.rows])
            found = self._data(self._fill.filled(batch)) if batch.rows else batch
            if not found.rows:
                continue
            self.profile.rows_read += len(found.rows)
            for at, column in self._bare.items():
                if at < len(found.columns):
                    column.note(found.rows, found.columns[at])
            yield found

    def _data(self, batch: Batch) -> Batch:
        """Return the data rows of a batch, and note the others, and those that are not there."""
        rows = batch.rows
        if rows[-1] - self._above == len(rows) and self._is_all_data(batch):
            self._above = rows[-1]
            return batch
        chosen = []
        for number, cells in batch.by_rows():
            if number > self._above + 1:
                self._skip(self._above + 1, number - 1, "blank")
            self._above = number
            reason = self._no_data(cells)
            if reason:
                self._skip(number, number, reason)
            chosen.append(not reason)
        return batch if all(chosen) else batch.chosen(chosen)

    def _is_all_data(self, batch: Batch) -> bool:
        """Tell at a glance whether all rows are data rows; where not, each is looked at."""
        columns = batch.columns
        for at in self._identity:
            if at < len(columns) and any(type(cell) is str and _is_total(cell) for cell in set(columns[at].cells)):
                return False
        saying = (columns[at] for at in self._saying if at < len(columns))
        return any(not any(map(_is_blank, set(column.cells))) for column in saying)

    def last_row(self) -> int | None:
        """Return the sheet's last row as the file says it, right or wrong; None where it says nothing."""
        return self._book.last_row(self.profile.sheet)

    def close(self) -> None:
        """Let go of the workbook."""
        self._book.close()

    def _skip(self, first: int, last: int, reason: str) -> None:
        self.profile.skipped.append({"row": first, "to": last, "reason": reason})

    def _no_data(self, cells: Sequence[Cell]) -> str | None:
        """Say why a row is no data row, or None for a data row."""
        width = len(cells)
        for at in self._identity:
            if at < width and type(cells[at]) is str and _is_total(cells[at]):
                return "total"
        for at in self._saying:
            if at < width and not _is_blank(cells[at]):
                return None
        text = next((spellings.shown(cell) for cell in cells if not spellings.is_blank(cell)), "")
        return f"no codes and no figures: {text[:60]}" if text else "blank"


class _BareNumbers:
    """Notes the extremes of a column; most numbers lie between those known, and no Decimal is made of them."""

    def __init__(self, at: int, extremes: Extremes) -> None:
        self._at = at
        self._extremes = extremes
        self._smallest, self._largest = math.inf, 0.0

    def note(self, rows: Sequence[int], column: Column) -> None:
        """Take in the numbers of rows that are bare and not zero."""
        if spellings.shows_percent(NumberCell(1, column.number_format)):  # no number in it is bare
            column = Column([cell if type(cell) is str else None for cell in column.cells])
        cells: Sequence[Any] = column.each(len(rows))
        kinds = set(map(type, cells))
        numbers = cells if kinds <= _NUMBERS else [cell for cell in cells if type(cell) in _NUMBERS]
        if self._are_between(numbers):
            self._extremes.count += len(numbers)
            left = () if kinds <= _NOTED else zip(rows, cells, strict=True)
            known = _bare_number.get  # None of a text that was met and is no bare number, as most rates in texts are
            self._add([(row, cell) for row, cell in left if type(cell) not in _NOTED and known(cell, cell) is not None])
        else:
            self._add(zip(rows, cells, strict=True))

    def _are_between(self, numbers: Sequence[float]) -> bool:
        return not numbers or (self._smallest < min(map(abs, numbers)) and max(map(abs, numbers)) < self._largest)

    def _add(self, cells: Iterable[tuple[int, Any]]) -> None:
        for number, cell in cells:
            if type(cell) in _NUMBERS and self._smallest < abs(cell) < self._largest:
                self._extremes.count += 1
            elif bare := _bare_number(cell):
                self._extremes.add(bare, f"{letters(self._at)}{number}")
                self._smallest = float(abs(self._extremes.smallest or bare))
                self._largest = float(abs(self._extremes.largest or bare))


_NUMBERS = frozenset({int, float})
_NOTED = _NUMBERS | {type(None)}


_is_total = Texts(spellings.is_total)
_is_blank = Texts(spellings.is_blank)
_bare_number = Texts(spellings.bare_number)


def _identity(domain: Domain) -> list[str]:
    return domain.names("period") + domain.names("code")


class _Merged:
    """What merged cells below the headings mean: a period or code counts for each row, a figure for none."""

    def __init__(self, merges: Sequence[Merge], found: Headings, domain: Domain) -> None:
        self._identity = {found.columns[name] for name in _identity(domain) if name in found.columns}
        self._figures = {found.columns[name] for name in domain.names("figure") if name in found.columns}
        below = [merge for merge in merges if merge.first_row > found.row and self._matters(merge)]
        self._coming = sorted(below, key=lambda merge: merge.first_row, reverse=True)
        self._open: list[tuple[Merge, Cell]] = []
        self.downwards = [
            (merge.first_column - 1, merge.first_row, merge.last_row)
            for merge in reversed(self._coming)
            if merge.first_column - 1 in self._identity and _rows(merge) > 1
        ]

    def _matters(self, merge: Merge) -> bool:
        first, span = merge.first_column - 1, _span(merge)
        if first in self._figures:
            return _rows(merge) > 1 or len(span & self._figures) > 1
        return bool(span & self._identity)

    def filled(self, batch: Batch) -> Batch:
        """Return the rows with what merged cells mean written into their cells; batches come downwards."""
        if not self._coming and not self._open:
            return batch
        rows = list(batch.by_rows())
        for number, cells in rows:
            self._fill(number, cells)
        return Batch.of(rows)

    def _fill(self, number: int, cells: list[Cell]) -> None:
        """Write what the row's merged cells mean into its cells; rows come downwards."""
        while self._coming and self._coming[-1].first_row <= number:
            merge = self._coming.pop()
            first = merge.first_column - 1
            self._open.append((merge, cells[first] if merge.first_row == number and first < len(cells) else None))
        if self._open:
            self._open = [(merge, value) for merge, value in self._open if merge.last_row >= number]
        for merge, value in self._open:
            if not spellings.is_blank(value):
                self._write(merge, value, number, cells)

    def _write(self, merge: Merge, value: Cell, number: int, cells: list[Cell]) -> None:
        first = merge.first_column - 1
        if first in self._figures:
            _put(cells, first, ErrorCell(MERGED + _range(merge), spellings.shown(value)))
        elif first in self._identity:
            _put(cells, first, value)
        elif spellings.is_total(value):  # it reads so in every cell that it covers
            _put(cells, min(_span(merge) & self._identity), value)


def _rows(merge: Merge) -> int:
    return merge.last_row - merge.first_row + 1


def _span(merge: Merge) -> set[int]:
    return set(range(merge.first_column - 1, merge.last_column))


def _range(merge: Merge) -> str:
    first = f"{letters(merge.first_column - 1)}{merge.first_row}"
    return f"{first}:{letters(merge.last_column - 1)}{merge.last_row}"


def _put(cells: list[Cell], at: int, value: Cell) -> None:
    cells += [None] * (at + 1 - len(cells))
    cells[at] = value


OpenBook = Callable[[Path, str], Book]


def opener(reader: str, name: str = "") -> OpenBook:
    """
    Return what opens a workbook of a name: "auto" for the reader that suits its content, or "openpyxl".

    The libraries behind it are heavy, and imported here: before the reading processes are forked, and never in a run
    that reads nothing.
    """
    module = importlib.import_module(f"wdh_luigi.workbook.{reader}_reader")
    if reader == "auto":
        module.prepare(name)
    open_book: OpenBook = module.open_book
    return open_book


def open_table(
    path: Path, shown: str, wanted: int | str | None, domain: Domain, open_book: OpenBook | None = None
) -> Table:
    """
    Open a domain's table in a workbook.

    Args:
        shown: the workbook's name in messages.
        wanted: the sheet: a name, or an index from 0 (digits are an index unless a sheet has that name); None for
            the only visible one that holds the headings.
        open_book: the reader, from opener; by default the one that suits the content.
    Raises:
        WorkbookError: the file cannot be read, has no such sheet, or no headings; one line with what to do.
    """
    book = (open_book or opener("auto"))(path, shown)
    try:
        if wanted is not None:
            return _table(book, named(book.sheets, wanted, shown), domain, shown)
        return _only_table(book, domain, shown)
    except BaseException:
        book.close()
        raise


def named(sheets: Sequence[Sheet], wanted: int | str, shown: str) -> Sheet:
    """Return the worksheet of a name or an index."""
    found = next((sheet for sheet in sheets if sheet.name == str(wanted)), None)
    index = int(wanted) if isinstance(wanted, int) or wanted.isdecimal() else None
    if found is None and index is not None and 0 <= index < len(sheets):
        found = sheets[index]
    if found is None:
        there = ", ".join(f"{at}: {sheet.name}" for at, sheet in enumerate(sheets))
        raise WorkbookError(
            shown, f"no sheet {wanted!r}; it has {there}", "correct --sheet or sheet in data_sources.yml"
        )
    if found.kind != "worksheet":
        raise WorkbookError(shown, f"is a {found.kind} sheet, which holds no rows", "choose another", sheet=found.name)
    return found


def _only_table(book: Book, domain: Domain, shown: str) -> Table:
    """Return the table of the only visible sheet that holds the headings."""
    tables: list[Table] = []
    nearest: WorkbookError | None = None
    sheets = [sheet for sheet in book.sheets if sheet.kind == "worksheet" and not sheet.hidden]
    for sheet in sheets:
        try:
            tables.append(_table(book, sheet, domain, shown, alone=len(sheets) == 1))
        except UnclearHeadings:
            raise
        except WorkbookError as error:  # also of a sheet that cannot be read: the table may be in another
            nearest = error if nearest is None or isinstance(nearest, MissingHeadings) else nearest
    if len(tables) > 1:
        names = ", ".join(table.profile.sheet for table in tables)
        what = f"{len(tables)} sheets hold the headings: {names}"
        raise WorkbookError(shown, what, "name one with --sheet or sheet in data_sources.yml")
    if tables:
        return tables[0]
    if nearest is None:
        raise WorkbookError(shown, "no visible worksheet", "name a hidden one with --sheet, or show it in Excel")
    raise nearest


def _table(book: Book, sheet: Sheet, domain: Domain, shown: str, *, alone: bool = True) -> Table:
    """Find a sheet's table; ``alone``: no other sheet's rows are asked for before this one's, and end its own."""
    merges = book.merges(sheet.name)
    batches = book.batches(sheet.name)
    begun = []
    for batch in batches:
        begun.append(batch)
        if batch.rows[-1] > SEARCHED_ROWS:
            break
    rows = (row for batch in begun for row in batch.by_rows())
    top = list(takewhile(lambda row: row[0] <= SEARCHED_ROWS, rows))
    if not top:
        raise MissingHeadings(shown, "the sheet is empty", "choose another sheet with --sheet", sheet=sheet.name)
    found = headings.find(top, merges, domain, shown, sheet.name)
    return Table(book, sheet.name, found, merges, top, domain, chain(begun, batches) if alone else None)
