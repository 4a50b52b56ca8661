"""
The workbooks of the benchmark: one month of made-up figures, seeded, so that a number of rows always gives the same.

Cells are as Excel writes them and as people type them: texts are shared strings; three of four rates are numbers that
a format shows as percentages, the others texts ("5.25%"); amounts are mostly numbers, some texts ("12,000,000.50").
"""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = "长河养老_2024_11_受托业绩.xlsx"
HEADINGS = ("年", "月", "计划代码", "公司代码", "收益率", "净值", "规模")
COMPANIES = 100

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEETML = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
    f'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_SHEETML}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_SHEETML}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_SHEETML}.styles+xml"/>'
    f'<Override PartName="/xl/sharedStrings.xml" ContentType="{_SHEETML}.sharedStrings+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Target="xl/workbook.xml" Type="{_OFFICE}/officeDocument"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
    f'<sheets><sheet name="业绩" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Target="worksheets/sheet1.xml" Type="{_OFFICE}/worksheet"/>'
    f'<Relationship Id="rId2" Target="styles.xml" Type="{_OFFICE}/styles"/>'
    f'<Relationship Id="rId3" Target="sharedStrings.xml" Type="{_OFFICE}/sharedStrings"/></Relationships>',
    "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><fonts><font/></fonts><fills><fill><patternFill/></fill></fills>'
    "<borders><border/></borders><cellStyleXfs><xf/></cellStyleXfs>"
    '<cellXfs><xf numFmtId="0"/><xf numFmtId="10"/></cellXfs></styleSheet>',
}
_PERCENT = ' s="1"'


class _Strings:
    """The shared strings, each with its index."""

    def __init__(self) -> None:
        self._indices: dict[str, int] = {}

    def __call__(self, text: str) -> str:
        return f' t="s"><v>{self._indices.setdefault(text, len(self._indices))}</v>'

    def part(self) -> Iterator[str]:
        yield f'<sst xmlns="{_MAIN}">'
        for text in self._indices:
            yield f"<si><t>{text}</t></si>"
        yield "</sst>"


def write(path: Path, rows: int, *, rejects: float = 0.0, version: int = 1, first: int = 0) -> None:
    """
    Write a workbook of so many data rows.

    Args:
        rejects: the share of rows with a figure that is none.
        version: another one has the same keys with other figures, as a correction has.
        first: the number of the first row's key.
    """
    chance = random.Random(f"{rows} {rejects} {version}")
    strings = _Strings()
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in _PARTS.items():
            archive.writestr(name, text)
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            sheet.write(f'<worksheet xmlns="{_MAIN}"><sheetData>'.encode())
            sheet.write(_row(1, [strings(heading) for heading in HEADINGS]))
            for number in range(rows):
                sheet.write(_row(number + 2, list(_cells(first + number, chance, rejects, strings))))
            sheet.write(b"</sheetData></worksheet>")
        with archive.open("xl/sharedStrings.xml", "w", force_zip64=True) as part:
            for text in strings.part():
                part.write(text.encode())


def _row(number: int, cells: list[str]) -> bytes:
    inner = "".join(f'<c r="{letter}{number}"{cell}</c>' for letter, cell in zip("ABCDEFG", cells, strict=True))
    return f'<row r="{number}">{inner}</row>'.encode()


def _cells(number: int, chance: random.Random, rejects: float, strings: Callable[[str], str]) -> Iterator[str]:
    plan, company = divmod(number, COMPANIES)
    yield "><v>2024</v>"
    yield "><v>11</v>"
    yield strings(f"PLAN-{plan:06}")
    yield strings(f"C{company:03}")
    rate = chance.randrange(-2500, 2500)
    yield strings(f"{rate / 100:.2f}%") if chance.random() < 0.25 else f"{_PERCENT}><v>{rate / 10_000!r}</v>"
    value = chance.randrange(5_000, 30_000) / 10_000
    bad = rejects and number % round(1 / rejects) == 0
    yield strings(f"约{value}") if bad else f"><v>{value!r}</v>"
    amount = chance.randrange(10**11) / 100
    yield strings(f"{amount:,.2f}") if chance.random() < 0.05 else f"><v>{amount!r}</v>"
