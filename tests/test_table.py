"""Where a sheet's table is and what its rows are: headings, units, totals, notes, gaps and merges, out of workbooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import openpyxl
import pytest
from openpyxl.worksheet.worksheet import Worksheet

from wdh_luigi.cells import MERGED, Cell, ErrorCell, NumberCell
from wdh_luigi.domains.trustee_performance import DOMAIN
from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import Profile, open_table

HEADINGS = ["年", "月", "计划代码", "公司代码", "收益率", "净值", "规模"]
ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]

Rows = list[tuple[int, list[Cell]]]


class Read(Protocol):
    """Write a sheet's rows from A1 on, merge, and read its table."""

    def __call__(
        self,
        rows: Sequence[Sequence[Any]],
        merged: Sequence[str] = (),
        left: int = 1,
        top: int = 1,
    ) -> tuple[Rows, Profile]: ...


def read_book(book: openpyxl.Workbook, folder: Path, wanted: int | str | None = None) -> tuple[Rows, Profile]:
    path = folder / "book.xlsx"
    book.save(path)
    table = open_table(path, "book.xlsx", wanted, DOMAIN)
    try:
        return list(table.rows()), table.profile
    finally:
        table.close()


def filled(sheet: Worksheet, rows: Sequence[Sequence[Any]], left: int = 1, top: int = 1) -> None:
    for number, row in enumerate(rows, top):
        for column, value in enumerate(row, left):
            if value is not None:
                sheet.cell(number, column, value)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(
        rows: Sequence[Sequence[Any]], merged: Sequence[str] = (), left: int = 1, top: int = 1
    ) -> tuple[Rows, Profile]:
        book = openpyxl.Workbook()
        sheet = book.active
        assert isinstance(sheet, Worksheet)
        filled(sheet, rows, left, top)
        for area in merged:
            sheet.merge_cells(area)
        return read_book(book, tmp_path)

    return read


def refusal(read: Read, rows: Sequence[Sequence[Any]], merged: Sequence[str] = ()) -> str:
    """Return the one line that refuses a workbook."""
    with pytest.raises(WorkbookError, match=r"book\.xlsx") as caught:
        read(rows, merged)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Where the headings are


def test_the_headings_are_the_first_row_that_holds_them(read: Read) -> None:
    """A title above, and columns to the left, are no matter; rows keep the numbers that Excel shows."""
    rows, profile = read([["2024年11月受托业绩报告"], [], HEADINGS, ROW], left=3, top=2)
    assert rows == [(5, [None, None, *ROW])]
    assert profile.headings.row == 4
    assert profile.headings.columns == {
        "year": 2,
        "month": 3,
        "plan_code": 4,
        "company_code": 5,
        "return_rate": 6,
        "net_asset_value": 7,
        "fund_scale": 8,
    }


@pytest.mark.parametrize(("above", "found"), [(19, True), (20, False)])
def test_headings_stand_in_the_first_twenty_rows(read: Read, above: int, found: bool) -> None:
    """A table further down is another one."""
    rows = [*([["说明"]] * above), HEADINGS, ROW]
    if found:
        assert read(rows)[0] == [(21, ROW)]
    else:
        assert "in the first 20 rows (nearest is row" in refusal(read, rows)


def test_both_codes_and_one_figure_make_headings(read: Read) -> None:
    """What a sheet does not give is blank; without a code nobody knows whose the figures are."""
    rows, profile = read([["净值", "公司代码", "计划代码"], [1.05, "6", "P1"]])
    assert rows == [(2, [1.05, "6", "P1"])]
    assert list(profile.headings.columns) == ["net_asset_value", "company_code", "plan_code"]
    assert refusal(read, [["年", "月", "计划代码", "收益率"], ROW]) == (
        "book.xlsx, sheet Sheet: no heading row with 计划代码, 公司代码 and one of 收益率, 净值, 规模"
        " in the first 20 rows (nearest is row 1: 年, 月, 计划代码, 收益率)"
        "; correct the headings, or choose another sheet with --sheet"
    )
    assert "no heading row" in refusal(read, [["计划代码", "公司代码", "备注"]])


