"""
What people type into cells, turned into exact values: ratios, amounts, codes and periods.

Every function takes one cell as read and returns its value, None for a blank, or raises ValueError with a reason
written for whoever typed the cell. Figures are Decimals made from the number's shortest text, never float arithmetic.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from wdh_luigi.cells import (
    MERGED,
    NEVER_COMPUTED,
    SCALED,
    Cell,
    ErrorCell,
    NumberCell,
    scales_percent,
    shown_unit,
    with_zeros,
)

BLANKS = frozenset({"", "-", "--", "—", "/", "n/a", "na", "无", "暂无", "不适用", "null", "none"})
TOTALS = frozenset({"合计", "总计", "小计", "共计", "total"})
FACTORS = {
    "元": Decimal(1),
    "千元": Decimal(1000),
    "万": Decimal(10**4),
    "万元": Decimal(10**4),
    "百万": Decimal(10**6),
    "百万元": Decimal(10**6),
    "亿": Decimal(10**8),
    "亿元": Decimal(10**8),
}
FIRST_YEAR = 2000

# Digits stand alone or in groups of three; the sign and the currency in either order.
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<currency>¥?)\s*(?P<sign2>[+-]?)"
    r"(?P<digits>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?P<exponent>e[+-]?[0-9]{1,3})?"
    r"\s*(?P<unit>[^0-9]*)",
    re.IGNORECASE,
)
_EXACT = Context(prec=400)
_LONGEST_NUMBER = 60  # characters; what is longer overflows every column there is
_MINUS = str.maketrans({"\u2212": "-"})
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # marks that nobody sees
_MOST_DIGITS = 15  # that Excel keeps of a number
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_PLAIN_PERCENT = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?%")
_IDEOGRAPH = re.compile("[\u3400-\u9fff]")  # part of a unit or of a word, and of no number
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")


class Telling:
    """
    The rules by which a cell became its value, taken down by the converters for whoever asks.

    Attributes:
        column: why bare numbers of the cell's column count what they count, or "".
        steps: each rule with the value that it gave, in order; the last one's is the cell's.
    """

    def __init__(self, column: str = "") -> None:
        self.column = column
        self.steps: list[tuple[str, Any]] = []

    def changed(self, rule: str, before: object, after: object) -> None:
        """Take down a rule where it made another value of a value."""
        if before != after and str(before) != str(after):
            self.steps.append((rule, after))

    def decided(self, rule: str, value: object) -> None:
        """Take down a rule that decides what a value means, also where it stays as it is."""
        if rule:
            self.steps.append((rule, value))


def normal(text: str, telling: Telling | None = None) -> str:
    """Return text in NFKC without spaces around it: ５．５％ is 5.5%, an ideographic space is a space."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if telling is not None:
        telling.changed("NFKC", text, plain)
        telling.changed("spaces around it dropped", plain, plain.strip())
    return plain.strip()


def is_blank(cell: Cell) -> bool:
    """Tell whether a cell says nothing: empty, or a spelling of "none". Zero is a value."""
    if cell is None:
        return True
    return isinstance(cell, str) and normal(cell).casefold() in BLANKS


def is_total(cell: Cell) -> bool:
    """Tell whether a cell marks a row of totals."""
    return isinstance(cell, str) and "".join(normal(cell).split()).rstrip(":").casefold() in TOTALS


def shown(cell: Cell) -> str:
    """Return a cell as a message or a reject shows it: the text as typed, a number as its shortest text."""
    if cell is None:
        return ""
    if isinstance(cell, ErrorCell):
        return cell.typed or cell.code
    if isinstance(cell, NumberCell):
        return str(cell.value)
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    return str(cell)


