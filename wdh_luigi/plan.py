"""
A load as one .sql file: what is reviewed, and what runs.

The file is like pg_dump's: statements, each ended by a semicolon at the end of a line, and COPY blocks. ``psql -f``
runs it, and so does the product's own apply. It is deterministic: nothing in it comes from a database, a clock or a
host. Its last part, the receipt, holds the sha256 of all bytes before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from wdh_luigi.errors import PlanError, one_line

FORMAT = 2
BATCH_ROWS = 10_000
DEFAULT_SCHEMA = "public"
RECEIPTS = "wdh_load"
HISTORY_SUFFIX = "_history"
NULL = r"\N"
END_OF_COPY = b"\\.\n"
ON_ERROR_STOP = b"\\set ON_ERROR_STOP on\n"
CHANGES_BEGIN = b"-- From here on the table changes.\n"
_HEADER = b"-- load: "

# Columns that every table has beside its domain's: name -> type.
OWN_COLUMNS = {
    "data_source": "text",
    "processed_at": "timestamptz",
    "has_performance_data": "boolean",
    "validation_warnings": "jsonb",
    "load_id": "bigint",
    "workbook_row": "integer",
}
_STAGED_OWN = ("has_performance_data", "validation_warnings", "workbook_row")

# Columns that a history has beside its table's: what other columns an existing table has, and the load that took it.
HISTORY_COLUMNS = {"other_columns": "jsonb", "replaced_by": "bigint NOT NULL"}

RECEIPT_COLUMNS = {
    "domain": "text NOT NULL",
    "table_name": "text NOT NULL",
    "period": "text NOT NULL",
    "source": "text NOT NULL",
    "workbook": "text NOT NULL",
    "workbook_sha256": "text NOT NULL",
    "records_digest": "text NOT NULL",
    "mode": "text NOT NULL",
    "replace": "text NOT NULL",
    "rows_read": "bigint NOT NULL",
    "rows_accepted": "bigint NOT NULL",
    "rows_rejected": "bigint NOT NULL",
    "rows_duplicate": "bigint NOT NULL",
    "rows_skipped": "bigint NOT NULL",
    "deleted": "bigint NOT NULL",
    "inserted": "bigint NOT NULL",
    "taken_over": "bigint NOT NULL DEFAULT 0",
    "kept_history": "boolean NOT NULL DEFAULT false",
    "date_column": "text",
    "first_date": "date",
    "last_date": "date",
    "plan_digest": "text NOT NULL",
    "version": "text NOT NULL",
    "loaded_by": "text NOT NULL DEFAULT session_user",
    "client": "text NOT NULL DEFAULT coalesce(host(inet_client_addr()), 'local')",
    "started_at": "timestamptz NOT NULL DEFAULT transaction_timestamp()",
    "finished_at": "timestamptz NOT NULL DEFAULT clock_timestamp()",
    "reverted_at": "timestamptz",
    "reverted_by": "text",
}


def schema_of(table: str) -> str:
    """Return the schema of a table as configured, "table" or "schema.table"."""
    return table.rpartition(".")[0] or DEFAULT_SCHEMA


@dataclass(frozen=True)
class Place:
    """What a workbook fills in the warehouse; a correction takes the place of what it corrects."""

    domain: str
    table: str
    period: str
    source: str

    @property
    def schema(self) -> str:
        """Return the schema that the table is in."""
        return schema_of(self.table)

    @property
    def name(self) -> str:
        """Return the table's name without its schema."""
        return self.table.rpartition(".")[2]

    @property
    def target(self) -> str:
        """Return the table's quoted name."""
        return qualified(self.schema, self.name)

    @property
    def receipts(self) -> str:
        """Return the quoted name of the receipts of loads into the table's schema."""
        return qualified(self.schema, RECEIPTS)

    @property
    def history(self) -> str:
        """Return the quoted name of the table's history."""
        return qualified(self.schema, self.name + HISTORY_SUFFIX)