def test_headings_are_compared_as_people_read_them(read: Read) -> None:
    """Width, case, spaces and line breaks are not seen."""
    typed = [
        "Ｙear",
        " 月\n份 ",
        "计划\n代码",
        "ＣＯＭＰＡＮＹ＿ＣＯＤＥ",
        "收 益 率（％）",
        "单位净值",
        "资产规模\n（万元）",
    ]
    _, profile = read([typed, ROW])
    figures = ["return_rate", "net_asset_value", "fund_scale"]
    assert [*profile.headings.columns] == ["year", "month", "plan_code", "company_code", *figures]
    assert profile.headings.units["return_rate"] == "%"
    assert profile.headings.units["fund_scale"] == "万元"
    assert profile.headings.texts["month"].strip() == "月\n份"


def test_columns_of_nobody_are_ignored_and_told(read: Read) -> None:
    """A remark, and a figure of another kind, are no field's."""
    _, profile = read([[*HEADINGS, "备注", "规模（上期）", "收益率(%)（同比）"], ROW])
    assert profile.headings.ignored == ["备注", "规模（上期）", "收益率(%)（同比）"]


@pytest.mark.parametrize(
    ("headings", "what"),
    [
        (["计划代码", "公司代码", "净值", "单位净值"], "two columns for 净值: '净值' in C1 and '单位净值' in D1"),
        (
            ["计划代码", "公司代码", "规模", "规模（万元）"],
            "two columns for 规模: '规模' in C1 and '规模（万元）' in D1",
        ),
        (["年", "年份", "计划代码", "公司代码", "净值"], "two columns for 年: '年' in A1 and '年份' in B1"),
        (
            ["计划代码", "公司代码", "plan_code", "净值"],
            "two columns for 计划代码: '计划代码' in A1 and 'plan_code' in C1",
        ),
    ],
)
def test_two_columns_for_one_field_are_refused(read: Read, headings: list[str], what: str) -> None:
    """Which one counts is for the sender to say."""
    assert f"{what}; rename or delete one of the two" in refusal(read, [headings, ROW])


# Units


@pytest.mark.parametrize(
    ("heading", "field", "unit"),
    [
        ("规模（万元）", "fund_scale", "万元"),
        ("规模(亿元)", "fund_scale", "亿元"),
        ("规模（单位：人民币万元）", "fund_scale", "万元"),
        ("规模", "fund_scale", ""),
        ("收益率(%)", "return_rate", "%"),
        ("净值（元）", "net_asset_value", "元"),
        ("净值（元/份）", "net_asset_value", "元/份"),
    ],
)
def test_a_heading_may_give_its_unit(read: Read, heading: str, field: str, unit: str) -> None:
    """万元 in a heading is a factor of ten thousand."""
    _, profile = read([["计划代码", "公司代码", heading], ["P1", "6", 1]])
    assert profile.headings.units[field] == unit


@pytest.mark.parametrize(
    ("heading", "what"),
    [
        ("净值（万元）", "the heading of 净值 gives the unit '万元', expected 元 or 元/份; correct the heading"),
        ("收益率（元）", "the heading of 收益率 gives the unit '元', expected %; correct the heading"),
        ("规模(%)", "the heading of 规模 gives the unit '%', expected 元 or 千元"),
        ("规模（万美元）", "the heading of 规模 gives the unit '万美元', expected 元 or 千元"),
        ("规模（万份）", "the heading of 规模 gives the unit '万份', expected 元 or 千元"),
        ("收益率（‰）", "the heading of 收益率 gives the unit '‰', expected %"),
        ("收益率(bp)", "the heading of 收益率 gives the unit 'bp', expected %"),
    ],
)
def test_a_unit_that_does_not_fit_is_refused(read: Read, heading: str, what: str) -> None:
    """Left out silently, the whole column would be blank; read as 元, wrong by a factor."""
    other = "规模" if heading.startswith("收益率") else "收益率"
    message = refusal(read, [["计划代码", "公司代码", other, heading], ["P1", "6", 0.1, 1]])
    assert f"cell D1: {what}" in message


