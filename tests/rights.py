"""File modes that bind root too: without two capabilities, root is a user like any other."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# linux/capability.h: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, as numbers and as bits; the interface's version.
_NUMBERS, _BITS = (1, 2), 0b110
_VERSION = 0x20080522
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Let file modes bind this thread for the length of the block."""
    if os.geteuid() != 0:
        yield
        return
    header, held = _Header(_VERSION, 0), (_Capabilities * 2)()
    if not hasattr(_LIBC, "capget") or _LIBC.capget(ctypes.byref(header), held):
        pytest.skip("root, whom no file mode binds here")
    former = held[0].effective
    held[0].effective = former & ~_BITS
    assert _LIBC.capset(ctypes.byref(header), held) == 0
    try:
        yield
    finally:
        held[0].effective = former
        assert _LIBC.capset(ctypes.byref(header), held) == 0


def bind_by_modes() -> None:
    """Let file modes bind a process for good, from before it is executed: for subprocess's preexec_fn."""
    if os.geteuid() == 0:
        for number in _NUMBERS:
            if _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")
