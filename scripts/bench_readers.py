"""
Time the readers: python scripts/bench_readers.py [--rows 10000 100000 1000000] [--rounds 3] [--write docs/readers.md]

Each reader reads the same generated workbook (7 columns: two of them codes as shared strings, one of them dates) in a
process of its own, the readers in turn, round after round. Quote the ratios: they are of one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path
from xml.sax.saxutils import escape

import bench_page

READERS = ["auto", "openpyxl"]
COLUMNS = 7
SLOW_ROWS = 100_000  # above it the slow reader is timed once
PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml"'
    ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml"'
    ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
    '<Override PartName="/xl/styles.xml"'
    ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>'
    '<Override PartName="/xl/sharedStrings.xml"'
    ' ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="xl/workbook.xml"'
    ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
    '<sheets><sheet name="业绩" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="worksheets/sheet1.xml"'
    ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/>'
    '<Relationship Id="rId2" Target="styles.xml"'
    ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles"/>'
    '<Relationship Id="rId3" Target="sharedStrings.xml"'
    ' Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings"/></Relationships>',
    "xl/styles.xml": '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    "<fonts><font/></fonts><fills><fill><patternFill/></fill></fills><borders><border/></borders><cellStyleXfs><xf/></cellStyleXfs>"
    '<cellXfs><xf numFmtId="0"/><xf numFmtId="10"/><xf numFmtId="14"/></cellXfs></styleSheet>',
}
CHILD = """
import sys, time
from importlib import import_module
from pathlib import Path
reader = import_module(f"wdh_luigi.workbook.{sys.argv[2]}_reader")
book = reader.open_book(Path(sys.argv[1]), sys.argv[1])
count = sum(len(cells) for _, cells in book.rows(book.sheets[0].name))
assert count == int(sys.argv[3]), (count, sys.argv[3])
"""


def generate(path: Path, rows: int) -> None:
    """Write a workbook of so many rows; the same for the same number."""
    chance = random.Random(rows)
    strings = [f"计划{number:05}" for number in range(2000)] + ["年月", "收益率"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in PARTS.items():
            archive.writestr(name, text)
        items = "".join(f"<si><t>{escape(text)}</t></si>" for text in strings)
        head = '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        archive.writestr("xl/sharedStrings.xml", f"{head}{items}</sst>")
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            head = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
            sheet.write(head.encode())
            for number in range(1, rows + 1):
                sheet.write(_row(number, chance))
            sheet.write(b"</sheetData></worksheet>")


def _row(number: int, chance: random.Random) -> bytes:
    cells = [
        f'<c r="A{number}" s="2"><v>45597</v></c>',
        f'<c r="B{number}" t="s"><v>{chance.randrange(2000)}</v></c>',
        f'<c r="C{number}" t="s"><v>{chance.randrange(2000)}</v></c>',
        f'<c r="D{number}" s="1"><v>{chance.random() / 10!r}</v></c>',
        f'<c r="E{number}"><v>{1 + chance.random() / 2:.4f}</v></c>',
        f'<c r="F{number}"><v>{chance.randrange(10**9) / 100!r}</v></c>',
        f'<c r="G{number}"><v>{number}</v></c>',
    ]
    return f'<row r="{number}">{"".join(cells)}</row>'.encode()


def measure(path: Path, reader: str, rows: int) -> tuple[float, float, float]:
    """Read a workbook in a process of its own; return wall seconds, CPU seconds and peak MiB."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), reader, str(rows * COLUMNS)])
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{reader} failed over {path}")
    unit = 1024 if sys.platform == "linux" else 1024**2
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def bench(sizes: list[int], rounds: int) -> list[str]:
    """Return the table's lines."""
    lines = ["| rows | reader | wall s | × auto | CPU s | peak MiB |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            path = Path(folder) / f"{rows}.xlsx"
            generate(path, rows)
            found: dict[str, list[tuple[float, float, float]]] = {reader: [] for reader in READERS}
            for at in range(rounds):
                for reader in READERS:
                    if at == 0 or reader == "auto" or rows <= SLOW_ROWS:
                        found[reader].append(measure(path, reader, rows))
            base = statistics.median(one[0] for one in found["auto"])
            for reader in READERS:
                wall, cpu, peak = (statistics.median(column) for column in zip(*found[reader], strict=True))
                lines.append(f"| {rows:,} | {reader} | {wall:.2f} | {wall / base:.1f} | {cpu:.2f} | {peak:.0f} |")
                print(lines[-1], flush=True)
            path.unlink()
    return lines


def main() -> None:
    """Run the benchmark, and write its table where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="the page whose table between the bench marks is replaced")
    arguments = parser.parse_args()
    lines = bench(arguments.rows, arguments.rounds)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("python-calamine-plus", "openpyxl"))
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, {versions}"
    lines.append(f"\nMedians of {arguments.rounds} rounds (openpyxl once above {SLOW_ROWS:,} rows); {machine}.")
    if arguments.write:
        bench_page.write(arguments.write, "bench", lines)


if __name__ == "__main__":
    main()
