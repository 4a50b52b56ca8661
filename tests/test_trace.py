"""wdh trace: where a row comes from, told by the cleaning itself, and never a cell of other bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlwt
from books import ods, ods_cell
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st
from job import HEADINGS, NAME, Job, workbook
from openpyxl.worksheet.worksheet import Worksheet
from test_spellings import DECIMALS, spelt
from test_validate import CODES, FULL, PERIODS, READINGS, ROWS

from wdh_luigi import spellings, validate
from wdh_luigi.cells import Cell, NumberCell
from wdh_luigi.cli import main
from wdh_luigi.domains.trustee_performance import DOMAIN
from wdh_luigi.schema import Reading

# The rules: what the cleaning tells is how it came to the value.

WHY = {"return_rate": "heading 收益率(%)", "fund_scale": "heading 规模(万元)"}


def figure(unit: Sequence[str]) -> st.SearchStrategy[Cell]:
    """Spell numbers of a size that is accepted, as people and Excel write them."""
    numbers = DECIMALS.map(lambda number: number.copy_abs().scaleb(-(max(number.adjusted(), 0) + 1)) * 9 + 1)
    texts = st.tuples(numbers, st.sampled_from(unit)).flatmap(lambda one: spelt(*one, currency="%" not in unit))
    formats = st.sampled_from(["0%", "0.00%", '0.00"%"', "00.0", '0.0"万元"', '0"元"'])
    return texts | numbers.map(float) | st.builds(NumberCell, numbers.map(float), formats)


SPELT_ROWS = st.tuples(
    *[st.sampled_from(PERIODS)] * 3,
    *[
        st.sampled_from(CODES)
        | st.text("pP-_ １２Ａ.", max_size=6)
        | st.builds(NumberCell, st.integers(0, 999), st.just("00000"))
    ]
    * 2,
    figure(["", "%"]),
    figure(["", "元"]),
    figure(["", "元", "万", "亿元"]),
)


def explained(row: Sequence[Cell], reading: Reading) -> validate.Explained:
    return validate.explain(DOMAIN, FULL, reading, row)


def means(shown: Any, value: Any) -> bool:
    """Tell whether a step's value, or a cell as typed, is a value of the record."""
    if isinstance(value, Decimal):
        try:
            return Decimal(str(shown)) == value
        except InvalidOperation:
            return False
    return (shown is None) == (value is None) and str(shown) == str(value)


@given(ROWS | SPELT_ROWS, READINGS, st.booleans())
@example(("2024年", "11月", None, "p-1", 6, "（５.５％）", "¥1,234.5", "3.5万"), Reading(), False)
def test_the_last_rule_gives_the_value_that_is_accepted(row: tuple[Cell, ...], reading: Reading, units: bool) -> None:
    """A rule told and not applied, or applied and not told, would explain a wrong figure away."""
    if units:
        reading = Reading(frozenset({"return_rate"}), {"fund_scale": Decimal(10**4)}, why=WHY)
    accepted, problems = validate.Clean(DOMAIN, FULL, reading).row(list(row))
    said = explained(row, reading)
    assert (said.values is None) == bool(problems) == bool(said.reasons)
    if accepted is None:
        return
    assert said.values == dict(accepted)
    for name, value in dict(accepted).items():
        rules = said.rules[name]
        if name == "report_date" and not rules and row[FULL["report_period"]] is not None:
            name, rules = "report_period", said.rules["report_period"]
        typed = row[FULL[name]] if name in FULL else None
        last = rules[-1][1] if rules else typed.value if isinstance(typed, NumberCell) else typed
        assert means(last, value), (name, typed, rules, value)


@given(
    st.dates(date(2000, 1, 1)).map(lambda day: day.replace(day=1)),
    st.from_regex(r"[A-Z0-9.]{0,5}[A-Z0-9]", fullmatch=True).filter(lambda code: not spellings.is_blank(code)),
    st.decimals(-1, 10, places=6),
    st.decimals("0.0001", 10**12, places=4),
    st.decimals(0, 10**14, places=2),
    st.booleans(),
)
def test_what_is_typed_as_it_is_stored_has_no_rule(
    day: date, code: str, rate: Decimal, price: Decimal, scale: Decimal, as_numbers: bool
) -> None:
    """Who reads the rules looks for what was changed."""
    figures: list[Any] = [rate, price, scale]
    cells = [float(one) if as_numbers else str(one) for one in figures]
    said = explained([None, None, day if as_numbers else str(day), code, code, *cells], Reading())
    assert said.values is not None, said.reasons
    assert [*said.values.values()] == [day, code, code, *(Decimal(str(one)) for one in cells)]
    assert not any(said.rules.values()), said.rules


