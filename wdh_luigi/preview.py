"""A workbook as the reader sees it, and as a domain's pipeline would take it; nothing is written but to a stream."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from wdh_luigi import spellings, targets, validate, workbook
from wdh_luigi.cells import Cell, ErrorCell, NumberCell
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import WorkbookError, one_line
from wdh_luigi.schema import Domain
from wdh_luigi.workbook import Profile
from wdh_luigi.workbook.book import Book, Row, Sheet
from wdh_luigi.workbook.headings import letters

_SIZED_BYTES = 1 << 20  # of a larger file only the sheet that is shown is read
_SHOWN = 5  # records, rejects
_SKIPPED = 20


def show(
    path: Path, open_book: workbook.OpenBook, wanted: str | None, head: int | None, as_json: bool, out: BinaryIO
) -> None:
    """
    Print a workbook's sheets and one sheet's rows.

    Args:
        wanted: the sheet, by name or index; None for the first visible worksheet.
        head: rows to print, or None for all.
        as_json: print one JSON document instead of text.
    Raises:
        WorkbookError: the workbook or the sheet cannot be read.
    """
    book = open_book(path, str(path))
    try:
        sheet = workbook.named(book.sheets, wanted, str(path)) if wanted is not None else _first(book, str(path))
        sheets = [_described(book, one, path) for one in book.sheets]
        rows = islice(book.rows(sheet.name), head)
        if as_json:
            _write_json(sheets, sheet.name, rows, out)
        else:
            _write_text(sheets, sheet.name, rows, out)
        out.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        pass
    finally:
        book.close()


def _first(book: Book, shown: str) -> Sheet:
    """Return the first worksheet that Excel shows, else the first."""
    worksheets = [sheet for sheet in book.sheets if sheet.kind == "worksheet"]
    if not worksheets:
        kinds = ", ".join(f"{sheet.name} ({sheet.kind})" for sheet in book.sheets)
        raise WorkbookError(shown, f"no worksheet; it has: {kinds or 'no sheets'}", "save its rows in a worksheet")
    return next((sheet for sheet in worksheets if not sheet.hidden), worksheets[0])


def _described(book: Book, sheet: Sheet, path: Path) -> dict[str, Any]:
    """Return a sheet's kind and size: its last row and its widest row's last column that hold a value."""
    described: dict[str, Any] = {"name": sheet.name, "kind": sheet.kind, "hidden": sheet.hidden}
    described |= {"rows": None, "columns": None}
    if sheet.kind == "worksheet" and path.stat().st_size <= _SIZED_BYTES:
        try:
            last, widest = 0, 0
            for number, row in book.rows(sheet.name):
                last, widest = number, max(widest, len(row))
            described |= {"rows": last, "columns": widest}
        except WorkbookError:  # of a sheet that perhaps nobody asked for
            pass
    return described


def _write_json(sheets: list[dict[str, Any]], name: str, rows: Iterator[Row], out: BinaryIO) -> None:
    out.write(b'{"sheets": %s, "sheet": %s, "rows": [' % (targets.dumps(sheets), targets.dumps(name)))
    between = b"\n"
    for number, row in rows:
        out.write(between + targets.dumps([number, [plain(cell) for cell in row]]))
        between = b",\n"
    out.write(b"\n]}\n")


def plain(cell: Cell) -> Any:
    """Return a cell as the JSON document holds it: a number bare, a date or time in ISO 8601, an error named."""
    if cell is None or isinstance(cell, (str, int, float)):
        return cell
    if isinstance(cell, NumberCell):
        return cell.value
    if isinstance(cell, ErrorCell):
        return {"error": cell.code}
    if isinstance(cell, timedelta):
        return f"PT{cell.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"
    return cell.isoformat()


def _write_text(sheets: list[dict[str, Any]], name: str, rows: Iterator[Row], out: BinaryIO) -> None:
    for at, sheet in enumerate(sheets):
        size = "" if sheet["rows"] is None else f", {sheet['rows']} rows x {sheet['columns']} columns"
        hidden = ", hidden" if sheet["hidden"] else ""
        mark = "*" if sheet["name"] == name else " "
        _line(out, f"{mark} {at}: {sheet['name']} ({sheet['kind']}{hidden}{size})")
    for number, row in rows:
        _line(out, f"{number:>7}  " + " | ".join(spellings.shown(cell) for cell in row))


def _line(out: BinaryIO, text: str) -> None:
    out.write(one_line(text).encode() + b"\n")


def show_domain(
    path: Path,
    open_book: workbook.OpenBook,
    wanted: str | None,
    domain: Domain,
    config: DomainConfig,
    month: date | None,
    out: BinaryIO,
) -> None:
    """
    Print what a domain's pipeline makes of a workbook: headings, fields, skipped rows, first records and rejects.

    Args:
        month: the period that the file's name gives.
    """
    sheet = config.sheet if wanted is None else wanted
    table = workbook.open_table(path, str(path), sheet, domain, open_book)
    try:
        rows = list(table.rows())
    finally:
        table.close()
    try:
        _write_headings(table.profile, out)
        _write_rows(table.profile, rows, domain, config, month, str(path), out)
        out.flush()
    except BrokenPipeError:
        pass


def _write_headings(profile: Profile, out: BinaryIO) -> None:
    found = profile.headings
    _line(out, f"sheet {profile.sheet}, headings in row {found.row}")
    for name, at in found.columns.items():
        unit = f", in {found.units[name]}" if found.units.get(name) else ""
        _line(out, f"  {letters(at):>3}  {found.texts[name]} -> {name}{unit}")
    if found.line_unit:
        _line(out, f"  amounts are in {found.line_unit}, as a line above the headings says")
    if found.ignored:
        _line(out, f"  ignored: {', '.join(found.ignored)}")


def _write_rows(
    profile: Profile,
    rows: list[Row],
    domain: Domain,
    config: DomainConfig,
    month: date | None,
    shown: str,
    out: BinaryIO,
) -> None:
    rejects: list[dict[str, Any]] = []
    rates = validate.rates(profile, config, domain, shown)
    reading = validate.with_rates(validate.reading(profile, config, domain, month, date.today()), rates)
    sorting = validate.Validation(domain, profile, config, reading, rejects.append)
    records = [record for record in list(sorting.accepted(rows)) if record["row"] not in sorting.outcome.conflicts]
    outcome = sorting.outcome
    for line in rates.guessed.values():
        _line(out, f"  {line}")
    counts = {"read": outcome.read, "accepted": outcome.accepted, "rejected": outcome.rejected}
    counts |= {"duplicate": outcome.duplicate, "skipped": profile.rows_skipped}
    _line(out, "rows: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    _write_some(out, "skipped", [_span(span) for span in profile.skipped], _SKIPPED)
    _write_some(out, "accepted", [_record(record, domain) for record in records], _SHOWN)
    _write_some(out, "rejected", [_reject(reject) for reject in rejects], _SHOWN)


def _write_some(out: BinaryIO, word: str, lines: list[str], most: int) -> None:
    for line in lines[:most]:
        _line(out, f"  {word} {line}")
    if len(lines) > most:
        _line(out, f"  … and {len(lines) - most} more {word}")


def _span(span: dict[str, int | str]) -> str:
    last = f" to {span['to']}" if span["to"] != span["row"] else ""
    return f"row {span['row']}{last}: {span['reason']}"


def _record(record: dict[str, Any], domain: Domain) -> str:
    values = ", ".join(f"{name}={'' if record[name] is None else record[name]}" for name in domain.columns)
    return f"row {record['row']}: {values}"


def _reject(reject: dict[str, Any]) -> str:
    where = f"cell {reject['cell']}" if reject["cell"] else f"row {reject['row']}"
    return f"{where} {reject['heading']} {reject['value']!r}: {reject['reason']}"
