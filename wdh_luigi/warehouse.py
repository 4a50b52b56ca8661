"""PostgreSQL: the receipts of loads, and plans applied in one transaction each."""

from __future__ import annotations

import contextlib
import hashlib
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import psycopg2
from psycopg2 import extensions

from wdh_luigi import embedded, plan
from wdh_luigi.config import EMBEDDED, Settings
from wdh_luigi.errors import DatabaseError, PlanError

Connection = Any  # psycopg2's own class: the stubs name it by a private path

_CONNECT_SECONDS = 10
_COPY_BYTES = 1 << 16


class LostError(DatabaseError):
    """There is no connection any more, or a deadlock undid the transaction: who looks first may try again."""


@dataclass(frozen=True)
class Receipt:
    """
    What the warehouse says of a place's newest load.

    Attributes:
        reverted: when it was taken back, or None.
        rows_stand: the table holds as many of its rows as it inserted, but for those that later loads took over.
    """

    load_id: int
    digest: str
    replace: str
    deleted: int
    inserted: int
    reverted: str | None
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
        LostError: one line, without the URI and its password.
    """
    parts = _parsed(uri)
    try:
        connection = psycopg2.connect(
            uri, connect_timeout=parts.get("connect_timeout", _CONNECT_SECONDS), application_name="wdh_luigi"
        )
        connection.set_client_encoding("UTF8")
    except (psycopg2.Error, UnicodeError) as error:
        what = f"cannot connect ({_without(_first_line(error), parts.get('password'))})"
        mend = "start the server, or correct WDH_DATABASE_URI"
        raise LostError(f"database {_name(parts)}", what, mend) from None
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
    """Return the newest receipt of a place, or None where nothing of it was ever loaded."""
    (receipt,) = newest_receipts(connection, [place])
    return receipt


def newest_receipts(connection: Connection, places: Sequence[plan.Place]) -> list[Receipt | None]:
    """Return the newest receipt of each of a table's places, in as many questions as for one."""
    if not places:
        return []
    keys = [(place.period, place.source) for place in places]
    loads = newest_loads(connection, places[0], counted=set(keys), places=set(keys))
    return [loads[key].receipt if key in loads else None for key in keys]


def _standing_of_each(cursor: Any, table: plan.Place, receipts: Sequence[Mapping[str, Any]]) -> dict[int, int] | None:
    """Count the rows of loads that their table holds, in one pass over the months that they are of; None without it."""
    if not receipts or not is_there(cursor, table.target):
        return None
    dates = ""
    if all(says.get("first_date") for says in receipts):
        first = plan.literal(min(says["first_date"] for says in receipts))
        last = plan.literal(max(says["last_date"] for says in receipts))
        dates = f" AND {plan.identifier(receipts[0]['date_column'])} BETWEEN {first} AND {last}"
    loads = ", ".join(str(int(says["load_id"])) for says in receipts)
    cursor.execute(f"SELECT load_id, count(*) FROM {table.target} WHERE load_id IN ({loads}){dates} GROUP BY load_id")
    return dict(cursor.fetchall())


def _newest(cursor: Any, place: plan.Place) -> dict[str, Any] | None:
    """Return the columns of a place's newest receipt; of a former version's, some may be missing."""
    if not is_there(cursor, place.receipts):
        return None
    cursor.execute(
        f"SELECT to_jsonb(l) FROM {place.receipts} AS l WHERE {plan.same_place(place)} ORDER BY l.load_id DESC LIMIT 1"
    )
    found = cursor.fetchone()
    return None if found is None else dict(found[0])


def _receipt(says: Mapping[str, Any], rows_stand: bool) -> Receipt:
    return Receipt(
        **{name: says[name] for name in ("load_id", "replace", "deleted", "inserted")},
        digest=says["records_digest"],
        reverted=says.get("reverted_at"),
        rows_stand=rows_stand,
    )


