"""The main job by the real luigi command, on workbooks like the real ones, into a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import make_sample
import pytest
from job import NAME, Job, errors, executed, workbook

from wdh_luigi import embedded

NOVEMBER = date(2024, 11, 1)
ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]
RECORD = (NOVEMBER, "P1", "600001", Decimal("0.055000"), Decimal("1.0500"), Decimal("12000000.50"))


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def psql(job: Job, plan: str) -> subprocess.CompletedProcess[str]:
    """Apply a plan as its reviewer may: with psql and nothing else."""
    command = [embedded.psql(), "-X", "-q", "-f", plan, str(job.database)]
    environment = {**os.environ, "PGCLIENTENCODING": "LATIN1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_what_was_typed_is_what_the_table_holds(job: Job) -> None:
    """Each spelling that trustees use by hand is the same exact number."""
    workbook(
        job.inbox / NAME,
        [
            [2024, 11, "P-1", 600001, "5.5%", 1.05, 12000000.5],
            ["2024年", "11月", "p2", "600001", "（1.2%）", "¥1,234.56", "3.5万"],
            [24, "11", "Ｐ3", "600 001", "５．５％", "-", "1.2亿"],
            ["2024", 11.0, "P4", 600001.0, "-0.5%", "1.00005", "12,000,000.50"],
            [2024, 11, "P5", "A.1", "0%", None, 0],
        ],
    )
    job.load()
    assert job.table() == [
        (NOVEMBER, "P1", "600001", Decimal("0.055000"), Decimal("1.0500"), Decimal("12000000.50")),
        (NOVEMBER, "P2", "600001", Decimal("-0.012000"), Decimal("1234.5600"), Decimal("35000.00")),
        (NOVEMBER, "P3", "600001", Decimal("0.055000"), None, Decimal("120000000.00")),
        (NOVEMBER, "P4", "600001", Decimal("-0.005000"), Decimal("1.0001"), Decimal("12000000.50")),
        (NOVEMBER, "P5", "A.1", Decimal("0.000000"), None, Decimal("0.00")),
    ]


def test_the_sample_of_a_newcomer_loads_as_its_truth_says(job: Job) -> None:
    """Six workbooks in as many layouts, with titles, totals, merges and bad cells: every row is accounted for."""
    make_sample.make(job.inbox)
    job.load("--period", "all")
    samples = {sample.spec.path: sample for sample in make_sample.samples()}
    chosen = [sample for path, sample in samples.items() if "/V1/" not in path]
    truth = sorted(
        (r.report_date, r.plan_code, r.company_code, r.return_rate, r.net_asset_value, r.fund_scale)
        for sample in chosen
        for r in sample.records
    )
    assert truth == job.table()
    files = {file["path"]: file for file in job.summary()["files"]}
    assert sorted(files) == sorted(sample.spec.path for sample in chosen)
    for path, file in files.items():
        sample = samples[path]
        assert file["rows_accepted"] == len(sample.records)
        assert file["rows_duplicate"] == len(sample.duplicates)
        assert file["rows_skipped"] == len(sample.skipped)
        rejects = json.loads(Path(file["rejects"]).read_text("utf-8")) if file["rejects"] else []
        assert sorted((r["row"], r["cell"]) for r in rejects) == sorted((r.row, r.cell) for r in sample.rejects)
        assert file["rows_read"] == file["rows_accepted"] + file["rows_rejected"] + file["rows_duplicate"]


def test_a_plan_is_written_and_nothing_else_happens_by_default(job: Job) -> None:
    """A reviewer reads before anything is loaded; a plan asks no database."""
    workbook(job.inbox / NAME, [ROW])
    done = job.run(WDH_DATABASE_URI="postgresql://nobody@127.0.0.1:1/nowhere")
    assert done.returncode == 0, done.stderr
    file = job.file()
    assert (file["status"], file["deleted"], file["inserted"]) == ("done", None, 1)
    assert "DELETE FROM" in Path(file["plan"]).read_text("utf-8")
    assert "--plan-only false" in done.stdout
    assert job.query("SELECT to_regclass('public.trustee_performance')") == [(None,)]


def test_the_plan_by_psql_leaves_the_same_table(job: Job, tmp_path: Path) -> None:
    """What was reviewed is what runs: psql -f and execute agree, in whatever encoding psql's user works."""
    make_sample.make(job.inbox)
    assert job.run("--period", "all").returncode == 0
    for file in job.summary()["files"]:
        done = psql(job, file["plan"])
        assert (done.returncode, done.stderr) == (0, "")
    columns = (
        "report_date, plan_code, company_code, return_rate, net_asset_value, fund_scale, data_source, workbook_row"
    )
    everything = (
        f"SELECT {columns}, has_performance_data, validation_warnings FROM trustee_performance ORDER BY 1, 2, 3"
    )
    by_psql = job.query(everything)
    again = job.load("--period", "all")
    assert "Nothing had to be done" in again.stdout, "psql's receipts count"
    job.execute("DROP TABLE trustee_performance, wdh_load")
    job.load("--period", "all")
    assert by_psql == job.query(everything)


