"""What a run came to: summary.json for programs, a table and what to do next for people."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wdh_luigi import targets
from wdh_luigi.errors import one_line

_WIDTH = 132  # where the output is no terminal
_FEW = 20  # workbooks that are all in the table; of more, only those with which something was done
_LISTED = 50  # the most that are in it, and the most lines below it; summary.json has them all
_COUNTS = ("rows_read", "rows_accepted", "rows_rejected", "rows_duplicate", "rows_skipped", "deleted", "inserted")


@dataclass
class FileSummary:
    """One workbook's line of the summary, in the order and by the names of summary.json."""

    path: str
    status: Literal["done", "unchanged", "failed"]
    error: str | None = None
    sha256: str = ""
    period: str = ""
    source: str = ""
    version: int = 0
    sheet: str | None = None
    rows_read: int | None = None
    rows_accepted: int | None = None
    rows_rejected: int | None = None
    rows_duplicate: int | None = None
    rows_skipped: int | None = None
    rejects: str | None = None
    rejects_workbook: str | None = None
    plan: str | None = None
    table: str = ""
    mode: str = ""
    deleted: int | None = None
    inserted: int | None = None
    batches: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """A run's summary."""

    domain: str
    mode: str
    plan_only: bool
    files: list[FileSummary]

    def document(self) -> dict[str, Any]:
        """Return what summary.json holds."""
        document = asdict(self)
        document["totals"] = self.totals()
        return document

    def totals(self) -> dict[str, int]:
        """Add up the workbooks, by their status, and their rows; a count that nobody knows adds nothing."""
        totals = {"files": len(self.files)}
        totals |= {status: self._count(status) for status in ("done", "unchanged", "failed")}
        return totals | {name: sum(getattr(one, name) or 0 for one in self.files) for name in _COUNTS}

    def _count(self, status: str) -> int:
        return sum(one.status == status for one in self.files)


def write(summary: Summary, path: Path) -> None:
    """Write summary.json."""
    targets.write_json(path, summary.document())


def show(summary: Summary, out: TextIO, *, statements: Sequence[str], command: str, written: Path) -> None:
    """
    Print the summary.

    Args:
        statements: the DELETE and INSERT of the first plan that was written or applied; all are alike.
        command: the command that was run, without --plan-only.
        written: where summary.json is.
    """
    console = Console(file=out, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(file=out, highlight=False, soft_wrap=True, width=_WIDTH)
    console.print()
    listed = _listed(summary.files)
    console.print(_table(summary, listed))
    telling = [(number, line) for number, one in listed for line in _lines(one)]
    for number, line in telling[:_LISTED]:
        console.print(Text(f"  {number}  {one_line(line)}"))
    if len(telling) > _LISTED:
        console.print(Text(f"  … and {len(telling) - _LISTED} lines more: see the summary"))
    if statements:
        console.print(Text("\neach plan deletes and inserts, in one transaction, like this one:"))
        console.print(Text("\n".join(f"    {line}" for sql in statements for line in sql.splitlines())))
    console.print()
    for line in closing(summary, command, written):
        console.print(Text(line))


def _listed(files: list[FileSummary]) -> list[tuple[int, FileSummary]]:
    """Return the workbooks to show, each with its number; of many, those that failed first."""
    numbered = list(enumerate(files, 1))
    if len(files) <= _FEW:
        return numbered
    order = {"failed": 0, "done": 1}
    return sorted((one for one in numbered if one[1].status in order), key=lambda one: order[one[1].status])[:_LISTED]


_STYLES = {"failed": "bold red", "loaded": "green", "reverted": "yellow"}


def show_places(headings: Sequence[str], rows: Iterable[Sequence[str]], out: TextIO) -> None:
    """
    Print a line for each place; where the output is no terminal in one line each, however long.

    Args:
        headings: one of them is "state", by which a row is coloured.
    """
    table = Table(box=None, pad_edge=False, expand=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=not out.isatty())
    at = headings.index("state")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row), style=_STYLES.get(row[at], ""))
    if out.isatty():
        Console(file=out, highlight=False).print(table)
        return
    wide = Console(file=io.StringIO(), highlight=False, width=_ANY_WIDTH, force_terminal=False)
    with wide.capture() as captured:
        wide.print(table)
    out.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


_ANY_WIDTH = 1_000_000


def _others(summary: Summary, listed: list[tuple[int, FileSummary]]) -> str:
    """Say how many workbooks are not shown; nothing where all are."""
    left = Counter(one.status for one in summary.files) - Counter(one.status for _, one in listed)
    return ", ".join(f"{count:,} {status}" for status, count in left.items())


def _table(summary: Summary, listed: list[tuple[int, FileSummary]]) -> Table:
    what = "plan only: nothing was written to a database" if summary.plan_only else "executed"
    table = Table(title=f"{summary.domain}: {summary.mode}, {what}", title_justify="left", expand=False)
    table.add_column("")
    table.add_column("workbook", overflow="fold")
    table.add_column("status")
    for name in ("read", "accepted", "rejected", "duplicate", "skipped", "deleted", "inserted", "batches"):
        table.add_column(name, justify="right")
    for number, one in listed:
        style = {"failed": "bold red", "done": "green", "unchanged": "dim"}[one.status]
        counts = [getattr(one, name) for name in (*_COUNTS, "batches")]
        cells = ["–" if count is None else f"{count:,}" for count in counts]
        table.add_row(str(number), Text(one_line(one.path)), Text(one.status, style=style), *cells)
    if others := _others(summary, listed):
        table.add_row("…", others)
    if len(summary.files) > 1:
        totals = summary.totals()
        cells = [f"{totals[name]:,}" for name in _COUNTS]
        if summary.plan_only:
            cells[_COUNTS.index("deleted")] = "–"
        table.add_section()
        table.add_row("", "total", "", *cells, "")
    return table


def _lines(one: FileSummary) -> list[str]:
    lines = []
    if one.error:
        lines.append(f"error: {one.error}")
    if one.plan:
        lines.append(f"table {one.table}, {one.mode}, plan: {one.plan}")
    lines += one.notes
    if one.rejects_workbook:
        lines.append(f"rejects to correct: {one.rejects_workbook}")
    return lines


def closing(summary: Summary, command: str, written: Path) -> list[str]:
    """Return the last lines: where the summary is, how it ended, and what to run next."""
    totals = summary.totals()
    lines = [f"summary: {written}"]
    failed = totals["failed"]
    if failed:
        some = "1 workbook failed" if failed == 1 else f"{failed} workbooks failed"
        lines.append(f"{some}: mend what the errors say and run the same command again; the rest is not done twice.")
    elif totals["unchanged"] == totals["files"]:
        lines.append("Nothing had to be done: " + _standing(summary))
    if summary.plan_only and failed < totals["files"]:
        lines.append("next: review the plans, then load them with")
        lines.append(f"    {command} --plan-only false")
    return lines


def _standing(summary: Summary) -> str:
    return "every plan is written already." if summary.plan_only else "every workbook is loaded already."
