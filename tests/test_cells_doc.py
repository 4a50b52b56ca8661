"""docs/cells.md is run: each row of its tables goes into a workbook, and must become what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from annotated_types import Ge, Gt, Le
from job import REPOSITORY
from openpyxl.worksheet.worksheet import Worksheet

from wdh_luigi import config, discover, domains, schema, spellings, validate, workbook
from wdh_luigi.cells import NumberCell
from wdh_luigi.errors import WorkbookError

DOMAIN = domains.get("trustee_performance")
ENTRY = config.load_data_sources(REPOSITORY / "data_sources.yml").domains["trustee_performance"]
NAME = "2024年11月受托业绩.xlsx"
TODAY = date(2024, 12, 5)
PERIOD = ["年", "月"]
REST = ["计划代码", "公司代码", "收益率", "净值", "规模"]
GOOD = {"年": 2024, "月": 11, "收益率": "5%", "净值": 1.05, "规模": 100}
HEADINGS = {name: column.headings[0] for name, column in DOMAIN.sheet_columns.items()}


def tables() -> list[tuple[str, list[str], list[list[str]]]]:
    """Return each table of the page: what its marker says, its heads, its rows."""
    found: list[tuple[str, list[str], list[list[str]]]] = []
    marker, inside = "", False
    for line in (REPOSITORY / "docs" / "cells.md").read_text("utf-8").splitlines():
        if mark := re.fullmatch(r"<!-- check: (.+) -->", line):
            marker = mark[1]
        elif not line.startswith("|"):
            inside = False
        elif not inside:
            found.append((marker, split(line), []))
            marker, inside = "", True
        elif not line.startswith("| ---"):
            found[-1][2].append(split(line))
    return found


def split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def typed(text: str) -> Any:
    """Return the cell that the page writes as ``"5.5%"``, ``0.055 [0.00%]``, ``TRUE`` or ``2024-11-30``."""
    if text.startswith('"'):
        return text[1:-1]
    if text == "TRUE" or text.startswith("#"):
        return True if text == "TRUE" else text
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return date.fromisoformat(text)
    number, _, number_format = text.partition(" [")
    value = float(number) if "." in number else int(number)
    return NumberCell(value, number_format[:-1]) if number_format else value


def only(text: str) -> Any:
    """Return a table's cell as the workbook's cell; nothing in backticks is an empty one."""
    return typed(quoted(text)[0]) if quoted(text) else None


class Taken:
    """What became of a workbook: its rows counted from 2, below the headings in row 1."""

    def __init__(
        self, folder: Path, rows: Sequence[Sequence[Any]], *, name: str = NAME, merges: Sequence[str] = (), **keys: Any
    ) -> None:
        path = folder / "book.xlsx"
        save(path, rows, merges)
        entry = config.DomainConfig.model_validate({**ENTRY.model_dump(), **keys})
        month = discover.month_of(name, entry.pattern)
        table = workbook.open_table(path, name, None, DOMAIN)
        listed = list(table.rows())
        table.close()
        self.profile = table.profile
        rates = validate.rates(self.profile, entry, DOMAIN, name)
        reading: schema.Reading = validate.reading(self.profile, entry, DOMAIN, month, TODAY)
        self.reading = validate.with_rates(reading, rates)
        rejects: list[dict[str, Any]] = []
        sorting = validate.Validation(DOMAIN, self.profile, entry, self.reading, rejects.append)
        found = list(sorting.accepted(iter(listed)))
        self.outcome = sorting.outcome
        self.records = {one["row"]: one for one in found if one["row"] not in self.outcome.conflicts}
        self.reasons = {row: [one["reason"] for one in rejects if one["row"] == row] for row, _ in listed}
        self.duplicates = {one["row"]: one["of"] for one in self.outcome.duplicates}
        self.skipped = {
            row: one["reason"] for one in self.profile.skipped for row in range(int(one["row"]), int(one["to"]) + 1)
        }
        self._entry = entry

    def check(self) -> None:
        """Refuse the workbook as a whole, as a run does."""
        validate.check_ratio(self.outcome, self._entry, NAME, self.profile.sheet, "rejects.json")
        validate.check_period(self.outcome, self.reading, NAME, self.profile.sheet)

    def said(self, row: int, field: str) -> str:
        """Return what became of a row's cell, in the words of the page."""
        if row in self.records:
            value = self.records[row][field]
            return "blank" if value is None else f"`{value}`"
        return "refused: " + " ".join(f"`{reason}`" for reason in self.reasons[row])


