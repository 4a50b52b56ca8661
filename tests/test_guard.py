"""A job in a process of its own: what it returns, and every way in which it may die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from wdh_luigi.errors import ConfigError, WorkbookError
from wdh_luigi.workbook import guard

LINUX = sys.platform == "linux"


def add(first: int, second: int) -> int:
    return first + second


def refuse() -> NoReturn:
    raise WorkbookError("b.xlsx", "cell D7 is #N/A", "correct it", sheet="S", cell="D7")


def refuse_settings() -> NoReturn:
    raise ConfigError("data_sources.yml", "unknown key", "remove it")


def fail() -> NoReturn:
    raise ValueError("first line\nsecond line")


def leave() -> NoReturn:
    sys.exit(4)


def leave_at_once() -> NoReturn:
    os._exit(3)


def abort() -> NoReturn:
    os.write(2, b"thread '<unnamed>' panicked at cell.rs:7\n")
    os.abort()


def abort_without_memory() -> NoReturn:
    os.write(2, b"memory allocation of 7710537744 bytes failed\n")
    os.abort()


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill_memory() -> int:
    return len(bytearray(1 << 30))


def sleep() -> None:
    time.sleep(60)


def return_function() -> Callable[[], int]:
    return lambda: 3


def return_much() -> bytes:
    return bytes(5_000_000)


def write_much() -> int:
    for _ in range(1000):
        os.write(2, b"noise " * 200)
        print("noise " * 20)
    return 5


def test_a_result_comes_back() -> None:
    """Also one that is larger than a pipe holds."""
    assert guard.run(add, 1, 2, shown="a.xlsx") == 3
    assert bytes(5_000_000) == guard.run(return_much, shown="a.xlsx")


def test_an_error_comes_back_with_its_parts() -> None:
    """Where it stands is used for the summary."""
    with pytest.raises(WorkbookError) as caught:
        guard.run(refuse, shown="a.xlsx")
    assert (str(caught.value), caught.value.cell) == ("b.xlsx, sheet S, cell D7: cell D7 is #N/A; correct it", "D7")
    with pytest.raises(ConfigError, match="unknown key"):
        guard.run(refuse_settings, shown="a.xlsx")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (fail, "cannot be read (ValueError: first line)"),
        (leave, "cannot be read (SystemExit: 4)"),
        (leave_at_once, "damaged (reading it crashed, exit code 3)"),
        (abort, "damaged (reading it crashed, SIGABRT: thread '<unnamed>' panicked at cell.rs:7)"),
        (abort_without_memory, "needs more memory than it may take"),
        (be_killed, "needs more memory than it may take"),
        (return_function, "cannot be read (AttributeError"),
    ],
)
def test_any_end_is_one_line_about_the_workbook(job: Callable[[], object], message: str) -> None:
    """A reader that panics or aborts costs one workbook, with a message."""
    with pytest.raises(WorkbookError) as caught:
        guard.run(job, shown="a.xlsx")
    assert str(caught.value).startswith(f"a.xlsx: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not LINUX, reason="macOS knows no limit of a process's memory")
def test_memory_is_limited() -> None:
    """A kilobyte of workbook can ask for gigabytes."""
    with pytest.raises(WorkbookError, match="needs more memory than it may take; split the workbook"):
        guard.run(fill_memory, shown="a.xlsx", memory=1 << 28)
    assert guard.run(fill_memory, shown="a.xlsx", memory=3 << 29) == 1 << 30


def test_time_is_limited() -> None:
    """A workbook that hangs the reader must not hang the run."""
    started = time.monotonic()
    with pytest.raises(
        WorkbookError, match=r"^a.xlsx: not read within 0.2 s; split the workbook, or set WDH_READ_SECONDS higher$"
    ):
        guard.run(sleep, shown="a.xlsx", seconds=0.2)
    assert time.monotonic() - started < 5


def test_what_the_job_prints_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    """Panics print backtraces, and xlrd its warnings; the run's output is the user's."""
    assert guard.run(write_much, shown="a.xlsx") == 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_nothing_is_left_behind() -> None:
    """Hundreds of workbooks are read in one process."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = len(os.listdir("/proc/self/fd")), children.read_text()
    for job in (add, fail, abort, be_killed):
        for _ in range(5):
            with contextlib.suppress(WorkbookError):
                guard.run(job, *([1, 2] if job is add else []), shown="a.xlsx")
    assert before == (len(os.listdir("/proc/self/fd")), children.read_text())


def guarded(queue: multiprocessing.SimpleQueue[int]) -> None:
    queue.put(guard.run(add, 1, 2, shown="a.xlsx"))


def test_a_luigi_worker_may_call_it() -> None:
    """Luigi forks a process a task, as daemons, which may have no children of multiprocessing's."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    worker = context.Process(target=guarded, args=(queue,), daemon=True)
    worker.start()
    assert queue.get() == 3
    worker.join()
    queue.close()


def test_threads_may_call_it_beside_each_other() -> None:
    """Luigi keeps a thread that tells luigid it lives."""
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(guard.run(add, 1, 2, shown="a.xlsx"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 8


@pytest.mark.skipif(not LINUX, reason="macOS does not tell a child that its parent died; there its alarm ends it")
def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    """kill -9 of the run must not leave a reader that eats memory for another twenty minutes."""
    mark = tmp_path / "child"
    program = f"""
import os, pathlib, time
from wdh_luigi.workbook import guard
def job():
    pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))
    time.sleep(60)
guard.run(job, shown="a.xlsx")
"""
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.01)
        child = int(mark.read_text())
        parent.kill()
    for _ in range(500):
        if not _runs(child):
            return
        time.sleep(0.01)
    raise AssertionError(f"{child} still runs")


def _runs(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def write_and_wait(path: Path, seen: Path) -> str:
    path.write_text("half")
    while not seen.exists():
        time.sleep(0.01)
    return "whole"


def test_what_a_job_has_written_so_far_can_be_looked_at(tmp_path: Path) -> None:
    """Who waits sees how far it is: the job here goes on only when it was looked at."""
    path, seen = tmp_path / "rows", tmp_path / "seen"

    def look() -> None:
        if path.exists() and path.read_text() == "half":
            seen.touch()

    assert guard.run(write_and_wait, path, seen, shown="b.xlsx", watch=look, seconds=30) == "whole"


def test_the_time_is_kept_also_while_somebody_looks(tmp_path: Path) -> None:
    """A look every half second must not put off the end."""
    with pytest.raises(WorkbookError, match=r"not read within 1\.2 s"):
        guard.run(time.sleep, 60, shown="b.xlsx", watch=lambda: None, seconds=1.2)