@dataclass(frozen=True)
class Load:
    """
    Everything that a plan says, but for the rows.

    Attributes:
        table: as configured, "table" or "schema.table"; without a schema it is in public.
        columns: the domain's columns, name -> SQL type.
        key: the primary key's columns.
        counts: rows read, accepted, rejected, duplicate, skipped.
        digest: sha256 over the accepted records.
        max_delete_ratio: of its place's rows of a month, how many a load may take out without putting them in again.
        lock_timeout: seconds to wait for another load of the table.
        statement_timeout: seconds that a statement may take, or 0 for any.
        keep_history: rows that are replaced go to the table's history, from which the load can be reverted.
        sheet, cells: where the rows come from, for messages: the columns' letters in Excel by their names.
        dates: the first and the last date of the rows, in ISO 8601, where the key has a date; None where not known.
    """

    domain: str
    table: str
    columns: Mapping[str, str]
    key: Sequence[str]
    period: str
    source: str
    workbook: str
    sha256: str
    mode: str
    replace: str
    overlap: str
    max_delete_ratio: float
    lock_timeout: int
    statement_timeout: int
    keep_history: bool
    sheet: str
    cells: Mapping[str, str]
    counts: Mapping[str, int]
    digest: str
    version: str
    dates: tuple[str, str] | None = None

    @property
    def place(self) -> Place:
        """Return what the workbook fills."""
        return Place(self.domain, self.table, self.period, self.source)

    @property
    def date(self) -> str | None:
        """Return the date by which a load's rows are found, one of the key, as no row lacks it; None without."""
        return next((name for name in self.key if self.columns[name] == "date"), None)


def identifier(name: str) -> str:
    """Quote a name: trustee_performance is "trustee_performance", whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for SQL, on one line whatever it holds: a file name may have quotes, newlines and SQL in it."""
    quoted = text.replace("'", "''")
    if quoted.isprintable() and "\\" not in quoted:
        return f"'{quoted}'"
    escaped = "".join(_escaped(char) for char in quoted.replace("\\", "\\\\"))
    return f"E'{escaped}'"


def _escaped(char: str) -> str:
    return char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def qualified(schema: str, name: str) -> str:
    """Return a table's quoted name with its schema, so that no search_path decides which one it is."""
    return f"{identifier(schema)}.{identifier(name)}"


def delete_statements(load: Load) -> list[str]:
    """Return the plan's DELETEs; none where it appends."""
    if load.mode == "append":
        return []
    by_key = f"DELETE FROM {load.place.target} AS t USING pg_temp.wdh_staged AS s\n    WHERE {_same_key(load)}"
    if load.replace == "keys":
        return [by_key]
    of_place = f"t.load_id IN (SELECT l.load_id FROM {load.place.receipts} AS l WHERE {same_place(load.place)})"
    by_place = f"DELETE FROM {load.place.target} AS t\n    WHERE {of_place}{_in_reach(load)}"
    return [by_key, by_place]


def insert_statement(load: Load) -> str:
    """Return the plan's INSERT."""
    names = [*load.columns, *_STAGED_OWN]
    listed = ", ".join(map(identifier, names))
    return (
        f"INSERT INTO {load.place.target}\n"
        f"    ({listed}, data_source, processed_at, load_id)\n"
        f"    SELECT {listed}, {literal(load.workbook)}, transaction_timestamp(),\n"
        f"        (SELECT load_id FROM pg_temp.wdh_this)\n"
        f"    FROM pg_temp.wdh_staged"
    )


def write(file: BinaryIO, load: Load, lines: Iterable[bytes]) -> tuple[str, int]:
    """
    Write a plan.

    Args:
        lines: the accepted records in the order of their rows, as COPY takes them: the domain's columns,
            has_performance_data, validation_warnings and the row.
    Returns:
        The digest of the bytes before the receipt, and the number of batches in which the rows are staged.
    """
    out = _Digesting(file)
    for part in (*_head(load), *_before_rows(load)):
        out.write(part.encode())
    batches = 0
    iterator = iter(lines)
    while rows := b"".join(islice(iterator, BATCH_ROWS)):
        out.write(_copy_statement(load).encode() + rows + END_OF_COPY)
        batches += 1
    for part in _after_rows(load):
        out.write(part.encode())
    digest = out.digest.hexdigest()
    file.write(receipt(load.place.schema, digest).encode())
    return digest, batches


class _Digesting:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, part: bytes) -> None:
        self._file.write(part)
        self.digest.update(part)


def _copy_statement(load: Load) -> str:
    names = [*load.columns, *_STAGED_OWN]
    return f"\nCOPY pg_temp.wdh_staged ({', '.join(map(identifier, names))}) FROM stdin;\n"


_COPY_ESCAPES = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)


def copy_value(value: Any) -> str:
    """Return a value as COPY takes it."""
    if isinstance(value, bool):
        return "t" if value else "f"
    return NULL if value is None else str(value).translate(_COPY_ESCAPES)


def copy_warnings(warnings: Sequence[str]) -> str:
    """Return a record's warnings as COPY takes them."""
    return copy_value(json.dumps(warnings, ensure_ascii=False)) if warnings else "[]"


