"""wdh clean: what nothing refers to any longer goes; what a run, an apply or a trace would look for stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job import NAME, Job, executed, workbook
from rights import bound_by_modes

from wdh_luigi import run
from wdh_luigi.cli import main
from wdh_luigi.steps import Steps

DOMAIN = "trustee_performance"
CORRECTED = "更正_甲'; --\n乙.xlsx"


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


def row(plan: str = "P1", rate: str = "5.5%") -> list[Any]:
    return [2024, 11, plan, "C1", rate, 1.05, 100]


def clean(job: Job, *arguments: str, code: int = 0, **variables: str) -> Result:
    """Run wdh clean in this process, which is faster."""
    runner = CliRunner(env={**job.environment, **variables})
    done = runner.invoke(main, ["clean", *arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def age(job: Job, *, days: int = 365) -> None:
    """Let everything in the work directory be a year old."""
    then = time.time() - days * 86_400
    for path in job.work.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def kept(job: Job) -> set[str]:
    """Return the files of the work directory, without the lock that clean leaves, free."""
    paths = {str(path.relative_to(job.work)) for path in job.work.rglob("*") if not path.is_dir()}
    return paths - {f"{DOMAIN}/run.lock"}


def account(job: Job) -> Path:
    """Return the account of the only plan."""
    (path,) = (path for path in (job.work / DOMAIN / "load").iterdir() if path.suffixes == [".json"])
    return path


def test_what_a_correction_replaced_goes_when_it_is_old_and_the_next_run_does_the_same(job: Job) -> None:
    """The first workbook is neither in the inbox nor its place's last load; all of the second is needed."""
    workbook(job.inbox / NAME, [row(), row("P2", "abc")])
    job.load()
    first = kept(job)
    workbook(job.inbox / NAME, [row(rate="6%"), row("P2", "abc")])
    job.load()
    second = kept(job) - first
    before = kept(job)
    assert "0 removed" in clean(job).output
    assert kept(job) == before
    age(job)
    told = clean(job, "--dry-run").output
    assert "would be removed" in told
    assert kept(job) == before
    done = clean(job).output
    assert done.splitlines()[:-1] == told.splitlines()[:-1]
    assert kept(job) == second | {"hashes.json", "summary.json", f"{DOMAIN}/summary.json"}
    assert {path.split("/")[1] for path in before - kept(job)} == {
        "load", "plans", "rejects", "process", "read", "discover",
    }  # fmt: skip
    assert executed(job.load()) == []


def test_a_clean_between_plan_and_load_does_not_hinder_the_load(job: Job) -> None:
    """A plan that was reviewed a year ago is still what runs, and still counts as reviewed."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    age(job)
    before = kept(job)
    clean(job, "--older-than", "0d")
    assert kept(job) == before
    done = job.load()
    assert executed(done) == ["Load"]
    assert "a plan-only run had written this plan" in done.stdout


@pytest.mark.parametrize("asked", [True, False])
def test_the_last_load_of_a_place_stays_whole(job: Job, asked: bool) -> None:
    """Its plan can be applied again, and its cells be looked up, also when its workbook left the inbox."""
    workbook(job.inbox / NAME, [row()])
    job.load()
    plan, rests_on = job.file()["plan"], json.loads(account(job).read_text("utf-8"))["process"]
    assert job.wdh("diff", plan).returncode == 0
    before = kept(job)
    (job.inbox / NAME).unlink()
    workbook(job.inbox / "2024年12月受托业绩.xlsx", [row()])
    if not asked:
        del job.environment["WDH_DATABASE_URI"]
    age(job)
    clean(job)
    gone = before - kept(job)
    assert {path.split("/")[1] for path in gone} == {"discover"}
    assert f"{DOMAIN}/process/{rests_on}.accepted.json" in kept(job)
    job.environment["WDH_DATABASE_URI"] = str(job.database)
    traced = job.wdh("trace", DOMAIN, "plan_code=P1").stdout
    assert "as read into" in traced
    assert plan in traced
    job.execute("DELETE FROM trustee_performance")
    done = job.wdh("apply", plan)
    assert (done.returncode, len(job.table())) == (0, 1), done.stderr


def test_a_load_by_another_command_is_known_by_its_receipt(job: Job) -> None:
    """wdh apply and psql leave no account here: the database says which plan it was."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    plan = job.file()["plan"]
    assert job.wdh("apply", plan).returncode == 0
    workbook(job.inbox / NAME, [row(rate="6%")])
    age(job)
    clean(job)
    assert Path(plan).exists()
    clean(job, WDH_DATABASE_URI="")
    assert not Path(plan).exists()


