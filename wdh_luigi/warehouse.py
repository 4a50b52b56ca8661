"""PostgreSQL: the receipts of loads, and plans applied in one transaction each."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psycopg2
from psycopg2 import extensions

from wdh_luigi import embedded, plan
from wdh_luigi.config import EMBEDDED, Settings
from wdh_luigi.errors import DatabaseError, PlanError

Connection = Any  # psycopg2's own class: the stubs name it by a private path

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Receipt:
    """What the warehouse says of a place's newest load."""

    load_id: int
    digest: str
    replace: str
    deleted: int
    inserted: int
    rows_stand: bool


def uri_of(settings: Settings, announce: Callable[[str], None]) -> str:
    """
    Return the URI to connect to, with the embedded PostgreSQL started where it is meant.

    Args:
        announce: called with one line when the embedded server had to be started.
    """
    uri = settings.warehouse_uri()
    if uri != EMBEDDED:
        return uri
    server = embedded.start(settings.embedded_dir or embedded.default_folder())
    if server.started:
        announce(f"embedded PostgreSQL started in {server.folder}; connect with: {embedded.connect_command(server)}")
    return server.uri


def connect(uri: str) -> Connection:
    """
    Connect, each statement its own transaction unless a plan begins one.

    Raises:
        DatabaseError: one line, without the URI and its password.
    """
    parts = _parsed(uri)
    try:
        connection = psycopg2.connect(
            uri, connect_timeout=parts.get("connect_timeout", _CONNECT_SECONDS), application_name="wdh_luigi"
        )
    except (psycopg2.Error, UnicodeError) as error:
        what = f"cannot connect ({_without(_first_line(error), parts.get('password'))})"
        mend = "start the server, or correct WDH_DATABASE_URI"
        raise DatabaseError(f"database {_name(parts)}", what, mend) from None
    connection.set_client_encoding("UTF8")
    connection.autocommit = True
    return connection


def _parsed(uri: str) -> dict[str, Any]:
    with contextlib.suppress(psycopg2.ProgrammingError):
        parts = extensions.parse_dsn(uri)
        if "@" not in str(parts.get("host", "")):  # else the end of a password with an @ in it
            return dict(parts)
    # libpq's own words quote the part that it does not understand, which may be the password.
    raise DatabaseError(
        "WDH_DATABASE_URI",
        "is not a libpq URI",
        "write it like postgresql://user@host:5432/database (percent-encode special characters)",
    )


def _name(parts: dict[str, Any]) -> str:
    """Return a database's name for messages, from the parts of its URI that are no secret."""
    host = parts.get("host") or "local socket"
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{parts.get('dbname', '')} on {host}{port}".strip()


def _first_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]


def _without(text: str, secret: str | None) -> str:
    return text.replace(secret, "***") if secret else text


def newest_receipt(connection: Connection, place: plan.Place) -> Receipt | None:
    """
    Return the newest receipt of a place, or None where nothing of it was ever loaded.

    Its rows stand when the table still holds as many of the load as it inserted, but for those that later loads took
    over (``overlap: replace``).
    """
    receipts = plan.qualified(place.schema, plan.RECEIPTS)
    table = plan.qualified(place.schema, place.name)
    with _asking("the receipts"), connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL, to_regclass(%s) IS NOT NULL", (receipts, table))
        has_receipts, has_table = cursor.fetchone()
        if not has_receipts:
            return None
        cursor.execute(
            f"SELECT load_id, records_digest, replace, deleted, inserted, taken_over FROM {receipts} AS l"
            f" WHERE {plan.same_place(place)} ORDER BY load_id DESC LIMIT 1"
        )
        found = cursor.fetchone()
        if found is None:
            return None
        load_id, digest, replace, deleted, inserted, taken_over = found
        standing = 0
        if has_table:
            cursor.execute(f"SELECT count(*) FROM {table} WHERE load_id = %s", (load_id,))
            standing = cursor.fetchone()[0]
    stand = has_table and standing == inserted - taken_over
    return Receipt(load_id, digest, replace, deleted, inserted, stand)


@dataclass(frozen=True)
class Applied:
    """What applying a plan came to; ``loaded`` is false where the place's newest load already was this one."""

    loaded: bool
    receipt: Receipt


def is_loaded(receipt: Receipt | None, digest: str, replace: str) -> bool:
    """Tell whether a place already holds these records."""
    return receipt is not None and receipt.rows_stand and receipt.digest == digest and receipt.replace == replace


def apply(connection: Connection, path: Path, plan_digest: str | None = None) -> Applied:
    """
    Run a plan's bytes in one transaction, unless its place already holds its records.

    The table's lock is held from the question to the answer, so that of two who apply at a time one finds it done.

    Args:
        plan_digest: the digest that the plan had when it was written, where that is known.
    Raises:
        PlanError: the plan's bytes are not what was written.
        DatabaseError: PostgreSQL refused it; nothing was written.
    """
    written = plan.verify(path)
    if plan_digest not in (None, written.plan_digest):
        raise PlanError(str(path), "is another plan than was written there", "delete it and run again")
    with locked(connection, written):
        present = newest_receipt(connection, written.place)
        if present is not None and is_loaded(present, written.digest, written.replace):
            return Applied(False, present)
        with path.open("rb") as file:
            _run(connection, file, written, path)
        loaded = newest_receipt(connection, written.place)
    assert loaded is not None, "the plan wrote its receipt"
    return Applied(True, loaded)


