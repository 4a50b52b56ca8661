"""
The fast reader of .xlsx and .xlsm.

That its cells are the same as openpyxl's is shown in test_readers_agree; here stands what python-calamine is known to
lose, and what is refused.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from books import MAIN, merged, xlsx, xlsx_parts, zipped

from wdh_luigi import workbook
from wdh_luigi.batches import BATCH_CELLS
from wdh_luigi.cells import NEVER_COMPUTED, ErrorCell, NumberCell
from wdh_luigi.domains.trustee_performance import DOMAIN
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import auto_reader
from wdh_luigi.workbook.book import Merge, Row, Sheet
from wdh_luigi.workbook.calamine_reader import open_book

STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"


def rows_of(content: bytes, folder: Path, sheet: str = "S") -> list[Row]:
    path = folder / "book.xlsx"
    path.write_bytes(content)
    return list(open_book(path, "book.xlsx").rows(sheet))


def test_errors_and_formulas_never_computed_are_no_blanks(tmp_path: Path) -> None:
    """python-calamine gives both as the empty text: a figure that is missing would be loaded as one left out."""
    rows = (
        '<row><c t="e"><v>#N/A</v></c><c><f>1+1</f></c><c><f>1</f><v></v></c><c t="str"><f>""</f><v></v></c>'
        '<c t="str"><v>#N/A</v></c></row><row><c><f>1+1</f></c></row>'
    )
    never = ErrorCell(NEVER_COMPUTED)
    expected = [(1, [ErrorCell("#N/A"), never, never, None, "#N/A"]), (2, [never])]
    assert expected == rows_of(xlsx(rows), tmp_path)


def test_rows_have_excels_numbers_and_start_at_column_a(tmp_path: Path) -> None:
    """python-calamine leaves out the empty rows and columns before the data."""
    content = xlsx('<row r="3"><c r="C3"><v>1</v></c></row><row r="7"><c r="A7"><v>2</v></c></row>')
    assert rows_of(content, tmp_path) == [(3, [None, None, 1]), (7, [2])]


@pytest.mark.parametrize("dimension", ["A1:XFD1048576", "A1:ZZZZZZZ2147483647"])
def test_a_dimension_that_lies_costs_nothing(tmp_path: Path, dimension: str) -> None:
    """python-calamine-plus makes every row as wide as that: 25 ms a row, or all the memory there is."""
    rows = "".join(f'<row r="{row}"><c r="A{row}"><v>1</v></c><c r="C{row}" s="1"/></row>' for row in range(1, 5001))
    rows += '<row r="5001"><c r="A5001"/><c t="n" s="1" r="AB5001"><f>1+1</f></c></row>'
    started = time.monotonic()
    found = rows_of(xlsx(rows, before=f'<dimension ref="{dimension}"/>', formats=["0%"]), tmp_path)
    assert time.monotonic() - started < 10
    assert found == [(row, [1]) for row in range(1, 5001)] + [(5001, [None] * 27 + [ErrorCell(NEVER_COMPUTED)])]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("<row><c><v>1</v></c><c><v>2</v></c></row>", [1, 2]),
        ("<row><c r='A1'><v>1</v></c><c s='1' r='D1'><v>2</v></c></row>", [1, None, None, 2]),
        ('<row r="1"><c r="A1"><v>1</v></c><c><v>2</v></c></row>', [1, 2]),
        ('<row r="1"><c\n r = "B1"\n><v>2</v></c><c r="XFD1"/></row>', [None, 2]),
    ],
)
def test_a_far_dimension_cuts_no_value(tmp_path: Path, row: str, expected: list[int | None]) -> None:
    """However the writer spells, or leaves out, a cell's place."""
    assert rows_of(xlsx(row, before='<dimension ref="A1:XFD9"/>'), tmp_path) == [(1, expected)]


def test_number_formats_that_matter_come_with_the_number(tmp_path: Path) -> None:
    """0.055 shown as 5.50% is a ratio, 123 shown as 000123 is that code, and 5 shown as 5% with a % of text is 5%."""
    rows = '<row><c s="1"><v>0.055</v></c><c s="2"><v>123</v></c><c s="3"><v>5</v></c><c s="9"><v>6</v></c></row>'
    content = xlsx(rows, formats=["0.00%", "000000", '0"%"'])
    assert [(1, [NumberCell(0.055, "0.00%"), NumberCell(123, "000000"), NumberCell(5, '0"%"'), 6])] == rows_of(
        content, tmp_path
    )


def test_a_merge_hides_all_but_its_first_cell(tmp_path: Path) -> None:
    """python-calamine shows the values that Excel keeps under merges."""
    rows = '<row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row><row r="2"><c r="A2"><v>3</v></c></row>'
    content = xlsx(rows, after=merged("A1:B2"))
    assert rows_of(content, tmp_path) == [(1, [1])]
    assert [Merge(1, 1, 2, 2)] == open_book(tmp_path / "book.xlsx", "x").merges("S")