def rules(field: str, cell: Cell, **reading: Any) -> list[tuple[str, str]]:
    """Return the rules of one cell in an otherwise good row."""
    row: list[Cell] = [2024, 11, None, "P1", "6", None, None, None]
    row[FULL[field]] = cell
    if field == "report_period":
        row[:2] = [None, None]
    said = explained(row, Reading(**reading))
    assert said.values is not None, said.reasons
    return [(rule, "blank" if value is None else str(value)) for rule, value in said.rules[field]]


@pytest.mark.parametrize(
    ("field", "cell", "told"),
    [
        ("return_rate", "５．５％", [("NFKC", "5.5%"), ("% in the text: /100", "0.055")]),
        ("return_rate", "(5.5)%", [("brackets mean a minus", "-5.5"), ("% in the text: /100", "-0.055")]),
        ("return_rate", "\u22125%", [("U+2212 is a minus", "-5%"), ("% in the text: /100", "-0.05")]),
        ("return_rate", NumberCell(0.055, "0.00%"), [("number format 0.00%: a ratio", "0.055")]),
        ("return_rate", NumberCell(5.5, '0.0"%"'), [('number format 0.0"%": /100', "0.055")]),
        ("return_rate", 0.0000005, [("rounded half up to 6 decimals", "0.000001")]),
        ("return_rate", "暂无", [("a spelling of blank", "blank")]),
        ("net_asset_value", "¥1,234.5", [("thousands separators dropped, ¥ dropped", "1234.5")]),
        ("net_asset_value", "1.05元", [("元 in the text", "1.05")]),
        ("net_asset_value", " 1.05", [("spaces around it dropped", "1.05")]),
        ("fund_scale", "3.5万", [("万 in the text: ×10000", "35000.0")]),
        ("fund_scale", "1.5e3", [("read as a number", "1.5E+3")]),
        ("fund_scale", NumberCell(3.5, '0.0"万元"'), [('number format 0.0"万元": ×10000', "35000.0")]),
        ("plan_code", "p-0 1", [("-, _ and spaces dropped", "p01"), ("upper case", "P01")]),
        ("plan_code", NumberCell(123, "000000"), [("as its number format 000000 shows it", "000123")]),
        ("year", "24", [("read as a year", "2024")]),
        ("month", "１１月", [("NFKC", "11月"), ("read as a month", "11")]),
        ("report_period", "2024年11月", [("the first of its month", "2024-11-01")]),
        ("report_period", date(2024, 11, 30), [("the first of its month", "2024-11-01")]),
        ("report_period", 202411, [("the first of its month", "2024-11-01")]),
    ],
)
def test_each_rule_is_told_in_its_turn(field: str, cell: Cell, told: list[tuple[str, str]]) -> None:
    """The words are for whoever must explain a figure to its sender."""
    assert told == rules(field, cell)


def test_a_columns_unit_is_told_with_its_reason() -> None:
    """A figure wrong by 100 is wrong by a column's unit, mostly."""
    percent = {"percent": frozenset({"return_rate"}), "why": WHY}
    assert rules("return_rate", 5.5, **percent) == [("heading 收益率(%): /100", "0.055")]
    assert rules("return_rate", "5.5%", **percent) == [("% in the text: /100", "0.055")]
    money = {"factors": {"fund_scale": Decimal(10**4)}, "why": WHY}
    assert rules("fund_scale", 2, **money) == [("heading 规模(万元): ×10000", "20000")]
    assert rules("fund_scale", "2元", **money) == [("元 in the text", "2")]
    guessed = "bare numbers are ratios, guessed by size (smallest 0.01 in E2, largest 0.2 in E3)"
    assert rules("return_rate", 0.2, why={"return_rate": guessed}) == [(guessed, "0.2")]