def test_what_is_young_keeps_what_it_was_made_from(job: Job) -> None:
    """A setting changed last week, the workbook was read last year: the young plan's cells can still be looked up."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    age(job)
    job.configure(max_reject_ratio=0.75)
    assert executed(job.run()) == ["ProcessTrustee", "Load"]
    (job.inbox / NAME).rename(job.inbox / f"甲{NAME}")
    read = {path for path in kept(job) if "/read/" in path}
    clean(job)
    assert len(read) == 2
    assert read <= kept(job)
    assert len([*(job.work / DOMAIN / "plans").iterdir()]) == 1


def test_a_clock_that_is_off_takes_no_last_load_for_an_older_one(job: Job) -> None:
    """Without a database, the last load is the last by its time and the last by its number."""
    plans = []
    for rate in ("5%", "6%"):
        workbook(job.inbox / NAME, [row(rate=rate)])
        job.load()
        plans.append(Path(job.file()["plan"]))
    (job.inbox / NAME).rename(job.inbox / f"甲{NAME}")
    age(job)
    then = time.time() - 200 * 86_400
    (first,) = (job.work / DOMAIN / "load").glob(f"{plans[0].stem.rpartition('-')[2]}*.loaded.json")
    os.utime(first, (then, then))
    clean(job, WDH_DATABASE_URI="")
    assert [plan.exists() for plan in plans] == [True, True]
    age(job)
    clean(job, WDH_DATABASE_URI="")
    assert [plan.exists() for plan in plans] == [False, True]


def test_a_reverted_load_and_the_one_before_it_stay(job: Job) -> None:
    """The rows in the table are the elder's; the reverted one may be applied again."""
    job.configure(keep_history=True)
    plans = []
    for rate in ("5%", "6%", "7%"):
        workbook(job.inbox / NAME, [row(rate=rate)])
        job.load()
        plans.append(Path(job.file()["plan"]))
    assert job.wdh("revert", "3").returncode == 0
    workbook(job.inbox / NAME, [row(rate="8%")])
    age(job)
    clean(job)
    assert [plan.exists() for plan in plans] == [False, True, True]