def test_a_rerun_executes_no_task(job: Job) -> None:
    """What is done costs nothing, in both modes of running, and after a touch or a copy."""
    path = workbook(job.inbox / NAME, [ROW])
    assert len(executed(job.run())) == 3
    again = job.run()
    assert executed(again) == []
    assert "Nothing had to be done" in again.stdout
    assert executed(job.load()) == ["Load"]
    path.touch()
    shutil.copy(path, job.inbox / NAME.replace(".xlsx", " (1).xlsx"))
    rerun = job.load()
    assert executed(rerun) == []
    assert (job.file()["status"], job.file()["inserted"]) == ("unchanged", 0)


def test_a_corrected_workbook_and_then_the_first_again(job: Job) -> None:
    """A, then B under the same name, then A again: the table follows, as the place's newest load decides."""
    path = workbook(job.inbox / NAME, [ROW])
    first = path.read_bytes()
    job.load()
    assert job.table() == [RECORD]
    workbook(path, [[*ROW[:4], 0.066, *ROW[5:]]])
    job.load()
    assert [row[3] for row in job.table()] == [Decimal("0.066000")]
    path.write_bytes(first)
    done = job.load()
    assert executed(done) == ["Load"], "what was read and sorted before is still there"
    assert job.table() == [RECORD]
    assert job.query("SELECT count(*) FROM wdh_load") == [(3,)]


def test_a_new_month_is_noticed_and_the_old_one_left_alone(job: Job) -> None:
    """A file dropped in is processed by the next run, and nothing else is."""
    workbook(job.inbox / NAME, [ROW])
    job.load("--period", "all")
    workbook(job.inbox / "2024_12_受托业绩.xlsx", [[2024, 12, *ROW[2:]]])
    done = job.load("--period", "all")
    assert len(executed(done)) == 3
    assert [file["status"] for file in job.summary()["files"]] == ["done", "unchanged"]
    assert [row[0] for row in job.table()] == [NOVEMBER, date(2024, 12, 1)]


def test_a_database_that_lost_its_rows_is_loaded_again(job: Job) -> None:
    """The receipt in the database decides, not a file: a truncated table is not taken for a loaded one."""
    workbook(job.inbox / NAME, [ROW])
    job.load()
    job.execute("TRUNCATE trustee_performance")
    job.load()
    assert job.table() == [RECORD]


def test_append_inserts_and_refuses_a_key_that_is_there(job: Job) -> None:
    """append never replaces and never doubles: a key that is in the table fails the load, naming it."""
    path = workbook(job.inbox / NAME, [ROW])
    job.load("--mode", "append")
    assert executed(job.load("--mode", "append")) == []
    workbook(path, [[*ROW[:4], 0.066, *ROW[5:]]])
    done = job.run("--mode", "append", "--plan-only", "false")
    assert done.returncode == 30
    assert any("1 of the keys are in the table already, for example 2024-11-01 P1 600001" in e for e in errors(done))
    assert job.table() == [RECORD]


def test_one_bad_workbook_does_not_hold_up_the_others(job: Job) -> None:
    """The good one is loaded, the bad one named in one line; after the mend only its steps run."""
    workbook(job.inbox / f"甲_{NAME}", [ROW])
    bad = job.inbox / f"乙_{NAME}"
    bad.write_text("not a workbook")
    done = job.run("--plan-only", "false")
    assert done.returncode == 30
    assert "Traceback" not in done.stderr + done.stdout
    assert job.table() == [RECORD]
    failed = next(file for file in job.summary()["files"] if file["status"] == "failed")
    assert failed["path"] == f"乙_{NAME}"
    assert failed["error"].startswith(f"乙_{NAME}: ")
    workbook(bad, [[2024, 11, "P2", *ROW[3:]]])
    assert len(executed(job.load())) == 3
    assert len(job.table()) == 2