# The command


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def command(job: Job, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return job.wdh("trace", "trustee_performance", *arguments)


def wdh(job: Job, *arguments: str, domain: str = "trustee_performance") -> Result:
    """Run the command in this process, which is there already."""
    variables = {name: value for name, value in job.environment.items() if name.startswith("WDH_")}
    return CliRunner().invoke(main, ["trace", domain, *arguments], env=variables)


def told(job: Job, *arguments: str) -> dict[str, Any]:
    """Return the JSON document of a trace, which must end well and write nothing."""
    before = files(job)
    done = wdh(job, *arguments, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert files(job) == before
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def files(job: Job) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in job.folder.rglob("*") if path.is_file())


def only(document: dict[str, Any]) -> dict[str, Any]:
    (row,) = document["rows"]
    return dict(row)


def typed(row: dict[str, Any]) -> dict[str, list[str]]:
    """Return what was typed for each column."""
    return {one["column"]: [cell["typed"] for cell in one["cells"]] for one in row["columns"]}


def differing(row: dict[str, Any]) -> list[str]:
    return [one["column"] for one in row["columns"] if one["differs"]]


def refused(job: Job, *arguments: str, **options: str) -> str:
    """Return the one line of a trace that is refused."""
    done = wdh(job, *arguments, **options)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_row_is_told_with_cells_rules_and_load(job: Job) -> None:
    """All that somebody needs who must say why the table holds what it holds."""
    path = workbook(
        job.inbox / NAME,
        [
            ["2024年", "11月", "p-001", 123, "５．５％", "¥1,234.56", "3.5万"],
            [2024, 11, None, "C2", 0.055, 1.05125, 1200.5],
            [24, 11, "P2", "C1", 0.06, "-", None],
            [2024, 11, "P2", "C1", 0.06, None, ""],
        ],
        headings=[*HEADINGS[:6], "规模（万元）"],
    )
    book = openpyxl.load_workbook(path)
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet["D2"].number_format, sheet["E3"].number_format = "000000", "0.00%"
    sheet.merge_cells("C2:C3")
    book.save(path)
    job.load()
    done = command(job, "report_date=2024年11月", "plan_code=P-001")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    asked = "report_date=2024-11-01 (given as 2024年11月), plan_code=P001 (given as P-001)"
    assert lines[0] == f"table trustee_performance: 2 rows with {asked}"
    code = "C2 计划代码 'p-001' (merged over C2:C3) -> p001 (-, _ and spaces dropped) -> P001 (upper case)"
    assert lines[2:8] == [
        "report_date 2024-11-01 A2 年 '2024年' -> 2024 (read as a year), B2 月 '11月' -> 11 (read as a month)"
        " -> 2024-11-01 (the first of 年 and 月)",
        f"plan_code P001 {code}",
        "company_code 000123 D2 公司代码 123 [000000] -> 000123 (as its number format 000000 shows it)",
        "return_rate 0.055000 E2 收益率 '５．５％' -> 5.5% (NFKC) -> 0.055 (% in the text: /100)",
        "net_asset_value 1234.5600 F2 净值 '¥1,234.56' -> 1234.56 (thousands separators dropped, ¥ dropped)",
        "fund_scale 35000.00 G2 规模（万元） '3.5万' -> 35000.0 (万 in the text: ×10000)",
    ]
    assert lines[8] == "warning: 净值 1234.5600 is above 100: 资产净值 instead of 单位净值?"
    assert lines[9].startswith(f"data_source {NAME}, processed_at 20")
    assert lines[12:16] == [
        f"plan_code P001 {code}",
        "company_code C2 D3 公司代码 'C2'",
        "return_rate 0.055000 E3 收益率 0.055 [0.00%] -> 0.055 (number format 0.00%: a ratio)",
        "net_asset_value 1.0513 F3 净值 1.05125 -> 1.0513 (rounded half up to 4 decimals)",
    ]
    (receipt,) = job.query("SELECT plan_digest, loaded_by, client FROM wdh_load")
    assert lines[-6:-3] == ["load 1", f"workbook {NAME}, sheet 业绩, sha256 {job.file()['sha256']}", lines[-4]]
    assert lines[-4].startswith("begun 20")
    assert lines[-3].startswith(f"by {receipt[1]} from {receipt[2]}, mode delete_insert, replace keys, wdh_luigi ")
    assert lines[-2] == f"plan {job.file()['plan']}, digest {receipt[0]}"
    assert lines[-1].startswith(f"cells as read into {job.work}/trustee_performance/read/")
    twice = only(told(job, "plan_code=P2"))
    assert twice["same_as_rows"] == [5]
    guess = twice["columns"][3]["cells"][0]["rules"]
    assert [one["rule"] for one in guess] == [
        "bare numbers are ratios, guessed by size (smallest 0.06 in E4, largest 0.06 in E4)"
    ]
    assert [one["rule"] for one in twice["columns"][4]["cells"][0]["rules"]] == ["a spelling of blank"]


ROW = [2024, 11, "P1", "600001", "5.5%", 1.05, "1万"]
CELLS = {"report_date": ["2024", "11"], "plan_code": ["P1"], "company_code": ["600001"], "return_rate": ["5.5%"]}
CELLS |= {"net_asset_value": ["1.05"], "fund_scale": ["1万"]}


def test_the_workbook_is_known_by_its_bytes_alone(job: Job) -> None:
    """Moved or renamed it is read again; other bytes under its name are another workbook, whose cells are not shown."""
    path = workbook(job.inbox / NAME, [ROW])
    job.load()
    shutil.rmtree(job.work)
    assert typed(only(told(job, "plan_code=P1"))) == CELLS
    moved = job.inbox / "归档" / "it's\n'; DROP TABLE x; --.xlsx"
    moved.parent.mkdir()
    path.rename(moved)
    document = told(job, "plan_code=P1")
    assert typed(only(document)) == CELLS
    (load,) = document["loads"]
    assert load["cells_from"] == f"read again from {moved}, by today's code and configuration"
    assert load["plan"] is None
    assert only(document)["columns"][0]["value"] == "2024-11-01", "the period is that of the name that was loaded"
    assert len(wdh(job, "plan_code=P1").stdout.splitlines()) == 16, "a file name cannot break a line"
    workbook(path, [[*ROW[:4], "7.7%", *ROW[5:]]])
    moved.unlink()
    document = told(job, "plan_code=P1")
    assert typed(only(document)) == {name: [] for name in CELLS}
    (load,) = document["loads"]
    sha256 = load["receipt"]["workbook_sha256"]
    assert load["unknown"] == (
        f"the cells are not known here: neither {job.work} nor {job.inbox} holds that workbook (sha256 {sha256})"
    )
    assert "7.7" not in wdh(job, "plan_code=P1").stdout
    assert only(document)["row"]["return_rate"] == "0.055000", "what the database knows is told all the same"


def test_what_was_read_then_stands_against_what_is_configured_now(job: Job) -> None:
    """The cells meant what the configuration said when they were loaded; read again, they mean what it says now."""
    job.configure(rate_unit="percent")
    workbook(job.inbox / NAME, [[*ROW[:4], 0.6, *ROW[5:]]])
    job.load()
    job.configure(rate_unit="ratio")
    row = only(told(job, "plan_code=P1"))
    assert row["columns"][3]["cells"][0]["rules"] == [{"rule": "rate_unit percent: /100", "value": "0.006"}]
    assert differing(row) == []
    shutil.rmtree(job.work)
    row = only(told(job, "plan_code=P1"))
    assert differing(row) == ["return_rate"]
    assert "the table holds 0.006000, the cell gives 0.600000" in wdh(job, "plan_code=P1").stdout
    job.configure(rate_unit="auto")
    (load,) = told(job, "plan_code=P1")["loads"]
    assert "收益率 may count ratios or percent points" in load["unknown"]


def test_damaged_targets_are_not_believed(job: Job) -> None:
    """What somebody cut or edited is as good as not there: the workbook is read again, or nothing is told of it."""
    path = workbook(job.inbox / NAME, [ROW])
    job.load()
    plan = Path(job.file()["plan"])
    assert [one["plan"] for one in told(job, "plan_code=P1")["loads"]] == [str(plan)]
    plan.write_bytes(plan.read_bytes().replace(b"0.055000", b"0.550000"))
    assert [one["plan"] for one in told(job, "plan_code=P1")["loads"]] == [None]
    (rows,) = job.work.glob("*/read/*.rows.json")
    whole = rows.read_bytes()
    rows.write_bytes(b"[\n5\n]\n")
    assert only(told(job, "plan_code=P1"))["columns"][3]["cells"][0]["typed"] == "5.5%"
    rows.write_bytes(whole.replace(b"5.5%", b"7%"))
    assert differing(only(told(job, "plan_code=P1"))) == ["return_rate"], (
        "an edited cell does not pass for the figure's"
    )
    rows.write_bytes(b"[\n[2,[2024")
    assert only(told(job, "plan_code=P1"))["columns"][3]["cells"][0]["typed"] == "5.5%"
    rows.write_bytes(whole.replace(b"5.5%", b"abc"))
    row = only(told(job, "plan_code=P1"))
    assert (row["rejected_now"], typed(row)["return_rate"]) == (["收益率 not a number or percentage"], ["abc"])
    assert "these cells would be rejected now: 收益率 not a number" in wdh(job, "plan_code=P1").stdout
    rows.unlink()
    path.unlink()
    assert typed(only(told(job, "plan_code=P1"))) == {name: [] for name in CELLS}
    for target in job.work.rglob("*.json"):
        target.write_text('{"digest": 1')
    assert typed(only(told(job, "plan_code=P1"))) == {name: [] for name in CELLS}


def test_each_row_is_told_by_its_own_load(job: Job) -> None:
    """Two workbooks in a table, a correction in V2, a change by hand, and rows that are nobody's."""
    workbook(job.inbox / "甲_2024年11月受托业绩.xlsx", [ROW, [*ROW[:2], "P2", *ROW[3:]]])
    workbook(job.inbox / "乙_2024年11月受托业绩.xlsx", [[*ROW[:2], "P3", *ROW[3:]]])
    job.load()
    workbook(job.inbox / "V2" / "甲_2024年11月受托业绩.xlsx", [[*ROW[:4], "6%", *ROW[5:]]])
    job.load()
    job.execute(
        "UPDATE trustee_performance SET fund_scale = 9 WHERE plan_code = 'P3';"
        "INSERT INTO trustee_performance (report_date, plan_code, company_code) VALUES ('2024-11-01', 'p-hand', 'x');"
        "INSERT INTO trustee_performance (report_date, plan_code, company_code, load_id, data_source, workbook_row)"
        " VALUES ('2024-11-01', 'P7', 'x', 99, 'a', 2), ('2024-11-01', 'P8', 'x', 1, 'other.xlsx', 2),"
        " ('2024-11-01', 'P9', 'x', (SELECT max(load_id) FROM wdh_load), 'V2/甲_2024年11月受托业绩.xlsx', 77)"
    )
    document = told(job, "report_date=2024-11")
    assert document["rows_found"] == 7
    rows = {row["row"]["plan_code"]: row for row in document["rows"]}
    loads = {one["load_id"]: one for one in document["loads"]}
    rates = {code: typed(row)["return_rate"] for code, row in rows.items()}
    assert rates == {"P1": ["6%"], "P2": ["5.5%"], "P3": ["5.5%"], "p-hand": [], "P7": [], "P8": [], "P9": []}
    assert {code: differing(row) for code, row in rows.items() if differing(row)} == {"P3": ["fund_scale"]}
    newest = loads[rows["P1"]["row"]["load_id"]]["receipt"]
    assert [one["load_id"] for one in newest["earlier"]] == [rows["P2"]["row"]["load_id"]]
    assert rows["p-hand"]["unknown"] == "it has no load_id: no load by wdh_luigi put it there"
    assert loads[99]["unknown"] == "there is no receipt of it in wdh_load beside the table"
    assert rows["P8"]["unknown"].startswith("its data_source is not the workbook of load 1, ")
    assert rows["P9"]["unknown"] == "row 77 is no data row of sheet 业绩"
    assert only(told(job, "plan_code=p-hand"))["row"]["plan_code"] == "p-hand", "a code that nobody cleaned is found"


def xls(path: Path) -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("业绩")
    for row, cells in enumerate([HEADINGS, [*ROW[:4], 0.055, *ROW[5:]]]):
        for column, cell in enumerate(cells):
            style = xlwt.easyxf(num_format_str="0.00%") if cell == 0.055 else xlwt.Style.default_style
            sheet.write(row, column, cell, style)
    book.save(str(path))


def ods_book(path: Path) -> None:
    def row(cells: Sequence[str]) -> str:
        return f"<table:table-row>{''.join(cells)}</table:table-row>"

    cells = [ods_cell("float", "2024"), ods_cell("float", "11"), *(ods_cell("string", "", text) for text in ROW[2:4])]
    cells += [ods_cell("percentage", "0.055", "5.50%"), ods_cell("float", "1.05"), ods_cell("string", "", "1万")]
    path.write_bytes(ods(row([ods_cell("string", "", heading) for heading in HEADINGS]) + row(cells)))


@pytest.mark.parametrize(("write", "suffix"), [(xls, ".xls"), (ods_book, ".ods")])
def test_the_cells_of_other_formats_are_told_too(job: Job, write: Any, suffix: str) -> None:
    """A number format says what a rate is, in whatever file."""
    write(job.inbox / Path(NAME).with_suffix(suffix))
    job.load()
    for _ in range(2):  # as read into the work directory, and read again
        row = only(told(job, "plan_code=P1"))
        rate = row["columns"][3]["cells"][0]
        assert (rate["cell"], rate["typed"], rate["format"]) == ("E2", "0.055", "0.00%")
        assert rate["rules"] == [{"rule": "number format 0.00%: a ratio", "value": "0.055"}]
        assert typed(row)["fund_scale"] == ["1万"]
        shutil.rmtree(job.work, ignore_errors=True)


def test_a_corrected_reject_names_the_row_of_its_original(job: Job) -> None:
    """The cell that was sent first is in another workbook."""
    job.configure(max_reject_ratio=1)
    workbook(job.inbox / NAME, [ROW, ["2024", 11, "P2", "6", "abc", 1, 1]])
    job.load()
    corrected = Path(job.file()["rejects_workbook"])
    book = openpyxl.load_workbook(corrected)
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    sheet["E2"] = "(1%)"
    book.save(job.inbox / corrected.name)
    job.load()
    row = only(told(job, "plan_code=P2"))
    assert row["row"]["data_source"] == f"更正_{NAME}"
    assert (row["row"]["workbook_row"], row["original_row"]) == (2, "3")
    assert typed(row)["return_rate"] == ["(1%)"]
    assert "corrects row 3 of its original" in wdh(job, "plan_code=P2").stdout


def test_names_and_values_are_data(job: Job) -> None:
    """A table and a workbook may be called anything, and a value may look like SQL."""
    table = '业绩 "s" {}.受托\'业绩'
    job.configure(table=table, mode="append", pk=[], pattern=r"(?P<year>\d{4})年(?P<month>\d\d)月")
    job.execute('CREATE SCHEMA "业绩 ""s"" {}"')
    name = "'); DROP TABLE x; -- 2024年11月$$.xlsx"
    workbook(job.inbox / name, [ROW])
    job.load()
    row = only(told(job, "计划代码=ｐ－１", "company_code=600001"))
    assert (row["row"]["data_source"], typed(row)) == (name, CELLS)
    hostile = "P1'); DROP TABLE wdh_load; --"
    assert refused(job, f"plan_code={hostile}").endswith("no letter, digit or dot; correct the value")
    assert "no row with plan_code=DROPTABLE" in refused(job, "plan_code=drop table")
    assert refused(job, "plan_code=\n\x1b[31m").isprintable()
    assert len(refused(job, "plan_code=" + "x" * 5000)) < 200


def test_a_percent_sign_in_a_name_is_no_place_for_a_value(job: Job) -> None:
    """The driver looks for such places in the whole statement."""
    job.configure(table="受托%s业绩%", pk=["report_date", "plan_code"])
    job.execute(
        'CREATE TABLE "受托%s业绩%" (report_date date, plan_code text, "100%" float, t int, load_id int);'
        """INSERT INTO "受托%s业绩%" VALUES ('2024-11-01', 'P1', 0.1, 5, NULL), ('2024-11-01', 'P1', 0.2, 6, 7)"""
    )
    rows = told(job, "plan_code=P1")["rows"]
    assert [row["row"]["100%"] for row in rows] == ["0.1", "0.2"]
    assert "with plan_code P1" in refused(job, "plan_code=P2", "report_date=2024-11")


def test_many_rows_are_bounded(job: Job) -> None:
    """A month has hundreds of rows; the count is told all the same, and their load once."""
    workbook(job.inbox / NAME, [[*ROW[:2], f"P{at:02}", *ROW[3:]] for at in range(25)])
    job.load()
    document = told(job, "report_date=2024-11-30")
    assert (document["rows_found"], len(document["rows"]), len(document["loads"])) == (25, 20, 1)
    assert [row["row"]["plan_code"] for row in document["rows"]] == [f"P{at:02}" for at in range(20)]
    first = wdh(job, "report_date=2024-11-30").stdout.splitlines()[0]
    assert first.endswith("25 rows with report_date=2024-11-01 (given as 2024-11-30); the first 20 of them")


def test_what_cannot_be_traced_is_refused_in_one_line(job: Job, database: str) -> None:
    """Each says what there is instead."""
    assert refused(job, "plan_code=P1") == (
        "table trustee_performance: does not exist in this database; load a workbook first, or correct table in"
        " data_sources.yml, or WDH_DATABASE_URI"
    )
    job.configure(select="latest_by_year_month_and_version")
    workbook(job.inbox / NAME, [[*ROW[:2], code, *ROW[3:]] for code in ("P1", "P2", "AA")])
    workbook(job.inbox / "2024年9月受托业绩.xlsx", [[2024, 9, "P1", *ROW[3:]]])
    job.load()
    table = "table trustee_performance: "
    assert refused(job, "report_date=2024-10", "plan_code=p-1") == (
        f"{table}no row with report_date=2024-10-01 (given as 2024-10), plan_code=P1 (given as p-1);"
        " it has 2 rows of plan_code=P1, with report_date 2024-09-01, 2024-11-01"
    )
    assert refused(job, "plan_code=P3").endswith("it has 4 rows, with plan_code AA, P1, P2")
    assert refused(job, "plan_code=X", "company_code=Y", "report_date=2023-01").endswith(
        "it has 4 rows, 0 of plan_code=X, 0 of company_code=Y, 0 of report_date=2023-01-01"
    )
    job.execute("INSERT INTO trustee_performance VALUES ('infinity', 'P1', 'x')")
    assert refused(job, "report_date=2024-10").endswith("with report_date 2024-09-01, 2024-11-01, infinity")
    job.execute("TRUNCATE trustee_performance")
    assert refused(job, "plan_code=P1") == f"{table}no row with plan_code=P1; the table is empty"
    key = "is not in the key of trustee_performance"
    assert refused(job, "plan_cod=P1") == f"column 'plan_cod': {key}; did you mean plan_code?"
    assert refused(job, "return_rate=1").startswith(f"column 'return_rate': {key}; ")
    assert refused(job, "zz=1") == f"column 'zz': {key}; it has report_date, plan_code, company_code"
    assert refused(job, "P1") == "'P1': is no column=value; write it like report_date=…"
    assert refused(job, "plan_code=1", "plan_code=2") == "plan_code: is given twice; leave one of them"
    assert refused(job, "plan_code=") == "plan_code=: blank; correct the value"
    assert refused(job, "report_date=2024-13") == "report_date=2024-13: no month 13; correct the value"
    assert "no domain 'trustee'; it has trustee_performance" in refused(job, "plan_code=1", domain="trustee")
    job.execute("DROP TABLE wdh_load")
    job.execute(
        "INSERT INTO trustee_performance (report_date, plan_code, company_code, load_id) VALUES (now(), 'P1', 'x', 1)"
    )
    (load,) = told(job, "plan_code=P1")["loads"]
    assert load["unknown"] == "there is no receipt of it in wdh_load beside the table"
    del job.environment["WDH_DATABASE_URI"]
    assert refused(job, "plan_code=1").startswith("WDH_DATABASE_URI: not set")