@contextlib.contextmanager
def locked(connection: Connection, written: plan.Written) -> Iterator[None]:
    """Hold the table's advisory lock, the one that the plan itself takes; a session may take it twice."""
    place, seconds = written.place, written.lock_timeout
    key = plan.lock_key(place.schema, place.name)
    with _asking(f"table {place.table}"), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = %s", (f"{seconds}s",))
        try:
            cursor.execute(f"SELECT pg_advisory_lock({key})")
        except psycopg2.errors.LockNotAvailable as error:
            what = f"another load held its lock for {seconds} s ({_holder(connection, key)})"
            mend = "wait until it has ended and run again, or set lock_timeout higher"
            raise DatabaseError(f"table {place.table}", what, mend) from error
        finally:
            cursor.execute("RESET lock_timeout")
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT pg_advisory_unlock({key})")


def _holder(connection: Connection, key: str) -> str:
    """Say who holds an advisory lock, as far as PostgreSQL lets this user see it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%s, process %s, %s from %s since %s', a.usename, a.pid,"
            " coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(host(a.client_addr), 'the same machine'),"
            " date_trunc('second', a.xact_start)) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            f" AND (l.classid::bigint << 32) | l.objid::bigint = {key} LIMIT 1"
        )
        found = cursor.fetchone()
    return str(found[0]) if found else "it has just ended"


@contextlib.contextmanager
def staged(connection: Connection, path: Path, written: plan.Written) -> Iterator[Any]:
    """
    Run a plan up to its changes, yield a cursor that sees its rows staged, and take everything back.

    Raises:
        DatabaseError: a guard of the plan stops it, as it would stop its load.
    """
    with path.open("rb") as file, _asking(f"{written.workbook}, plan {path}"), connection.cursor() as cursor:
        try:
            _execute(cursor, _Hashing(file), written, until=plan.CHANGES_BEGIN.strip())
            yield cursor
        finally:
            _roll_back(connection)


def _execute(cursor: Any, stream: _Hashing, written: plan.Written, until: bytes | None = None) -> None:
    for sql in _statements(stream, written):
        before, found, _ = sql.partition(until) if until else (sql, b"", b"")
        if sql.rstrip().endswith(b"FROM stdin;"):
            cursor.copy_expert(sql.decode(), _Rows(stream))
        elif before.strip():
            cursor.execute(before)
        if found:
            return


def _run(connection: Connection, file: BinaryIO, written: plan.Written, path: Path) -> None:
    stream = _Hashing(file)
    try:
        with _asking(f"{written.workbook}, plan {path}"), connection.cursor() as cursor:
            _execute(cursor, stream, written)
            if stream.sha.hexdigest() != written.plan_digest:
                raise PlanError(str(path), "changed while it was applied", "delete it and run again")
            cursor.execute(file.read())
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: Connection) -> None:
    with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
        cursor.execute("ROLLBACK")


class _Hashing:
    """A plan read line by line, down to its receipt, with the sha256 of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha = hashlib.sha256()
        self.at = 0

    def readline(self) -> bytes:
        line = self._file.readline()
        self.sha.update(line)
        self.at += len(line)
        return line


def _statements(stream: _Hashing, written: plan.Written) -> Iterator[bytes]:
    """Yield the plan's SQL up to its receipt in pieces, each COPY a piece of its own."""
    piece: list[bytes] = []
    while stream.at < written.receipt_at:
        line = stream.readline()
        if line == plan.ON_ERROR_STOP:  # psql's, for psql
            continue
        if line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n"):
            if b"".join(piece).strip():
                yield b"".join(piece)
            piece = []
            yield line
            continue
        piece.append(line)
    if b"".join(piece).strip():
        yield b"".join(piece)


class _Rows:
    """The rows of one COPY, as a file that ends where the rows do."""

    def __init__(self, stream: _Hashing) -> None:
        self._stream = stream
        self._ended = False

    def read(self, size: int = 8192) -> bytes:
        lines, length = [], 0
        while not self._ended and length < size:
            line = self._stream.readline()
            self._ended = line in (plan.END_OF_COPY, b"")
            if not self._ended:
                lines.append(line)
                length += len(line)
        return b"".join(lines)


@contextlib.contextmanager
def _asking(where: str) -> Iterator[None]:
    """Turn PostgreSQL's errors into one line each."""
    try:
        yield
    except psycopg2.Error as error:
        message = error.diag.message_primary or _first_line(error)
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise DatabaseError(where, f"PostgreSQL refused: {message}{detail}", "nothing was written") from error