def test_candidates_that_tie_are_all_needed(job: Job) -> None:
    """Nobody knows yet which of them the mend takes, and a month that nobody runs must not stop the cleaning."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    before = kept(job)
    workbook(job.inbox / f"二/{NAME}", [row("P2")])
    workbook(job.inbox / "2024年12月受托业绩.xlsx", [row()])
    workbook(job.inbox / "2099年12月受托业绩.xlsx", [row()])
    age(job)
    clean(job)
    assert {path.split("/")[1] for path in before - kept(job)} == {"discover"}


def test_a_failure_stays_while_its_workbook_is_there(job: Job) -> None:
    """wdh status tells of it; the mended workbook's predecessor is nobody's matter."""
    workbook(job.inbox / NAME, [row(rate="abc")])
    assert job.run().returncode == 30
    age(job)
    (failure,) = (job.work / DOMAIN / "failed").iterdir()
    before = kept(job)
    clean(job)
    assert kept(job) == before, "the rows as read too: a mended setting needs them"
    workbook(job.inbox / NAME, [row()])
    assert " 1 " in next(line for line in clean(job).output.splitlines() if line.startswith("failed"))
    assert not failure.exists()


def test_what_a_killed_run_left_goes_after_a_day(job: Job) -> None:
    """A real kill -9 in the middle of a step: its unfinished file is litter once its process is gone, and old."""
    workbook(job.inbox / NAME, [row(f"P{number}") for number in range(20_000)])
    folder = job.work / DOMAIN
    with subprocess.Popen(
        job.command(), cwd=job.folder, env=job.environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        deadline = time.monotonic() + 60
        while not (litter := [*folder.glob("*/.*.tmp")]) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(run.pid, signal.SIGSTOP)
        litter = [*folder.glob("*/.*.tmp")]
        if litter:
            os.utime(litter[0], (0, 0))
            clean(job, "--older-than", "0d")
            assert litter[0].exists(), "its process stands still, and is there"
        os.killpg(run.pid, signal.SIGKILL)
    assert litter
    os.utime(litter[0])
    clean(job, "--older-than", "0d")
    assert litter[0].exists(), "it may be of another machine"
    then = time.time() - 2 * 86_400
    os.utime(litter[0], (then, then))
    clean(job)
    assert litter[0].exists(), "younger than 90 days"
    done = clean(job, "--older-than", "1d")
    assert not litter[0].exists()
    assert "litter" in done.output
    assert job.run().returncode == 0


def test_only_what_the_product_wrote_is_touched(job: Job, tmp_path: Path) -> None:
    """Notes beside the plans, links, folders of the same names: a file is known by its folder and its whole name."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    folder, key = job.work / DOMAIN, "0" * 32
    outside = tmp_path / "outside"
    outside.mkdir()
    others = [
        "plans/2024-11-0123456789ab.sql.orig", "plans/review.txt", "plans/2024-11-0123456789ab.txt", "read/notes.json",
        f"read/{key}.xlsx", f"read/{key.upper()[:-1]}A.json", "rejects/mine.xlsx", f"rejects/{key[:12]}/mine.xlsx",
        f"other/{key}.json", ".vimrc.123.0123abcd.tmp", "read/.notes.json.123.0123abcd.tmp", f"read/{key}.json/x",
        f"{key}.json", "rejects/notes/更正_x.xlsx", "run.lock",
    ]  # fmt: skip
    for name in others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (job.work / ".vimrc.123.0123abcd.tmp").touch()
    (job.work / "another" / "read").mkdir(parents=True)
    (job.work / "another" / "read" / f"{key}.json").touch()  # of a domain that another data_sources.yml has
    (outside / f"{key}.json").touch()
    (folder / "read" / f"{'1' * 32}.json").symlink_to(outside / f"{key}.json")
    age(job)
    before = kept(job) | {f"{DOMAIN}/run.lock"}
    assert clean(job, "--older-than", "0d").output.startswith("0 removed")
    assert kept(job) | {f"{DOMAIN}/run.lock"} == before
    ours = [
        f"read/.{key}.rows.json.999999999.0123abcd.tmp", f"rejects/{'1' * 12}/{CORRECTED}", f"process/{key}.json",
        f"rejects/{'1' * 12}/.{CORRECTED}.999999999.0123abcd.tmp", "plans/undated-0123456789ab.diff.json",
        f"load/{key}.loaded.json", f"read/{key}.json-luigi-tmp-0123456789", ".summary.json.999999999.0123abcd.tmp",
    ]  # fmt: skip
    shutil.rmtree(folder / "read" / f"{key}.json")
    for name in ours:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (job.work / ".hashes.json.999999999.0123abcd.tmp").touch()
    before -= {f"{DOMAIN}/read/{key}.json/x"}
    age(job)
    assert f"{len(ours) + 1} removed" in clean(job, "--older-than", "0d").output
    assert kept(job) | {f"{DOMAIN}/run.lock"} == before
    assert not (folder / "rejects" / ("1" * 12)).exists()


