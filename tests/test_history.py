"""wdh revert: the table as it was before a load, or a refusal that names what rests on it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from job import NAME, Job, executed, workbook
from test_plan import apply, load, record, written

from wdh_luigi import history, warehouse
from wdh_luigi.errors import DatabaseError

EVERYTHING = "SELECT * FROM {} ORDER BY report_date, plan_code"


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def put(job: Job, digest: str, *records: dict[str, Any], **changes: Any) -> int:
    """Load records, with history; return the load's id."""
    one = load(**{"digest": digest, "keep_history": True, "max_delete_ratio": 1.0, **changes})
    applied = apply(str(job.database), written(job.folder / f"{digest}.sql", one, *records))
    assert applied.loaded
    return applied.receipt.load_id


def revert(job: Job, load_id: int) -> history.Reverted:
    connection = warehouse.connect(str(job.database))
    try:
        return history.revert(connection, "public", load_id, 10)
    finally:
        connection.close()


def everything(job: Job, table: str = "performance") -> list[tuple[Any, ...]]:
    return job.query(EVERYTHING.format(table))


@pytest.mark.parametrize("replace", ["keys", "place"])
def test_the_table_is_as_it_was_before(job: Job, replace: str) -> None:
    """Changed, added and vanished rows: every column of every row is what it was, whose load it was included."""
    put(job, "d1", record(), record(3, "P2"), record(4, "P3"))
    before = everything(job)
    second = put(job, "d2", record(rate="0.06"), record(3, "P2"), record(5, "P9"), replace=replace)
    assert everything(job) != before
    done = revert(job, second)
    assert (done.removed, done.restored) == (3, 2 if replace == "keys" else 3)
    assert everything(job) == before
    assert job.query("SELECT taken_over FROM wdh_load ORDER BY load_id") == [(0,), (0,)]
    assert job.query("SELECT count(*) FROM performance_history") == [(0,)]


def test_a_first_load_leaves_nothing_behind(job: Job) -> None:
    """What replaced nothing needs no history to be taken back."""
    first = put(job, "d1", record(), keep_history=False)
    assert revert(job, first).removed == 1
    assert everything(job) == []
    with pytest.raises(DatabaseError, match=r"was reverted at .* by .*; nothing is left to revert"):
        revert(job, first)


def test_later_loads_of_its_keys_are_named(job: Job) -> None:
    """A revert in the middle would lose what came after: the newest goes first."""
    first = put(job, "d1", record(), record(3, "P2"))
    before = everything(job)
    second = put(job, "d2", record(rate="0.06"))
    third = put(job, "d3", record(rate="0.07"))
    other = put(job, "d4", record(8, "P8"), source="other", workbook="other.xlsx")
    for early in (first, second):
        with pytest.raises(DatabaseError, match=rf"later loads touched its keys: .*{third} \(2024_11\.xlsx, "):
            revert(job, early)
    revert(job, third)
    revert(job, second)
    assert everything(job)[:2] == before
    revert(job, other)
    revert(job, first)
    assert everything(job) == []


def test_a_key_that_came_and_went_in_between_is_seen(job: Job) -> None:
    """P2 left with the second load, came back with the third and left again with the fourth."""
    put(job, "d1", record(), record(3, "P2"))
    second = put(job, "d2", record(), replace="place")
    put(job, "d3", record(3, "P2", "0.07"))
    fourth = put(job, "d4", record(4, "P3"), replace="place")
    with pytest.raises(DatabaseError, match="later loads touched its keys"):
        revert(job, second)
    revert(job, fourth)


def test_without_history_a_revert_is_refused(job: Job) -> None:
    """What was replaced is gone: neither that load nor one under it can be taken back."""
    first = put(job, "d1", record(), record(3, "P2"))
    second = put(job, "d2", record(rate="0.06"), keep_history=False)
    with pytest.raises(DatabaseError, match="replaced 1 rows and kept no history of them"):
        revert(job, second)
    with pytest.raises(DatabaseError, match="later loads replaced rows and kept no history"):
        revert(job, first)


def test_a_later_load_that_took_out_other_dates_is_seen(job: Job) -> None:
    """replace: place takes out rows of dates that it does not hold: without a history they leave no trace."""
    october, december = ({**record(at, "P1"), "report_date": date(2024, at, 1)} for at in (10, 12))
    put(job, "d1", october)
    second = put(job, "d2", record(3, "P2"), replace="place")
    other = {"source": "other", "workbook": "other.xlsx", "period": "2024-12", "keep_history": False}
    put(job, "d3", october, **other)
    put(job, "d4", december, replace="place", **other)
    with pytest.raises(DatabaseError, match="later loads replaced rows and kept no history of them: 4 "):
        revert(job, second)


