"""
The rejects as a workbook: the sheet's own title and headings, the rejected rows as they came, and what is wrong.

Corrected and put into the inbox, it loads beside the original: its name begins with 更正 (correction), and so it has a
source, and a place, of its own. As a version of the original it would hide all the rows that were right. Bad cells are
filled and carry the reason as a comment; two columns are added behind the sheet's own: 原因 (reason) and 原行号 (row in
the original).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.comments import Comment
from openpyxl.styles import Font, PatternFill
from openpyxl.utils.cell import column_index_from_string, coordinate_from_string, get_column_letter

from wdh_luigi.cells import Cell, ErrorCell, NumberCell
from wdh_luigi.schema import ORIGINAL_ROW

REASON = "原因"
_REASON_WIDTH = 60  # characters
_COMMENTED_ROWS = 1000  # a comment is a drawing, some kB each; further rows have their reasons in the column alone
_BAD = PatternFill("solid", start_color="FFFFC7CE")
_HEADING = Font(bold=True)
_AUTHOR = "wdh_luigi"
_LONGEST_TITLE = 31  # characters of a sheet's name that Excel takes
_NO_TITLE = str.maketrans(dict.fromkeys(r"\/*?:[]", "_"))
_ILLEGAL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd")

Row = tuple[int, list[Cell]]


def by_row(rejects: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Gather the rejects of each row."""
    rows: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for reject in rejects:
        rows[reject["row"]].append(reject)
    return dict(rows)


def write(
    file: BinaryIO,
    sheet: str,
    titles: Sequence[Sequence[Cell]],
    headings: Sequence[str],
    rows: Iterable[Row],
    rejects: Mapping[int, Sequence[Mapping[str, Any]]],
    ratios: Collection[int],
) -> None:
    """
    Write the workbook, in memory that grows with the rejected rows alone.

    Args:
        titles: the rows above the headings.
        headings: the heading row; of a heading of several rows what they say together.
        rows: all data rows as read; those without a reject are left out.
        rejects: row number -> its rejects.
        ratios: columns, from 0, whose bare numbers are shown as percentages: that they are ratios was seen from all
            the rows together, and could not be from these few.
    """
    book = Workbook(write_only=True)
    tab = book.create_sheet(sheet.translate(_NO_TITLE)[:_LONGEST_TITLE] or None)
    width = len(headings)
    tab.column_dimensions[get_column_letter(width + 1)].width = _REASON_WIDTH
    tab.freeze_panes = f"A{len(titles) + 2}"
    for title in titles:
        tab.append([_cell(tab, cell) for cell in title])
    tab.append([_heading(tab, cell) for cell in (*headings, REASON, ORIGINAL_ROW)])
    written = 0
    for number, cells in rows:
        if number in rejects:
            written += 1
            shown = [_as_ratio(cell) if at in ratios else cell for at, cell in enumerate(cells[:width])]
            tab.append(_rejected(tab, number, shown, width, rejects[number], commented=written <= _COMMENTED_ROWS))
    book.save(file)


def _as_ratio(cell: Cell) -> Cell:
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return NumberCell(cell, "0.00####%")
    return cell


def _rejected(
    tab: Any, number: int, cells: Sequence[Cell], width: int, found: Sequence[Mapping[str, Any]], *, commented: bool
) -> list[Any]:
    """Return a rejected row's cells; what stands right of the headings is nobody's, and left out."""
    row = [_cell(tab, cell) for cell in (*cells, *[None] * (width - len(cells)))]
    for reject in found:
        if reject["cell"]:
            letters, _ = coordinate_from_string(reject["cell"])
            bad = row[column_index_from_string(letters) - 1]
            bad.fill = _BAD
            if commented:
                bad.comment = Comment(_legal(reject["reason"]), _AUTHOR)
    reasons = "; ".join(" ".join(filter(None, (one["heading"], one["reason"]))) for one in found)
    return [*row, _cell(tab, reasons), _cell(tab, number)]


def _heading(tab: Any, cell: Cell) -> Any:
    heading = _cell(tab, cell)
    heading.font = _HEADING
    return heading


def _cell(tab: Any, cell: Cell) -> Any:
    """Write a cell as it came; text stays text, whatever formula it looks like."""
    if isinstance(cell, ErrorCell):
        return _error(tab, cell)
    if isinstance(cell, NumberCell):
        made = WriteOnlyCell(tab, cell.value)
        made.number_format = cell.format
        return made
    if isinstance(cell, str):
        made = WriteOnlyCell(tab, None)
        made.value = _legal(cell)
        made.data_type = "s"
        made.quotePrefix = made.value.startswith(("=", "+", "-", "@"))
        return made
    plain: Any = cell
    return WriteOnlyCell(tab, plain)


def _error(tab: Any, cell: ErrorCell) -> Any:
    """Write an Excel error as one, a figure of several cells as its text, and no formula: it was never computed."""
    if cell.typed:
        return _cell(tab, cell.typed)
    made = WriteOnlyCell(tab, None)
    if cell.code.startswith("#"):
        made.value, made.data_type = cell.code, "e"
    return made


def _legal(text: str) -> str:
    """Replace the characters that XML cannot hold."""
    return text.translate(_ILLEGAL)[:32_767]
