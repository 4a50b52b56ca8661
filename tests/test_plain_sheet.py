"""
Rows straight from a sheet's XML: the same as the library gives, for whatever the sheet holds.

test_readers_agree sets the same cells against openpyxl; here the rows above an odd one are read in the one way and
those below in the other, wherever the file is cut into pieces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from books import MAIN, merged, xlsx, xlsx_parts, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook
from openpyxl.utils import get_column_letter

from wdh_luigi.cells import ErrorCell, NumberCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import meaning, plain_sheet
from wdh_luigi.workbook.around import Around, around_of
from wdh_luigi.workbook.book import Row
from wdh_luigi.workbook.calamine_reader import open_book
from wdh_luigi.workbook.plain_sheet import PlainSheet, PlainSheets

FORMATS = ["0.00%", "000000", "yyyy-mm-dd", '0.00"%"', "#,##0.00"]
STRINGS = ["计划代码", "5.25%", " ", "a_x000D_b", "年&amp;月", "-", "　x"]
INLINE = ["a", " a ", "", " ", "年&amp;月&#65;", "a_x000D_b", "　x\xa0", "1.5%", "a\r\nb", "&#13;", "a>b"]
SPELLINGS = ["5.0", "1E+5", "-0", "-0.0", ".5", "5.", "+5", "1e400", "999999999999999", "1e15", "1234567890123456"]
NUMBERS = st.one_of(
    st.integers(-(10**17), 10**17).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(SPELLINGS),
)
STYLES = st.sampled_from(["", "", ' s="1"', ' s="2"', ' s="4"', ' s="5"', ' t="n"'])
ODD = [
    '<c r="{}"><f>1+1</f><v>2</v></c>',
    '<c r="{}"><f>1+1</f></c>',
    '<c r="{}" t="b"><v>1</v></c>',
    '<c r="{}" t="e"><v>#N/A</v></c>',
    '<c r="{}" t="str"><v>a</v></c>',
    '<c r="{}" t="inlineStr"><is><r><t>a</t></r></is></c>',
    '<c r="{}" t="inlineStr"><is><t/></is></c>',
    '<c r="{}" s="3"><v>45000</v></c>',  # a date
    '<c r="{}" cm="1"><v>1</v></c>',
    '<c r="{}"><v>abc</v></c>',
    '<c r="{}"><v></v></c>',
    '<c r="{}"></c>',
    '<c  r="{}"><v>1</v></c>',
    '<c t="s" r="{}"><v>1</v></c>',
    '<c r="{}"><!-- a note --><v>1</v></c>',
    "<c><v>1</v></c>",
]


@pytest.fixture(autouse=True, scope="module")
def small_ones_too() -> Iterator[None]:
    """Read sheets so however small they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_sheet, "_LEAST", 0)
        yield


def usual() -> st.SearchStrategy[str]:
    """Cells as programs write them, but for their place."""
    number = st.builds('<c r="{{}}"{}><v>{}</v></c>'.format, STYLES, NUMBERS)
    index = st.integers(0, len(STRINGS) - 1)
    text = st.builds('<c r="{{}}"{} t="s"><v>{}</v></c>'.format, st.sampled_from(["", ' s="1"']), index)
    kept, inline = st.sampled_from(["", ' xml:space="preserve"']), st.sampled_from(INLINE)
    own = st.builds('<c r="{{}}" t="inlineStr"><is><t{}>{}</t></is></c>'.format, kept, inline)
    blank = st.sampled_from(['<c r="{}"/>', '<c r="{}" s="1"/>', ""])
    return st.one_of(number, number, text, own, blank)


@st.composite
def sheets(draw: st.DrawFn) -> str:
    """Draw the rows of a sheet, mostly plain."""
    row, lines = 0, []
    odd = draw(st.sampled_from([0, 0, 1]))
    columns = [draw(usual()) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(1, 12))):
        row += draw(st.sampled_from([1, 1, 1, 1, 3]))
        columns = [draw(usual()) if draw(st.booleans()) else cell for cell in columns]
        cells = [draw(st.sampled_from(ODD)) if odd and draw(st.integers(0, 9)) == 0 else cell for cell in columns]
        inside = "".join(cell.replace("{}", f"{get_column_letter(at)}{row}") for at, cell in enumerate(cells, 1))
        lines.append(f'<row r="{row}" spans="1:{len(cells)}">{inside}</row>')
    return draw(st.sampled_from(["", "\n"])).join(lines)


