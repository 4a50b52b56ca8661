"""The plan: one file that psql and the product run alike, the same bytes each time, and never anything but its rows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job import Job

from wdh_luigi import embedded, plan, warehouse
from wdh_luigi.errors import DatabaseError, PlanError

COLUMNS = {"report_date": "date", "plan_code": "varchar(50)", "return_rate": "numeric(8,6)", "note": "text"}
KEY = ["report_date", "plan_code"]


def load(**changes: Any) -> plan.Load:
    values: dict[str, Any] = {
        "domain": "trustee_performance",
        "table": "performance",
        "columns": COLUMNS,
        "key": KEY,
        "period": "2024-11",
        "source": "",
        "workbook": "2024_11.xlsx",
        "sha256": "0" * 64,
        "mode": "delete_insert",
        "replace": "keys",
        "overlap": "error",
        "max_delete_ratio": 0.5,
        "lock_timeout": 600,
        "statement_timeout": 0,
        "keep_history": False,
        "sheet": "业绩",
        "cells": {"report_date": "A", "plan_code": "B", "return_rate": "C", "note": "D"},
        "counts": {"read": 1, "accepted": 1, "rejected": 0, "duplicate": 0, "skipped": 0},
        "digest": "d1",
        "version": "0",
    }
    values |= changes
    return plan.Load(**values)


def record(row: int = 2, code: str = "P1", rate: str | None = "0.055000", note: str | None = None) -> dict[str, Any]:
    return {
        "row": row,
        "report_date": date(2024, 11, 1),
        "plan_code": code,
        "return_rate": None if rate is None else Decimal(rate),
        "note": note,
        "has_performance_data": rate is not None,
        "validation_warnings": [],
    }


def copied(one: plan.Load, records: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Return records as COPY takes them."""
    for each in records:
        values = [plan.copy_value(each[name]) for name in (*one.columns, "has_performance_data")]
        yield "\t".join([*values, plan.copy_warnings(each["validation_warnings"]), f"{each['row']}\n"]).encode()


def written(path: Path, one: plan.Load, *records: dict[str, Any]) -> Path:
    counts = {**one.counts, "read": len(records), "accepted": len(records)}
    with path.open("wb") as file:
        plan.write(file, plan.Load(**{**vars(one), "counts": counts}), copied(one, records))
    return path


def apply(database: str, path: Path) -> warehouse.Applied:
    connection = warehouse.connect(database)
    try:
        return warehouse.apply(connection, path)
    finally:
        connection.close()