def test_a_figure_of_another_unit_beside_the_right_one_is_ignored(read: Read) -> None:
    """规模（万美元） next to 规模（万元） is somebody else's."""
    _, profile = read([["计划代码", "公司代码", "规模（万元）", "规模（万美元）"], ["P1", "6", 1, 1]])
    assert profile.headings.columns["fund_scale"] == 2
    assert profile.headings.ignored == ["规模（万美元）"]


@pytest.mark.parametrize(
    ("above", "unit"),
    [
        ([["单位：万元"]], "万元"),
        ([["业绩报告（单位：亿元）"]], "亿元"),
        ([["业绩报告"], [None, None, "金额单位:", "人民币万元"]], "万元"),
        ([["编制单位：长河养老", None, "单位：元"]], "元"),
        ([["编制单位：长河养老"]], ""),
        ([["业绩报告"]], ""),
    ],
)
def test_a_line_above_the_headings_may_give_the_unit(read: Read, above: list[list[Any]], unit: str) -> None:
    """单位：万元 stands over the table of many a report."""
    _, profile = read([*above, HEADINGS, ROW])
    assert profile.headings.line_unit == unit


def test_a_line_below_the_headings_gives_no_unit(read: Read) -> None:
    """A note at the end is a note."""
    rows, profile = read([HEADINGS, ROW, ["单位：万元"]])
    assert profile.headings.line_unit == ""
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("above", "what"),
    [
        ([["单位：万元"], ["单位：元"]], "two units above the headings: 万元 and 元; leave one of them"),
        ([["单位净值单位：元；规模单位：万元"]], "two units above the headings: 万元 and 元"),
        ([["单位：万美元"]], "the line above the headings gives the unit '万美元', expected 元 or"),
    ],
)
def test_a_line_with_no_clear_unit_is_refused(read: Read, above: list[list[Any]], what: str) -> None:
    """Either of two would be wrong by a factor of ten thousand."""
    assert what in refusal(read, [*above, HEADINGS, ROW])


def test_a_line_that_no_column_needs_may_say_anything(read: Read) -> None:
    """The heading's own unit goes before the line's."""
    _, profile = read([["单位：万美元"], [*HEADINGS[:-1], "规模（元）"], ROW])
    assert (profile.headings.line_unit, profile.headings.units["fund_scale"]) == ("", "元")


# Headings of two rows


def test_a_group_over_several_headings_is_looked_through(read: Read) -> None:
    """业绩指标 over three columns, the codes merged down beside it."""
    top = ["计划代码", "公司代码", "业绩指标"]
    below = [None, None, "收益率(%)", "净值", "规模"]
    rows, profile = read([["报告"], top, below, ["P1", "6", 5.5, 1, 2]], merged=["A1:E1", "A2:A3", "B2:B3", "C2:E2"])
    assert rows == [(4, ["P1", "6", 5.5, 1, 2])]
    assert (profile.headings.row, profile.headings.units["return_rate"]) == (3, "%")
    assert profile.headings.columns["fund_scale"] == 4


def test_headings_merged_over_two_rows_end_where_the_merge_ends(read: Read) -> None:
    """The row below is theirs, whatever else stands in it, and no data row."""
    rows, profile = read([HEADINGS, [*[None] * 7, "注"], ROW], merged=[f"{letter}1:{letter}2" for letter in "ABCDEFG"])
    assert rows == [(3, ROW)]
    assert (profile.headings.row, profile.skipped) == (2, [])


@pytest.mark.parametrize("units", [["(%)", "元", "万元"], ["％", "（元）", "单位：万元"]])
@pytest.mark.parametrize("merged", [[], ["A1:A2", "B1:B2"]])
def test_a_row_of_units_below_the_headings_counts(read: Read, units: list[str], merged: list[str]) -> None:
    """As data it would be rejected, and the scale be wrong by ten thousand."""
    rows, profile = read(
        [["计划代码", "公司代码", "收益率", "净值", "规模"], [None, None, *units], ["P1", "6", 5.5, 1, 2]], merged
    )
    assert [number for number, _ in rows] == [3]
    assert profile.headings.units == {
        "plan_code": "",
        "company_code": "",
        "return_rate": "%",
        "net_asset_value": "元",
        "fund_scale": "万元",
    }


