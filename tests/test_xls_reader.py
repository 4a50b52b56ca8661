"""The reader of .xls: what Excel 97 wrote, and what damaged containers do."""

from __future__ import annotations

import contextlib
import random
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
import xlwt

from wdh_luigi.cells import Cell, ErrorCell, NumberCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook.auto_reader import open_book
from wdh_luigi.workbook.book import Merge, Row, Sheet

FORMATS = ["General", "0.00%", "000000", "yyyy-mm-dd", "h:mm", "[h]:mm"]
STYLES = {one: xlwt.easyxf(num_format_str=one) for one in FORMATS}


def saved(book: Any, folder: Path) -> Path:
    path = folder / "book.xls"
    book.save(str(path))
    return path


def read(path: Path, sheet: str = "S") -> list[Row]:
    book = open_book(path, "book.xls")
    try:
        return list(book.rows(sheet))
    finally:
        book.close()


@pytest.mark.parametrize(
    ("value", "number_format", "expected"),
    [
        (5, "General", 5),
        (0.055, "General", 0.055),
        (1e20, "General", 1e20),
        (0.055, "0.00%", NumberCell(0.055, "0.00%")),
        (123, "000000", NumberCell(123, "000000")),
        ("计划 1", "General", "计划 1"),
        ("#N/A", "General", "#N/A"),
        (True, "General", True),
        (date(2024, 11, 30), "yyyy-mm-dd", date(2024, 11, 30)),
        (datetime(2024, 11, 30, 12), "yyyy-mm-dd", datetime(2024, 11, 30, 12)),
        (0.25, "h:mm", time(6)),
        (1.25, "[h]:mm", timedelta(hours=30)),
        (1e10, "yyyy-mm-dd", ErrorCell("#VALUE!")),
    ],
)
def test_a_cell_is_what_excel_shows(tmp_path: Path, value: object, number_format: str, expected: Cell) -> None:
    """The types that the pipeline knows, with Excel's own place."""
    book = xlwt.Workbook()
    book.add_sheet("S").write(2, 1, value, STYLES[number_format])
    assert [(3, [None, expected])] == read(saved(book, tmp_path))


def test_an_error_is_no_text(tmp_path: Path) -> None:
    """#N/A as an error rejects its row."""
    book = xlwt.Workbook()
    book.add_sheet("S").row(0).set_cell_error(0, 0x2A)
    assert [(1, [ErrorCell("#N/A")])] == read(saved(book, tmp_path))


def test_merges_and_hidden_sheets_are_told(tmp_path: Path) -> None:
    """As from the other formats."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    sheet.write_merge(0, 1, 0, 2, "标题")
    sheet.write(2, 0, 1)
    book.add_sheet("隐藏").visibility = 1
    opened = open_book(saved(book, tmp_path), "book.xls")
    assert [Sheet("S"), Sheet("隐藏", hidden=True)] == opened.sheets
    assert [Merge(1, 1, 2, 3)] == opened.merges("S")
    assert list(opened.rows("S")) == [(1, ["标题"]), (3, [1])]
    opened.close()


def test_dates_count_from_1904_where_the_workbook_says_so(tmp_path: Path) -> None:
    """Workbooks of old Macs are four years off otherwise."""
    book = xlwt.Workbook()
    book.dates_1904 = True
    book.add_sheet("S").write(0, 0, date(2024, 11, 30), STYLES["yyyy-mm-dd"])
    assert [(1, [date(2024, 11, 30)])] == read(saved(book, tmp_path))


def test_damage_is_refused_or_read_and_never_goes_on_for_ever(tmp_path: Path) -> None:
    """An .xls has no checksums, so that a flipped bit may change a value; xlrd alone hangs over some."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    for row in range(50):
        sheet.write(row, 0, f"计划{row}")
        sheet.write(row, 1, row / 7, STYLES["0.00%"])
    path = saved(book, tmp_path)
    content = path.read_bytes()
    chance = random.Random(3)
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 3, 30])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(WorkbookError):
            read(path)


def test_a_container_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """A mail server or a full disk cuts files."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    for row in range(500):
        sheet.write(row, 0, f"计划{row}")
    path = saved(book, tmp_path)
    content = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(WorkbookError, match=r"empty|ends too early|is missing"):
            open_book(path, "book.xls")
