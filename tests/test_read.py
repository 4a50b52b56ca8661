"""wdh read: any workbook as the reader sees it, or refused in one line; and the limits within which a run reads."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import zipfile
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from job import HEADINGS, NAME, REPOSITORY, WDH, Job, errors, workbook
from openpyxl.chart import BarChart


def wdh(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [*WDH, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def document(path: Path, *arguments: str) -> dict[str, Any]:
    done = wdh("read", path, "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A chart sheet first, a hidden sheet, and one with a cell of each kind, not at A1."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "数据"
    sheet["B3"], sheet["C3"], sheet["D3"] = "收益率", 5, 0.055
    sheet["B5"], sheet["C5"], sheet["D5"], sheet["E5"] = date(2024, 11, 1), datetime(2024, 11, 1, 8, 30), time(8), True
    sheet["C6"] = "#DIV/0!"
    sheet["D3"].number_format = "0.00%"
    hidden = book.create_sheet("隐藏")
    hidden.sheet_state = "hidden"
    hidden["A1"] = "x"
    chart = book.create_chartsheet("图", 0)
    chart.add_chart(BarChart())
    path = tmp_path / "mixed.xlsx"
    book.save(path)
    return path


def test_a_workbook_is_one_json_document(mixed: Path) -> None:
    """Sheets with kind, visibility and size; rows with Excel's own numbers, cells from column A."""
    assert document(mixed) == {
        "sheets": [
            {"name": "图", "kind": "chart", "hidden": False, "rows": None, "columns": None},
            {"name": "数据", "kind": "worksheet", "hidden": False, "rows": 6, "columns": 5},
            {"name": "隐藏", "kind": "worksheet", "hidden": True, "rows": 1, "columns": 1},
        ],
        "sheet": "数据",
        "rows": [
            [3, [None, "收益率", 5, 0.055]],
            [5, [None, "2024-11-01", "2024-11-01T08:30:00", "08:00:00", True]],
            [6, [None, None, {"error": "#DIV/0!"}]],
        ],
    }


def test_a_sheet_is_chosen_by_name_or_index(mixed: Path) -> None:
    """A hidden sheet is read when it is asked for; head limits the rows."""
    assert document(mixed, "--sheet", "隐藏")["rows"] == [[1, ["x"]]]
    assert document(mixed, "--sheet", "2")["sheet"] == "隐藏"
    assert len(document(mixed, "--head", "1")["rows"]) == 1
    assert document(mixed, "--head", "0")["rows"] == []


def test_text_for_people_shows_the_same(mixed: Path) -> None:
    """The sheets first, the one shown marked, then the rows."""
    done = wdh("read", mixed)
    assert done.stdout.splitlines() == [
        "  0: 图 (chart)",
        "* 1: 数据 (worksheet, 6 rows x 5 columns)",
        "  2: 隐藏 (worksheet, hidden, 1 rows x 1 columns)",
        "      3   | 收益率 | 5 | 0.055",
        "      5   | 2024-11-01 | 2024-11-01T08:30:00 | 08:00:00 | TRUE",
        "      6   |  | #DIV/0!",
    ]


@pytest.mark.parametrize("kind", ["text", "empty", "folder", "missing", "fifo", "link", "cut", "sheet", "chart"])
def test_what_cannot_be_read_is_refused_in_one_line(mixed: Path, tmp_path: Path, kind: str) -> None:
    """One line on standard error that names the file and what to do, exit code 1, nothing on standard output."""
    path, arguments = tmp_path / f"{kind}.xlsx", []
    match kind:
        case "text":
            path.write_text("年,月,计划代码\n")
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(tmp_path / "nowhere.xlsx")
        case "cut":
            path.write_bytes(mixed.read_bytes()[:3000])
        case "sheet" | "chart":
            shutil.copy(mixed, path)
            arguments = ["--sheet", "图" if kind == "chart" else "没有"]
    done = wdh("read", path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}")
    assert "; " in line, "says what to do"


def test_reading_touches_nothing(mixed: Path, tmp_path: Path) -> None:
    """No work directory, no cache, no configuration wanted."""
    before = sorted(tmp_path.iterdir())
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert wdh("read", mixed, cwd=folder).returncode == 0
    assert list(folder.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [folder, *before]


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    """wdh read … | head ends without a word."""
    path = workbook(tmp_path / "long.xlsx", [[number] * 7 for number in range(20_000)])
    command = f"{shlex.join([*WDH, 'read', str(path), '--json'])} | head -2"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


def test_a_domain_shows_what_its_pipeline_makes_of_a_workbook(tmp_path: Path) -> None:
    """Headings and their fields, what is ignored, skipped and rejected, and the first records."""
    rows = [["2024", 11, "P1", 6, "5.5%", 1, 2, "x"], ["合计"], [2024, 11, "P2", 6, "abc", 1, 2]]
    path = workbook(tmp_path / NAME, rows, headings=[*HEADINGS[:-1], "规模（万元）", "备注"])
    done = wdh("read", path, "--domain", "trustee_performance", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    for line in (
        "sheet 业绩, headings in row 1",
        "    G  规模（万元） -> fund_scale, in 万元",
        "  ignored: 备注",
        "rows: 2 read, 1 accepted, 1 rejected, 0 duplicate, 1 skipped",
        "  skipped row 3: total",
        "  rejected cell E4 收益率 'abc': not a number or percentage",
    ):
        assert line in done.stdout.splitlines()
    assert "fund_scale=20000.00" in done.stdout


def test_a_workbook_over_a_limit_costs_only_itself(tmp_path: Path, database: str) -> None:
    """A bomb of a workbook fails by name; the others of the run are loaded."""
    job = Job(tmp_path, database)
    workbook(job.inbox / f"甲_{NAME}", [[2024, 11, "P1", 6, 0.01, 1, 1]])
    bomb = workbook(job.inbox / f"乙_{NAME}", [[2024, 11, "P2", 6, 0.01, 1, 1]])
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/media/image1.png", b"\0" * (600 << 20))
    done = job.run("--plan-only", "false")
    assert done.returncode == 30
    (line,) = errors(done)
    assert line.startswith(f"ERROR: 乙_{NAME}: too large")
    assert [row[1] for row in job.table()] == ["P1"]


def test_time_and_memory_are_settings(tmp_path: Path) -> None:
    """Whoever runs on a small machine, or reads giants, sets their own limits."""
    job = Job(tmp_path)
    rows = [[2024, 11, f"P{number}", 6, 0.01, 1, 1, f"{number}" * 2000] for number in range(3000)]
    path = workbook(job.inbox / NAME, rows, headings=[*HEADINGS, "备注"])
    done = job.run(WDH_READ_SECONDS="0.001")
    assert "not read within 0.001 s; split the workbook, or set WDH_READ_SECONDS higher" in errors(done)[0]
    assert job.run().returncode == 0
    done = wdh("read", path, WDH_READ_MEMORY_MB="1")
    assert "needs more memory than it may take; split the workbook, or set WDH_READ_MEMORY_MB higher" in done.stderr
