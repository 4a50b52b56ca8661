"""
Make a sample inbox: three months of workbooks as two invented Chinese pension trustees would send them.

``python scripts/make_sample.py FOLDER`` writes it. ``samples()`` gives each workbook with the truth that it was
written from, so that a test can load the inbox and compare. The same call gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any, Literal

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet
from openpyxl.xml.functions import tostring

CREATED = datetime(2024, 12, 1)
BLANKS = (None, "-", "--", "—", "N/A", "暂无")
MILLION = Decimal(1_000_000)
TEN_THOUSAND = Decimal(10_000)

Value = str | int | float | date | None
Written = tuple[Value, str]  # a cell's value and its number format
Kind = Literal["not a number", "separators", "bounds", "excel error", "period"]


@dataclass(frozen=True, slots=True)
class Record:
    """What one data row means: codes normalised, return_rate a ratio, fund_scale in 元, a blank figure None."""

    report_date: date
    plan_code: str
    company_code: str
    return_rate: Decimal | None
    net_asset_value: Decimal | None
    fund_scale: Decimal | None
    row: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """A bad cell, and thereby a row that must be rejected; ``heading`` is spelled as in the sheet."""

    row: int
    cell: str
    heading: str
    field: str
    value: Value
    kind: Kind


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, its field (or what is ignored), and the spellings its cells are drawn from."""

    heading: str
    field: str
    spellings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad cell to write, in the data row counted from 0."""

    index: int
    field: str
    value: Value
    kind: Kind


@dataclass(frozen=True, slots=True)
class Spec:
    """One workbook to make: where (below the inbox), whose, for which month, and its layout."""

    path: str
    about: str
    source: str
    period: date
    sheet: str
    columns: tuple[Column, ...]
    version: int | None = None
    top: int = 1  # the heading row
    left: int = 1
    title: str = ""
    unit: str = ""
    merged: tuple[str, ...] = ()
    total: str = "合计"
    note: str = ""
    faults: tuple[Fault, ...] = ()
    duplicate: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One workbook and its truth.

    Args:
        records: the rows that must be accepted, in the sheet's order.
        duplicates: rows that repeat an accepted one.
        skipped: row to reason (total, blank, note), rows below the heading only.
    """

    spec: Spec
    records: tuple[Record, ...]
    rejects: tuple[Reject, ...]
    duplicates: tuple[int, ...]
    skipped: dict[int, str]
    content: bytes

    def __str__(self) -> str:
        read = len(self.records) + len(self.rejects) + len(self.duplicates)
        counts = f"{len(self.records)} good, {len(self.rejects)} bad, {len(self.duplicates)} duplicate"
        return f"{self.spec.path}: {self.spec.about}; {read} rows: {counts}; {len(self.skipped)} more to skip"


@dataclass(frozen=True, slots=True)
class Line:
    """One line below the headings: its cells by field, and the record it holds, if any."""

    kind: Literal["record", "duplicate", "total", "blank", "note"]
    cells: dict[str, Written]
    record: Record | None = None
    fault: Fault | None = None


