"""Many months, one after another: each a run of its own, so that the last costs no more than the first."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TextIO

from luigi.task_register import Register

from wdh_luigi import crew, launch, report, run, watch
from wdh_luigi.crew import Crew, Order
from wdh_luigi.discover import Snapshot
from wdh_luigi.errors import ConfigError, WdhError, one_line
from wdh_luigi.report import FileSummary, Summary
from wdh_luigi.tasks import ProcessDomain

_SHOWN = 200  # failures listed at the end


def months(first: str, last: str) -> list[str]:
    """
    Return the months from one to another: 2024-11, 2024-12, 2025-01.

    Raises:
        ConfigError: one is no month, or the first is after the last.
    """
    begin, end = _month("--from", first), _month("--to", last)
    if begin > end:
        raise ConfigError("--from", f"{first} is after --to {last}", "exchange them")
    numbers = range(begin.year * 12 + begin.month - 1, end.year * 12 + end.month)
    return [f"{number // 12}-{number % 12 + 1:02}" for number in numbers]


def _month(option: str, text: str) -> date:
    try:
        if len(text) != len("2024-11"):
            raise ValueError
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise ConfigError(option, f"{text!r} is no month", "write it like 2024-11") from None


@dataclass
class _Account:
    """What the months came to so far."""

    out: TextIO
    files: list[FileSummary] = field(default_factory=list)
    months: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def tell(self, month: str, what: str) -> None:
        """Tell a month in one line."""
        print(f"{month}  {what}", file=self.out, flush=True)

    def add(self, month: str, files: list[FileSummary]) -> None:
        """Count a month's workbooks, and tell it in one line."""
        self.files += files
        counts = Counter(file.status for file in files)
        self.months["failed" if counts["failed"] else "done" if counts["done"] else "unchanged"] += 1
        self.failures += [f"{month}  {file.error}" for file in files if file.error]
        words = ", ".join(f"{counts[status]} {status}" for status in ("done", "unchanged", "failed") if counts[status])
        self.tell(month, f"{len(files)} workbook{'' if len(files) == 1 else 's'}: {words}")

    def fail(self, month: str, line: str) -> None:
        """Count a month of which nothing could be begun."""
        self.months["failed"] += 1
        self.failures.append(f"{month}  {line}")
        self.tell(month, f"failed: {line}")

    def skip(self, month: str) -> None:
        """Count a month without a workbook."""
        self.months["without a workbook"] += 1
        self.tell(month, "no workbook")

    def end(self) -> None:
        """Tell what all came to, and what failed."""
        told = sum(self.months.values())
        counts = ", ".join(f"{count} {word}" for word, count in self.months.items()) or "none begun"
        print(f"\n{told} month{'' if told == 1 else 's'}: {counts}", file=self.out)
        for line in self.failures[:_SHOWN]:
            print(f"    {one_line(line)}", file=self.out)
        if len(self.failures) > _SHOWN:
            print(f"    … and {len(self.failures) - _SHOWN} more: see the summary", file=self.out)


def go(order: Order, who: Crew, first: str, last: str, out: TextIO) -> int:
    """
    Run an order for every month from one to another; return the exit code.

    Args:
        order: its period is that of each month in turn.
    Raises:
        WdhError: refused before anything ran.
    """
    asked = months(first, last)
    with launch.noticed(order.domain):
        who.check()
        one_at_a_time = crew.lock_of(order, who)
    with one_at_a_time:
        frozen = launch.freeze_months(vars(order), asked)
        account = _Account(out)
        code = crew.told(lambda: max(_month_of(order, who, month, frozen.get(month), account) for month in asked))
        again = crew.command(order, who, ["wdh", "backfill", "--from", first, "--to", last])
        _end(order, account, again)
        return code


def _month_of(order: Order, who: Crew, month: str, snapshot: Snapshot | str | None, account: _Account) -> int:
    """Run one month; return its exit code."""
    if snapshot is None:
        account.skip(month)
        return 0
    if isinstance(snapshot, str):
        account.fail(month, snapshot)
        return int(crew.codes().task_failed)
    values = vars(replace(order, period=month)) | {"snapshot": snapshot.key}
    task: ProcessDomain = ProcessDomain(**values)  # type: ignore[no-untyped-call]
    one = launch.take(task)
    try:
        code = crew.work(task, one, who)
    finally:
        watch.remove_bars()
    account.add(month, one.files())
    run.forget(snapshot)
    Register.clear_instance_cache()  # Luigi's own, which else holds every month's tasks
    return code


def _end(order: Order, account: _Account, command: str) -> None:
    """Write the summary of all months, and tell it."""
    account.end()
    entry, _ = run.entry_of(order.domain, mode=order.mode, sheet=order.sheet)
    summary = Summary(order.domain, entry.mode, order.plan_only, account.files)
    for line in report.closing(summary, command, run.summary_path(order.domain)):
        print(one_line(line), file=account.out, flush=True)
    try:
        run.keep(summary)
        again = command if order.plan_only else f"{command} --plan-only false"
        launch.tell_end(summary, run.summary_path(order.domain), again)
    except WdhError as error:
        launch.announce(f"error: {error}", logging.ERROR)