def _head(load: Load) -> Iterator[str]:
    counts = ", ".join(f"{count} {word}" for word, count in load.counts.items())
    yield ON_ERROR_STOP.decode()
    yield f"-- wdh_luigi plan, format {FORMAT}, written by version {load.version}\n"
    yield f"{_HEADER.decode()}{json.dumps(_header(load), default=dict)}\n\n"
    # Whatever the database's default: a snapshot from before the wait for the lock would not see whom it waited for.
    yield "BEGIN ISOLATION LEVEL READ COMMITTED;\n"
    yield "SET LOCAL client_encoding = 'UTF8';\n"
    # Not before: psql in a Chinese encoding would take a newline for half of a character, and lose the next line.
    yield f"-- workbook: {one_line(load.workbook)}\n"
    yield f"-- sha256 of the workbook: {load.sha256}\n"
    yield f"-- domain {load.domain}, period {load.period or 'none'}, source {one_line(load.source) or 'none'}\n"
    yield f"-- table {load.table}, mode {load.mode}, replace {load.replace}, overlap {load.overlap}\n"
    yield f"-- history: {'kept in ' + load.place.history if load.keep_history else 'not kept'}\n"
    yield f"-- rows: {counts}\n"
    yield f"-- digest of the accepted records: {load.digest}\n"


def _header(load: Load) -> dict[str, Any]:
    """Return what a plan says of itself to whoever applies it; escaped, so that no encoding of psql's matters."""
    names = ("domain", "table", "period", "source", "workbook", "sheet", "cells", "mode", "replace", "digest", "key")
    says = {name: getattr(load, name) for name in (*names, "lock_timeout")}
    return {"format": FORMAT} | says | {"columns": list(load.columns)}


def _before_rows(load: Load) -> Iterator[str]:
    yield "SET LOCAL standard_conforming_strings = on;\n"
    yield "SET LOCAL search_path = pg_catalog;\n"
    yield "SET LOCAL datestyle = 'ISO, YMD';\n"
    yield f"SET LOCAL lock_timeout = '{load.lock_timeout}s';\n"
    yield f"SET LOCAL statement_timeout = '{load.statement_timeout}s';\n\n"
    yield "-- One load of a table at a time.\n"
    yield _do(f"PERFORM pg_advisory_xact_lock({lock_key(load.place.schema, load.place.name)});") + "\n"
    yield _guard("The schema can be used", _unusable(load.place.schema))
    yield _guard("What is there is as the rows need it, and what is missing can be made", _differing(load))
    yield _create(load.place, RECEIPTS, _receipts_definition(), "The receipts of all loads into this schema")
    yield _add_columns(load.place)
    yield _create(load.place, load.place.name, _table_definition(load), "The table")
    if load.keep_history:
        index = f"CREATE INDEX ON {load.place.history} USING brin (replaced_by);"
        yield _create(
            load.place, load.place.name + HISTORY_SUFFIX, _history_definition(load), "The table's history", index
        )
    yield "-- The rows, staged.\n"
    yield "CREATE TEMPORARY TABLE wdh_this ON COMMIT DROP AS\n"
    sequence = f"pg_get_serial_sequence({literal(load.place.receipts)}, 'load_id')"
    yield f"    SELECT nextval({sequence}) AS load_id, 0::bigint AS deleted"
    yield f",\n        {_has_other_columns(load)} AS other_columns;\n" if load.keep_history else ";\n"
    yield "CREATE TEMPORARY TABLE wdh_staged (\n"
    staged = {**load.columns, **{name: OWN_COLUMNS[name] for name in _STAGED_OWN}}
    yield ",\n".join(f"    {identifier(name)} {kind}" for name, kind in staged.items())
    yield "\n) ON COMMIT DROP;\n"


