"""openpyxl's parser as a reader: what it gives, what it must not lose, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path

import openpyxl
import pytest
from books import MAIN, merged, xlsx, xlsx_parts, zipped

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, NumberCell, format_matters
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook.book import Merge, Row, Sheet
from wdh_luigi.workbook.openpyxl_reader import open_book

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: bytes) -> Path:
        path = tmp_path / "book.xlsx"
        path.write_bytes(content)
        return path

    return to_file


def rows_of(path: Path, sheet: str = "S") -> list[Row]:
    book = open_book(path, "book.xlsx")
    try:
        return list(book.rows(sheet))
    finally:
        book.close()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("<c><v>5</v></c>", 5),
        ("<c><v>5.0</v></c>", 5),
        ("<c><v>0.055</v></c>", 0.055),
        ("<c><v>999999999999999</v></c>", 999_999_999_999_999),
        ("<c><v>1234567890123456</v></c>", 1234567890123456.0),
        ("<c><v>1e400</v></c>", ErrorCell("#NUM!")),
        ('<c t="b"><v>1</v></c>', True),
        ('<c t="e"><v>#N/A</v></c>', ErrorCell("#N/A")),
        ("<c><f>1+1</f><v>2</v></c>", 2),
        ("<c><f>1+1</f></c>", ErrorCell(NEVER_COMPUTED)),
        ("<c><f>1+1</f><v></v></c>", ErrorCell(NEVER_COMPUTED)),
        ('<c t="str"><f>"a"</f><v>a</v></c>', "a"),
        ('<c t="e"><f>1/0</f><v>#DIV/0!</v></c>', ErrorCell("#DIV/0!")),
        ('<c t="s"><v>0</v></c>', "rich text"),
        ('<c t="s"><v>1</v></c>', "two\nlines"),
        ('<c t="s"><v>2</v></c>', "_x000D_"),
        ('<c t="inlineStr"><is><t>a_x000D_b</t></is></c>', "a\nb"),
        ('<c s="1"><v>0.055</v></c>', NumberCell(0.055, "0.00%")),
        ('<c s="2"><v>123</v></c>', NumberCell(123, "000000")),
        ('<c s="3"><v>45626</v></c>', date(2024, 11, 30)),
        ('<c s="3"><v>45626.5</v></c>', datetime(2024, 11, 30, 12)),
        ('<c s="3"><v>0.25</v></c>', time(6)),
        ('<c s="3"><v>1e20</v></c>', ErrorCell("#VALUE!")),
        ('<c s="4"><v>1.25</v></c>', timedelta(hours=30)),
        ('<c t="d"><v>2024-11-30</v></c>', date(2024, 11, 30)),
    ],
)
def test_a_cell_is_what_excel_shows(write: Write, cell: str, expected: Cell) -> None:
    """The types that the pipeline knows, each from the spelling in the file."""
    content = xlsx(
        f"<row>{cell}</row>",
        strings=[
            "<r><t>rich</t></r><r><t xml:space='preserve'> text</t></r>",
            "<t>two_x000D_\nlines</t>",
            "<t>_x005F_x000D_</t>",
        ],
        formats=["0.00%", "000000", "yyyy-mm-dd", "[h]:mm"],
    )
    assert [(1, [expected])] == rows_of(write(content))


@pytest.mark.parametrize(
    "cell",
    [
        '<c s="1"/>',
        '<c t="str"><f>""</f><v></v></c>',
        '<c t="s"><v>0</v></c>',
        '<c t="inlineStr"><is><t> </t></is></c>',
    ],
)
def test_what_shows_nothing_is_blank(write: Write, cell: str) -> None:
    """A formula computed to the empty text is no formula never computed."""
    assert rows_of(write(xlsx(f"<row>{cell}</row>", strings=["<t>　\xa0</t>"], formats=["0%"]))) == []


def test_rows_have_excels_numbers_and_start_at_column_a(write: Write) -> None:
    """One real sheet in ten does not start at A1, and messages name cells."""
    content = xlsx('<row r="3"><c r="C3"><v>1</v></c><c r="E3" s="1"/></row><row r="7"><c r="A7"><v>2</v></c></row>')
    assert rows_of(write(content)) == [(3, [None, None, 1]), (7, [2])]


def test_places_may_be_left_out(write: Write) -> None:
    """Some writers number neither rows nor cells."""
    content = xlsx(
        '<row><c><v>1</v></c></row><row r="4"><c r="B4"><v>2</v></c><c><v>3</v></c></row><row><c><v>4</v></c></row>'
    )
    assert rows_of(write(content)) == [(1, [1]), (4, [None, 2, 3]), (5, [4])]


def test_a_merge_hides_all_but_its_first_cell(write: Write) -> None:
    """Excel keeps values under merges, which nobody sees."""
    content = xlsx(
        '<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row>'
        '<row r="2"><c r="A2"><v>3</v></c><c r="B2"><v>4</v></c><c r="C2"><v>5</v></c></row>',
        after=merged("A1:B2"),
    )
    path = write(content)
    assert rows_of(path) == [(1, [1]), (2, [None, None, 5])]
    book = open_book(path, "x")
    assert [Merge(1, 1, 2, 2)] == book.merges("S")
    book.close()


def test_a_wrong_dimension_is_not_believed(write: Write) -> None:
    """openpyxl's own read-only mode loses rows over it."""
    content = xlsx('<row r="9"><c r="I9"><v>1</v></c></row>', before='<dimension ref="A1:B2"/>')
    assert rows_of(write(content)) == [(9, [None] * 8 + [1])]