def test_a_unit_said_twice_is_one_and_two_units_are_refused(read: Read) -> None:
    """The heading says 万元 and the row below it says it again, or something else."""
    headings = ["计划代码", "公司代码", "规模（万元）", "收益率"]
    _, profile = read([headings, [None, None, "万元"], ["P1", "6", 1, 0.1]])
    assert profile.headings.units["fund_scale"] == "万元"
    message = refusal(read, [headings, [None, None, "亿元"], ["P1", "6", 1, 0.1]])
    assert "cell C1: the heading '规模（万元）' is divided below" in message


def test_a_field_divided_below_its_heading_is_refused(read: Read) -> None:
    """收益率 over 本月 and 本年: one of them is meant."""
    rows = [["计划代码", "公司代码", "收益率", None, "规模"], [None, None, "本月", "本年"], ["P1", "6", 0.1, 0.2, 5]]
    message = refusal(read, rows, ["A1:A2", "B1:B2", "C1:D1", "E1:E2"])
    assert "cell C1: the heading '收益率' is divided below: which column is it?; name that column 收益率" in message


def test_a_box_beside_the_table_hides_no_rows(read: Read) -> None:
    """A remark merged down beside the table begins in the heading row; the rows next to it are data."""
    rows, _ = read([[*HEADINGS, "说明"], *([ROW] * 5)], merged=["H1:H30"])
    assert [number for number, _ in rows] == [2, 3, 4, 5, 6]


# Which sheet


@pytest.fixture
def book() -> openpyxl.Workbook:
    """Make a workbook: a chart sheet, a cover, the table, a hidden copy of it, and a sheet called 0."""
    book = openpyxl.Workbook()
    cover = book.active
    assert isinstance(cover, Worksheet)
    cover.title = "封面"
    cover["A1"] = "受托业绩"
    for name in ("业绩", "旧", "0"):
        sheet = book.create_sheet(name)
        if name != "0":
            filled(sheet, [HEADINGS, [*ROW[:2], name, *ROW[3:]]])
    book["旧"].sheet_state = "hidden"
    book.create_chartsheet("图", 0)
    return book


@pytest.mark.parametrize(
    ("wanted", "name"), [(None, "业绩"), ("业绩", "业绩"), ("旧", "旧"), (2, "业绩"), ("2", "业绩"), ("3", "旧")]
)
def test_a_sheet_is_chosen(book: openpyxl.Workbook, tmp_path: Path, wanted: int | str | None, name: str) -> None:
    """By name, by index from 0 over every tab, or as the only visible one with the headings."""
    rows, profile = read_book(book, tmp_path, wanted)
    assert (profile.sheet, rows[0][1][2]) == (name, name)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (
            "无",
            "no sheet '无'; it has 0: 图, 1: 封面, 2: 业绩, 3: 旧, 4: 0; correct --sheet or sheet in data_sources.yml",
        ),
        (9, "no sheet 9; it has 0: 图"),
        (-1, "no sheet -1; it has 0: 图"),
        ("-1", "no sheet '-1'; it has 0: 图"),
        ("图", "sheet 图: is a chart sheet, which holds no rows"),
        ("0", "sheet 0: the sheet is empty"),
        (0, "sheet 0: the sheet is empty"),
        ("封面", "sheet 封面: no heading row with"),
    ],
)
def test_a_sheet_that_will_not_do_is_refused(
    book: openpyxl.Workbook, tmp_path: Path, wanted: int | str, what: str
) -> None:
    """Digits are an index unless a sheet has that name; nothing counts from the end."""
    with pytest.raises(WorkbookError) as caught:
        read_book(book, tmp_path, wanted)
    assert what in str(caught.value)


def test_two_sheets_with_headings_are_refused(book: openpyxl.Workbook, tmp_path: Path) -> None:
    """Both could be the table; both are named."""
    book["旧"].sheet_state = "visible"
    with pytest.raises(WorkbookError, match="2 sheets hold the headings: 业绩, 旧; name one with --sheet"):
        read_book(book, tmp_path)


