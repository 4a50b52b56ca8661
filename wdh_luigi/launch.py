"""What Luigi is told and what it says: its settings, one line an error in its log, and the summary when it ends."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import gc
import logging
import multiprocessing
import os
import re
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.error import URLError

import luigi
import luigi.configuration
import luigi.interface
import luigi.rpc
from luigi.cmdline_parser import CmdlineParser
from luigi.setup_logging import InterfaceLogging

from wdh_luigi import config, logs, run, watch
from wdh_luigi.discover import Snapshot
from wdh_luigi.errors import WdhError, one_line
from wdh_luigi.report import Summary

logger = logging.getLogger("luigi-interface")

# What the project's luigi.cfg says, where no configuration says otherwise: a failed run must never exit 0.
LUIGI_DEFAULTS = {
    # Luigi's lock knows a run by its command line alone: two inboxes would be taken for one run.
    "core": {"log_level": "INFO", "no_lock": "true"},
    "retcode": {
        "already_running": "10",
        "missing_data": "20",
        "not_run": "25",
        "task_failed": "30",
        "scheduling_error": "35",
        "unhandled_exception": "40",
    },
    "worker": {
        "check_complete_on_run": "true",
        "wait_interval": "1",
        "wait_jitter": "0.5",
        "max_reschedules": "1",
        # Luigi's notices are one a task, with a traceback; a run sends one of its own, by Luigi's [email] and [smtp].
        "send_failure_email": "false",
    },
    "scheduler": {"worker_disconnect_delay": "15", "stable_done_cooldown_secs": "0", "retry_delay": "-1"},
}

# Luigi's account of each task and of the run, which are given in fewer words; shown with --log-level DEBUG.
_NOISE = re.compile(
    r"Informed scheduler that task|\[pid \d+\] Worker .* (running|done) |Running Worker with|Worker .* was stopped"
    r"|\s===== Luigi Execution Summary ====="
    r"|Retrying attempt|Wait for \d+ seconds"
)
# Luigi puts a traceback into the text of some messages; the error is in its last line.
_TRACEBACK = re.compile(
    r"Traceback \(most recent call last\):.*^(?:[\w.]+\.)?(\w+): ([^\n]*)\s*\Z", re.DOTALL | re.MULTILINE
)


def set_luigi_defaults() -> None:
    """Give Luigi the project's settings where its configuration is silent, and its log one line an error."""
    parser = luigi.configuration.get_config()
    for section, options in LUIGI_DEFAULTS.items():
        for option, value in options.items():
            if not any(parser.has_option(section, spelling) for spelling in (option, option.replace("_", "-"))):
                parser.set(section, option, value)
    if not any(isinstance(one, _OneLine) for one in logger.filters):
        logger.addFilter(_OneLine())


def set_log_level(level: str | None) -> None:
    """Let Luigi log from a level on, where one is given; what Luigi's own --log-level does for its command."""
    if level is not None:
        luigi.configuration.get_config().set("core", "log_level", level)


class _OneLine(logging.Filter):
    """Let an error be one line, without the traceback that only --log-level DEBUG asks for."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _debugging():
            return True
        if record.module == "rpc":  # luigid does not answer, and is asked again
            record.exc_info = record.exc_text = None
        if record.exc_info and record.exc_info[1] is not None:
            record.msg, record.args = explain(record.exc_info[1]), ()
            record.exc_info = record.exc_text = None
            return True
        message = record.getMessage()
        if record.levelno <= logging.INFO:
            return not _NOISE.search(message)
        if found := _TRACEBACK.search(message):
            record.msg, record.args = found[2], ()
        return True


_asked: list[str] = []


def _debugging() -> bool:
    """Tell whether --log-level DEBUG was given: Luigi's logger does not know where a run ended before it was set up."""
    return logger.isEnabledFor(logging.DEBUG) or "DEBUG" in _asked