@dataclass(frozen=True)
class Standing:
    """
    A place's newest load.

    Attributes:
        says: its receipt, by the columns of wdh_load.
        rows: how many of its rows the table holds; None where that was not asked, or there is no table.
    """

    says: Mapping[str, Any]
    rows: int | None

    @property
    def receipt(self) -> Receipt:
        """Return what decides whether it is to be done again."""
        return _receipt(self.says, self.rows == self.says["inserted"] - self.says.get("taken_over", 0))


def newest_loads(
    connection: Connection,
    place: plan.Place,
    *,
    counted: Collection[tuple[str, str]],
    places: Collection[tuple[str, str]] | None = None,
) -> dict[tuple[str, str], Standing]:
    """
    Return the newest loads of the places that share a place's domain and table, by period and source.

    Args:
        counted: the places whose rows in the table are counted.
        places: those asked for; None for all.
    """
    among = "" if places is None else _among(places)
    with _asking("the receipts", connection), connection.cursor() as cursor:
        if not is_there(cursor, place.receipts):
            return {}
        cursor.execute(
            f"SELECT DISTINCT ON (l.period, l.source) to_jsonb(l) FROM {place.receipts} AS l"
            f" WHERE {plan.same_table(place)}{among} ORDER BY l.period, l.source, l.load_id DESC"
        )
        found = {(says["period"], says["source"]): says for (says,) in cursor.fetchall()}
        newest = {key: says for key, says in found.items() if places is None or key in places}
        asked = [says for key, says in newest.items() if key in counted]
        standing = _standing_of_each(cursor, place, asked)
    loads = set() if standing is None else {says["load_id"] for says in asked}
    rows = dict.fromkeys(loads, 0) | (standing or {})
    return {key: Standing(says, rows.get(says["load_id"])) for key, says in newest.items()}


def _among(places: Collection[tuple[str, str]]) -> str:
    """Return the condition that receipts, as l, have the period of one of some places and the source of one."""
    periods, sources = (", ".join(map(plan.literal, sorted(set(names)))) for names in zip(*places, strict=True))
    return f" AND l.period IN ({periods}) AND l.source IN ({sources})"


def is_there(cursor: Any, table: str) -> bool:
    """Tell whether there is a table of a quoted name."""
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
    return bool(cursor.fetchone()[0])


def last_plans(connection: Connection, schema: str, domain: str) -> set[str]:
    """Return the digests of the plans of each place's newest load, and of its newest that was not reverted."""
    receipts = plan.qualified(schema, plan.RECEIPTS)
    with _asking("the receipts", connection), connection.cursor() as cursor:
        if not is_there(cursor, receipts):
            return set()
        cursor.execute(
            "SELECT DISTINCT ON (table_name, period, source, taken_back) plan_digest FROM (SELECT l.*,"
            f" to_jsonb(l) ->> 'reverted_at' IS NOT NULL AS taken_back FROM {receipts} AS l"
            f" WHERE l.domain = {plan.literal(domain)}) AS l"
            " ORDER BY table_name, period, source, taken_back, load_id DESC"
        )
        return {digest for (digest,) in cursor.fetchall()}


def reverted(connection: Connection, places: Sequence[plan.Place]) -> dict[tuple[str, str], str]:
    """Return, by period and source, of which of a table's places the newest load was reverted: when, and by whom."""
    keys = {(place.period, place.source) for place in places}
    newest = newest_loads(connection, places[0], counted=(), places=keys)
    return {
        key: f"load {load.says['load_id']} was reverted at {load.says['reverted_at']} by {load.says['reverted_by']}"
        for key, load in newest.items()
        if load.says.get("reverted_at")
    }


def receipt_of(connection: Connection, schema: str, load_id: int) -> dict[str, Any] | None:
    """Return the receipt of a load by its columns, or None where the schema has none."""
    receipts = plan.qualified(schema, plan.RECEIPTS)
    with _asking("the receipts", connection), connection.cursor() as cursor:
        if not is_there(cursor, receipts):
            return None
        cursor.execute(f"SELECT to_jsonb(l) FROM {receipts} AS l WHERE l.load_id = {load_id:d}")
        found = cursor.fetchone()
    return None if found is None else dict(found[0])


