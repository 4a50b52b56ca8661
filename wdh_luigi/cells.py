"""Cells as a workbook holds them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any, Generic, TypeVar

NEVER_COMPUTED = "formula never computed"
MERGED = "merged over "

# Quoted or escaped text, what is in brackets (colours, conditions, locales), and the character after _ or *, of which
# Excel shows a blank's width or a filling: a % there scales nothing.
_NOT_SHOWN = re.compile(r'"[^"]*"?|[\\_*].?|\[[^\]]*\]?', re.DOTALL)
# Two zeros before the decimal point, an exponent or a fraction, in a section without a code for a date or a time.
_ZEROS_FIRST = re.compile(r"(?!.*[dmyhs])[^.e/0]*0[^.e/0]*0", re.IGNORECASE | re.DOTALL)
# The same texts and fillings, whole, and every other character by itself.
_PARTS = re.compile(r'"[^"]*"?|[\\_*].?|\[[^\]]*\]?|.', re.DOTALL)
_PLACES = "0#?"
_WHOLE = "0#?,-+ ()$¥:"  # what may stand in a whole number's format by itself
_UNIT = re.compile(r"[%元千万百亿]")
_NO_UNIT = re.compile(r"人民币|rmb|cny|¥|\s", re.IGNORECASE)
# A comma behind the digits shows thousands, and a point that is only text shows tens or ten thousands.
_SCALES = re.compile(r"[0#?],+(?![0#?,])")
SCALED = "scaled"


@dataclass(frozen=True, slots=True)
class ErrorCell:
    """
    A cell that says nothing: it holds an Excel error such as ``#N/A``, a formula without a computed value
    (NEVER_COMPUTED), or a figure for several cells (MERGED and their range), of which ``typed`` keeps the text.
    """

    code: str
    typed: str = ""


@dataclass(frozen=True, slots=True)
class NumberCell:
    """
    A number whose number format says more than its value.

    A percentage ("0.00%"), zeros before it ("000000"), or a unit that is only text (``0.00"万元"``).
    """

    value: int | float
    format: str


Cell = None | bool | int | float | str | date | datetime | time | timedelta | ErrorCell | NumberCell
Row = tuple[int, list[Cell]]  # the number that Excel shows, and the cells from column A


_Said = TypeVar("_Said")
_REMEMBERED = 20_000  # texts
_LONG = 60  # characters, of a text that is not remembered


class Texts(dict[str, _Said], Generic[_Said]):
    """What is said of short texts, remembered: columns have many alike."""

    def __init__(self, function: Callable[[Cell], _Said]) -> None:
        self._function = function

    def __missing__(self, text: str) -> _Said:
        if len(self) >= _REMEMBERED:
            self.clear()
        said = self._function(text)
        if len(text) <= _LONG:
            self[text] = said
        return said

    def __call__(self, cell: Cell) -> _Said:
        return self[cell] if type(cell) is str else self._function(cell)


@cache
def format_matters(number_format: str) -> bool:
    """Tell whether a number format changes what a number means: a percentage, a unit, or a code padded with zeros."""
    sections = _NOT_SHOWN.sub("", number_format).split(";")[:3]  # a fourth one is for text
    return bool(shown_unit(number_format)) or any("%" in section or _ZEROS_FIRST.match(section) for section in sections)


@cache
def scales_percent(number_format: str) -> bool:
    """Tell whether a number format multiplies by 100 to show a percentage; a quoted % is only text."""
    return any("%" in section for section in _NOT_SHOWN.sub("", number_format).split(";")[:3])


@cache
def shown_unit(number_format: str) -> str:
    """
    Return the unit that a number format writes behind the number, without changing it: 5.5 in ``0.00"%"`` is 5.5%.

    SCALED where the number is not the one that is shown, as in ``#,##0,`` or ``0\\.0,"万"``, or the sections differ.
    """
    if scales_percent(number_format):
        return ""
    sections = number_format.replace("!", "\\").split(";")  # a Chinese Excel takes both for an escape
    found = {_section_unit(section) for section in sections[: 3 if "[" in number_format else 2]}
    return found.pop() if len(found) == 1 else SCALED


def _section_unit(section: str) -> str:
    parts = [part for part in _PARTS.findall(section) if part[0] not in "_*["]
    said = "".join(_literal(part) if part[0] in '"\\' else part if part not in _PLACES + ",." else "" for part in parts)
    bare = "".join(part for part in parts if len(part) == 1)
    if _SCALES.search(bare) or "." in said:
        return SCALED
    unit = _NO_UNIT.sub("", unicodedata.normalize("NFKC", said)).removeprefix("General").strip("+-()")
    return unit if _UNIT.search(unit) else ""


def with_zeros(digits: str, number_format: str) -> str:
    """
    Return a whole number's digits as its format shows them: 123 is 000123 in "000000", and P00123 in ``"P"00000``.

    A percentage's format, and one with decimals or without zeros, leaves them as they are.
    """
    parts = next((one for one in _sections(number_format) if "0" in one and "[?]" not in one), [])
    places = [part for part in parts if part in _PLACES]
    if not all(part in _WHOLE or len(part) > 1 for part in parts) or not places:
        return digits
    left, shown = digits.zfill(len(places) - places.index("0")), ""
    for part in reversed(parts):
        if part in _PLACES:
            del places[-1]
            cut = max(len(left) - 1, 0) if places else 0  # the place in front takes all that are left
            left, part = left[:cut], left[cut:]
            shown = part + shown
        else:
            shown = _literal(part) + shown
    return shown


def _sections(number_format: str) -> list[list[str]]:
    """Split a number format into its sections, each of texts, fillings, brackets and single characters."""
    sections: list[list[str]] = [[]]
    for part in _PARTS.findall(number_format):
        if part == ";":
            sections.append([])
        else:
            sections[-1].append("[?]" if part[:2] in ("[<", "[>", "[=") else part)
    return sections


def _literal(part: str) -> str:
    """Return what a part of a number format shows that is no digit."""
    if part[0] == '"':
        return part.strip('"')
    if part[0] == "\\":
        return part[1:]
    return "" if part[0] in "_*[," else part


def to_json(cell: Cell) -> Any:
    """Return a cell as JSON keeps it: plain where JSON has the type, else an object that names it."""
    if isinstance(cell, NumberCell):  # first: the most frequent by far
        return {"number": cell.value, "format": cell.format}
    if cell is None or isinstance(cell, (bool, int, float, str)):
        return cell
    if isinstance(cell, ErrorCell):
        return {"error": cell.code} | ({"typed": cell.typed} if cell.typed else {})
    if isinstance(cell, timedelta):
        return {"duration": cell.total_seconds()}
    return {_MOMENTS[type(cell)]: cell.isoformat()}


def row_to_json(row: list[Cell]) -> list[Any]:
    """Return a row's cells as JSON keeps them."""
    return [cell if type(cell) in PLAIN else to_json(cell) for cell in row]


def row_from_json(row: list[Any]) -> list[Cell]:
    """Return the cells that row_to_json made this of."""
    return [cell if type(cell) in PLAIN else from_json(cell) for cell in row]


# What JSON has a type for.
PLAIN: frozenset[type] = frozenset({type(None), bool, int, float, str})


def from_json(value: Any) -> Cell:
    """Return the cell that to_json made this of."""
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    if "error" in value:
        return ErrorCell(value["error"], value.get("typed", ""))
    if "number" in value:
        return NumberCell(value["number"], value["format"])
    if "duration" in value:
        return timedelta(seconds=value["duration"])
    (kind, text), *_ = value.items()
    moment = next(moment for moment, name in _MOMENTS.items() if name == kind)
    return moment.fromisoformat(text)


_MOMENTS: dict[type[date] | type[time], str] = {date: "date", datetime: "datetime", time: "time"}