@pytest.mark.parametrize("name", ["", "read"])
def test_nothing_is_removed_through_a_link(job: Job, tmp_path: Path, name: str) -> None:
    """A folder that leads elsewhere is told, and left as it is, with the rest of its domain."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    workbook(job.inbox / NAME, [row(rate="6%")])
    folder = job.work / DOMAIN / name
    shutil.move(folder, tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    age(job)
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, (0, 0))
    before = kept(job)
    done = clean(job, code=1)
    assert f"error: {DOMAIN}: nothing was removed: {folder}: is a link, or no folder" in done.stderr
    assert kept(job) == before


@pytest.mark.parametrize("kind", ["no folder", "a file", "a home"])
def test_another_folder_than_a_work_directory_comes_to_no_harm(job: Job, tmp_path: Path, kind: str) -> None:
    """WDH_WORK_DIR may be mistyped."""
    workbook(job.inbox / NAME, [row()])
    home = tmp_path / "home"
    if kind == "a home":
        (home / DOMAIN / "plans").mkdir(parents=True)
        (home / DOMAIN / "plans" / "2024.sql").touch()
        (home / "hashes.json").write_text('{"/gone": "mine"}')
        (home / ".cache.tmp").touch()
    elif kind == "a file":
        home.touch()
    before = sorted(tmp_path.rglob("*"))
    done = clean(job, "--older-than", "0d", code=1 if kind == "a file" else 0, WDH_WORK_DIR=str(home))
    assert "0 removed" in done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_at_work_is_waited_for(job: Job) -> None:
    """What it has just found done must be there when it comes to use it."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    workbook(job.inbox / NAME, [row(rate="6%")])
    age(job)
    old = kept(job) - {"hashes.json"}
    with job.start(job.wdh_command("run")) as run:
        waiting = job.work / DOMAIN / "run.lock"
        while not waiting.exists() or not waiting.read_bytes():
            time.sleep(0.001)
        os.killpg(run.pid, signal.SIGSTOP)
        done = clean(job, code=1)
        os.killpg(run.pid, signal.SIGKILL)
    assert f"{DOMAIN}: nothing was removed: {job.work / DOMAIN}: a run is going on" in done.stderr
    assert old <= kept(job)
    assert "a run is going on" not in clean(job).output
    assert not old <= kept(job)


