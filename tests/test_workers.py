"""wdh run: one run at a time, or several that share the work; by real processes, a real luigid and PostgreSQL."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from job import NAME, REPOSITORY, Job, executed, steps, workbook
from luigid import Luigid
from rights import bind_by_modes

from wdh_luigi import lock, run

ALL = ["ReadExcel", "ProcessTrustee", "Load"]
LOAD = ("run", "--plan-only", "false")


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    """Start a luigid that notices within a second or two that a worker was killed."""
    server = Luigid(tmp_path, disconnect=2)
    yield server
    server.kill()


def send(job: Job, count: int, rows: int = 1) -> None:
    """Put workbooks of so many sources into the inbox."""
    for number in range(count):
        codes = [f"P{number}.{row}" for row in range(rows)]
        workbook(job.inbox / f"{number:02}号_{NAME}", [[2024, 11, code, "600001", 0.055, 1.05, 1] for code in codes])


def joined(luigid: Luigid) -> tuple[str, ...]:
    return (*LOAD, "--join", "--scheduler-url", luigid.url)


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def await_step(process: subprocess.Popen[str], word: str) -> list[str]:
    """Read the log of a run until a step of a kind is told; return its lines."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"INFO: {word} "):
            return lines
    raise AssertionError(f"no {word} in {lines}")


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stdout + done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(("error: ", "ERROR: "))]


def test_wdh_run_is_the_run_of_luigi(job: Job) -> None:
    """The same parameters, steps, summary and table; what one did the other finds done."""
    send(job, 2)
    done = job.wdh("run")
    assert (done.returncode, sorted(executed(done))) == (0, sorted(ALL * 2))
    assert "    wdh run --domain trustee_performance --plan-only false\n" in done.stdout
    assert executed(job.load()) == ["Load", "Load"]
    done = job.wdh(*LOAD)
    assert (done.returncode, executed(done)) == (0, [])
    assert "Nothing had to be done: every workbook is loaded already." in done.stdout


def test_exit_codes_say_how_a_run_ended(job: Job) -> None:
    """What cron goes by is the same as for luigi: 40 refused, 30 a workbook failed, 0 all is done."""
    refused = job.wdh(*LOAD)
    assert refused.returncode == 40
    assert len(errors(refused)) == 1
    send(job, 2)
    assert job.wdh("run", "--domain", "nobody").returncode == 40
    assert job.wdh("run", "--period", "2023-01").returncode == 40
    assert job.wdh("run", "--workers", "0").returncode == 2
    (job.inbox / f"坏_{NAME}").write_text("no workbook")
    failed = job.wdh(*LOAD)
    assert failed.returncode == 30
    assert len(errors(failed)) == 1
    assert len(job.table()) == 2
    (job.inbox / f"坏_{NAME}").unlink()
    assert job.wdh(*LOAD).returncode == 0


def test_one_run_of_a_domain_at_a_time(job: Job) -> None:
    """Who is refused learns who is at it, where, and since when; nothing is done."""
    send(job, 1)
    with lock.held(job.work / "trustee_performance" / "run.lock", shared=False):
        done = job.wdh(*LOAD)
    assert done.returncode == 10
    (line,) = errors(done)
    assert f"a run is going on: process {os.getpid()} on {socket.gethostname()} since 20" in line
    assert job.query("SELECT to_regclass('trustee_performance')") == [(None,)]
    assert job.wdh(*LOAD).returncode == 0


def test_a_killed_run_leaves_no_lock(job: Job) -> None:
    """kill -9 of a run with two workers: the next one goes on at once, whatever its orphans do."""
    send(job, 8)
    process = job.start(job.wdh_command(*LOAD, "--workers", "2"))
    await_step(process, "Load")
    process.kill()
    again = job.wdh(*LOAD)
    process.communicate()
    assert again.returncode == 0, again.stderr
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(8, 8)]


def test_two_runs_on_one_luigid_share_the_work(job: Job, luigid: Luigid) -> None:
    """Both end with 0, as all is complete; each step of each workbook is done once, by one of the two."""
    send(job, 12)
    both = [ended(one) for one in [job.start(job.wdh_command(*joined(luigid), "--workers", "2")) for _ in range(2)]]
    assert [one.returncode for one in both] == [0, 0], both[0].stderr + both[1].stderr
    assert "Warning" not in both[0].stderr + both[1].stderr
    shares = [steps(one.stderr) for one in both]
    assert sorted(shares[0] + shares[1]) == sorted(f"{step} {n:02}号_{NAME}" for step in ALL for n in range(12))
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(12, 12)]


