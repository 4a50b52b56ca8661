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

from wdh_luigi.batches import Batch, Column, side_by_side
from wdh_luigi.cells import Cell, ErrorCell, NumberCell, Texts
from wdh_luigi.schema import ORIGINAL_ROW

REASON = "原因"
_REASON_WIDTH = 60  # characters
_COMMENTED_ROWS = 1000  # a comment is a drawing, some kB each; further rows have their reasons in the column alone
_BAD = PatternFill("solid", start_color="FFFFC7CE")
_HEADING = Font(bold=True)
_AUTHOR = "wdh_luigi"
_FORMULA_SIGNS = ("=", "+", "-", "@")
_SHEET = "xl/worksheets/sheet1.xml"
_LONGEST_TITLE = 31  # characters of a sheet's name that Excel takes
_LONGEST_TEXT = 32_767  # characters of a cell, the same
_RATIO = "0.00####%"
_NO_TITLE = str.maketrans(dict.fromkeys(r"\/*?:[]", "_"))
_ILLEGAL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd")

Rejects = Sequence[Mapping[str, Any]]  # of one row


def by_row(rejects: Iterable[Mapping[str, Any]]) -> dict[int, Rejects]:
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
    batches: Iterable[Batch],
    rejects: Mapping[int, Rejects],
    ratios: Collection[int],
) -> None:
    """
    Write the workbook, in memory that grows with the rejected rows alone.

    Args:
        titles: the rows above the headings.
        headings: the heading row; of a heading of several rows what they say together.
        batches: the rejected rows as read; what stands right of the headings is nobody's, and left out.
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
    first = row = len(titles) + 2
    with TemporaryFile() as lines:
        rows = _Rows(tab, width, rejects, ratios)
        for batch in batches:
            lines.write(rows.lines(row, batch))
            for number in batch.rows[: max(0, first + _COMMENTED_ROWS - row)]:
                tab.append(_comments(tab, width, rejects[number]))
            row += len(batch.rows)
        _save(book, file, first, lines)


def _save(book: Any, file: BinaryIO, first: int, lines: BinaryIO) -> None:
    """Save a workbook of one sheet, whose rows from the first one on are those in ``lines``, as XML."""
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
                    out.write(before.partition(b'<row r="%d"' % first)[0])
                    copyfileobj(lines, out)
                    out.write(end + after)


def _comments(tab: Any, width: int, found: Rejects) -> list[Any]:
    """Return a row of the comments alone: openpyxl draws them, and takes ten times as long for all else."""
    row: list[Any] = [None] * width
    for reject in found:
        if reject["cell"]:
            row[_column(reject)] = made = WriteOnlyCell(tab)
            made.comment = Comment(_legal(reject["reason"]), _AUTHOR)
    return row


class _Rows:
    """
    Rejected rows as a sheet's XML.

    What a cell is, and its style, is openpyxl's to say, once for each kind of cell.

    Args:
        width, rejects, ratios: as in ``write``.
    """

    def __init__(self, tab: Any, width: int, rejects: Mapping[int, Rejects], ratios: Collection[int]) -> None:
        self._tab = tab
        self._width = width
        self._letters = [get_column_letter(at + 1) for at in range(width + 2)]
        self._rejects = rejects
        self._ratios = ratios
        self._texts = Texts(self._said)
        self._styles: dict[tuple[str, bool, bool], str] = {}

    def lines(self, first: int, batch: Batch) -> bytes:
        """Return rows: their cells, the reasons and the row numbers in the original; ``first`` is the first's own."""
        each = [self._rejects[number] for number in batch.rows]
        columns = [self._of(batch, at) for at in range(self._width)]
        said = [self._column(column, len(each)) for column in columns]
        for place, found in enumerate(each):
            for at in {_column(reject) for reject in found if reject["cell"]}:
                said[at][place] = self._said(columns[at].at(place), bad=True)
        said += [self._column(Column(list(map(_reasons, each))), len(each))]
        said += [[f"><v>{number}</v></c>" for number in batch.rows]]
        numbers = list(map(str, range(first, first + len(each))))
        parts: list[str | Sequence[str]] = ['<row r="', numbers, '">']
        for letter, column in zip(self._letters, said, strict=True):
            if "" in column:
                pairs = zip(numbers, column, strict=True)
                parts.append([f'<c r="{letter}{row}"{one}' if one else "" for row, one in pairs])
            else:
                parts += [f'<c r="{letter}', numbers, '"', column]
        return side_by_side([*parts, "</row>"], len(each)).encode()

    def _of(self, batch: Batch, at: int) -> Column:
        column = batch.columns[at] if at < len(batch.columns) else Column([None])
        return column._replace(number_format=_RATIO) if at in self._ratios and not column.number_format else column

    def _column(self, column: Column, rows: int) -> list[str]:
        """Return what the cells of a column say behind their places."""
        number_format, texts = column.number_format, self._texts
        number = self._style(number_format) + "><v>"
        said = [
            f"{number}{cell!r}</v></c>"
            if type(cell) is float
            else texts[cell]
            if type(cell) is str
            else self._said(cell, number_format)
            for cell in column.unformatted()
        ]
        return said if len(said) == rows else said * rows

    def _said(self, cell: Cell, number_format: str = "", *, bad: bool = False) -> str:
        """Return what a cell says behind its place; nothing where it is not written."""
        if isinstance(cell, str):
            return self._text(cell, bad)
        if isinstance(cell, NumberCell):
            return self._number(cell.value, cell.format, bad)
        if type(cell) is float or type(cell) is int:
            return self._number(cell, number_format, bad)
        if cell is None and not bad:
            return ""
        if isinstance(cell, ErrorCell) and cell.typed:
            return self._text(cell.typed, bad)
        return self._as_made(cell, bad)

    def _number(self, number: float, number_format: str, bad: bool) -> str:
        return f"{self._style(number_format, bad=bad)}><v>{number!r}</v></c>"

    def _text(self, cell: str, bad: bool) -> str:
        text = _legal(cell)
        style = self._style(quoted=text.startswith(_FORMULA_SIGNS), bad=bad)
        return f'{style} t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'

    def _as_made(self, cell: Cell, bad: bool) -> str:
        """Return what a cell of a rarer kind says as openpyxl makes it."""
        made = _cell(self._tab, cell)
        style = self._style(made.number_format, bad=bad)
        if made.value is None:
            return f"{style}/>"
        if made.data_type == "d":
            return f"{style}><v>{to_excel(made.value)!r}</v></c>"
        value = int(made.value) if isinstance(made.value, bool) else made.value
        return f'{style} t="{made.data_type}"><v>{value}</v></c>'

    def _style(self, number_format: str = "", *, quoted: bool = False, bad: bool = False) -> str:
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


def _reasons(found: Rejects) -> str:
    return "; ".join(" ".join(filter(None, (one["heading"], one["reason"]))) for one in found)


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
    return (text if text.isprintable() else text.translate(_ILLEGAL))[:_LONGEST_TEXT]
