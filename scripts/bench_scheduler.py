"""
Time Luigi's scheduler alone: python scripts/bench_scheduler.py [--workbooks 100 1000] [--write PAGE]

A run of so many workbooks' tasks (three each, one behind the other, under one task that needs them all) which do
nothing: what is left is what Luigi itself takes, by its local scheduler. Twice as many tasks taking four times as long
is what makes `wdh run` tell it of 100 workbooks at a time.
"""

from __future__ import annotations

import argparse
import logging
import platform
import time
from pathlib import Path
from typing import Any

import bench_page
import luigi

STEPS = 3
_done: set[tuple[int, int]] = set()


class Step(luigi.Task):
    """A step that is done as soon as it runs."""

    workbook = luigi.IntParameter()
    number = luigi.IntParameter()

    def requires(self) -> list[Any]:
        return [Step(workbook=self.workbook, number=self.number - 1)] if self.number else []

    def complete(self) -> bool:
        return (self.workbook, self.number) in _done

    def run(self) -> None:
        _done.add((self.workbook, self.number))


class All(luigi.WrapperTask):
    """What ProcessDomain is to its workbooks."""

    workbooks = luigi.IntParameter()

    def requires(self) -> list[Step]:
        return [Step(workbook=number, number=STEPS - 1) for number in range(self.workbooks)]


def timed(workbooks: int) -> float:
    """Return the wall seconds of a run."""
    _done.clear()
    started = time.perf_counter()
    assert luigi.build([All(workbooks=workbooks)], local_scheduler=True, log_level="CRITICAL")
    return time.perf_counter() - started


def main() -> None:
    """Time each size, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workbooks", type=int, nargs="+", default=[100, 300, 1_000])
    parser.add_argument("--write", type=Path, help="the page whose part between the scheduler marks is replaced")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lines = ["| workbooks | tasks | wall s | ms a workbook |", "|---:|---:|---:|---:|"]
    for workbooks in asked.workbooks:
        seconds = timed(workbooks)
        lines.append(f"| {workbooks:,} | {workbooks * STEPS:,} | {seconds:.1f} | {seconds / workbooks * 1000:.1f} |")
        print(lines[-1], flush=True)
    lines.append(
        f"\nLuigi {luigi.__version__}, local scheduler, {platform.machine()}, Python {platform.python_version()}."
    )
    if asked.write:
        bench_page.write(asked.write, "scheduler", lines)


if __name__ == "__main__":
    main()