@contextmanager
def pieces_of(first: int, size: int) -> Iterator[None]:
    """Read pieces of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_sheet, "_FIRST_CHUNK", first)
        patch.setattr(plain_sheet, "_CHUNK", size)
        yield


def rows_of(path: Path, around: Around | None = None) -> list[Row] | str:
    """Return a sheet's rows, or why there are none."""
    try:
        with closing(open_book(path, "book.xlsx", around)) as book:
            return list(book.rows("S"))
    except WorkbookError as error:
        return str(error)


def by_the_library(path: Path) -> list[Row] | str:
    return rows_of(path, Around())  # nothing is known of any sheet


def look(path: Path) -> PlainSheet:
    found = look_at(path)
    assert found is not None
    return found


def look_at(path: Path) -> PlainSheet | None:
    return PlainSheets(path, around_of(path)).of(0)


def rest_of(path: Path) -> int | None:
    """Return the row from which the library is to read."""
    sheet = look(path)
    list(sheet.batches())
    return sheet.rest


@settings(max_examples=200, deadline=None)
@given(sheets(), st.integers(1, 400), st.integers(1, 400))
def test_rows_are_those_of_the_library(rows: str, first: int, size: int) -> None:
    """Types as well as values, wherever the pieces are cut."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "book.xlsx")
        path.write_bytes(xlsx(rows, strings=[f"<t xml:space='preserve'>{one}</t>" for one in STRINGS], formats=FORMATS))
        with pieces_of(first, size):
            assert repr(by_the_library(path)) == repr(rows_of(path))


KEPT = st.sampled_from(["", ' xml:space="preserve"'])
READING = '<phoneticPr fontId="1" type="noConversion"/>'
SHARED = st.one_of(
    st.builds("<t{}>{}</t>{}".format, KEPT, st.sampled_from([*STRINGS, *INLINE]), st.sampled_from(["", READING])),
    st.builds("<t{}>{}</t>".format, KEPT, st.text("a \u3000\xa0年\n\r\t_x0D&;!", max_size=6).map(escape)),
)
ODD_SHARED = st.sampled_from(
    [
        *("<t/>", "", "<t>a</t><t>b</t>", "<r><t>a</t></r>", "<r><t>a</t></r><r><t> b</t></r>", "<t>a<!-- b --></t>"),
        *("<t xml:space='preserve'> a</t>", "<t>a</t>\n", f"{READING}<t>a</t>", "<t><![CDATA[a]]></t>", "<t>&b;</t>"),
        '<t>年</t><rPh sb="0" eb="1"><t>nian</t></rPh><phoneticPr fontId="1"/>',
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(SHARED, min_size=1, max_size=6), st.one_of(st.none(), ODD_SHARED))
def test_shared_strings_are_those_of_the_library(strings: list[str], odd: str | None) -> None:
    """However they are spelt, and whatever else is among them."""
    strings = [*strings, odd] if odd is not None else strings
    rows = "".join(
        f'<row r="{at + 1}"><c r="A{at + 1}" t="s"><v>{at}</v></c><c r="B{at + 1}"><v>1</v></c></row>'
        for at in range(len(strings))
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "book.xlsx")
        path.write_bytes(xlsx(rows, strings=strings))
        assert repr(by_the_library(path)) == repr(rows_of(path))


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "gbk", "utf-16"])
def test_shared_strings_of_another_encoding_are_what_the_library_says(tmp_path: Path, encoding: str) -> None:
    """In GBK 联通 is UTF-8 as well, and says something else."""
    parts = xlsx_parts('<row r="1"><c r="A1" t="s"><v>0</v></c></row>', strings=["<t>联通</t>"])
    name = "xl/sharedStrings.xml"
    parts[name] = f'<?xml version="1.0" encoding="{encoding}"?>{parts[name]!s}'.encode(encoding)
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped(parts))
    assert repr(by_the_library(path)) == repr(rows_of(path))


def test_plain_shared_strings_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Excel writes them: for tens of thousands of them it would take longer to ask than to read."""
    path, texts = tmp_path / "book.xlsx", ["计划代码", " 5.5% ", "a&b<c>", "两行\n二"]
    rows = "".join(f'<row r="{at}"><c r="A{at}" t="s"><v>{at - 1}</v></c></row>' for at in range(1, 5))
    parts = xlsx_parts(rows, strings=[f'<t xml:space="preserve">{escape(text)}</t>{READING}' for text in texts])
    name = "xl/sharedStrings.xml"
    parts[name] = f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n{parts[name]!s}'
    path.write_bytes(zipped(parts))

    def refuse(self: object, cell: str, *args: object, **kinds: object) -> object:
        assert "t=" not in cell
        return stream(self, cell, *args, **kinds)  # type: ignore[arg-type]

    stream = meaning._Asked.stream
    monkeypatch.setattr(meaning._Asked, "stream", refuse)
    sheet = look(path)
    assert [cell for batch in sheet.batches() for _, (cell,) in batch.by_rows()] == texts