def _after_rows(load: Load) -> Iterator[str]:
    # A look at 3,000 rows: to know about how many keys there are is enough, and 30,000 would take a tenth of a second.
    yield "SET LOCAL default_statistics_target = 10;\n"
    yield "ANALYZE pg_temp.wdh_staged;\n"
    first, last = (f"{end}({identifier(load.date)})" if load.date else "NULL::date" for end in ("min", "max"))
    yield "CREATE TEMPORARY TABLE wdh_reach ON COMMIT DROP AS\n"
    yield f"    SELECT count(*) AS rows, {first} AS first_date, {last} AS last_date FROM pg_temp.wdh_staged;\n\n"
    yield _guard(
        "All rows arrived",
        f"SELECT format('%s rows staged, {load.counts['accepted']} expected: the plan is not whole', r.rows)\n"
        f"    FROM pg_temp.wdh_reach AS r WHERE r.rows <> {load.counts['accepted']}",
    )
    if load.mode == "append":
        present = _present_keys(load) if load.key else _present_rows(load)
        yield _guard("Nothing of it is in the table already (append)", present)
    elif load.key and load.overlap == "error":
        guard = "No key is held by another place's workbook (overlap: error)"
        yield _guard(guard, _overlapping(load), only_if=_others_in_reach(load))
    if load.mode == "delete_insert" and load.replace == "place":
        yield _guard("Not too much of a month leaves the table (max_delete_ratio)", _vanishing(load))
    yield CHANGES_BEGIN.decode() + "\n"
    deletes = delete_statements(load)
    if deletes:
        yield "-- What is replaced.\n"
        yield "CREATE TEMPORARY TABLE wdh_gone (load_id bigint, rows bigint) ON COMMIT DROP;\n"
        for delete in deletes:
            yield _removal(load, delete)
        if load.overlap == "error":
            yield _guard("No row of another place's workbook went", _others_gone(load))
        yield "UPDATE pg_temp.wdh_this SET deleted = (SELECT coalesce(sum(rows), 0) FROM pg_temp.wdh_gone);\n"
        yield f"UPDATE {load.place.receipts} AS l SET taken_over = l.taken_over + g.rows\n"
        yield "    FROM (SELECT load_id, sum(rows) AS rows FROM pg_temp.wdh_gone GROUP BY load_id) AS g\n"
        yield "    WHERE g.load_id = l.load_id;\n\n"
    yield f"-- The rows, all of them: a trigger may drop some in silence.\n{_insertion(load)}\n"
    yield "-- The receipt, in the same transaction.\n"
    yield _receipt_values(load)


def _insertion(load: Load) -> str:
    """Return the INSERT, that fails the plan where the table takes less than is staged."""
    message = "format('%s of the %s rows are in the table: its triggers or rules took the others out', put, staged)"
    return _do(
        f"{insert_statement(load)};\nGET DIAGNOSTICS put = ROW_COUNT;\n"
        f"IF put <> staged THEN\n    RAISE EXCEPTION USING MESSAGE = {message};\nEND IF;",
        "put bigint;\n    staged bigint := (SELECT rows FROM pg_temp.wdh_reach);",
    )


def inserts(statement: bytes, place: Place) -> bool:
    """Tell whether a statement of a plan is the one that puts the rows into a place's table."""
    return b"\nBEGIN\nINSERT INTO " + place.target.encode() in statement


def _removal(load: Load, delete: str) -> str:
    """Return a DELETE that counts by load what it took, and puts it into the history where one is kept."""
    counted = "INSERT INTO pg_temp.wdh_gone SELECT load_id, count(*) FROM gone GROUP BY load_id;\n"
    if not load.keep_history:
        return f"WITH gone AS (\n{delete}\n    RETURNING t.load_id)\n{counted}"
    names = [*load.columns, *OWN_COLUMNS]
    gone, ours = ", ".join(f"gone.{identifier(name)}" for name in names), ", ".join(map(literal, names))
    return (
        f"WITH gone AS (\n{delete}\n    RETURNING t.*),\n"
        f"kept AS (\nINSERT INTO {load.place.history}\n    ({_listed([*names, *HISTORY_COLUMNS])})\n"
        f"    SELECT {gone},\n"
        f"        CASE WHEN i.other_columns THEN to_jsonb(gone) - ARRAY[{ours}] END, i.load_id\n"
        "    FROM gone, pg_temp.wdh_this AS i)\n"
        f"{counted}"
    )


def _has_other_columns(load: Load) -> str:
    """Ask whether an existing table has columns that are not ours, which its history then keeps as well."""
    ours = ", ".join(map(literal, [*load.columns, *OWN_COLUMNS]))
    return (
        f"EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = {literal(load.place.target)}::regclass\n"
        f"            AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (ARRAY[{ours}]))"
    )


def _receipt_values(load: Load) -> str:
    values = {
        "domain": literal(load.domain),
        "table_name": literal(load.table),
        "period": literal(load.period),
        "source": literal(load.source),
        "workbook": literal(load.workbook),
        "workbook_sha256": literal(load.sha256),
        "records_digest": literal(load.digest),
        "mode": literal(load.mode),
        "replace": literal(load.replace),
        **{f"rows_{word}": str(count) for word, count in load.counts.items()},
        "deleted": "deleted",
        "inserted": str(load.counts["accepted"]),
        "kept_history": "true" if load.keep_history else "false",
        "date_column": literal(load.date) if load.date else "NULL::text",
        "first_date": "first_date",
        "last_date": "last_date",
        "version": literal(load.version),
    }
    listed = ",\n        ".join(f"{value} AS {identifier(name)}" for name, value in values.items())
    select = f"SELECT load_id,\n        {listed}\n    FROM pg_temp.wdh_this, pg_temp.wdh_reach"
    return f"CREATE TEMPORARY TABLE wdh_receipt ON COMMIT DROP AS\n    {select};\n"


