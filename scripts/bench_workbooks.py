"""
Time runs of many workbooks: python scripts/bench_workbooks.py [--sizes 10 300 2400] [--workers 1] [--write PAGE]

Each size is an inbox of ten sources a month, small workbooks, loaded into a database of its own on an embedded
PostgreSQL with its usual settings (fsync on): by `wdh backfill` month by month, by `wdh run --period all`, and once
more by each with nothing to do. A workbook counts when its load is logged; tasks are three a workbook.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import bench_page
import openpyxl
import psycopg2

from wdh_luigi import embedded

SOURCES = 10
FIRST_YEAR = 2005
HEADINGS = ["年", "月", "计划代码", "公司代码", "收益率", "净值", "规模"]
WDH = [sys.executable, "-c", "from wdh_luigi.command import main; main()"]
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Timed:
    """A run: its wall seconds, and when each load was logged, in seconds from its start."""

    wall: float
    loads: list[float]

    def seconds(self, part: slice) -> float:
        """Return the wall seconds per workbook of some of the loads, by the time from the one before them."""
        ends = [0.0, *self.loads][part]
        return (ends[-1] - ends[0]) / (len(ends) - 1)


def month_of(number: int) -> tuple[int, int]:
    """Return the year and month of a month's number from 0."""
    return FIRST_YEAR + number // 12, number % 12 + 1


def fill(inbox: Path, workbooks: int, rows: int) -> None:
    """Write so many workbooks, ten sources a month."""
    for number in range(workbooks):
        (year, month), source = month_of(number // SOURCES), number % SOURCES
        book = openpyxl.Workbook()
        sheet = book.active
        assert sheet is not None
        sheet.append(HEADINGS)
        for row in range(rows):
            sheet.append([year, month, f"P{source}{row:05}", "600001", (row % 90 + 1) / 1000, 1.05, 1_000_000 + row])
        path = inbox / f"{year}-{month:02}" / f"S{source}_{year}_{month:02}_受托业绩.xlsx"
        path.parent.mkdir(parents=True, exist_ok=True)
        book.save(path)


def timed(command: Sequence[str], environment: dict[str, str]) -> Timed:
    """Run a command to its end."""
    started = time.perf_counter()
    loads = []
    with subprocess.Popen(
        [*WDH, *command, "--plan-only", "false", "--log-level", "INFO"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("INFO: Load "):
                loads.append(time.perf_counter() - started)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Timed(time.perf_counter() - started, loads)


def bench(size: int, rows: int, workers: int, folder: Path, server: str) -> list[str]:
    """Return the table's lines for a size."""
    fill(folder / "inbox", size, rows)
    months = [f"{year}-{month:02}" for year, month in map(month_of, (0, (size - 1) // SOURCES))]
    lines = []
    for way in (["backfill", "--from", months[0], "--to", months[1]], ["run", "--period", "all"]):
        name = f"bench_{way[0]}_{size}"
        with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(f"CREATE DATABASE {name}")
        environment = {
            **os.environ,
            "WDH_DATA_BASE_DIR": str(folder / "inbox"),
            "WDH_WORK_DIR": str(folder / name),
            "WDH_DATABASE_URI": server.replace("/wdh?", f"/{name}?"),
            "WDH_DATA_SOURCES_CONFIG": str(REPOSITORY / "data_sources.yml"),
            "LUIGI_CONFIG_PATH": str(REPOSITORY / "luigi.cfg"),
        }
        command = [*way, "--workers", str(workers)]
        full, idle = timed(command, environment), timed(command, environment)
        assert (len(full.loads), len(idle.loads)) == (size, 0), "each workbook once"
        lines.append(row_of(way[0], size, full, idle))
        print(lines[-1], flush=True)
    return lines


def row_of(way: str, size: int, full: Timed, idle: Timed) -> str:
    """Return a line of the table."""
    cells = [f"{size:,}", f"wdh {way}", f"{full.wall:.1f}", f"{3 * size / full.wall:.0f}", f"{full.wall / size:.3f}"]
    if size >= 300:
        first, last = full.seconds(slice(1, 102)), full.seconds(slice(-101, None))
        cells += [f"{first:.3f}", f"{last:.3f}", f"{last / first:.2f}"]
    else:
        cells += ["", "", ""]
    return f"| {' | '.join([*cells, f'{idle.wall:.2f}'])} |"


def main() -> None:
    """Run the benchmark, and write its table where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 300, 2400])
    parser.add_argument("--rows", type=int, default=20, help="rows a workbook")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", type=Path, help="the page whose table between the bench marks is replaced")
    arguments = parser.parse_args()
    head = ["workbooks", "by", "wall s", "tasks/s", "s per workbook", "first 100", "last 100", "last / first"]
    lines = [f"| {' | '.join([*head, 'nothing to do, s'])} |", "|---|---|" + "---:|" * 7]
    print(*lines, sep="\n")
    base = Path(tempfile.mkdtemp(prefix="wdh-bench-", dir="/tmp"))
    base.chmod(0o755)  # root's server runs as another account
    try:
        server = embedded.start(base / "server").uri
        for size in arguments.sizes:
            lines += bench(size, arguments.rows, arguments.workers, base / str(size), server)
    finally:
        embedded.stop(base / "server")
        shutil.rmtree(base)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    lines.append(f"\n{arguments.workers} worker(s), {arguments.rows} rows a workbook; {machine}.")
    if arguments.write:
        bench_page.write(arguments.write, "workbooks", lines)


if __name__ == "__main__":
    main()
