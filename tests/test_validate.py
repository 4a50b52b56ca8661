"""Rows into records and rejects: what pydantic's model says, said faster; units, keys, counts and reasons."""

from __future__ import annotations

import json
import resource
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge
from hypothesis import example, given
from hypothesis import strategies as st
from job import write_list
from pydantic import ValidationError, field_validator

from wdh_luigi import plan, targets, validate
from wdh_luigi.batches import Batch, Column
from wdh_luigi.cells import MERGED, Cell, ErrorCell, NumberCell
from wdh_luigi.config import DomainConfig
from wdh_luigi.domains.trustee_performance import DOMAIN
from wdh_luigi.errors import WorkbookError
from wdh_luigi.schema import Code, Domain, Month, PeriodCells, PerUnit, Reading, Record
from wdh_luigi.workbook import Profile, Table, headings
from wdh_luigi.workbook.book import Book, Merge, Row, Sheet

HEADINGS = ["年", "月", "计划代码", "公司代码", "收益率", "净值", "规模"]
KEY = ["report_date", "plan_code", "company_code"]
NOVEMBER = date(2024, 11, 1)
TODAY = date(2024, 12, 5)
GOOD = [2024, 11, "P1", "6", 0.055, 1.05, 100]
FULL = {name: at for at, name in enumerate(DOMAIN.sheet_columns)}


class ListedBook(Book):
    """A workbook of one sheet whose rows are listed."""

    def __init__(self, rows: Iterable[Sequence[Cell]], gives_formats: bool = True) -> None:
        self.sheets = [Sheet("S")]
        self.gives_formats = gives_formats
        self._rows = rows

    def rows(self, sheet: str) -> Iterator[Row]:
        return ((number, list(cells)) for number, cells in enumerate(self._rows, 1))

    def merges(self, sheet: str) -> list[Merge]:
        return []

    def close(self) -> None:
        pass


def config(**changes: Any) -> DomainConfig:
    return DomainConfig.model_validate({"pattern": "x", "table": "t", "pk": KEY, **changes})


def read(
    rows: Sequence[Sequence[Cell]], heads: Sequence[Cell] = HEADINGS, above: Sequence[Sequence[Cell]] = (), **book: Any
) -> tuple[list[Row], Profile]:
    """Read rows below their headings, as if from a sheet."""
    sheet = [*above, heads, *rows]
    listed = ListedBook(sheet, **book)
    top = list(listed.rows("S"))[:20]
    table = Table(listed, "S", headings.find(top, [], DOMAIN, "book.xlsx", "S"), [], top, DOMAIN)
    return list(table.rows()), table.profile


class Sorted:
    """What became of rows."""

    def __init__(
        self,
        rows: Sequence[Sequence[Cell]],
        heads: Sequence[Cell] = HEADINGS,
        *,
        month: date | None = NOVEMBER,
        above: Sequence[Sequence[Cell]] = (),
        **settings: Any,
    ) -> None:
        found, self.profile = read(rows, heads, above)
        self.config = config(**settings)
        self.rates = validate.rates(self.profile, self.config, DOMAIN, "book.xlsx")
        reading = validate.reading(self.profile, self.config, DOMAIN, month, TODAY)
        self.reading = validate.with_rates(reading, self.rates)
        self.rejects: list[dict[str, Any]] = []
        sorting = validate.Validation(DOMAIN, self.profile, self.config, self.reading, self.rejects.append)
        records = list(sorting.accepted(found))
        self.outcome = sorting.outcome
        self.records = [record for record in records if record["row"] not in self.outcome.conflicts]
        assert self.outcome.accepted == len(self.records)
        assert self.outcome.read == self.profile.rows_read
        assert self.outcome.read == self.outcome.accepted + self.outcome.rejected + self.outcome.duplicate
        assert {reject["row"] for reject in self.rejects} == self.rejected_rows(found)
        assert self.outcome.rejected == len({reject["row"] for reject in self.rejects})

    def rejected_rows(self, rows: list[Row]) -> set[int]:
        """Return the rows that are neither a record nor a duplicate."""
        told = {record["row"] for record in self.records} | {one["row"] for one in self.outcome.duplicates}
        return {number for number, _ in rows} - told

    @property
    def reasons(self) -> list[tuple[str, str, str, str]]:
        """Return each reject's cell, heading, value and reason."""
        return [(r["cell"], r["heading"], r["value"], r["reason"]) for r in self.rejects]


# The fast way and the plain model