@settings(max_examples=100, deadline=None)
@given(sheets(), st.data())
def test_a_sheet_that_somebody_broke_is_what_the_library_says_of_it(rows: str, data: st.DataObject) -> None:
    """A cell must not be lost where the XML is none any more."""
    at = data.draw(st.integers(0, len(rows) - 1))
    cut = data.draw(st.integers(1, 12))
    put = data.draw(st.sampled_from(["", "<", ">", "/>", "</v>", "<v>", "</c>", '"', "</row>", "<!--", "&", "7"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "book.xlsx")
        strings = [f"<t xml:space='preserve'>{one}</t>" for one in STRINGS]
        path.write_bytes(xlsx(rows[:at] + put + rows[at + cut :], strings=strings, formats=FORMATS))
        with pieces_of(100, 150):
            assert repr(by_the_library(path)) == repr(rows_of(path))


@pytest.mark.parametrize("odd", ODD)
def test_the_library_goes_on_from_an_odd_row(tmp_path: Path, odd: str) -> None:
    """The rows above it are read fast all the same."""
    rows = [f'<row r="{row}"><c r="A{row}"><v>{row}</v></c></row>' for row in range(1, 3001)]
    rows[1999] = f'<row r="2000">{odd.format("A2000")}</row>'
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx("".join(rows), strings=["<t>x</t>", "<t>y</t>"], formats=FORMATS))
    if "<!--" not in odd:  # of which rows may be a part: then none is read so
        assert rest_of(path) in range(2, 2001)
    found = rows_of(path)
    assert len(found) in (2999, 3000)
    assert repr(by_the_library(path)) == repr(found)


def test_what_programs_write_is_plain_to_its_end(tmp_path: Path) -> None:
    """As openpyxl writes it, from the headings on, with formats, blanks and texts among the numbers."""
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "S"
    sheet.append(["年", "计划代码", "收益率", "规模"])
    for row in range(2, 3000):
        sheet.append([2024, f"P{row % 7}", row / 10_000 if row % 5 else "5.25%", row if row % 3 else None])
        sheet.cell(row, 3).number_format = "0.00%" if row % 2 else "General"
    path = tmp_path / "book.xlsx"
    book.save(path)
    assert rest_of(path) is None
    found = rows_of(path)
    assert found[2] == (3, [2024, "P3", NumberCell(0.0003, "0.00%"), None][:3])
    assert repr(by_the_library(path)) == repr(found)
    assert look(path).last_row == 2999


def test_a_small_sheet_is_not_worth_asking_for(tmp_path: Path) -> None:
    """Inboxes hold thousands of them."""
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx('<row r="1"><c r="A1"><v>1</v></c></row>'))
    assert look_at(path) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_sheet, "_LEAST", 1 << 20)
        assert look_at(path) is None


def test_cells_are_what_excel_writes(tmp_path: Path) -> None:
    """Spans, heights, styles of blanks; a text of runs, and one with its reading."""
    rows = (
        '<row r="1" spans="1:3" ht="20" customHeight="1" x14ac:dyDescent="0.25"><c r="A1" s="1" t="s"><v>0</v></c>'
        '<c r="B1" s="1"/><c r="C1" t="s"><v>1</v></c></row>'
        '<row r="2" spans="1:3"><c r="A2" s="1"><v>5.5E-2</v></c><c r="C2"><v>1e400</v></c></row>'
    )
    reading = '<t>年</t><rPh sb="0" eb="1"><t>nian</t></rPh><phoneticPr fontId="1"/>'
    parts = xlsx_parts(rows, strings=["<r><t>计划</t></r><r><t>代码</t></r>", reading], formats=FORMATS)
    name = "xl/worksheets/sheet1.xml"
    parts[name] = str(parts[name]).replace("<worksheet", '<worksheet xmlns:x14ac="http://x"')
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped(parts))
    assert rest_of(path) is None
    assert rows_of(path) == [(1, ["计划代码", None, "年"]), (2, [NumberCell(0.055, "0.00%"), None, ErrorCell("#NUM!")])]
    assert by_the_library(path) == rows_of(path)


@pytest.mark.parametrize(
    "change",
    [
        {"after": merged("A1:B1")},
        {"after": "<!-- </sheetData> -->"},
        {"before": "<!-- <sheetData> -->"},
        {"rows": "<!-- <row r='1'/> -->"},
    ],
)
def test_a_sheet_with_merges_or_comments_is_left_to_the_library(tmp_path: Path, change: dict[str, str]) -> None:
    """What a merge hides is known at the sheet's end only; rows in a comment are none."""
    rows = '<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row>'
    path = tmp_path / "book.xlsx"
    around = {name: text for name, text in change.items() if name != "rows"}
    path.write_bytes(xlsx(change.get("rows", "") + rows, **around))
    assert look_at(path) is None
    assert by_the_library(path) == rows_of(path)