@dataclass(frozen=True)
class Applied:
    """What applying a plan came to; ``loaded`` is false where the place's newest load already was this one."""

    loaded: bool
    receipt: Receipt


def is_loaded(receipt: Receipt | None, digest: str, replace: str) -> bool:
    """Tell whether a place's newest load is of these records and stands, or was reverted, which is to last."""
    if receipt is None or (receipt.digest, receipt.replace) != (digest, replace):
        return False
    return receipt.rows_stand or receipt.reverted is not None


def apply(
    connection: Connection,
    path: Path,
    plan_digest: str | None = None,
    *,
    reverted_too: bool = False,
    check: Callable[[Connection], None] = lambda connection: None,
    committing: Callable[[int], None] = lambda load_id: None,
    progress: Callable[[float], None] = lambda part: None,
) -> Applied:
    """
    Run a plan's bytes in one transaction, unless its place already holds its records.

    The table's lock is held from the question to the answer, so that of two who apply at a time one finds it done, and
    who lost the connection at the very end may ask again.

    Args:
        plan_digest: the digest that the plan had when it was written, where that is known.
        reverted_too: load again what was loaded and reverted.
        check: called under the lock where there is something to do; what it raises stops the load.
        committing: called with the load's id before the commit, of whose answer nobody can be sure.
        progress: called now and then with the part of the plan that has run, from 0 to 1.
    Raises:
        PlanError: the plan's bytes are not what was written.
        LostError: the connection was lost; what was written is known when it is asked again.
        DatabaseError: PostgreSQL refused it; nothing was written.
    """
    with opened(path) as (file, written):
        if plan_digest not in (None, written.plan_digest):
            raise PlanError(str(path), "is another plan than was written there", "delete it and run again")
        with locked(connection, written.place, written.lock_timeout):
            present = _loaded_already(connection, written)
            if present is not None and not (reverted_too and present.reverted):
                return Applied(False, present)
            check(connection)
            _run(connection, _Script(file, written, path, progress), committing)
            with _asking("the receipts", connection), connection.cursor() as cursor:
                loaded = _newest(cursor, written.place)
    assert loaded is not None, "the plan wrote its receipt"
    return Applied(True, _receipt(loaded, rows_stand=True))


def _loaded_already(connection: Connection, written: plan.Written) -> Receipt | None:
    """Return the receipt of a plan's place where that holds the plan's records; its rows are counted only then."""
    with _asking("the receipts", connection), connection.cursor() as cursor:
        newest = _newest(cursor, written.place)
    if newest is None or newest["records_digest"] != written.digest:
        return None
    present = newest_receipt(connection, written.place)
    return present if is_loaded(present, written.digest, written.replace) else None


