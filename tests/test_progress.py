"""How far a step is: told while it goes on, in the process that waits, and seen in the visualiser."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import watching
from job import NAME, Job, workbook

from wdh_luigi import run
from wdh_luigi.steps import Steps
from wdh_luigi.workbook import guard

ROWS = 8_000


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a workbook that takes a while."""
    rows = [[2024, 11, f"P{at}", "600001", 0.055, 1.05, 12000000.5] for at in range(ROWS)]
    return workbook(tmp_path_factory.mktemp("many") / NAME, rows)


@pytest.fixture
def job(tmp_path: Path, database: str, many_rows: Path) -> Job:
    """Make an inbox with that workbook."""
    job = Job(tmp_path, database)
    (job.inbox / NAME).write_bytes(many_rows.read_bytes())
    return job


@pytest.fixture
def steps(job: Job, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Return the workbook's steps, in this process."""
    for name, value in job.environment.items():
        if name.startswith("WDH_"):
            monkeypatch.setenv(name, value)
    snapshot = run.freeze(
        domain="trustee_performance",
        mode=None,
        plan_only=True,
        sheet=None,
        period=None,
        diff=False,
        announce=print,
    )
    return run.steps_of(snapshot, NAME)


def ascends(told: list[float]) -> bool:
    """Tell whether something came along, step by step."""
    return len(set(told)) > 1 and all(before <= after for before, after in pairwise(told))


def test_rows_are_counted_while_another_process_reads_them(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten minutes for a million rows without knowing that they come."""
    monkeypatch.setattr(guard, "_WATCH", 0.01)
    told: list[tuple[int, int | None]] = []
    profile = steps.read(lambda rows, last_row: told.append((rows, last_row)))
    assert profile["rows_read"] == ROWS
    assert ascends([rows for rows, _ in told])
    assert told[-1][0] <= ROWS
    assert told[-1][1] == ROWS + 1, "the headings are a row too"


def test_a_plan_tells_how_much_of_it_has_run(steps: Steps, job: Job) -> None:
    """Also a load can take minutes."""
    steps.read()
    steps.process()
    steps.plan(reviewable=True)
    told: list[float] = []
    run.apply(steps, told.append)
    assert ascends(told)
    assert 0 < told[0] < told[-1] <= 1
    assert job.query("SELECT count(*) FROM trustee_performance") == [(ROWS,)]


def test_the_visualiser_shows_a_step_on_its_way(job: Job, tmp_path: Path) -> None:
    """The bar moves, and beside it stand the workbook, its period and the rows."""
    code = """
import luigi, sys, wdh_luigi
from wdh_luigi import watch
from wdh_luigi.workbook import guard
guard._WATCH = watch._SELDOM = 0.01
luigi.build([wdh_luigi.ProcessDomain()], scheduler_url=sys.argv[1])
"""
    with watching.running(tmp_path / "luigid") as visualiser:
        command = [sys.executable, "-c", code, visualiser.url]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=job.folder, env=job.environment, **quiet) as process:
            seen = []
            while process.poll() is None:
                running = visualiser.ask("task_list", status="RUNNING", upstream_status="")
                seen += [(task["status_message"], task["progress_percentage"]) for task in running.values()]
        assert process.returncode == 0
        on_its_way = [message for message, percent in seen if percent and percent < 100]
        pattern = rf"{NAME} \(2024-11\)\n[\d,]+ rows read of {ROWS + 1:,}"
        assert [message for message in on_its_way if re.fullmatch(pattern, message)], seen