def test_changes_by_hand_are_not_reverted_over(job: Job) -> None:
    """Rows deleted or put in by hand are somebody's decision."""
    put(job, "d1", record(), record(3, "P2"))
    second = put(job, "d2", record(rate="0.06"), replace="place")
    job.execute("INSERT INTO performance (report_date, plan_code) VALUES ('2024-11-01', 'P2')")
    with pytest.raises(DatabaseError, match="1 keys that it took out are in the table again"):
        revert(job, second)
    job.execute("DELETE FROM performance")
    with pytest.raises(DatabaseError, match="1 of its 1 rows are not in the table"):
        revert(job, second)


def test_other_columns_of_an_existing_table_come_back(job: Job) -> None:
    """A colleague's remark went with its row, and comes back; computed and newer columns come by themselves."""
    put(job, "d1", record(), record(3, "P2"))
    job.execute(
        "ALTER TABLE performance ADD remark text, ADD twice numeric GENERATED ALWAYS AS (return_rate * 2) STORED,"
        " ADD number int GENERATED ALWAYS AS IDENTITY;"
        " UPDATE performance SET remark = '看过 ''%s''' WHERE plan_code = 'P1'"
    )
    before = everything(job)
    second = put(job, "d2", record(rate="0.06"), record(3, "P2", "0.07"))
    job.execute("ALTER TABLE performance ADD later text NOT NULL DEFAULT 'new'")
    revert(job, second)
    assert everything(job) == [(*row, "new") for row in before]


def test_rows_of_another_place_come_back_to_it(job: Job) -> None:
    """overlap: replace took them over; their own load is complete again."""
    put(job, "d1", record(), record(3, "P2"))
    before = everything(job)
    other = put(job, "d2", record(7, rate="0.07"), source="other", workbook="other.xlsx", overlap="replace")
    assert job.query("SELECT taken_over FROM wdh_load ORDER BY load_id") == [(1,), (0,)]
    revert(job, other)
    assert everything(job) == before
    assert not apply(str(job.database), job.folder / "d1.sql").loaded


def test_names_may_hold_anything(job: Job) -> None:
    """A percent sign is PostgreSQL's to read, not Python's; 63 bytes leave room for _history only if it is not kept."""
    job.execute('CREATE SCHEMA "报%s告"')
    table = "报%s告.表%(x)s;--"
    put(job, "d1", record(), table=table)
    second = put(job, "d2", record(rate="0.06"), table=table, workbook="'; DROP TABLE x; -- %s.xlsx")
    connection = warehouse.connect(str(job.database))
    assert history.find(connection, ["public", "报%s告"], second) == "报%s告"
    assert history.revert(connection, "报%s告", second, 10).restored == 1
    connection.close()
    assert job.query('SELECT return_rate FROM "报%s告"."表%(x)s;--"') == [(Decimal("0.055000"),)]


ROW = [2024, 11, "P1", "C1", 0.05, 1.0, 100]


def test_a_reverted_load_stays_reverted(job: Job) -> None:
    """Until its workbook changes, or wdh apply is given its plan; the summary says so."""
    job.configure(keep_history=True)
    workbook(job.inbox / NAME, [ROW])
    job.load()
    before = job.table()
    workbook(job.inbox / NAME, [[*ROW[:4], 0.06, *ROW[5:]]])
    job.load()
    plan = job.file()["plan"]
    changed = job.table()
    done = job.wdh("revert", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"load 2 of {NAME} is reverted: 1 rows taken out, 1 put back; it stays so until")
    assert job.table() == before
    again = job.load()
    assert executed(again) == []
    assert job.table() == before
    assert job.file()["status"] == "unchanged"
    assert "load 2 was reverted" in again.stdout
    applied = job.wdh("apply", plan)
    assert applied.returncode == 0, applied.stderr
    assert job.table() == changed
    assert job.wdh("revert", "3").returncode == 0
    workbook(job.inbox / NAME, [[*ROW[:4], 0.07, *ROW[5:]]])
    assert job.load().returncode == 0
    assert [row[3] for row in job.table()] == [Decimal("0.070000")]


def test_a_load_that_is_not_there_is_one_line(job: Job) -> None:
    """Before anything was loaded, and after."""
    workbook(job.inbox / NAME, [ROW])
    for _ in range(2):
        done = job.wdh("revert", "77")
        assert done.returncode == 1
        assert done.stderr == ('error: load 77: there is none in "public"."wdh_load"; look up its load_id there\n')
        job.load()
