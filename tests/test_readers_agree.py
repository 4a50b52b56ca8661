"""
The fast reader and openpyxl give the same cells: what one of them gets wrong shows as a difference.

Their deliberate differences, each of which has a test below, all on what Excel itself never writes:

- A date before the workbook's first day (a negative number in a date format, which Excel shows as ####): a time of 0:00
  from python-calamine, a date in 1899 or before from openpyxl. No period and no figure is either.
- ``_x000D_`` in a text that stands in the cell itself (t="str") and is no formula's result stays as it is with
  python-calamine, which does not tell it from a shared string, in which it is decoded already.
- An escape beyond ``_x00FF_`` stays as it is with python-calamine, and is decoded with openpyxl; Excel escapes control
  characters and its own escapes only.
- A number that is none ("abc", " 7 ") is a text with python-calamine, so that it rejects its row; with openpyxl it
  refuses the sheet. NaN likewise: an error cell, or the sheet refused.
- An error cell without its error is blank with python-calamine and an error with openpyxl.
- Blanks around a text without ``xml:space="preserve"`` are dropped by python-calamine, as Excel does, and kept by
  openpyxl. They are stripped before a cell is understood.
- A time's millisecond may be one off, as each rounds what stands beyond it in its own way.
- Strict Open XML is read by python-calamine and refused by openpyxl, which does not know it.
- XML in UTF-16 is read by openpyxl and refused by python-calamine; in GBK the other way round.
- Parts whose names differ in case from what refers to them are found by python-calamine only; so is a workbook whose
  sheet says nothing at all (no sheetData).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from books import MAIN, merged, xlsx, xlsx_parts, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.utils import get_column_letter

from wdh_luigi.cells import ErrorCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import calamine_reader, openpyxl_reader, plain_sheet
from wdh_luigi.workbook.book import Book, Merge, Row

FORMATS = [
    "0.00%",
    "0%;[Red]-0%",
    "000000",
    "yyyy-mm-dd",
    'yyyy"年"m"月"d"日"',
    "yyyy/m/d h:mm:ss",
    "h:mm",
    "[h]:mm:ss",
    "#,##0.00",
    '0.00"%"',
    "@",
]
DATES = [4, 5, 6]  # styles, of which 0 is General
TIMES = [7, 8]
OTHERS = [0, 1, 2, 3, 9, 10, 11]
ERRORS = ["#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"]


@dataclass(frozen=True)
class Spelled:
    """A cell as a file spells it: its type, its style, its formula and what stands in it."""

    kind: str
    style: int
    inside: str
    shared: str | None = None


def texts() -> st.SearchStrategy[str]:
    """Texts as XML may hold them, some with what Excel escapes."""
    beyond = re.compile("_x(?!00)[0-9A-Fa-f]{4}_")
    plain = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "S")), max_size=8).filter(
        lambda text: not beyond.search(text)
    )
    return plain | st.sampled_from(
        ["a_x000D_\nb", "_x005F_x000D_", "_x0041_", "　", "\xa0x", "#N/A", "年\n月", "_xZZZZ_", "1.5%"]
    )


def numbers() -> st.SearchStrategy[str]:
    """Numbers as files spell them: 5, 5.0, 5E+0, 0.1, 1234567890123456."""
    floats = st.floats(allow_nan=False, allow_infinity=False)
    return st.one_of(
        st.integers(-(10**17), 10**17).map(str),
        floats.map(repr),
        st.integers(-999, 999).map(lambda whole: f"{whole}.0"),
        floats.map(lambda number: f"{number:.15E}"),
        st.sampled_from(["1e400", "-1e400", "-0", "-0.0", "0.30000000000000004", "999999999999999", "1e15"]),
    )


def value(text: str) -> str:
    return f"<v>{escape(text)}</v>"


def moment(days_and_seconds: tuple[int, int]) -> str:
    days, seconds = days_and_seconds
    return value(repr(days + seconds / 86_400))


def formula(cell: st.SearchStrategy[Spelled]) -> st.SearchStrategy[Spelled]:
    return cell.map(lambda one: Spelled(one.kind, one.style, f"<f>A1&amp;&quot;x&quot;</f>{one.inside}"))


def spelled(kind: str, inside: st.SearchStrategy[str], styles: list[int]) -> st.SearchStrategy[Spelled]:
    return st.builds(Spelled, st.just(kind), st.sampled_from(styles), inside)


def cells() -> st.SearchStrategy[Spelled]:
    """Every kind of cell that a file can hold, blank ones too."""
    any_style = list(range(len(FORMATS) + 1))
    seconds = st.integers(0, 86_399)
    number = spelled("n", numbers().map(value), OTHERS)
    day = spelled("n", st.tuples(st.integers(1, 2_958_464), seconds).map(moment), DATES)
    whole_day = spelled("n", st.integers(1, 3_000_000).map(lambda serial: value(str(serial))), DATES)
    clock = spelled("n", st.tuples(st.integers(0, 3), seconds).map(moment), TIMES)
    error = spelled("e", st.sampled_from(ERRORS).map(value), any_style)
    truth = spelled("b", st.sampled_from("01").map(value), any_style)
    result = spelled("str", texts().map(value), any_style)
    iso = spelled("d", st.dates(date(1900, 3, 1)).map(lambda one: value(one.isoformat())), [0, 4])
    shared = st.builds(Spelled, st.just("s"), st.sampled_from(any_style), st.just(""), texts())
    inline = spelled(
        "inlineStr", texts().map(lambda text: f"<is><t xml:space='preserve'>{escape(text)}</t></is>"), any_style
    )
    rich = spelled(
        "inlineStr",
        texts().map(lambda text: f"<is><r><t>a</t></r><r><t xml:space='preserve'>{escape(text)}</t></r></is>"),
        any_style,
    )
    blank = spelled("n", st.just(""), any_style)
    never = spelled("n", st.sampled_from(["<f>1+1</f>", "<f>1+1</f><v></v>", "<f>1+1</f><v/>"]), any_style)
    values = [number, day, whole_day, clock, error, truth]
    computed = [formula(one) for one in [*values, result]]
    return st.one_of(*values, iso, shared, inline, rich, blank, never, *computed)


@st.composite
def workbooks(draw: st.DrawFn) -> bytes:
    """Draw a workbook: cells at places with gaps, places named or not, merges, a wrong dimension, 1900 or 1904."""
    top, left = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    named = draw(st.booleans())
    strings: list[str] = []
    lines = []
    row = top
    for _ in range(draw(st.integers(0, 5))):
        column, line = left, ""
        for _ in range(draw(st.integers(0, 5))):
            line += written(draw(cells()), f' r="{get_column_letter(column)}{row}"' if named else "", strings)
            column += draw(st.integers(1, 3)) if named else 1
        lines.append(f'<row r="{row}">{line}</row>')
        row += draw(st.integers(1, 4))
    return xlsx(
        "".join(lines),
        before=draw(st.sampled_from(["", '<dimension ref="A1"/>', '<dimension ref="A1:XFD1048576"/>'])),
        after=merged(*draw(ranges(top, left))),
        strings=strings,
        formats=FORMATS,
        date1904=draw(st.booleans()),
    )


def written(cell: Spelled, place: str, strings: list[str]) -> str:
    inside = cell.inside
    if cell.shared is not None:
        inside = f"<v>{len(strings)}</v>"
        strings.append(f"<t xml:space='preserve'>{escape(cell.shared)}</t>")
    style = f' s="{cell.style}"' if cell.style else ""
    kind = f' t="{cell.kind}"' if cell.kind != "n" else ""
    return f"<c{place}{style}{kind}>{inside}</c>"


@st.composite
def ranges(draw: st.DrawFn, top: int, left: int) -> list[str]:
    """Draw merges that do not overlap: one below the other."""
    found, row = [], top
    for _ in range(draw(st.integers(0, 2))):
        height, width = draw(st.integers(0, 3)), draw(st.integers(0, 4))
        first = left + draw(st.integers(0, 2))
        found.append(f"{get_column_letter(first)}{row}:{get_column_letter(first + width)}{row + height}")
        row += height + 1
    return found


def read(open_book: Callable[[Path, str], Book], content: bytes) -> tuple[list[Row], list[Merge]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "book.xlsx")
        path.write_bytes(content)
        book = open_book(path, "book.xlsx")
        try:
            return list(book.rows("S")), book.merges("S")
        finally:
            book.close()


def both(rows: str, **options: Any) -> tuple[list[Row], list[Row]]:
    """Return the rows that python-calamine and openpyxl see."""
    content = xlsx(rows, **options)
    return read(calamine_reader.open_book, content)[0], read(openpyxl_reader.open_book, content)[0]


@settings(max_examples=150, deadline=None)
@given(workbooks(), st.sampled_from([0, 1 << 20]))
def test_both_readers_give_the_same_cells(content: bytes, least: int) -> None:
    """Types as well as values: 1 and 1.0 and True are equal in Python. Also of sheets as large ones are read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_sheet, "_LEAST", least)
        fast, referee = read(calamine_reader.open_book, content), read(openpyxl_reader.open_book, content)
    assert repr(referee) == repr(fast)


