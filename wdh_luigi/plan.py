"""
A load as one .sql file: what is reviewed, and what runs.

The file is like pg_dump's: statements, each ended by a semicolon at the end of a line, and COPY blocks. ``psql -f``
runs it, and so does the product's own apply. It is deterministic: nothing in it comes from a database, a clock or a
host. Its last part, the receipt, holds the sha256 of all bytes before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from wdh_luigi.errors import PlanError, one_line

FORMAT = 1
BATCH_ROWS = 10_000
DEFAULT_SCHEMA = "public"
RECEIPTS = "wdh_load"
END_OF_COPY = b"\\.\n"
ON_ERROR_STOP = b"\\set ON_ERROR_STOP on\n"
CHANGES_BEGIN = b"-- From here on the table changes.\n\n"
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
    "plan_digest": "text NOT NULL",
    "version": "text NOT NULL",
    "loaded_by": "text NOT NULL DEFAULT session_user",
    "client": "text NOT NULL DEFAULT coalesce(host(inet_client_addr()), 'local')",
    "started_at": "timestamptz NOT NULL DEFAULT transaction_timestamp()",
    "finished_at": "timestamptz NOT NULL DEFAULT clock_timestamp()",
}


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
        return self.table.rpartition(".")[0] or DEFAULT_SCHEMA

    @property
    def name(self) -> str:
        """Return the table's name without its schema."""
        return self.table.rpartition(".")[2]


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
    counts: Mapping[str, int]
    digest: str
    version: str

    @property
    def place(self) -> Place:
        """Return what the workbook fills."""
        return Place(self.domain, self.table, self.period, self.source)

    @property
    def schema(self) -> str:
        """Return the schema that the table is in."""
        return self.place.schema

    @property
    def name(self) -> str:
        """Return the table's name without its schema."""
        return self.place.name


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


def delete_statement(load: Load) -> str | None:
    """Return the plan's DELETE, or None where nothing is deleted."""
    if load.mode == "append":
        return None
    target = qualified(load.schema, load.name)
    match = " AND ".join(f"t.{identifier(name)} = s.{identifier(name)}" for name in load.key)
    by_key = f"DELETE FROM {target} AS t USING pg_temp.wdh_staged AS s\n    WHERE {match}"
    if load.replace == "keys":
        return by_key
    return (
        f"DELETE FROM {target} AS t\n"
        f"    WHERE EXISTS (SELECT FROM pg_temp.wdh_staged AS s WHERE {match})\n"
        f"       OR t.load_id IN (SELECT l.load_id FROM {_receipts(load)} AS l WHERE {_same_place(load)})"
    )


def insert_statement(load: Load) -> str:
    """Return the plan's INSERT."""
    names = [*load.columns, *_STAGED_OWN]
    listed = ", ".join(map(identifier, names))
    return (
        f"INSERT INTO {qualified(load.schema, load.name)}\n"
        f"    ({listed}, data_source, processed_at, load_id)\n"
        f"    SELECT {listed}, {literal(load.workbook)}, transaction_timestamp(),\n"
        f"        (SELECT load_id FROM pg_temp.wdh_this)\n"
        f"    FROM pg_temp.wdh_staged ORDER BY workbook_row"
    )


def write(file: BinaryIO, load: Load, records: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """
    Write a plan.

    Args:
        records: accepted records in the order of their rows; each holds the domain's columns, has_performance_data,
            validation_warnings and row.
    Returns:
        The digest of the bytes before the receipt, and the number of batches in which the rows are staged.
    """
    out = _Digesting(file)
    for part in (*_head(load), *_before_rows(load)):
        out.write(part.encode())
    batches = 0
    for batch in _batches(records):
        out.write(_copy_statement(load).encode())
        for record in batch:
            out.write(_copy_line(load, record))
        out.write(END_OF_COPY)
        batches += 1
    for part in _after_rows(load):
        out.write(part.encode())
    digest = out.digest.hexdigest()
    file.write(receipt(load.schema, digest).encode())
    return digest, batches


class _Digesting:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, part: bytes) -> None:
        self._file.write(part)
        self.digest.update(part)