def test_merges_can_be_asked_for_while_rows_are_read(tmp_path: Path) -> None:
    """python-calamine-plus has one stream a workbook, which a second one ends."""
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx("<row><c><v>1</v></c></row><row><c><v>2</v></c></row>"))
    book = open_book(path, "book.xlsx")
    rows = book.rows("S")
    assert next(rows) == (1, [1])
    assert book.merges("S") == []
    assert next(rows) == (2, [2])


def test_a_date_out_of_range_is_an_error(tmp_path: Path) -> None:
    """Excel shows #####; python-calamine-plus gives the number."""
    content = xlsx('<row><c s="1"><v>1e20</v></c></row>', formats=["yyyy-mm-dd"])
    assert [(1, [ErrorCell("#VALUE!")])] == rows_of(content, tmp_path)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN"])
def test_a_number_that_is_none_is_an_error(tmp_path: Path, number: str) -> None:
    """Infinity would pass for a figure."""
    assert [(1, [ErrorCell("#NUM!")])] == rows_of(xlsx(f"<row><c><v>{number}</v></c></row>"), tmp_path)


def test_damage_behind_the_headings_hides_no_table(tmp_path: Path) -> None:
    """Else the other of two tables would be loaded without a word, where it is not known which one is meant."""
    heads = "".join(f'<c t="inlineStr"><is><t>{name}</t></is></c>' for name in ("计划代码", "公司代码", "净值"))
    good = '<row><c t="inlineStr"><is><t>P1</t></is></c><c><v>6</v></c><c><v>1.05</v></c></row>'
    parts = xlsx_parts(
        f"<row>{heads}</row>{good * 199}" + '<row><c t="s"><v>99</v></c></row>',
        sheets='<sheet name="S1" sheetId="1" r:id="r1"/><sheet name="S2" sheetId="2" r:id="r2"/>',
        tabs={"r1": ("worksheet", "worksheets/sheet1.xml"), "r2": ("worksheet", "worksheets/sheet2.xml")},
    )
    whole = xlsx_parts(f"<row>{heads}</row>{good}")["xl/worksheets/sheet1.xml"]
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped({**parts, "xl/worksheets/sheet2.xml": whole}))
    with pytest.raises(WorkbookError, match="2 sheets hold the headings: S1, S2"):
        workbook.open_table(path, "book.xlsx", None, DOMAIN)


def test_rows_that_become_very_wide_take_no_more_memory(tmp_path: Path) -> None:
    """Without a dimension, all rows below one far cell are as wide as that."""
    rows = '<row r="1"><c r="A1"><v>1</v></c></row><row r="2"><c r="XFD2"><v>2</v></c></row>'
    rows += "".join(f'<row r="{at}"><c r="A{at}"><v>3</v></c></row>' for at in range(3, 123))
    path = tmp_path / "book.xlsx"
    path.write_bytes(xlsx(rows))
    batches = list(open_book(path, "book.xlsx").batches("S"))
    assert [number for batch in batches for number in batch.rows] == list(range(1, 123))
    assert max(len(batch.rows) for batch in batches) <= BATCH_CELLS // 16_384 + 2


def test_a_cell_where_excel_has_none_is_named_by_its_row(tmp_path: Path) -> None:
    """Not by another one that was read with it."""
    rows = "".join(
        f'<row r="{at}"><c r="{letter}{at}"><v>1</v></c></row>' for at, letter in enumerate(("A", "A", "XFE", "A"), 1)
    )
    with pytest.raises(WorkbookError, match="a cell in row 3, column 16385"):
        rows_of(xlsx(rows), tmp_path)
    never = '<row r="1"><c r="A1"><v>1</v></c></row><row r="2"><c r="XFE2"><f>1+1</f></c></row>'
    with pytest.raises(WorkbookError, match="a cell in row 2, column 16385"):
        rows_of(xlsx(never), tmp_path)


def test_two_sheets_of_one_name_are_refused_before_a_row_is_asked_for(tmp_path: Path) -> None:
    """What shows the rows has not begun to write by then."""
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped(xlsx_parts(sheets='<sheet name="S" sheetId="1" r:id="r1"/>' * 2)))
    book = open_book(path, "book.xlsx")
    for ask in (book.rows, book.batches):
        with pytest.raises(WorkbookError, match="2 sheets have one name"):
            ask("S")


def test_strict_open_xml_is_read(tmp_path: Path) -> None:
    """openpyxl cannot: it is one of Excel's own choices under "Save as"."""
    parts = {name: str(part).replace(MAIN, STRICT) for name, part in xlsx_parts("<row><c><v>1</v></c></row>").items()}
    assert rows_of(zipped(parts), tmp_path) == [(1, [1])]