def receipt(schema: str, digest: str) -> str:
    """Return a plan's last part, which is made of nothing but the digest of what is before it."""
    names = ["load_id", *(name for name in RECEIPT_COLUMNS if name not in _GIVEN_BY_SERVER)]
    listed = ", ".join(map(identifier, names))
    given = ", ".join(f"'{digest}'" if name == "plan_digest" else identifier(name) for name in names)
    return (
        f"INSERT INTO {qualified(schema, RECEIPTS)}\n    ({listed})\n"
        f"    OVERRIDING SYSTEM VALUE SELECT {given}\n    FROM pg_temp.wdh_receipt;\nCOMMIT;\n"
    )


_GIVEN_BY_SERVER = ("taken_over", "loaded_by", "client", "started_at", "finished_at", "reverted_at", "reverted_by")
_RECEIPT_START = re.compile(rb'^INSERT INTO ("(?:[^"]|"")+")\."' + RECEIPTS.encode() + rb'"$')
_RECEIPT_DIGEST = re.compile(rb"'([0-9a-f]{64})'")


def lock_key(schema: str, name: str) -> str:
    """Return the SQL expression of the advisory lock of a table, the same for everybody who loads it."""
    return f"hashtextextended({literal(f'wdh_luigi {qualified(schema, name)}')}, 0)"


def _create(place: Place, name: str, definition: str, comment: str, index: str = "") -> str:
    """Create a table where it is missing; asked first, as CREATE … IF NOT EXISTS wants the right to create."""
    full = qualified(place.schema, name)
    # Two loads of different tables may both find the receipts missing: the second waits, and tries. To ask again would
    # not do, as what PostgreSQL remembers not to be there is forgotten only on the way to make it.
    body = (
        f"IF to_regclass({literal(full)}) IS NULL THEN\n"
        f"    PERFORM pg_advisory_xact_lock({lock_key(place.schema, 'create ' + name)});\n"
        f"    BEGIN\n"
        f"        CREATE TABLE {full} (\n{definition}\n        );\n"
        + (f"        {index}\n" if index else "")
        + "    EXCEPTION WHEN duplicate_table THEN\n        NULL;\n    END;\nEND IF;"
    )
    return f"-- {comment}, if missing.\n{_do(body)}\n"


def _add_columns(place: Place) -> str:
    """Add to the receipts of a former version what they did not have; asked first, as only their owner may add."""
    added = [name for name, kind in RECEIPT_COLUMNS.items() if "NOT NULL" not in kind or "DEFAULT" in kind]
    lines = []
    for name in added:
        there = f"SELECT FROM pg_attribute WHERE attrelid = {literal(place.receipts)}::regclass AND attname = '{name}'"
        column = f"{identifier(name)} {RECEIPT_COLUMNS[name]}"
        lines.append(f"IF NOT EXISTS ({there}) THEN\n    ALTER TABLE {place.receipts} ADD COLUMN {column};\nEND IF;")
    return "-- What the receipts of a former version do not have.\n" + _do("\n".join(lines)) + "\n"


def _do(body: str, declared: str = "") -> str:
    tag = "$wdh$"
    while tag in body:
        tag = tag[:-1] + "_$"
    declaration = f"DECLARE {declared}\n" if declared else ""
    return f"DO {tag}\n{declaration}BEGIN\n{body}\nEND\n{tag};\n"


def _table_definition(load: Load) -> str:
    lines = [
        f"            {identifier(name)} {kind}{' NOT NULL' if name in load.key else ''}"
        for name, kind in {**load.columns, **OWN_COLUMNS}.items()
    ]
    if load.key:
        lines.append(f"            PRIMARY KEY ({_listed(load.key)})")
    return ",\n".join(lines)


def _receipts_definition() -> str:
    lines = ["            load_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"]
    lines += [f"            {identifier(name)} {kind}" for name, kind in RECEIPT_COLUMNS.items()]
    return ",\n".join(lines)


def _history_definition(load: Load) -> str:
    columns = {**load.columns, **OWN_COLUMNS, **HISTORY_COLUMNS}
    return ",\n".join(f"            {identifier(name)} {kind}" for name, kind in columns.items())


def _unusable(schema: str) -> str:
    """Ask what hinders the use of a schema; on its own, as every other question would fail there."""
    name, shown = literal(identifier(schema)), literal(schema)
    return (
        f"SELECT CASE WHEN to_regnamespace({name}) IS NULL THEN format('there is no schema %s', {shown})\n"
        f"    WHEN NOT has_schema_privilege(to_regnamespace({name}), 'USAGE')\n"
        f"    THEN format('%s lacks the right to USAGE of schema %s', current_user, {shown}) END"
    )


