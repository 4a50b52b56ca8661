"""What a run prints when it ends."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest

from wdh_luigi import report
from wdh_luigi.report import FileSummary, Summary

Status = Literal["done", "unchanged", "failed"]


def shown(files: list[FileSummary]) -> str:
    out = io.StringIO()
    summary = Summary("trustee_performance", "delete_insert", True, files)
    report.show(summary, out, statements=[], command="wdh run", written=Path("work/summary.json"))
    return out.getvalue()


def files(**counts: int) -> list[FileSummary]:
    """Make so many workbooks of each status, with numbers in their names."""
    statuses: dict[str, Status] = {"unchanged": "unchanged", "done": "done", "failed": "failed"}
    return [
        FileSummary(path=f"{status}-{number}.xlsx", status=statuses[status], rows_read=1, notes=["a note"])
        for status, count in counts.items()
        for number in range(count)
    ]


def test_a_few_workbooks_are_all_shown() -> None:
    """With twelve trustees each has its line, whatever happened."""
    text = shown(files(unchanged=11, done=1))
    assert all(f"unchanged-{number}.xlsx" in text for number in range(11))
    assert text.count("a note") == 12


def test_of_many_workbooks_the_unchanged_are_a_number() -> None:
    """A second run over ten years of months has one line to say."""
    text = shown(files(unchanged=2400))
    assert "2,400 unchanged" in text
    assert "unchanged-7.xlsx" not in text
    assert "Nothing had to be done" in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("failed", [1, 3])
def test_of_many_workbooks_those_that_failed_come_first(failed: int) -> None:
    """One failure must not hide behind three hundred successes."""
    counts = files(unchanged=100, done=300, failed=failed)
    for one in counts[-failed:]:
        one.error = f"{one.path}: damaged"
    lines = shown(counts).splitlines()
    first = next(line for line in lines if ".xlsx" in line)
    assert "failed-0.xlsx" in first
    assert [line.strip() for line in lines if "error: " in line] == [
        f"{401 + number}  error: failed-{number}.xlsx: damaged" for number in range(failed)
    ]
    left = 300 - (50 - failed)
    assert any("100 unchanged" in line for line in lines)
    assert any(f"{left} done" in line for line in lines)
