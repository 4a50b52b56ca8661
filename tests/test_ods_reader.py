"""The reader of .ods, over documents as LibreOffice writes them."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest
from books import ods, ods_cell

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, NumberCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook.auto_reader import open_book
from wdh_luigi.workbook.book import Merge, Row, Sheet

PADDED = (
    '<number:number-style style:name="N1"><number:number number:min-integer-digits="6"/></number:number-style>'
    '<style:style style:name="ce1" style:family="table-cell" style:data-style-name="N1"/>'
    '<style:style style:name="ce2" style:family="table-cell" style:parent-style-name="ce1"/>'
    '<style:style style:name="ta2" style:family="table"><style:table-properties table:display="false"/></style:style>'
)


def row(*cells: str, **attributes: str) -> str:
    own = "".join(f' table:{name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f"<table:table-row{own}>{''.join(cells)}</table:table-row>"


def read(rows: str, folder: Path, **options: str) -> list[Row]:
    path = folder / "book.ods"
    path.write_bytes(ods(rows, **options))
    book = open_book(path, "book.ods")
    try:
        return list(book.rows("S"))
    finally:
        book.close()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (ods_cell("float", "5", "5"), 5),
        (ods_cell("float", "0.055", "0.06"), 0.055),
        (ods_cell("currency", "5.5", "5.50 元", office_currency="CNY"), 5.5),
        (ods_cell("percentage", "0.055", "5.50%"), NumberCell(0.055, "0.00%")),
        (ods_cell("float", "123", "000123", table_style_name="ce2"), NumberCell(123, "000000")),
        (ods_cell("boolean", "true", "TRUE"), True),
        (ods_cell("date", "2024-11-30", "30.11."), date(2024, 11, 30)),
        (ods_cell("date", "2024-11-30T12:00:00.500000000", "x"), datetime(2024, 11, 30, 12, 0, 0, 500_000)),
        (ods_cell("date", "12024-11-30", "x"), ErrorCell("#VALUE!")),
        (ods_cell("time", "PT06H00M00S", "6:00"), time(6)),
        (ods_cell("time", "PT30H15M00.5S", "30:15"), timedelta(hours=30, minutes=15, milliseconds=500)),
        (ods_cell("string", "", "计划 1"), "计划 1"),
        ("<table:table-cell><text:p>no type</text:p></table:table-cell>", "no type"),
        (ods_cell("string", "", "#N/A"), "#N/A"),
        (ods_cell("float", "0", "#DIV/0!", table_formula="of:=1/0", calcext_value_type="error"), ErrorCell("#DIV/0!")),
        (ods_cell("string", "", "Err:508", table_formula="of:=(", calcext_value_type="error"), ErrorCell("Err:508")),
        (ods_cell("float", "0", "#DIV/0!", table_formula="of:=1/0"), ErrorCell("#DIV/0!")),
        (ods_cell("", table_formula="of:=1+1"), ErrorCell(NEVER_COMPUTED)),
        (ods_cell("float", "2", "2", table_formula="of:=1+1"), 2),
        (
            '<table:table-cell office:value-type="string"><office:annotation><text:p>note</text:p></office:annotation>'
            '<text:p>a<text:s text:c="2"/>b<text:tab/><text:span>c</text:span></text:p><text:p>d</text:p>'
            "</table:table-cell>",
            "a  b\tc\nd",
        ),
    ],
)
def test_a_cell_is_what_libreoffice_shows(tmp_path: Path, cell: str, expected: Cell) -> None:
    """python-calamine gives an error as 0 or blank, and a percentage as a number like any other."""
    assert [(1, [None, expected])] == read(row("<table:table-cell/>", cell), tmp_path, styles=PADDED)


def test_repeated_rows_and_cells_count(tmp_path: Path) -> None:
    """LibreOffice writes what is alike once, and blank rows to the end of the sheet."""
    heading = row(ods_cell("float", "1", table_number_columns_repeated="2"))
    rows = (
        row("<table:table-cell/>", number_rows_repeated="5")
        + f"<table:table-header-rows>{heading}</table:table-header-rows>"
        + row('<table:table-cell table:number-columns-repeated="3"/>', ods_cell("float", "2"), number_rows_repeated="2")
        + row('<table:table-cell table:number-columns-repeated="16384"/>', number_rows_repeated="1048000")
    )
    assert read(rows, tmp_path) == [(6, [1, 1]), (7, [None, None, None, 2]), (8, [None, None, None, 2])]


def test_a_column_may_give_the_style(tmp_path: Path) -> None:
    """LibreOffice names a style at the column where most cells have it."""
    column = '<table:table-column table:number-columns-repeated="2" table:default-cell-style-name="ce1"/>'
    rows = column + row("<table:table-cell/>", ods_cell("float", "7"), ods_cell("float", "8"))
    assert [(1, [None, NumberCell(7, "000000"), 8])] == read(rows, tmp_path, styles=PADDED)


def test_a_merge_hides_all_but_its_first_cell(tmp_path: Path) -> None:
    """Covered cells may hold values, which nobody sees."""
    covered = '<table:covered-table-cell office:value-type="float" office:value="9"/>'
    spanning = ods_cell("float", "1", table_number_columns_spanned="2", table_number_rows_spanned="2")
    assert read(row(spanning, covered) + row(covered, covered), tmp_path) == [(1, [1])]
    book = open_book(tmp_path / "book.ods", "book.ods")
    assert [Merge(1, 1, 2, 2)] == book.merges("S")
    book.close()


def test_each_sheet_has_its_own_rows(tmp_path: Path) -> None:
    """Also beside a hidden sheet, and what links keep of other documents is no sheet."""
    more = (
        f'<table:table table:name="隐藏" table:style-name="ta2">{row(ods_cell("float", "2"))}</table:table>'
        f'<table:dde-links><table:table table:name="link">{row(ods_cell("float", "3"))}</table:table></table:dde-links>'
    )
    assert read(row(ods_cell("float", "1")), tmp_path, styles=PADDED, more=more) == [(1, [1])]
    book = open_book(tmp_path / "book.ods", "book.ods")
    assert [Sheet("S"), Sheet("隐藏", hidden=True)] == book.sheets
    assert list(book.rows("隐藏")) == [(1, [2])]
    book.close()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (row(ods_cell("float", "x")), "damaged"),
        (row(ods_cell("float", "1", table_number_columns_repeated="99999999")), "Excel has 1048576 rows"),
        (row(ods_cell("float", "1"), number_rows_repeated="99999999"), "Excel has 1048576 rows"),
        (
            row(ods_cell("float", "1", table_number_columns_repeated="16384"), number_rows_repeated="1048576"),
            "too large",
        ),
    ],
)
def test_damage_and_bombs_are_refused_in_one_line(tmp_path: Path, rows: str, message: str) -> None:
    """A hundred bytes can say 17 thousand million cells."""
    with pytest.raises(WorkbookError, match=f"^book.ods, sheet S: .*{message}"):
        read(rows, tmp_path)


def test_a_cut_document_is_refused(tmp_path: Path) -> None:
    """All of it is read before the first row is given."""
    with pytest.raises(WorkbookError, match="damaged"):
        read(row(ods_cell("float", "1")) + "<table:table-row>", tmp_path)


def test_a_unit_in_a_cells_style_comes_with_the_number(tmp_path: Path) -> None:
    """1200 shown as 1200万元 is no 1200 元, and 1,200 may be 1200000 shown in thousands."""
    unit = "<number:text>万元</number:text>"
    styles = "".join(
        f'<number:number-style style:name="n{at}"><number:number number:min-integer-digits="1"{factor}/>{unit}'
        f'</number:number-style><style:style style:name="c{at}" style:data-style-name="n{at}"/>'
        for at, factor in enumerate(["", ' number:display-factor="1000"'])
    )
    cells = [ods_cell("float", "1200", table_style_name=f"c{at}") for at in range(2)]
    expected = [NumberCell(1200, '0"万元"'), NumberCell(1200, '0,"万元"')]
    assert [(1, expected)] == read(row(*cells), tmp_path, styles=styles)
