"""What is run again after a failure, a mend or a change, and what is not: by the real luigi command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from job import NAME, REPOSITORY, Job, executed, steps, workbook

from wdh_luigi import run

ALL = ["ReadExcel", "ProcessTrustee", "Load"]


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def send(job: Job, number: int) -> Path:
    """Put a source's workbook of November into the inbox."""
    row = [2024, 11, f"P{number:02}", "600001", 0.055, 1.05, 1]
    return workbook(job.inbox / f"{number:02}号_{NAME}", [row])


def loaded(job: Job) -> set[str]:
    return {code for (code,) in job.query("SELECT plan_code FROM trustee_performance")}


def test_of_thirty_only_what_failed_is_run_again(job: Job) -> None:
    """Two of thirty fail, one as it is read and one as it is loaded: the others are loaded, and left alone after."""
    send(job, 1)
    job.load()
    job.execute("ALTER TABLE trustee_performance ADD CONSTRAINT no_p07 CHECK (plan_code <> 'P07')")
    for number in range(2, 31):
        send(job, number)
    (job.inbox / f"13号_{NAME}").write_text("no workbook")
    assert job.run("--plan-only", "false").returncode == 30
    assert loaded(job) == {f"P{number:02}" for number in range(1, 31)} - {"P07", "P13"}
    before = job.query("SELECT max(load_id) FROM wdh_load")
    job.execute("ALTER TABLE trustee_performance DROP CONSTRAINT no_p07")
    send(job, 13)
    again = job.load()
    assert sorted(steps(again.stderr)) == sorted([f"Load 07号_{NAME}", *(f"{step} 13号_{NAME}" for step in ALL)])
    assert loaded(job) == {f"P{number:02}" for number in range(1, 31)}
    assert len(job.query(f"SELECT FROM wdh_load WHERE load_id > {before[0][0]}")) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate_unit": "ratio"}, ALL[1:]),
        ({"max_reject_ratio": 0.9}, ALL[1:]),
        ({"table": "another"}, ALL[2:]),
        ({"max_delete_ratio": 0.9}, ALL[2:]),
        ({"sheet": "业绩"}, ALL),
        ({"description": "another", "on_tie": "newest"}, []),
    ],
    ids=lambda value: ",".join(value),
)
def test_a_changed_setting_runs_what_it_concerns(job: Job, changes: dict[str, Any], expected: list[str]) -> None:
    """What a setting has no part in stays as it is."""
    workbook(job.inbox / NAME, [[2024, 11, "P1", "600001", 0.055, 1.05, 1]])
    assert executed(job.run()) == ALL
    job.configure(**changes)
    assert executed(job.run()) == expected
    assert executed(job.run()) == []


def test_a_setting_that_changes_no_record_loads_nothing_again(job: Job) -> None:
    """The database is asked for the records, not for how they came about."""
    workbook(job.inbox / NAME, [[2024, 11, "P1", "600001", 0.055, 1.05, 1]])
    job.load()
    job.configure(rate_unit="ratio")
    job.load()
    assert job.query("SELECT count(*) FROM wdh_load") == [(1,)]
    assert job.file()["status"] == "unchanged"
    job.configure(rate_unit="percent")
    job.load()
    assert [float(row[3]) for row in job.table()] == [0.00055]
    assert job.query("SELECT count(*) FROM wdh_load") == [(2,)]


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("domains/trustee_performance.py", "Le(Decimal(10))", "Le(Decimal(5))", ALL[1:]),
        ("workbook/rules.py", '"""', '"""Mended. ', ALL),
        ("validate.py", '"""', '"""Mended. ', ALL[1:]),
        ("plan.py", '"""', '"""Mended. ', ALL[2:]),
        ("report.py", '"""', '"""Mended. ', []),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".py") else "",
)
def test_changed_code_runs_its_step(job: Job, module: str, old: str, new: str, expected: list[str]) -> None:
    """A bound in the domain is code: whoever changes it need not remember to raise a version."""
    package = job.folder / "code" / "wdh_luigi"
    shutil.copytree(REPOSITORY / "wdh_luigi", package, ignore=shutil.ignore_patterns("__pycache__"))
    job.environment["PYTHONPATH"] = str(package.parent)
    workbook(job.inbox / NAME, [[2024, 11, "P1", "600001", 0.055, 1.05, 1]])
    assert executed(job.run()) == ALL
    source = (package / module).read_text("utf-8")
    assert old in source
    (package / module).write_text(source.replace(old, new, 1), "utf-8")
    assert executed(job.run()) == expected