PERIODS: list[Cell] = [
    2024,
    "2024年",
    "24",
    11,
    "11月",
    "13",
    202411,
    "2024-11",
    date(2024, 11, 5),
    2023,
    "",
    None,
    "x",
]
FIGURES: list[Cell] = [0, 0.0, -0.0, 1, 1.0, True, False, "1", "1%", 5.5, "5.5%", -1, -1.0000004, -1.0000005, 10, 0.3]
FIGURES += ["10.0000004", "1001%", "(5)", "3.5万", "abc", "1,234.5", "12,34", 0.00004, 0.00005, None, "-", "无", 1e16]
FIGURES += ["9999999999999999.99", "9999999999999999.995", "99999999999999.99994", "99999999999999.99995", "1e50"]
FIGURES += [date(2024, 11, 1), datetime(2024, 11, 1), time(1), timedelta(1), ErrorCell("#N/A"), float("nan")]
FIGURES += [NumberCell(1, "0%"), NumberCell(1.0, "0%"), NumberCell(5, "00")]
FIGURES += [
    "-1,234.565",
    "1,234,567",
    "0,123",
    "007.50",
    "-0",
    "-0.004",
    "1." + "0" * 58,
    "1." + "0" * 59,
    "1.005",
    "5.",
]
FIGURES += [-0.5, 0.5, 100.0, -0.4999996, 0.055, 0.0555555, 1.00005, 0.00004999, 9999999999999.99, 10000000000000.01]
FIGURES += [100, 10**13, 10**16, -(10**300), 10**300, float("inf"), "0.5", "-0.5", "0.4999996", "100.00004", "99.99996"]
FIGURES += [ErrorCell(MERGED + "A1:A2", "5"), "\x00", "\ud800", "9" * 400, "¥1", "1元", "x" * 200]
CODES: list[Cell] = [
    "P1",
    "p-1",
    "Ｐ１",
    1,
    1.0,
    True,
    "x" * 51,
    "x" * 21,
    "*",
    None,
    "",
    10**15,
    -1,
    1.5,
    ErrorCell("#REF!"),
]
ANY = st.sampled_from([*PERIODS, *FIGURES, *CODES]) | st.text(max_size=8) | st.floats() | st.integers(-(10**18), 10**18)
PERCENTS = (st.decimals(-60, 60, places=6) | st.decimals(-1200, 1200, allow_nan=False)).map("{}%".format)
TYPED = (
    st.decimals(-2, 10**9, places=3).map("{:,}".format) | st.decimals(-2, 200, places=5).map(str) | st.integers(-2, 200)
)
ROWS = st.tuples(
    *[st.sampled_from(PERIODS) | ANY] * 3,
    *[st.sampled_from(CODES) | ANY] * 2,
    *[st.sampled_from(FIGURES) | ANY | PERCENTS | TYPED] * 3,
)
READINGS = st.builds(
    Reading,
    percent=st.sampled_from([frozenset(), frozenset({"return_rate"})]),
    factors=st.sampled_from([{}, {"fund_scale": Decimal(10**4)}]),
    has_period=st.booleans(),
    file_period=st.sampled_from([None, NOVEMBER, date(2023, 1, 1)]),
    latest=st.sampled_from([NOVEMBER, date(2024, 12, 5), date.max]),
    only_period=st.booleans(),
)


@given(st.lists(ROWS, min_size=1, max_size=8), READINGS)
@example([(None, None, 202411, "P1", "6", one, one, one) for one in FIGURES], Reading())
@example([(None, None, 202411, one, one, None, None, None) for one in CODES], Reading())
@example([(one, two, None, "P1", "6", None, None, None) for one in PERIODS for two in PERIODS], Reading())
def test_the_fast_way_says_what_the_model_says(rows: list[tuple[Cell, ...]], reading: Reading) -> None:
    """The model is the contract: the same values, and the same fields that fail, whatever was seen before."""
    fast = validate.Clean(DOMAIN, FULL, reading)
    for row in rows:
        named = dict(zip(DOMAIN.sheet_columns, row, strict=True))
        period = PeriodCells(*(named.pop(part) for part in ("year", "month", "report_period")))
        try:
            plain = DOMAIN.model.model_validate({"report_date": period, **named}, context=reading)
        except ValidationError as error:
            failed = {problem["loc"][0] for problem in error.errors()}
            record, problems = fast.row(list(row))
            assert record is None
            assert failed == {name for name, _, _ in problems}
        else:
            record, problems = fast.row(list(row))
            assert problems == []
            assert record == plain
            assert repr(record) == repr(plain)


FLOATS = st.floats(-11, 200, allow_nan=False) | st.decimals(-2, 200, places=4).map(float)
EDGES = st.sampled_from([cell for cell in FIGURES if type(cell) is float])
COLUMNS = st.one_of(
    *(st.lists(kind, min_size=1, max_size=30) for kind in (FLOATS, FLOATS | EDGES, FLOATS | TYPED | PERCENTS, ANY))
)


