"""wdh status: how far each place is, what the next run does for it and why, and nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from job import NAME, Job, executed, workbook
from rights import bound_by_modes

from wdh_luigi.cli import main

ROW = [2024, 11, "P1", "C1", "5.5%", 1.05, 100]
MAY = "2024年5月受托业绩.xlsx"


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    one = Job(tmp_path, database)
    one.configure(rate_unit="auto")
    return one


def row(plan: str = "P1", rate: str = "5.5%", month: int = 11) -> list[Any]:
    return [2024, month, plan, "C1", rate, 1.05, 100]


def wdh(job: Job, *arguments: str, **variables: str) -> Result:
    """Run the wdh command in this process, which is faster."""
    return CliRunner(env={**job.environment, **variables}).invoke(main, arguments, catch_exceptions=False)


def status(job: Job, *arguments: str, code: int, **variables: str) -> dict[str, Any]:
    """Return what wdh status --json tells of the only domain; the work directory is as it was."""
    before = {path: path.stat().st_mtime_ns for path in job.folder.rglob("*")}
    done = wdh(job, "status", "--json", *arguments, **variables)
    assert done.exit_code == code, done.output
    assert {path: path.stat().st_mtime_ns for path in job.folder.rglob("*")} == before
    (domain,) = json.loads(done.stdout)["domains"]
    return dict(domain)


def place(job: Job, *arguments: str, code: int, **variables: str) -> dict[str, Any]:
    (one,) = status(job, *arguments, code=code, **variables)["places"]
    return dict(one)


def told(one: dict[str, Any]) -> tuple[str, str | None, str]:
    return one["state"], one["next"], one["why"]


def test_a_place_is_followed_from_its_arrival_to_its_load(job: Job) -> None:
    """Chosen, planned, loaded: at each stage what is known, and what would run next."""
    workbook(job.inbox / "V2" / NAME, [row(), row("P2", "abc")])
    new = place(job, code=3)
    assert told(new) == ("chosen", "ReadExcel", "not read in this work directory")
    assert (new["workbook"], new["version"], new["period"], new["rows"]) == (f"V2/{NAME}", 2, "2024-11", None)
    assert job.run().returncode == 0
    planned = place(job, code=3)
    assert told(planned) == ("planned", "Load", "planned, not loaded")
    assert planned["rows"] == {"read": 2, "accepted": 1, "rejected": 1, "duplicate": 0, "skipped": 0}
    assert Path(planned["plan"]).exists()
    assert Path(planned["rejects"]).exists()
    assert planned["reviewable"] is True
    job.load()
    loaded = place(job, code=0)
    assert told(loaded) == ("loaded", None, "loaded")
    ((load_id, by, digest),) = job.query("SELECT load_id, loaded_by, plan_digest FROM wdh_load")
    says = loaded["loaded"]
    assert (says["load_id"], says["by"], says["plan_digest"], says["standing"]) == (load_id, by, digest, 1)
    assert loaded["plan_digest"] == digest


def test_without_a_database_planned_is_all_there_is(job: Job) -> None:
    """Nobody is asked, and it says so: exit code 0 means planned then."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    del job.environment["WDH_DATABASE_URI"]
    assert told(place(job, code=0)) == ("planned", None, "planned; whether it is loaded is not known")
    assert status(job, code=0)["database"] == "WDH_DATABASE_URI is not set"


def test_a_database_that_is_down_is_an_error_beside_what_is_known(job: Job) -> None:
    """Who is called at night sees both: that it is down, and how far everything was."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    away = "postgresql://nobody:secret@127.0.0.1:1/away"
    assert place(job, code=1, WDH_DATABASE_URI=away)["state"] == "planned"
    done = wdh(job, "status", WDH_DATABASE_URI=away)
    assert done.stderr.startswith("error: database away on 127.0.0.1:1: cannot connect")
    assert "what is loaded is not known: database away" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_changed_setting_is_named_with_the_step_that_it_concerns(job: Job) -> None:
    """The next run begins there, and says the same by what it executes."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    changed = {
        ("sheet", None, 0): ("chosen", "ReadExcel", "sheet None -> 0"),
        ("table", "trustee_performance", "other"): ("validated", "Load", "table trustee_performance -> other"),
        ("max_reject_ratio", 0.5, 0.75): (
            "read",
            "ProcessTrustee",
            "max_reject_ratio 0.5 -> 0.75",
        ),
        ("rate_unit", "auto", "ratio"): ("read", "ProcessTrustee", "rate_unit auto -> ratio"),
    }
    for (name, former, value), why in changed.items():
        job.configure(**{name: value})
        assert told(place(job, code=3)) == why
        job.configure(**{name: former})
    job.configure(rate_unit="ratio")
    assert executed(job.run()) == ["ProcessTrustee", "Load"]
    assert told(place(job, code=3)) == ("planned", "Load", "planned, not loaded")