def test_a_lost_file_of_a_step_is_made_again(job: Job) -> None:
    """What somebody cleared away is missed where it is needed, and nowhere else."""
    path = workbook(job.inbox / NAME, [[2024, 11, "P1", "600001", 0.055, 1.05, 1]])
    job.load()
    shutil.rmtree(job.work / "trustee_performance" / "read")
    assert executed(job.load()) == [], "it is loaded"
    job.execute("TRUNCATE trustee_performance")
    assert executed(job.load()) == ["Load"], "the records are there"
    shutil.rmtree(job.work / "trustee_performance" / "process")
    path.touch()
    assert executed(job.load()) == ["ReadExcel", "ProcessTrustee"], "the records are not known without"
    assert job.query("SELECT count(*) FROM trustee_performance") == [(1,)]


def test_a_damaged_account_stops_no_other_workbook(job: Job) -> None:
    """What somebody edited in the work directory is that workbook's failure, which says what to delete."""
    for number in (1, 2):
        send(job, number)
    job.run()
    damaged = next(
        path for path in job.work.glob("*/process/*.json") if f"01号_{NAME}".encode() in path.read_bytes()[:1000]
    )
    damaged.write_bytes(b"{")
    assert job.run("--plan-only", "false").returncode == 30
    assert loaded(job) == {"P02"}
    first, second = job.summary()["files"]
    assert (second["path"], second["status"]) == (f"02号_{NAME}", "done")
    assert first["error"] == f"{damaged}: is not the JSON that was written; delete it and run again"
    damaged.unlink()
    job.load()
    assert loaded(job) == {"P01", "P02"}


def test_of_many_those_that_failed_are_shown_first(job: Job) -> None:
    """Among hundreds of lines nobody finds the one that matters; what was done before is not shown at all."""
    for number in range(1, 61):
        send(job, number)
    bad = job.inbox / f"60号_{NAME}"
    content = bad.read_bytes()
    bad.write_text("no workbook")
    done = job.run()
    assert done.returncode == 30
    assert f"  60  error: 60号_{NAME}: " in done.stdout
    assert "│ 10 done " in done.stdout
    bad.write_bytes(content)
    again = job.run()
    assert again.returncode == 0
    assert [number for number in (1, 59, 60) if f"│ {number} │" in again.stdout] == [60]
    assert "│ 59 unchanged " in again.stdout


def test_all_places_are_asked_for_as_each_one_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded, emptied by hand, loaded with other records, never loaded, and with no table at all."""
    for number in range(1, 5):
        send(job, number)
    job.load()
    job.execute("DELETE FROM trustee_performance WHERE plan_code = 'P02'")
    job.execute("UPDATE wdh_load SET records_digest = 'another' WHERE source = '03号'")
    job.execute("DELETE FROM wdh_load WHERE source = '04号'")
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    values: dict[str, Any] = {"mode": None, "plan_only": False, "sheet": None, "period": None, "diff": False}
    snapshot = run.freeze(domain="trustee_performance", **values, announce=print)
    each = [run.steps_of(snapshot, file.path) for file in snapshot.chosen]
    everything = run.complete(snapshot, plan_only=False)
    assert everything == [run.is_loaded(one) for one in each] == [True, False, False, False]
    for table in ("trustee_performance", "wdh_load"):
        job.execute(f"DROP TABLE {table}")
        everything = run.complete(snapshot, plan_only=False)
        assert everything == [run.is_loaded(one) for one in each] == [False] * 4
