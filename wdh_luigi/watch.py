"""
What is seen of a run while it goes on: bars on a terminal, messages and bars in Luigi's visualiser, the log's fields;
and the notice of what failed.
"""

from __future__ import annotations

import contextlib
import functools
import html
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import luigi.notifications
import luigi.rpc

from wdh_luigi import logs, progress
from wdh_luigi.discover import describe
from wdh_luigi.errors import one_line

logger = logging.getLogger("luigi-interface")

_SUBJECT = 250  # characters
_VISUALISER = 64  # columns
_SELDOM = 0.4  # seconds: luigid is asked over the network
_bars: list[progress.Bars] = []
_undo: list[Callable[[], None]] = []
_shown = [0.0]  # when a step last showed how far it is


def show_bars(title: str, total: int) -> None:
    """Draw bars where a person looks on, in place of the log's lines that tell nothing but how the run comes along."""
    if total == 0 or _bars or logs.in_use() or not progress.suits(sys.stderr):
        return
    bars = progress.Bars(sys.stderr, title, total)
    _bars.append(bars)
    for handler in [*logger.handlers, *logging.getLogger().handlers]:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            _undo.append(functools.partial(handler.setLevel, handler.level))
            _undo.append(functools.partial(handler.setStream, sys.stderr))
            handler.setStream(bars)
            handler.setLevel(max(handler.level, logging.WARNING))


def write(text: str) -> None:
    """Write to standard error, above the bars."""
    print(text, end="", file=_bars[0] if _bars else sys.stderr, flush=True)


def remove_bars() -> None:
    """Take the bars away, and give the log its stream back."""
    while _undo:
        _undo.pop()()
    while _bars:
        _bars.pop().stop()


def begin_step(task: Any) -> None:
    """Note that this process begins with a workbook's step."""
    file = task.steps.file
    _shown[0] = time.monotonic()
    logs.begin_step(step=task.task_family, workbook=file.path, period=file.period or None)
    for bars in _bars:
        bars.step(file.path, f"{task.task_family} {describe(file)}")


def show_step(task: Any, fraction: float | None, counted: str) -> None:
    """
    Show how far a workbook's step is, in the visualiser and on the terminal, unless it did so just before.

    Args:
        fraction: from 0 to 1, or None where nobody knows.
        counted: how far it is, in words.
    """
    if time.monotonic() < _shown[0] + _SELDOM:
        return
    _shown[0] = time.monotonic()
    file = task.steps.file
    for bars in _bars:
        bars.step(file.path, f"{task.task_family} {describe(file)}", fraction, counted)
    show_in_visualiser(task, counted, fraction)


def show_in_visualiser(task: Any, message: str, fraction: float | None) -> None:
    """Show a message and a progress bar in the visualiser; nothing fails when it cannot be reached."""
    show, fill = getattr(task, "set_status_message", None), getattr(task, "set_progress_percentage", None)
    with contextlib.suppress(luigi.rpc.RPCError):
        if show is not None:
            show("\n".join(for_visualiser(part) for part in (describe(task.steps.file), message)))
        if fill is not None and fraction is not None:
            fill(round(100 * fraction))


def for_visualiser(line: str) -> str:
    """Return a line so that it is read without scrolling in the visualiser's window, which breaks none."""
    return progress.folded(line, _VISUALISER)


def note_step(task: Any, message: str, **counts: int) -> None:
    """Tell what a workbook's step came to, in the log and in the visualiser."""
    logger.info("%s %s: %s", task.task_family, describe(task.steps.file), message, extra={"counts": counts})
    show_in_visualiser(task, message, 1.0)


def end_step(task: Any, *, ended: bool) -> None:
    """Note that a workbook's step is over; ``ended``: nothing more is done with the workbook."""
    logs.end_step()
    for bars in _bars:
        bars.leave(task.workbook, ended=ended)


def notify(subject: str, lines: Sequence[str]) -> None:
    """
    Send a notice as Luigi's configuration says: [email] and [smtp]; nowhere without a receiver.

    A notice that cannot be sent is told in the log, and changes nothing else.
    """
    text = "\n".join([*lines, "", f"host: {socket.gethostname()}, folder: {one_line(os.getcwd())}"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Luigi's own defaults are not of the types that it declares
            if luigi.notifications.email().format == "html":
                text = f"<pre>{html.escape(text)}</pre>"
            luigi.notifications.send_error_email(f"wdh_luigi: {subject}"[:_SUBJECT], text)
    except Exception as error:
        logger.error("no notice could be sent: %s; see [email] and [smtp] in luigi.cfg", one_line(str(error)))