@given(COLUMNS, COLUMNS, COLUMNS, st.sampled_from(["", "0.00%", '0.00"万元"', "0000"]), READINGS)
@example([0.00005, -0.00005, -0.0], [1.00005], [0.005], "", Reading())
@example([0.055, float("nan"), 0.1], [1.5, 0.0, -0.0, "1,234.56", 2.5, 3, None], [1.25, 1.005, 2.5], "", Reading())
@example(["0.055", "5.5%", 0.2], [1.5], ["1,234"], "0.00%", Reading(percent=frozenset({"return_rate"})))
@example([0.055], [1.5], ["1,234", 1], "", Reading(factors={"fund_scale": Decimal(10**4)}))
@example([0.055, "5.5%", -0.2, 0.7], [1.0], [1e15], "0.00%", Reading(percent=frozenset({"return_rate"})))
def test_rows_side_by_side_say_what_each_says_alone(
    rates: list[Cell], values: list[Cell], amounts: list[Cell], number_format: str, reading: Reading
) -> None:
    """However many are cleaned at a time, and whether a format is told of a column or of each of its numbers."""
    figures = [Column(cells, number_format) for cells in (rates, values, amounts)]
    size = max(map(len, (rates, values, amounts)))
    figures = [column._replace(cells=[*column.cells, *[None] * (size - len(column.cells))]) for column in figures]
    codes = [Column([f"P{at}" for at in range(size)]), Column(["6"])]
    batch = Batch(range(2, size + 2), [Column([2024]), Column([11]), Column([None]), *codes, *figures])
    together = validate.Clean(DOMAIN, FULL, reading)
    for _ in range(2):  # once more, when all is known
        said = together.columns(batch)
        for at, (_, cells) in enumerate(batch.by_rows()):
            record, problems = validate.Clean(DOMAIN, FULL, reading).row(cells)
            assert [one for column in said.values() for one in column.problems.get(at, ())] == problems
            if record is not None:
                assert repr([column.value(at) for column in said.values()]) == repr([value for _, value in record])


def test_a_domain_with_rules_beside_its_fields_is_refused() -> None:
    """Cell by cell they would not run: a domain's developer must not find out in production."""

    class Model(Record):
        day: Annotated[date, Month("期", ("期",))]
        code: Annotated[str, Code("码", ("码",), longest=5)]
        price: Annotated[Decimal | None, PerUnit("价", ("价",), Ge(0), digits=8, places=2)]

        @field_validator("price")
        @classmethod
        def even(cls, price: Decimal) -> Decimal:
            return price

    with pytest.raises(TypeError, match="Model: put its rules into the annotations of its fields"):
        Domain("other", Model, (), (), ())


# Bounds


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        ("return_rate", -1, "-1.000000"),
        ("return_rate", "-1.0000004", "-1.000000"),
        ("return_rate", "-100.00004%", "-1.000000"),
        ("return_rate", "-1.0000005", "must be at least -1 (is -1.000001)"),
        ("return_rate", "1000%", "10.000000"),
        ("return_rate", "10.0000004", "10.000000"),
        ("return_rate", "10.0000005", "must be at most 10 (is 10.000001)"),
        ("net_asset_value", 0.00005, "0.0001"),
        ("net_asset_value", 0.00004, "must be greater than 0 (is 0.0000)"),
        ("net_asset_value", 0, "must be greater than 0 (is 0.0000)"),
        ("net_asset_value", "99999999999999.99994", "99999999999999.9999"),
        ("net_asset_value", "99999999999999.99995", "too large (is 100000000000000.0000)"),
        ("fund_scale", 0, "0.00"),
        ("fund_scale", "-0.004", "0.00"),
        ("fund_scale", "-0.005", "must be at least 0 (is -0.01)"),
        ("fund_scale", "9999999999999999.99", "9999999999999999.99"),
        ("fund_scale", "9999999999999999.995", "too large (is 10000000000000000.00)"),
        ("fund_scale", "1e50", "too large (is 1" + "0" * 50 + ".00)"),
    ],
)
def test_bounds_hold_after_rounding(field: str, cell: Cell, value: str) -> None:
    """The table holds the rounded number, and it is that which must fit."""
    row: list[Cell] = [2024, 11, None, "P1", "6", None, None, None]
    row[FULL[field]] = cell
    record, problems = validate.Clean(DOMAIN, FULL, Reading()).row(row)
    assert value == (problems[0][2] if record is None else str(getattr(record, field)))


# What a rate means


def rate_of(rates: Sequence[Cell], heading: str = "收益率", **settings: Any) -> list[Decimal]:
    """Return the ratios that a column of rates is read as."""
    heads = [*HEADINGS[:4], heading]
    rows = [[2024, 11, f"P{at}", "6", rate] for at, rate in enumerate(rates)]
    return [record["return_rate"] for record in Sorted(rows, heads, **settings).records]