def _differing(load: Load) -> str:
    """Compare what is there with what the load needs, before anything is written: all differences at once."""
    parts = "\n    UNION ALL\n".join(_differences(load))
    return (
        f"SELECT {literal(f'table {load.table} differs: ')} || string_agg(d.difference, '; ' ORDER BY d.place)\n"
        f"    FROM (\n{parts}\n    ) AS d (place, difference) HAVING count(*) > 0"
    )


def _differences(load: Load) -> Iterator[str]:
    """Yield queries of (place, difference): the table's kind, columns and key; rights; and what cannot be made."""
    place = load.place
    table = f"to_regclass({literal(place.target)})"
    wanted = {**load.columns, **OWN_COLUMNS}
    yield (
        "        SELECT 0, 'it is no table (a view, a foreign table or the like)' FROM pg_class AS c\n"
        f"        WHERE c.oid = {table} AND c.relkind NOT IN ('r', 'p')"
    )
    yield _column_differences(place.target, wanted, 0, "column %s")
    yield (
        "        SELECT 100 + a.attnum, format('column %s is NOT NULL and gets no value', a.attname)"
        f" FROM pg_attribute AS a\n        WHERE a.attrelid = {table} AND a.attnum > 0 AND NOT a.attisdropped"
        " AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''\n"
        f"            AND a.attname <> ALL (ARRAY[{', '.join(map(literal, wanted))}])"
    )
    if load.key:
        yield _key_difference(load, table)
    rights = {place.target: "SELECT, INSERT" if load.mode == "append" else "SELECT, INSERT, DELETE"}
    rights[place.receipts] = "SELECT, INSERT, UPDATE"
    if load.keep_history:
        kept = {name: kind.removesuffix(" NOT NULL") for name, kind in {**wanted, **HISTORY_COLUMNS}.items()}
        yield _column_differences(place.history, kept, 2500, "column %s of its history")
        rights[place.history] = "SELECT, INSERT"
    for at, (name, right) in enumerate(rights.items()):
        yield _missing_rights(place.schema, name, right, 3000 + 10 * at)
    sequence = f"pg_get_serial_sequence(to_regclass({literal(place.receipts)})::text, 'load_id')"
    yield (
        "        SELECT 4000, format('%s lacks the right to USAGE of sequence %s', current_user, q.name)"
        f" FROM (SELECT {sequence}) AS q (name)\n        WHERE NOT has_sequence_privilege(q.name, 'USAGE')"
    )
    yield (
        "        SELECT 4001, format('%s lacks the right to TEMPORARY of database %s', current_user,"
        " current_database())\n        WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')"
    )


def _column_differences(table: str, wanted: Mapping[str, str], first: int, what: str) -> str:
    expected = ",\n            ".join(
        f"({at}, {literal(name)}, {literal(_canonical(kind))})" for at, (name, kind) in enumerate(wanted.items(), 1)
    )
    return (
        f"        SELECT {first} + w.place, CASE WHEN a.attname IS NULL THEN format('{what} is missing', w.name)\n"
        f"            ELSE format('{what} is %s, expected %s', w.name, format_type(a.atttypid, a.atttypmod), w.kind)"
        f" END\n        FROM (VALUES\n            {expected}\n        ) AS w (place, name, kind)\n"
        f"        JOIN pg_class AS c ON c.oid = to_regclass({literal(table)})\n"
        "        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = w.name"
        " AND NOT a.attisdropped AND a.attnum > 0\n"
        "        WHERE format_type(a.atttypid, a.atttypmod) IS DISTINCT FROM w.kind"
    )


def _missing_rights(schema: str, name: str, rights: str, place: int) -> str:
    """Ask for the rights that are missing: to use a table that is there, or to make it."""
    table = f"to_regclass({literal(name)})"
    return (
        f"        SELECT {place}, format('%s lacks the right to %s of table %s', current_user, r.name,"
        f" {literal(name)})\n        FROM unnest(string_to_array('{rights}', ', ')) AS r (name)\n"
        f"        WHERE NOT has_table_privilege({table}, r.name)\n    UNION ALL\n"
        f"        SELECT {place + 9}, format('%s is missing, and %s lacks the right to CREATE in its schema',"
        f" {literal(name)}, current_user)\n        WHERE {table} IS NULL"
        f" AND NOT has_schema_privilege({literal(identifier(schema))}::regnamespace, 'CREATE')"
    )


def _key_difference(load: Load, table: str) -> str:
    key = ", ".join(sorted(load.key))
    return (
        "        SELECT 2000, format('its primary key is (%s), expected (%s)', coalesce(k.names, 'none'), "
        f"{literal(key)})\n        FROM (SELECT string_agg(a.attname, ', ' ORDER BY a.attname COLLATE \"C\") AS names\n"
        "            FROM pg_index AS i\n"
        "            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)\n"
        f"            WHERE i.indrelid = {table} AND i.indisprimary) AS k\n"
        f"        WHERE {table} IS NOT NULL AND k.names IS DISTINCT FROM {literal(key)}"
    )


