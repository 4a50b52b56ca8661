"""What a user can get wrong, by the real luigi command: one line each, the right exit code, no traceback, no secret."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from job import HEADINGS, NAME, REPOSITORY, Job, errors, workbook
from rights import bind_by_modes

from wdh_luigi import warehouse
from wdh_luigi.config import load_settings
from wdh_luigi.errors import WdhError

ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]
SECRET = "s3cret-w0rd"
NOWHERE = f"postgresql://user:{SECRET}@127.0.0.1:1/nowhere"
REFUSED, FAILED = 40, 30  # luigi.cfg: unhandled_exception, task_failed


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Make an inbox with one good workbook, and a database URI that leads nowhere and holds a secret."""
    job = Job(tmp_path)
    job.environment["WDH_DATABASE_URI"] = NOWHERE
    workbook(job.inbox / NAME, [ROW])
    return job


def run(job: Job, *arguments: str, cwd: Path | None = None, mortal: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the job; ``mortal`` has file modes bind root too."""
    return subprocess.run(
        job.command(*arguments),
        cwd=cwd or job.folder,
        env=job.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=bind_by_modes if mortal else None,
    )


def written(job: Job) -> str:
    """Return everything that is in the work directory, names and contents."""
    files = [path for path in job.work.rglob("*") if path.is_file()] if job.work.exists() else []
    return "\n".join([*map(str, files), *(path.read_text("utf-8", "replace") for path in files)])


def lines_of(job: Job, done: subprocess.CompletedProcess[str], code: int) -> list[str]:
    """Return a run's errors, after a check of what holds for every run that failed."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    everywhere = said + written(job)
    assert "Traceback" not in said
    assert not re.search(r'^\s*File ".*", line \d', said, re.MULTILINE), said
    assert "internal error" not in said
    assert SECRET not in everywhere
    summary = job.work / "summary.json"
    assert "Traceback" not in (summary.read_text("utf-8") if summary.exists() else "")
    return [line.partition(": ")[2] for line in errors(done)]


def refused(job: Job, *arguments: str, mortal: bool = False) -> str:
    """Run what must be refused before anything runs; return its one line."""
    done = run(job, *arguments, mortal=mortal)
    (line,) = lines_of(job, done, REFUSED)
    assert not (job.work / "trustee_performance").exists(), "nothing was begun"
    return line


def failed(job: Job, *arguments: str, mortal: bool = False) -> str:
    """Run with one workbook that must fail; return its one line, which the summary repeats."""
    done = run(job, *arguments, mortal=mortal)
    (line,) = lines_of(job, done, FAILED)
    assert (job.file()["status"], job.file()["error"]) == ("failed", line)
    assert f"error: {line}" in done.stdout
    return line


def listed(folder: Path) -> list[tuple[str, int]]:
    """Return the names in a folder and when each was changed."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--domain", "trustee"], "no domain 'trustee'; it has trustee_performance; correct --domain"),
        (["--mode", "upsert"], "--mode: 'upsert' is no mode; use delete_insert or append"),
        (["--period", "2024-13"], "--period: '2024-13' is no period; write it like 2024-11, or latest, or all"),
        (["--period", "2023-01"], "holds no workbook of 2023-01; it has the periods 2024-11"),
        (["--plan-only", "nein"], "--plan-only: 'nein' is neither true nor false; write one of them"),
    ],
)
def test_a_wrong_parameter_is_refused(job: Job, arguments: list[str], says: str) -> None:
    """The line names the parameter and what it may be."""
    assert says in refused(job, *arguments)


def no_config(job: Job) -> None:
    job.environment["WDH_DATA_SOURCES_CONFIG"] = str(job.folder / "nowhere.yml")


def no_yaml(job: Job) -> None:
    (job.folder / "bad.yml").write_text("domains: [\n")
    job.environment["WDH_DATA_SOURCES_CONFIG"] = str(job.folder / "bad.yml")


def unknown_key(job: Job) -> None:
    job.configure(selekt="latest_by_mtime")


def unknown_column(job: Job) -> None:
    job.configure(pk=["report_date", "plan"])


def empty_inbox(job: Job) -> None:
    (job.inbox / NAME).unlink()


def wrong_folder(job: Job) -> None:
    job.environment["WDH_DATA_BASE_DIR"] = str(job.folder / "nowhere")


def other_names(job: Job) -> None:
    (job.inbox / NAME).rename(job.inbox / "2024年11月业绩.xlsx")


def a_tie(job: Job) -> None:
    workbook(job.inbox / "copy" / NAME, [[*ROW[:4], 0.066, *ROW[5:]]])


def the_future(job: Job) -> None:
    (job.inbox / NAME).rename(job.inbox / "2042年11月受托业绩.xlsx")


def work_is_a_file(job: Job) -> None:
    job.work.write_text("")


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (no_config, r"nowhere\.yml: cannot be read \(No such file.*WDH_DATA_SOURCES_CONFIG"),
        (no_yaml, r"bad\.yml, line 2: is not YAML"),
        (unknown_key, r"line \d+: unknown key domains\.trustee_performance\.selekt; did you mean select\?"),
        (unknown_column, r"pk names plan, which trustee_performance does not have; it has report_date, "),
        (empty_inbox, r"inbox .*: the folder is empty; set WDH_DATA_BASE_DIR"),
        (wrong_folder, r"inbox .*nowhere: does not exist; set WDH_DATA_BASE_DIR"),
        (other_names, r"nearest are 2024年11月业绩\.xlsx: does not match the pattern from 受托业绩 on"),
        (a_tie, r"two candidates tie for 2024-11: .* and .*; put the correction into a folder V2"),
        (the_future, r"2042年11月受托业绩\.xlsx: is of 2042-11, which has not begun"),
        (work_is_a_file, r"work.*: cannot be (written|read) \((Not a directory|File exists)\).*WDH_WORK_DIR"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_in_the_settings_or_the_inbox_is_refused(job: Job, mistake: Callable[[Job], None], says: str) -> None:
    """Before anything runs: a half-done run with the wrong settings would have to be undone."""
    mistake(job)
    line = refused(job)
    assert re.search(says, line), line


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (NOWHERE, r"^database nowhere on 127\.0\.0\.1:1: cannot connect \(.*refused.*\); start the server, or correct"),
        (f"postgresql://user:%zz{SECRET}@127.0.0.1:1/db", r"^WDH_DATABASE_URI: is not a libpq URI; write it like"),
        (f"postgresql://user:{SECRET}\udcff@127.0.0.1:1/db", r"^WDH_DATABASE_URI: is not UTF-8 text in one line"),
        (f"{NOWHERE}\n", r"^WDH_DATABASE_URI: is not UTF-8 text in one line"),
        ("", r"^WDH_DATABASE_URI: not set, and nothing else names the database; set it to a PostgreSQL URI"),
    ],
)
def test_a_database_that_cannot_be_reached_is_refused_without_its_password(job: Job, uri: str, says: str) -> None:
    """libpq's own words would quote the part that it does not understand, which may be the password."""
    job.environment["WDH_DATABASE_URI"] = uri
    line = refused(job, "--plan-only", "false")
    assert re.search(says, line), line


@pytest.mark.parametrize(
    "uri",
    [
        f"mysql://user:{SECRET}@127.0.0.1/db",
        f"user={SECRET} {SECRET}",
        f"host=127.0.0.1 port=1 password={SECRET}",
        f"postgresql://user:{SECRET}@127.0.0.1:port/db",
        f"postgresql://user:a@{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:a/{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}/a@127.0.0.1:1/db",
        f"postgresql://user:a?{SECRET}@127.0.0.1:1/db",
        f"postgresql://user:{SECRET}/db",
        f"postgresql://127.0.0.1:1,127.0.0.1:{SECRET}/db",
        f"postgresql://user:{SECRET}@127.0.0.1:1/db?{SECRET}",
        f"postgresql://user:{SECRET}@127.0.0.1:1/db?sslmode={SECRET}",
        f"postgresql://127.0.0.1:1/db?user=u&password={SECRET}",
        SECRET,
    ],
)
def test_no_spelling_of_a_uri_lets_its_secret_out(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten percent-encoding moves the password into another part, which libpq then quotes."""
    monkeypatch.setenv("WDH_DATABASE_URI", uri)
    with pytest.raises(WdhError) as caught:
        warehouse.connect(load_settings().warehouse_uri())
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_refuses_the_user_is_named_without_its_password(job: Job, database: str) -> None:
    """A real server's refusal: here a database that it does not have."""
    separator = "&" if "?" in database else "?"
    job.environment["WDH_DATABASE_URI"] = f"{database}{separator}dbname=nowhere_{os.getpid()}&password={SECRET}"
    line = refused(job, "--plan-only", "false")
    assert re.search(r"^database nowhere_\d+ on .*: cannot connect \(.*does not exist\)", line), line


def text_named_xlsx(job: Job) -> None:
    (job.inbox / NAME).write_text("not a workbook")


def empty_file(job: Job) -> None:
    (job.inbox / NAME).write_bytes(b"")


def no_headings(job: Job) -> None:
    workbook(job.inbox / NAME, [[1, 2, 3]], ["甲", "乙", "丙"])


def bad_rows(job: Job) -> None:
    workbook(job.inbox / NAME, [ROW, *([2024, 11, f"P{n}", "6", "abc", 1, 1] for n in range(2, 5))])


def a_pipe(job: Job) -> None:
    (job.inbox / NAME).unlink()
    os.mkfifo(job.inbox / NAME)


def unreadable(job: Job) -> None:
    (job.inbox / NAME).chmod(0)


def two_columns_for_one_field(job: Job) -> None:
    workbook(job.inbox / NAME, [[*ROW, 1]], [*HEADINGS, "单位净值"])


@pytest.mark.parametrize(
    ("mistake", "arguments", "says"),
    [
        (text_named_xlsx, [], r"^2024年11月受托业绩报告\.xlsx: "),
        (empty_file, [], r"^2024年11月受托业绩报告\.xlsx: "),
        (no_headings, [], r"^2024年11月受托业绩报告\.xlsx, sheet 业绩: .*(heading|计划代码)"),
        (bad_rows, [], r"3 of 4 rows rejected, more than max_reject_ratio 0.5.*cell E3 收益率 'abc': not a number"),
        (a_pipe, [], r"^2024年11月受托业绩报告\.xlsx: is not a regular file; "),
        (
            unreadable,
            [],
            r"^2024年11月受托业绩报告\.xlsx: cannot be read \(Permission denied\); give this user the right",
        ),
        (two_columns_for_one_field, [], r"^2024年11月受托业绩报告\.xlsx, .*净值.*单位净值"),
        (lambda job: None, ["--sheet", "Sheet9"], r"^2024年11月受托业绩报告\.xlsx.*Sheet9.*业绩"),
        (lambda job: None, ["--sheet", "7"], r"^2024年11月受托业绩报告\.xlsx.*7.*业绩"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("<>"),
)
def test_a_workbook_that_cannot_be_taken_is_one_line(
    job: Job, mistake: Callable[[Job], None], arguments: list[str], says: str
) -> None:
    """Where, what and how to mend it, in the log, on the screen and in the summary alike."""
    mistake(job)
    line = failed(job, *arguments, mortal=True)
    assert re.search(says, line), line


def test_each_failed_workbook_has_its_line(job: Job) -> None:
    """Three at once: three lines, and the good one is done."""
    for source in ("甲", "乙", "丙\n'; DROP"):
        (job.inbox / f"{source}_{NAME}").write_text(source)
    lines = lines_of(job, run(job, "--workers", "2"), FAILED)
    assert len(lines) == 3
    assert any(line.startswith(r"丙\n'; DROP_2024年11月") for line in lines)
    assert sorted(file["status"] for file in job.summary()["files"]) == ["done", "failed", "failed", "failed"]


@pytest.mark.parametrize("mode", [0o500, 0])
def test_a_work_directory_without_rights_is_refused(job: Job, mode: int) -> None:
    """cron's user is often not the one who made the folder."""
    job.work.mkdir()
    job.work.chmod(mode)
    try:
        done = run(job, mortal=True)
    finally:
        job.work.chmod(0o700)
    (line,) = lines_of(job, done, REFUSED)
    assert line.startswith(f"{job.work}/hashes.json: cannot be ")
    assert "(Permission denied)" in line
    assert "WDH_WORK_DIR" in line


def test_a_work_directory_that_is_locked_later_fails_the_workbook(job: Job) -> None:
    """The steps' own folders may belong to another user: one line, not one for each attempt to write."""
    assert run(job).returncode == 0
    workbook(job.inbox / NAME, [[*ROW[:4], 0.066, *ROW[5:]]])
    folders = [path for path in (job.work / "trustee_performance").iterdir() if path.is_dir()]
    for folder in folders:
        folder.chmod(0o500)
    done = run(job, mortal=True)
    lines = lines_of(job, done, FAILED)
    for folder in folders:
        folder.chmod(0o700)
    assert len(lines) == 1, lines
    assert "cannot be written (Permission denied); give the work directory room" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "prepare", "code"),
    [
        (["--mode", "upsert"], lambda job: None, REFUSED),
        ([], text_named_xlsx, FAILED),
    ],
)
def test_debug_shows_the_traceback(job: Job, arguments: list[str], prepare: Callable[[Job], None], code: int) -> None:
    """For whoever is asked to find out: where in the program, still without the secret."""
    prepare(job)
    done = run(job, *arguments, "--log-level", "DEBUG")
    assert done.returncode == code
    assert "Traceback (most recent call last):" in done.stderr
    assert SECRET not in done.stdout + done.stderr + written(job)


def test_debug_of_a_lost_database_shows_no_secret(job: Job) -> None:
    """A traceback's chain holds what the library said, too."""
    done = run(job, "--plan-only", "false", "--log-level", "DEBUG")
    assert done.returncode == REFUSED
    assert "Traceback (most recent call last):" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "prepare", "code"),
    [
        ([], lambda job: None, 0),
        ([], text_named_xlsx, FAILED),
        (["--mode", "upsert"], lambda job: None, REFUSED),
    ],
)
def test_exit_codes_are_the_same_with_the_project_s_luigi_cfg_and_without(
    job: Job, arguments: list[str], prepare: Callable[[Job], None], code: int
) -> None:
    """Luigi reads ./luigi.cfg: all other tests run where there is none, as cron does, and must not exit 0 there."""
    prepare(job)
    done = run(job, *arguments, cwd=REPOSITORY)
    assert done.returncode == code
    assert len(errors(done)) == (1 if code else 0)


