"""The heading row of a sheet: where it is, which column is which field, and what units it gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wdh_luigi import spellings
from wdh_luigi.cells import Cell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.schema import Domain
from wdh_luigi.workbook.book import Merge, Row

SEARCHED_ROWS = 20


@dataclass(frozen=True)
class Headings:
    """
    What the heading row says.

    Attributes:
        row: the heading row; of a heading of several rows the last.
        columns: field -> its column, counted from 0.
        texts: field -> its heading as typed.
        units: field -> the unit in its heading, or "".
        line_unit: the unit in a line above the headings, or "".
        ignored: headings that are no field's.
    """

    row: int
    columns: dict[str, int]
    texts: dict[str, str]
    units: dict[str, str]
    line_unit: str = ""
    ignored: list[str] = field(default_factory=list)


class MissingHeadings(WorkbookError):
    """No row near the top of the sheet holds the headings that the domain needs."""


def letters(column: int) -> str:
    """Return a column's letters in Excel; columns count from 0: 0 is A, 26 is AA."""
    name = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def find(top: Sequence[Row], merges: Sequence[Merge], domain: Domain, shown: str, sheet: str) -> Headings:
    """
    Find the headings in a sheet's first rows.

    Args:
        top: the rows up to the twentieth.
    Raises:
        MissingHeadings: no row holds both codes and a figure; names the nearest.
        WorkbookError: two columns for one field, or a unit that its field cannot have.
    """
    for at, (number, cells) in enumerate(top):
        if _complete(_fields(cells, domain), domain):
            last, cells = _whole_block(top[at:], merges)
            return _headings(last, cells, top[:at], domain, shown, sheet)
        if at and top[at - 1][0] == number - 1:
            over = _overlay([top[at - 1][1], cells])
            if _complete(_fields(over, domain), domain):
                return _headings(number, over, top[: at - 1], domain, shown, sheet)
    raise _missing(top, domain, shown, sheet)


def _fields(cells: Iterable[Cell], domain: Domain) -> list[str | None]:
    """Return, for each cell of a row, the name of the field whose heading it is."""
    return [domain.aliases.get(spellings.heading_parts(spellings.shown(cell))[0]) for cell in cells]


def _complete(fields: Sequence[str | None], domain: Domain) -> bool:
    codes, figures = domain.names("code"), domain.names("figure")
    return all(code in fields for code in codes) and any(figure in fields for figure in figures)


def _whole_block(rows: Sequence[Row], merges: Sequence[Merge]) -> tuple[int, list[Cell]]:
    """Take in the rows below that a heading merged downwards spans: sub-headings, not data."""
    first = rows[0][0]
    last = max((merge.last_row for merge in merges if merge.first_row == first <= SEARCHED_ROWS), default=first)
    last = min(last, SEARCHED_ROWS)
    block = [cells for number, cells in rows if number <= last]
    return last, _overlay(block)


def _overlay(rows: Sequence[Sequence[Cell]]) -> list[Cell]:
    """Read headings of several rows as one: in each column the lowest that is not blank."""
    over: list[Cell] = [None] * max(len(row) for row in rows)
    for row in rows:
        for at, cell in enumerate(row):
            over[at] = cell if cell is not None else over[at]
    return over


def _headings(
    number: int, cells: Sequence[Cell], above: Sequence[Row], domain: Domain, shown: str, sheet: str
) -> Headings:
    columns: dict[str, int] = {}
    units: dict[str, str] = {}
    ignored: list[str] = []
    for at, (cell, name) in enumerate(zip(cells, _fields(cells, domain), strict=True)):
        if name is None:
            ignored += [spellings.shown(cell)] if cell is not None else []
            continue
        if name in columns:
            first, second = f"{letters(columns[name])}{number}", f"{letters(at)}{number}"
            word = domain.sheet_columns[name].word
            what = f"two columns for {word}: {cells[columns[name]]!r} in {first} and {cell!r} in {second}"
            raise WorkbookError(shown, what, "rename or delete one of the two", sheet=sheet)
        columns[name] = at
        units[name] = _unit(name, spellings.heading_parts(spellings.shown(cell))[1], domain, shown, sheet, at, number)
    texts = {name: spellings.shown(cells[at]) for name, at in columns.items()}
    return Headings(number, columns, texts, units, _line_unit(above, shown, sheet), ignored)


def _unit(name: str, unit: str, domain: Domain, shown: str, sheet: str, at: int, number: int) -> str:
    column = domain.sheet_columns[name]
    fits = {"rate": ("%",), "money": tuple(spellings.FACTORS), "per unit": ("元",), "": ()}[column.unit]
    if unit and unit not in fits:
        what = f"the heading of {column.word} gives the unit {unit!r}, expected {' or '.join(fits) or 'none'}"
        mend = "correct the heading" if column.unit else "rename the heading"
        raise WorkbookError(shown, what, mend, sheet=sheet, cell=f"{letters(at)}{number}")
    return unit


def _line_unit(above: Sequence[Row], shown: str, sheet: str) -> str:
    texts = [cell for _, cells in above for cell in cells if isinstance(cell, str)]
    found = sorted({unit for unit in map(spellings.line_unit, texts) if unit})
    if len(found) > 1:
        what = f"two units above the headings: {' and '.join(found)}"
        raise WorkbookError(shown, what, "leave one of them", sheet=sheet)
    return found[0] if found else ""


def _missing(top: Sequence[Row], domain: Domain, shown: str, sheet: str) -> MissingHeadings:
    columns = domain.sheet_columns
    needed = [columns[name].word for name in domain.names("code")]
    figures = [columns[name].word for name in domain.names("figure")]
    what = f"no heading row with {', '.join(needed)} and one of {', '.join(figures)} in the first {SEARCHED_ROWS} rows"
    nearest = max(top, key=lambda row: sum(name is not None for name in _fields(row[1], domain)), default=None)
    if nearest is not None:
        texts = [spellings.shown(cell) for cell in nearest[1] if cell is not None][:8]
        what += f" (nearest is row {nearest[0]}: {', '.join(texts)[:120]})"
    return MissingHeadings(shown, what, "correct the headings, or choose another sheet with --sheet", sheet=sheet)