@pytest.mark.parametrize(
    ("rates", "heading", "setting", "ratios"),
    [
        # a % in the text goes before all
        (["5%"], "收益率", "ratio", ["0.05"]),
        (["5%", 5], "收益率(%)", "ratio", ["0.05", "5"]),
        (["0.5%", 5], "收益率(%)", "auto", ["0.005", "0.05"]),
        # then the number format
        ([NumberCell(0.055, "0.00%"), 5], "收益率(%)", "auto", ["0.055", "0.05"]),
        ([NumberCell(0.055, "0.00%"), 5], "收益率", "percent", ["0.055", "0.05"]),
        # then rate_unit
        ([5], "收益率(%)", "ratio", ["5"]),
        ([0.05], "收益率", "percent", ["0.0005"]),
        # then the heading
        ([0.05, 5], "收益率(%)", "auto", ["0.0005", "0.05"]),
        # then the size: 0.3 is a ratio, more than 1 are percent points
        ([0.3, -0.3, 0.001, 0], "收益率", "auto", ["0.3", "-0.3", "0.001", "0"]),
        ([1.01, -1.0001, 0], "收益率", "auto", ["0.0101", "-0.010001", "0"]),
        (["(5.5)", "1,000"], "收益率", "auto", ["-0.055", "10"]),
        ([0, "0", "5%", NumberCell(0.9, "0%"), None], "收益率", "auto", ["0", "0", "0.05", "0.9", None]),
    ],
)
def test_what_a_rate_means_is_decided_in_order(
    rates: list[Cell], heading: str, setting: str, ratios: list[str | None]
) -> None:
    """What is nearest to the number counts; size is the last resort."""
    expected = [None if ratio is None else Decimal(ratio) for ratio in ratios]
    assert expected == rate_of(rates, heading, rate_unit=setting)


@pytest.mark.parametrize(
    ("rates", "cell", "extremes"),
    [
        ([0.01, 5], "E2", "smallest 0.01 in E2, largest 5 in E3"),
        ([5, 0.3, -0.2], "E4", "smallest -0.2 in E4, largest 5 in E2"),
        ([0.3000001], "E2", "smallest 0.3000001 in E2, largest 0.3000001 in E2"),
        ([5, 1], "E3", "smallest 1 in E3, largest 5 in E2"),
        (["0.5", "5%"], "E2", "smallest 0.5 in E2, largest 0.5 in E2"),
    ],
)
def test_rates_that_may_be_either_are_refused(rates: list[Cell], cell: str, extremes: str) -> None:
    """A guess would be wrong by a factor of 100; a cell of each kind shows why, and what decides."""
    with pytest.raises(WorkbookError) as caught:
        rate_of(rates)
    assert str(caught.value) == (
        f"book.xlsx, sheet S, cell {cell}: 收益率 may count ratios or percent points: {extremes}; "
        "set rate_unit: ratio or percent in data_sources.yml, or write % into the heading"
    )


def test_a_rejected_rows_rate_counts_for_the_column() -> None:
    """The column is looked at as a whole: a row with a bad code was filled in by the same person."""
    with pytest.raises(WorkbookError, match=r"smallest 0\.055 in E2, largest 5 in E3"):
        Sorted([GOOD, [2024, 13, "*", "6", 5, 1, 1]])


def test_what_was_guessed_is_told() -> None:
    """A reader of the summary must be able to see a wrong guess."""
    guessed = Sorted([GOOD, [2024, 11, "P2", "6", -0.2, 1, 1]]).rates.guessed.values()
    assert list(guessed) == [
        "收益率: bare numbers are ratios, guessed by size (smallest 0.055 in E2, largest -0.2 in E3)"
    ]
    assert Sorted([GOOD], rate_unit="percent").rates.guessed == {}
    assert Sorted([[*GOOD[:4], "5%"]]).rates.guessed == {}


def test_a_reader_without_formats_may_not_guess() -> None:
    """0.055 may be shown as 5.50 %, and 5.5 as 5.5: such a reader does not see it."""
    for rates in ([0.05], [5]):
        _, profile = read([[2024, 11, "P1", "6", *rates, 1, 1]], gives_formats=False)
        with pytest.raises(WorkbookError, match=r"cell E2: 收益率 may count .*does not tell .* set rate_unit"):
            validate.rates(profile, config(), DOMAIN, "book.xlsx")
        assert validate.rates(profile, config(rate_unit="percent"), DOMAIN, "book.xlsx").percent == {"return_rate"}
    for rates in (["5%"], [0]):
        _, profile = read([[2024, 11, "P1", "6", *rates, 1, 1]], gives_formats=False)
        assert validate.rates(profile, config(), DOMAIN, "book.xlsx").percent == frozenset()


# Units of money


@pytest.mark.parametrize(
    ("above", "heading", "cell", "value"),
    [
        ([], "规模", 5, "5.00"),
        ([["单位：万元"]], "规模", 5, "50000.00"),
        ([["单位：万元"]], "规模（亿元）", 5, "500000000.00"),
        ([["单位：万元"]], "规模（亿元）", "5元", "5.00"),
        ([["单位：万元"]], "规模（亿元）", "¥5", "500000000.00"),
        ([], "规模（万元）", "3.5亿", "350000000.00"),
    ],
)
def test_the_nearest_unit_of_money_counts(above: list[list[Cell]], heading: str, cell: Cell, value: str) -> None:
    """The cell's own, else the heading's, else the line's above; a value per unit is never scaled."""
    done = Sorted([[*GOOD[:5], 1.05, cell]], [*HEADINGS[:6], heading], above=above)
    assert str(done.records[0]["fund_scale"]) == value
    assert str(done.records[0]["net_asset_value"]) == "1.0500"