def test_many_workbooks_are_told_to_luigi_some_at_a_time(job: Job) -> None:
    """What failed stops what waits for it, in whichever wave that is, and is not tried again for it."""
    job.configure(overlap="replace")  # each load waits for the one before it
    send(job, 8)
    (job.inbox / f"04号_{NAME}").write_text("no workbook")
    code = "from wdh_luigi import command, crew; crew._WAVE = 3; command.main()"
    done = ended(job.start([sys.executable, "-c", code, *LOAD]))
    assert done.returncode == 30
    assert [code for _, code, *_ in job.table()] == [f"P{number}.0" for number in range(4)]
    assert len(errors(done)) == 1
    send(job, 8)
    done = ended(job.start([sys.executable, "-c", code, *LOAD]))
    assert done.returncode == 0
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(8, 8)]


def test_runs_share_only_where_each_has_join(job: Job, luigid: Luigid) -> None:
    """To share is said on purpose, and there must be a luigid to share by."""
    send(job, 1)
    assert "--scheduler-url" in errors(job.wdh(*LOAD, "--join"))[0]
    with lock.held(job.work / "trustee_performance" / "run.lock", shared=True):
        assert job.wdh(*LOAD, "--scheduler-url", luigid.url).returncode == 10
        assert job.wdh(*joined(luigid)).returncode == 0


def test_what_a_killed_run_was_at_is_done_by_the_other(job: Job, luigid: Luigid) -> None:
    """Luigi's worker would end while the step of the dead one still counts as running."""
    send(job, 40, rows=50)
    first = job.start(job.wdh_command(*joined(luigid)))
    await_step(first, "ReadExcel")
    second = job.start(job.wdh_command(*joined(luigid)))
    await_step(second, "ReadExcel")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    done = ended(second)
    assert done.returncode == 0, done.stderr
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(40, 40)]
    assert len(job.table()) == 2000


def test_luigid_may_die_and_come_back(job: Job, luigid: Luigid) -> None:
    """A luigid that was killed has forgotten all: the run waits for it, and tells it what is left."""
    send(job, 6)
    process = job.start(job.wdh_command(*joined(luigid)))
    await_step(process, "Load")
    luigid.kill()
    luigid.start()
    done = ended(process)
    assert done.returncode == 0, done.stderr
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(6, 6)]


def test_without_a_luigid_nothing_is_begun(job: Job) -> None:
    """A wrong name is told at once, not after minutes of trying."""
    send(job, 1)
    for url in ("http://127.0.0.1:1", "nonsense"):
        done = job.wdh(*LOAD, "--scheduler-url", url)
        assert done.returncode == 40
        assert f"no luigid answers at {url}" in errors(done)[0]
    done = job.wdh(*LOAD, "--scheduler-url", "http://me:s3cret@127.0.0.1:1")
    assert "s3cret" not in done.stdout + done.stderr
    assert not job.work.exists()


def test_a_correction_and_the_first_again_at_once_by_luigid(job: Job, luigid: Luigid) -> None:
    """A, B, A within seconds: luigid must not take the second A for the one that it has just seen done."""
    path = workbook(job.inbox / NAME, [[2024, 11, "P1", "600001", 0.05, 1.05, 1]])
    first = path.read_bytes()
    arguments = (*LOAD, "--scheduler-host", "127.0.0.1", "--scheduler-port", str(luigid.port))
    assert job.wdh(*arguments).returncode == 0
    workbook(path, [[2024, 11, "P1", "600001", 0.06, 1.05, 1]])
    assert job.wdh(*arguments).returncode == 0
    path.write_bytes(first)
    assert job.wdh(*arguments).returncode == 0
    assert [float(row[3]) for row in job.table()] == [0.05]
    assert job.query("SELECT count(*) FROM wdh_load") == [(3,)]


def test_two_domains_on_one_luigid(job: Job, luigid: Luigid) -> None:
    """Each domain has its lock, its work and its table; two at a time do not hinder each other."""
    package = job.folder / "code" / "wdh_luigi"
    shutil.copytree(REPOSITORY / "wdh_luigi", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "domains" / "second.py").write_text(
        "from dataclasses import replace\n"
        "from wdh_luigi.domains import trustee_performance\n"
        "DOMAIN = replace(trustee_performance.DOMAIN, name='second')\n"
    )
    job.environment["PYTHONPATH"] = str(package.parent)
    job.configure()
    sources = job.folder / "data_sources.yml"
    document = yaml.safe_load(sources.read_text("utf-8"))
    document["domains"]["second"] = {**document["domains"]["trustee_performance"], "table": "second"}
    sources.write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    send(job, 4)
    names = ("trustee_performance", "second")
    runs = [job.start(job.wdh_command(*LOAD, "--domain", name, "--scheduler-url", luigid.url)) for name in names]
    for done in map(ended, runs):
        assert (done.returncode, sorted(executed(done))) == (0, sorted(ALL * 4)), done.stderr
    assert job.table() == job.table("second")
    assert len(job.table()) == 4