def test_rows_that_fail_are_told_with_cell_value_and_reason(job: Job) -> None:
    """Whoever sent the workbook must find each bad cell from the reject alone; all cells of a row at once."""
    workbook(
        job.inbox / NAME,
        [
            ROW,
            [2024, 13, "P2", "6", "5.5%", "abc", "12,34"],
            [2024, 10, "P3", "6", 0.01, 1, 1],
            [2024, 11, "P1", 600001, 0.06, 1, 1],
        ],
    )
    job.configure(max_reject_ratio=1)
    job.load()
    file = job.file()
    counts = [file[f"rows_{name}"] for name in ("read", "accepted", "rejected", "duplicate")]
    assert counts == [4, 1, 3, 0]
    rejects = json.loads(Path(file["rejects"]).read_text("utf-8"))
    assert [(r["row"], r["cell"], r["heading"], r["field"], r["value"], r["reason"]) for r in rejects] == [
        (3, "B3", "月", "report_date", "13", "no month 13"),
        (3, "F3", "净值", "net_asset_value", "abc", "not a number"),
        (3, "G3", "规模", "fund_scale", "12,34", "not a number or amount"),
        (
            2,
            "",
            "",
            "company_code",
            "2024-11-01, P1, 600001",
            "the key (2024-11-01, P1, 600001) stands also in row 5, with other values",
        ),
        (
            5,
            "",
            "",
            "company_code",
            "2024-11-01, P1, 600001",
            "the key (2024-11-01, P1, 600001) stands also in row 2, with other values",
        ),
    ]
    assert [row[1] for row in job.table()] == ["P3"]


def test_too_many_bad_rows_fail_the_workbook(job: Job) -> None:
    """Half a month is worse than none: over max_reject_ratio nothing of the workbook is loaded."""
    workbook(job.inbox / NAME, [ROW, *([2024, 11, f"P{n}", "6", "abc", 1, 1] for n in range(2, 5))])
    done = job.run("--plan-only", "false")
    assert done.returncode == 30
    (line,) = [line for line in errors(done) if "max_reject_ratio" in line]
    assert "3 of 4 rows rejected" in line
    assert "cell E3 收益率 'abc': not a number or percentage (and 2 more like it)" in line
    assert Path(job.file()["rejects"]).exists()
    assert job.file()["status"] == "failed"


@pytest.mark.parametrize("name", ["a'; DROP TABLE trustee_performance; --", 'q"\n\\.\nSELECT 1;\n', "$wdh$ \\ % {x}"])
def test_a_file_name_is_data_whatever_it_holds(job: Job, name: str) -> None:
    """Names come from outside: quotes, newlines and SQL stay text in the plan, by us and by psql."""
    workbook(job.inbox / f"{name}2024年11月受托业绩.xlsx", [ROW])
    assert job.run().returncode == 0
    done = psql(job, job.file()["plan"])
    assert (done.returncode, done.stderr) == (0, "")
    assert job.query("SELECT data_source FROM trustee_performance") == [(f"{name}2024年11月受托业绩.xlsx",)]
    assert "Nothing had to be done" in job.load().stdout