# Reasons


def test_every_bad_cell_of_a_row_is_told() -> None:
    """Mended one by one, a row would come back four times."""
    done = Sorted([["二四", "13", "*", None, "abc", 0, "12,34"]], max_reject_ratio=1)
    assert done.reasons == [
        ("A2", "年", "二四", "not a year (expected one like 2024)"),
        ("B2", "月", "13", "no month 13"),
        ("C2", "计划代码", "*", "not a code: '*' is no letter, digit or dot"),
        ("D2", "公司代码", "", "blank"),
        ("E2", "收益率", "abc", "not a number or percentage"),
        ("F2", "净值", "0", "must be greater than 0 (is 0.0000)"),
        ("G2", "规模", "12,34", "not a number or amount"),
    ]
    assert done.outcome.rejected == 1
    assert [reject["field"] for reject in done.rejects][:3] == ["report_date", "report_date", "plan_code"]
    assert {reject["row"] for reject in done.rejects} == {2}


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (" ａｂｃ ", " ａｂｃ "),
        (True, "TRUE"),
        (date(2024, 11, 5), "2024-11-05"),
        (ErrorCell("#DIV/0!"), "#DIV/0!"),
        (ErrorCell(MERGED + "G2:G3", "5000"), "5000"),
        (NumberCell(-5, "0%"), "-5"),
        ("x" * 32_767, "x" * 32_767),
        ("\x00\ud800😀\u200f", "\x00\ud800😀\u200f"),
    ],
)
def test_a_reject_shows_the_cell_as_it_was_typed(cell: Cell, value: str) -> None:
    """The sender looks for what is in the sheet."""
    done = Sorted([[*GOOD[:6], cell]], max_reject_ratio=1)
    assert done.rejects[0]["value"] == value
    assert len(validate.examples(done.outcome)[0]) < 250
    assert json.loads(targets.dumps(done.rejects[0]))["value"] == value


PERIOD_HEADINGS = [*HEADINGS, "报告期"]


@pytest.mark.parametrize(
    ("year", "month", "single", "reasons"),
    [
        (2024, 12, None, [("B2", "12", "2024-12 is later than the file's period, 2024-11")]),
        (2025, 11, None, [("A2", "2025", "2025-11 is later than the file's period, 2024-11")]),
        (None, None, "2024年12月", [("H2", "2024年12月", "2024-12 is later than the file's period, 2024-11")]),
        (9999, 12, None, [("A2", "9999", "9999-12 is later than the file's period, 2024-11")]),
        (None, None, None, [("A2", "", "blank")]),
        (2024, None, None, [("B2", "", "blank, and 年 says 2024")]),
        (None, 11, None, [("A2", "", "blank, and 月 says 11")]),
        (2024, None, 202411, [("B2", "", "blank, and 年 says 2024")]),
        (2024, 11, 202410, [("H2", "202410", "2024-10, and 年 and 月 say 2024-11")]),
        (1999, 11, None, [("A2", "1999", "before the year 2000")]),
        (2024, 11, "2024-02-31", [("H2", "2024-02-31", "no day 31 in 2024-02")]),
        (
            "x",
            "y",
            45597,
            [
                ("A2", "x", "not a year (expected one like 2024)"),
                ("B2", "y", "not a month (expected one of 1 to 12)"),
                ("H2", "45597", "not a period (expected one like 2024年11月, 202411 or 2024-11)"),
            ],
        ),
    ],
)
def test_the_period_cell_that_is_to_blame_is_named(
    year: Cell, month: Cell, single: Cell, reasons: list[tuple[str, str, str]]
) -> None:
    """Three columns may say the period; the reject points to the one to correct."""
    done = Sorted([[year, month, *GOOD[2:], single]], PERIOD_HEADINGS, max_reject_ratio=1)
    assert reasons == [(cell, value, reason) for cell, _, value, reason in done.reasons]


def test_a_year_without_a_column_of_months_is_told() -> None:
    """No cell can be named that is not there."""
    done = Sorted([[2024, "P1", "6", 0.1]], ["年", "计划代码", "公司代码", "收益率"], max_reject_ratio=1)
    assert done.reasons == [("", "", "", "blank, and 年 says 2024")]


# Which period


def test_a_sheet_without_a_period_takes_the_files() -> None:
    """Only when it has no such column at all."""
    heads, row = HEADINGS[2:], GOOD[2:]
    assert [record["report_date"] for record in Sorted([row], heads).records] == [NOVEMBER]
    done = Sorted([row], heads, month=None, max_reject_ratio=1)
    assert done.reasons == [("", "", "", "neither the sheet nor the file's name gives a period")]


@pytest.mark.parametrize(("month", "accepted"), [(11, True), (12, True)])
def test_a_file_without_a_period_may_be_of_this_month(month: int, accepted: bool) -> None:
    """Today is the 5th of December 2024."""
    assert len(Sorted([[2024, month, *GOOD[2:]]], month=None).records) == accepted


