"""
Where the time goes: python scripts/bench_profile.py [--rows 1000000] [--write docs/benchmarks.md]

The work on one workbook, part after part in one process. Those of the client are timed in processor seconds: in the
product, reading and sorting go on side by side in two processes. The statements of the plan are timed by the clock, as
it is the server that works.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import bench_data
import bench_load
import bench_page
import psycopg2.extensions

from wdh_luigi import domains, embedded, plan, sorting, targets, validate, warehouse, workbook
from wdh_luigi.config import DomainConfig
from wdh_luigi.workbook import calamine_reader, sniff
from wdh_luigi.workbook.around import Around

KINDS = ("COPY", "ANALYZE", "DELETE", "INSERT")
MONTH = date(2024, 11, 1)

_Result = TypeVar("_Result")


class Timed:
    """Seconds by what they were spent on, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, part: str, function: Callable[[], _Result]) -> _Result:
        """Call a function; note the processor seconds that it took."""
        gc.collect()
        started = time.process_time()
        result = function()
        self.seconds[part] = time.process_time() - started
        return result


class Cursor(psycopg2.extensions.cursor):
    """A cursor that notes the seconds of a plan's statements by their kind."""

    spent: ClassVar[defaultdict[str, float]] = defaultdict(float)

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Run a statement."""
        started = time.perf_counter()
        super().execute(query, arguments)
        text = query.decode() if isinstance(query, bytes) else query
        kind = next((kind for kind in KINDS if text.startswith(kind) or f"\n{kind} " in text), "")
        self.spent[kind or "all other statements"] += time.perf_counter() - started

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Copy rows."""
        started = time.perf_counter()
        super().copy_expert(sql, file, size)
        self.spent["COPY"] += time.perf_counter() - started


def consume(rows: Iterable[Any]) -> None:
    """Go through all rows."""
    for _ in rows:
        pass


def by_the_library(path: Path) -> Iterable[Any]:
    """Return the rows as they are read where they are not plain: by the library's rich stream."""
    book = calamine_reader.open_book(path, path.name, Around())  # nothing is known of any sheet
    return book.batches(book.sheets[0].name)


def cells_of(path: Path) -> Iterable[Any]:
    """Return the rows as the product's reader gives them, after a look at the file's checksums."""
    book = workbook.opener("auto", path.name)(path, "")
    return book.batches(book.sheets[0].name)


def read_into(rows_path: Path, path: Path) -> workbook.Table:
    """Write the data rows as ReadExcel does; return the table with its profile."""
    table = workbook.open_table(path, "", None, domains.get("trustee_performance"))
    with rows_path.open("wb") as file:
        sorting.write_batches(targets.Output(file, rows_path), table.batches(), lambda rows: None)
    return table


def make_plan(timed: Timed, path: Path, folder: Path, rows: int) -> Path:
    """Read and sort a workbook and write its plan, each part by itself."""
    domain = domains.get("trustee_performance")
    rows_path = folder / "rows.json"
    timed("(cells by python-calamine-plus, as rows that are not plain are read)", lambda: consume(by_the_library(path)))
    timed("reading: checksums", lambda: sniff.check(path, path.name))
    timed("reading: and cells, straight from the sheet's XML", lambda: consume(cells_of(path)))
    table = timed("reading: and data rows, the profile, the target", lambda: read_into(rows_path, path))
    config = DomainConfig.model_validate({"pattern": "x", "table": "by_plan", "pk": bench_load.KEY})
    reading = validate.reading(table.profile, config, domain, MONTH, date.today())
    files = sorting.Files(
        *(folder / name for name in ("accepted.json", "accepted.copy", "rejects.json", "outcome.json"))
    )
    batches = sorting.read_batches(rows_path)
    sort = "sorting: validation, duplicates, digest, records as JSON and for COPY"
    done = timed(sort, lambda: sorting.sort(files, batches, domain, table.profile, config, reading))
    assert done.outcome.accepted == rows, done.outcome
    with files.copied.open("rb") as lines, (folder / "plan.sql").open("wb") as file:
        load = bench_load.load_of("by_plan", rows, done.digest, history=False)
        timed("the plan, framed from the records for COPY", lambda: plan.write(file, load, lines))
    return folder / "plan.sql"


def apply(uri: str, path: Path) -> dict[str, float]:
    """Apply a plan; return the seconds of its statements by their kind."""
    with closing(warehouse.connect(uri)) as connection:
        connection.cursor_factory = Cursor
        Cursor.spent.clear()
        assert warehouse.apply(connection, path).loaded
    return dict(Cursor.spent)


def main() -> None:
    """Time the parts, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="the page whose part between the profile marks is replaced")
    asked = parser.parse_args()
    folder, timed = Path(tempfile.mkdtemp(prefix="wdh-profile-", dir="/tmp")), Timed()
    folder.chmod(0o711)
    try:
        uri = embedded.start(folder / "server").uri
        loads = []
        for version in (1, 2):
            path = folder / bench_data.NAME
            bench_data.write(path, asked.rows, version=version)
            loads.append(apply(uri, make_plan(timed, path, folder, asked.rows)))
    finally:
        embedded.stop(folder / "server")
        shutil.rmtree(folder)
    lines = ["| part | processor s |", "|---|---:|"]
    lines += [f"| {part} | {seconds:.2f} |" for part, seconds in timed.seconds.items()]
    lines += ["", "| the plan's statements, wall s | first load | reload |", "|---|---:|---:|"]
    for kind in (*KINDS, "all other statements"):
        first, reload = (f"{spent.get(kind, 0):.2f}" for spent in loads)
        lines.append(f"| {kind} | {first} | {reload} |")
    lines += [f"\n{asked.rows:,} rows. Each line of reading holds those above it."]
    print("\n".join(lines))
    if asked.write:
        bench_page.write(asked.write, "profile", lines)


if __name__ == "__main__":
    main()