def _batches(records: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


def _copy_statement(load: Load) -> str:
    names = [*load.columns, *_STAGED_OWN]
    return f"\nCOPY pg_temp.wdh_staged ({', '.join(map(identifier, names))}) FROM stdin;\n"


def _copy_line(load: Load, record: Mapping[str, Any]) -> bytes:
    values = [record[name] for name in load.columns]
    warnings = record["validation_warnings"]
    values.append("t" if record["has_performance_data"] else "f")
    values.append(json.dumps(warnings, ensure_ascii=False) if warnings else "[]")
    values.append(record["row"])
    return ("\t".join(map(_copy_value, values)) + "\n").encode()


_COPY_ESCAPES = str.maketrans(
    {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
)


def _copy_value(value: Any) -> str:
    return r"\N" if value is None else str(value).translate(_COPY_ESCAPES)


def _head(load: Load) -> Iterator[str]:
    counts = ", ".join(f"{count} {word}" for word, count in load.counts.items())
    yield ON_ERROR_STOP.decode()
    yield f"-- wdh_luigi plan, format {FORMAT}, written by version {load.version}\n"
    yield f"{_HEADER.decode()}{json.dumps(_header(load))}\n\n"
    yield "BEGIN;\n"
    yield "SET LOCAL client_encoding = 'UTF8';\n"
    # Not before: psql in a Chinese encoding would take a newline for half of a character, and lose the next line.
    yield f"-- workbook: {one_line(load.workbook)}\n"
    yield f"-- sha256 of the workbook: {load.sha256}\n"
    yield f"-- domain {load.domain}, period {load.period or 'none'}, source {one_line(load.source) or 'none'}\n"
    yield f"-- table {load.table}, mode {load.mode}, replace {load.replace}, overlap {load.overlap}\n"
    yield f"-- rows: {counts}\n"
    yield f"-- digest of the accepted records: {load.digest}\n"


def _header(load: Load) -> dict[str, Any]:
    """Return what a plan says of itself to whoever applies it; escaped, so that no encoding of psql's matters."""
    place = ("domain", "table", "period", "source")
    names = (*place, "workbook", "mode", "replace", "digest", "lock_timeout")
    return {name: getattr(load, name) for name in names} | {"columns": list(load.columns), "key": list(load.key)}


def _before_rows(load: Load) -> Iterator[str]:
    yield "SET LOCAL standard_conforming_strings = on;\n"
    yield "SET LOCAL search_path = pg_catalog;\n"
    yield "SET LOCAL datestyle = 'ISO, YMD';\n"
    yield f"SET LOCAL lock_timeout = '{load.lock_timeout}s';\n"
    yield f"SET LOCAL statement_timeout = '{load.statement_timeout}s';\n\n"
    yield "-- One load of a table at a time.\n"
    yield _do(f"PERFORM pg_advisory_xact_lock({lock_key(load.schema, load.name)});") + "\n"
    yield _create(RECEIPTS, load.schema, _receipts_definition(load), "The receipts of all loads into this schema")
    yield _create(load.name, load.schema, _table_definition(load), "The table")
    yield _check_table(load)
    yield "-- The rows, staged.\n"
    yield "CREATE TEMPORARY TABLE wdh_this ON COMMIT DROP AS\n"
    sequence = f"pg_get_serial_sequence({literal(_receipts(load))}, 'load_id')"
    yield f"    SELECT nextval({sequence}) AS load_id, 0::bigint AS deleted;\n"
    yield "CREATE TEMPORARY TABLE wdh_staged (\n"
    staged = {**load.columns, **{name: OWN_COLUMNS[name] for name in _STAGED_OWN}}
    yield ",\n".join(f"    {identifier(name)} {kind}" for name, kind in staged.items())
    yield "\n) ON COMMIT DROP;\n"


def _after_rows(load: Load) -> Iterator[str]:
    yield "ANALYZE pg_temp.wdh_staged;\n\n"
    yield _guard(
        "All rows arrived",
        f"SELECT format('%s rows staged, {load.counts['accepted']} expected: the plan is not whole', count(*))\n"
        f"    FROM pg_temp.wdh_staged HAVING count(*) <> {load.counts['accepted']}",
    )
    if load.key and load.mode == "append":
        yield _guard("No key is in the table already (append)", _present_keys(load))
    elif load.key and load.overlap == "error":
        yield _guard("No key is held by another place's workbook (overlap: error)", _overlapping(load))
    if load.mode == "delete_insert" and load.replace == "place":
        yield _guard("Not too much of a month leaves the table (max_delete_ratio)", _vanishing(load))
    yield CHANGES_BEGIN.decode()
    delete = delete_statement(load)
    if delete:
        yield "-- What is replaced.\n"
        yield "CREATE TEMPORARY TABLE wdh_gone (load_id bigint, rows bigint) ON COMMIT DROP;\n"
        yield f"WITH gone AS (\n{delete}\n    RETURNING t.load_id)\n"
        yield "INSERT INTO pg_temp.wdh_gone SELECT load_id, count(*) FROM gone GROUP BY load_id;\n"
        yield "UPDATE pg_temp.wdh_this SET deleted = (SELECT coalesce(sum(rows), 0) FROM pg_temp.wdh_gone);\n"
        yield f"UPDATE {_receipts(load)} AS l SET taken_over = l.taken_over + g.rows\n"
        yield "    FROM pg_temp.wdh_gone AS g WHERE g.load_id = l.load_id;\n\n"
    yield f"-- The rows.\n{insert_statement(load)};\n\n"
    yield "-- The receipt, in the same transaction.\n"
    yield _receipt_values(load)


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
        "version": literal(load.version),
    }
    listed = ",\n        ".join(f"{value} AS {identifier(name)}" for name, value in values.items())
    select = f"SELECT load_id,\n        {listed}\n    FROM pg_temp.wdh_this"
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


_GIVEN_BY_SERVER = ("taken_over", "loaded_by", "client", "started_at", "finished_at")
_RECEIPT_START = re.compile(rb'^INSERT INTO ("(?:[^"]|"")+")\."' + RECEIPTS.encode() + rb'"$')
_RECEIPT_DIGEST = re.compile(rb"'([0-9a-f]{64})'")


def lock_key(schema: str, name: str) -> str:
    """Return the SQL expression of the advisory lock of a table, the same for everybody who loads it."""
    return f"hashtextextended({literal(f'wdh_luigi {qualified(schema, name)}')}, 0)"


def _create(name: str, schema: str, definition: str, comment: str) -> str:
    """Create a table where it is missing; asked first, as CREATE … IF NOT EXISTS wants the right to create."""
    full = qualified(schema, name)
    # Two loads of different tables may both find the receipts missing: the second waits and looks again.
    body = (
        f"IF to_regclass({literal(full)}) IS NULL THEN\n"
        f"    PERFORM pg_advisory_xact_lock({lock_key(schema, 'create ' + name)});\n"
        f"    IF to_regclass({literal(full)}) IS NULL THEN\n"
        f"        CREATE TABLE {full} (\n{definition}\n        );\n"
        f"    END IF;\nEND IF;"
    )
    return f"-- {comment}, if missing.\n{_do(body)}\n"


def _do(body: str) -> str:
    tag = "$wdh$"
    while tag in body:
        tag = tag[:-1] + "_$"
    return f"DO {tag}\nBEGIN\n{body}\nEND\n{tag};\n"


def _table_definition(load: Load) -> str:
    lines = [
        f"            {identifier(name)} {kind}{' NOT NULL' if name in load.key else ''}"
        for name, kind in {**load.columns, **OWN_COLUMNS}.items()
    ]
    if load.key:
        lines.append(f"            PRIMARY KEY ({_listed(load.key)})")
    return ",\n".join(lines)


def _receipts_definition(load: Load) -> str:
    lines = ["            load_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"]
    lines += [f"            {identifier(name)} {kind}" for name, kind in RECEIPT_COLUMNS.items()]
    return ",\n".join(lines)


def _check_table(load: Load) -> str:
    """Compare the table with what the rows need, before anything is written: all differences at once."""
    parts = "\n    UNION ALL\n".join(_differences(load))
    message = (
        f"SELECT {literal(f'table {load.table} differs: ')} || string_agg(d.difference, '; ' ORDER BY d.place)\n"
        f"    FROM (\n{parts}\n    ) AS d (place, difference) HAVING count(*) > 0"
    )
    return _guard("The table is as the rows need it", message)


def _differences(load: Load) -> Iterator[str]:
    """Yield queries of (place, difference): the kind of relation, columns, key and rights."""
    table = f"{literal(qualified(load.schema, load.name))}::regclass"
    wanted = {**load.columns, **OWN_COLUMNS}
    yield (
        "        SELECT 0, 'it is no table (a view, a foreign table or the like)' FROM pg_class AS c\n"
        f"        WHERE c.oid = {table} AND c.relkind NOT IN ('r', 'p')"
    )
    expected = ",\n            ".join(
        f"({place}, {literal(name)}, {literal(_canonical(kind))})"
        for place, (name, kind) in enumerate(wanted.items(), 1)
    )
    yield (
        "        SELECT w.place, CASE WHEN a.attname IS NULL THEN format('column %s is missing', w.name)\n"
        "            ELSE format('column %s is %s, expected %s', w.name, format_type(a.atttypid, a.atttypmod), w.kind)"
        f" END\n        FROM (VALUES\n            {expected}\n        ) AS w (place, name, kind)\n"
        f"        LEFT JOIN pg_attribute AS a ON a.attrelid = {table} AND a.attname = w.name"
        " AND NOT a.attisdropped AND a.attnum > 0\n"
        "        WHERE format_type(a.atttypid, a.atttypmod) IS DISTINCT FROM w.kind"
    )
    yield (
        "        SELECT 100 + a.attnum, format('column %s is NOT NULL and gets no value', a.attname)"
        f" FROM pg_attribute AS a\n        WHERE a.attrelid = {table} AND a.attnum > 0 AND NOT a.attisdropped"
        " AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''\n"
        f"            AND a.attname <> ALL (ARRAY[{', '.join(map(literal, wanted))}])"
    )
    if load.key:
        yield _key_difference(load, table)
    rights = "SELECT, INSERT" if load.mode == "append" else "SELECT, INSERT, DELETE"
    yield (
        f"        SELECT 3000, format('%s lacks the right to %s', current_user, r.name)"
        f" FROM unnest(string_to_array('{rights}', ', ')) AS r (name)\n"
        f"        WHERE NOT has_table_privilege({table}, r.name)"
    )


def _key_difference(load: Load, table: str) -> str:
    key = ", ".join(sorted(load.key))
    return (
        "        SELECT 2000, format('its primary key is (%s), expected (%s)', coalesce(k.names, 'none'), "
        f"{literal(key)})\n        FROM (SELECT string_agg(a.attname, ', ' ORDER BY a.attname COLLATE \"C\") AS names\n"
        "            FROM pg_index AS i\n"
        "            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)\n"
        f"            WHERE i.indrelid = {table} AND i.indisprimary) AS k\n"
        f"        WHERE k.names IS DISTINCT FROM {literal(key)}"
    )


_CANONICAL = {"varchar": "character varying", "timestamptz": "timestamp with time zone"}


def _canonical(kind: str) -> str:
    """Return a type as PostgreSQL's format_type spells it."""
    name, bracket, rest = kind.partition("(")
    return _CANONICAL.get(name, name) + bracket + rest


def _guard(comment: str, message: str) -> str:
    """Return a statement that fails the plan with the message that a query gives, if it gives one."""
    body = (
        f"message := ({message});\nIF message IS NOT NULL THEN\n    RAISE EXCEPTION USING MESSAGE = message;\nEND IF;"
    )
    return f"-- Guard: {comment}.\n" + _do(body).replace("\nBEGIN\n", "\nDECLARE message text;\nBEGIN\n", 1) + "\n"


def _present_keys(load: Load) -> str:
    match = " AND ".join(f"t.{identifier(name)} = s.{identifier(name)}" for name in load.key)
    shown = _shown_key(load, "s")
    return (
        f"SELECT format('%s of the keys are in the table already, for example %s', max(found.total),"
        " string_agg(found.shown, '; '))\n"
        f"    FROM (SELECT {shown} AS shown, count(*) OVER () AS total FROM pg_temp.wdh_staged AS s\n"
        f"        JOIN {qualified(load.schema, load.name)} AS t ON {match}\n"
        f"        ORDER BY s.workbook_row LIMIT 5) AS found HAVING count(*) > 0"
    )


def _overlapping(load: Load) -> str:
    match = " AND ".join(f"t.{identifier(name)} = s.{identifier(name)}" for name in load.key)
    shown = _shown_key(load, "s")
    return (
        "SELECT format('%s keys are held by another workbook, for example %s (overlap: replace takes them over)',"
        " max(found.total), string_agg(found.shown, '; '))\n"
        f"    FROM (SELECT format('%s in row %s, held by %s row %s', {shown}, s.workbook_row, l.workbook,"
        " t.workbook_row) AS shown, count(*) OVER () AS total\n"
        f"        FROM pg_temp.wdh_staged AS s JOIN {qualified(load.schema, load.name)} AS t ON {match}\n"
        f"        JOIN {_receipts(load)} AS l ON l.load_id = t.load_id\n"
        f"        WHERE NOT ({_same_place(load)})\n"
        "        ORDER BY s.workbook_row LIMIT 5) AS found HAVING count(*) > 0"
    )


def _vanishing(load: Load) -> str:
    """Ask for a month of which more rows of the place would go than may."""
    match = " AND ".join(f"s.{identifier(name)} = t.{identifier(name)}" for name in load.key)
    month = next(name for name, kind in load.columns.items() if kind == "date")
    return (
        "SELECT format('%s of %s rows of %s would leave the table, more than max_delete_ratio %s',"
        f" count(*) FILTER (WHERE s.workbook_row IS NULL), count(*), t.{identifier(month)}, {load.max_delete_ratio})\n"
        f"    FROM {qualified(load.schema, load.name)} AS t\n"
        f"    JOIN {_receipts(load)} AS l ON l.load_id = t.load_id AND {_same_place(load)}\n"
        f"    LEFT JOIN pg_temp.wdh_staged AS s ON {match}\n"
        f"    GROUP BY t.{identifier(month)}"
        f" HAVING count(*) FILTER (WHERE s.workbook_row IS NULL) > {load.max_delete_ratio} * count(*)\n"
        f"    ORDER BY t.{identifier(month)} LIMIT 1"
    )


def _shown_key(load: Load, alias: str) -> str:
    parts = ", ".join(f"{alias}.{identifier(name)}" for name in load.key)
    return f"concat_ws(' ', {parts})"


def _same_place(load: Load) -> str:
    return same_place(load.place)


def same_place(place: Place) -> str:
    """Return the condition by which receipts, as l, are of a place."""
    return (
        f"l.domain = {literal(place.domain)} AND l.table_name = {literal(place.table)}"
        f" AND l.period = {literal(place.period)} AND l.source = {literal(place.source)}"
    )


def _receipts(load: Load) -> str:
    return qualified(load.schema, RECEIPTS)


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
        digest, replace, workbook, mode, lock_timeout, columns, key: as in Load, columns by name.
    """

    receipt_at: int
    plan_digest: str
    place: Place
    digest: str
    replace: str
    workbook: str
    mode: str
    lock_timeout: int
    columns: list[str]
    key: list[str]


def verify(path: Path) -> Written:
    """
    Check that a plan's bytes are what was written.

    Raises:
        PlanError: cut, changed or appended to.
    """
    sha, at, last, header = hashlib.sha256(), 0, None, b""
    with path.open("rb") as file:
        tail = b""
        for line in file:
            header = header or (line.removeprefix(_HEADER) if line.startswith(_HEADER) else b"")
            start = _RECEIPT_START.match(line)
            if start or tail:
                if start:
                    sha.update(tail)
                    at, tail, last = at + len(tail), b"", start
                tail += line
                continue
            sha.update(line)
            at += len(line)
    found = _RECEIPT_DIGEST.search(tail)
    digest = sha.hexdigest()
    if last is None or found is None or found[1].decode() != digest or tail != _tail(last, digest):
        raise PlanError(str(path), "its bytes are not what was written", "delete it and run again: it is written anew")
    says = json.loads(header)
    place = Place(says.pop("domain"), says.pop("table"), says.pop("period"), says.pop("source"))
    return Written(at, digest, place, **says)


def _tail(start: re.Match[bytes], digest: str) -> bytes:
    schema = start[1].decode()[1:-1].replace('""', '"')
    return receipt(schema, digest).encode()