def test_a_file_without_a_period_is_of_no_month_to_come() -> None:
    """A typing error in the year is the usual cause."""
    done = Sorted([[2025, 1, *GOOD[2:]]], month=None, max_reject_ratio=1)
    assert done.reasons == [("A2", "年", "2025", "2025-01 is later than this month, 2024-12")]
    assert Sorted([[2014, 1, *GOOD[2:]]], month=None).records[0]["validation_warnings"] == []


def test_replace_place_takes_rows_of_the_files_period_alone() -> None:
    """What a place holds is deleted by its period: a row of another would stand there for ever."""
    rows = [GOOD, [2024, 10, *GOOD[2:]]]
    done = Sorted(rows, replace="place")
    assert done.reasons == [("B3", "月", "10", "2024-10 is not 2024-11, the file's period (replace: place)")]
    assert len(Sorted(rows).records) == 2


def test_a_file_none_of_whose_rows_is_of_its_period_is_refused() -> None:
    """The name or the rows are wrong, and both would be loaded as right."""
    done = Sorted([[2024, 10, *GOOD[2:]], [2024, 8, *GOOD[2:]]])
    with pytest.raises(WorkbookError) as caught:
        validate.check_period(done.outcome, done.reading, "book.xlsx", "S")
    assert str(caught.value) == (
        "book.xlsx, sheet S: the name says 2024-11, and no row is of it: they are of 2024-08 to 2024-10; "
        "correct the file's name, or the rows"
    )
    for fine in (Sorted([GOOD, [2024, 10, *GOOD[2:]]]), Sorted([[2024, 10, *GOOD[2:]]], month=None)):
        validate.check_period(fine.outcome, fine.reading, "book.xlsx", "S")


# Warnings


@pytest.mark.parametrize(
    ("row", "warnings"),
    [
        ([2024, 11, "P1", "6", "50%", 100, 0], []),
        ([2024, 11, "P1", "6", "-50%", None, None], []),
        ([2024, 11, "P1", "6", "50.0001%", 1, 0], ["收益率 0.500001 is beyond ±50 %"]),
        ([2024, 11, "P1", "6", "-50.0001%", 1, 0], ["收益率 -0.500001 is beyond ±50 %"]),
        (
            [2024, 11, "P1", "6", "1%", 100.0001, 0],
            ["净值 100.0001 is above 100: 资产净值 instead of 单位净值?"],
        ),
        ([2024, 10, "P1", "6", "1%", 1, 0], ["报告期 2024-10 is earlier than the file's 2024-11"]),
        ([2014, 11, "P1", "6", "1%", 1, 0], ["报告期 2014-11 is earlier than the file's 2024-11"]),
        (
            [2014, 10, "P1", "6", "1%", 1, 0],
            [
                "报告期 2014-10 is earlier than the file's 2024-11",
                "报告期 2014-10 is more than ten years before the file's period",
            ],
        ),
    ],
)
def test_what_is_doubtful_is_accepted_with_a_warning(row: list[Cell], warnings: list[str]) -> None:
    """Exactly at a limit is not beyond it."""
    done = Sorted([row])
    assert done.records[0]["validation_warnings"] == warnings
    assert done.outcome.warnings == bool(warnings)


def test_a_record_says_whether_it_holds_any_figure() -> None:
    """Zero is one."""
    rows = [[2024, 11, f"P{at}", "6", *figures] for at, figures in enumerate([(None, "-"), (None, None, 0), ("0%",)])]
    assert [record["has_performance_data"] for record in Sorted(rows).records] == [False, True, True]


# One key twice


def test_equal_rows_count_once() -> None:
    """Equal after normalising: spelt otherwise, they say the same."""
    done = Sorted(
        [
            [2024, 11, "P-1", 6, "5.5%", 1.05, "1万"],
            ["24年", "11月", "ｐ１", "6", NumberCell(0.055, "0%"), "1.0500", 10000],
            [2024, 11, "P2", "6", "5.5%", 1.05, 1],
            ["2024", "11", "p_1", "６", "5.50%", "¥1.05", "10,000.00"],
        ]
    )
    assert [record["row"] for record in done.records] == [2, 4]
    assert done.outcome.duplicates == [{"row": 3, "of": 2}, {"row": 5, "of": 2}]
    assert (done.outcome.duplicate, done.outcome.rejected) == (2, 0)


def test_differing_rows_of_one_key_are_all_rejected_though_two_agree() -> None:
    """Nobody knows which is right; each names the others."""
    done = Sorted([GOOD, [2024, 11, "p-1", 6, 0.055, 1.05, 101], [2024, 11, "P2", "6"], GOOD], max_reject_ratio=1)
    key = "the key (2024-11-01, P1, 6) stands also in row"
    assert [(r["row"], r["reason"]) for r in done.rejects] == [
        (2, f"{key} 3, 5, with other values"),
        (3, f"{key} 2, 5, with other values"),
        (5, f"{key} 2, 3, with other values"),
    ]
    assert [record["row"] for record in done.records] == [4]
    assert (done.outcome.read, done.outcome.rejected, done.outcome.duplicate) == (4, 3, 0)