def explain(error: BaseException) -> str:
    """Return an error as one line: a user's own in full, one of ours with how to get its traceback."""
    if isinstance(error, WdhError):
        return str(error)
    if isinstance(error, luigi.rpc.RPCError | URLError):
        why = getattr(error, "sub_exception", None) or error
        why = getattr(why, "reason", why)
        return one_line(f"luigid cannot be reached ({why}); start it with wdh luigid start, or use --local-scheduler")
    if isinstance(error, MemoryError):
        return "out of memory: give the process more, or split the workbook"
    return one_line(f"internal error: {type(error).__name__}: {error}; run again with --log-level DEBUG and report it")


def freeze(values: dict[str, Any]) -> str:
    """Freeze the inbox for a ProcessDomain of these parameters; return the snapshot's key."""
    _start(values["domain"])
    chosen = {name: values[name] for name in ("domain", "mode", "plan_only", "sheet", "period", "diff")}
    with noticed(values["domain"]):
        return run.freeze(**chosen, announce=announce).key


def freeze_months(values: dict[str, Any], months: Sequence[str]) -> dict[str, Snapshot | str]:
    """Freeze the inbox once for a ProcessDomain of each month; return its snapshot, or why there is none."""
    _start(values["domain"])
    chosen = {name: values[name] for name in ("domain", "mode", "plan_only", "sheet", "diff")}
    with noticed(values["domain"]):
        return run.freeze_months(months, **chosen, announce=announce)


def _start(domain: str) -> None:
    start_log()
    _explain_interrupts()
    logs.tell_run(run=secrets.token_hex(4), domain=domain)


def start_log() -> None:
    """
    Log as WDH_LOG_FORMAT says, from now on.

    Raises:
        ConfigError: there is no such format, or another setting is wrong.
    """
    level = luigi.interface.core().log_level
    _asked[:] = [level]
    if config.load_settings().log_format == "json":
        luigi.configuration.get_config().set("core", "no_configure_logging", "true")
        logs.use_json(logging.getLevelName(level))


def announce(line: str, level: int = logging.INFO) -> None:
    """Print a line at once: Luigi's log may not be set up yet. A log of JSON lines has it with its level."""
    if logs.in_use():
        logger.log(level, line)
    else:
        watch.write(f"{line}\n")


@contextlib.contextmanager
def noticed(domain: str) -> Iterator[None]:
    """Send a notice when what stands in the block stops the whole run."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        watch.notify(f"{domain} was not run: {line}", [line])
        raise


_runs: dict[str, run.Run] = {}


def begin(task: Any, complete: list[bool]) -> None:
    """Note, the first time in the process that was started by a person or cron, what there is to do."""
    if task.task_id in {*_runs, *_taken} or multiprocessing.parent_process() is not None:
        return
    if not _runs:
        atexit.register(_finish)
    snapshot = run.frozen(task.domain, task.snapshot)
    _runs[task.task_id] = run.Run(snapshot, task.plan_only, task.diff, command(task), complete)
    if CmdlineParser.get_instance() is not None:  # Luigi's command: nobody else's screen
        _show_bars(_runs[task.task_id])


def _show_bars(one: run.Run) -> None:
    if not _debugging():
        InterfaceLogging.setup(luigi.interface.core())  # before Luigi does: what it logs is to stand above the bars
        watch.show_bars(one.snapshot.domain, one.complete.count(False))


def take(task: Any) -> run.Run:
    """Begin a task's run, and leave it to a caller who ends it himself, with a summary of his own."""
    _taken.discard(task.task_id)
    task.complete()
    one = _runs.pop(task.task_id)
    _taken.add(task.task_id)
    _show_bars(one)
    return one


_taken: set[str] = set()


def end(task: Any) -> None:
    """
    Write the summary of a run that has come to its end, where luigi.build runs it.

    Luigi's command ends its process, and the summary is the last thing that it says.
    """
    if multiprocessing.parent_process() is None and CmdlineParser.get_instance() is None and task.task_id in _runs:
        tell(_runs.pop(task.task_id), sys.stdout)


