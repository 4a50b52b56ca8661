"""The log as JSON lines: one object a line, which tells of which run, workbook and step it is."""

from __future__ import annotations

import fcntl
import logging
import sys
import tempfile
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from wdh_luigi import targets

_run: dict[str, Any] = {}  # of the process, and of those that it forks
# Of the thread, as another one pings luigid: when the step began, and what it is about.
_step: ContextVar[tuple[float, dict[str, Any]] | None] = ContextVar("_step", default=None)


def tell_run(**about: Any) -> None:
    """Note what every line from now on is to say of the run."""
    _run.update(about)


def begin_step(**about: Any) -> None:
    """Note what the lines of this thread are to say of the step that it runs, beside the seconds that it has taken."""
    _step.set((time.monotonic(), about))


def end_step() -> None:
    """Note that the lines of this thread are about no step any more."""
    _step.set(None)


class JsonLines(logging.Formatter):
    """
    One JSON object a line: time (ISO 8601, UTC), level, message, what is known of run and step, and the line's counts.

    An error has its traceback only where a user cannot mend it.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage().strip(),
            **_run,
            **_of_step(),
            **getattr(record, "counts", {}),
            "logger": record.name,
            "pid": record.process,
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return targets.dumps(entry).decode()


def _of_step() -> dict[str, Any]:
    found = _step.get()
    if found is None:
        return {}
    started, about = found
    return {**about, "seconds": round(time.monotonic() - started, 3)}


class _WholeLines(logging.StreamHandler[TextIO]):
    """Writes each line as a whole, also where several processes write long ones into one pipe."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        # A lock of POSIX's kind: each forked process has its own, and it ends with the process.
        self._turns = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the log is

    def emit(self, record: logging.LogRecord) -> None:
        fcntl.lockf(self._turns, fcntl.LOCK_EX)
        try:
            super().emit(record)
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN)


def in_use() -> bool:
    """Tell whether JSON lines are what is logged."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def use_json(level: int) -> None:
    """
    Write everything that is logged, and Python's warnings, to standard error as JSON lines.

    Args:
        level: what Luigi and the steps log is shown from this level on; everything else, from WARNING on.
    """
    handler = _WholeLines(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    luigi = logging.getLogger("luigi-interface")
    luigi.handlers.clear()
    luigi.setLevel(level)
    logging.captureWarnings(True)
