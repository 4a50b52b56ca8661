"""
Run a reading job in a process of its own, so that a workbook which aborts, hangs or eats memory costs only itself.

Nothing else survives every file: a Rust reader that panics or finds no memory ends its whole process. The process is
forked, not started anew: that takes milliseconds, and the job may be any function.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NoReturn, TypeVar

from wdh_luigi.errors import WdhError, WorkbookError

# The limits are far from any honest workbook. 20 million cells, the most that is read, take openpyxl 200 s with what
# is made of them; a machine five times slower gets by. A million rows take 122 MiB at most, and their texts.
MEMORY = 2 << 30
SECONDS = 1200.0

_RESAVE = "open it in Excel and save it again"
_LENGTH = struct.Struct("<Q")
_KEPT_STDERR = 1 << 16
_WATCH = 0.5  # seconds
_PR_SET_PDEATHSIG = 1

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)
try:  # looked up before any fork: loading a library takes locks that another thread may hold
    _prctl: Any = ctypes.CDLL(None).prctl
except (OSError, AttributeError):
    _prctl = None


def run(
    function: Callable[..., _Result],
    *args: Any,
    shown: str,
    memory: int = MEMORY,
    seconds: float = SECONDS,
    watch: Callable[[], None] | None = None,
) -> _Result:
    """
    Call a function in a process of its own.

    Args:
        function: may read any global; what it changes in memory is lost, so that rows go to a file or are returned.
        shown: the workbook's name in messages.
        memory: bytes that it may take beyond what this process has.
        seconds: time by the clock that it may take.
        watch: called in this process twice a second meanwhile, to look at what the function has written so far.
    Returns:
        The function's result, which must be picklable.
    Raises:
        WdhError: the one that the function raised.
        WorkbookError: it raised anything else, aborted, or went over a limit.
    """
    return start(function, *args, shown=shown, memory=memory, seconds=seconds).result(watch)


def start(
    function: Callable[..., _Result],
    *args: Any,
    shown: str,
    memory: int = MEMORY,
    seconds: float = SECONDS,
) -> Job[_Result]:
    """Call a function in a process of its own, as run does, and go on meanwhile."""
    result_end, result_start = os.pipe()
    stderr_end, stderr_start = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 for a fork beside threads: see _be_child
        child = os.fork()
    if child == 0:
        _be_child(function, args, parent, result_start, stderr_start, memory, seconds)
    os.close(result_start)
    os.close(stderr_start)
    return Job(child, result_end, stderr_end, shown, seconds)


class Job(Generic[_Result]):
    """A call under way in a process of its own; ``result`` or ``stop`` ends it."""

    def __init__(self, child: int, result: int, stderr: int, shown: str, seconds: float) -> None:
        self._child, self._pipes = child, (result, stderr)
        self._shown, self._seconds = shown, seconds
        self._deadline = time.monotonic() + seconds
        self._status: int | None = None

    def result(self, watch: Callable[[], None] | None = None) -> _Result:
        """Wait for the function's result; ``watch`` and what is raised are as in run."""
        try:
            message, stderr = _receive(*self._pipes, self._deadline, watch)
        finally:  # also when this process is interrupted
            status = self.stop()
        if message is None:
            mend = "split the workbook, or set WDH_READ_SECONDS higher"
            raise WorkbookError(self._shown, f"not read within {self._seconds:,g} s", mend)
        result: _Result = _unpack(message, status, stderr, self._shown)
        return result

    def stop(self) -> int:
        """End the process, if it still runs, and return its wait status."""
        if self._status is None:
            for pipe in self._pipes:
                os.close(pipe)
            self._status = _end(self._child)
        return self._status