def to_ratio(cell: Cell, bare_is_percent: bool, places: int, telling: Telling | None = None) -> Decimal | None:
    """
    Convert a rate cell to a ratio: 0.055 is 5.5 %.

    Args:
        cell: number or text as read, for example 0.055, "5.5%", "(1.2%)".
        bare_is_percent: whether a number without a percent sign counts percent points.
        places: decimal places to round to, half up.
    Raises:
        ValueError: neither a number nor a percentage; says which.
    """
    if is_blank(cell):
        return None
    number, unit, currency = _figure(cell, "not a number or percentage", telling)
    if currency or unit not in ("", "%"):
        raise ValueError("not a number or percentage")
    in_percent = unit == "%" or (bare_is_percent and not shows_percent(cell))
    if in_percent:
        number = number.scaleb(-2, _EXACT)
    if telling is not None:
        how = "/100" if in_percent else "a ratio" if shows_percent(cell) else ""
        telling.decided(_unit_rule(cell, unit, telling, how), number)
    return _rounded(number, places, telling)


def to_amount(cell: Cell, factor: Decimal, places: int, telling: Telling | None = None) -> Decimal | None:
    """
    Convert a cell with money to 元.

    Args:
        cell: number or text as read, for example 12000000.5, "12,000,000.50", "3.5万".
        factor: what one of a bare number is worth in 元; a unit in the cell itself goes before.
        places: decimal places to round to, half up.
    """
    if is_blank(cell):
        return None
    number, unit, _ = _figure(cell, "not a number or amount", telling)
    if unit == SCALED and factor == 1:  # it counts 元, however it is shown
        unit = ""
    if unit == SCALED:
        raise ValueError("not a clear amount: its number format shows another number; type it with its unit")
    if unit and unit not in FACTORS:
        raise ValueError("not a number or amount" + (" (a percentage)" if unit == "%" else ""))
    factor = FACTORS[unit] if unit else factor
    number = _EXACT.multiply(number, factor)
    if telling is not None:
        telling.decided(_unit_rule(cell, unit, telling, f"×{factor:f}" if factor != 1 else ""), number)
    return _rounded(number, places, telling)


def to_unit_value(cell: Cell, places: int, telling: Telling | None = None) -> Decimal | None:
    """Convert a value per unit to 元; no unit but 元 makes sense."""
    if is_blank(cell):
        return None
    number, unit, _ = _figure(cell, "not a number", telling)
    if unit == SCALED:
        raise ValueError("not a clear number: its number format shows another; type it as text")
    if unit not in ("", "元"):
        raise ValueError(f"not a value per unit: {unit!r} is no unit of it")
    if telling is not None:
        telling.decided(_unit_rule(cell, unit, telling, ""), number)
    return _rounded(number, places, telling)


def bare_number(cell: Cell) -> Decimal | None:
    """Return the number in a cell that says nothing of its unit, in its text or its format; None for any other cell."""
    if type(cell) is str and ((plain := plain_number(cell)) is not None or _IDEOGRAPH.search(cell)):
        return plain
    try:
        if is_blank(cell) or shows_percent(cell):
            return None
        number, unit, currency = _figure(cell, "")
    except ValueError:
        return None
    return None if unit or currency else number


def plain_number(text: str) -> Decimal | None:
    """Return the number in a text of digits, with separators or without; None for most others, also if it is one."""
    if len(text) > _LONGEST_NUMBER or not (_GROUPED.fullmatch(text) or _PLAIN.fullmatch(text)):
        return None
    return Decimal(text.replace(",", ""))


def plain_percent(text: str) -> Decimal | None:
    """Return the ratio that a text of a few digits and a % means; None for most others, also if it is one."""
    return Decimal(text[:-1]).scaleb(-2) if text[-1:] == "%" and _PLAIN_PERCENT.fullmatch(text) else None


def shows_percent(cell: Cell) -> bool:
    """Tell whether a number's own format shows a percentage: such a number is a ratio, whatever its heading says."""
    return isinstance(cell, NumberCell) and scales_percent(cell.format)