def test_a_corrected_workbook_is_to_be_read_again(job: Job) -> None:
    """By the receipts, which say what is loaded; without them by the accounts of this work directory."""
    workbook(job.inbox / NAME, [row()])
    job.load()
    workbook(job.inbox / NAME, [row(rate="6%")])
    assert told(place(job, code=3)) == ("chosen", "ReadExcel", "the workbook changed since load 1")
    workbook(job.inbox / "V2" / NAME, [row(rate="7%")])
    assert told(place(job, code=3))[2] == f"takes the place of {NAME} (load 1)"
    del job.environment["WDH_DATABASE_URI"]
    assert told(place(job, code=3))[2] == f"takes the place of {NAME} (load 1)"


def test_why_a_plan_is_to_be_loaded(job: Job) -> None:
    """Rows that are gone, another load in its place, an emptied database: each has its words."""
    workbook(job.inbox / NAME, [row(), row("P2")])
    job.load()
    job.execute("DELETE FROM trustee_performance WHERE plan_code = 'P2'")
    assert told(place(job, code=3)) == ("planned", "Load", "planned; of load 1's 2 rows the table holds 1")
    (job.inbox / NAME).rename(job.folder / "first.xlsx")
    workbook(job.inbox / NAME, [row(rate="6%")])
    job.load()
    (job.folder / "first.xlsx").replace(job.inbox / NAME)
    why = f"planned; the place's newest load (2, {NAME}) is of other records"
    assert told(place(job, code=3)) == ("planned", "Load", why)
    job.execute("DROP TABLE trustee_performance")
    assert told(place(job, code=3)) == ("planned", "Load", why)
    job.execute("DROP TABLE wdh_load")
    why = "planned; load 1 is not in this database: it is another one, or was emptied"
    assert told(place(job, code=3)) == ("planned", "Load", why)
    job.load()
    assert told(place(job, code=0))[0] == "loaded"


def test_a_reverted_load_stays_so(job: Job) -> None:
    """There is nothing to do until the workbook changes, and it does not look loaded."""
    job.configure(keep_history=True)
    workbook(job.inbox / NAME, [row()])
    job.load()
    assert job.wdh("revert", "1").returncode == 0
    one = place(job, code=0)
    assert told(one) == ("reverted", None, "reverted, until the workbook changes or wdh apply is given its plan")
    assert one["loaded"]["reverted_by"]


def test_a_failure_is_told_until_it_is_mended(job: Job) -> None:
    """The line of the log, and when; the mended workbook is another."""
    workbook(job.inbox / NAME, [row(rate="abc")])
    assert job.run().returncode == 30
    one = place(job, code=3)
    (failure,) = one["failures"]
    assert (one["state"], one["next"], failure["step"]) == ("failed", "ProcessTrustee", "ProcessTrustee")
    assert one["why"].endswith(failure["error"])
    assert "Traceback" not in json.dumps(one)
    assert Path(one["rejects"]).exists()
    shown = wdh(job, "status")
    assert "1 failed; 1 to do" in shown.stdout
    workbook(job.inbox / NAME, [row()])
    assert place(job, code=3)["failures"] == []