def apply_once(
    connect: Callable[[], Connection],
    path: Path,
    plan_digest: str | None = None,
    *,
    reverted_too: bool = False,
    check: Callable[[Connection], None] = lambda connection: None,
    progress: Callable[[float], None] = lambda part: None,
) -> Applied:
    """
    Apply a plan as ``apply`` does, again where the connection was lost; ``loaded`` also where only the answer was.

    Args:
        connect: returns a connection, a new one where the former is closed.
    """
    tried: list[int] = []
    options: dict[str, Any] = {"reverted_too": reverted_too, "check": check, "progress": progress}
    applied = again(lambda: apply(connect(), path, plan_digest, committing=tried.append, **options))
    return Applied(applied.loaded or applied.receipt.load_id in tried, applied.receipt)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, plan.Written]]:
    """
    Open a plan to run it, when its bytes are what was written.

    Raises:
        PlanError: they are not, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PlanError(str(path), "is no regular file", "save the plan as one: it is read twice")
        file = path.open("rb")
    except OSError as error:
        raise PlanError(str(path), f"cannot be read ({error.strerror})", "correct its name, or run again") from error
    with file:
        yield file, plan.verify(file, path)


def again(action: Callable[[], Result]) -> Result:
    """
    Do what looks first what is done, and do it again where the connection was lost in the middle.

    Raises:
        WdhError: as the action does, a lost connection only after several tries.
    """
    for seconds in _WAITS:
        with contextlib.suppress(LostError):
            return action()
        time.sleep(seconds)
    return action()


Result = TypeVar("Result")
_WAITS = (0.1, 0.5, 2.0, 5.0, 10.0)  # before each further try: a server that crashed needs its time to recover


@contextlib.contextmanager
def locked(connection: Connection, place: plan.Place, seconds: int) -> Iterator[None]:
    """
    Hold the advisory lock of a place's table, the one that plans themselves take; a session may take it twice.

    Args:
        seconds: how long to wait for another load of the table.
    """
    key = plan.lock_key(place.schema, place.name)
    with _asking(f"table {place.table}", connection), connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = %s; SET statement_timeout = 0", (f"{seconds}s",))
        try:
            cursor.execute(f"SELECT pg_advisory_lock({key})")
        except psycopg2.errors.LockNotAvailable as error:
            what = f"another load held its lock for {seconds} s ({_holder(connection, key)})"
            mend = "wait until it has ended and run again, or set lock_timeout higher"
            raise DatabaseError(f"table {place.table}", what, mend) from error
        finally:
            cursor.execute("RESET lock_timeout; RESET statement_timeout")
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE:
            # With the connection the lock is gone; what was done under it stays done.
            with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
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
def staged(connection: Connection, file: BinaryIO, written: plan.Written, path: Path) -> Iterator[Any]:
    """
    Run a verified plan up to its changes, yield a cursor that sees its rows staged, and take everything back.

    Raises:
        DatabaseError: a guard of the plan stops it, as it would stop its load.
    """
    script = _Script(file, written, path)
    with _asking(script.where, connection), connection.cursor() as cursor:
        try:
            script.run(cursor, until=plan.CHANGES_BEGIN)
            yield cursor
        finally:
            roll_back(connection)


@contextlib.contextmanager
def transaction(connection: Connection, where: str) -> Iterator[Any]:
    """Yield a cursor in a transaction, that ends with the block."""
    with _asking(where, connection), connection.cursor() as cursor:
        try:
            cursor.execute("BEGIN")
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise


def roll_back(connection: Connection) -> None:
    """End a transaction, as far as there still is one."""
    with contextlib.suppress(psycopg2.Error), connection.cursor() as cursor:
        cursor.execute("ROLLBACK")


def _run(connection: Connection, script: _Script, committing: Callable[[int], None]) -> None:
    try:
        with _asking(script.where, connection), connection.cursor() as cursor:
            try:
                script.run(cursor)
                script.end(cursor, committing)
            except psycopg2.Error as error:
                roll_back(connection)
                if connection.closed or (where := script.blamed(cursor, error)) is None:
                    raise
                raise _refused(where, error) from error
    except BaseException:
        roll_back(connection)
        raise


class _Script:
    """
    A verified plan as it runs: its statements one by one, its rows as a stream, and the sha256 of what was run.

    Args:
        file: open at the plan's begin.
        progress: called now and then with the part that has run, from 0 to 1.
    """

    def __init__(
        self, file: BinaryIO, written: plan.Written, path: Path, progress: Callable[[float], None] = lambda part: None
    ) -> None:
        self.where = f"{written.workbook}, plan {path}"
        self._file = file
        self._written = written
        self._path = path
        self._progress = progress
        self._start()

    def _start(self) -> None:
        self._file.seek(0)
        self._at = 0
        self._sha = hashlib.sha256()
        self._statement = b""
        self._rows_at = 0

    def run(self, cursor: Any, until: bytes = b"") -> None:
        """Run the statements before the receipt, or those before a line or a statement that begins so."""
        for statement in self._statements():
            if until and statement.startswith(until):
                return
            self._statement = statement
            if statement.startswith(b"--"):
                continue
            if statement.endswith(b" FROM stdin;\n"):
                self._rows_at = self._at
                cursor.copy_expert(statement.decode(), _Rows(self), size=_COPY_BYTES)
            else:
                cursor.execute(statement)
            self._progress(self._at / self._written.receipt_at)

    def end(self, cursor: Any, committing: Callable[[int], None]) -> None:
        """Write the receipt and commit, unless the bytes that were run are not those that were verified."""
        if self._sha.hexdigest() != self._written.plan_digest:
            raise self._changed()
        cursor.execute("SELECT load_id FROM pg_temp.wdh_this")
        committing(cursor.fetchone()[0])
        cursor.execute(plan.receipt(self._written.place.schema, self._written.plan_digest))

    def _changed(self) -> PlanError:
        return PlanError(str(self._path), "changed while it was applied", "delete it and run again")

    def rows(self, size: int) -> tuple[bytes, bool]:
        """Return some whole lines of a COPY, and whether they were the last."""
        lines = self._file.read(size)
        if not lines.endswith(b"\n"):
            lines += self._file.readline()
        end = (b"\n" + lines).find(b"\n" + plan.END_OF_COPY)
        if end < 0:
            self._took(lines)
            return lines, not lines
        self._took(lines[: end + len(plan.END_OF_COPY)])
        self._file.seek(self._at)
        return lines[:end], True

    def blamed(self, cursor: Any, error: psycopg2.Error) -> str | None:
        """
        Say which row and cells a refused statement stumbled over, when its transaction is over.

        Raises:
            PlanError: the plan was changed meanwhile.
        """
        if plan.digest_of(self._file, self._written.receipt_at) != self._written.plan_digest:
            raise self._changed()
        if not (error.pgcode or "").startswith(_OF_A_ROW):
            return None
        if line := _COPY_LINE.search(error.diag.context or ""):
            row = self._row_of_line(int(line[1]))
            return self._cells(row, [line[2]] if line[2] else [])
        insert = self._statement
        if not plan.inserts(insert, self._written.place):
            return None
        self._start()
        try:
            self.run(cursor, until=insert)
            found = _refused_row(cursor, insert)
        finally:
            roll_back(cursor.connection)
        return None if found is None else self._cells(found, _columns_of(cursor, self._written.place, error))

    def _row_of_line(self, number: int) -> int:
        """Return the workbook's row in a line, from 1, of the COPY that ran last."""
        self._file.seek(self._rows_at)
        line = next(islice(self._file, number - 1, None))
        return int(line.rstrip(b"\n").rpartition(b"\t")[2])

    def _cells(self, row: int, columns: Sequence[str]) -> str:
        letters = [self._written.cells[name] for name in columns if name in self._written.cells]
        cells = ", ".join(f"{letter}{row}" for letter in letters)
        where = f"cell {cells}" if cells else f"row {row}"
        return f"{self._written.workbook}, sheet {self._written.sheet}, {where}"

    def _took(self, part: bytes) -> None:
        self._sha.update(part)
        self._at += len(part)

    def _statements(self) -> Iterator[bytes]:
        """Yield the statements, each ended by a semicolon at the end of a line; comments alone, lines for psql not."""
        lines: list[bytes] = []
        end = b";\n"
        while self._at < self._written.receipt_at:
            line = self._file.readline()
            if not line:
                raise self._changed()
            self._took(line)
            if not lines and (line.startswith(b"\\") or line == b"\n"):
                continue
            if not lines and line.startswith(b"DO $"):
                end = line.split()[1] + b";\n"
            lines.append(line)
            if line.endswith(end) or (len(lines) == 1 and line.startswith(b"--")):
                yield b"".join(lines)
                lines, end = [], b";\n"


