"""Workbooks written by hand, part by part and record by record, so that a test sees what is in the file."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    """Make a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def relations(kinds: Mapping[str, tuple[str, str]]) -> str:
    """Make a part of relations: identifier -> (kind, target)."""
    listed = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for name, (kind, target) in kinds.items()
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{listed}</Relationships>'


def styles(formats: Sequence[str]) -> str:
    """Make a style sheet: style 0 is General, 1 the first of the formats, and so on."""
    own = "".join(f'<numFmt numFmtId="{164 + at}" formatCode={quoteattr(one)}/>' for at, one in enumerate(formats))
    used = "".join(f'<xf numFmtId="{164 + at}" applyNumberFormat="1"/>' for at in range(len(formats)))
    return (
        f'<styleSheet xmlns="{MAIN}"><numFmts>{own}</numFmts><fonts><font/></fonts>'
        "<fills><fill><patternFill/></fill></fills><borders><border/></borders>"
        f'<cellStyleXfs><xf/></cellStyleXfs><cellXfs><xf numFmtId="0"/>{used}</cellXfs></styleSheet>'
    )


def xlsx_parts(
    rows: str = "",
    *,
    before: str = "",
    after: str = "",
    strings: Sequence[str] = (),
    formats: Sequence[str] = (),
    date1904: bool = False,
    sheets: str = '<sheet name="S" sheetId="1" r:id="r1"/>',
    tabs: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, str | bytes]:
    """
    Make the parts of an .xlsx workbook of one sheet, S.

    Args:
        rows: what stands in sheetData; before and after: what stands around it.
        strings: the shared strings, as XML within ``<si>``.
        sheets: what stands in the workbook's ``<sheets>``; tabs: relations that it refers to.
    """
    tabs = tabs or {"r1": ("worksheet", "worksheets/sheet1.xml")}
    types = "".join(
        f'<Override PartName="/xl/{part}.xml" ContentType="{CONTENT}.{kind}+xml"/>'
        for part, kind in [("workbook", "sheet.main"), ("styles", "styles"), ("sharedStrings", "sharedStrings")]
    )
    shared = "".join(f"<si>{one}</si>" for one in strings)
    flag = '<workbookPr date1904="1"/>' if date1904 else ""
    return {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">{types}</Types>',
        "_rels/.rels": relations({"r1": ("officeDocument", "xl/workbook.xml")}),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}">{flag}<sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            {**tabs, "s1": ("styles", "styles.xml"), "s2": ("sharedStrings", "sharedStrings.xml")}
        ),
        "xl/styles.xml": styles(formats),
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{shared}</sst>',
        "xl/worksheets/sheet1.xml": (
            f'<?xml version="1.0"?><worksheet xmlns="{MAIN}">{before}<sheetData>{rows}</sheetData>{after}</worksheet>'
        ),
    }


def xlsx(rows: str = "", **options: object) -> bytes:
    """Make an .xlsx workbook; see xlsx_parts."""
    return zipped(xlsx_parts(rows, **options))  # type: ignore[arg-type]


def merged(*ranges: str) -> str:
    """Make the part of a sheet that lists merges, to stand after its rows."""
    return "<mergeCells>" + "".join(f'<mergeCell ref="{one}"/>' for one in ranges) + "</mergeCells>" if ranges else ""


def ods(rows: str, *, styles: str = "", more: str = "") -> bytes:
    """Make an .ods workbook of one sheet, S; more: further tables."""
    urn = "urn:oasis:names:tc:opendocument:xmlns"
    names = {"office": "office", "table": "table", "text": "text", "style": "style", "number": "datastyle"}
    spaces = " ".join(f'xmlns:{name}="{urn}:{space}:1.0"' for name, space in names.items())
    calc = 'xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"'
    body = f'<table:table table:name="S">{rows}</table:table>{more}'
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": (
                f"<office:document-content {spaces} {calc}><office:automatic-styles>{styles}</office:automatic-styles>"
                f"<office:body><office:spreadsheet>{body}</office:spreadsheet></office:body></office:document-content>"
            ),
        }
    )


def ods_cell(kind: str, value: str = "", text: str = "", **attributes: str) -> str:
    """Make a cell of an .ods row: ods_cell("float", "5", "5")."""
    name = {"float": "value", "percentage": "value", "currency": "value"}.get(kind, f"{kind}-value")
    own = f' office:value-type="{kind}"' + (f' office:{name}="{value}"' if value else "") if kind else ""
    more = "".join(
        f" {name.replace('_', ':', 1).replace('_', '-')}={quoteattr(one)}" for name, one in attributes.items()
    )
    return (
        f"<table:table-cell{own}{more}>" + (f"<text:p>{escape(text)}</text:p>" if text else "") + "</table:table-cell>"
    )


def record(number: int, content: bytes = b"") -> bytes:
    """Make a record of BIFF12, as .xlsb holds them."""
    head = bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])
    length, size = bytearray(), len(content)
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return head + bytes([*length, size]) + content


def wide(text: str) -> bytes:
    """Make a text of BIFF12: its length, then UTF-16."""
    encoded = text.encode("utf-16-le")
    return struct.pack("<I", len(encoded) // 2) + encoded


def xlsb(
    records: Iterable[bytes], *, strings: Sequence[str] = (), formats: Sequence[str] = (), date1904: bool = False
) -> bytes:
    """Make an .xlsb workbook of one sheet, S; style 0 is General, 1 the first of the formats, and so on."""
    own = b"".join(record(44, struct.pack("<H", 164 + at) + wide(one)) for at, one in enumerate(formats))
    numbers = [0, *range(164, 164 + len(formats))]
    used = b"".join(record(47, struct.pack("<HH12x", 0, number)) for number in numbers)
    return zipped(
        {
            "[Content_Types].xml": (
                f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="bin" '
                'ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>'
            ),
            "_rels/.rels": relations({"r1": ("officeDocument", "xl/workbook.bin")}),
            "xl/_rels/workbook.bin.rels": relations(
                {
                    "r1": ("worksheet", "worksheets/sheet1.bin"),
                    "r2": ("sharedStrings", "sharedStrings.bin"),
                    "r3": ("styles", "styles.bin"),
                }
            ),
            "xl/workbook.bin": (
                record(131)
                + record(153, struct.pack("<II", int(date1904), 0) + wide(""))
                + record(156, struct.pack("<II", 0, 1) + wide("r1") + wide("S"))
                + record(132)
            ),
            "xl/sharedStrings.bin": b"".join(record(19, b"\0" + wide(one)) for one in strings),
            "xl/styles.bin": own + record(626) + record(47, bytes(16)) + record(627) + record(617) + used + record(618),
            "xl/worksheets/sheet1.bin": record(129) + record(145) + b"".join(records) + record(146) + record(130),
        }
    )


def xlsb_row(number: int) -> bytes:
    """Make the head of a row of an .xlsb sheet; rows count from 1 here."""
    return record(0, struct.pack("<I13x", number - 1))


def xlsb_cell(kind: int, column: int, content: bytes, style: int = 0) -> bytes:
    """Make a cell of an .xlsb row; columns count from 1 here."""
    return record(kind, struct.pack("<II", column - 1, style) + content)
