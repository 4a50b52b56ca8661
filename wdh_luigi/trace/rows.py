"""The rows of the table that a key selects, and their loads: asked of the database."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from wdh_luigi import plan, validate, warehouse
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import ConfigError, DatabaseError
from wdh_luigi.schema import Domain

_MOST_ROWS = 20
_NEAREST = 5
_EARLIER = ("load_id", "workbook", "finished_at", "reverted_at")
_LONG = 60  # characters
_LOOKED_AT = 10_000  # distinct values among which the nearest is sought


@dataclass(frozen=True)
class Term:
    """A column of the key and the value that is asked for: as given, and as the domain understands it."""

    column: str
    given: str
    value: Any

    @property
    def values(self) -> list[Any]:
        """Return what the column may hold: a code also as given, as rows that nobody cleaned may hold it."""
        return [self.value, self.given] if isinstance(self.value, str) and self.value != self.given else [self.value]

    def __str__(self) -> str:
        shown = plain(self.value)
        return f"{self.column}={shown}" + (f" (given as {short(self.given)})" if shown != self.given else "")


def plain(value: Any) -> str:
    """Return a value for people: a number in full, blank for none."""
    if value is None:
        return "blank"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def short(text: str) -> str:
    """Cut a text that is longer than lines for people bear."""
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def key_of(domain: Domain, config: DomainConfig) -> list[str]:
    """Return the columns that say which row it is."""
    return config.pk or [name for name, column in domain.columns.items() if column.kind != "figure"]


def terms(texts: Iterable[str], domain: Domain, config: DomainConfig) -> list[Term]:
    """
    Understand column=value texts as the domain understands cells.

    Raises:
        ConfigError: no such column of the key, one named twice, or no value that it can have.
    """
    found: list[Term] = []
    for text in texts:
        name, equals, given = text.partition("=")
        if not equals:
            raise ConfigError(repr(short(text)), "is no column=value", f"write it like {key_of(domain, config)[0]}=…")
        column = _column(name.strip(), key_of(domain, config), domain)
        if any(one.column == column for one in found):
            raise ConfigError(column, "is given twice", "leave one of them")
        try:
            found.append(Term(column, given, validate.key_value(domain, column, given)))
        except ValueError as error:
            raise ConfigError(f"{column}={short(given)}", str(error), "correct the value") from None
    return found


def _column(name: str, key: Sequence[str], domain: Domain) -> str:
    """Return a column of the key by its name, or by the word that sheets have for it."""
    known = {column: column for column in key} | {domain.columns[column].word: column for column in key}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
    mend = f"did you mean {known[near[0]]}?" if near else f"it has {', '.join(key)}"
    raise ConfigError(f"column {short(name)!r}", f"is not in the key of {domain.name}", mend)


class Table:
    """
    The domain's table and the receipts beside it, asked in one transaction.

    Raises:
        DatabaseError: the table does not exist.
    """

    def __init__(self, cursor: Any, place: plan.Place, key: Sequence[str]) -> None:
        self._cursor = cursor
        self._key = key
        self._place = place
        if not warehouse.is_there(cursor, place.target):
            mend = "load a workbook first, or correct table in data_sources.yml, or WDH_DATABASE_URI"
            raise DatabaseError(f"table {place.table}", "does not exist in this database", mend)
        self._has_receipts = warehouse.is_there(cursor, place.receipts)

    def _ask(self, select: str, asked: Sequence[Term], rest: str = "", limit: int = _MOST_ROWS) -> list[Any]:
        """Return what rows of a key say; a name may hold a %, which is no place for a value."""
        conditions = [f"t.{plan.identifier(one.column)}".replace("%", "%%") + " = ANY (%s)" for one in asked]
        what, table, order = (part.replace("%", "%%") for part in (select, self._place.target, rest))
        statement = f"SELECT {what} FROM {table} AS t WHERE {' AND '.join(conditions) or 'true'} {order} LIMIT %s"
        self._cursor.execute(statement, (*(one.values for one in asked), limit))
        return [value for (value,) in self._cursor.fetchall()]

    def count(self, asked: Sequence[Term]) -> int:
        """Count the rows of a key."""
        return int(self._ask("count(*)", asked)[0])

    def rows(self, asked: Sequence[Term]) -> list[dict[str, Any]]:
        """Return the first rows of a key as they stand, all columns of them."""
        order = ", ".join(f"t.{plan.identifier(name)}" for name in self._key)
        found = self._ask("row_to_json(t.*)::text", asked, f"ORDER BY {order}")
        return [json.loads(text, parse_float=Decimal) for text in found]

    def load(self, number: int) -> dict[str, Any] | None:
        """Return a load's receipt, with the earlier loads of its place, the newest first; None where there is none."""
        if not self._has_receipts:
            return None
        receipts = self._place.receipts.replace("%", "%%")
        self._cursor.execute(f"SELECT row_to_json(l.*)::text FROM {receipts} AS l WHERE load_id = %s", (number,))
        found = self._cursor.fetchone()
        if found is None:
            return None
        receipt: dict[str, Any] = json.loads(found[0])
        place = [receipt[name] for name in ("domain", "table_name", "period", "source")]
        self._cursor.execute(
            f"SELECT row_to_json(l.*)::text FROM {receipts} AS l WHERE load_id < %s AND domain = %s"
            " AND table_name = %s AND period = %s AND source = %s ORDER BY load_id DESC LIMIT %s",
            (number, *place, _NEAREST),
        )
        earlier = [json.loads(text) for (text,) in self._cursor.fetchall()]
        return receipt | {"earlier": [{name: one.get(name) for name in _EARLIER} for one in earlier]}

    def nearest(self, asked: Sequence[Term]) -> str:
        """Say what the table has instead of a key that it does not have."""
        total = self.count([])
        if not total:
            return "the table is empty"
        said = []
        for one in asked:
            others = [other for other in asked if other is not one]
            if rows := self.count(others):
                named = f" of {', '.join(f'{other.column}={plain(other.value)}' for other in others)}" if others else ""
                said.append(f"{rows} rows{named}, with {one.column} {self._values(one, others)}")
        singly = [f"{self.count([one])} of {one.column}={plain(one.value)}" for one in asked]
        return "it has " + ("; ".join(said) or f"{total} rows, {', '.join(singly)}")

    def _values(self, wanted: Term, others: Sequence[Term]) -> str:
        """Name the values of a column that are nearest to a wanted one: months by time, texts by their letters."""
        column = f"t.{plan.identifier(wanted.column)}"
        there = self._ask(f"DISTINCT {column}::text AS one", others, "ORDER BY one DESC", _LOOKED_AT)
        values = [value for value in there if value is not None]
        if isinstance(wanted.value, date):
            near = sorted(values, key=lambda value: _days_between(value, wanted.value))[:_NEAREST]
        else:
            near = difflib.get_close_matches(plain(wanted.value), values, _NEAREST, cutoff=0.0)
        more = f" and {len(values) - len(near)} more" if len(values) > len(near) else ""
        return ", ".join(sorted(near)) + more


def _days_between(text: str, month: date) -> float:
    try:
        return abs((date.fromisoformat(text) - month).days)
    except ValueError:  # infinity, or a date before Christ
        return float("inf")
