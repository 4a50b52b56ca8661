"""The main job as a user runs it: an inbox and a work directory, the luigi command, and the table that it fills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import openpyxl
import psycopg2
import yaml

from wdh_luigi import targets

REPOSITORY = Path(__file__).parent.parent
HEADINGS = ["年", "月", "计划代码", "公司代码", "收益率", "净值", "规模"]
NAME = "2024年11月受托业绩报告.xlsx"
WDH = [sys.executable, "-c", "from wdh_luigi.command import main; main()"]
TABLE = "SELECT report_date, plan_code, company_code, return_rate, net_asset_value, fund_scale FROM {} ORDER BY 1, 2, 3"


def workbook(
    path: Path, rows: Sequence[Sequence[Any]], headings: Sequence[Any] = HEADINGS, title: str = "业绩"
) -> Path:
    """Write a workbook with one sheet: the headings, then the rows."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = title
    for row in [headings, *rows]:
        sheet.append(list(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


class Job:
    """An inbox with its settings, run by the real luigi command."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.work = folder / "work"
        self.database = database
        self.folder = folder
        self.environment = {**os.environ, "WDH_DATA_BASE_DIR": str(self.inbox), "WDH_WORK_DIR": str(self.work)}
        self.environment["WDH_DATA_SOURCES_CONFIG"] = str(REPOSITORY / "data_sources.yml")
        self.environment["PYTHONPATH"] = str(REPOSITORY)
        if database is not None:
            self.environment["WDH_DATABASE_URI"] = database

    def configure(self, **changes: Any) -> None:
        """Change keys of the domain's entry in a copy of data_sources.yml."""
        path = self.folder / "data_sources.yml"
        sources = yaml.safe_load((path if path.exists() else REPOSITORY / "data_sources.yml").read_text("utf-8"))
        sources["domains"]["trustee_performance"] |= changes
        path.write_text(yaml.safe_dump(sources, allow_unicode=True), "utf-8")
        self.environment["WDH_DATA_SOURCES_CONFIG"] = str(path)

    def command(self, *arguments: str) -> list[str]:
        """Return the luigi command."""
        main = [sys.executable, "-m", "luigi", "--module", "wdh_luigi", "ProcessDomain"]
        return [*main, "--domain", "trustee_performance", "--local-scheduler", *arguments]

    def wdh_command(self, *arguments: str | Path) -> list[str]:
        """Return the wdh command."""
        return [*WDH, *map(str, arguments)]

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command in the job's folder and environment, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )

    def do(self, command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the job's folder and environment; standard output and error are kept apart."""
        environment = {**self.environment, **variables}
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the job."""
        return self.do(self.command(*arguments), **variables)

    def load(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the job with --plan-only false, which must end well."""
        done = self.run("--plan-only", "false", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def wdh(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the wdh command with the job's settings."""
        return self.do(self.wdh_command(*arguments), **variables)

    def summary(self) -> dict[str, Any]:
        """Return the newest run's summary.json."""
        document: dict[str, Any] = json.loads((self.work / "trustee_performance" / "summary.json").read_text("utf-8"))
        return document

    def file(self) -> dict[str, Any]:
        """Return the only workbook's entry in the summary."""
        (file,) = self.summary()["files"]
        return dict(file)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with closing(psycopg2.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def execute(self, sql: str) -> None:
        """Change something in the database behind the product's back."""
        with closing(psycopg2.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            connection.commit()

    def table(self, name: str = "trustee_performance") -> list[tuple[Any, ...]]:
        """Return the table's key and figures, in the order of the key."""
        return self.query(TABLE.format(name))


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of a run's log that tell of an error."""
    return [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "WARNING", "CRITICAL"))]


def executed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the tasks that a run executed, by the lines that they log."""
    return [line.split()[0] for line in steps(done.stderr)]


def steps(log: str) -> list[str]:
    """Return the steps that a log tells, each with its workbook."""
    words = ("ReadExcel", "ProcessTrustee", "Load")
    lines = [
        line.removeprefix("INFO: ") for line in log.splitlines() if line.startswith(tuple(f"INFO: {w} " for w in words))
    ]
    return [line.partition(" (")[0] for line in lines]


def write_list(file: Any, rows: Iterable[Any]) -> None:
    """Write a JSON list, an element a line."""
    writer = targets.RowWriter(file)
    for row in rows:
        writer.write(row)
    writer.close()