def test_a_sheet_with_unclear_headings_is_not_passed_over(book: openpyxl.Workbook, tmp_path: Path) -> None:
    """The table may well be the one with a column too many; the other would be loaded silently."""
    book["旧"].sheet_state = "visible"
    book["业绩"]["H1"] = "资产规模"
    with pytest.raises(WorkbookError, match="sheet 业绩: two columns for 规模"):
        read_book(book, tmp_path)


def test_hidden_sheets_alone_are_refused(tmp_path: Path) -> None:
    """Nobody looked at what is hidden."""
    book = openpyxl.Workbook()
    book.create_chartsheet("图", 0)
    book["Sheet"].sheet_state = "hidden"
    with pytest.raises(WorkbookError, match="no visible worksheet; name a hidden one with --sheet"):
        read_book(book, tmp_path)


# Which rows


def test_what_is_no_data_row_is_skipped_with_its_number_and_reason(read: Read) -> None:
    """rows read and rows skipped are all the rows there are."""
    rows, profile = read(
        [
            HEADINGS,
            ROW,
            [],
            [],
            ["小 计：", None, None, None, 0.05],
            [None, None, None, None, None, None, 0],
            [None, None, "合计", None, None, None, 5],
            [2024, 11, "-", "—", "N/A", "无", "/"],
            ["备注：未经审计"],
            [None] * 8 + ["右边的说明"],
            ["Total", None, None, None, 1],
        ]
    )
    assert [number for number, _ in rows] == [2, 6]
    assert profile.skipped == [
        {"row": 3, "to": 4, "reason": "blank"},
        {"row": 5, "to": 5, "reason": "total"},
        {"row": 7, "to": 7, "reason": "total"},
        {"row": 8, "to": 8, "reason": "no codes and no figures: 2024"},
        {"row": 9, "to": 9, "reason": "no codes and no figures: 备注：未经审计"},
        {"row": 10, "to": 10, "reason": "no codes and no figures: 右边的说明"},
        {"row": 11, "to": 11, "reason": "total"},
    ]
    assert (profile.rows_read, profile.rows_skipped) == (2, 8)


def test_zero_and_an_error_are_something(read: Read) -> None:
    """A row with a figure and no code is a data row that somebody forgot half of."""
    rows, _ = read([HEADINGS, [None, None, None, None, 0], [None, None, None, None, None, None, "=1/0"]])
    assert [number for number, _ in rows] == [2, 3]


@pytest.mark.parametrize("merged", [["A3:G3"], ["A3:H5"], ["B3:G3"]])
def test_a_note_merged_across_the_table_is_a_note(read: Read, merged: list[str]) -> None:
    """It covers figures, and is none."""
    at = merged[0][0]
    rows, profile = read([HEADINGS, ROW, [*([None] if at == "B" else []), "备注：未经审计，谨供参考"]], merged)
    assert [number for number, _ in rows] == [2]
    assert profile.skipped[0] == {"row": 3, "to": 3, "reason": "no codes and no figures: 备注：未经审计，谨供参考"}


def test_a_total_merged_over_a_code_is_a_total(read: Read) -> None:
    """合计 begins in the column of numbers, and reads across the codes."""
    headings = ["序号", "计划代码", "公司代码", "净值", "规模"]
    rows, profile = read([headings, [1, "P1", "6", 1, 2], ["合计", None, None, None, 2]], ["A3:C3"])
    assert [number for number, _ in rows] == [2]
    assert profile.skipped == [{"row": 3, "to": 3, "reason": "total"}]
    rows, _ = read([headings, [1, "P1", "6", 1, 2], ["合计", None, None, None, 2]])
    assert [number for number, _ in rows] == [2, 3], "only a period or code cell can say so"


def test_a_plan_may_be_called_nearly_a_total(read: Read) -> None:
    """合计一号 is a code."""
    rows, _ = read([HEADINGS, [2024, 11, "合计一号", "6", 0.1, 1, 1]])
    assert len(rows) == 1


# Merged cells