def _finish() -> None:
    for one in _runs.values():
        tell(one, sys.stdout)
    gc.freeze()  # as Python ends, it would look through all modules for cycles, a twelfth of a second
    _runs.clear()


def tell(one: run.Run, out: TextIO) -> None:
    """Write and print the summary of a run; what hinders it is told in one line."""
    watch.remove_bars()
    try:
        summary = one.finish(None if logs.in_use() else out)
        tell_end(summary, run.summary_path(summary.domain), one.rerun)
    except WdhError as error:
        announce(f"error: {error}", logging.ERROR)
    except KeyboardInterrupt:  # atexit would show it as an exception that is ignored
        announce("interrupted: the summary is not whole; run the same command again to see it")


def tell_end(summary: Summary, path: Path, rerun: str) -> None:
    """Log what a run came to where there is no summary on the screen, and send a notice of what failed."""
    totals = summary.totals()
    if logs.in_use():
        level = logging.ERROR if totals["failed"] else logging.INFO
        logger.log(level, "summary: %s", path, extra={"counts": totals})
    failed = [str(file.error) for file in summary.files if file.status == "failed"]
    if failed and not _interrupted:
        subject = f"{summary.domain}: {len(failed)} of {totals['files']} workbooks failed: {failed[0]}"
        watch.notify(subject, [*failed, "", f"summary: {path}", f"again, when it is mended: {rerun}"])


def command(task: Any) -> str:
    """Return the command that runs this again, without --plan-only."""
    words = [os.environ.get("WDH_COMMAND") or "luigi --module wdh_luigi ProcessDomain", shlex.join(given(task))]
    if luigi.interface.core().local_scheduler and "WDH_COMMAND" not in os.environ:
        words.append("--local-scheduler")
    return " ".join(words)


def given(asked: Any) -> list[str]:
    """Return the parameters that a task or an order was given as a command's arguments, without --plan-only."""
    values = {f"--{name}": getattr(asked, name) for name in ("domain", "mode", "sheet", "period")}
    return [word for option, value in values.items() if value is not None for word in (option, value)]


def _explain_interrupts() -> None:
    """Let Ctrl-C end a run with one line, told by the process that a person or cron started."""
    if _parent:
        return
    _parent.append(os.getpid())
    sys.excepthook = functools.partial(_explain_interrupt, sys.excepthook)
    sys.unraisablehook = functools.partial(_repeat_interrupt, sys.unraisablehook)
    os.register_at_fork(after_in_child=leave_interrupts_to_parent)


_parent: list[int] = []
_interrupted: list[bool] = []
_PATIENCE = 5.0  # seconds


def tell_interrupt() -> None:
    """Tell that a person ended the run."""
    _interrupted.append(True)
    announce("interrupted: nothing is half done; run the same command again to go on")


def _explain_interrupt(
    former: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    watch.remove_bars()
    if issubclass(kind, KeyboardInterrupt) and not _debugging():
        tell_interrupt()
    elif logs.in_use():
        logger.critical("the run broke off", exc_info=(kind, error, trace))
    else:
        former(kind, error, trace)


def _repeat_interrupt(former: Callable[..., Any], ignored: Any) -> None:
    """Interrupt again where Ctrl-C met a hook of os.fork or a finaliser, in which Python ignores every exception."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        former(ignored)
    elif os.getpid() in _parent:
        with contextlib.suppress(RuntimeError):  # no thread starts while Python ends: nothing is left to interrupt
            threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        _await_end()


def leave_interrupts_to_parent() -> None:
    """In a worker's forked process, stand still at Ctrl-C: the parent says what there is to say, and ends it."""
    if _parent and os.getpid() not in _parent:
        signal.signal(signal.SIGINT, _await_end)


def _await_end(*_: object) -> None:
    """Wait for the parent's SIGTERM: a process that dies while it holds the lock of Luigi's queue hangs the parent."""
    time.sleep(_PATIENCE)
    os._exit(1)  # the parent is gone
