"""The rejects workbook: whoever sent the bad cells can mend them there, and what is mended loads."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from job import HEADINGS, NAME, Job, workbook
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from wdh_luigi import rejects, targets
from wdh_luigi.batches import Batch, in_batches
from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, NumberCell, Row

GOOD = [2024, 11, "P1", "600001", 0.055, 1.05, 100]


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    made = Job(tmp_path, database)
    made.configure(max_reject_ratio=1)
    return made


def rejects_workbook(job: Job) -> tuple[openpyxl.Workbook, Worksheet]:
    book = openpyxl.load_workbook(job.file()["rejects_workbook"])
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    return book, sheet


def texts(sheet: Worksheet) -> list[list[Any]]:
    return [list(row) for row in sheet.iter_rows(values_only=True)]


def test_it_holds_the_sheets_own_headings_and_the_rejected_rows(job: Job) -> None:
    """Title, headings, rows and unmapped columns as they came; the reason and the original row in two columns more."""
    path = job.inbox / NAME
    rows = [[*GOOD, "好"], [2024, 13, "P2", 6, "abc", 1, "12,34", "注"], [*GOOD[:2], "P3", *GOOD[3:]]]
    workbook(path, [[*HEADINGS, "备注"], *rows], headings=["二〇二四年受托业绩"])
    job.load()
    _, sheet = rejects_workbook(job)
    assert sheet.title == "业绩"
    reason = "月 no month 13; 收益率 not a number or percentage; 规模 not a number or amount"
    assert texts(sheet) == [
        ["二〇二四年受托业绩", *[None] * 9],
        [*HEADINGS, "备注", "原因", "原行号"],
        [2024, 13, "P2", 6, "abc", 1, "12,34", "注", reason, 4],
    ]
    bad = {cell.coordinate: cell.comment.text for row in sheet.iter_rows() for cell in row if cell.comment}
    assert bad == {"B3": "no month 13", "E3": "not a number or percentage", "G3": "not a number or amount"}
    assert {cell.coordinate for row in sheet.iter_rows() for cell in row if cell.fill.fill_type} == set(bad)


@pytest.mark.parametrize("text", ["=SUM(A1)", "+x", "-x", "@x", "=cmd|' /C calc'!A0"])
def test_a_text_is_no_formula_whatever_it_looks_like(job: Job, text: str) -> None:
    """Somebody opens it in Excel: what an outsider typed must not be computed there."""
    path = workbook(job.inbox / NAME, [])
    book = openpyxl.load_workbook(path)
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet.append([2024, 11, "P1", 6, "abc", 1, 1])
    cell = sheet["E2"]
    cell.value, cell.data_type = text, "s"
    book.save(path)
    job.run()
    _, sheet = rejects_workbook(job)
    assert (sheet["E2"].value, sheet["E2"].data_type) == (text, "s")


def test_corrected_and_put_into_the_inbox_it_loads(job: Job) -> None:
    """Afterwards the table is as if the original had been right, with the merged and guessed as they were meant."""
    path = job.inbox / NAME
    workbook(
        path,
        [
            ["单位：万元"],
            HEADINGS,
            GOOD,
            [None, None, "P2", "600001", 0.06, 1.06, "12,34"],
            [None, None, "P3", "600001", "abc", 1.07, 300],
            [2024, 11, "P4", "600001", 0.29, 0, 300],
        ],
        headings=["受托业绩"],
    )
    book = openpyxl.load_workbook(path)
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet.merge_cells("A4:A6")
    sheet.merge_cells("B4:B6")
    book.save(path)
    job.load()
    assert [row[1] for row in job.table()] == ["P1"]
    book, sheet = rejects_workbook(job)
    assert [row[-1] for row in texts(sheet)[3:]] == [5, 6, 7]
    sheet["G4"], sheet["E5"], sheet["F6"] = 12.34, "5.5%", 1.1
    book.save(job.inbox / Path(job.file()["rejects_workbook"]).name)
    job.load()
    november, plans = date(2024, 11, 1), ("0.055 1.05 100", "0.06 1.06 12.34", "0.055 1.07 300", "0.29 1.1 300")
    right = [
        (november, f"P{at}", "600001", Decimal(rate), Decimal(value), Decimal(scale) * 10_000)
        for at, (rate, value, scale) in enumerate((plan.split() for plan in plans), 1)
    ]
    assert right == job.table()
    job.execute("DROP TABLE trustee_performance, wdh_load")
    job.load()
    assert right == job.table(), "another database gets the original and the correction"
    assert "Nothing had to be done" in job.load().stdout


@pytest.mark.parametrize(("rates", "corrected"), [([0.01, 0.2], 0.015), ([1.5, 20.0], 15.0)])
def test_what_was_guessed_from_all_rows_stays_so(job: Job, rates: list[float], corrected: float) -> None:
    """Few rows alone could be guessed otherwise: the workbook says what its numbers are."""
    rows = [[2024, 11, f"P{at}", "6", rate, 1, 1] for at, rate in enumerate(rates)]
    workbook(job.inbox / NAME, [*rows, [2024, 11, "P9", "6", rates[0], "abc", 1], [2024, 11, "P8", "6", "x", 1, 1]])
    job.load()
    book, sheet = rejects_workbook(job)
    sheet["F2"], sheet["E3"] = 1, corrected
    book.save(job.inbox / f"更正_{NAME}")
    job.load()
    unit = 1 if rates[1] < 1 else 100
    found = {row[1]: row[3] for row in job.table()}
    assert found["P9"] == Decimal(str(rates[0])) / unit
    assert found["P8"] == Decimal(str(corrected)) / unit


def test_a_failed_workbook_has_its_rejects_too(job: Job) -> None:
    """Over max_reject_ratio nothing is loaded, and the sender needs the list all the more."""
    job.configure(max_reject_ratio=0.1)
    workbook(job.inbox / NAME, [GOOD, [2024, 11, "P2", 6, "abc", 1, 1]])
    assert job.run().returncode == 30
    _, sheet = rejects_workbook(job)
    assert texts(sheet)[1][2] == "P2"


def test_errors_and_unprintable_text_survive(job: Job) -> None:
    """An Excel error stays one; what XML cannot hold is replaced, not dropped with its row."""
    workbook(job.inbox / NAME, [["#N/A", 11, "P2", 6, "a_x0001_b", 1, "#DIV/0!"], GOOD])
    job.load()
    _, sheet = rejects_workbook(job)
    assert [(sheet[name].value, sheet[name].data_type) for name in ("A2", "G2")] == [("#N/A", "e"), ("#DIV/0!", "e")]
    assert sheet["E2"].value == "a\ufffdb"


def test_without_rejects_there_is_none(job: Job) -> None:
    """Nothing to mend, nothing to send."""
    workbook(job.inbox / NAME, [GOOD])
    job.load()
    assert (job.file()["rejects"], job.file()["rejects_workbook"]) == (None, None)


def test_a_correction_of_late_rows_alone_is_no_wrong_month(job: Job) -> None:
    """The original held its month as well; what was rejected of it may not."""
    workbook(job.inbox / NAME, [GOOD, [2024, 10, "P2", "600001", "abc", 1.05, 100]])
    job.load()
    book, sheet = rejects_workbook(job)
    sheet["E2"] = "1%"
    book.save(job.inbox / f"更正_{NAME}")
    job.load()
    assert [(row[0].month, row[1]) for row in job.table()] == [(10, "P2"), (11, "P1")]


def test_many_rejects_have_their_reasons_in_the_column(job: Job) -> None:
    """Comments are drawings, which Excel and memory bear by the thousand at most; no row is left out for that."""
    workbook(job.inbox / NAME, [[2024, 11, f"P{at}", "6", "abc", 1, 1] for at in range(1200)])
    job.run()
    _, sheet = rejects_workbook(job)
    found = texts(sheet)[1:]
    assert [row[-2:] for row in found] == [["收益率 not a number or percentage", at + 2] for at in range(1200)]
    assert sum(cell.comment is not None for cell in sheet["E"]) == 1000
    assert sum(bool(cell.fill.fill_type) for cell in sheet["E"]) == 1200


KINDS: list[tuple[Cell, Any, str, str, bool]] = [  # a cell as read; in the workbook its value, type, format and quote
    (None, None, "n", "General", False),
    (True, True, "b", "General", False),
    (1, 1, "n", "General", False),
    (-0.5, -0.5, "n", "0.00####%", False),
    (1e22, 1e22, "n", "General", False),
    ("=1", "=1", "s", "General", True),
    (' a<b&"c"\r\n二 ', ' a<b&"c"\n二 ', "s", "General", False),
    ("\x00\ud800", "\ufffd\ufffd", "s", "General", False),
    ("长" * 40_000, "长" * 32_767, "s", "General", False),
    (date(2024, 11, 5), datetime(2024, 11, 5), "d", "yyyy-mm-dd", False),
    (datetime(2024, 11, 5, 6, 7), datetime(2024, 11, 5, 6, 7), "d", "yyyy-mm-dd h:mm:ss", False),
    (time(8, 9), time(8, 9), "d", "h:mm:ss", False),
    (timedelta(hours=30), timedelta(hours=30), "d", "[hh]:mm:ss", False),
    (ErrorCell("#N/A"), "#N/A", "e", "General", False),
    (ErrorCell(NEVER_COMPUTED), None, "n", "General", False),
    (ErrorCell("merged over A1:A2", "-5"), "-5", "s", "General", True),
    (NumberCell(0.5, "0.00%"), 0.5, "n", "0.00%", False),
]


@pytest.mark.parametrize("alike", [True, False])
def test_every_kind_of_cell_is_written_as_it_came(tmp_path: Path, alike: bool) -> None:
    """Also in a column of which the rows as read keep one cell; what is bad is filled, and has a comment."""
    cells, width = [cell for cell, *_ in KINDS], len(KINDS)
    bad = [{"cell": f"{get_column_letter(at + 1)}9", "heading": "H", "reason": f"r{at}"} for at in range(width)]
    found = {3: bad[3:6], 4: bad, 7: bad[:1], 8: [{"cell": "", "heading": "", "reason": "whole row"}], 9: bad[1:2]}
    rows: list[Row] = [(number, list(cells)) for number in (3, 4, 7, 8)]
    rows.append((9, list(cells) if alike else cells[:2]))
    with (tmp_path / "rejects.xlsx").open("wb") as file:
        batches = [Batch.of_document(targets.loads(targets.dumps(batch.document()))) for batch in in_batches(rows)]
        rejects.write(file, "S", [["T"]], ["H"] * width, batches, found, {3})
    sheet = openpyxl.load_workbook(tmp_path / "rejects.xlsx")["S"]
    for (number, given), row in zip(rows, sheet.iter_rows(min_row=3), strict=True):
        expected = [kind[1:] for kind in KINDS[: len(given)]] + [KINDS[0][1:]] * (width - len(given))
        *shown, reason, original = row
        assert [(one.value, one.data_type, one.number_format, one.quotePrefix) for one in shown] == expected
        said = {one["cell"].removesuffix("9"): one["reason"] for one in found[number] if one["cell"]}
        assert {one.column_letter: one.comment.text for one in shown if one.comment} == said
        assert {one.column_letter for one in shown if one.fill.fill_type} == set(said)
        reasons = "; ".join(f"{one['heading']} {one['reason']}".strip() for one in found[number])
        assert (reason.value, original.value) == (reasons, number)