def save(path: Path, rows: Sequence[Sequence[Any]], merges: Sequence[str] = ()) -> None:
    """Write a workbook as Excel would keep the cells."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for number, row in enumerate(rows, 1):
        for at, value in enumerate(row, 1):
            if isinstance(value, NumberCell):
                sheet.cell(number, at, value.value).number_format = value.format
            else:
                sheet.cell(number, at, value)
    for merge in merges:
        sheet.merge_cells(merge)
    book.save(path)


def sheet(changes: Sequence[dict[str, Any]], heads: Sequence[str]) -> list[list[Any]]:
    """Return a sheet of good rows, each with its own plan and with some of its cells changed."""
    rows = [{**GOOD, "计划代码": f"P{at}", "公司代码": f"C{at}", **one} for at, one in enumerate(changes)]
    return [list(heads), *([row.get(head) for head in heads] for row in rows)]


# One check for each kind of table, by its marker.


def check_columns(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    assert list(DOMAIN.sheet_columns) == [quoted(row[0])[0] for row in rows]
    for row in rows:
        name = quoted(row[0])[0]
        column = DOMAIN.sheet_columns[name]
        assert list(column.headings) == quoted(row[1])
        sql = DOMAIN.columns[DOMAIN.period_field].sql if name == "report_period" else column.sql
        assert ([sql] if sql else []) == quoted(row[2])
        field = DOMAIN.model.model_fields.get(name)
        kinds = field.metadata if field else []
        assert [shown for kind in kinds for part in kind.bounds if (shown := bound(part))] == quoted(row[3])


def bound(part: object) -> str:
    match part:
        case Ge(ge):
            return f"≥ {ge}"
        case Gt(gt):
            return f"> {gt}"
        case Le(le):
            return f"≤ {le}"
    return ""


def check_blanks(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    blanks = [typed(text) for text in quoted(rows[0][0])]
    assert {blank.casefold() for blank in blanks} == spellings.BLANKS
    taken = Taken(folder, sheet([{"收益率": one, "净值": one, "规模": one} for one in blanks], PERIOD + REST))
    assert len(taken.records) == len(blanks)
    assert not any(record["has_performance_data"] for record in taken.records.values())


def check_cells(folder: Path, heads: list[str], rows: list[list[str]], field: str) -> None:
    heading = HEADINGS[field]
    for at, head in enumerate(heads[1:], 1):
        said = (quoted(head) or [heading])[0]
        keys = {"rate_unit": said.removeprefix("rate_unit: ")} if said.startswith("rate_unit: ") else {}
        under = heading if keys else said
        columns = [under if one == heading else one for one in PERIOD + REST]
        changes = [{under: only(row[0])} for row in rows]
        taken = Taken(folder, sheet(changes, columns), **keys)
        assert [row[at] for row in rows] == [taken.said(row, field) for row in range(2, len(rows) + 2)]


def check_rates(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        heading, unit = quoted(row[0])[0], quoted(row[1])[0]
        cells = [typed(text) for text in quoted(row[2])]
        columns = [heading if one == "收益率" else one for one in PERIOD + REST]
        lines = sheet([{heading: cell} for cell in cells], columns)
        if row[3].startswith("refuses"):
            with pytest.raises(WorkbookError, match=re.escape(quoted(row[3])[0])):
                Taken(folder, lines, rate_unit=unit)
        else:
            taken = Taken(folder, lines, rate_unit=unit)
            assert quoted(row[3]) == [str(one["return_rate"]) for one in taken.records.values()]


def check_factors(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    said = {unit: quoted(row[1])[0] for row in rows for unit in quoted(row[0])}
    assert said == {unit: str(factor) for unit, factor in spellings.FACTORS.items()}


def check_units(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        heading = quoted(row[1])[0]
        columns = [*PERIOD, "计划代码", "公司代码", heading]
        taken = Taken(folder, [[quoted(row[0])[0]], *sheet([{heading: only(row[2])}], columns)])
        field = DOMAIN.aliases[spellings.heading_parts(heading)[0]]
        assert row[3] == taken.said(3, field)


def check_period(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    columns = [quoted(head)[0] for head in heads[:-1]]
    changes = [dict(zip(columns, map(only, row), strict=False)) for row in rows]
    taken = Taken(folder, sheet(changes, columns + REST), name="受托业绩.xlsx")
    assert [row[-1] for row in rows] == [taken.said(row, "report_date") for row in range(2, len(rows) + 2)]


def check_names(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        month = discover.month_of(quoted(row[0])[0], ENTRY.pattern)
        assert row[1] == (f"`{month:%Y-%m}`" if month else "no workbook of the domain")


def check_bounds(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        columns = [*(["报告期"] if quoted(row[1]) else []), *REST]
        lines = sheet([{"报告期": only(row[1])}], columns)
        taken = Taken(folder, lines, name=quoted(row[0])[0], replace=quoted(row[2])[0])
        warnings = taken.records[2]["validation_warnings"] if 2 in taken.records else []
        told = "".join(f", with the warning `{one}`" for one in warnings)
        assert row[3] == taken.said(2, "report_date") + told


def check_months(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        changes = [{"报告期": typed(text)} for text in quoted(row[1])]
        compare_whole(Taken(folder, sheet(changes, ["报告期", *REST]), name=quoted(row[0])[0]), row[2])


def compare_whole(taken: Taken, then: str) -> None:
    """Compare what a run does with a workbook as a whole."""
    if then == "loaded":
        taken.check()
    else:
        with pytest.raises(WorkbookError, match=re.escape(quoted(then)[0])):
            taken.check()


def check_headings(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        heading = quoted(row[0])[0]
        others = [one for one in (*PERIOD, *REST) if [HEADINGS.get(name) for name in quoted(row[1])] != [one]]
        found = Taken(folder, sheet([{}], [*others, heading])).profile.headings
        name = (quoted(row[1]) or [""])[0]
        assert (found.texts.get(name), found.ignored) == ((heading, []) if name else (None, [heading]))
        assert found.units.get(name, "") == (quoted(row[2]) or [""])[0]


def check_refused_headings(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        lines: list[list[Any]] = [quoted(row[0]) or ["业绩"], quoted(row[1]), ["P1", "600001", 0.05, 1]]
        with pytest.raises(WorkbookError, match=re.escape(quoted(row[2])[0])):
            Taken(folder, lines)


def check_totals(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    totals = [typed(text) for text in quoted(rows[0][0])]
    assert {"".join(one.split()).rstrip("：").casefold() for one in totals} == spellings.TOTALS
    columns = ["报告期", *REST]
    for head in columns[:3]:
        taken = Taken(folder, sheet([{"报告期": "2024-11", head: one} for one in totals], columns))
        assert list(taken.skipped.values()) == ["total"] * len(totals)


def check_sheet(folder: Path, heads: list[str], rows: list[list[str]], *options: str) -> None:
    lines = [[quoted(head)[0] for head in heads[:-1]], *([only(cell) for cell in row[:-1]] for row in rows)]
    taken = Taken(folder, lines, merges=options[1:])
    assert [row[-1] for row in rows] == [fate(taken, row) for row in range(2, len(rows) + 2)]


def fate(taken: Taken, row: int) -> str:
    if row in taken.records:
        return "accepted"
    if row in taken.duplicates:
        return f"duplicate of row `{taken.duplicates[row]}`"
    if row in taken.skipped:
        return f"skipped: `{taken.skipped[row]}`"
    return "rejected: " + " ".join(f"`{reason}`" for reason in taken.reasons[row])


def check_warnings(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    changes = [{"报告期": "2024-11", quoted(row[0])[0]: only(row[1])} for row in rows]
    taken = Taken(folder, sheet(changes, ["报告期", *REST]))
    assert [quoted(row[2]) for row in rows] == [one["validation_warnings"] for one in taken.records.values()]


def check_ratio(folder: Path, heads: list[str], rows: list[list[str]], *_: str) -> None:
    for row in rows:
        read, bad, ratio = (float(quoted(cell)[0]) for cell in row[:3])
        changes = [{"收益率": "abc"} if at < bad else {} for at in range(int(read))]
        taken = Taken(folder, sheet(changes, PERIOD + REST), max_reject_ratio=ratio)
        assert (taken.outcome.read, taken.outcome.rejected) == (read, bad)
        compare_whole(taken, row[3])


CHECKS: dict[str, Callable[..., None]] = {
    name.removeprefix("check_").replace("_", " "): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def check_of(marker: str) -> tuple[Callable[..., None], list[str]]:
    """Return the check that a marker names, and what else it says."""
    if marker in CHECKS:
        return CHECKS[marker], []
    name, *options = marker.split()
    return CHECKS[name], options


@pytest.mark.parametrize(("marker", "heads", "rows"), tables(), ids=[one[0] for one in tables()])
def test_the_page_says_what_happens(marker: str, heads: list[str], rows: list[list[str]], tmp_path: Path) -> None:
    """No table is without its check, and no row of it is passed over."""
    check, options = check_of(marker)
    assert rows
    assert {len(row) for row in rows} == {len(heads)}
    check(tmp_path, heads, rows, *options)


def test_every_check_has_its_table() -> None:
    """A marker that is misspelt, or a table that went, would check nothing."""
    assert set(CHECKS.values()) == {check_of(marker)[0] for marker, _, _ in tables()}
