"""The log as JSON lines, and the bars on a terminal, of real runs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pyte
import pytest
from job import NAME, Job, errors, workbook

ROW = [2024, 11, "P1", "600001", 0.055, 1.05, 12000000.5]
GOOD, BAD = f"甲_{NAME}", f"乙_{NAME}"
COLUMNS, LINES = 140, 60


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Make a good workbook, and one without headings."""
    job = Job(tmp_path)
    workbook(job.inbox / GOOD, [ROW, [2024, 11, "P2", *ROW[3:]], [None] * 7, [2024, 11, "P3", "600001", "abc", 1, 1]])
    workbook(job.inbox / BAD, [["张三", "010-1234"]], ["姓名", "电话"])
    return job


def lines(text: str) -> list[dict[str, Any]]:
    """Read what must be JSON, line by line."""
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_line_tells_of_which_run_step_and_workbook_it_is(job: Job, workers: str) -> None:
    """A log collector asks by field: never by words of a message."""
    done = job.run("--workers", workers, WDH_LOG_FORMAT="json")
    assert (done.returncode, done.stdout) == (30, "")
    log = lines(done.stderr)
    assert {(line["domain"], len(line["run"])) for line in log} == {("trustee_performance", 8)}
    assert len({line["run"] for line in log}) == 1
    assert all(datetime.fromisoformat(line["time"]).utcoffset() is not None for line in log)
    steps = {(line["step"], line["workbook"]): line for line in log if "step" in line}
    read, process = steps["ReadExcel", GOOD], steps["ProcessTrustee", GOOD]
    assert (read["level"], read["period"], read["rows_read"], read["rows_skipped"]) == ("INFO", "2024-11", 3, 1)
    assert [process[f"rows_{name}"] for name in ("accepted", "rejected", "duplicate")] == [2, 1, 0]
    assert all(line["seconds"] >= 0 for line in steps.values())
    failed = steps["ReadExcel", BAD]
    assert failed["level"] == "ERROR"
    assert failed["message"].startswith(f"{BAD}, sheet 业绩: no heading row with")
    last = log[-1]
    assert (last["level"], last["message"]) == ("ERROR", f"summary: {job.work / 'trustee_performance/summary.json'}")
    assert (last["files"], last["done"], last["failed"], last["rows_accepted"]) == (2, 1, 1, 2)
    assert "Traceback" not in done.stderr
    assert "step" not in last


def test_errors_before_a_run_and_warnings_are_json_lines_too(job: Job) -> None:
    """One line of another kind breaks the collector on the day it matters."""
    refused = job.run("--period", "2024-13", WDH_LOG_FORMAT="json")
    assert refused.returncode == 40
    (line,) = lines(refused.stderr)
    assert line["level"] == "ERROR"
    assert line["message"].startswith("--period: '2024-13' is no period")
    (line,) = lines(job.wdh("run", "--domain", "nowhere", WDH_LOG_FORMAT="json").stderr)
    assert line["level"] == "ERROR"
    assert line["message"].startswith("error: ")
    code = """
import logging, warnings, luigi, wdh_luigi
wdh_luigi.ProcessDomain()
warnings.warn("of Python")
logging.getLogger("luigi.scheduler").warning("of Luigi\\nin two lines")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("elsewhere").exception("of a library")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=job.folder,
        env={**job.environment, "WDH_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    warned, said, raised = lines(done.stderr)
    assert "UserWarning: of Python" in warned["message"]
    assert (said["level"], said["message"]) == ("WARNING", "of Luigi\nin two lines")
    assert "ZeroDivisionError" in raised["traceback"]


def test_an_interrupted_run_says_so_in_json(job: Job) -> None:
    """Ctrl-C is no exception to the rule."""
    workbook(job.inbox / GOOD, [[2024, 11, f"P{at}", *ROW[3:]] for at in range(5_000)])
    with subprocess.Popen(
        job.command(),
        cwd=job.folder,
        env={**job.environment, "WDH_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        log = lines(first + process.stderr.read())
    assert [line for line in log if line["message"].startswith("interrupted: nothing is half done")]


def test_long_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    """A pipe takes 4 KiB at a time: what is longer would be mixed with what another worker writes."""
    code = """
