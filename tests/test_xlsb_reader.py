"""The reader of .xlsb, over records written by hand after MS-XLSB."""

from __future__ import annotations

import struct
from datetime import date, timedelta
from pathlib import Path

import pytest
from books import record, wide, xlsb, xlsb_cell, xlsb_row

from wdh_luigi.cells import Cell, ErrorCell, NumberCell
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook.auto_reader import open_book
from wdh_luigi.workbook.book import Merge, Row

FORMATS = ["0.00%", "000000", "yyyy-mm-dd", "[h]:mm"]
RK = struct.Struct("<I")
REAL = struct.Struct("<d")


def read(content: bytes, folder: Path) -> list[Row]:
    path = folder / "book.xlsb"
    path.write_bytes(content)
    book = open_book(path, "book.xlsb")
    try:
        return list(book.rows("S"))
    finally:
        book.close()


@pytest.mark.parametrize(
    ("kind", "content", "style", "expected"),
    [
        (2, RK.pack(5 << 2 | 2), 0, 5),
        (2, RK.pack(-5 << 2 & 0xFFFFFFFF | 2), 0, -5),
        (2, RK.pack(550 << 2 | 3), 0, 5.5),
        (2, REAL.pack(1.5)[4:], 0, 1.5),
        (3, b"\x2a", 0, ErrorCell("#N/A")),
        (4, b"\1", 0, True),
        (5, REAL.pack(0.055), 0, 0.055),
        (5, REAL.pack(0.055), 1, NumberCell(0.055, "0.00%")),
        (2, RK.pack(123 << 2 | 2), 2, NumberCell(123, "000000")),
        (5, REAL.pack(45626), 3, date(2024, 11, 30)),
        (5, REAL.pack(1.25), 4, timedelta(hours=30)),
        (5, REAL.pack(1e20), 3, ErrorCell("#VALUE!")),
        (5, REAL.pack(1.5), 99, 1.5),
        (6, wide("计划"), 0, "计划"),
        (7, struct.pack("<I", 1), 0, "second"),
        (8, wide("text") + bytes(8), 0, "text"),
        (9, REAL.pack(2) + bytes(8), 0, 2),
        (10, b"\0" + bytes(8), 0, False),
        (11, b"\x07" + bytes(8), 0, ErrorCell("#DIV/0!")),
        (62, b"\0" + wide("rich"), 0, "rich"),
    ],
)
def test_a_cell_is_what_excel_shows(tmp_path: Path, kind: int, content: bytes, style: int, expected: Cell) -> None:
    """Every record of a cell in MS-XLSB 2.4."""
    records = [xlsb_row(3), xlsb_cell(kind, 2, content, style)]
    assert [(3, [None, expected])] == read(xlsb(records, strings=["first", "second"], formats=FORMATS), tmp_path)


def test_short_cells_stand_beside_the_one_before(tmp_path: Path) -> None:
    """python-calamine drops them, and with them all columns but the first."""
    records = [xlsb_row(1), xlsb_cell(5, 2, REAL.pack(1.5))]
    records += [record(16, bytes(4) + REAL.pack(2.5)), record(12, bytes(4)), record(17, bytes(4) + wide("x"))]
    assert read(xlsb(records), tmp_path) == [(1, [None, 1.5, 2.5, None, "x"])]


def test_a_merge_hides_all_but_its_first_cell(tmp_path: Path) -> None:
    """As in the other formats."""
    cells = [xlsb_cell(5, column, REAL.pack(column)) for column in (1, 2, 3)]
    content = xlsb([xlsb_row(1), *cells, record(146), record(176, struct.pack("<4I", 0, 1, 0, 1))])
    assert read(content, tmp_path) == [(1, [1, None, 3])]
    book = open_book(tmp_path / "book.xlsb", "book.xlsb")
    assert [Merge(1, 1, 2, 2)] == book.merges("S")
    book.close()


def test_dates_count_from_1904_where_the_workbook_says_so(tmp_path: Path) -> None:
    """Workbooks of old Macs are four years off otherwise."""
    records = [xlsb_row(1), xlsb_cell(5, 1, REAL.pack(44164), 3)]
    assert [(1, [date(2024, 11, 30)])] == read(xlsb(records, formats=FORMATS, date1904=True), tmp_path)


def test_long_records_cross_the_pieces_in_which_a_part_is_read(tmp_path: Path) -> None:
    """A part is read by the mebibyte."""
    texts = [f"{number:05}" * 6000 for number in range(60)]
    records = [piece for at, text in enumerate(texts) for piece in (xlsb_row(at + 1), xlsb_cell(6, 1, wide(text)))]
    assert [(at + 1, [text]) for at, text in enumerate(texts)] == read(xlsb(records), tmp_path)


@pytest.mark.parametrize(
    "records",
    [
        [xlsb_row(2), xlsb_row(1)],
        [xlsb_row(1), xlsb_cell(7, 1, struct.pack("<I", 9))],
        [xlsb_row(1), xlsb_cell(5, 20_000, REAL.pack(1))],
        [xlsb_row(1), xlsb_cell(6, 1, struct.pack("<I", 1 << 30))],
        [b"\x05\xff\xff\xff\x7f"],
        [xlsb_row(1_048_577), xlsb_cell(4, 1, b"\1")],
    ],
)
def test_damage_is_refused_in_one_line(tmp_path: Path, records: list[bytes]) -> None:
    """No other exception may leave a reader."""
    with pytest.raises(WorkbookError, match=r"^book.xlsb, sheet S: damaged"):
        read(xlsb(records), tmp_path)
