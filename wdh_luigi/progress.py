"""
Bars at the foot of a terminal: one for the run, and one for each step that works on a workbook.

A run's workers are forked processes, and several of them cannot draw on one terminal: all that is to be seen is sent
to the process that a person started, where one thread draws it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

_MESSAGE_BYTES = 1 << 17
_REDRAWN = 0.25  # seconds
# A process must not be forked in the middle of a drawing, with the locks that are held then: it would wait for them.
_pen = threading.Lock()
os.register_at_fork(before=_pen.acquire, after_in_parent=_pen.release, after_in_child=_pen.release)


def suits(out: TextIO | None) -> bool:
    """Tell whether there is a terminal on which bars can be drawn; None: standard error is closed."""
    return out is not None and out.isatty() and not Console(file=out).is_dumb_terminal


def folded(line: str, width: int) -> str:
    """Break a line where it is longer than so many columns, of which a Chinese character takes two."""
    return "\n".join(part.plain.rstrip() for part in Text(line).wrap(Console(width=width), width))


class Bars:
    """
    A run's bars, and the lines that stand above them.

    Args:
        out: the terminal.
        title: what the run is about.
        total: the workbooks that it has to do.
    """

    def __init__(self, out: TextIO, title: str, total: int) -> None:
        # Datagrams: whole or not at all, whoever is killed while he writes, and in order.
        self._receiving, self._sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        self._sending.setblocking(False)  # a step never waits for its bar
        self._receiving.settimeout(_REDRAWN)
        self._out = out
        # A file of its own: a process forked while the thread writes must not find sys.stderr locked.
        self._file = os.fdopen(os.dup(out.fileno()), "w", encoding="utf-8", errors="backslashreplace")
        self._drawing = _Drawing(Console(file=self._file, highlight=False, soft_wrap=True), title, total)
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()

    def step(self, workbook: str, label: str, fraction: float | None = None, counted: str = "") -> None:
        """Show how far a workbook's step is; a fraction of None: nobody knows."""
        self._send({"workbook": workbook, "label": label, "fraction": fraction, "counted": counted})

    def leave(self, workbook: str, *, ended: bool) -> None:
        """Take a workbook's bar away, and count it when nothing more is to be done with it."""
        self._send({"workbook": workbook, "ended": ended})

    def write(self, text: str) -> None:
        """Print lines above the bars, as a stream for a log handler."""
        if not self._send({"text": text}):
            self._out.write(text)

    def flush(self) -> None:
        """Do nothing: each line is sent as it comes."""

    def stop(self) -> None:
        """Take the bars away for good, once everything that was sent is shown."""
        self._sending.settimeout(5)
        self._send({"stop": True})
        self._thread.join(timeout=5)
        self._receiving.close()
        self._sending.close()
        self._file.close()

    def _send(self, message: dict[str, Any]) -> bool:
        with contextlib.suppress(OSError):  # full, too long, or stopped before
            self._sending.send(json.dumps(message).encode())
            return True
        return False

    def _draw(self) -> None:
        with _pen:
            self._drawing.start()
        message: dict[str, Any] = {}
        while "stop" not in message:
            with contextlib.suppress(TimeoutError):
                message = json.loads(self._receiving.recv(_MESSAGE_BYTES))
            with _pen:
                self._drawing.take(message)
            message = message if "stop" in message else {}
        with _pen:
            self._drawing.stop()


class _Drawing:
    """What is on the terminal, of the thread that draws."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=3, no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=2)),
            TextColumn("{task.fields[counted]}", markup=False, table_column=Column(no_wrap=True, justify="right")),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._steps: dict[str, TaskID] = {}
        self._ended: set[str] = set()
        self._total = total
        self._drawn = 0.0
        self._run = self._bars.add_task(title, total=total, counted=self._counted())

    def _counted(self) -> str:
        return f"{len(self._ended):,} of {self._total:,} workbooks"

    def start(self) -> None:
        """Show the bars."""
        self._bars.start()
        self._bars.console.show_cursor(True)  # rich hides it, and a killed run would leave it so

    def stop(self) -> None:
        """Take the bars away."""
        self._bars.stop()

    def take(self, message: dict[str, Any]) -> None:
        """Do what a message asks for, and draw again unless that was done just before."""
        if "text" in message:
            self._bars.console.print(Text(message["text"]), end="")
        elif "ended" in message:
            self._leave(message["workbook"], message["ended"])
        elif "label" in message:
            self._step(**message)
        if time.monotonic() >= self._drawn + _REDRAWN:
            self._drawn = time.monotonic()
            self._bars.refresh()

    def _step(self, workbook: str, label: str, fraction: float | None, counted: str) -> None:
        if workbook not in self._steps:
            self._steps[workbook] = self._bars.add_task(label, total=None, counted="")
        total = None if fraction is None else 1.0
        self._bars.update(
            self._steps[workbook], description=label, total=total, completed=fraction or 0, counted=counted
        )

    def _leave(self, workbook: str, ended: bool) -> None:
        if workbook in self._steps:
            self._bars.remove_task(self._steps.pop(workbook))
        if ended:
            self._ended.add(workbook)
            self._bars.update(self._run, completed=len(self._ended), counted=self._counted())