def test_what_may_not_be_removed_is_told_and_the_rest_goes(job: Job) -> None:
    """One folder without the right to write must not keep all the others full."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    workbook(job.inbox / NAME, [row(rate="6%")])
    age(job)
    del job.environment["WDH_DATABASE_URI"]
    read, process = job.work / DOMAIN / "read", job.work / DOMAIN / "process"
    read.chmod(0o555)
    try:
        with bound_by_modes():
            done = clean(job, code=1)
        assert len(done.stderr.splitlines()) == 2
        assert f"error: {read}/" in done.stderr
        assert "cannot be removed (Permission denied)" in done.stderr
        assert (len([*read.iterdir()]), [*process.iterdir()]) == (2, [])
        for folder in (job.work / DOMAIN, job.work):
            folder.chmod(0o555)
            with bound_by_modes():
                assert "cannot be" in clean(job, code=1).stderr
                assert clean(job, "--dry-run").stderr == ""
    finally:
        for folder in (job.work, job.work / DOMAIN, read):
            folder.chmod(0o755)


def test_nothing_goes_where_it_cannot_be_known_what_is_needed(job: Job) -> None:
    """No inbox (a share that is not mounted), no database, a damaged account, a folder closed to us: told, and left."""
    workbook(job.inbox / NAME, [row()])
    job.load()
    workbook(job.inbox / NAME, [row(rate="6%")])
    age(job)
    before = kept(job)
    (job.work / "hashes.json").write_text(json.dumps({str(job.inbox / "gone.xlsx"): [1, 1, 1, 1, "0" * 64]}))
    hashes = (job.work / "hashes.json").read_bytes()
    away = "postgresql://nobody:secret@127.0.0.1:1/away"
    assert "error: database away on 127.0.0.1:1: cannot connect" in clean(job, code=1, WDH_DATABASE_URI=away).stderr
    assert "does not exist" in clean(job, code=1, WDH_DATA_BASE_DIR=str(job.folder / "unmounted")).stderr
    (job.folder / "empty").mkdir()
    assert "the folder is empty" in clean(job, code=1, WDH_DATA_BASE_DIR=str(job.folder / "empty")).stderr
    damaged = account(job)
    good = damaged.read_bytes()
    damaged.write_bytes(b"{")
    os.utime(damaged, (0, 0))
    assert (
        f"error: {DOMAIN}: nothing was removed: {damaged}: is not the JSON that was written"
        in clean(job, code=1).stderr
    )
    damaged.write_bytes(good)
    os.utime(damaged, (0, 0))
    assert kept(job) == before
    assert (job.work / "hashes.json").read_bytes() == hashes


def test_a_broken_failure_is_no_hindrance(job: Job) -> None:
    """Nothing rests on it."""
    workbook(job.inbox / NAME, [row()])
    assert job.run().returncode == 0
    broken = job.work / DOMAIN / "failed" / f"{'0' * 32}.json"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text("{")
    age(job)
    clean(job)
    assert not broken.exists()


def test_hashes_of_files_that_are_gone_are_dropped(job: Job) -> None:
    """The others are kept: to hash a large inbox again takes minutes."""
    workbook(job.inbox / NAME, [row()])
    workbook(job.inbox / f"甲{NAME}", [row("P2")])
    for path in job.inbox.iterdir():
        os.utime(path, (0, 0))
    time.sleep(2.1)  # younger files are not remembered
    assert job.run().returncode == 0
    (job.inbox / f"甲{NAME}").unlink()
    assert "hashes" in clean(job).output
    assert list(json.loads((job.work / "hashes.json").read_text("utf-8"))) == [str(job.inbox / NAME)]


def test_a_wrong_span_of_time_is_told() -> None:
    """A number alone may be days or seconds."""
    done = CliRunner().invoke(main, ["clean", "--older-than", "90"])
    assert done.exit_code == 2
    assert "'90' is no span of time: write it like 90d, 12h or 4w." in done.output


def to_do(work: Path, *, plan_only: bool) -> list[tuple[str, str]]:
    """Return the steps that a run over a work directory executes, in their order, as Luigi finds them."""
    steps = []
    for one in chosen(work):
        if not (one.reviewable() if plan_only else run.is_loaded(one)):
            if not (one.accepted_path.exists() and one.rejects_path.exists() and one.outcome_path.exists()):
                if not (one.rows_path.exists() and one.profile_path.exists()):
                    steps.append((one.file.path, "ReadExcel"))
                steps.append((one.file.path, "ProcessTrustee"))
            steps.append((one.file.path, "Load"))
    return steps


def chosen(work: Path) -> list[Steps]:
    snapshot = run.look(DOMAIN, "all")
    return [Steps(work, snapshot, file) for file in snapshot.chosen]


def execute(work: Path, *, plan_only: bool) -> list[tuple[str, str]]:
    """Do what a run does, but for Luigi; return what it executed."""
    executed = to_do(work, plan_only=plan_only)
    by_path = {one.file.path: one for one in chosen(work)}
    for path, step in executed:
        one = by_path[path]
        if step == "ReadExcel":
            one.read()
        elif step == "ProcessTrustee":
            one.process()
        else:
            if not (one.reviewable() if plan_only else one.planned()):
                one.plan(reviewable=plan_only)
            if not plan_only:
                run.apply(one)
    return executed


EVENTS = st.lists(
    st.tuples(st.sampled_from(["send", "remove", "settings", "plan", "load"]), st.integers(0, 2), st.integers(0, 2)),
    min_size=3,
    max_size=8,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_cleaning_never_changes_what_the_next_run_does(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, int, int]]
) -> None:
    """Over histories of workbooks that come, are corrected and go, of settings, plans and loads, cleaned each time."""
    job = Job(Path(tempfile.mkdtemp(dir=tmp_path)), database)
    job.configure(select="latest_by_year_month_and_version")
    job.execute("DROP TABLE IF EXISTS trustee_performance, wdh_load")
    workbook(job.inbox / NAME, [row("P9")])
    both = uncleaned, _ = job.folder / "uncleaned", job.work
    for event, which, value in [*events, ("plan", 0, 0), ("load", 0, 0)]:
        path = job.inbox / ["", "V1", "V2"][value] / f"{'甲乙丙'[which]}_{NAME}"
        if event == "send":
            workbook(path, [row(f"P{which}", f"{value + 1}%")])
        elif event == "remove":
            path.unlink(missing_ok=True)
        elif event == "settings":
            job.configure(max_reject_ratio=0.5 + value / 10)
        else:
            for name, said in job.environment.items():
                monkeypatch.setenv(name, said)
            job.work.mkdir(exist_ok=True)
            age(job)
            shutil.copytree(job.work, uncleaned)
            clean(job, "--older-than", "0d")
            for plan_only in (True, False):
                assert to_do(job.work, plan_only=plan_only) == to_do(uncleaned, plan_only=plan_only)
            assert execute(uncleaned, plan_only=True) == execute(job.work, plan_only=True)
            plans = [{one.plan_path.name: one.plan_path.read_bytes() for one in chosen(work)} for work in both]
            assert plans[0] == plans[1]
            if event == "load":
                execute(job.work, plan_only=False)
                assert to_do(job.work, plan_only=False) == []
            shutil.rmtree(uncleaned)