class _Rows:
    """The rows of one COPY, as a file that ends where the rows do."""

    def __init__(self, script: _Script) -> None:
        self._script = script
        self._ended = False

    def read(self, size: int) -> bytes:
        if self._ended:
            return b""
        rows, self._ended = self._script.rows(size)
        return rows


# Codes of errors that a row's values can cause: data, constraints, a trigger's own, row security, a view's check.
_OF_A_ROW = ("22", "23", "P0001", "42501", "44")
_COPY_LINE = re.compile(r"^COPY wdh_staged, line (\d+)(?:, column (\w+))?", re.MULTILINE)


def _refused_row(cursor: Any, insert: bytes) -> int | None:
    """
    Return the first staged row that an INSERT is refused for: halves are inserted, and of a refused one its halves.

    None where row by row nothing is refused.
    """
    cursor.execute("ALTER TABLE pg_temp.wdh_staged RENAME TO wdh_all")
    cursor.execute("CREATE TEMPORARY TABLE wdh_staged (LIKE pg_temp.wdh_all) ON COMMIT DROP")
    cursor.execute("SELECT min(workbook_row), max(workbook_row) FROM pg_temp.wdh_all")
    first, last = cursor.fetchone()
    while first < last:
        middle = (first + last) // 2
        if _is_refused(cursor, insert, first, middle):
            last = middle
        else:
            first = middle + 1
    return first if _is_refused(cursor, insert, first, last) else None


