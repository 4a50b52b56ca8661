"""Rows sorted while they are read, and again where that was of no use: the files are the same."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from job import NAME, workbook, write_list

from wdh_luigi import discover, sorting, steps, targets, validate
from wdh_luigi.batches import FIRST_ROWS
from wdh_luigi.config import Discovery, DomainConfig
from wdh_luigi.errors import WorkDirError
from wdh_luigi.steps import Steps

ROWS = 2_500  # more than one batch


class Sheet:
    """A workbook in an inbox, and its steps under a work directory."""

    def __init__(self, folder: Path, rows: list[list[Any]], **settings: Any) -> None:
        self.folder = folder
        workbook(folder / "inbox" / NAME, rows)
        pattern = r"(?P<year>\d{4})年(?P<month>\d+)月"
        pk = ["report_date", "plan_code", "company_code"]
        config = DomainConfig.model_validate({"pattern": pattern, "table": "t", "pk": pk, **settings})
        inbox = folder / "inbox"
        files = discover.scan(inbox, config, Discovery())
        self.snapshot = discover.freeze(
            inbox, "trustee_performance", config, files, period=None, hashes={}, today=date(2024, 12, 1)
        )

    def steps(self, work: str) -> Steps:
        """Return the steps under a work directory of a name."""
        return Steps(self.folder / work, self.snapshot, self.snapshot.chosen[0])


def contents(one: Steps) -> list[bytes]:
    """Return what was made of the rows."""
    return [path.read_bytes() for path in (one.accepted_path, one.copied_path, one.rejects_path, one.outcome_path)]


def sort_twice(sheet: Sheet) -> tuple[bool, list[list[bytes]]]:
    """Sort ahead and not ahead; tell whether what was done ahead was of use, and what came of both."""
    ahead, behind = sheet.steps("ahead"), sheet.steps("behind")
    ahead.read(), behind.read()
    profile = steps._profile(targets.read_json(ahead.profile_path))
    rates = validate.rates(profile, ahead.config, ahead.domain, NAME)
    used = sorting.kept(ahead._sorted_files, rates.percent) is not None
    for path in (behind._sorted_files.outcome, behind.accepted_path, behind.copied_path, behind.rejects_path):
        path.unlink(missing_ok=True)
    ahead.process(), behind.process()
    return used, [contents(ahead), contents(behind)]


def good(at: int) -> list[Any]:
    return [2024, 11, f"P{at}", "6", 0.01, 1.05, at / 100]


def test_what_is_sorted_ahead_is_what_would_be_sorted_then(tmp_path: Path) -> None:
    """Rejects, duplicates and contradictions across batches, warnings and blanks among them."""
    rows = [good(at) for at in range(ROWS)]
    rows[7][4], rows[8][5], rows[9][4:] = "abc", 101, [None, None, None]
    rows[20][0] = 2023
    rows += [good(1), good(2), [*good(3)[:4], 0.02, 1, 1]]
    used, (ahead, behind) = sort_twice(Sheet(tmp_path, rows))
    assert used
    assert ahead == behind
    outcome = targets.loads(ahead[-1])
    counts = [outcome[f"rows_{word}"] for word in ("read", "accepted", "rejected", "duplicate", "with_warnings")]
    assert counts == [ROWS + 3, ROWS - 2, 3, 2, 2]
    assert [line.split(b"\t")[1] for line in ahead[1].splitlines()][:9] == [
        b"P0", b"P1", b"P2", b"P4", b"P5", b"P6", b"P8", b"P9", b"P10",
    ]  # fmt: skip


def test_a_guess_takes_in_more_than_the_few_rows_that_come_first(tmp_path: Path) -> None:
    """The first batch is small, for who looks for headings; a guess by it alone would be made again too often."""
    rows = [[*good(at)[:4], "1%", *good(at)[5:]] for at in range(FIRST_ROWS)]
    rows += [[*good(at)[:4], 5.5, *good(at)[5:]] for at in range(FIRST_ROWS, ROWS)]
    used, (ahead, behind) = sort_twice(Sheet(tmp_path, rows))
    assert used
    assert ahead == behind


def test_a_guess_that_later_rows_refute_is_made_again(tmp_path: Path) -> None:
    """The first thousands of rates say nothing; those behind are percent points."""
    rows = [[*good(at)[:4], "1%", *good(at)[5:]] for at in range(ROWS * 2)]
    rows += [[*good(at)[:4], 5.5, *good(at)[5:]] for at in range(ROWS * 2, ROWS * 2 + 10)]
    used, (ahead, behind) = sort_twice(Sheet(tmp_path, rows))
    assert not used
    assert ahead == behind
    assert ahead[0].count(b'"return_rate":"0.055000"') == 10


@pytest.mark.parametrize("settings", [{}, {"rate_unit": "percent"}])
def test_one_that_fails_ahead_fails_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    """It is no step of its own: the next one does its work, and tells what there is to tell."""
    with monkeypatch.context() as patch:
        patch.setattr(sorting, "sort", lambda *args: 1 / 0)
        one = Sheet(tmp_path, [good(at) for at in range(10)], **settings).steps("work")
        assert one.read()["rows_read"] == 10
    assert not one.accepted_path.exists()
    assert one.process()["rows_accepted"] == 10


def test_a_list_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Whatever part of a line is there, and whatever the rows hold."""
    path = tmp_path / "rows.json"
    rows: list[Any] = [[2, ["]", "[", "a,\nb", "\ud800"]], [3, []], [4, [{"number": 1, "format": "]"}]]]
    whole = tmp_path / "whole.json"
    with whole.open("wb") as file:
        write_list(file, rows)
    parts = [whole.read_bytes()[at : at + 1] for at in range(whole.stat().st_size)]
    with path.open("wb", buffering=0) as file:

        def more() -> bool:
            part = parts.pop(0) if parts else b""
            file.write(part)
            return bool(part)

        assert [row for batch in targets.read_batches(path, more) for row in batch] == rows


@pytest.mark.parametrize(
    "edited",
    [
        b'[\n{"rows":[[2,4]],"columns":[["a","b"]]}\n]\n',
        b'[\n{"rows":[[2,4]]}\n]\n',
        b'[\n{"rows":[[2,"x"]],"columns":[]}\n]\n',
        b"[\n[2,[1]]\n]\n",
    ],
)
def test_rows_that_somebody_edited_are_refused(tmp_path: Path, edited: bytes) -> None:
    """A cell that is missing must not be taken from another row."""
    path = tmp_path / "rows.json"
    path.write_bytes(edited)
    with pytest.raises(WorkDirError, match="is not the JSON that was written; delete it and run again"):
        list(sorting.rows_of(path, range(10)))


def test_a_line_longer_than_what_is_read_at_a_time_comes_back(tmp_path: Path) -> None:
    """A batch of long texts is one line of many megabytes."""
    path = tmp_path / "rows.json"
    rows = ["x" * 3_000_000, "y", "z" * 300_000]
    with path.open("wb") as file:
        write_list(file, rows)
    assert list(targets.read_rows(path)) == rows
