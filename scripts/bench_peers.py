"""
The peers of the benchmark, each a way to load one workbook: python bench_peers.py PEER WORKBOOK URI.

Each fills a table of its own name with the same rows under the same key, the first time and again over the same keys.
They know what only this workbook's data needs, and keep none of the product's promises: no targets, plans or receipts,
no rejects, no message to a sender.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg2

KEY = ("report_date", "plan_code", "company_code")
COLUMNS = {
    "report_date": "date",
    "plan_code": "varchar(50)",
    "company_code": "varchar(20)",
    "return_rate": "numeric(8,6)",
    "net_asset_value": "numeric(18,4)",
    "fund_scale": "numeric(18,2)",
}
PLACES = {"return_rate": 6, "net_asset_value": 4, "fund_scale": 2}
_BATCH = 10_000

Values = tuple[date, str, str, Decimal | None, Decimal | None, Decimal | None]


def floor(path: Path, uri: str) -> None:
    """Read with python-calamine, clean in one loop, replace the month, COPY: a script for this very workbook."""
    from python_calamine import CalamineWorkbook

    rows = CalamineWorkbook.from_path(path).get_sheet_by_index(0).iter_rows()
    next(rows)
    _replace_month(uri, "floor", ("\t".join(map(_copy_text, _cleaned(row))) + "\n" for row in rows))


def tight_floor(path: Path, uri: str) -> None:
    """Do the same with a streaming reader, column by column, each distinct cell once; PostgreSQL rounds numbers."""
    from python_calamine_plus import CalamineWorkbook

    rows = iter(CalamineWorkbook.from_path(str(path)).stream_sheet_by_index(0))
    next(rows)
    _replace_month(uri, "tight_floor", _tight_lines(rows))


def _tight_lines(rows: Iterator[list[Any]]) -> Iterator[str]:
    month, code, ratio, amount = cache(_month), cache(_code), cache(_ratio), _as_amount_text
    while batch := list(islice(rows, _BATCH)):
        years, months, plans, companies, rates, values, scales = zip(*batch, strict=True)
        columns = (
            [str(month(*pair)) for pair in zip(years, months, strict=True)],
            map(code, plans),
            map(code, companies),
            [str(ratio(one)) for one in rates],
            map(repr, values),
            map(amount, scales),
        )
        yield "".join(["\t".join(parts) + "\n" for parts in zip(*columns, strict=True)])


def _as_amount_text(cell: Any) -> str:
    return cell.replace(",", "") if type(cell) is str else repr(cell)


def _replace_month(uri: str, table: str, lines: Iterable[str]) -> None:
    with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(_definition(table))
        cursor.execute(f"DELETE FROM {table} WHERE report_date = '2024-11-01'")
        file: Any = _File(lines)
        cursor.copy_expert(f"COPY {table} FROM stdin", file)


def _definition(table: str) -> str:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({', '.join(KEY)}))"


class _File:
    """Lines as a file that COPY reads."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)

    def read(self, size: int = 8192) -> bytes:
        """Return about so many bytes: COPY takes what it is given."""
        parts, length = [], 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if length >= size:
                break
        return "".join(parts).encode()


def _cleaned(row: list[Any]) -> Values:
    year, month, plan, company, rate, value, scale = row
    return _month(year, month), _code(plan), _code(company), _ratio(rate), _value(value), _amount(scale)


def _month(year: Any, month: Any) -> date:
    return date(int(year), int(month), 1)


def _code(cell: str) -> str:
    return cell.strip().upper().replace("-", "").replace("_", "").replace(" ", "")


def _ratio(cell: Any) -> Decimal | None:
    if isinstance(cell, str):
        return _rounded(Decimal(cell.removesuffix("%")).scaleb(-2), 6) if cell else None
    return _rounded(Decimal(repr(cell)), 6)


def _value(cell: Any) -> Decimal | None:
    return None if cell == "" else _rounded(Decimal(repr(cell)), 4)


def _amount(cell: Any) -> Decimal | None:
    if isinstance(cell, str):
        return _rounded(Decimal(cell.replace(",", "")), 2) if cell else None
    return _rounded(Decimal(repr(cell)), 2)


_UNITS = {places: Decimal(1).scaleb(-places) for places in (2, 4, 6)}