def test_a_blank_and_a_zero_differ() -> None:
    """Zero is a value."""
    assert Sorted([[*GOOD[:6], 0], [*GOOD[:6], None]], max_reject_ratio=1).outcome.rejected == 2


def test_a_rejected_row_contradicts_nobody() -> None:
    """Its values are not known."""
    done = Sorted([GOOD, [*GOOD[:6], "abc"]])
    assert (done.outcome.accepted, done.outcome.rejected) == (1, 1)


def test_a_key_in_very_many_rows_is_told_in_bounded_words() -> None:
    """A column of codes filled with one code: every row is rejected, in time that grows with the rows."""
    done = Sorted([[*GOOD[:6], at] for at in range(20_000)], max_reject_ratio=1)
    assert done.outcome.rejected == 20_000
    assert done.rejects[0]["reason"].endswith("stands also in row 3, 4, 5, 6, 7 and 19994 more, with other values")
    assert done.rejects[3]["reason"].endswith("stands also in row 2, 3, 4, 6, 7 and 19994 more, with other values")
    assert done.rejects[-1]["reason"].endswith("stands also in row 2, 3, 4, 5, 6 and 19994 more, with other values")


SPELT_ROWS = st.tuples(
    st.sampled_from([2024, "2024年"]),
    st.sampled_from([10, "11月", 13]),
    st.sampled_from(["P1", "p-1", "P2", "*"]),
    st.sampled_from([6, "6", "７", None]),
    st.sampled_from(["5.5%", "0.055", "6%", "abc"]),
    st.sampled_from([1.05, "1.0500", -1]),
    st.sampled_from([None, "-", 0, "0.00"]),
)


@given(st.lists(SPELT_ROWS, min_size=1, max_size=12), st.randoms())
def test_every_row_is_accounted_for_in_whatever_order(rows: list[tuple[Cell, ...]], random: Any) -> None:
    """rows read = accepted + rejected + duplicate (asserted in Sorted); which are kept does not hang on their order."""
    done = Sorted(rows, rate_unit="ratio", max_reject_ratio=1)
    shuffled = random.sample(rows, len(rows))
    again = Sorted(shuffled, rate_unit="ratio", max_reject_ratio=1)
    assert _kept(done) == _kept(again)
    assert (done.outcome.rejected, done.outcome.duplicate) == (again.outcome.rejected, again.outcome.duplicate)


def _kept(done: Sorted) -> list[str]:
    return sorted(repr({name: value for name, value in record.items() if name != "row"}) for record in done.records)


# The records as lines


@given(st.lists(SPELT_ROWS, max_size=12), st.booleans())
@example([(2024, 10, "P1", 6, "60%", 1.05, None)] * 2 + [(2024, 10, "P2", 6, "5.5%", 1.05, 0)], True)
@example([(2024, 13, "P1", 6, "5.5%", 1.05, None)], True)
def test_lines_say_what_the_documents_say(rows: list[tuple[Cell, ...]], alike: bool) -> None:
    """Whether a column's cells are alike or not, and where a batch has no record at all."""
    batch = Batch.of([(at + 2, list(row)) for at, row in enumerate(rows if not alike else rows[:1] * 3 + rows)])
    _, profile = read(rows)
    reading = validate.reading(profile, config(), DOMAIN, NOVEMBER, TODAY)
    (records,) = validate.Validation(DOMAIN, profile, config(), reading, lambda reject: None).records([batch])
    documents = list(records.documents())
    assert records.lines() == b"".join(targets.dumps(document) + b"\n" for document in documents)
    copied = [line.split("\t") for line in records.copied().decode().splitlines()]
    assert copied == [
        [plan.copy_value(document[name]) for name in (*DOMAIN.columns, "has_performance_data")]
        + [plan.copy_warnings(document["validation_warnings"]), str(document["row"])]
        for document in documents
    ]


# Too many rejects


@pytest.mark.parametrize(
    ("bad", "rows", "ratio", "refused"),
    [
        (1, 2, 0.5, False),
        (2, 3, 0.5, True),
        (0, 3, 0, False),
        (1, 3, 0, True),
        (3, 3, 1, False),
        (29, 100, 0.29, False),
        (30, 100, 0.29, True),
        (7, 10, 0.7, False),
        (3, 30, 0.1, False),
    ],
)
def test_more_rejects_than_max_reject_ratio_fail_the_file(bad: int, rows: int, ratio: float, refused: bool) -> None:
    """Exactly as many are not more, whatever binary fractions say."""
    done = Sorted([[2024, 11, f"P{at}", "6", "abc" if at < bad else "1%"] for at in range(rows)])
    settings = config(max_reject_ratio=ratio)
    if not refused:
        validate.check_ratio(done.outcome, settings, "book.xlsx", "S", "/work/rejects.json")
        return
    with pytest.raises(WorkbookError) as caught:
        validate.check_ratio(done.outcome, settings, "book.xlsx", "S", "/work/rejects.json")
    more = f" (and {bad - 1} more like it)" if bad > 1 else ""
    assert str(caught.value) == (
        f"book.xlsx, sheet S: {bad} of {rows} rows rejected, more than max_reject_ratio {settings.max_reject_ratio}: "
        f"cell E2 收益率 'abc': not a number or percentage{more}; all of them are in /work/rejects.json"
    )


