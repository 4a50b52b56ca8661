"""Files that exist only when complete: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic_core import from_json, to_json, to_jsonable_python

from wdh_luigi.errors import WorkDirError

NAME_KEPT = 60  # characters of a file's name in that of its unfinished one
# The name of an unfinished file: whose it is, and the process that writes it.
UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_CHUNK = 1 << 18  # bytes

_Document = TypeVar("_Document")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file to write that appears at its path when the block ends well, whole and on the disk, else not at all.

    Raises:
        WorkDirError: the folder or the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name[:NAME_KEPT]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = unfinished.open("xb")
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(unfinished), str(path)):
            raise  # of something that the block reads: its own message names it
        raise _not_written(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


class Output:
    """
    A file that is written in another process than the one that opened it, whose errors are of the work directory.

    Raises:
        WorkDirError: as it is written.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, part: bytes) -> None:
        """Write a part."""
        try:
            self._file.write(part)
        except OSError as error:
            raise _not_written(self._path, error) from error

    def flush(self) -> None:
        """Hand over what is still in memory."""
        try:
            self._file.flush()
        except OSError as error:
            raise _not_written(self._path, error) from error


def _not_written(path: Path, error: OSError) -> WorkDirError:
    return WorkDirError(
        str(path),
        f"cannot be written ({error.strerror or error})",
        "give the work directory room and the right to write, or set WDH_WORK_DIR to another folder",
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def dumps(value: Any) -> bytes:
    """Return one line of JSON: Decimals as strings, dates in ISO 8601."""
    try:
        return to_json(value)
    except ValueError:  # a lone surrogate, which Excel's _xD800_ can put into a cell: legal JSON only when escaped
        return _spell(value, default=to_jsonable_python)


def loads(line: bytes) -> Any:
    """Read one JSON value."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


def write_json(path: Path, document: Any) -> None:
    """Write one JSON document atomically, indented for people."""
    with atomic_write(path) as file:
        file.write(_spell(json.loads(dumps(document)), indent=2) + b"\n")


def _spell(value: Any, **options: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, **options).encode("utf-8", "backslashreplace")


def read_json(path: Path) -> Any:
    """
    Read a JSON document.

    Raises:
        WorkDirError: missing, or not what was written.
    """
    try:
        return loads(path.read_bytes())
    except OSError as error:
        raise _not_read(path, error) from error
    except ValueError as error:
        raise not_json(path) from error


def readable(folder: Path, read: Callable[[Path], _Document]) -> Iterator[_Document]:
    """Yield the JSON documents in a folder of targets, each as it is read; one that is damaged is passed over."""
    for path in sorted(folder.glob("*.json")):
        if path.suffixes == [".json"]:  # not the rows or records that a document is about
            with contextlib.suppress(WorkDirError):
                yield read(path)


class RowWriter:
    """A JSON list in the making, one element a line, in bounded memory; ``close`` ends the list."""

    def __init__(self, file: BinaryIO | Output) -> None:
        self._file = file
        self._between = b"[\n"

    def write(self, row: Any) -> None:
        """Add an element."""
        self.write_block(dumps(row) + b"\n")

    def write_block(self, lines: bytes) -> None:
        """Add elements that are JSON already, each with a newline behind it."""
        if lines:
            self._file.write(self._between + lines[:-1].replace(b"\n", b",\n"))
            self._between = b",\n"

    def close(self) -> None:
        """End the list."""
        self._file.write(b"[\n]\n" if self._between == b"[\n" else b"\n]\n")


def read_rows(path: Path) -> Iterator[Any]:
    """
    Yield the elements of a list that a RowWriter wrote, in bounded memory.

    Raises:
        WorkDirError: missing, or not what was written.
    """
    for batch in read_batches(path):
        yield from batch


def read_batches(path: Path, more: Callable[[], bool] = lambda: False) -> Iterator[list[Any]]:
    """
    Yield the elements of a list that a RowWriter wrote or is writing, in batches.

    Args:
        more: called at the end of the file; waits, and tells whether there is more of it by then, or may be.
    Raises:
        WorkDirError: missing, or not what was written.
    """
    try:
        with path.open("rb") as file:
            begun: list[bytes] = []  # of a line
            ended = False
            while (chunk := file.read(_CHUNK)) or more():
                whole, newline, rest = chunk.rpartition(b"\n")
                if newline:
                    lines = b"".join([*begun, whole])
                    begun.clear()
                    ended = lines == b"]" or lines.endswith(b"\n]")
                    if rows := _elements(lines, ended):
                        yield loads(b"[" + rows + b"]")
                if rest:
                    begun.append(rest)
            if begun or not ended:
                raise ValueError("the list does not end")
    except OSError as error:
        raise _not_read(path, error) from error
    except ValueError as error:
        raise not_json(path) from error


def _elements(lines: bytes, ended: bool) -> bytes:
    """Take the list's own first and last line off, and the comma at the end."""
    lines = lines[:-1] if ended else lines
    return b"" if lines == b"[" else lines.removeprefix(b"[\n").strip(b",\n")


def _not_read(path: Path, error: OSError) -> WorkDirError:
    return WorkDirError(str(path), f"cannot be read ({error.strerror})", "delete it, if it is there, and run again")


def not_json(path: Path) -> WorkDirError:
    """Return what is to be said of a target that somebody changed."""
    return WorkDirError(str(path), "is not the JSON that was written", "delete it and run again")


def digest_of(*parts: Any) -> str:
    """Return 128 bits of the sha256 of values, in hex: the key, on every machine, of what depends on them alone."""
    return hashlib.sha256(dumps(parts)).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
