"""wdh backfill: many months, one run each, that can be stopped, go on, and do not stop each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from job import Job, workbook

from wdh_luigi import lock, months
from wdh_luigi.errors import ConfigError


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def send(job: Job, month: str, source: str = "甲") -> Path:
    """Put a source's workbook of a month into the inbox."""
    year, number = month.split("-")
    row = [int(year), int(number), f"P{source}", "600001", 0.055, 1.05, 1]
    return workbook(job.inbox / month / f"{source}_{year}_{number}_受托业绩.xlsx", [row])


def backfill(job: Job, first: str, last: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = job.wdh("backfill", "--from", first, "--to", last, *arguments)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def told(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return what was told of each month."""
    lines = done.stdout.partition("\n\n")[0].splitlines()
    return dict(line.split("  ", 1) for line in lines)


def test_each_month_is_loaded_and_what_is_missing_is_told(job: Job) -> None:
    """Years of workbooks in one command; a month that nobody sent is no error, and is counted."""
    for month in ("2023-11", "2023-12", "2024-02"):
        send(job, month, "甲")
        send(job, month, "乙")
    send(job, "2022-01")
    done = backfill(job, "2023-11", "2024-03", "--plan-only", "false")
    assert done.returncode == 0, done.stderr
    two = "2 workbooks: 2 done"
    assert told(done) == {
        "2023-11": two,
        "2023-12": two,
        "2024-01": "no workbook",
        "2024-02": two,
        "2024-03": "no workbook",
    }
    assert "\n5 months: 3 done, 2 without a workbook\n" in done.stdout
    assert len(job.table()) == 6
    assert job.summary()["totals"]["done"] == 6
    again = backfill(job, "2023-11", "2024-03", "--plan-only", "false")
    assert again.returncode == 0
    assert "\n5 months: 3 unchanged, 2 without a workbook\n" in again.stdout
    assert job.query("SELECT count(*) FROM wdh_load") == [(6,)]


def test_plans_are_written_by_default(job: Job) -> None:
    """As for a run, loading is said on purpose; the command for it stands at the end."""
    send(job, "2024-01")
    done = backfill(job, "2024-01", "2024-02")
    assert done.returncode == 0
    assert done.stdout.endswith(
        "    wdh backfill --from 2024-01 --to 2024-02 --domain trustee_performance --plan-only false\n"
    )
    (plan,) = [file["plan"] for file in job.summary()["files"]]
    assert Path(plan).exists()
    assert job.query("SELECT to_regclass('trustee_performance')") == [(None,)]


def test_a_failed_month_does_not_stop_the_others(job: Job) -> None:
    """A tie in one month, a bad workbook in another: the rest is loaded, the end lists what failed."""
    for month in ("2024-01", "2024-02", "2024-03", "2024-04"):
        send(job, month)
    workbook(job.inbox / "2024-02" / "副本甲_2024_02_受托业绩.xlsx", [[2024, 2, "P", "1", 0.01, 1, 1]])
    send(job, "2024-02", "乙")
    tied = workbook(job.inbox / "2024-02" / "again" / "甲_2024_02_受托业绩.xlsx", [[2024, 2, "P", "1", 0.01, 1, 1]])
    send(job, "2024-03", "坏").write_text("no workbook")
    done = backfill(job, "2024-01", "2024-04", "--plan-only", "false")
    assert done.returncode == 30
    months_told = told(done)
    assert months_told["2024-01"] == months_told["2024-04"] == "1 workbook: 1 done"
    assert months_told["2024-02"].startswith("failed: inbox ")
    assert months_told["2024-03"] == "2 workbooks: 1 done, 1 failed"
    end = done.stdout.partition("\n\n")[2].splitlines()
    assert end[0] == "4 months: 2 done, 2 failed"
    assert end[1].startswith("    2024-02  inbox ")
    assert "two candidates tie for 2024-02" in end[1]
    assert end[2].startswith("    2024-03  2024-03/坏_2024_03_受托业绩.xlsx: ")
    tied.unlink()
    send(job, "2024-03", "坏")
    done = backfill(job, "2024-01", "2024-04", "--plan-only", "false")
    assert done.returncode == 0, done.stdout
    assert "\n4 months: 2 unchanged, 2 done\n" in done.stdout
    assert job.query("SELECT count(*), count(DISTINCT (period, source)) FROM wdh_load") == [(7, 7)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_goes_on_where_it_was(job: Job, number: signal.Signals) -> None:
    """Ctrl-C or kill -9 in the middle: what is done is not done twice."""
    everything = [f"2024-{month:02}" for month in range(1, 13)]
    for month in everything:
        send(job, month)
    process = job.start(job.wdh_command("backfill", "--from", "2024-01", "--to", "2024-12", "--plan-only", "false"))
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == "2024-01  1 workbook: 1 done\n"
    os.killpg(process.pid, number)
    _, err = process.communicate()
    assert "Traceback" not in err
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err == "interrupted: nothing is half done; run the same command again to go on\n"
    done = backfill(job, "2024-01", "2024-12", "--plan-only", "false")
    assert done.returncode == 0, done.stderr
    assert told(done)["2024-01"] == "1 workbook: 1 unchanged"
    assert told(done)["2024-12"] == "1 workbook: 1 done"
    assert len(job.table()) == 12
    assert job.query("SELECT count(*) FROM wdh_load") == [(12,)]


def test_a_month_costs_what_is_in_it(job: Job) -> None:
    """The inbox is scanned and told once, and each month's receipt holds that month alone."""
    everything = [f"2024-{month:02}" for month in range(1, 7)]
    for month in everything:
        send(job, month)
    (job.inbox / "notes.txt").touch()
    assert backfill(job, "2024-01", "2024-06").returncode == 0
    receipts = [json.loads(path.read_text("utf-8")) for path in (job.work / "trustee_performance/discover").iterdir()]
    held = sorted([file["path"].partition("/")[0] for file in receipt["files"]] for receipt in receipts)
    assert held == sorted([[month] for month in everything] + [[*everything, "notes.txt"]])


@pytest.mark.parametrize(
    ("first", "last", "says"),
    [
        ("2024-13", "2024-12", "--from: '2024-13' is no month; write it like 2024-11"),
        ("2024-01", "20241", "--to: '20241' is no month; write it like 2024-11"),
        ("2024-02", "2024-01", "--from: 2024-02 is after --to 2024-01; exchange them"),
        ("2024-01-01", "2024-01", "--from: '2024-01-01' is no month; write it like 2024-11"),
    ],
)
def test_months_that_are_none_are_refused(job: Job, first: str, last: str, says: str) -> None:
    """A slip in a month must not run others."""
    send(job, "2024-01")
    done = backfill(job, first, last)
    assert (done.returncode, done.stdout, done.stderr) == (40, "", f"error: {says}\n")


def test_one_backfill_or_run_at_a_time(job: Job) -> None:
    """A run that cron starts meanwhile is refused, and the other way round."""
    send(job, "2024-01")
    with lock.held(job.work / "trustee_performance" / "run.lock", shared=False):
        assert backfill(job, "2024-01", "2024-01").returncode == 10


def test_a_database_that_goes_away_ends_it(job: Job, postgres_server: str) -> None:
    """Without it every month would fail alike: one line, and the same command goes on when it is back."""
    for month in range(1, 13):
        send(job, f"2024-{month:02}")
    process = job.start(job.wdh_command("backfill", "--from", "2024-01", "--to", "2024-12", "--plan-only", "false"))
    assert process.stdout is not None
    process.stdout.readline()
    ((name,),) = job.query("SELECT current_database()")
    close = f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ask(postgres_server, close, end)
    out, err = process.communicate()
    assert process.returncode == 35, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: database ")
    assert "summary: " in out
    ask(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert backfill(job, "2024-01", "2024-12", "--plan-only", "false").returncode == 0
    assert job.query("SELECT count(*) FROM wdh_load") == [(12,)]


def ask(server: str, *statements: str) -> None:
    """Ask something of the server beside the job's database."""
    with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)


def test_months_are_counted_over_the_years() -> None:
    assert months.months("2023-11", "2024-02") == ["2023-11", "2023-12", "2024-01", "2024-02"]
    assert len(months.months("2005-01", "2024-12")) == 240
    with pytest.raises(ConfigError):
        months.months("2024-1", "2024-12")