def test_what_cannot_be_read_is_told_of_its_place_alone(job: Job) -> None:
    """A damaged account or failure does not hide the other places."""
    workbook(job.inbox / NAME, [row()])
    workbook(job.inbox / f"乙{NAME}", [row("P9")])
    assert job.run().returncode == 0
    plain, other = status(job, code=3)["places"]
    (damaged,) = (job.work / "trustee_performance" / "load").glob(f"{Path(plain['plan']).stem[8:]}*.json")
    damaged.write_text("{")
    first, second = status(job, code=3)["places"]
    assert told(first) == ("failed", "Load", f"{damaged}: is not the JSON that was written; delete it and run again")
    assert second == other
    damaged.write_text("[]")
    assert status(job, code=3)["places"][0]["why"] == f"{damaged}: is not what was written; delete it and run again"


def test_loads_without_a_workbook_are_counted(job: Job) -> None:
    """Somebody took a workbook away: its rows stand, and nobody would know."""
    job.configure(select="latest_by_year_month_and_version")
    workbook(job.inbox / NAME, [row()])
    workbook(job.inbox / f"甲_{MAY}", [row(month=5)])
    job.load()
    (job.inbox / f"甲_{MAY}").unlink()
    (gone,) = status(job, code=0)["gone"]
    assert (gone["period"], gone["source"], gone["workbook"]) == ("2024-05", "甲", f"甲_{MAY}")
    assert "1 loaded, no workbook in the inbox any more: 2024-05 甲\n" in wdh(job, "status").stdout
    assert status(job, "--period", "2024-11", code=0)["gone"] == []


def test_a_period_that_a_run_does_not_take_is_shown_when_asked_for(job: Job) -> None:
    """The default is what a run takes: the newest month; its elder is not gone."""
    workbook(job.inbox / NAME, [row()])
    workbook(job.inbox / MAY, [row(month=5)])
    job.load("--period", "all")
    assert [one["period"] for one in status(job, code=0)["places"]] == ["2024-11"]
    assert status(job, code=0)["gone"] == []
    assert [one["period"] for one in status(job, "--period", "all", code=0)["places"]] == ["2024-05", "2024-11"]
    assert place(job, "--period", "2024-05", code=0)["workbook"] == MAY


def test_each_place_is_one_line_whatever_its_name(job: Job) -> None:
    """It is read by people and by grep: no colours, no wrapping, nothing that a file name could break."""
    hostile = "甲\x1b[31m'; DROP TABLE x; --\n乙" + "长" * 40
    workbook(job.inbox / f"{hostile}_{NAME}", [row()])
    workbook(job.inbox / NAME, [row("P2")])
    assert job.run().returncode == 0
    done = job.wdh("status", COLUMNS="40", FORCE_COLOR="1")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert len([line for line in lines if line.startswith("2024-11")]) == 2
    assert next(line.split()[1] for line in lines if line.startswith("2024-11")) == "planned"
    assert r"甲\x1b[31m'; DROP TABLE x; --\n乙" in done.stdout
    assert lines[-2] == "2 places: 2 planned; 2 to do"


def test_a_read_only_work_directory_is_no_matter(job: Job) -> None:
    """Nothing is written, so that nobody needs the right to."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    del job.environment["WDH_DATABASE_URI"]  # the server's folder is another matter
    folders = [job.work, *(path for path in job.work.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with bound_by_modes():
            done = wdh(job, "status")
        assert (done.exit_code, done.stderr) == (0, "")
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--domain", "x"], "no domain 'x'"),
        (["--period", "2024-13"], "--period: '2024-13' is no period"),
        (["--period", "2023-01"], "holds no workbook of 2023-01"),
    ],
)
def test_a_wrong_option_is_one_line(job: Job, arguments: list[str], error: str) -> None:
    """As a run says it."""
    workbook(job.inbox / NAME, [row()])
    done = wdh(job, "status", *arguments)
    assert done.exit_code == 1
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_inbox_is_one_line(job: Job) -> None:
    """An inbox that is not there is an error, and no sign that there is nothing to do."""
    job.inbox.rmdir()
    done = wdh(job, "status")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert f"inbox {job.inbox}: does not exist" in done.stderr


def test_an_unreadable_workbook_says_so(job: Job) -> None:
    """The next run tries again, and the reason is known before."""
    os.mkfifo(job.inbox / NAME)
    assert told(place(job, code=3)) == ("chosen", "ReadExcel", "is not a regular file")