def test_a_sheet_without_rows_is_refused() -> None:
    """An empty month must not pass for a month without plans."""
    done = Sorted([])
    with pytest.raises(WorkbookError, match="no data row below the headings"):
        validate.check_ratio(done.outcome, config(), "book.xlsx", "S", "")


def test_examples_are_the_five_first_reasons_one_a_kind() -> None:
    """Ten thousand rates out of bounds, each by another number, are one kind."""
    rows: list[list[Cell]] = [[2024, 11, f"P{at}", "6", f"{at}%", 1, 1] for at in range(1001, 1101)]
    rows += [[2024, 13, "P1"], [2024, 14, "P1", "6"], [2024, 11, "*", "6"], [2024, 11, "#", "6"]]
    rows += [[2024, 11, "P1", "6", "x", "y", "z"]]
    done = Sorted(rows, max_reject_ratio=1)
    assert validate.examples(done.outcome) == [
        "cell E2 收益率 '1001%': must be at most 10 (is 10.010000) (and 99 more like it)",
        "cell B102 月 '13': no month 13 (and 1 more like it)",
        "cell D102 公司代码 '': blank",
        "cell C104 计划代码 '*': not a code: '*' is no letter, digit or dot (and 1 more like it)",
        "cell E106 收益率 'x': not a number or percentage",
    ]


def sort_half_bad(folder: Path) -> tuple[validate.Outcome, float]:
    """Sort 100,000 rows into two files of a folder; return the outcome, and by how many MiB the process grew."""
    _, profile = read([GOOD])

    def rows() -> Iterator[Row]:
        for at in range(100_000):
            figure = f"abc{at} " * 20 if at % 2 else at  # a text of its own in every bad row
            yield at + 2, [2024, 11, f"P{at}", at % 97, 0.001, f"-{at}" if at % 2 else 1, figure]

    reading = validate.reading(profile, config(), DOMAIN, NOVEMBER, TODAY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (folder / "rejects.json").open("wb") as rejected, (folder / "accepted.json").open("wb") as accepted:
        rejects = targets.RowWriter(rejected)
        sorting = validate.Validation(DOMAIN, profile, config(), reading, rejects.write)
        write_list(accepted, sorting.accepted(rows()))
        rejects.close()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return sorting.outcome, growth / (2**20 if sys.platform == "darwin" else 2**10)


def test_a_hundred_thousand_rows_of_which_half_are_bad(tmp_path: Path) -> None:
    """Rejects are complete, and what is kept in memory (the keys) is a small share of what is read."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        outcome, growth = fresh.submit(sort_half_bad, tmp_path).result()
    assert (outcome.read, outcome.accepted, outcome.rejected, outcome.duplicate) == (100_000, 50_000, 50_000, 0)
    told = [(reject["row"], reject["cell"]) for reject in targets.read_rows(tmp_path / "rejects.json")]
    assert told == [(at + 2, f"{letter}{at + 2}") for at in range(1, 100_000, 2) for letter in "FG"]
    assert sum(1 for _ in targets.read_rows(tmp_path / "accepted.json")) == 50_000
    assert len(outcome.reasons) == len(outcome.examples) == 2
    assert growth < 80, f"{growth:.0f} MiB"


def test_what_is_remembered_of_a_column_is_bounded() -> None:
    """Neither very many distinct cells nor very long ones stay in memory."""
    clean = validate.Clean(DOMAIN, FULL, Reading())
    tracemalloc.start()
    try:
        for at in range(3_000):
            clean.row([2024, 11, None, "P1", "6", None, None, f"{at:05}" + "x" * 32_762])
        assert tracemalloc.get_traced_memory()[0] < 2**20
    finally:
        tracemalloc.stop()
    figures = clean._fields["fund_scale"]
    for at in range(30_000):
        figures(at)
    assert len(figures._known) <= 20_000


def test_the_reading_says_what_the_sheet_and_the_name_say() -> None:
    """The model's context, as the plain way needs it too."""
    done = Sorted([GOOD], [*HEADINGS[:6], "规模（万元）"], replace="place", rate_unit="percent")
    assert done.reading == Reading(
        percent=frozenset({"return_rate"}),
        factors={"fund_scale": Decimal(10_000)},
        has_period=True,
        file_period=NOVEMBER,
        latest=NOVEMBER,
        only_period=True,
        why={"fund_scale": "heading 规模（万元）", "return_rate": "rate_unit percent"},
    )
    assert replace(done.reading, percent=frozenset(), why={"fund_scale": "heading 规模（万元）"}) == validate.reading(
        done.profile, done.config, DOMAIN, NOVEMBER, TODAY
    )