def test_dates_count_from_1904_where_the_workbook_says_so(write: Write) -> None:
    """Workbooks of old Macs are four years off otherwise."""
    content = xlsx('<row><c s="1"><v>44164</v></c></row>', formats=["yyyy-mm-dd"], date1904=True)
    assert [(1, [date(2024, 11, 30)])] == rows_of(write(content))


def test_tabs_have_kinds_and_may_be_hidden(tmp_path: Path) -> None:
    """A chart sheet first, or a hidden one, must not be taken for the table."""
    path = tmp_path / "book.xlsx"
    workbook = openpyxl.Workbook()
    workbook.create_chartsheet("图", 0)
    workbook.create_sheet("隐藏").sheet_state = "veryHidden"
    workbook.save(path)
    book = open_book(path, "book.xlsx")
    assert [Sheet("图", "chart"), Sheet("Sheet"), Sheet("隐藏", hidden=True)] == book.sheets
    assert list(book.rows("图")) == []
    book.close()


def test_what_nobody_asked_for_fails_nothing(write: Write) -> None:
    """openpyxl's full mode fails over a damaged other sheet; here only what is asked for is read."""
    parts = xlsx_parts(
        "<row><c><v>1</v></c></row>",
        sheets='<sheet name="S" sheetId="1" r:id="r1"/><sheet name="B" sheetId="2" r:id="r2"/>',
        tabs={"r1": ("worksheet", "worksheets/sheet1.xml"), "r2": ("worksheet", "worksheets/bad.xml")},
    )
    path = write(zipped({**parts, "xl/worksheets/bad.xml": "<work"}))
    assert rows_of(path) == [(1, [1])]
    with pytest.raises(
        WorkbookError, match=r"^book.xlsx, sheet B: damaged \(.*\); open it in Excel and save it again$"
    ):
        rows_of(path, "B")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (xlsx_parts(sheets='<sheet name="S" sheetId="1" r:id="r1"/>' * 2), "2 sheets have one name"),
        (xlsx_parts("<row><c><v>abc</v></c></row>"), "damaged"),
        (xlsx_parts('<row r="2"><c><v>1</v></c></row><row r="1"><c><v>1</v></c></row>'), "row 1 stands below row 2"),
        (xlsx_parts('<row><c r="ZZZ1"><v>1</v></c></row>'), "Excel has 1048576 rows and 16384 columns"),
        (xlsx_parts('<row r="1048577"><c><v>1</v></c></row>'), "Excel has 1048576 rows and 16384 columns"),
        ({**xlsx_parts(), "xl/worksheets/sheet1.xml": "<worksheet/>"}, "damaged"),
        ({**xlsx_parts(), "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}">'}, "damaged"),
        ({key: part for key, part in xlsx_parts().items() if "sheet1" not in key}, "the sheet's part is missing"),
        (
            xlsx_parts('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
            r"too large \(1,048,576 rows x 16,384 columns, limit 20,000,000 cells\)",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(write: Write, parts: dict[str, str | bytes], message: str) -> None:
    """No other exception may leave a reader."""
    path = write(zipped(parts))
    with pytest.raises(WorkbookError, match=message) as caught:
        rows_of(path)
    assert "\n" not in str(caught.value)


def test_strict_open_xml_is_refused_and_not_empty(write: Write) -> None:
    """To openpyxl a sheet in another namespace looks empty."""
    strict = "http://purl.oclc.org/ooxml/spreadsheetml/main"
    parts = {key: part.replace(MAIN, strict) for key, part in xlsx_parts("<row/>").items() if isinstance(part, str)}
    with pytest.raises(WorkbookError, match=r"damaged|no sheet"):
        rows_of(write(zipped(parts)))


def test_a_missing_sheet_is_refused_with_those_there_are(write: Write) -> None:
    """The user sees what to choose from."""
    with pytest.raises(WorkbookError, match="no sheet 'T'; it has: S"):
        rows_of(write(xlsx()), "T")


def test_other_formats_are_refused(write: Write) -> None:
    """``reader: openpyxl`` was chosen, and cannot be obeyed."""
    path = write(b"a,b\n1,2\n")
    with pytest.raises(WorkbookError, match="text"):
        open_book(path, "book.xlsx")


def test_formatted_rows_to_the_end_of_the_sheet_are_left_out(write: Write) -> None:
    """One real sheet has 209 rows of data and formats down to row 1,048,576."""
    rows = "".join(f'<row r="{row}"><c r="A{row}" s="1"/></row>' for row in range(2, 20_000))
    content = xlsx(f'<row r="1"><c r="A1"><v>1</v></c></row>{rows}', formats=["0%"])
    assert rows_of(write(content)) == [(1, [1])]


@pytest.mark.parametrize(
    ("number_format", "matters"),
    [
        ("0.00%", True),
        ("[Red]0.00%;[Blue]-0.00%", True),
        ('0.00"%"', True),
        (r"0.00\%", True),
        ('#,##0.00"万元"', True),
        ("#,##0,", True),
        ('"P"0', False),
        ("0_%", False),
        ("000000", True),
        ('[=0]"-";000000', True),
        ("0.00", False),
        ("#,##0.00", False),
        ("0.00E+00", False),
        ("yyyy0000", False),
        ("mm:ss.000", False),
        ("General", False),
        ("0;0;0;@%", False),
    ],
)
def test_a_format_matters_that_scales_pads_or_names_a_unit(number_format: str, matters: bool) -> None:
    """A literal % scales nothing and is a unit; zeros of decimals or exponents pad no code."""
    assert matters == format_matters(number_format)