def _wide(text: str) -> str:
    """Spell text in full-width characters, as a Chinese input method left in that state does."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def _percent(rate: Decimal) -> str:
    return f"{rate * 100:.2f}%"


SPELLINGS: dict[str, Callable[[Any], Written]] = {
    "rate%": lambda rate: (float(rate), "0.00%"),
    "ratio": lambda rate: (float(rate), "0.0000"),
    "points": lambda rate: (float(rate * 100), "0.00"),
    "percent": lambda rate: (_percent(rate), "@"),
    "minus": lambda rate: (_percent(rate).replace("-", "\u2212"), "@"),
    "brackets": lambda rate: (f"({_percent(-rate)})" if rate < 0 else _percent(rate), "@"),
    "wide%": lambda rate: (_wide(_percent(rate)), "@"),
    "float": lambda amount: (float(amount), "#,##0.00##"),
    "commas": lambda amount: (f"{amount:,}", "@"),
    "￥": lambda amount: (f"￥{amount:,}", "@"),
    "万": lambda amount: (float(amount / TEN_THOUSAND), "#,##0.00####"),
    "万 commas": lambda amount: (f"{amount / TEN_THOUSAND:,.6f}", "@"),
    "亿": lambda amount: (f"{(amount / TEN_THOUSAND**2).normalize():f}亿", "@"),
    "text": lambda code: (str(code), "@"),
    "wide": lambda code: (_wide(str(code)), "@"),
    "lower": lambda code: (code.lower(), "@"),
    "dash": lambda code: (f"{code[:2]}-{code[2:]}", "@"),
    "space": lambda code: (f" {code[:2]} {code[2:]}", "@"),
    "int": lambda code: (int(code), "000000" if code.startswith("0") else "General"),
    "year": lambda day: (day.year, "0"),
    "year年": lambda day: (f"{day.year}年", "@"),
    "yy": lambda day: (f"{day:%y}", "@"),
    "month": lambda day: (day.month, "0"),
    "month月": lambda day: (f"{day.month}月", "@"),
    "yyyymm": lambda day: (day.year * 100 + day.month, "0"),
    "yyyy-mm": lambda day: (f"{day:%Y-%m}", "@"),
    "yyyy年m月": lambda day: (f"{day.year}年{day.month}月", "@"),
    "date": lambda day: (day.replace(day=28), "yyyy-mm-dd"),
}
CHANGHE, YUANSHAN = "长河养老", "远山信托"
SEPTEMBER, OCTOBER, NOVEMBER = date(2024, 9, 1), date(2024, 10, 1), date(2024, 11, 1)


def _columns(*texts: str) -> tuple[Column, ...]:
    """Parse ``heading=field:spelling,spelling``; a spelling named twice is drawn twice as often."""
    split = [(heading, *rest.partition(":")) for heading, _, rest in (text.partition("=") for text in texts)]
    return tuple(Column(heading, field, tuple(names.split(",")) if names else ()) for heading, field, _, names in split)


V1 = Spec(
    "2024年11月/V1/长河养老_2024_11_受托业绩.xlsx",
    "V1, percentages as text, ￥ and 亿 in the cells",
    CHANGHE,
    NOVEMBER,
    "11月",
    _columns("年份=year:year年,year,yy", "月份=month:month月,month")
    + _columns("计划代码=plan_code:text,lower,wide", "计划名称=plan_name", "公司代码=company_code:text,int")
    + _columns("收益率=return_rate:percent,rate%,wide%,brackets,minus")
    + _columns("单位净值=net_asset_value:float,￥", "规模=fund_scale:float,commas,￥,亿", "备注=remark"),
    version=1,
    title="2024年11月受托业绩报告",
    top=2,
    note="备注：本表数据未经审计。",
)
SPECS = (
    Spec(
        "2024年09月/长河养老_2024年9月受托业绩报告.xlsx",
        "merged title, percent-formatted rates, codes as numbers shown with zeros, total and note",
        CHANGHE,
        SEPTEMBER,
        "受托业绩",
        _columns("年=year:year", "月=month:month", "计划代码=plan_code:text", "计划名称=plan_name")
        + _columns("公司代码=company_code:int", "收益率=return_rate:rate%")
        + _columns("单位净值=net_asset_value:float", "规模=fund_scale:float", "备注=remark"),
        title="2024年9月受托业绩报告",
        top=2,
        note="备注：收益率为当月收益率，规模单位为元。",
    ),
    Spec(
        "2024年09月/远山信托_202409受托业绩.xlsx",
        "headings from B4 on, 单位：万元 above them, rates as ratios, 报告期 spelled four ways",
        YUANSHAN,
        SEPTEMBER,
        "Sheet1",
        _columns("报告期=report_period:yyyymm,yyyy-mm,yyyy年m月,date", "计划代码=plan_code:text,dash")
        + _columns("公司代码=company_code:text,space,lower", "收益率=return_rate:ratio")
        + _columns("净值=net_asset_value:float,text", "资产规模=fund_scale:万,万 commas"),
        unit="单位：万元",
        top=4,
        left=2,
    ),
    Spec(
        "2024年10月/长河养老_2024-10-受托业绩.xlsx",
        "units in the headings; 待定, 12,34 and month 13; one row twice",
        CHANGHE,
        OCTOBER,
        "10月业绩",
        _columns("年=year:year", "月=month:month", "计划代码=plan_code:text,lower", "计划名称=plan_name")
        + _columns("公司代码=company_code:int,text", "收益率(%)=return_rate:points,points,percent,rate%")
        + _columns("单位净值=net_asset_value:float", "规模（万元）=fund_scale:万,万 commas,亿"),
        total="合 计：",
        faults=(
            Fault(7, "return_rate", "待定", "not a number"),
            Fault(18, "fund_scale", "12,34", "separators"),
            Fault(26, "month", 13, "period"),
        ),
        duplicate=11,
    ),
    Spec(
        "2024年10月/远山信托_24年10月受托业绩.xlsx",
        "年, 月 and 计划代码 merged down, a 小计 under each plan, full-width digits, a line break in a heading",
        YUANSHAN,
        OCTOBER,
        "受托业绩",
        _columns("年=year:year", "月=month:month月", "计划代码=plan_code:text,wide")
        + _columns("公司代码=company_code:text,dash,wide", "收益率=return_rate:percent,wide%,minus")
        + _columns("单位\n净值=net_asset_value:float,wide", "规模=fund_scale:float,commas,￥"),
        title="远山信托　2024年10月受托业绩",
        top=3,
        merged=("year", "month", "plan_code"),
    ),
    V1,
    replace(
        V1,
        path="2024年11月/V2/长河养老_2024_11_受托业绩.xlsx",
        about="V2, corrects three rates of V1 and leaves one plan out",
        version=2,
        title="2024年11月受托业绩报告（更正）",
    ),
    Spec(
        "2024年11月/远山信托_2024年11月受托业绩报告（终稿）.xlsx",
        "no period column, net asset value 0 and #DIV/0!",
        YUANSHAN,
        NOVEMBER,
        "业绩明细",
        _columns("序号=number", "计划代码=plan_code:text,space", "计划名称=plan_name")
        + _columns("公司代码=company_code:text,lower", "收益率（%）=return_rate:points,brackets")
        + _columns("单位净值=net_asset_value:float", "规模（元）=fund_scale:float,commas"),
        note="注：规模为期末规模。",
        faults=(Fault(4, "net_asset_value", 0, "bounds"), Fault(21, "fund_scale", "#DIV/0!", "excel error")),
    ),
)


def samples() -> list[Sample]:
    """Make the workbooks that a run should know, each with its truth."""
    return [_sample(spec, _corrected(records) if spec.version == 2 else records) for spec, records in _drawn("")]


def others() -> dict[str, bytes]:
    """Make the files beside them that a run must pass over: backups, a lock file, mail, another workbook."""
    old = {spec.path: _sample(spec, records).content for spec, records in _drawn("draft")}
    staff = Workbook()
    for row in (["姓名", "电话"], ["张三", "010-5555 0100"]):
        staff.worksheets[0].append(row)
    return {
        "说明.txt": "各受托人每月报送的业绩报告；如有更正，另建 V2 文件夹。\n".encode(),
        "员工通讯录.xlsx": _bytes(staff),
        "2024年09月/长河养老_2024年9月受托业绩报告.xlsx.bak": old[SPECS[0].path],
        "2024年10月/备份/长河养老_2024-10-受托业绩.xlsx": old[SPECS[2].path],
        "2024年11月/~$2024年11月受托业绩报告.xlsx": b"\x06sample".ljust(165, b" "),
        "2024年11月/长河养老_2024年11月受托业绩更正.eml": "Subject: V2\n\n请以 V2 为准。\n".encode(),
    }


def _drawn(draft: str) -> Iterator[tuple[Spec, list[Record]]]:
    for spec in SPECS:
        yield spec, list(_records(spec, Random(f"{draft}{spec.source}{spec.period}")))


def _plans(source: str) -> list[tuple[str, list[str]]]:
    """Draw a trustee's plans, each with the companies in it; they are the same in every month."""
    random = Random(source)
    plan, company = ("CH2011{:03}", "{:06}") if source == CHANGHE else ("YS{:04}", "QY{:05}")
    companies = [company.format(number) for number in random.sample(range(100, 900_000, 37), 60)]
    return [(plan.format(n * 7), [companies.pop() for _ in range(random.randint(1, 4))]) for n in range(1, 17)]