def psql(database: str, path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [embedded.psql(), "-X", "-q", *arguments, "-f", str(path), database]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


ROWS = "SELECT report_date, plan_code, return_rate, note, workbook_row, data_source FROM {} ORDER BY 1, 2"


def test_the_same_workbook_gives_the_same_bytes(tmp_path: Path) -> None:
    """A reviewer's yes is for bytes: nothing of a clock, a host or a database may be in them."""
    first = written(tmp_path / "a.sql", load(), record(), record(3, "P2"))
    second = written(tmp_path / "b.sql", load(), record(), record(3, "P2"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("encoding", ["UTF8", "GBK", "BIG5", "SJIS", "LATIN1"])
def test_psql_reads_a_plan_in_any_encoding_of_its_user(job: Job, tmp_path: Path, encoding: str) -> None:
    """Chinese consoles work in GBK, where half a character may swallow the newline after a name."""
    one = load(workbook="2024年11月受托业绩（终稿）丂.xlsx", source="長河養老Ａ乗")
    path = written(tmp_path / "plan.sql", one, record(note="乗\\丂 终稿"))
    done = psql(str(job.database), path, PGCLIENTENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [(date(2024, 11, 1), "P1", Decimal("0.055000"), "乗\\丂 终稿", 2, one.workbook)]
    assert rows == job.query(ROWS.format("performance"))


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(notes=st.lists(st.none() | TEXT, min_size=1, max_size=6), workbook=TEXT.filter(bool), source=TEXT)
def test_any_text_comes_through_psql_and_apply_alike(
    job: Job, tmp_path: Path, notes: list[str | None], workbook: str, source: str
) -> None:
    """Cells and names are somebody else's words; as data they are what they were, as SQL they are never run."""
    one = load(workbook=workbook, source=source)
    records = [record(at + 2, f"P{at}", None, note) for at, note in enumerate(notes)]
    path = written(tmp_path / "plan.sql", one, *records)
    job.execute("DROP TABLE IF EXISTS performance, wdh_load")
    done = psql(str(job.database), path)
    assert (done.returncode, done.stderr) == (0, b"")
    by_psql = job.query(ROWS.format("performance"))
    assert [row[3] for row in by_psql] == notes
    job.execute("DROP TABLE performance, wdh_load")
    apply(str(job.database), path)
    assert by_psql == job.query(ROWS.format("performance"))
    assert [(workbook, source)] == job.query("SELECT workbook, source FROM wdh_load")


def test_rows_are_never_run_as_statements(job: Job, tmp_path: Path) -> None:
    """A statement that fails before COPY must not turn the rows into SQL for psql to run."""
    job.execute("CREATE TABLE victim (); CREATE TABLE performance (report_date text)")
    note = "\nDROP TABLE victim; COMMIT;\n\\! touch hacked\n"
    path = written(tmp_path / "plan.sql", load(), record(code="P1'; DROP TABLE victim; --", note=note))
    done = psql(str(job.database), path)
    assert done.returncode == 3, done.stderr
    assert b"differs" in done.stderr
    assert job.query("SELECT to_regclass('public.victim') IS NULL") == [(False,)]


@pytest.mark.parametrize(
    ("former", "looked_at"),
    [
        ({}, False),
        ({"table": "elsewhere"}, False),
        ({"table": "elsewhere", "source": "other", "domain": "another"}, False),
        ({"source": "other"}, True),
        ({"period": "2024-10"}, True),
        ({"domain": "another"}, True),
        ({"table": "public.performance", "source": "other"}, True),
    ],
    ids=str,
)
def test_keys_are_compared_only_where_another_place_of_the_table_has_rows(
    job: Job, tmp_path: Path, former: dict[str, str], looked_at: bool
) -> None:
    """That join takes a tenth of a load; a table is the same with its schema and without, and for every domain."""
    apply(str(job.database), written(tmp_path / "former.sql", load(**former), record()))
    reach = "CREATE TEMPORARY TABLE wdh_reach AS SELECT date '2024-11-01' AS first_date, date '2024-11-01' AS last_date"
    with contextlib.closing(warehouse.connect(str(job.database))) as connection, connection.cursor() as cursor:
        cursor.execute(reach)
        cursor.execute(f"SELECT {plan._others_in_reach(load())}")
        assert cursor.fetchone() == (looked_at,)


def test_a_load_looks_at_the_partitions_of_its_dates_alone(job: Job, tmp_path: Path) -> None:
    """Among a hundred million rows of former years, the planner must know where not to look."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record()))
    job.execute(
        "ALTER TABLE performance RENAME TO whole; CREATE TABLE performance (LIKE whole INCLUDING ALL)"
        " PARTITION BY RANGE (report_date);"
        "CREATE TABLE early PARTITION OF performance FOR VALUES FROM ('2000-01-01') TO ('2024-01-01');"
        "CREATE TABLE late PARTITION OF performance FOR VALUES FROM ('2024-01-01') TO ('2030-01-01');"
        "INSERT INTO performance SELECT * FROM whole; DROP TABLE whole"
    )
    one = load(digest="d2", dates=("2024-11-01", "2024-11-01"))
    with contextlib.closing(warehouse.connect(str(job.database))) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE wdh_staged (LIKE performance)")
        (delete,) = plan.delete_statements(one)
        for asked in (delete, f"SELECT FROM performance AS t JOIN wdh_staged AS s ON {plan._same_key(one)}"):
            cursor.execute(f"EXPLAIN {asked}")
            told = "\n".join(line for (line,) in cursor.fetchall())
            assert "late" in told
            assert "early" not in told
    assert apply(str(job.database), written(tmp_path / "b.sql", one, record(rate="0.07"))).receipt.deleted == 1
    assert job.query("SELECT return_rate FROM performance") == [(Decimal("0.070000"),)]


def test_many_rows_are_staged_in_batches(job: Job, tmp_path: Path) -> None:
    """Each batch is a COPY of its own; all of them are one transaction."""
    count = plan.BATCH_ROWS + 1
    one = load(counts={"read": count, "accepted": count, "rejected": 0, "duplicate": 0, "skipped": 0})
    with (tmp_path / "plan.sql").open("wb") as file:
        _, batches = plan.write(file, one, copied(one, (record(at, f"P{at}") for at in range(count))))
    assert batches == 2
    assert apply(str(job.database), tmp_path / "plan.sql").receipt.inserted == count
    assert job.query("SELECT count(*) FROM performance") == [(count,)]


@pytest.mark.parametrize(
    "tamper",
    [
        lambda plan: plan.replace(b"0.055000", b"0.550000"),
        lambda plan: plan + b"DROP TABLE performance;\n",
        lambda plan: plan[:-20],
        lambda plan: plan.replace(b"\n", b"\r\n"),
        lambda plan: plan.replace(b"COMMIT;", b"ROLLBACK;"),
        lambda plan: plan.replace(b"OVERRIDING SYSTEM VALUE", b""),
        lambda plan: b"",
        lambda plan: b"SELECT 1;\n" + plan,
    ],
)
def test_a_changed_plan_is_refused(tmp_path: Path, tamper: Any) -> None:
    """A yes given to other bytes is no yes: edited, cut, appended to, or with other line ends."""
    path = written(tmp_path / "plan.sql", load(), record())
    with warehouse.opened(path):
        pass
    path.write_bytes(tamper(path.read_bytes()))
    with pytest.raises(PlanError, match="not what was written"), warehouse.opened(path):
        pass


def test_a_plan_is_not_applied_twice(job: Job, tmp_path: Path) -> None:
    """What the place's newest load already is, is left as it is."""
    path = written(tmp_path / "plan.sql", load(), record())
    assert apply(str(job.database), path).loaded
    assert not apply(str(job.database), path).loaded
    assert job.query("SELECT count(*) FROM wdh_load") == [(1,)]


def test_a_correction_replaces_the_keys_that_it_holds(job: Job, tmp_path: Path) -> None:
    """replace: keys leaves what the correction does not mention."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record(), record(3, "P2")))
    second = load(digest="d2")
    receipt = apply(str(job.database), written(tmp_path / "b.sql", second, record(rate="0.06"))).receipt
    assert (receipt.deleted, receipt.inserted) == (1, 1)
    assert [row[1:3] for row in job.query(ROWS.format("performance"))] == [
        ("P1", Decimal("0.060000")),
        ("P2", Decimal("0.055000")),
    ]


def test_a_correction_may_replace_its_whole_place(job: Job, tmp_path: Path) -> None:
    """replace: place takes out what a correction left out, and nothing of another place."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record(), record(3, "P2")))
    other = load(source="other", workbook="other.xlsx")
    apply(str(job.database), written(tmp_path / "o.sql", other, record(2, "P9")))
    second = load(digest="d2", replace="place")
    receipt = apply(str(job.database), written(tmp_path / "b.sql", second, record())).receipt
    assert (receipt.deleted, receipt.inserted) == (2, 1), "half of them may go"
    assert [row[1] for row in job.query(ROWS.format("performance"))] == ["P1", "P9"]


def test_a_key_of_another_place_fails_the_load(job: Job, tmp_path: Path) -> None:
    """Two trustees who report one plan would overwrite each other: both workbooks and rows are named."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record()))
    other = load(source="other", workbook="other.xlsx")
    path = written(tmp_path / "o.sql", other, record(7, rate="0.07"))
    with pytest.raises(DatabaseError, match=r"2024-11-01 P1 in row 7, held by 2024_11\.xlsx row 2"):
        apply(str(job.database), path)
    assert [row[2] for row in job.query(ROWS.format("performance"))] == [Decimal("0.055000")]
    allowed = load(source="other", workbook="other.xlsx", overlap="replace")
    apply(str(job.database), written(tmp_path / "r.sql", allowed, record(7, rate="0.07")))
    assert [row[5] for row in job.query(ROWS.format("performance"))] == ["other.xlsx"]


def test_a_table_that_differs_is_refused_with_all_its_differences(job: Job, tmp_path: Path) -> None:
    """Whoever mends the table wants to do it once; nothing is written before."""
    job.execute(
        "CREATE TABLE performance (report_date date, plan_code varchar(50) PRIMARY KEY, return_rate numeric(8,4),"
        " load_id int, owner text NOT NULL, mark int NOT NULL DEFAULT 1)"
    )
    path = written(tmp_path / "plan.sql", load(), record())
    with pytest.raises(DatabaseError) as refused:
        apply(str(job.database), path)
    for difference in (
        "column return_rate is numeric(8,4), expected numeric(8,6)",
        "column note is missing",
        "column load_id is integer, expected bigint",
        "column workbook_row is missing",
        "column owner is NOT NULL and gets no value",
        "its primary key is (plan_code), expected (plan_code, report_date)",
    ):
        assert difference in str(refused.value)
    assert job.query("SELECT to_regclass('wdh_load')") == [(None,)]


def test_a_table_may_be_in_a_schema_and_have_any_name(job: Job, tmp_path: Path) -> None:
    """schema.table, Chinese and quotes are names like any other, whatever the search_path."""
    job.execute('CREATE SCHEMA "报""告"')
    one = load(table='报"告.业绩 "表"', columns={**COLUMNS, '备"注': "text"})
    path = written(tmp_path / "plan.sql", one, {**record(), '备"注': "x"})
    apply(str(job.database), path)
    assert job.query('SELECT "备""注" FROM "报""告"."业绩 ""表"""') == [("x",)]
    assert not apply(str(job.database), path).loaded


def test_a_row_that_the_database_refuses_leaves_nothing_behind(job: Job, tmp_path: Path) -> None:
    """Data and receipt are one transaction: a check constraint that fails at the last row undoes the first."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record()))
    job.execute("ALTER TABLE performance ADD CHECK (return_rate < 0.5)")
    second = load(digest="d2")
    path = written(tmp_path / "b.sql", second, record(rate="0.06"), record(3, "P2", "0.6"))
    with pytest.raises(DatabaseError, match="violates check constraint"):
        apply(str(job.database), path)
    assert [row[2] for row in job.query(ROWS.format("performance"))] == [Decimal("0.055000")]
    assert job.query("SELECT count(*) FROM wdh_load") == [(1,)]


def test_a_truncated_workbook_does_not_empty_a_month(job: Job, tmp_path: Path) -> None:
    """replace: place takes out what is missing, up to max_delete_ratio of the place's rows; psql keeps the guard."""
    first = written(tmp_path / "a.sql", load(), *(record(at, f"P{at}") for at in range(4)))
    apply(str(job.database), first)
    short = written(tmp_path / "b.sql", load(digest="d2", replace="place"), record(0, "P0"))
    message = "3 of 4 rows of 2024-11-01 would leave the table, more than max_delete_ratio 0.5"
    with pytest.raises(DatabaseError, match=message):
        apply(str(job.database), short)
    assert message.encode() in psql(str(job.database), short).stderr
    assert job.query("SELECT count(*) FROM performance") == [(4,)]
    allowed = load(digest="d2", replace="place", max_delete_ratio=0.75)
    assert apply(str(job.database), written(tmp_path / "c.sql", allowed, record(0, "P0"))).receipt.deleted == 4


def test_who_holds_the_lock_is_named(job: Job, tmp_path: Path) -> None:
    """A load that waits for another ends with a line that says for whom; psql waits and ends alike."""
    path = written(tmp_path / "plan.sql", load(lock_timeout=1), record())
    holder = warehouse.connect(str(job.database))
    with holder.cursor() as cursor:
        cursor.execute(f"BEGIN; SELECT pg_advisory_xact_lock({plan.lock_key('public', 'performance')})")
        held_by = f"process {holder.info.backend_pid}, wdh_luigi from the same machine since"
        with pytest.raises(DatabaseError, match=f"another load held its lock for 1 s .*{held_by}"):
            apply(str(job.database), path)
        assert b"lock timeout" in psql(str(job.database), path).stderr
        cursor.execute("ROLLBACK")
    holder.close()
    assert apply(str(job.database), path).loaded


def test_a_statement_may_have_a_time_limit(job: Job, tmp_path: Path) -> None:
    """A load that hangs on a trigger ends with an error instead of holding the table all night."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record()))
    job.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE INSERT ON performance FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    path = written(tmp_path / "b.sql", load(digest="d2", statement_timeout=1), record(rate="0.06"))
    with pytest.raises(DatabaseError, match="statement timeout"):
        apply(str(job.database), path)


def test_a_time_limit_of_the_role_does_not_cut_the_wait_for_another_load(job: Job, tmp_path: Path) -> None:
    """How long to wait is lock_timeout's to say; statements of the plan have statement_timeout."""
    (name,) = job.query("SELECT current_database()")[0]
    job.execute(f"ALTER DATABASE {name} SET statement_timeout = '200ms'")
    path = written(tmp_path / "plan.sql", load(), record())
    with contextlib.closing(warehouse.connect(str(job.database))) as holder, ThreadPoolExecutor() as pool:
        with warehouse.locked(holder, load().place, 10):
            waiting = pool.submit(apply, str(job.database), path)
            while not job.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                time.sleep(0.01)
            time.sleep(0.5)
        assert waiting.result().loaded


def test_a_view_is_refused_and_a_partitioned_table_is_loaded(job: Job, tmp_path: Path) -> None:
    """A view hides where the rows would go; partitions are tables like any other."""
    path = written(tmp_path / "plan.sql", load(), record())
    apply(str(job.database), path)
    job.execute("ALTER TABLE performance RENAME TO base; CREATE VIEW performance AS SELECT * FROM base")
    with pytest.raises(DatabaseError, match="it is no table"):
        apply(str(job.database), written(tmp_path / "b.sql", load(digest="d2"), record(rate="0.06")))
    job.execute(
        "DROP VIEW performance; CREATE TABLE performance (LIKE base INCLUDING ALL) PARTITION BY RANGE (report_date);"
        "CREATE TABLE p2024 PARTITION OF performance FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    )
    assert apply(str(job.database), path).loaded
    assert job.query("SELECT count(*) FROM p2024") == [(1,)]


def test_rights_that_are_missing_are_named(job: Job, tmp_path: Path) -> None:
    """A role that may not delete is told before anything is written; one that owns nothing may load all the same."""
    path = written(tmp_path / "plan.sql", load(), record())
    apply(str(job.database), path)
    role = f"loader_{os.getpid()}"
    job.execute(f"CREATE ROLE {role}; GRANT SELECT, INSERT ON performance, wdh_load TO {role}")
    connection = warehouse.connect(str(job.database))
    second = written(tmp_path / "b.sql", load(digest="d2"), record(rate="0.06"))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {role}")
        with pytest.raises(DatabaseError, match=f"{role} lacks the right to DELETE"):
            warehouse.apply(connection, second)
        job.execute(
            f"GRANT DELETE ON performance TO {role}; GRANT UPDATE ON wdh_load TO {role};"
            f" GRANT USAGE ON SEQUENCE wdh_load_load_id_seq TO {role}"
        )
        assert warehouse.apply(connection, second).loaded
    finally:
        connection.close()
        job.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_that_can_make_nothing_is_told_all_that_is_missing(job: Job, tmp_path: Path) -> None:
    """One message, before anything is written: the tables, their history, temporary tables; then the schema itself."""
    path = written(tmp_path / "plan.sql", load(keep_history=True), record())
    role = f"reader_{os.getpid()}"
    (name,) = job.query("SELECT current_database()")[0]
    job.execute(f'CREATE ROLE {role}; REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
    connection = warehouse.connect(str(job.database))
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {role}")
        with pytest.raises(DatabaseError) as refused:
            warehouse.apply(connection, path)
        for table in ("performance", "wdh_load", "performance_history"):
            assert f'"public"."{table}" is missing, and {role} lacks the right to CREATE in' in str(refused.value)
        assert f"{role} lacks the right to TEMPORARY of database {name}" in str(refused.value)
        job.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(DatabaseError, match="permission denied for schema public; nothing was written; grant it"):
            warehouse.apply(connection, path)
    finally:
        connection.close()
        job.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    missing = written(tmp_path / "s.sql", load(table="nowhere.performance"), record())
    with pytest.raises(DatabaseError, match="there is no schema nowhere"):
        apply(str(job.database), missing)


def test_a_refused_row_is_named_with_its_cells(job: Job, tmp_path: Path) -> None:
    """Whoever mends the workbook needs the cell, not a constraint's name alone; the first bad row of many is found."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record(rate="0.01")))
    job.execute(
        "ALTER TABLE performance ADD CONSTRAINT small CHECK (return_rate < 0.05),"
        " ADD CONSTRAINT pair CHECK (note <> plan_code); CREATE UNIQUE INDEX notes ON performance (note)"
    )
    good = [record(at, f"P{at}", "0.01", f"n{at}") for at in range(2, 30)]

    def refused(*bad: dict[str, Any]) -> str:
        path = written(tmp_path / "b.sql", load(digest="d2"), *good[:20], *bad, *good[20:])
        with pytest.raises(DatabaseError) as error:
            apply(str(job.database), path)
        return str(error.value)

    first = refused(record(99, "X", "0.5"), record(100, "Y", "0.6"))
    assert first.startswith("2024_11.xlsx, sheet 业绩, cell C99: PostgreSQL refused: ")
    assert 'violates check constraint "small"' in first
    assert refused(record(99, "X", None, "X")).startswith("2024_11.xlsx, sheet 业绩, cell D99, B99: ")
    assert refused(record(99, "X", None, "n3")).startswith("2024_11.xlsx, sheet 业绩, cell D99: ")
    job.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF NEW.plan_code = ''X'' THEN RAISE ''not X''; END IF; RETURN NEW; END';"
        "CREATE TRIGGER no BEFORE INSERT ON performance FOR EACH ROW EXECUTE FUNCTION no()"
    )
    assert refused(record(99, "X", None)) == (
        "2024_11.xlsx, sheet 业绩, row 99: PostgreSQL refused: not X; nothing was written"
    )
    assert job.query("SELECT count(*) FROM performance") == [(1,)]


def test_a_character_that_the_database_cannot_hold_is_named_by_its_row(
    postgres_server: str, job: Job, tmp_path: Path
) -> None:
    """A database in LATIN1 has no Chinese: COPY says in which of its lines, which is some row of the workbook."""
    name = f"latin_{os.getpid()}"
    with contextlib.closing(warehouse.connect(postgres_server)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            path = written(tmp_path / "plan.sql", load(), record(), record(7, "P2", None, "乗"))
            parts = psycopg2.extensions.parse_dsn(postgres_server)
            with pytest.raises(DatabaseError, match=r"2024_11\.xlsx, sheet 业绩, row 7: PostgreSQL refused: character"):
                apply(psycopg2.extensions.make_dsn(**{**parts, "dbname": name}), path)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_read_only_database_is_one_line(job: Job, tmp_path: Path) -> None:
    """A standby, or a role that only reads."""
    path = written(tmp_path / "plan.sql", load(), record())
    connection = warehouse.connect(str(job.database))
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseError, match=r"read-only transaction; nothing was written; name a server that takes"):
        warehouse.apply(connection, path)
    connection.close()


@pytest.mark.parametrize("table", ["a" * 63, "表" * 21, "业" * 20 + "abc"])
def test_names_of_63_bytes_are_whole(job: Job, tmp_path: Path, table: str) -> None:
    """PostgreSQL keeps 63 bytes of a name: one longer would be another table."""
    one = load(table=table, columns={**COLUMNS, table: "text"}, key=["report_date", table])
    path = written(tmp_path / "plan.sql", one, {**record(), table: "x"})
    assert apply(str(job.database), path).loaded
    assert job.query(f'SELECT "{table}" FROM "{table}"') == [("x",)]
    assert not apply(str(job.database), path).loaded


def test_append_without_a_key_never_doubles(job: Job, tmp_path: Path) -> None:
    """Nothing but the receipts tells that rows are there: a row deleted by hand must not bring all others again."""
    keyless = {"mode": "append", "key": []}
    path = written(tmp_path / "a.sql", load(**keyless), record(), record(3, "P2"))
    assert apply(str(job.database), path).loaded
    assert (
        b"2 rows of its place are in the table already, by load 1 of 2024_11.xlsx"
        in psql(str(job.database), path).stderr
    )
    job.execute("DELETE FROM performance WHERE plan_code = 'P2'")
    corrected = written(tmp_path / "b.sql", load(**keyless, digest="d2"), record(rate="0.06"), record(3, "P2"))
    for one in (path, corrected):
        with pytest.raises(DatabaseError, match="1 rows of its place are in the table already, by load 1"):
            apply(str(job.database), one)
    assert job.query("SELECT count(*) FROM performance") == [(1,)]
    job.execute("DELETE FROM performance")
    assert apply(str(job.database), corrected).loaded
    daily = {**keyless, "period": ""}
    for at in range(2):
        one = load(**daily, digest=f"d{at}", workbook=f"{at}.xlsx")
        assert apply(str(job.database), written(tmp_path / "c.sql", one, record(), record(3, "P2"))).loaded
    job.execute("DELETE FROM performance WHERE load_id = (SELECT max(load_id) FROM wdh_load) AND plan_code = 'P1'")
    with pytest.raises(DatabaseError, match="1 rows of its place"):
        apply(str(job.database), tmp_path / "c.sql")


def test_a_date_may_be_missing_where_it_is_no_key(job: Job, tmp_path: Path) -> None:
    """Rows are found by a date that all of them have, or without one: else they are loaded for ever, and stay."""
    columns = {"plan_code": "varchar(50)", "report_date": "date", "return_rate": "numeric(8,6)", "note": "text"}
    one = {"columns": columns, "key": ["plan_code"], "replace": "place", "max_delete_ratio": 1.0}
    rows = [record(), {**record(3, "P2"), "report_date": None}]
    path = written(tmp_path / "a.sql", load(**one), *rows)
    apply(str(job.database), path)
    assert not apply(str(job.database), path).loaded
    assert apply(str(job.database), written(tmp_path / "b.sql", load(**one, digest="d2"), rows[0])).receipt.deleted == 2
    assert job.query("SELECT plan_code FROM performance") == [("P1",)]


def test_a_plan_that_waited_sees_what_it_waited_for(job: Job, tmp_path: Path) -> None:
    """Where transactions are repeatable reads by default, psql would look at the table as it was before its wait."""
    one = {"replace": "place", "max_delete_ratio": 1.0}
    first = written(tmp_path / "a.sql", load(**one), record())
    second = written(tmp_path / "b.sql", load(**one, digest="d2"), record(3, "P2"))
    apply(str(job.database), first)
    (name,) = job.query("SELECT current_database()")[0]
    job.execute(f"TRUNCATE performance; ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    with contextlib.closing(warehouse.connect(str(job.database))) as connection:
        with ThreadPoolExecutor() as pool, warehouse.locked(connection, load().place, 10):
            waiting = pool.submit(psql, str(job.database), second)
            while not job.query("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                time.sleep(0.01)
            warehouse.apply(connection, first)
        assert waiting.result().returncode == 0, waiting.result().stderr
    assert job.query("SELECT plan_code FROM performance") == [("P2",)]


def test_a_plan_of_another_version_is_told_from_a_changed_one(tmp_path: Path) -> None:
    """After an upgrade: nothing was tampered with, the plan is only not this version's."""
    path = written(tmp_path / "plan.sql", load(), record())
    former = path.read_bytes().replace(b'"format": 2', b'"format": 1')
    at = former.rindex(b"INSERT INTO")
    path.write_bytes(former[:at] + plan.receipt("public", hashlib.sha256(former[:at]).hexdigest()).encode())
    with pytest.raises(PlanError, match="another version wrote it"), warehouse.opened(path):
        pass


def test_receipts_of_a_former_version_get_their_new_columns(job: Job, tmp_path: Path) -> None:
    """An upgrade reloads nothing, and the next load finds the receipts that it needs."""
    first = written(tmp_path / "a.sql", load(), record())
    apply(str(job.database), first)
    job.execute(
        "ALTER TABLE wdh_load DROP taken_over, DROP kept_history, DROP date_column, DROP first_date, DROP last_date,"
        " DROP reverted_at, DROP reverted_by"
    )
    assert not apply(str(job.database), first).loaded
    assert apply(str(job.database), written(tmp_path / "b.sql", load(digest="d2"), record(rate="0.06"))).loaded
    assert job.query("SELECT taken_over, kept_history, first_date FROM wdh_load ORDER BY load_id") == [
        (1, False, None),
        (0, False, date(2024, 11, 1)),
    ]


def test_a_lost_connection_is_made_again(job: Job, tmp_path: Path) -> None:
    """A server that restarts between two loads, or in one, costs a moment; what is done is not done twice."""
    path = written(tmp_path / "plan.sql", load(), record())
    lines = path.read_bytes()
    job.execute(
        "CREATE TABLE fuse (); CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " IF to_regclass(''fuse'') IS NOT NULL THEN"
        " PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(9); END IF; RETURN NEW; END'"
    )
    apply(str(job.database), written(tmp_path / "a.sql", load(digest="d0"), record(rate="0.01")))
    job.execute("CREATE TRIGGER cut BEFORE INSERT ON performance FOR EACH ROW EXECUTE FUNCTION cut()")
    mended = threading.Timer(1.5, lambda: job.execute("DROP TABLE fuse"))
    mended.start()
    done = job.wdh("apply", str(path))
    mended.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout == f"{path}: 1 deleted, 1 inserted (load {job.query('SELECT max(load_id) FROM wdh_load')[0][0]})\n"
    )
    assert job.query("SELECT count(*) FROM wdh_load") == [(2,)]
    assert path.read_bytes() == lines


def test_a_trigger_that_drops_rows_fails_the_load(job: Job, tmp_path: Path) -> None:
    """A row that the table quietly refuses would be lost in silence."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record(code="P0")))
    job.execute(
        "CREATE FUNCTION drop_p2() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF NEW.plan_code = ''P2'' THEN RETURN NULL; END IF; RETURN NEW; END';"
        "CREATE TRIGGER drop_p2 BEFORE INSERT ON performance FOR EACH ROW EXECUTE FUNCTION drop_p2()"
    )
    path = written(tmp_path / "b.sql", load(digest="d2"), record(), record(3, "P2"))
    message = "1 of the 2 rows are in the table: its triggers or rules took the others out"
    with pytest.raises(DatabaseError, match=message):
        apply(str(job.database), path)
    assert message.encode() in psql(str(job.database), path).stderr
    assert [row[1] for row in job.query(ROWS.format("performance"))] == ["P0"]


def test_two_first_loads_of_two_tables_make_the_receipts_once(job: Job, tmp_path: Path) -> None:
    """Both find none; who waited for the other must see what the other made."""
    path = written(tmp_path / "plan.sql", load(), record())
    first, watcher = warehouse.connect(str(job.database)), warehouse.connect(str(job.database))
    with contextlib.closing(first), contextlib.closing(watcher), first.cursor() as cursor, watcher.cursor() as watch:
        cursor.execute(f"BEGIN; SELECT pg_advisory_xact_lock({plan.lock_key('public', 'create wdh_load')})")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(apply, str(job.database), path)
            while not watch.rowcount or watch.rowcount < 0:
                time.sleep(0.02)
                watch.execute("SELECT FROM pg_locks WHERE NOT granted")
            cursor.execute(f"CREATE TABLE wdh_load (\n{plan._receipts_definition()}\n); COMMIT")
            assert second.result().loaded
    assert job.query("SELECT table_name FROM wdh_load") == [("performance",)]
