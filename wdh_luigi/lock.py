"""A file's lock that ends with the process that holds it, however it ends: nothing is left to clear up."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from wdh_luigi.errors import BusyError, WorkDirError

_held: set[int] = set()


def _leave_to_parent() -> None:
    """Close the locks in a forked process, which else would keep them when the process that took them is killed."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextlib.contextmanager
def held(path: Path, *, shared: bool) -> Iterator[None]:
    """
    Hold a file's lock, alone or with others who share it.

    Raises:
        BusyError: another process holds it; names it.
        WorkDirError: the file cannot be written or locked.
    """
    handle = _opened(path)
    try:
        _take(handle, path, shared)
        _held.add(handle)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        mend = "give this user the right to write there, or set WDH_WORK_DIR to another folder"
        raise WorkDirError(str(path), f"cannot be written ({error.strerror})", mend) from error


def _take(handle: int, path: Path, shared: bool) -> None:
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 1000, 0).decode(errors="replace").strip() or "another process"
        mend = "wait until it has ended; runs share the work where each has --join and the same luigid"
        raise BusyError(str(path.parent), f"a run is going on: {holder}", mend) from None
    except OSError as error:
        mend = "set WDH_WORK_DIR to a folder whose file system has locks"
        raise WorkDirError(str(path), f"cannot be locked ({error.strerror})", mend) from error
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # a full disk: the lock holds, only its holder has no name
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