def _records(spec: Spec, random: Random) -> Iterator[Record]:
    for plan, companies in _plans(spec.source):
        for company in companies:
            rate = Decimal(random.randint(-400, 600)).scaleb(-4).quantize(Decimal("0.000001"))
            value = Decimal(random.randint(9000, 16000)).scaleb(-4)
            scale = Decimal(random.randint(10**9, 5 * 10**11)).scaleb(-2)
            if random.random() < 0.3:
                scale = (scale // MILLION * MILLION).quantize(Decimal("0.01"))
            figures = [None if random.random() < 0.04 else figure for figure in (rate, value, scale)]
            yield Record(spec.period, plan, company, figures[0], figures[1], figures[2])


def _corrected(records: list[Record]) -> list[Record]:
    """Leave one plan out and correct three rates, as V2 does."""
    kept = [record for record in records if record.plan_code != records[10].plan_code]
    for index in [index for index, record in enumerate(kept) if record.return_rate is not None][4:30:9]:
        kept[index] = replace(kept[index], return_rate=(kept[index].return_rate or 0) + Decimal("0.0012"))
    return kept


def _sample(spec: Spec, records: list[Record]) -> Sample:
    lines = list(enumerate(_lines(spec, records), spec.top + 1))
    book = Workbook()
    _write(book.worksheets[0], spec, lines)
    if spec.note:
        book.create_sheet("填报说明").append(["本表由受托人按月填报。"])
    kept = [(row, line.record) for row, line in lines if line.kind == "record" and not line.fault]
    return Sample(
        spec,
        records=tuple(replace(record, row=row) for row, record in kept if record),
        rejects=tuple(_reject(spec, row, line.fault) for row, line in lines if line.fault),
        duplicates=tuple(row for row, line in lines if line.kind == "duplicate"),
        skipped={row: line.kind for row, line in lines if line.record is None},
        content=_bytes(book),
    )


def _reject(spec: Spec, row: int, fault: Fault) -> Reject:
    index, column = next((i, c) for i, c in enumerate(spec.columns, spec.left) if c.field == fault.field)
    cell = f"{get_column_letter(index)}{row}"
    return Reject(row, cell, column.heading, fault.field, fault.value, fault.kind)


def _lines(spec: Spec, records: list[Record]) -> Iterator[Line]:
    rows = [_record_line(spec, index, record) for index, record in enumerate(records)]
    for _, plan in groupby(rows, key=lambda line: line.record.plan_code if line.record else ""):
        members = list(plan)
        yield from members
        if spec.merged:
            same = {field: members[0].cells[field] for field in spec.merged}
            yield Line("total", same | {"company_code": ("小计", "@")} | _sum(spec, members))
    if spec.duplicate is not None:
        yield replace(rows[spec.duplicate], kind="duplicate")
    where = next(column.field for column in spec.columns if column.spellings)
    yield Line("total", {where: (spec.total, "@")} | _sum(spec, rows))
    if spec.note:
        yield Line("blank", {})
        yield Line("note", {spec.columns[0].field: (spec.note, "@")})


def _record_line(spec: Spec, index: int, record: Record) -> Line:
    cells = {column.field: _spell(spec, column, index, record) for column in spec.columns}
    fault = next((fault for fault in spec.faults if fault.index == index), None)
    if fault:
        cells[fault.field] = (fault.value, "General")
    return Line("record", cells, record, fault)


def _spell(spec: Spec, column: Column, index: int, record: Record) -> Written:
    """Spell a cell; drawn by key, not by position, so that V2 spells an untouched row as V1 did."""
    field = column.field
    group = field in spec.merged or field == "plan_code"
    random = Random(f"{spec.source}{spec.period}{field}{record.plan_code}{'' if group else record.company_code}")
    if not column.spellings:
        name = f"{spec.source[:2]}稳健{record.plan_code[-3:]}号"
        ignored: dict[str, Value] = {"number": index + 1, "plan_name": name}
        return ignored.get(field, random.choice((None, None, "新增委托"))), "General"
    value: Any = getattr(record, field, record.report_date)
    if value is None:
        return random.choice(BLANKS), "General"
    spelling = random.choice(column.spellings)
    if spelling == "亿" and value % MILLION:  # a person writes it for round amounts
        spelling = column.spellings[0]
    return SPELLINGS[spelling](value)


def _sum(spec: Spec, lines: list[Line]) -> dict[str, Written]:
    column = next(column for column in spec.columns if column.field == "fund_scale")
    total = sum((line.record.fund_scale or Decimal(0) for line in lines if line.record), Decimal(0))
    return {"fund_scale": SPELLINGS[column.spellings[0]](total)}


def _write(sheet: Worksheet, spec: Spec, lines: list[tuple[int, Line]]) -> None:
    sheet.title = spec.sheet
    last = spec.left + len(spec.columns) - 1
    if spec.title:
        sheet.cell(1, spec.left, spec.title).alignment = Alignment(horizontal="center")
        sheet.merge_cells(start_row=1, start_column=spec.left, end_row=1, end_column=last)
    if spec.unit:
        sheet.cell(spec.top - 1, last, spec.unit)
    for index, column in enumerate(spec.columns, spec.left):
        sheet.column_dimensions[get_column_letter(index)].width = 18
        sheet.cell(spec.top, index, column.heading).font = Font(bold=True)
        for row, line in lines:
            value, number_format = line.cells.get(column.field, (None, "General"))
            sheet.cell(row, index, value).number_format = number_format
        if column.field in spec.merged:
            _merge_down(sheet, index, [(row, line.cells.get(column.field)) for row, line in lines])


def _merge_down(sheet: Worksheet, column: int, cells: list[tuple[int, Written | None]]) -> None:
    for _, run in groupby(cells, key=lambda cell: cell[1]):
        rows = [row for row, _ in run]
        if len(rows) > 1:
            sheet.merge_cells(start_row=rows[0], start_column=column, end_row=rows[-1], end_column=column)


def _bytes(book: Workbook) -> bytes:
    """Save a workbook without the clock: openpyxl writes the time into its properties and into the zip's entries."""
    book.properties.creator = "make_sample"
    book.properties.created = CREATED
    saved, fixed = io.BytesIO(), io.BytesIO()
    book.save(saved)
    book.properties.modified = CREATED  # only now: save() sets it to the time
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(fixed, "w") as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name, CREATED.timetuple()[:6])
            entry.create_system = 3  # else it tells Windows from Unix; stored, not deflated: zlibs differ
            core = name == "docProps/core.xml"
            new.writestr(entry, tostring(book.properties.to_tree()) if core else old.read(name))
    return fixed.getvalue()