def test_a_date_before_the_first_day_differs() -> None:
    """Excel shows it as ####."""
    fast, referee = both('<row><c s="1"><v>-5</v></c></row>', formats=["yyyy-mm-dd"])
    assert ([(1, [time(0)])], [(1, [date(1899, 12, 25)])]) == (fast, referee)


def test_an_escape_in_a_text_in_the_cell_differs() -> None:
    """Excel writes texts as shared strings; in them, in inline ones and in formulas' results both decode."""
    fast, referee = both('<row><c t="str"><v>a_x000D_b</v></c></row>')
    assert (fast, referee) == ([(1, ["a_x000D_b"])], [(1, ["a\nb"])])


def test_an_escape_beyond_latin_1_differs() -> None:
    """Half a character among them is nothing that could be stored."""
    fast, referee = both(
        "<row><c t='inlineStr'><is><t>_x4E00_</t></is></c><c t='inlineStr'><is><t>_xD83D_</t></is></c></row>"
    )
    assert (fast, referee) == ([(1, ["_x4E00_", "_xD83D_"])], [(1, ["一", "\ufffd"])])


def test_a_number_that_is_none_differs() -> None:
    """A text in a figure cell rejects its row."""
    content = xlsx("<row><c><v>abc</v></c></row>")
    assert read(calamine_reader.open_book, content)[0] == [(1, ["abc"])]
    with pytest.raises(WorkbookError):
        read(openpyxl_reader.open_book, content)


