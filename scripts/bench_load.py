"""
Load rows over as many present keys: the product's plan against the same rows by hand-written SQL, in one run.

    python scripts/bench_load.py [--rows 1000000] [--rounds 5] [--others 0] [--partitioned]

Every round reloads the same table by each way in turn, with changed figures: by hand (COPY into a temporary table,
DELETE USING, INSERT SELECT), by the product's apply, and by it with a history. The server is the embedded one, in a
folder of its own, with its usual settings (fsync on). Printed are medians of the seconds and of the ratios to the
hand-written way, by the clock and, where /proc tells it, by the processor time of client and server, which a busy
machine moves less. With --others the tables hold so many rows of former months as well, 100,000 a month: what a long
history costs a load, and the question whether one is complete; with --partitioned they are by year.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path

from wdh_luigi import embedded, plan, warehouse
from wdh_luigi.domains.trustee_performance import DOMAIN

COLUMNS = {name: str(column.sql) for name, column in DOMAIN.columns.items()}
KEY = [name for name, column in DOMAIN.columns.items() if column.kind != "figure"]
MONTH = date(2024, 11, 1)
A_MONTH = 100_000  # rows
OWN = [*COLUMNS, "has_performance_data", "validation_warnings", "workbook_row"]


def lines(rows: int, round_: int) -> Iterator[bytes]:
    """Yield the rows of one round as COPY takes them: the same keys, other figures."""
    for row in range(rows):
        rate, value, scale = row % 1000 + round_, 10_000 + (row + round_) % 9_000, row * 7 + round_
        figures = (Decimal(rate).scaleb(-6), Decimal(value).scaleb(-4), Decimal(scale).scaleb(-2))
        line = (MONTH, f"PLAN{row:08d}", f"C{row % 97:03d}", *figures, "t", "[]", row + 2)
        yield ("\t".join(map(str, line)) + "\n").encode()


def load_of(table: str, rows: int, digest: str, *, history: bool) -> plan.Load:
    """Return what a plan says beside its rows."""
    return plan.Load(
        domain="bench",
        table=table,
        columns=COLUMNS,
        key=KEY,
        period="2024-11",
        source="",
        workbook="2024_11.xlsx",
        sha256="0" * 64,
        mode="delete_insert",
        replace="keys",
        overlap="error",
        max_delete_ratio=0.5,
        lock_timeout=600,
        statement_timeout=0,
        keep_history=history,
        sheet="Sheet1",
        cells={},
        counts={"read": rows, "accepted": rows, "rejected": 0, "duplicate": 0, "skipped": 0},
        digest=digest,
        version="bench",
        dates=(f"{MONTH}", f"{MONTH}"),
    )


def write_plan(path: Path, table: str, rows: int, round_: int, *, history: bool) -> None:
    """Write the plan of a round."""
    with path.open("wb") as file:
        plan.write(file, load_of(table, rows, f"{table} {round_}", history=history), lines(rows, round_))


def by_plan(connection: warehouse.Connection, path: Path) -> None:
    """Load as the product does."""
    assert warehouse.apply(connection, path).loaded


def write_rows(path: Path, source: Path) -> None:
    """Take the rows of a plan, as COPY has them, into a file of their own."""
    with source.open("rb") as plan_file, path.open("wb") as file:
        inside = False
        for line in plan_file:
            if inside and line == plan.END_OF_COPY:
                inside = False
            elif inside:
                file.write(line)
            elif line.startswith(b"COPY "):
                inside = True


def by_hand(connection: warehouse.Connection, path: Path) -> None:
    """Load the same rows with what one would type."""
    names = ", ".join(OWN)
    match = " AND ".join(f"t.{name} = s.{name}" for name in KEY)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"CREATE TEMPORARY TABLE s ON COMMIT DROP AS SELECT {names} FROM by_hand WITH NO DATA")
        with path.open("rb") as file:
            cursor.copy_expert(f"COPY s ({names}) FROM STDIN", file, size=1 << 16)
        cursor.execute("ANALYZE s")
        cursor.execute(f"DELETE FROM by_hand AS t USING s WHERE {match}")
        cursor.execute(
            f"INSERT INTO by_hand ({names}, data_source, processed_at, load_id)"
            f" SELECT {names}, '2024_11.xlsx', now(), 1 FROM s"
        )
        cursor.execute("COMMIT")


def check_equal(uri: str, tables: list[str]) -> None:
    """Refuse figures of loads that did not come to the same."""
    with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
        figures = ", ".join(COLUMNS)
        for table in tables:
            cursor.execute(
                f"SELECT count(*) FROM (SELECT {figures} FROM {tables[0]} EXCEPT SELECT {figures} FROM {table}) AS d"
            )
            assert cursor.fetchone() == (0,), f"{table} differs"


def settle(uri: str, tables: list[str]) -> None:
    """Let every way begin with the same: no dead rows, nothing left to write."""
    with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"VACUUM ANALYZE {table}")
        cursor.execute("CHECKPOINT")


def timed(uri: str, way: Callable[[warehouse.Connection, Path], None], path: Path) -> tuple[float, float]:
    """Load; return the seconds by the clock, and of the processors."""
    gc.collect()
    with closing(warehouse.connect(uri)) as connection:
        clock, processor = time.perf_counter(), time.process_time()
        way(connection, path)
        seconds = time.perf_counter() - clock
        return seconds, time.process_time() - processor + server_seconds(connection.info.backend_pid)


def server_seconds(pid: int) -> float:
    """Return the processor time of a server's process, or 0 where it is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the rounds and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--partitioned", action="store_true")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wdh-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        uri = embedded.start(folder / "server").uri
        run(uri, folder, asked.rows, asked.rounds, asked.others, partitioned=asked.partitioned)
    finally:
        embedded.stop(folder / "server")
        shutil.rmtree(folder)