def make(folder: Path) -> list[str]:
    """
    Write what is not there yet, and return a line for each workbook written and one for the files beside them.

    Raises:
        FileExistsError: no folder, or it holds a file that this did not make; nothing is written.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is not a folder; name a new or empty folder")
    books = {book.spec.path: book for book in samples()}
    files = {path: book.content for path, book in books.items()} | others()
    present = {_below(folder, path): path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    for name, path in present.items():
        if path.is_symlink() or not path.is_file() or path.read_bytes() != files.get(name):
            raise FileExistsError(f"{folder}: holds {name}, which is not of this sample; name a new or empty folder")
    missing = sorted(files.keys() - present.keys())
    for name in missing:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name])
    beside = [name for name in missing if name not in books]
    lines = [f"{folder}/{books[name]}" for name in missing if name in books]
    return lines + ([f"beside them, for a run to pass over: {', '.join(beside)}"] if beside else [])


def _below(folder: Path, path: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix())  # macOS may decompose names


def main(arguments: list[str] | None = None) -> int:
    """Run the command: one line for each workbook made; one line on stderr and 1 if the folder cannot be used."""
    parser = argparse.ArgumentParser(description="Make a sample inbox.")
    parser.add_argument("folder", type=Path, help="a new or empty folder")
    folder: Path = parser.parse_args(arguments).folder
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console that cannot show Chinese
    try:
        lines = make(folder)
    except OSError as error:
        print(" ".join(str(error).splitlines()), file=sys.stderr)
        return 1
    print("\n".join(lines or [f"{folder}: the sample is there already, nothing had to be done"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