def test_ctrl_c_before_anything_is_there_is_one_line(job: Job) -> None:
    """The command imports for half a second; who changes their mind meanwhile sees no traceback."""
    (job.folder / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'luigi':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
    )
    job.environment["PYTHONPATH"] = os.pathsep.join([str(job.folder), job.environment["PYTHONPATH"]])
    done = job.wdh(*LOAD)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_twice_ends_a_run_in_one_line(job: Job, workers: str) -> None:
    """The impatient do no harm: nothing is half done, and the same command goes on."""
    send(job, 8)
    process = job.start(job.wdh_command(*LOAD, "--workers", workers))
    await_step(process, "ReadExcel")
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    done = ended(process)
    assert done.returncode in (130, -signal.SIGINT), done.stderr  # the second may meet Python as it ends
    assert "Traceback" not in done.stderr
    assert "interrupted: " in done.stderr
    assert job.wdh(*LOAD).returncode == 0
    assert job.query("SELECT count(*), count(DISTINCT source) FROM wdh_load") == [(8, 8)]


def test_a_work_directory_that_fills_up(job: Job) -> None:
    """What does not fit fails by name, with what to do; with room it is done."""
    send(job, 1)
    workbook(job.inbox / f"大_{NAME}", [[2024, 11, f"L{row}", "600001", 0.055, 1.05, row] for row in range(1, 1001)])

    def fill_up() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = ended(job.start(job.wdh_command(*LOAD), preexec_fn=fill_up))
    assert done.returncode == 30
    (line,) = errors(done)
    assert "cannot be written (File too large); give the work directory room" in line
    assert len(job.table()) == 1
    assert not list(job.work.rglob("*.tmp"))
    assert job.wdh(*LOAD).returncode == 0
    assert len(job.table()) == 1001


def test_a_work_directory_that_cannot_be_written(job: Job) -> None:
    """It is told before anything runs, by name."""
    send(job, 1)
    job.work.mkdir(mode=0o555)
    done = ended(job.start(job.wdh_command(*LOAD), preexec_fn=bind_by_modes))
    assert done.returncode == 40
    (line,) = errors(done)
    assert "run.lock: cannot be written (Permission denied); give this user the right to write there" in line


def test_an_inbox_that_changes_while_the_run_goes_on(job: Job) -> None:
    """The run is of what was there when it began: what has gone fails by name, what has come is the next run's."""
    send(job, 8)
    process = job.start(job.wdh_command(*LOAD))
    log = "".join(await_step(process, "ReadExcel"))
    read = steps(log)[0].removeprefix("ReadExcel ")
    (gone,) = [path for path in job.inbox.iterdir() if path.name == f"00号_{NAME}"]
    assert gone.name != read
    gone.unlink()
    workbook(job.inbox / f"新_{NAME}", [[2024, 11, "NEW", "600001", 0.055, 1.05, 1]])
    done = ended(process)
    assert done.returncode == 30
    (line,) = errors(done)
    assert gone.name in line
    assert len(job.table()) == 7
    assert job.wdh(*LOAD).returncode == 0
    assert len(job.table()) == 8


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_failure_is_this_runs_whatever_a_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Of two machines one may be a day off: an old failure is not told again, a new one is told."""
    job = Job(tmp_path)
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    send(job, 2)
    snapshot = run.freeze(
        domain="trustee_performance", mode=None, plan_only=True, sheet=None, period=None, diff=False, announce=print
    )
    old, new = (run.steps_of(snapshot, file.path) for file in snapshot.chosen)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + hours * 3600)
    run.record_failure(old, "Load", "an old one", "")
    one = run.Run(snapshot, True, False, "", run.complete(snapshot, True))
    monkeypatch.setattr(time, "time", lambda: now - hours * 3600)
    run.record_failure(new, "Load", "a new one", "")
    assert [one.failure(steps) for steps in (old, new)] == [None, "a new one"]
    assert [file.error for file in one.files()] == [
        f"{old.file.path}: not done, the run ended before; run the same command again",
        "a new one",
    ]