def partition(uri: str, tables: list[str]) -> None:
    """Have the tables' rows in partitions, one a year."""
    with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} RENAME TO whole")
            cursor.execute(f"CREATE TABLE {table} (LIKE whole INCLUDING ALL) PARTITION BY RANGE (report_date)")
            for year in range(MONTH.year - 20, MONTH.year + 1):
                within = f"FROM ('{year}-01-01') TO ('{year + 1}-01-01')"
                cursor.execute(f"CREATE TABLE {table}_{year} PARTITION OF {table} FOR VALUES {within}")
            cursor.execute(f"INSERT INTO {table} SELECT * FROM whole")
            cursor.execute("DROP TABLE whole")


def fill(uri: str, tables: list[str], rows: int) -> None:
    """Put rows of former months into the tables, as loads of other places."""
    with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
        for table in tables:
            cursor.execute(
                f"INSERT INTO {table} (report_date, plan_code, company_code, return_rate, net_asset_value, fund_scale,"
                " has_performance_data, validation_warnings, workbook_row, data_source, processed_at, load_id)"
                f" SELECT date '{MONTH}' - make_interval(months => 1 + n / {A_MONTH}), 'PLAN' || n % {A_MONTH},"
                " 'C' || n % 97, 0.01, 1, n, true, '[]', n, 'former.xlsx', now(), 1000000 + n / 100000"
                f" FROM generate_series(0, {rows - 1}) AS n"
            )


def ask(uri: str) -> float:
    """Return the seconds that the question takes whether the newest load is complete."""
    place = plan.Place("bench", "by_plan", "2024-11", "")
    with closing(warehouse.connect(uri)) as connection:
        started = time.perf_counter()
        receipt = warehouse.newest_receipt(connection, place)
        assert receipt is not None
        assert receipt.rows_stand
        return time.perf_counter() - started


def run(uri: str, folder: Path, rows: int, rounds: int, others: int, *, partitioned: bool) -> None:
    """Load round after round; the first, into empty tables, is not counted."""
    plain, kept, typed = folder / "plain.sql", folder / "kept.sql", folder / "rows.copy"
    tables = ["by_hand", "by_plan", "with_history"]
    seconds: dict[str, list[tuple[float, float]]] = {table: [] for table in tables}
    for round_ in range(rounds + 1):
        write_plan(plain, "by_plan", rows, round_, history=False)
        write_plan(kept, "with_history", rows, round_, history=True)
        write_rows(typed, plain)
        if round_ == 0:
            with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
                by_plan(connection, plain)
                by_plan(connection, kept)
                cursor.execute("CREATE TABLE by_hand (LIKE by_plan INCLUDING ALL)")
                by_hand(connection, typed)
            if partitioned:
                partition(uri, tables)
            fill(uri, tables, others)
            settle(uri, tables)
            continue
        ways = [("by_hand", by_hand, typed), ("by_plan", by_plan, plain), ("with_history", by_plan, kept)]
        for at in range(len(ways)):
            table, way, path = ways[(at + round_) % len(ways)]  # each comes first, second and third
            seconds[table].append(timed(uri, way, path))
            settle(uri, [table])
        check_equal(uri, tables)
        shown = ", ".join(f"{table} {times[-1][0]:.1f} s" for table, times in seconds.items())
        print(f"round {round_}: {shown}", flush=True)
    beside = f" among {others:,} of former months" if others else ""
    print(f"\n{rows:,} rows over {rows:,} present keys{beside}, medians of {rounds} rounds")
    for table, times in seconds.items():
        for at, of in enumerate(("clock", "processors")):
            median = statistics.median(one[at] for one in times)
            pairs = zip(times, seconds["by_hand"], strict=True)
            ratio = statistics.median(one[at] / hand[at] for one, hand in pairs if hand[at])
            print(f"{table:14} {of:12} {median:6.2f} s   {ratio:.2f} x by hand")
    print(f"to ask whether it is complete: {statistics.median(ask(uri) for _ in range(5)):.3f} s")


if __name__ == "__main__":
    main()