def test_the_inbox_is_never_written_to(job: Job) -> None:
    """It belongs to the trustees; often it is mounted read-only."""
    text_named_xlsx(job)
    workbook(job.inbox / f"甲_{NAME}", [ROW])
    before = listed(job.inbox)
    assert run(job).returncode == FAILED
    assert listed(job.inbox) == before


@contextmanager
def started(job: Job, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the job in a process group of its own, with its log in a file, and end it with the block."""
    with (
        (job.folder / "log").open("w") as log,
        subprocess.Popen(
            job.command(*arguments),
            cwd=job.folder,
            env=job.environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ctrl_c(job: Job, process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; return what the run said, after a check of what always holds."""
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[0] + (job.folder / "log").read_text("utf-8")
    assert process.returncode == -signal.SIGINT, said
    assert "Traceback" not in said
    assert not re.search("^(ERROR|WARNING|CRITICAL|Process )", said, re.MULTILINE), said
    assert said.count("interrupted: nothing is half done; run the same command again to go on") == 1
    return said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_with_one_line_and_a_later_run_completes(job: Job, database: str, workers: str) -> None:
    """Whoever stops a run is not shown the program's inside, and loses nothing."""
    job.database = job.environment["WDH_DATABASE_URI"] = database
    for number, source in enumerate("甲乙丙"):
        rows = [[2024, 11, f"P{number}{n}", "600001", 0.055, 1.05, n] for n in range(1000)]
        workbook(job.inbox / f"{source}_{NAME}", rows)
    with started(job, "--plan-only", "false", "--workers", workers) as process:
        while "INFO: ReadExcel " not in (job.folder / "log").read_text("utf-8") and process.poll() is None:
            time.sleep(0.01)
        ctrl_c(job, process)
    assert {file["status"] for file in job.summary()["files"]} != {"done"}
    job.load()
    assert job.query("SELECT count(*) FROM trustee_performance") == [(3001,)]


def test_ctrl_c_before_the_first_task_is_one_line_too(job: Job) -> None:
    """Hashing a large inbox takes a while, and that is when one notices the wrong folder."""
    settings = job.folder / "settings"
    os.mkfifo(settings)  # holds the run where it reads its settings
    job.environment["WDH_DATA_SOURCES_CONFIG"] = str(settings)
    with started(job) as process, settings.open("wb"):
        ctrl_c(job, process)