def _receive(result: int, stderr: int, deadline: float, watch: Callable[[], None] | None) -> tuple[bytes | None, str]:
    """Collect what the child sends, until its result is whole or it ends; None for the result: out of time."""
    received = {result: bytearray(), stderr: bytearray()}
    reading = select.poll()  # select() knows no file descriptor above 1023
    reading.register(result, select.POLLIN)
    reading.register(stderr, select.POLLIN)
    ended = False
    while not ended and not _is_whole(received[result]):
        left = max(0.0, deadline - time.monotonic())
        ready = reading.poll((left if watch is None else min(left, _WATCH)) * 1000)
        if not ready and time.monotonic() >= deadline:
            return None, ""
        if not ready and watch is not None:
            watch()
        for pipe, _ in ready:
            chunk = os.read(pipe, 1 << 16)
            received[pipe] += chunk
            if not chunk:
                reading.unregister(pipe)
                ended = ended or pipe == result
        del received[stderr][:-_KEPT_STDERR]
    return bytes(received[result]), received[stderr].decode("utf-8", "replace")


def _is_whole(message: bytearray) -> bool:
    return len(message) >= _LENGTH.size and len(message) == _LENGTH.size + _LENGTH.unpack_from(message)[0]


def _end(child: int) -> int:
    """Kill the child, which has sent all it will, and return its wait status."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    try:
        return os.waitpid(child, 0)[1]
    except ChildProcessError:  # the program around waits for any child, or ignores SIGCHLD
        return 0


def _unpack(message: bytes, status: int, stderr: str, shown: str) -> Any:
    if not _is_whole(bytearray(message)):
        raise _crash(status, stderr, shown)
    kind, content = pickle.loads(message[_LENGTH.size :])
    if kind == "result":
        return content
    if kind == "error":
        raise content
    if kind == "memory":
        raise _too_much_memory(shown)
    name, first_line, trace = content
    _log.debug("%s: %s", shown, trace)
    # Not of a reader, which calls its own errors damage: more likely ours than the workbook's.
    what = f"cannot be read ({name}: {first_line})" if first_line else f"cannot be read ({name})"
    raise WorkbookError(shown, what, "open it in Excel and save it again; if that does not help, report it")


def _crash(status: int, stderr: str, shown: str) -> WorkbookError:
    _log.debug("%s: wait status %s: %s", shown, status, stderr)
    code = os.waitstatus_to_exitcode(status)
    if "memory allocation of" in stderr or code == -signal.SIGKILL:  # Rust's last words, and what the kernel does
        return _too_much_memory(shown)
    lines = [line for line in stderr.splitlines() if line.strip()]
    how = f"exit code {code}"
    with suppress(ValueError):  # no signal of that number
        how = signal.Signals(-code).name
    said = f": {lines[0][:160]}" if lines else ""
    return WorkbookError(shown, f"damaged (reading it crashed, {how}{said})", _RESAVE)


def _too_much_memory(shown: str) -> WorkbookError:
    mend = "split the workbook, or set WDH_READ_MEMORY_MB higher"
    return WorkbookError(shown, "needs more memory than it may take", mend)


def _be_child(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    parent: int,
    result: int,
    stderr: int,
    memory: int,
    seconds: float,
) -> NoReturn:
    """Call the function and send its result; never return, so that nothing of the parent is undone a second time."""
    try:
        _settle(parent, stderr, memory, seconds)
        message = _message(function, args)
        sent = memoryview(_LENGTH.pack(len(message)) + message)
        while sent:
            sent = sent[os.write(result, sent) :]
    finally:
        os._exit(1)


def _settle(parent: int, stderr: int, memory: int, seconds: float) -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # when the parent is killed, even by SIGKILL
        if os.getppid() != parent:  # it was, just before
            os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(int(seconds) + 5)  # where nothing tells that the parent died, as on macOS
    gc.freeze()  # what the parent holds, connections for example, must not be collected here
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stderr, 1)
    os.dup2(stderr, 2)
    # New ones, as the old may be other files, and hold what the parent has yet to write.
    faulthandler.disable()
    sys.stdout = sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _size_now() + memory
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _size_now() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _message(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps(("result", function(*args)))
    except WdhError as error:
        return pickle.dumps(("error", error))
    except MemoryError:
        return pickle.dumps(("memory", None))
    except BaseException as error:  # a panic (pyo3 PanicException) is no Exception
        lines = str(error).splitlines()
        return pickle.dumps(("raised", (type(error).__name__, lines[0][:160] if lines else "", traceback.format_exc())))