def to_code(cell: Cell, longest: int, telling: Telling | None = None) -> str | None:
    """
    Convert a code to its normal form: upper case, without ``-``, ``_`` and spaces.

    Args:
        cell: text, or a number as Excel keeps it: 600001.0 is "600001", and "000123" where its format shows it so.
        longest: characters that the normal form may have.
    """
    if is_blank(cell):
        return None
    text = normal(cell, telling) if isinstance(cell, str) else _code_digits(cell, telling)
    bare = re.sub(r"[-_\s]", "", text.translate(_MINUS))
    code = normal(bare.upper())  # upper case may need composing again
    if telling is not None:
        telling.changed("-, _ and spaces dropped", text, bare)
        telling.changed("upper case", bare, code)
    strange = "" if code.isalnum() else next((char for char in code if not _is_of_codes(char)), "")
    if strange:
        raise ValueError(f"not a code: {strange!r} is no letter, digit or dot")
    if not code.strip("."):
        raise ValueError("not a code: no letter or digit")
    if len(code) > longest:
        raise ValueError(f"longer than {longest} characters ({len(code)})")
    return code


def to_period(cell: Cell, telling: Telling | None = None) -> date | None:
    """Convert a 报告期 cell to the first of its month: "2024年11月", 202411, "2024/11/30", "11月2024", a date."""
    if is_blank(cell):
        return None
    if isinstance(cell, date):
        first = first_of(cell.year, cell.month)
        if telling is not None:
            telling.changed("the first of its month", cell, first)
        return first
    text = _whole_text(cell, "not a period", telling)
    for form in _PERIODS:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            first = first_of(_year(parts["year"]), int(parts["month"]))
            _check_day(first, int(parts.get("day") or 1))
            if telling is not None:
                telling.changed("the first of its month", text, first)
            return first
    raise ValueError("not a period (expected one like 2024年11月, 202411 or 2024-11)")


def to_year(cell: Cell, telling: Telling | None = None) -> int | None:
    """Convert a cell under 年: 2024, "2024年", "24"."""
    if is_blank(cell):
        return None
    found = re.fullmatch(r"([0-9]{2}|[0-9]{4})\s*(?:年份?)?", _whole_text(cell, "not a year", telling))
    if found is None:
        raise ValueError("not a year (expected one like 2024)")
    year = first_of(_year(found[1]), 1).year
    if telling is not None:
        telling.changed("read as a year", found[0], year)
    return year


def to_month(cell: Cell, telling: Telling | None = None) -> int | None:
    """Convert a cell under 月: 11, "11月", "02"."""
    if is_blank(cell):
        return None
    found = re.fullmatch(r"([0-9]{1,2})\s*(?:月份?)?", _whole_text(cell, "not a month", telling))
    if found is None:
        raise ValueError("not a month (expected one of 1 to 12)")
    month = first_of(FIRST_YEAR, int(found[1])).month
    if telling is not None:
        telling.changed("read as a month", found[0], month)
    return month


def first_of(year: int, month: int) -> date:
    """Return the first of a month."""
    if not 1 <= month <= 12:
        raise ValueError(f"no month {month}")
    if year < FIRST_YEAR:
        raise ValueError(f"before the year {FIRST_YEAR}")
    return date(year, month, 1)


_PERIODS = [
    re.compile(form)
    for form in (
        r"(?P<year>[0-9]{4}|[0-9]{2})\s*年\s*(?P<month>[0-9]{1,2})\s*(?:月\s*(?:份|(?P<day>[0-9]{1,2})\s*日)?)?",
        r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})?",
        r"(?P<year>[0-9]{4})\s*(?P<dash>[-/])\s*(?P<month>[0-9]{1,2})(?:\s*(?P=dash)\s*(?P<day>[0-9]{1,2}))?"
        r"(?:[ T]00:00(?::00(?:\.0+)?)?)?",
        r"(?P<month>[0-9]{1,2})\s*月\s*(?P<year>[0-9]{4})\s*年?",
    )
]