def test_two_runs_at_a_time_load_once(job: Job) -> None:
    """cron and a person may start at the same moment: one loads, the other finds it done."""
    make_sample.make(job.inbox)
    both = [
        subprocess.Popen(
            job.command("--plan-only", "false", "--period", "all"),
            env=job.environment,
            cwd=job.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert job.query("SELECT count(*), count(DISTINCT (period, source)) FROM wdh_load") == [(6, 6)]


def test_several_workers_leave_the_same_table(job: Job) -> None:
    """The outcome never depends on the number of workers."""
    make_sample.make(job.inbox)
    done = job.load("--period", "all", "--workers", "2")
    assert len(job.table()) == sum(file["rows_accepted"] for file in job.summary()["files"])
    assert done.stdout.count("summary: ") == 1, "one process tells the summary"


def test_a_run_says_whether_its_plans_could_be_reviewed(job: Job) -> None:
    """Four eyes: whoever reads the summary sees which plan nobody could have read before it ran."""
    path = workbook(job.inbox / NAME, [ROW])
    job.run()
    job.load()
    assert "reviewed: a plan-only run had written this plan" in job.file()["notes"]
    workbook(path, [[*ROW[:4], 0.066, *ROW[5:]]])
    job.load()
    assert "not reviewed: no plan-only run before" in job.file()["notes"]
    assert executed(job.run()) == ["Load"], "a plan-only run shows it from now on"
    job.execute("TRUNCATE trustee_performance")
    job.load()
    assert "reviewed: a plan-only run had written this plan" in job.file()["notes"]


def test_an_edited_plan_is_not_applied(job: Job) -> None:
    """What runs is what was written: after a change of its bytes the load fails, and a plan made anew loads."""
    workbook(job.inbox / NAME, [ROW])
    job.run()
    plan = Path(job.file()["plan"])
    written = plan.read_bytes()
    plan.write_bytes(written.replace(b"0.055000", b"0.550000"))
    done = job.run("--plan-only", "false")
    assert done.returncode == 30
    assert "its bytes are not what was written; delete it and run again" in errors(done)[0]
    assert job.query("SELECT to_regclass('trustee_performance')") == [(None,)]
    plan.unlink()
    job.load()
    assert job.table() == [RECORD]
    assert plan.read_bytes() == written


def test_a_reviewed_plan_is_applied_later_and_elsewhere(job: Job, tmp_path: Path) -> None:
    """wdh apply needs the plan and the database, and nothing of the run that wrote it; and never loads twice."""
    workbook(job.inbox / NAME, [ROW])
    job.run()
    plan = tmp_path / "elsewhere.sql"
    shutil.move(job.file()["plan"], plan)
    shutil.rmtree(job.work)
    once, twice = (job.wdh("apply", plan) for _ in range(2))
    assert (once.returncode, once.stderr) == (0, "")
    assert once.stdout == f"{plan}: 0 deleted, 1 inserted (load 1)\n"
    assert twice.returncode == 1
    assert twice.stderr == f"error: {plan}: its place's newest load is this one already (load 1); nothing was done\n"
    assert job.table() == [RECORD]
    assert "every workbook is loaded already" in job.load().stdout, "as the database knows, with a new work directory"
    assert job.query("SELECT count(*) FROM wdh_load") == [(1,)]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_who_has_a_key_that_two_workbooks_hold_does_not_depend_on_workers(job: Job, workers: str) -> None:
    """overlap: replace gives it to the later path, once and for all: a rerun has nothing to do."""
    job.configure(overlap="replace")
    workbook(job.inbox / f"甲_{NAME}", [ROW, [2024, 11, "P2", *ROW[3:]]])
    workbook(job.inbox / f"乙_{NAME}", [[2024, 11, "P2", "600001", 0.09, 1, 1]])
    workbook(job.inbox / f"丙_{NAME}", [[2024, 11, "P2", "600001", 0.08, 1, 1]])
    last = max(path.name for path in job.inbox.iterdir())
    job.load("--workers", workers)
    assert job.query("SELECT data_source FROM trustee_performance WHERE plan_code = 'P2'") == [(last,)]
    assert "Nothing had to be done" in job.load("--workers", workers).stdout
    job.execute("TRUNCATE trustee_performance")
    job.load("--workers", workers)
    assert job.query("SELECT data_source FROM trustee_performance WHERE plan_code = 'P2'") == [(last,)]
    job.configure(overlap="error")
    job.configure(overlap="replace", max_delete_ratio=0.4)
    job.load()
    assert {(file["status"], file["deleted"], file["inserted"]) for file in job.summary()["files"]} == {
        ("unchanged", 0, 0)
    }


def test_luigi_build_writes_its_summary_when_it_ends(job: Job) -> None:
    """From Python there is no end of the process to wait for; each run has its own summary."""
    workbook(job.inbox / NAME, [ROW])
    code = """
import json, luigi, wdh_luigi
for _ in range(2):
    assert luigi.build([wdh_luigi.ProcessDomain(plan_only=False)], local_scheduler=True)
    print("status", json.load(open("work/summary.json"))["files"][0]["status"])
"""
    done = job.do([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == [
        "status done",
        "status unchanged",
    ]
    assert job.table() == [RECORD]
