"""The heading row of a sheet: where it is, which column is which field, and what units it gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

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
        first_row: the heading row; of a heading of several rows the first.
        row_texts: every cell of the heading row; of a heading of several rows what they say together.
    """

    row: int
    columns: dict[str, int]
    texts: dict[str, str]
    units: dict[str, str]
    line_unit: str = ""
    ignored: list[str] = field(default_factory=list)
    first_row: int = 0
    row_texts: list[str] = field(default_factory=list)


class MissingHeadings(WorkbookError):
    """No row near the top of the sheet holds the headings that the domain needs."""


class UnclearHeadings(WorkbookError):
    """The headings are there, and do not say which column is which field, or in what unit."""


@cache
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
        UnclearHeadings: two columns for one field, or a unit that its field cannot have.
    """
    for at, (number, cells) in enumerate(top):
        if _complete(_fields(cells, domain), domain):
            return _headings(_block(top[at:], merges, domain), top[:at], domain, shown, sheet)
        if at and top[at - 1][0] == number - 1 and _complete(_fields(_stacked(top[at - 1 : at + 1]), domain), domain):
            block = [*top[at - 1 : at + 1], *_units_row(top[at + 1 :], number)]
            return _headings(block, top[: at - 1], domain, shown, sheet)
    raise _missing(top, domain, shown, sheet)


def _fields(cells: Iterable[Cell], domain: Domain) -> list[str | None]:
    """Return, for each cell of a row, the name of the field whose heading it is."""
    return [domain.aliases.get(spellings.heading_parts(spellings.shown(cell))[0]) for cell in cells]


def _complete(fields: Sequence[str | None], domain: Domain) -> bool:
    codes, figures = domain.names("code"), domain.names("figure")
    return all(code in fields for code in codes) and any(figure in fields for figure in figures)


def _block(rows: Sequence[Row], merges: Sequence[Merge], domain: Domain) -> list[Row]:
    """Take in the rows below that a field's heading merged downwards spans, and a row of units: no data."""
    first, cells = rows[0]
    fields = {at for at, name in enumerate(_fields(cells, domain), 1) if name}
    spans = [merge.last_row for merge in merges if merge.first_row == first and merge.first_column in fields]
    last = max([first, *spans])
    block = [row for row in rows if row[0] <= last]
    return block + _units_row(rows[len(block) :], last)


def _units_row(rows: Sequence[Row], above: int) -> list[Row]:
    """Return the row right below the headings if it holds units and nothing else."""
    if not rows or rows[0][0] != above + 1:
        return []
    said = [cell for cell in rows[0][1] if not spellings.is_blank(cell)]
    return [rows[0]] if said and all(spellings.heading_unit(spellings.shown(cell)) for cell in said) else []


def _stacked(rows: Sequence[Row]) -> list[Cell]:
    """Read headings of several rows as one: in each column the lowest, with a unit that stands below it."""
    stacked: list[Cell] = [None] * max(len(cells) for _, cells in rows)
    for _, cells in rows:
        for at, cell in enumerate(cells):
            over = spellings.shown(stacked[at])
            unit = spellings.heading_unit(spellings.shown(cell)) if over else ""
            if unit and unit != spellings.heading_parts(over)[1]:
                stacked[at] = f"{over}({unit})"
            elif not unit and not spellings.is_blank(cell):
                stacked[at] = cell
    return stacked


def _headings(block: Sequence[Row], above: Sequence[Row], domain: Domain, shown: str, sheet: str) -> Headings:
    columns: dict[str, int] = {}
    units: dict[str, str] = {}
    ignored: list[str] = []
    number, cells = block[-1][0], _stacked(block)
    for at, (cell, name) in enumerate(zip(cells, _fields(cells, domain), strict=True)):
        if name is None:
            ignored += [spellings.shown(cell)] if cell is not None else []
            continue
        if name in columns:
            first, second = f"{letters(columns[name])}{number}", f"{letters(at)}{number}"
            word = domain.sheet_columns[name].word
            what = f"two columns for {word}: {cells[columns[name]]!r} in {first} and {cell!r} in {second}"
            raise UnclearHeadings(shown, what, "rename or delete one of the two", sheet=sheet)
        columns[name] = at
        units[name] = _unit(name, spellings.heading_parts(spellings.shown(cell))[1], domain, shown, sheet, at, number)
    _refuse_unclear(block, set(columns), domain, shown, sheet)
    texts = {name: spellings.shown(cells[at]) for name, at in columns.items()}
    bare = any(domain.sheet_columns[name].unit == "money" and not unit for name, unit in units.items())
    line_unit = _line_unit(above, shown, sheet) if bare else ""
    row_texts = [spellings.shown(cell) for cell in cells]
    return Headings(number, columns, texts, units, line_unit, ignored, block[0][0], row_texts)


def _refuse_unclear(block: Sequence[Row], found: set[str], domain: Domain, shown: str, sheet: str) -> None:
    """Refuse a heading that seems a field's, and is not understood: its figures would be left out silently."""
    for at, cell in enumerate(_stacked(block)):
        heading, unit = spellings.foreign_unit(spellings.shown(cell))
        name = domain.aliases.get(heading)
        if name and name not in found:
            _unit(name, unit, domain, shown, sheet, at, block[-1][0])
    for number, cells in block[:-1]:
        for at, name in enumerate(_fields(cells, domain)):
            if name and name not in found:
                what = f"the heading {spellings.shown(cells[at])!r} is divided below: which column is it?"
                mend = f"name that column {domain.sheet_columns[name].word}"
                raise UnclearHeadings(shown, what, mend, sheet=sheet, cell=f"{letters(at)}{number}")


def _unit(name: str, unit: str, domain: Domain, shown: str, sheet: str, at: int, number: int) -> str:
    column = domain.sheet_columns[name]
    fits = {"rate": ("%",), "money": tuple(spellings.FACTORS), "per unit": ("元", "元/份"), "": ()}[column.unit]
    if unit and unit not in fits:
        what = f"the heading of {column.word} gives the unit {unit!r}, expected {' or '.join(fits) or 'none'}"
        mend = "correct the heading" if column.unit else "rename the heading"
        raise UnclearHeadings(shown, what, mend, sheet=sheet, cell=f"{letters(at)}{number}")
    return unit


def _line_unit(above: Sequence[Row], shown: str, sheet: str) -> str:
    lines = [[cell for cell in cells if isinstance(cell, str)] for _, cells in above]
    found = sorted(set().union(*(spellings.line_units(texts) for texts in lines)))
    if len(found) > 1:
        what = f"two units above the headings: {' and '.join(found)}"
        raise UnclearHeadings(shown, what, "leave one of them", sheet=sheet)
    if found and found[0] not in spellings.FACTORS:
        what = f"the line above the headings gives the unit {found[0]!r}, expected {' or '.join(spellings.FACTORS)}"
        raise UnclearHeadings(shown, what, "correct the line, and the amounts with it", sheet=sheet)
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
