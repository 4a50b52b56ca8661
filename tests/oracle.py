"""What loads and reverts must leave behind, in plain Python: written from the design, not from the code."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2
from test_plan import load, record, written

from wdh_luigi import targets

Key = tuple[date, str]
Figures = Mapping[Key, str | None]  # rates by key


@dataclass(frozen=True)
class Wanted:
    """A workbook's records and how they are to be loaded."""

    period: str
    source: str
    figures: Figures
    mode: str = "delete_insert"
    replace: str = "keys"
    overlap: str = "error"
    max_delete_ratio: float = 1.0
    keep_history: bool = True

    @property
    def place(self) -> tuple[str, str]:
        return self.period, self.source

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(sorted(self.figures.items())).encode()).hexdigest()

    @property
    def workbook(self) -> str:
        return f"{self.period}/{self.source}.xlsx"


@dataclass(frozen=True)
class Row:
    rate: str | None
    workbook_row: int
    workbook: str
    load: int


@dataclass
class Receipt:
    """A load, by its number in the order of the loads; touched: the keys that it put in or took out."""

    wanted: Wanted
    deleted: int
    taken_over: int = 0
    reverted: bool = False
    touched: set[Key] = field(default_factory=set)
    replaced: dict[Key, Row] = field(default_factory=dict)


class RefusedError(Exception):
    """What the product must refuse, with a word of its message."""


class UnknownError(Exception):
    """What the product may refuse, as nobody can know."""


