"""wdh diff: what a plan would change is what applying it then changes, and asking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job import NAME, Job, errors, workbook
from test_plan import ROWS, apply, load, record, written

from wdh_luigi import ground, warehouse
from wdh_luigi.errors import DatabaseError, PlanError


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def diff(job: Job, path: Path) -> ground.Ground:
    connection = warehouse.connect(str(job.database))
    try:
        return ground.diff(connection, path)
    finally:
        connection.close()


MONTH = st.dictionaries(
    st.sampled_from([f"P{at}" for at in range(6)]), st.sampled_from(["0.01", "0.02", None]), min_size=1
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(months=st.lists(MONTH, min_size=1, max_size=3), replace=st.sampled_from(["keys", "place"]))
def test_the_counts_are_what_applying_then_does(
    job: Job, tmp_path: Path, months: list[dict[str, str | None]], replace: str
) -> None:
    """A reviewer decides by these numbers."""
    job.execute("DROP TABLE IF EXISTS performance, wdh_load")
    for at, month in enumerate(months):
        one = load(digest=f"d{at}", replace=replace, max_delete_ratio=1.0)
        path = written(tmp_path / f"{at}.sql", one, *(record(row, *pair) for row, pair in enumerate(month.items(), 2)))
        there = job.query("SELECT to_regclass('performance') IS NOT NULL")[0][0]
        before = job.query(ROWS.format("performance")) if there else []
        found = diff(job, path)
        receipt = apply(str(job.database), path).receipt
        after = job.query(ROWS.format("performance"))
        old, new = ({row[1]: row[2] for row in rows} for rows in (before, after))
        assert found.new == len(new.keys() - old.keys())
        assert found.changed == sum(old[code] != new[code] for code in old.keys() & month.keys())
        assert found.unchanged == len(month) - found.new - found.changed
        assert found.deleted == len(old.keys() - new.keys())
        assert found.left_over == len(new.keys() - month.keys())
        assert receipt.inserted == found.new + found.changed + found.unchanged
        assert receipt.deleted == found.changed + found.unchanged + found.deleted


def test_asking_changes_nothing(job: Job, tmp_path: Path) -> None:
    """Not even a table is made."""
    path = written(tmp_path / "plan.sql", load(), record())
    assert diff(job, path).new == 1
    assert job.query("SELECT to_regclass('performance'), to_regclass('wdh_load')") == [(None, None)]


def test_a_guard_that_would_stop_the_load_is_told(job: Job, tmp_path: Path) -> None:
    """What cannot be applied has no diff."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record()))
    other = written(tmp_path / "o.sql", load(source="other", workbook="other.xlsx"), record(7))
    with pytest.raises(DatabaseError, match="held by another workbook"):
        diff(job, other)


def test_the_command_shows_the_changes_and_apply_may_hold_to_them(job: Job, tmp_path: Path) -> None:
    """--expect-diff refuses when somebody else changed the table between the yes and the load."""
    apply(str(job.database), written(tmp_path / "a.sql", load(), record(), record(3, "P2")))
    path = written(tmp_path / "b.sql", load(digest="d2"), record(rate="0.06"), record(3, "P3"))
    assert job.wdh("apply", "--expect-diff", path).stderr == (
        f"error: {path}: nobody asked what it would change; run wdh diff, review, and apply again\n"
    )
    assert job.wdh("diff", path).stdout.splitlines() == [
        f"{path}: 1 new, 1 changed, 0 unchanged, 0 deleted, 1 left over from the place's former loads",
        "    2024-11-01 P1 return_rate: 0.055000 -> 0.060000",
    ]
    job.execute("UPDATE performance SET return_rate = 0.06 WHERE plan_code = 'P1'")
    shifted = job.wdh("apply", "--expect-diff", path)
    assert shifted.returncode == 1
    assert "the ground has shifted since wdh diff (changed 1 -> 0, unchanged 0 -> 1)" in shifted.stderr
    job.wdh("diff", path)
    assert job.wdh("apply", "--expect-diff", path).returncode == 0
    assert [row[1] for row in job.query(ROWS.format("performance"))] == ["P1", "P2", "P3"]


def test_an_edited_plan_has_no_diff(job: Job, tmp_path: Path) -> None:
    """What is not what was written is not even asked about."""
    path = written(tmp_path / "plan.sql", load(), record())
    path.write_bytes(path.read_bytes().replace(b"0.055000", b"0.550000"))
    with pytest.raises(PlanError, match="not what was written"):
        diff(job, path)


def test_a_run_may_ask_about_its_plans(job: Job) -> None:
    """--diff shows it in the summary and keeps it beside each plan, also where the plan was written before."""
    workbook(job.inbox / NAME, [[2024, 11, "P1", "C1", 0.05, 1.0, 100]])
    job.load()
    workbook(job.inbox / NAME, [[2024, 11, "P1", "C1", 0.06, 1.0, 100], [2024, 11, "P2", "C1", 0.06, 1.0, 100]])
    assert job.run().returncode == 0
    done = job.run("--diff")
    assert done.returncode == 0, done.stderr
    counts = "1 new, 1 changed, 0 unchanged, 0 deleted, 0 left over from the place's former loads"
    assert f"would change: {counts}" in done.stdout
    path = Path(job.file()["plan"])
    assert json.loads(ground.path_of(path).read_text("utf-8"))["examples"] == [
        ["2024-11-01 P1 C1", "return_rate", "0.050000", "0.060000"]
    ]
    assert job.wdh("apply", "--expect-diff", path).returncode == 0
    refused = job.run("--diff", "--plan-only", "false")
    assert (refused.returncode, errors(refused)) == (
        40,
        ["ERROR: --diff: asks what plans would change before they are applied; leave out one of the two"],
    )