import logging, os
from wdh_luigi import logs
logs.use_json(logging.INFO)
for number in range(4):
    if os.fork() == 0:
        for _ in range(50):
            logging.getLogger("luigi-interface").info(str(number) * 50_000)
        os._exit(0)
for _ in range(4):
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(lines(done.stderr)) == 200


def test_a_format_that_there_is_not_is_refused(job: Job) -> None:
    """A slip must not turn the log into one that nobody reads."""
    done = job.run(WDH_LOG_FORMAT="xml")
    assert done.returncode == 40
    assert errors(done) == ["ERROR: WDH_LOG_FORMAT: Input should be 'text' or 'json'; correct the environment variable"]


class Terminal:
    """A terminal with what it shows, as a person sees it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self.seen: list[str] = []

    def take(self) -> bool:
        """Wait for something to come, and keep the picture; tell whether the program goes on."""
        with suppress(OSError):  # Linux's way to say that it ended
            chunk = os.read(self._handle, 1 << 16)
            self._stream.feed(chunk)
            self.seen.append(self.text)
            return bool(chunk)
        return False

    def watch(self) -> None:
        """Take what comes until the program ends."""
        while self.take():
            pass

    @property
    def text(self) -> str:
        """Return what it shows now."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def cursor_hidden(self) -> bool:
        """Tell whether the cursor is gone."""
        return bool(self._screen.cursor.hidden)


@contextmanager
def at_a_terminal(job: Job, command: list[str]) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Run a command with a terminal for standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**job.environment, "TERM": "xterm", "COLUMNS": str(COLUMNS)}
    process = subprocess.Popen(
        command,
        cwd=job.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)


COMMANDS = {"luigi": Job.command, "wdh": lambda job, *arguments: job.wdh_command("run", *arguments)}


@pytest.mark.parametrize(("name", "workers"), [("luigi", "1"), ("luigi", "2"), ("wdh", "2")])
def test_a_terminal_shows_bars_while_the_run_goes_on_and_errors_alone_stay(job: Job, name: str, workers: str) -> None:
    """A person sees how far it is; a line of the log never lands in the middle of a bar."""
    workbook(job.inbox / GOOD, [[2024, 11, f"P{at}", *ROW[3:]] for at in range(3_000)])
    with at_a_terminal(job, COMMANDS[name](job, "--workers", workers)) as (terminal, process):
        terminal.watch()
        assert process.wait() == 30
    pictures = "\n\n".join(terminal.seen)
    assert re.search(r"^trustee_performance .* [01] of 2 workbooks 0:00:\d\d$", pictures, re.MULTILINE)
    assert f"ReadExcel {GOOD} (2024-11)" in pictures
    (error,) = [file["error"] for file in job.summary()["files"] if file["status"] == "failed"]
    assert terminal.text.replace("\n", "").replace(" ", "") == f"ERROR:{error}".replace(" ", "")
    assert not terminal.cursor_hidden


@pytest.mark.parametrize("name", ["luigi", "wdh"])
def test_bars_end_with_an_interrupt(job: Job, name: str) -> None:
    """Ctrl-C leaves its line, and a terminal that can be used."""
    workbook(job.inbox / GOOD, [[2024, 11, f"P{at}", *ROW[3:]] for at in range(5_000)])
    with at_a_terminal(job, COMMANDS[name](job)) as (terminal, process):
        while "0 of 2 workbooks" not in terminal.text:
            assert terminal.take()
        os.killpg(process.pid, signal.SIGINT)
        terminal.watch()
        process.wait()
    assert terminal.text.splitlines()[-1] == "interrupted: nothing is half done; run the same command again to go on"
    assert not terminal.cursor_hidden


def test_where_nobody_looks_on_there_are_no_bars(job: Job) -> None:
    """A mail of cron or a file must hold lines, not drawings."""
    done = job.run(TERM="xterm", FORCE_COLOR="1", TTY_COMPATIBLE="1")
    assert "━" not in done.stderr
    assert "\x1b" not in done.stderr
    assert f"INFO: ReadExcel {GOOD} (2024-11): 3 rows in sheet 业绩, headings in row 1" in done.stderr
