"""
A run as one command, by one process or by several that share it.

It ends when every workbook is complete or has failed, and its exit code says which, whoever did the work.
"""

from __future__ import annotations

import logging
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import luigi
import luigi.configuration
import luigi.interface
from luigi.execution_summary import LuigiStatusCode
from luigi.retcodes import retcode
from luigi.rpc import RemoteScheduler, RPCError

from wdh_luigi import config, launch, lock, run
from wdh_luigi.errors import INTERRUPTED, BusyError, ConfigError, DatabaseError, WdhError
from wdh_luigi.run import Run
from wdh_luigi.tasks import Load, ProcessDomain

_WAVE = 100  # workbooks that Luigi is told of at a time
_PAUSE = 1.0  # seconds between two looks at what others do
_PATIENCE = 15.0  # seconds without progress, longer than luigid refuses a task that was done a moment ago
# Two minutes, for a luigid that is started again.
_LUIGID_AWAY = {"rpc-retry-attempts": "24", "rpc-retry-wait": "5", "rpc-log-retries": "true"}


@dataclass(frozen=True)
class Order:
    """What to run: the parameters of ProcessDomain."""

    domain: str
    mode: str | None = None
    plan_only: bool = True
    sheet: str | None = None
    period: str | None = None
    diff: bool = False


@dataclass(frozen=True)
class Crew:
    """
    Who works.

    Attributes:
        workers: how many processes.
        luigid: the URL of the scheduler by which several commands share the work; None: this command alone.
        join: let other commands that join take part at the same time.
    """

    workers: int = 1
    luigid: str | None = None
    join: bool = False

    @property
    def shown(self) -> str:
        """Return luigid's URL without the password that it may hold."""
        return re.sub(r"//[^/@]*@", "//", self.luigid or "")

    def check(self) -> None:
        """
        Refuse what cannot work, before anything runs.

        Raises:
            ConfigError: luigid does not answer, or there is none to join by.
        """
        if self.join and self.luigid is None:
            raise ConfigError("--join", "runs share the work through luigid", "name it with --scheduler-url")
        if self.luigid is not None:
            _set({"rpc-retry-attempts": "1", "rpc-retry-wait": "0", "rpc-log-retries": "false"})
            try:
                _scheduler(self).is_paused()
            except (RPCError, ValueError, KeyError) as error:  # the last two: something answers that is no luigid
                mend = "start luigid, or leave --scheduler-url out to run without"
                raise ConfigError("--scheduler-url", f"no luigid answers at {self.shown}", mend) from error
            _set(_LUIGID_AWAY)


def _scheduler(crew: Crew) -> Any:
    """Return luigid, whose methods Luigi makes as it is imported."""
    return RemoteScheduler(crew.luigid)


def _set(options: dict[str, str]) -> None:
    luigi.interface.core.ignore_unconsumed |= {name.replace("-", "_") for name in options}  # else it warns of them
    for name, value in options.items():
        luigi.configuration.get_config().set("core", name, value)


def lock_of(order: Order, crew: Crew) -> Any:
    """Return the lock of a domain in a work directory, when the domain's settings are sound."""
    run.entry_of(order.domain, mode=order.mode, sheet=order.sheet)
    return lock.held(config.load_settings().work_dir / order.domain / "run.lock", shared=crew.join)


def command(order: Order, crew: Crew, start: Sequence[str]) -> str:
    """Return the command that runs an order again, without --plan-only."""
    words = [*start, *launch.given(order)]
    words += ["--workers", str(crew.workers)] if crew.workers != 1 else []
    words += ["--scheduler-url", crew.shown] if crew.luigid else []
    words += ["--join"] if crew.join else []
    return shlex.join(words)


def go(order: Order, crew: Crew, out: TextIO) -> int:
    """
    Run an order and print its summary; return the exit code.

    Raises:
        WdhError: refused before anything ran.
    """
    with launch.noticed(order.domain):
        crew.check()
        one_at_a_time = lock_of(order, crew)
    with one_at_a_time:
        task: ProcessDomain = ProcessDomain(**vars(order))  # type: ignore[no-untyped-call]
        one = launch.take(task)
        one.command = command(order, crew, ["wdh", "run"])
        code = told(lambda: work(task, one, crew))
        launch.tell(one, out)
        return code


def ended(action: Callable[[], int]) -> int:
    """Do what ends with an exit code, also where it is refused."""
    try:
        launch.start_log()
        return action()
    except BusyError as error:
        launch.announce(f"error: {error}", logging.ERROR)
        return int(codes().already_running)
    except WdhError as error:
        launch.announce(f"error: {error}", logging.ERROR)
        return int(codes().unhandled_exception)
    except KeyboardInterrupt:  # before the run begins, or after it has ended
        launch.tell_interrupt()
        return INTERRUPTED


def codes() -> retcode:
    """Return Luigi's exit codes, as luigi.cfg or else the package sets them."""
    return retcode()


