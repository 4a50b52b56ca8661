"""The document of a trace as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from wdh_luigi.trace.rows import plain, short


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that tell a document of trace."""
    rows, found = document["rows"], document["rows_found"]
    key = ", ".join(one["shown"] for one in document["key"])
    some = f"; the first {len(rows)} of them" if found > len(rows) else ""
    yield f"table {document['table']}: {found} row{'s' if found != 1 else ''} with {key}{some}"
    for row in rows:
        yield ""
        yield from _row(row)
    for load in document["loads"]:
        yield ""
        yield f"load {load['load_id']}"
        yield from (f"  {line}" for line in _load(load))


def _row(told: dict[str, Any]) -> Iterator[str]:
    row = told["row"]
    for one in told["columns"]:
        cells = (", ".join(map(_cell, one["cells"])) + _chain(one["rules"])).strip()
        yield f"  {one['column']:<16} {short(plain(one['in_table'])):<14}  {cells}".rstrip()
        if one["differs"]:
            yield f"  {'':<16} the table holds {plain(one['in_table'])}, the cell gives {plain(one['value'])}"
    yield from (f"  these cells would be rejected now: {reason}" for reason in told["rejected_now"])
    yield from (f"  warning: {_spelt(warning)}" for warning in _warnings(row))
    shown = {one["column"] for one in told["columns"]} | {"validation_warnings"}
    rest = [f"{name} {short(_spelt(value))}" for name, value in row.items() if name not in shown]
    yield from [f"  {', '.join(rest)}"] if rest else []
    if told["original_row"]:
        yield f"  corrects row {told['original_row']} of its original"
    if told["same_as_rows"]:
        yield f"  the same stands in row {', '.join(map(str, told['same_as_rows']))}"
    if told["unknown"]:
        yield f"  {told['unknown']}"


def _load(told: dict[str, Any]) -> Iterator[str]:
    receipt = told["receipt"]
    if receipt is not None:
        sheet = f", sheet {told['sheet']}" if told["sheet"] is not None else ""
        yield f"workbook {receipt['workbook']}{sheet}, sha256 {receipt['workbook_sha256']}"
        yield f"begun {receipt['started_at']}, ended {receipt['finished_at']}"
        how = f"mode {receipt['mode']}, replace {receipt['replace']}, wdh_luigi {receipt['version']}"
        yield f"by {receipt['loaded_by']} from {receipt['client']}, {how}"
        yield f"plan {told['plan'] or 'not in this work directory'}, digest {receipt['plan_digest']}"
        for one in receipt["earlier"]:
            reverted = f", reverted {one['reverted_at']}" if one["reverted_at"] else ""
            yield f"before it in its place: load {one['load_id']}, {one['workbook']}, {one['finished_at']}{reverted}"
    yield f"cells {told['cells_from']}" if told["cells_from"] else told["unknown"]


def _cell(cell: dict[str, Any]) -> str:
    typed = repr(short(cell["typed"])) if cell["is_text"] else short(cell["typed"]) or "blank"
    shown = f" [{cell['format']}]" if cell["format"] else ""
    merged = f" (merged over {cell['merged']})" if cell["merged"] else ""
    return f"{cell['cell']} {cell['heading']} {typed}{shown}{merged}{_chain(cell['rules'])}"


def _chain(rules: list[dict[str, Any]]) -> str:
    return "".join(f" -> {short(plain(one['value']))} ({one['rule']})" for one in rules)


def _warnings(row: dict[str, Any]) -> list[Any]:
    said = row.get("validation_warnings") or []
    return said if isinstance(said, list) else [said]


def _spelt(value: Any) -> str:
    """Return a value of the row as people read it; what only JSON can spell (a column of anybody's) as JSON."""
    if value is None or isinstance(value, (str, Decimal)):
        return plain(value)
    return json.dumps(value, ensure_ascii=False, default=str)