_CANONICAL = {"varchar": "character varying", "timestamptz": "timestamp with time zone"}


def _canonical(kind: str) -> str:
    """Return a type as PostgreSQL's format_type spells it."""
    name, bracket, rest = kind.partition("(")
    return _CANONICAL.get(name, name) + bracket + rest


def _guard(comment: str, message: str, *, only_if: str = "true") -> str:
    """Return a statement that fails the plan with the message that a query gives, if it gives one."""
    asked = f"message := ({message});" if only_if == "true" else f"IF {only_if} THEN\nmessage := ({message});\nEND IF;"
    body = f"{asked}\nIF message IS NOT NULL THEN\n    RAISE EXCEPTION USING MESSAGE = message;\nEND IF;"
    return f"-- Guard: {comment}.\n{_do(body, 'message text;')}\n"


def _same_key(load: Load) -> str:
    """Compare keys; their dates as constants too, which alone tell the planner in which partitions not to look."""
    same = " AND ".join(f"t.{identifier(name)} = s.{identifier(name)}" for name in load.key)
    if not load.dates or not load.date:
        return same
    first, last = map(literal, load.dates)
    return f"{same}\n        AND t.{identifier(load.date)} BETWEEN {first} AND {last}"


def _in_reach(load: Load) -> str:
    """Return the dates between which the place's rows are, by its receipts: the key's index leads there."""
    if not load.date:
        return ""
    date, place = f"t.{identifier(load.date)}", f"FROM {load.place.receipts} AS l WHERE {same_place(load.place)}"
    return (
        f"\n        AND {date} >= (SELECT min(coalesce(l.first_date, '-infinity')) {place})"
        f"\n        AND {date} <= (SELECT max(coalesce(l.last_date, 'infinity')) {place})"
    )


def _present_keys(load: Load) -> str:
    shown = _shown_key(load, "s")
    return (
        f"SELECT format('%s of the keys are in the table already, for example %s', max(found.total),"
        " string_agg(found.shown, '; '))\n"
        f"    FROM (SELECT {shown} AS shown, count(*) OVER () AS total FROM pg_temp.wdh_staged AS s\n"
        f"        JOIN {load.place.target} AS t ON {_same_key(load)}\n"
        f"        ORDER BY s.workbook_row LIMIT 5) AS found HAVING count(*) > 0"
    )


def _present_rows(load: Load) -> str:
    """Ask, where there are no keys, for rows of the place's former loads; without a period, for the same records."""
    same = "" if load.period else f" AND l.records_digest = {literal(load.digest)}"
    return (
        "SELECT format('%s rows of its place are in the table already, by load %s of %s', count(*), l.load_id,"
        " l.workbook)\n"
        f"    FROM {load.place.target} AS t JOIN {load.place.receipts} AS l ON l.load_id = t.load_id\n"
        f"    WHERE {same_place(load.place)}{same}\n"
        "    GROUP BY l.load_id, l.workbook ORDER BY l.load_id LIMIT 1"
    )


def _overlapping(load: Load) -> str:
    shown = _shown_key(load, "s")
    return (
        "SELECT format('%s keys are held by another workbook, for example %s (overlap: replace takes them over)',"
        " max(found.total), string_agg(found.shown, '; '))\n"
        f"    FROM (SELECT format('%s in row %s, held by %s row %s', {shown}, s.workbook_row, l.workbook,"
        " t.workbook_row) AS shown, count(*) OVER () AS total\n"
        f"        FROM pg_temp.wdh_staged AS s JOIN {load.place.target} AS t ON {_same_key(load)}\n"
        f"        JOIN {load.place.receipts} AS l ON l.load_id = t.load_id\n"
        f"        WHERE NOT ({same_place(load.place)})\n"
        "        ORDER BY s.workbook_row LIMIT 5) AS found HAVING count(*) > 0"
    )


def _others_in_reach(load: Load) -> str:
    """Ask whether another place may have rows of the same dates, by the receipts: without, no key needs a look."""
    return (
        f"EXISTS (SELECT FROM {load.place.receipts} AS l, pg_temp.wdh_reach AS r WHERE NOT ({same_place(load.place)})\n"
        f"    AND l.table_name IN ({literal(load.place.name)}, {literal(f'{load.place.schema}.{load.place.name}')})\n"
        "    AND coalesce(l.first_date <= r.last_date AND l.last_date >= r.first_date, true))"
    )