def _rounded(number: Decimal, places: int) -> Decimal:
    return number.quantize(_UNITS[places], ROUND_HALF_UP)


def _copy_text(value: Any) -> str:
    return r"\N" if value is None else str(value)


def dlt_fastest(path: Path, uri: str) -> None:
    """Load with dlt: fastexcel, polars expressions, an arrow table, merge on the key."""
    import fastexcel
    import polars

    raw = fastexcel.read_excel(path).load_sheet(0, dtypes={4: "string", 6: "string"}).to_polars()
    year, month, plan, company, rate, value, scale = (polars.col(name) for name in raw.columns)
    percent = rate.str.ends_with("%")
    number = rate.str.strip_suffix("%").cast(polars.Float64)
    cleaned = raw.select(
        report_date=polars.date(year.cast(polars.Int32), month.cast(polars.Int32), 1),
        plan_code=_polars_code(plan),
        company_code=_polars_code(company),
        return_rate=_decimal(polars.when(percent).then(number / 100).otherwise(number), 8, 6),
        net_asset_value=_decimal(value, 18, 4),
        fund_scale=_decimal(scale.str.replace_all(",", "", literal=True).cast(polars.Float64), 18, 2),
    )
    _run_dlt("dlt_fastest", uri, cleaned.to_arrow())


def _decimal(column: Any, digits: int, places: int) -> Any:
    import polars

    return column.round(places, mode="half_away_from_zero").cast(polars.Decimal(digits, places))


def _polars_code(column: Any) -> Any:
    return column.str.strip_chars().str.to_uppercase().str.replace_all("[-_ ]", "")


def dlt_default(path: Path, uri: str) -> None:
    """Load with dlt's defaults: openpyxl's rows as dicts, merge on the key."""
    _run_dlt("dlt_default", uri, (dict(zip(COLUMNS, _cleaned(row), strict=True)) for row in _openpyxl_rows(path)))


def _openpyxl_rows(path: Path) -> Iterator[list[Any]]:
    import openpyxl

    sheet: Any = openpyxl.load_workbook(path, read_only=True).active
    for row in islice(sheet.iter_rows(values_only=True), 1, None):
        yield ["" if cell is None else cell for cell in row]


def _run_dlt(name: str, uri: str, rows: Any) -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt

    hints: Any = {
        column: {"data_type": "decimal", "precision": int(kind[8:].split(",")[0]), "scale": PLACES[column]}
        for column, kind in COLUMNS.items()
        if column in PLACES
    }
    hints["report_date"] = {"data_type": "date"}
    resource = dlt.resource(rows, name=name, primary_key=KEY, write_disposition="merge", columns=hints)
    pipeline = dlt.pipeline(name, destination=dlt.destinations.postgres(_as_url(uri)), dataset_name="dlt")
    pipeline.run(resource).raise_on_failed_jobs()


def _as_url(uri: str) -> str:
    """Return a socket's libpq URI with all of its parts, as dlt wants them."""
    parts = psycopg2.extensions.parse_dsn(uri)
    host, user, name = parts["host"], parts.get("user", ""), parts["dbname"]
    return f"postgresql://{user}:none@localhost:{parts.get('port', 5432)}/{name}?host={host}"


def pandas_rows(path: Path, uri: str) -> None:
    """Read with pandas, validate a pydantic model per row, load with execute_values."""
    import pandas
    from psycopg2.extras import execute_values
    from pydantic import BaseModel

    class Row(BaseModel):
        report_date: date
        plan_code: str
        company_code: str
        return_rate: Decimal | None
        net_asset_value: Decimal | None
        fund_scale: Decimal | None

    frame = pandas.read_excel(path)
    rows = [
        Row(**dict(zip(COLUMNS, _cleaned(["" if pandas.isna(cell) else cell for cell in row]), strict=True)))
        for row in frame.astype(object).itertuples(index=False, name=None)
    ]
    changed = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEY)
    upsert = f"INSERT INTO pandas_rows VALUES %s ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET {changed}"
    with psycopg2.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute(_definition("pandas_rows"))
        execute_values(cursor, upsert, [tuple(row.model_dump().values()) for row in rows])


PEERS: dict[str, Callable[[Path, str], None]] = {
    peer.__name__: peer for peer in (floor, tight_floor, dlt_fastest, dlt_default, pandas_rows)
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