def _is_refused(cursor: Any, insert: bytes, first: int, last: int) -> bool:
    """Insert some of the staged rows; they stay unless they are refused."""
    cursor.execute("SAVEPOINT some_rows")
    try:
        cursor.execute("TRUNCATE pg_temp.wdh_staged")
        cursor.execute(
            "INSERT INTO pg_temp.wdh_staged SELECT * FROM pg_temp.wdh_all WHERE workbook_row BETWEEN %s AND %s",
            (first, last),
        )
        cursor.execute("UPDATE pg_temp.wdh_reach SET rows = (SELECT count(*) FROM pg_temp.wdh_staged)")
        cursor.execute(insert)
    except psycopg2.Error:
        cursor.execute("ROLLBACK TO some_rows")
        return True
    cursor.execute("RELEASE some_rows")
    return False


def _columns_of(cursor: Any, place: plan.Place, error: psycopg2.Error) -> list[str]:
    """Return the columns that an error is about: its own, or those of the constraint or index that it names."""
    if error.diag.column_name:
        return [error.diag.column_name]
    cursor.execute(
        "SELECT a.attname FROM pg_constraint AS c JOIN pg_attribute AS a"
        " ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)"
        " WHERE c.conrelid = to_regclass(%(table)s) AND c.conname = %(name)s UNION"
        " SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indexrelid"
        " JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(%(table)s) AND c.relname = %(name)s"
        " ORDER BY 1",
        {"table": place.target, "name": error.diag.constraint_name},
    )
    return [name for (name,) in cursor.fetchall()]


@contextlib.contextmanager
def looking(connection: Connection, where: str) -> Iterator[Any]:
    """Yield a cursor that sees the database in one state, and can change nothing."""
    with _asking(where, connection), connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield cursor
        finally:
            roll_back(connection)


@contextlib.contextmanager
def _asking(where: str, connection: Connection) -> Iterator[None]:
    """Turn PostgreSQL's errors into one line each."""
    try:
        yield
    except psycopg2.Error as error:
        code = error.pgcode or ""
        if connection.closed or code.startswith(_UNDONE):
            what = f"the connection was lost ({_first_line(error)})" if connection.closed else _message(error)
            raise LostError(where, what, "run again: what is done is not done twice") from error
        raise _refused(where, error) from error


_UNDONE = "40"  # deadlocks and the like: PostgreSQL took the transaction back


def _refused(where: str, error: psycopg2.Error) -> DatabaseError:
    mend = next((text for code, text in _MENDS.items() if (error.pgcode or "").startswith(code)), "")
    return DatabaseError(where, _message(error), f"nothing was written{mend and '; ' + mend}")


def _message(error: psycopg2.Error) -> str:
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return f"PostgreSQL refused: {error.diag.message_primary or _first_line(error)}{detail}"


# What to do about it, by the begin of PostgreSQL's error code.
_MENDS = {
    "22P05": "a database in UTF8 can hold every character",
    "23": "correct the workbook, or the table's constraints",
    "25006": "name a server that takes writes in WDH_DATABASE_URI",
    "42501": "grant it to the role that loads",
    "53100": "give the server's disk room, and run again",
    "53": "give the server more resources, and run again",
    "55P03": "run again when the other one has ended, or set lock_timeout higher",
    "57014": "set statement_timeout higher",
}