def told(action: Callable[[], int]) -> int:
    """Do what ends with an exit code; tell in one line what ends it before, and return the code for that."""
    try:
        return action()
    except RPCError:
        launch.announce("error: luigid has gone; start it, and run the same command again to go on", logging.ERROR)
    except DatabaseError as error:
        launch.announce(f"error: {error}", logging.ERROR)
    except KeyboardInterrupt:
        launch.tell_interrupt()
        return INTERRUPTED
    return int(codes().scheduling_error)


def work(task: ProcessDomain, one: Run, crew: Crew) -> int:
    """
    Do what a run has to do, or see it done; return the exit code.

    Raises:
        RPCError: luigid has gone.
        DatabaseError: the database does not say what is loaded.
    """
    if all(one.complete):
        return 0
    statuses = _in_waves(task, one, crew)
    if crew.luigid is not None:
        statuses |= _share(task, one, crew)
    waiting, stopped = _remaining(task, one)
    if not waiting and not stopped:
        return 0
    if statuses & {LuigiStatusCode.SCHEDULING_FAILED, LuigiStatusCode.FAILED_AND_SCHEDULING_FAILED}:
        return int(codes().scheduling_error)
    if stopped or LuigiStatusCode.FAILED in statuses:
        return int(codes().task_failed)
    return int(codes().not_run)


def _in_waves(task: ProcessDomain, one: Run, crew: Crew) -> set[LuigiStatusCode]:
    """Have Luigi run the task; where it is of many workbooks, some at a time: its scheduler looks at all for each."""
    left = [load for load, done in zip(task.loads, one.complete, strict=True) if not done]
    if len(left) <= _WAVE:
        return {_build([task], crew)}
    statuses: set[LuigiStatusCode] = set()
    stopped: set[Load] = set()
    for first in range(0, len(left), _WAVE):
        wave = left[first : first + _WAVE]
        _add_stopped(wave, one, stopped)
        if free := [load for load in wave if load not in stopped]:
            statuses.add(_build(free, crew))
            _add_stopped(wave, one, stopped)
    if all(run.complete(one.snapshot, one.plan_only)):
        _build([task], crew)  # which is done: luigid is told
    return statuses


def _add_stopped(loads: Sequence[Load], one: Run, stopped: set[Load]) -> None:
    """Add the loads, in their order, that failed in this run or wait for one that did."""
    for load in loads:
        if one.failure(load.steps) is not None or not stopped.isdisjoint(load.requires()):
            stopped.add(load)


def _build(tasks: Sequence[luigi.Task], crew: Crew) -> LuigiStatusCode:
    url = crew.luigid or ""
    by = {"local_scheduler": not url, "scheduler_url": url}
    status: LuigiStatusCode = luigi.build(tasks, detailed_summary=True, workers=crew.workers, **by).status
    return status


def _share(task: ProcessDomain, one: Run, crew: Crew) -> set[LuigiStatusCode]:
    """
    See to what is left while others work: wait for what they do, do what they left when they were killed.

    Luigi's own worker ends when there is nothing that it could do at the moment, which Luigi calls a success, and it is
    told nothing by a luigid that has forgotten all.
    """
    luigid = _scheduler(crew)
    statuses: set[LuigiStatusCode] = set()
    waiting, stopped = _remaining(task, one)
    since = time.monotonic()
    while waiting and time.monotonic() - since < _PATIENCE:
        busy = _busy(luigid, waiting)
        free = [load for load in waiting if load not in busy]
        if free:
            statuses.add(_build(free[:_WAVE], crew))
        else:
            time.sleep(_PAUSE)
        left = len(waiting)
        waiting, stopped = _remaining(task, one)
        if busy or len(waiting) < left:
            since = time.monotonic()
        elif waiting:
            time.sleep(_PAUSE)
    if statuses and not waiting and not stopped:
        _build([task], crew)  # which is done: luigid is told
    return statuses


def _remaining(task: ProcessDomain, one: Run) -> tuple[list[Load], set[Load]]:
    """Return the loads that are still to be done, and those that failed in this run or wait for one that did."""
    complete = run.complete(one.snapshot, one.plan_only)
    left = [load for load, done in zip(task.loads, complete, strict=True) if not done]
    stopped: set[Load] = set()
    _add_stopped(left, one, stopped)
    return [load for load in left if load not in stopped], stopped


def _busy(luigid: Any, loads: Sequence[Load]) -> list[Load]:
    """Return the loads of which others do a step at the moment; all of them while luigid is paused."""
    if luigid.is_paused()["paused"]:
        return list(loads)
    running = luigid.task_list("RUNNING", "").values()  # which prunes: workers that were killed are dropped
    workbooks = {(one["params"].get("domain"), one["params"].get("workbook")) for one in running}
    return [load for load in loads if (load.domain, load.workbook) in workbooks]