def _refuse(cell: Cell, what: str) -> None:
    """Raise for a cell that can be no figure, code or period at all, in words for its sender."""
    if isinstance(cell, ErrorCell):
        if cell.code.startswith(MERGED):
            raise ValueError(f"{cell.code}: which of them is it of? (give every row its own cell)")
        mend = " (open the workbook in Excel and save it)" if cell.code == NEVER_COMPUTED else ""
        raise ValueError(f"{what}: the cell holds {cell.code}{mend}")
    if isinstance(cell, bool):
        raise ValueError(f"{what}: the cell holds {str(cell).upper()}")
    if isinstance(cell, (date, datetime, time, timedelta)):
        raise ValueError(f"{what}: the cell holds a date or time")


def _figure(cell: Cell, what: str, telling: Telling | None = None) -> tuple[Decimal, str, str]:
    """Return a figure's number, its unit as typed or shown ("" for a bare number), and its currency sign."""
    _refuse(cell, what)
    unit = ""
    if isinstance(cell, NumberCell):
        unit, cell = shown_unit(cell.format), cell.value
    if isinstance(cell, (int, float)):
        if not math.isfinite(cell):
            raise ValueError(what)
        return Decimal(repr(cell)), unit, ""
    typed = str(cell)
    plain = normal(typed, telling)
    text = plain.translate(_MINUS)
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"{what}: {len(text)} characters, and {_LONGEST_NUMBER} at most make a number")
    negative, text = _brackets(text)
    found = _NUMBER.fullmatch(text)
    signs = found["sign"] + found["sign2"] if found else ""
    if found is None or len(signs) + negative > 1 or _holds_footnote(typed):
        raise ValueError(what)
    number = Decimal(found["digits"].replace(",", "") + (found["exponent"] or ""))
    if negative or signs == "-":
        number = number.copy_negate()  # no unary minus: it rounds to 28 digits
    if telling is not None:
        telling.changed("U+2212 is a minus", plain, plain.translate(_MINUS))
        telling.decided(_number_rule(found, negative), number)
    return number, found["unit"].strip(), found["currency"]


def _number_rule(found: re.Match[str], bracketed: bool) -> str:
    """Say what a text holds beside the digits of its number, or "" where it is a plain one."""
    said = ["brackets mean a minus"] if bracketed else []
    said += ["thousands separators dropped"] if "," in found["digits"] else []
    said += [f"{found['currency']} dropped"] if found["currency"] else []
    is_plain = _PLAIN.fullmatch(found.string[: found.start("unit")].rstrip())
    return ", ".join(said) or ("" if is_plain else "read as a number")


def _unit_rule(cell: Cell, unit: str, telling: Telling, how: str) -> str:
    """Say what gives a figure its unit, the cell's text, its format or its column, and what that makes of it."""
    if isinstance(cell, NumberCell) and (unit or scales_percent(cell.format)):
        by = f"number format {cell.format}"
    else:
        by = f"{unit} in the text" if unit else telling.column
    return ": ".join(filter(None, (by, how)))


def _holds_footnote(typed: str) -> bool:
    """Tell whether a text holds ², ① or ½, of which NFKC would make digits: 5.5² is no 5.52."""
    return not typed.isascii() and any(unicodedata.category(char) == "No" for char in typed)


def _brackets(text: str) -> tuple[bool, str]:
    """Take an accountant's brackets off: "(5.5%)" and "(5.5)%" are negative."""
    found = re.fullmatch(r"(¥?\s*)\(([^()]*)\)\s*(\D*)", text)
    if found is None:
        return False, text
    return True, found[1] + found[2].strip() + found[3]


def _rounded(number: Decimal, places: int, telling: Telling | None = None) -> Decimal:
    if number.adjusted() > _LONGEST_NUMBER:
        raise ValueError("too large")
    rounded = number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP, context=_EXACT)
    if telling is not None:
        telling.changed(f"rounded half up to {places} decimals", number, rounded)
    return rounded.copy_abs() if rounded.is_zero() else rounded


def _is_of_codes(char: str) -> bool:
    """Tell whether a code may hold a character; marks belong to the letter before them, as vowels in some scripts."""
    kind = unicodedata.category(char)
    return char == "." or kind[0] in "LN" or (kind in ("Mn", "Mc") and not _SELECTORS.match(char))


