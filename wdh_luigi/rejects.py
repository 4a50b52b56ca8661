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
from functools import cache
from itertools import islice
from shutil import copyfileobj
from string import digits
from tempfile import TemporaryFile
from typing import Any, BinaryIO
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, ZipFile

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.comments import Comment
from openpyxl.styles import Font, PatternFill
from openpyxl.utils.cell import column_index_from_string, get_column_letter
from openpyxl.utils.datetime import to_excel

from wdh_luigi.cells import Cell, ErrorCell, NumberCell
from wdh_luigi.schema import ORIGINAL_ROW

REASON = "原因"
_REASON_WIDTH = 60  # characters
_COMMENTED_ROWS = 1000  # a comment is a drawing, some kB each; further rows have their reasons in the column alone
_BAD = PatternFill("solid", start_color="FFFFC7CE")
_HEADING = Font(bold=True)
_AUTHOR = "wdh_luigi"
_REMEMBERED = 20_000  # texts
_LONG = 60  # characters, of a text that is not remembered
_FORMULA_SIGNS = ("=", "+", "-", "@")
_SHEET = "xl/worksheets/sheet1.xml"
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
    rejected = (
        (number, [_as_ratio(cell) if at in ratios else cell for at, cell in enumerate(cells[:width])])
        for number, cells in rows
        if number in rejects
    )
    above = len(titles) + 1
    for number, cells in islice(rejected, _COMMENTED_ROWS):
        above += 1
        tab.append(_rejected(tab, number, cells, width, rejects[number]))
    with TemporaryFile() as lines:
        plain = _PlainRows(tab, lines, width + 2)
        for row, (number, cells) in enumerate(rejected, above + 1):
            plain.write(row, [*cells, *[None] * (width - len(cells))], number, rejects[number])
        _save(book, file, lines)


def _save(book: Any, file: BinaryIO, lines: BinaryIO) -> None:
    """Save a workbook of one sheet, with more rows behind its own, as XML."""
    lines.seek(0)
    with TemporaryFile() as saved:
        book.save(saved)
        with ZipFile(saved) as made, ZipFile(file, "w", ZIP_DEFLATED, compresslevel=1) as archive:
            for part in made.infolist():
                content = made.read(part)
                with archive.open(part.filename, "w", force_zip64=True) as out:
                    if part.filename != _SHEET:
                        out.write(content)
                        continue
                    before, end, after = content.rpartition(b"</sheetData>")
                    out.write(before)
                    copyfileobj(lines, out)
                    out.write(end + after)


def _as_ratio(cell: Cell) -> Cell:
    if isinstance(cell, (int, float)) and not isinstance(cell, bool):
        return NumberCell(cell, "0.00####%")
    return cell


class _PlainRows:
    """
    Writes rejected rows without comments as XML: openpyxl takes ten times as long for a row.

    What a cell is, and its style, is openpyxl's to say, once for each kind of cell.
    """

    def __init__(self, tab: Any, file: BinaryIO, width: int) -> None:
        self._tab = tab
        self._file = file
        self._letters = [get_column_letter(at + 1) for at in range(width)]
        self._texts: dict[tuple[str, bool], str] = {}
        self._styles: dict[tuple[str, bool, bool], str] = {}

    def write(self, row: int, cells: Sequence[Cell], number: int, found: Sequence[Mapping[str, Any]]) -> None:
        """Write a row: its cells, the reasons and its row number in the original."""
        values = (*cells, _reasons(found), number)
        said = [self._said(cell) for cell in values]
        for at in {_column(reject) for reject in found if reject["cell"]}:
            said[at] = self._said(values[at], bad=True)
        parts = [f'<c r="{letter}{row}"{one}' for letter, one in zip(self._letters, said, strict=True) if one]
        self._file.write(f'<row r="{row}">{"".join(parts)}</row>'.encode())

    def _said(self, cell: Cell, bad: bool = False) -> str:
        """Return what a cell says behind its place; nothing where it is not written."""
        if type(cell) is float or type(cell) is int:
            return f"{self._style('', False, bad)}><v>{cell!r}</v></c>"
        if isinstance(cell, str):
            return self._texts.get((cell, bad)) or self._text(cell, bad)
        if isinstance(cell, NumberCell):
            return f"{self._style(cell.format, False, bad)}><v>{cell.value!r}</v></c>"
        if cell is None and not bad:
            return ""
        if isinstance(cell, ErrorCell) and cell.typed:
            return self._said(cell.typed, bad)
        return self._as_made(cell, bad)

    def _text(self, cell: str, bad: bool) -> str:
        text = _legal(cell)
        style = self._style("", text.startswith(_FORMULA_SIGNS), bad)
        said = f'{style} t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'
        if len(self._texts) >= _REMEMBERED:
            self._texts.clear()
        if len(cell) <= _LONG:
            self._texts[cell, bad] = said
        return said

    def _as_made(self, cell: Cell, bad: bool) -> str:
        """Return what a cell of a rarer kind says as openpyxl makes it."""
        made = _cell(self._tab, cell)
        style = self._style(made.number_format, False, bad)
        if made.value is None:
            return f"{style}/>"
        if made.data_type == "d":
            return f"{style}><v>{to_excel(made.value)!r}</v></c>"
        value = int(made.value) if isinstance(made.value, bool) else made.value
        return f'{style} t="{made.data_type}"><v>{value}</v></c>'

    def _style(self, number_format: str, quoted: bool, bad: bool) -> str:
        """Return the attribute of a style that the workbook is given, made once."""
        key = (number_format, quoted, bad)
        if key not in self._styles:
            made = WriteOnlyCell(self._tab, None)
            made.number_format = number_format or "General"
            made.quotePrefix = quoted
            if bad:
                made.fill = _BAD
            self._styles[key] = f' s="{made.style_id}"' if made.style_id else ""
        return self._styles[key]


def _column(reject: Mapping[str, Any]) -> int:
    """Return the column of a reject's cell, from 0."""
    return _column_of(reject["cell"].rstrip(digits))


@cache
def _column_of(letters: str) -> int:
    return column_index_from_string(letters) - 1


def _reasons(found: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(" ".join(filter(None, (one["heading"], one["reason"]))) for one in found)


def _rejected(
    tab: Any, number: int, cells: Sequence[Cell], width: int, found: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Return a rejected row's cells; what stands right of the headings is nobody's, and left out."""
    row = [_cell(tab, cell) for cell in (*cells, *[None] * (width - len(cells)))]
    for reject in found:
        if reject["cell"]:
            bad = row[_column(reject)]
            bad.fill = _BAD
            bad.comment = Comment(_legal(reject["reason"]), _AUTHOR)
    return [*row, _cell(tab, _reasons(found)), _cell(tab, number)]


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
        made.quotePrefix = made.value.startswith(_FORMULA_SIGNS)
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