def test_a_prefix_before_its_names_leaves_a_sheet_to_the_library(tmp_path: Path) -> None:
    """As some programs write it."""
    row = '<x:row r="1"><x:c r="A1"><x:v>1</x:v></x:c></x:row>'
    sheet = f'<x:worksheet xmlns:x="{MAIN}"><x:sheetData>{row}</x:sheetData></x:worksheet>'
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped({**xlsx_parts(), "xl/worksheets/sheet1.xml": sheet}))
    assert look_at(path) is None
    assert rows_of(path) == [(1, [1])]


@pytest.mark.parametrize("begin", [b"<x:sheetData>", b"<sheetData></sheetData>"])
def test_little_is_kept_of_a_sheet_that_is_left_to_the_library(begin: bytes) -> None:
    """Each piece of hundreds of megabytes would be copied again with each that follows."""
    around, part, piece = Around(), "xl/worksheets/sheet1.xml", b" " * (1 << 20)
    around.take(part, b"<worksheet>" + begin)
    for _ in range(20):
        around.take(part, piece)
    sheet = around._sheets[part]
    assert len(sheet._head) + len(sheet._tail) < 6 << 20
    assert around.of(part) is None


def test_each_sheet_has_its_own_rows(tmp_path: Path) -> None:
    """By their order among the tabs, which need not be that of the parts."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for at, name in enumerate("ABC"):
        book.create_sheet(name).append([at, name])
    book.move_sheet("C", -2)
    path = tmp_path / "book.xlsx"
    book.save(path)
    assert load_workbook(path).sheetnames == ["C", "A", "B"]
    opened = open_book(path, "book.xlsx")
    assert [list(opened.rows(name)) for name in "ABC"] == [[(1, [at, name])] for at, name in enumerate("ABC")]
    opened.close()


@pytest.mark.parametrize("limit", ["_MOST_STRINGS", "_MOST_BYTES"])
def test_more_texts_than_are_kept_leave_a_sheet_to_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """The library holds them in a fraction of the memory."""
    path = tmp_path / "book.xlsx"
    rows = '<row r="1"><c r="A1" t="s"><v>1</v></c></row>'
    path.write_bytes(xlsx(rows, strings=["<t>x</t>", "<t>y</t>"]))
    assert look_at(path) is not None
    monkeypatch.setattr(meaning, limit, 1)
    assert look_at(path) is None
    assert rows_of(path) == [(1, ["y"])]


def test_a_very_long_row_is_left_to_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be looked for in ever longer pieces."""
    monkeypatch.setattr(plain_sheet, "_MOST_ROW", 1000)
    cells = "".join(f'<c r="{get_column_letter(at)}2"><v>{at}</v></c>' for at in range(1, 80))
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx(f'<row r="1"><c r="A1"><v>1</v></c></row><row r="2">{cells}</row>'))
    with pieces_of(100, 100):
        assert rest_of(path) == 2
        assert rows_of(path) == by_the_library(path)


def test_rows_can_be_asked_for_again(tmp_path: Path) -> None:
    """As where several sheets are looked at before one is read."""
    path = tmp_path / "book.xlsx"
    rows = "".join(f'<row r="{row}"><c r="A{row}"><v>{row}</v></c></row>' for row in range(1, 2000))
    path.write_bytes(xlsx(f'{rows}<row r="2000"><c r="A2000" t="b"><v>1</v></c></row>'))
    book = open_book(path, "book.xlsx")
    next(book.rows("S"))
    first, again = list(book.rows("S")), list(book.rows("S"))
    assert first[-1] == (2000, [True])
    assert first == again
    book.close()


def test_rows_out_of_order_are_left_to_the_library(tmp_path: Path) -> None:
    """As rows come twice or upwards in no workbook that Excel wrote."""
    path = tmp_path / "book.xlsx"
    line = '<row r="{0}"><c r="A{0}"><v>{0}</v></c></row>'
    path.write_bytes(xlsx("".join(line.format(row) for row in (1, 3, 2, 4))))
    assert rest_of(path) == 1
    assert by_the_library(path) == rows_of(path)


def test_a_text_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The index of a shared string beyond their number."""
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx('<row r="1"><c r="A1" t="s"><v>7</v></c></row>', strings=[f"<t>{escape('x')}</t>"]))
    assert "damaged" in rows_of(path)