def _code_digits(cell: Cell, telling: Telling | None) -> str:
    """Return a code that is a number, with the zeros that its format puts before it."""
    digits = _whole_text(cell, "not a code", telling)
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"over {_MOST_DIGITS} digits as a number: Excel keeps no more; type the code as text")
    if not isinstance(cell, NumberCell):
        return digits
    shown = with_zeros(digits, cell.format)
    if telling is not None:
        telling.changed(f"as its number format {cell.format} shows it", digits, shown)
    return shown


def _whole_text(cell: Cell, what: str, telling: Telling | None) -> str:
    """Return a text in normal form, or a whole number's digits."""
    _refuse(cell, what)
    if isinstance(cell, NumberCell):
        cell = cell.value
    if not isinstance(cell, (int, float)):
        return normal(str(cell), telling)
    if not math.isfinite(cell) or cell != int(cell) or cell < 0:
        raise ValueError(f"{what}: no whole number")
    if telling is not None:
        telling.changed("a whole number", str(cell), str(int(cell)))
    return str(int(cell))


def _year(digits: str) -> int:
    return int(digits) + (2000 if len(digits) == 2 else 0)


def _check_day(first: date, day: int) -> None:
    try:
        first.replace(day=day)
    except ValueError:
        raise ValueError(f"no day {day} in {first:%Y-%m}") from None


_HEADING_UNITS = (*sorted(FACTORS, key=len, reverse=True), "元/份", "%")
_LONGEST_HEADING = 100
_BRACKETED = re.compile(r"(.+?)[(\[【]([^()\[\]【】]+)[)\]】]")
_TRAILING = re.compile(rf"(.+?)[:/]?({'|'.join(_HEADING_UNITS)})")
_LINE_UNIT = re.compile(r"单位[:(\[\t]*(?=([^\s:,;、。()\[\]]+))")
_OF_UNITS = re.compile(r"[元币份%‰$€£点]|百分|bps?|usd|hkd|eur|jpy|[千万百亿]$")


def heading_parts(text: str) -> tuple[str, str]:
    """
    Split a heading into its name and its unit: 规模（万元） is ("规模", "万元").

    Headings are compared without any white space and line breaks, in lower case.
    """
    if len(text) > _LONGEST_HEADING:
        return text, ""
    name = _squeezed(text)
    if (found := _BRACKETED.fullmatch(name)) and (unit := heading_unit(found[2])):
        return found[1], unit
    if found := _TRAILING.fullmatch(name):
        return found[1], found[2]
    return name, ""


def heading_unit(text: str) -> str:
    """Return the unit that a text is and nothing else, as in 万元, (%) or 单位：人民币万元; "" where it is none."""
    unit = re.sub(r"^单位:?", "", _squeezed(text).strip("()[]【】"))
    unit = re.sub(r"人民币|rmb|cny", "", unit)
    return unit if unit in _HEADING_UNITS else ""


def foreign_unit(text: str) -> tuple[str, str]:
    """Split a heading with what seems a unit and is none that is known: 规模(万美元) is ("规模", "万美元")."""
    found = _BRACKETED.fullmatch(_squeezed(text)) if len(text) <= _LONGEST_HEADING else None
    return (found[1], found[2]) if found and not heading_unit(found[2]) and _OF_UNITS.search(found[2]) else ("", "")


def line_units(texts: Iterable[str]) -> set[str]:
    """
    Return the units of money that a line above the headings gives, as in 单位：万元, also in two cells.

    What seems a unit and is none that is known is returned too; 编制单位：长河养老 gives none.
    """
    found = {re.sub(r"人民币|rmb|cny", "", one) for one in _LINE_UNIT.findall("\t".join(map(_squeezed, texts)))}
    return {unit for unit in found if unit in FACTORS or re.fullmatch(r".{0,3}[元币]|[千万百亿]{1,2}", unit)}


def _squeezed(text: str) -> str:
    return "".join(normal(text).split()).casefold()
