"""A load taken back: the table as it was before, from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wdh_luigi import plan, warehouse
from wdh_luigi.errors import DatabaseError

_SHOWN = 5  # loads that a message names


@dataclass(frozen=True)
class Reverted:
    """
    What was taken back.

    Attributes:
        workbook: whose load it was.
        removed: how many of its rows left the table.
        restored: how many rows that it had replaced came back, as they were.
    """

    load_id: int
    workbook: str
    removed: int
    restored: int


def find(connection: warehouse.Connection, schemas: Sequence[str], load_id: int) -> str:
    """
    Return the schema that a load's receipt is in.

    Raises:
        DatabaseError: none of the schemas has it, or several do.
    """
    found = [schema for schema in schemas if warehouse.receipt_of(connection, schema, load_id) is not None]
    if not found:
        where = ", ".join(plan.qualified(schema, plan.RECEIPTS) for schema in schemas)
        raise DatabaseError(f"load {load_id}", f"there is none in {where}", "look up its load_id there")
    if len(found) > 1:
        raise DatabaseError(f"load {load_id}", f"the schemas {', '.join(found)} have one each", "name its --domain")
    return found[0]


def revert(connection: warehouse.Connection, schema: str, load_id: int, lock_timeout: int) -> Reverted:
    """
    Take a load back in one transaction.

    Raises:
        DatabaseError: later loads rest on it, or it cannot be known what was before; nothing was changed.
    """
    receipt = warehouse.receipt_of(connection, schema, load_id)
    assert receipt is not None, "it was found"
    place = plan.Place(*(receipt[name] for name in ("domain", "table_name", "period", "source")))
    with (
        warehouse.locked(connection, place, lock_timeout),
        warehouse.transaction(connection, f"load {load_id}") as cursor,
    ):
        return _Load(cursor, place, load_id).revert()


class _Load:
    """A load in the transaction that reverts it. Its statements have no parameters: a % in a name is to stay one."""

    def __init__(self, cursor: Any, place: plan.Place, load_id: int) -> None:
        self._cursor = cursor
        self._place = place
        self._id = load_id
        self._receipt = self._value(
            f"SELECT to_jsonb(l) FROM {place.receipts} AS l WHERE l.load_id = {load_id} FOR UPDATE"
        )
        self._has_history = warehouse.is_there(cursor, place.history)
        indexed = "SELECT unnest(i.indkey) FROM pg_index AS i WHERE i.indrelid = a.attrelid AND i.indisprimary"
        self._key = self._columns(place.target, f"AND a.attnum IN ({indexed})")

    def revert(self) -> Reverted:
        """Swap the load's rows for those that it had replaced, unless something hinders it."""
        self._check_history()
        self._check_later_loads()
        self._check_rows()
        removed, restored = self._take_out(), self._put_back() if self._has_history else 0
        self._cursor.execute(
            f"UPDATE {self._place.receipts} SET reverted_at = clock_timestamp(), reverted_by = session_user"
            f" WHERE load_id = {self._id}"
        )
        return Reverted(self._id, self._receipt["workbook"], removed, restored)

    def _check_history(self) -> None:
        receipt, place = self._receipt, self._place
        if receipt.get("reverted_at"):
            when, who = receipt["reverted_at"], receipt["reverted_by"]
            raise self._refusal(f"was reverted at {when} by {who}", "nothing is left to revert")
        replaced = receipt["deleted"]
        if replaced and not receipt.get("kept_history"):
            mend = "load the former workbook again, and set keep_history: true for the loads to come"
            raise self._refusal(f"replaced {replaced} rows and kept no history of them", mend)
        rows = f"FROM {place.history} WHERE replaced_by = {self._id}"
        kept = self._value(f"SELECT count(*) {rows}") if self._has_history else 0
        if kept != replaced:
            what = f"replaced {replaced} rows, of which its history {place.history} holds {kept}"
            raise self._refusal(what, "load the former workbook again")

    def _check_later_loads(self) -> None:
        if later := self._later_loads():
            raise self._refusal(f"later loads touched its keys: {self._named(later)}", "revert them first")
        if unknown := self._later_loads_without_history():
            what = f"later loads replaced rows and kept no history of them: {self._named(unknown)}"
            raise self._refusal(what, "load the former workbook again")

    def _check_rows(self) -> None:
        """Refuse where somebody else than a load changed which rows there are."""
        inserted, place = self._receipt["inserted"], self._place
        standing = self._value(f"SELECT count(*) FROM {place.target} WHERE load_id = {self._id}")
        if standing != inserted:
            what = f"{inserted - standing} of its {inserted} rows are not in the table, and no load took them out"
            raise self._refusal(what, "load the former workbook again")
        if self._key and self._has_history:
            put_in = self._value(
                f"SELECT count(*) FROM {place.history} AS h JOIN {place.target} AS t USING ({', '.join(self._key)})"
                f" WHERE h.replaced_by = {self._id} AND t.load_id IS DISTINCT FROM {self._id}"
            )
            if put_in:
                what = f"{put_in} keys that it took out are in the table again, and no load put them there"
                raise self._refusal(what, "delete those rows first")

    def _later_loads(self) -> list[int]:
        """Return the later loads whose rows, in the table or its history, have keys that this one touched."""
        if not self._key:
            return []
        place, key = self._place, ", ".join(self._key)
        rows = f"JOIN pg_temp.wdh_keys USING ({key}) WHERE"
        held = [f"SELECT {key} FROM {place.target} WHERE load_id = {self._id}"]
        later = [f"SELECT load_id FROM {place.target} {rows} load_id > {self._id}"]
        if self._has_history:
            held.append(f"SELECT {key} FROM {place.history} WHERE {self._id} IN (load_id, replaced_by)")
            later.append(f"SELECT load_id FROM {place.history} {rows} load_id > {self._id}")
            later.append(f"SELECT replaced_by FROM {place.history} {rows} replaced_by > {self._id}")
        self._cursor.execute(f"CREATE TEMPORARY TABLE wdh_keys ON COMMIT DROP AS {' UNION '.join(held)}")
        return self._ids(" UNION ".join(later))

    def _later_loads_without_history(self) -> list[int]:
        """Return the later loads that may have taken out keys of this one's dates: nobody can know."""
        return self._ids(
            f"SELECT l.load_id FROM {self._place.receipts} AS l JOIN {self._place.receipts} AS this"
            f" ON this.load_id = {self._id} AND l.load_id > this.load_id AND l.table_name = this.table_name"
            " WHERE l.deleted > 0 AND NOT l.kept_history AND l.reverted_at IS NULL"
            f" AND EXISTS (SELECT FROM {self._place.receipts} AS a, {self._place.receipts} AS b"
            f" WHERE {_reaches('l', 'a')} AND {_reaches('this', 'b')}"
            " AND coalesce(a.first_date <= b.last_date AND a.last_date >= b.first_date, true))"
        )

    def _take_out(self) -> int:
        self._cursor.execute(f"DELETE FROM {self._place.target} WHERE load_id = {self._id}")
        return int(self._cursor.rowcount)

    def _put_back(self) -> int:
        """Move the replaced rows from the history into the table; return how many."""
        place = self._place
        beside = {plan.identifier(name) for name in plan.HISTORY_COLUMNS}
        ours = [name for name in self._columns(place.history) if name not in beside]
        others = [name for name in self._columns(place.target) if name in self._other_columns()]
        values = ", ".join([*(f"h.{name}" for name in ours), *(f"o.{name}" for name in others)])
        self._cursor.execute(
            f"INSERT INTO {place.target} ({', '.join([*ours, *others])}) OVERRIDING SYSTEM VALUE SELECT {values}"
            f" FROM {place.history} AS h, jsonb_populate_record(NULL::{place.target}, h.other_columns) AS o"
            f" WHERE h.replaced_by = {self._id}"
        )
        restored = int(self._cursor.rowcount)
        self._cursor.execute(
            f"WITH gone AS (DELETE FROM {place.history} WHERE replaced_by = {self._id} RETURNING load_id),"
            " counted AS (SELECT load_id, count(*) AS rows FROM gone GROUP BY load_id)"
            f" UPDATE {place.receipts} AS l SET taken_over = l.taken_over - c.rows FROM counted AS c"
            " WHERE c.load_id = l.load_id"
        )
        return restored

    def _other_columns(self) -> set[str]:
        """Return, quoted, what other columns the table had when its rows were replaced; newer ones have defaults."""
        first = f"SELECT other_columns FROM {self._place.history} WHERE replaced_by = {self._id} LIMIT 1"
        self._cursor.execute(f"SELECT jsonb_object_keys(h.other_columns) FROM ({first}) AS h")
        return {plan.identifier(name) for (name,) in self._cursor.fetchall()}

    def _value(self, sql: str) -> Any:
        self._cursor.execute(sql)
        return self._cursor.fetchone()[0]

    def _ids(self, sql: str) -> list[int]:
        self._cursor.execute(f"{sql} ORDER BY 1")
        return [load_id for (load_id,) in self._cursor.fetchall()]

    def _columns(self, table: str, condition: str = "") -> list[str]:
        """Return those columns of a table that fulfil a condition, quoted; not those that PostgreSQL computes."""
        self._cursor.execute(
            f"SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = to_regclass({plan.literal(table)})"
            f" AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' {condition} ORDER BY a.attnum"
        )
        return [plan.identifier(name) for (name,) in self._cursor.fetchall()]

    def _named(self, load_ids: Sequence[int]) -> str:
        """Name loads, the first of them, by number, workbook and time."""
        listed = ", ".join(map(str, load_ids[:_SHOWN]))
        names = self._value(
            "SELECT string_agg(format('%s (%s, %s)', l.load_id, l.workbook, date_trunc('second', l.finished_at)),"
            f" ', ' ORDER BY l.load_id) FROM {self._place.receipts} AS l WHERE l.load_id IN ({listed})"
        )
        return f"{names} and {len(load_ids) - _SHOWN} more" if len(load_ids) > _SHOWN else str(names)

    def _refusal(self, what: str, mend: str) -> DatabaseError:
        return DatabaseError(f"load {self._id} of {self._receipt['workbook']}", what, mend)


def _reaches(load: str, other: str) -> str:
    """Return the condition by which a load's rows or those that it took out may have the dates of another receipt."""
    place = " AND ".join(f"{other}.{name} = {load}.{name}" for name in ("domain", "table_name", "period", "source"))
    of_place = f"{load}.replace = 'place' AND {other}.load_id < {load}.load_id AND {place}"
    return f"({other}.load_id = {load}.load_id OR {of_place})"