def _others_gone(load: Load) -> str:
    """Ask for rows of another place, which no receipt led to: their dates were changed by hand."""
    return (
        "SELECT format('%s rows of %s (load %s) would be replaced (overlap: replace takes them over)',\n"
        "        g.rows, l.workbook, l.load_id)\n"
        f"    FROM pg_temp.wdh_gone AS g JOIN {load.place.receipts} AS l ON l.load_id = g.load_id\n"
        f"    WHERE NOT ({same_place(load.place)}) LIMIT 1"
    )


def _vanishing(load: Load) -> str:
    """Ask for a month of which more rows of the place would go than may."""
    month = identifier(load.date) if load.date else "load_id"
    gone = "count(*) FILTER (WHERE s.workbook_row IS NULL)"
    return (
        f"SELECT format('%s of %s rows of %s would leave the table, more than max_delete_ratio %s',\n"
        f"        {gone}, count(*), t.{month}, {load.max_delete_ratio})\n"
        f"    FROM {load.place.target} AS t\n"
        f"    JOIN {load.place.receipts} AS l ON l.load_id = t.load_id AND {same_place(load.place)}\n"
        f"    LEFT JOIN pg_temp.wdh_staged AS s ON {_same_key(load)}\n"
        f"    WHERE true{_in_reach(load)}\n"
        f"    GROUP BY t.{month} HAVING {gone} > {load.max_delete_ratio} * count(*)\n"
        f"    ORDER BY t.{month} LIMIT 1"
    )


def _shown_key(load: Load, alias: str) -> str:
    parts = ", ".join(f"{alias}.{identifier(name)}" for name in load.key)
    return f"concat_ws(' ', {parts})"


def same_place(place: Place) -> str:
    """Return the condition by which receipts, as l, are of a place."""
    return f"{same_table(place)} AND l.period = {literal(place.period)} AND l.source = {literal(place.source)}"


def same_table(place: Place) -> str:
    """Return the condition by which receipts, as l, are of a place's domain and table."""
    return f"l.domain = {literal(place.domain)} AND l.table_name = {literal(place.table)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(identifier, names))


@dataclass(frozen=True)
class Written:
    """
    A plan file whose bytes are as they were written.

    Attributes:
        receipt_at: where its receipt begins.
        plan_digest: sha256 of the bytes before.
        place: what it fills.
        digest, replace, workbook, sheet, cells, mode, lock_timeout, columns, key: as in Load, columns by name.
    """

    receipt_at: int
    plan_digest: str
    place: Place
    digest: str
    replace: str
    workbook: str
    sheet: str
    cells: dict[str, str]
    mode: str
    lock_timeout: int
    columns: list[str]
    key: list[str]


def verify(file: BinaryIO, path: Path) -> Written:
    """
    Check that an open plan's bytes are what was written; it stands at its begin afterwards.

    Args:
        path: the plan as messages name it.
    Raises:
        PlanError: cut, changed or appended to, or of another version's format.
    """
    end = file.seek(0, io.SEEK_END)
    at = max(0, end - _LONGEST_RECEIPT)
    file.seek(at)
    tail = file.read()
    start = tail.rfind(b"\nINSERT INTO ") + 1
    found = _RECEIPT.match(tail, start)
    digest, header = digest_of(file, at + start), _header_of(file)
    file.seek(0)
    if found is None or tail[start:] != receipt(_unquoted(found[1]), digest).encode() or header is None:
        raise PlanError(str(path), "its bytes are not what was written", "delete it and run again: it is written anew")
    if header.pop("format", 1) != FORMAT:
        raise PlanError(str(path), "another version wrote it", "run again: this version writes its own")
    place = Place(header.pop("domain"), header.pop("table"), header.pop("period"), header.pop("source"))
    return Written(at + start, digest, place, **header)


_LONGEST_RECEIPT = 4096
_RECEIPT = re.compile(rb'INSERT INTO ("(?:[^"]|"")+")\."' + RECEIPTS.encode() + rb'"\n')


def digest_of(file: BinaryIO, length: int) -> str:
    """Return the sha256 of a file's first bytes."""
    file.seek(0)
    sha = hashlib.sha256()
    while length and (part := file.read(min(length, 1 << 20))):
        sha.update(part)
        length -= len(part)
    return sha.hexdigest()


def _header_of(file: BinaryIO) -> dict[str, Any] | None:
    file.seek(0)
    for line in islice(file, 3):
        if line.startswith(_HEADER):
            with contextlib.suppress(ValueError):
                return dict(json.loads(line.removeprefix(_HEADER)))
    return None


def _unquoted(quoted: bytes) -> str:
    return quoted.decode(errors="replace")[1:-1].replace('""', '"')