def test_tabs_have_kinds_and_may_be_hidden(tmp_path: Path) -> None:
    """A chart sheet first, or a hidden one, must not be taken for the table."""
    parts = xlsx_parts(
        "<row><c><v>1</v></c></row>",
        sheets='<sheet name="图" sheetId="2" r:id="r2"/><sheet name="S" sheetId="1" r:id="r1" state="hidden"/>',
        tabs={"r1": ("worksheet", "worksheets/sheet1.xml"), "r2": ("chartsheet", "chartsheets/sheet1.xml")},
    )
    path = tmp_path / "book.xlsx"
    path.write_bytes(zipped({**parts, "xl/chartsheets/sheet1.xml": f'<chartsheet xmlns="{MAIN}"/>'}))
    book = open_book(path, "book.xlsx")
    assert [Sheet("图", "chart"), Sheet("S", hidden=True)] == book.sheets
    assert list(book.rows("图")) == []
    assert list(book.rows("S")) == [(1, [1])]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (xlsx_parts(sheets='<sheet name="S" sheetId="1" r:id="r1"/>' * 2), "2 sheets have one name"),
        (xlsx_parts('<row r="2"><c><v>1</v></c></row><row r="1"><c><v>1</v></c></row>'), "damaged"),
        (xlsx_parts('<row><c r="ZZZ1"><v>1</v></c></row>'), "Excel has 1048576 rows and 16384 columns"),
        (
            xlsx_parts('<row><c r="ZZY1"><v>1</v></c></row>', before='<dimension ref="A1:ZZZ1"/>'),
            "Excel has 1048576 rows and 16384 columns",
        ),
        (
            xlsx_parts(f"<row>{'<c><v>1</v></c>' * 16_400}</row>", before='<dimension ref="A1:ZZZ1"/>'),
            "Excel has 1048576 rows and 16384 columns",
        ),
        (xlsx_parts('<row r="1048577"><c><v>1</v></c></row>'), "Excel has 1048576 rows and 16384 columns"),
        (xlsx_parts('<row><c t="s"><v>9</v></c></row>'), "damaged"),
        ({**xlsx_parts(), "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}"><sheetData><row>'}, "damaged"),
        ({key: part for key, part in xlsx_parts().items() if "sheet1" not in key}, "damaged"),
        ({key: part for key, part in xlsx_parts().items() if key != "xl/workbook.xml"}, "damaged"),
        ({**xlsx_parts(), "xl/worksheets/sheet1.xml": "<worksheet/>".encode("utf-16")}, "damaged"),
        (
            xlsx_parts('<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
            r"too large \(1,048,576 rows x 16,384 columns, limit 20,000,000 cells\)",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, parts: dict[str, str | bytes], message: str
) -> None:
    """No other exception may leave a reader, and nothing is silently empty."""
    with pytest.raises(WorkbookError, match=message) as caught:
        rows_of(zipped(parts), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_workbook_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """A mail server or a full disk cuts files."""
    rows = "".join(f"<row><c><v>{n}</v></c></row>" for n in range(1000))
    content = xlsx(rows)
    path = tmp_path / "book.xlsx"
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(WorkbookError, match=r"empty|the end of the file is missing"):
            auto_reader.open_book(path, "book.xlsx")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_bits_change_no_value(tmp_path: Path, method: int) -> None:
    """python-calamine checks no checksum, and reads a damaged number as another number."""
    rows = "".join(f'<row><c t="s"><v>{n % 2}</v></c><c s="1"><v>{n / 7}</v></c></row>' for n in range(50))
    path = tmp_path / "book.xlsx"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, part in xlsx_parts(rows, strings=["<t>一</t>", "<t>二</t>"], formats=["0%"]).items():
            archive.writestr(name, part)
    content = path.read_bytes()
    expected = list(auto_reader.open_book(path, "book.xlsx").rows("S"))
    chance = random.Random(5)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(WorkbookError):
            book = auto_reader.open_book(path, "book.xlsx")
            assert expected == [row for sheet in book.sheets for row in book.rows(sheet.name)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_million_rows_take_less_than_100_mib(tmp_path: Path) -> None:
    """The memory does not grow with the sheet; a process of its own is measured, as pytest's has a history."""
    path = tmp_path / "book.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in xlsx_parts(formats=["0.00%"]).items():
            if "sheet1" not in name:
                archive.writestr(name, part)
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(f'<worksheet xmlns="{MAIN}"><sheetData>'.encode())
            row = '<row><c t="str"><v>计划</v></c><c s="1"><v>0.055</v></c></row>'.encode()
            for _ in range(100):
                sheet.write(row * 10_000)
            sheet.write(b"</sheetData></worksheet>")
    program = (
        "import sys; from pathlib import Path; from wdh_luigi.workbook.calamine_reader import open_book\n"
        "print(sum(1 for _ in open_book(Path(sys.argv[1]), 'x').rows('S')))\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    command = [sys.executable, "-c", program, str(path)]
    rows, kibibytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert rows == "1000000"
    assert int(kibibytes) < 100 << 10


def test_a_name_that_is_not_utf8_is_told_from_damage(tmp_path: Path) -> None:
    """calamine opens no name in GBK bytes; the workbook is whole."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xca\xdc.xlsx"))
    try:
        path.write_bytes(xlsx())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(WorkbookError, match="not UTF-8; rename it"):
        open_book(path, "book.xlsx")
