"""Cells as a workbook holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any

NEVER_COMPUTED = "formula never computed"

# Quoted or escaped text, what is in brackets (colours, conditions, locales), and the character after _ or *, of which
# Excel shows a blank's width or a filling: a % there scales nothing.
_NOT_SHOWN = re.compile(r'"[^"]*"?|[\\_*].?|\[[^\]]*\]?', re.DOTALL)
# Two zeros before the decimal point, an exponent or a fraction, in a section without a code for a date or a time.
_ZEROS_FIRST = re.compile(r"(?!.*[dmyhs])[^.e/0]*0[^.e/0]*0", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ErrorCell:
    """A cell that holds an Excel error such as ``#N/A``, or a formula without a computed value (NEVER_COMPUTED)."""

    code: str


@dataclass(frozen=True, slots=True)
class NumberCell:
    """A number whose number format says more than its value: a percentage ("0.00%"), or zeros before it ("000000")."""

    value: int | float
    format: str


Cell = None | bool | int | float | str | date | datetime | time | timedelta | ErrorCell | NumberCell


@cache
def format_matters(number_format: str) -> bool:
    """Tell whether a number format changes what a number means: a percentage, or a code padded with zeros."""
    sections = _NOT_SHOWN.sub("", number_format).split(";")[:3]  # a fourth one is for text
    return any("%" in section or _ZEROS_FIRST.match(section) for section in sections)


def to_json(cell: Cell) -> Any:
    """Return a cell as JSON keeps it: plain where JSON has the type, else an object that names it."""
    if cell is None or isinstance(cell, (bool, int, float, str)):
        return cell
    if isinstance(cell, ErrorCell):
        return {"error": cell.code}
    if isinstance(cell, NumberCell):
        return {"number": cell.value, "format": cell.format}
    if isinstance(cell, timedelta):
        return {"duration": cell.total_seconds()}
    return {_MOMENTS[type(cell)]: cell.isoformat()}


def from_json(value: Any) -> Cell:
    """Return the cell that to_json made this of."""
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    if "error" in value:
        return ErrorCell(value["error"])
    if "number" in value:
        return NumberCell(value["number"], value["format"])
    if "duration" in value:
        return timedelta(seconds=value["duration"])
    (kind, text), *_ = value.items()
    moment = next(moment for moment, name in _MOMENTS.items() if name == kind)
    return moment.fromisoformat(text)


_MOMENTS: dict[type[date] | type[time], str] = {date: "date", datetime: "datetime", time: "time"}