def test_an_error_that_is_none_differs() -> None:
    """There is nothing to see in Excel either."""
    assert ([], [(1, [ErrorCell("#VALUE!")])]) == both('<row><c t="e"/></row>')


PLAIN = {name: str(part) for name, part in xlsx_parts("<row><c><v>1</v></c></row>").items()}
SHEET = "xl/worksheets/sheet1.xml"


@pytest.mark.parametrize(
    ("parts", "fast_reads", "referee_reads"),
    [
        (
            {name: part.replace(MAIN, "http://purl.oclc.org/ooxml/spreadsheetml/main") for name, part in PLAIN.items()},
            1,
            0,
        ),
        ({**PLAIN, SHEET: PLAIN[SHEET].replace('"1.0"', '"1.0" encoding="UTF-16"').encode("utf-16")}, 0, 1),
        ({**PLAIN, SHEET: PLAIN[SHEET].replace('"1.0"', '"1.0" encoding="GBK"').encode("gbk")}, 1, 0),
        ({name.replace("sheet1", "Sheet1"): part for name, part in PLAIN.items()}, 1, 0),
        (PLAIN, 1, 1),
    ],
    ids=["strict", "utf-16", "gbk", "case", "plain"],
)
def test_what_only_one_of_them_reads_is_refused_by_the_other(
    parts: dict[str, str | bytes], fast_reads: int, referee_reads: int
) -> None:
    """Never silently empty."""
    content = zipped(parts)
    for open_book, reads in [(calamine_reader.open_book, fast_reads), (openpyxl_reader.open_book, referee_reads)]:
        if reads:
            assert read(open_book, content)[0] == [(1, [1])]
        else:
            with pytest.raises(WorkbookError):
                read(open_book, content)