def test_a_period_or_code_merged_down_counts_for_every_row(read: Read) -> None:
    """And for no row beside or after it."""
    rows, _ = read(
        [
            HEADINGS,
            [2024, 11, "P1", "6", 0.1, 1, 1],
            [None, None, None, "7", 0.2, 1, 1],
            [None, None, None, "8", 0.3, 1, 1],
            [None, None, None, "9", 0.4, 1, 1],
        ],
        ["A2:A4", "B2:B5", "C2:C3"],
    )
    assert [cells[:4] for _, cells in rows] == [
        [2024, 11, "P1", "6"],
        [2024, 11, "P1", "7"],
        [2024, 11, None, "8"],
        [None, 11, None, "9"],
    ]


def test_a_figure_merged_down_is_refused_in_each_row(read: Read) -> None:
    """Which row is it? What was typed goes along, for the sender."""
    rows, profile = read(
        [HEADINGS, [2024, 11, "P1", "6", 0.1, 1, 5000], [2024, 11, "P2", "6", 0.2, 1, None]], ["G2:G3", "E4:E5"]
    )
    merged = ErrorCell(MERGED + "G2:G3", "5000")
    assert [cells[6] for _, cells in rows] == [merged, merged]
    assert profile.extremes["fund_scale"].count == 0


def test_a_blank_figure_merged_down_is_blank(read: Read) -> None:
    """There is no figure whose row would be in doubt."""
    rows, _ = read([HEADINGS, [2024, 11, "P1", "6", 0.1, 1], [2024, 11, "P2", "6", 0.2, 1]], ["G2:G3"])
    assert [cells[6:] for _, cells in rows] == [[], []]


def test_nothing_is_filled_across_columns(read: Read) -> None:
    """A code over two columns is the first one's; a figure over two columns could be either's."""
    rows, _ = read(
        [
            HEADINGS,
            [2024, 11, "P1", None, 0.1, 1, 1],
            [2024, 11, "P2", "6", 0.1, None, 1],
            [2024, 11, "P3", "6", 0.1, 1, 1],
        ],
        ["C2:D2", "E3:F3", "G4:H4"],
    )
    assert [cells[2:] for _, cells in rows] == [
        ["P1", None, 0.1, 1, 1],
        ["P2", "6", ErrorCell(MERGED + "E3:F3", "0.1"), None, 1],
        ["P3", "6", 0.1, 1, 1],
    ]


def test_what_a_merge_covers_is_not_read(tmp_path: Path) -> None:
    """Excel does not show it: it may be years old."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    filled(sheet, [HEADINGS, ROW, [2024, 11, "P2", *ROW[3:]]])
    sheet.merge_cells("C2:C3")
    sheet._cells[3, 3] = openpyxl.cell.cell.Cell(sheet, row=3, column=3, value="P9")  # type: ignore[attr-defined]
    rows, _ = read_book(book, tmp_path)
    assert [cells[2] for _, cells in rows] == ["P1", "P1"]


def test_many_merges_cost_no_more_than_they_are(read: Read) -> None:
    """Each is looked at where it begins and ends, not for every row of the sheet."""
    pairs = 2_000
    rows: list[list[Any]] = [HEADINGS]
    for number in range(pairs):
        rows += [[2024, 11, f"P{number}", "6", 0.1, 1, 1], [2024, 11, None, "7", 0.1, 1, 1]]
    merged = [f"C{2 * number + 2}:C{2 * number + 3}" for number in range(pairs)]
    found, _ = read(rows, merged)
    assert [cells[2] for _, cells in found] == [f"P{number // 2}" for number in range(2 * pairs)]


# The profile


def test_the_profile_has_the_extremes_of_bare_numbers(tmp_path: Path) -> None:
    """Zero, a % in the text or the format, and what is no number say nothing of a column's unit."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    rates = [0.05, -0.2, 0, "5%", "abc", 7, "(0.1)", None, date(2024, 1, 1), "0.001", "¥9"]
    filled(sheet, [HEADINGS, *([2024, 11, f"P{at}", "6", rate] for at, rate in enumerate(rates))])
    sheet["E7"].number_format = "0.00%"
    rows, profile = read_book(book, tmp_path)
    found = profile.extremes["return_rate"]
    assert rows[5][1][4] == NumberCell(7, "0.00%")
    assert (found.count, str(found.smallest), found.smallest_cell) == (4, "0.001", "E11")
    assert (str(found.largest), found.largest_cell) == ("-0.2", "E3")