class Oracle:
    """A table with its receipts and its history."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self.receipts: list[Receipt] = []

    def copy(self) -> Oracle:
        return copy.deepcopy(self)

    def is_loaded(self, wanted: Wanted, *, reverted_too: bool = False) -> bool:
        """Tell whether the newest load of the place is this one and stands, or was reverted, which lasts."""
        newest = self._newest(wanted.place)
        if newest is None:
            return False
        one = self.receipts[newest]
        if (one.wanted.digest, one.wanted.replace) != (wanted.digest, wanted.replace):
            return False
        if one.reverted:
            return not reverted_too
        return self._standing(newest) == len(one.wanted.figures) - one.taken_over

    def load(self, wanted: Wanted, *, reverted_too: bool = False) -> bool:
        """Load records unless they are loaded; tell whether they had to be."""
        if self.is_loaded(wanted, reverted_too=reverted_too):
            return False
        held = {key: row for key, row in self.rows.items() if key in wanted.figures}
        of_place = {key: row for key, row in self.rows.items() if self._place(row) == wanted.place}
        gone = {}
        if wanted.mode == "append":
            if held:
                raise RefusedError("already")
        else:
            if wanted.overlap == "error" and any(self._place(row) != wanted.place for row in held.values()):
                raise RefusedError("held by another workbook")
            gone = held
            if wanted.replace == "place":
                self._check_ratio(wanted, of_place)
                gone = {**held, **of_place}
        number = len(self.receipts)
        for key, row in gone.items():
            del self.rows[key]
            self.receipts[row.load].taken_over += 1
        for at, (key, rate) in enumerate(wanted.figures.items(), 2):
            self.rows[key] = Row(rate, at, wanted.workbook, number)
        self.receipts.append(Receipt(wanted, len(gone), touched={*gone, *wanted.figures}, replaced=gone))
        return True

    def revert(self, number: int) -> None:
        """Take a load back."""
        one = self.receipts[number]
        if one.reverted:
            raise RefusedError("was reverted")
        if one.replaced and not one.wanted.keep_history:
            raise RefusedError("kept no history")
        later = [other for other in self.receipts[number + 1 :] if not other.reverted]
        if any(one.touched & other.touched for other in later):
            raise RefusedError("later loads|not in the table")
        if self._standing(number) != len(one.wanted.figures):
            raise RefusedError("later loads|not in the table")
        unknown = any(other.replaced and not other.wanted.keep_history for other in later)
        for key in one.wanted.figures:
            del self.rows[key]
        for key, row in one.replaced.items():
            self.rows[key] = row
            self.receipts[row.load].taken_over -= 1
        one.reverted = True
        if unknown:
            raise UnknownError

    def truncate(self) -> None:
        self.rows = {}

    def state(self) -> dict[str, Any]:
        """Return what the database must hold, as ``state`` below tells it."""
        rows = {(*key, row.rate, row.workbook_row, row.workbook, row.load) for key, row in self.rows.items()}
        receipts = [
            (*one.wanted.place, one.wanted.digest, one.deleted, len(one.wanted.figures), one.taken_over, one.reverted)
            for one in self.receipts
        ]
        history = {
            (*key, row.rate, row.workbook_row, row.workbook, row.load, number)
            for number, one in enumerate(self.receipts)
            if one.wanted.keep_history and not one.reverted
            for key, row in one.replaced.items()
        }
        return {"rows": rows, "receipts": receipts, "history": history}

    def _newest(self, place: tuple[str, str]) -> int | None:
        found = [number for number, one in enumerate(self.receipts) if one.wanted.place == place]
        return found[-1] if found else None

    def _place(self, row: Row) -> tuple[str, str]:
        return self.receipts[row.load].wanted.place

    def _standing(self, number: int) -> int:
        return sum(row.load == number for row in self.rows.values())

    def _check_ratio(self, wanted: Wanted, of_place: Iterable[Key]) -> None:
        present = list(of_place)
        for month in {key[0] for key in present}:
            here = [key for key in present if key[0] == month]
            if sum(key not in wanted.figures for key in here) > wanted.max_delete_ratio * len(here):
                raise RefusedError("max_delete_ratio")


def state(uri: str) -> dict[str, Any]:
    """Return what a database holds: each row, receipt and row of the history, loads by their order."""
    with closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            cursor.execute(sql)
            return list(cursor.fetchall())

        if ask("SELECT to_regclass('wdh_load') IS NULL")[0][0]:
            assert ask("SELECT to_regclass('performance') IS NULL") == [(True,)], "both are made in one transaction"
            return {"rows": set(), "receipts": [], "history": set()}
        numbers = {load_id: at for at, (load_id,) in enumerate(ask("SELECT load_id FROM wdh_load ORDER BY 1"))}
        values = "report_date, plan_code, return_rate, workbook_row, data_source, load_id"
        rows = ask(f"SELECT {values} FROM performance")
        kept = ask("SELECT to_regclass('performance_history') IS NOT NULL")[0][0]
        history = ask(f"SELECT {values}, replaced_by FROM performance_history") if kept else []
        told = {(*row[:2], _text(row[2]), *row[3:5], numbers[row[5]]) for row in rows}
        before = {(*row[:2], _text(row[2]), *row[3:5], numbers[row[5]], numbers[row[6]]) for row in history}
        assert (len(told), len(before)) == (len(rows), len(history)), "no row twice"
        receipts = ask(
            "SELECT period, source, records_digest, deleted, inserted, taken_over, reverted_at IS NOT NULL"
            " FROM wdh_load ORDER BY load_id"
        )
    return {"rows": told, "receipts": receipts, "history": before}


def _text(rate: Decimal | None) -> str | None:
    return None if rate is None else str(rate)


def plan_of(folder: Path, wanted: Wanted, **changes: Any) -> Path:
    """Write the plan of a workbook."""
    one = load(
        period=wanted.period,
        source=wanted.source,
        workbook=wanted.workbook,
        digest=wanted.digest,
        mode=wanted.mode,
        replace=wanted.replace,
        overlap=wanted.overlap,
        max_delete_ratio=wanted.max_delete_ratio,
        keep_history=wanted.keep_history,
        **changes,
    )
    rows = [
        {**record(at, code, rate), "report_date": month}
        for at, ((month, code), rate) in enumerate(wanted.figures.items(), 2)
    ]
    return written(folder / f"{targets.digest_of(repr(wanted))}.sql", one, *rows)
