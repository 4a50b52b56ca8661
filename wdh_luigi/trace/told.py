"""Each row of a key with its cells as typed, the rules that changed them, and its load: one document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from wdh_luigi import plan, spellings, validate, warehouse
from wdh_luigi.cells import NumberCell
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import DatabaseError
from wdh_luigi.schema import ORIGINAL_ROW, Domain
from wdh_luigi.trace.known import Cells, Known
from wdh_luigi.trace.rows import Table, Term, key_of, plain
from wdh_luigi.workbook.headings import letters


@dataclass(frozen=True)
class _Load:
    """What is known of a load: told, and the cells of its rows."""

    told: dict[str, Any]
    cells: Cells | None = None


def trace(
    connection: warehouse.Connection, domain: Domain, config: DomainConfig, asked: Sequence[Term], known: Known
) -> dict[str, Any]:
    """
    Tell where the rows of a key come from.

    Returns:
        One document: the key as understood; rows_found; of the first twenty rows each as it stands, its columns with
        their cells and rules; and their loads.
    Raises:
        DatabaseError: no table, or no such row; says what there is.
    """
    where = f"table {config.table}"
    with warehouse.looking(connection, where) as cursor:
        table = Table(cursor, plan.Place(domain.name, config.table, "", ""), key_of(domain, config))
        count = table.count(asked)
        if not count:
            raise DatabaseError(where, f"no row with {', '.join(map(str, asked))}", table.nearest(asked))
        rows = table.rows(asked)
        numbers = sorted({row["load_id"] for row in rows if row.get("load_id") is not None})
        receipts = {number: table.load(number) for number in numbers}
    loads = {number: _load(number, receipt, rows, known) for number, receipt in receipts.items()}
    return {
        "domain": domain.name,
        "table": config.table,
        "key": [{"column": one.column, "given": one.given, "value": one.value, "shown": str(one)} for one in asked],
        "rows_found": count,
        "rows": [_row(row, loads, domain) for row in rows],
        "loads": [one.told for one in loads.values()],
    }


def _load(number: int, receipt: dict[str, Any] | None, rows: Iterable[Mapping[str, Any]], known: Known) -> _Load:
    told: dict[str, Any] = {"load_id": number, "receipt": receipt, "plan": None, "sheet": None, "cells_from": None}
    if receipt is None:
        return _Load(told | {"unknown": "there is no receipt of it in wdh_load beside the table"})
    told["plan"] = known.plan_of(receipt)
    of_it = [row for row in rows if row.get("load_id") == number and _is_of(row, receipt)]
    found = known.cells(receipt, {row["workbook_row"] for row in of_it if row.get("workbook_row") is not None})
    if isinstance(found, str):
        return _Load(told | {"unknown": found})
    return _Load(told | {"sheet": found.profile.sheet, "cells_from": found.origin, "unknown": None}, found)


def _is_of(row: Mapping[str, Any], receipt: Mapping[str, Any]) -> bool:
    """Tell whether a row says itself that it came with a load: the receipts may be another table's."""
    return bool(row.get("data_source") == receipt["workbook"])


def _row(row: dict[str, Any], loads: Mapping[int, _Load], domain: Domain) -> dict[str, Any]:
    columns = [_column(name, row) for name in domain.columns]
    told = {"row": row, "columns": columns, "unknown": None, "rejected_now": [], "same_as_rows": []}
    told["original_row"] = None
    if row.get("load_id") is None:
        return told | {"unknown": "it has no load_id: no load by wdh_luigi put it there"}
    load = loads[row["load_id"]]
    receipt, at = load.told["receipt"], row.get("workbook_row")
    if receipt and not _is_of(row, receipt):
        what = f"its data_source is not the workbook of load {row['load_id']}, {receipt['workbook']}"
        return told | {"unknown": f"{what}: its cells are not known"}
    if load.cells is None:
        return told
    if at not in load.cells.rows:
        return told | {"unknown": f"row {at} is no data row of sheet {load.cells.profile.sheet}"}
    return told | _explained(row, at, load.cells, domain)


def _column(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    unknown: dict[str, Any] = {"cells": [], "rules": [], "value": None, "differs": None}
    return {"column": name, "in_table": row.get(name)} | unknown


def _explained(row: Mapping[str, Any], at: int, found: Cells, domain: Domain) -> dict[str, Any]:
    """Tell a row's columns with their cells and the rules that made their values, as the cleaning itself tells them."""
    cells, headings = found.rows[at], found.profile.headings
    said = validate.explain(domain, headings.columns, found.reading, cells)
    columns = []
    for name in domain.columns:
        parts = domain.names("period") if name == domain.period_field else [name]
        one = _column(name, row)
        one["cells"] = [_cell(part, at, found, said) for part in parts if part in headings.columns]
        one["rules"] = _rules(said.rules.get(name, [])) if name == domain.period_field else []
        if said.values is not None:
            value = said.values[name]
            one |= {"value": _text(value), "differs": not _same(value, row.get(name))}
        columns.append(one)
    original = _value_under(ORIGINAL_ROW, found, at)
    same = [one["row"] for one in found.duplicates if one["of"] == at]
    return {"columns": columns, "rejected_now": said.reasons, "same_as_rows": same, "original_row": original}


def _cell(part: str, at: int, found: Cells, said: validate.Explained) -> dict[str, Any]:
    column = found.profile.headings.columns[part]
    cells = found.rows[at]
    cell = cells[column] if column < len(cells) else None
    merges = (one for one in found.profile.merged if one[0] == column and one[1] <= at <= one[2])
    _, first, last = next(merges, (column, at, at))
    return {
        "cell": f"{letters(column)}{first}",
        "heading": found.profile.headings.texts[part],
        "typed": spellings.shown(cell),
        "is_text": isinstance(cell, str),
        "format": cell.format if isinstance(cell, NumberCell) else None,
        "merged": f"{letters(column)}{first}:{letters(column)}{last}" if last > first else None,
        "rules": _rules(said.rules.get(part, [])),
    }


def _value_under(heading: str, found: Cells, at: int) -> str | None:
    """Return what a row holds under a heading that is no field's."""
    texts, cells = found.profile.headings.row_texts, found.rows[at]
    column = texts.index(heading) if heading in texts else len(cells)
    return spellings.shown(cells[column]) if column < len(cells) else None


def _rules(found: Iterable[tuple[str, Any]]) -> list[dict[str, str | None]]:
    return [{"rule": rule, "value": _text(value)} for rule, value in found]


def _same(value: Any, held: Any) -> bool:
    """Tell whether the table holds the value that the cells give."""
    if isinstance(value, Decimal) and isinstance(held, (int, Decimal)):
        return value == held
    return bool(_text(value) == held)


def _text(value: Any) -> str | None:
    return None if value is None else plain(value)
