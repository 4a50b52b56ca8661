"""
What people type into cells, turned into exact values: ratios, amounts, codes and periods.

Every function takes one cell as read and returns its value, None for a blank, or raises ValueError with a reason
written for whoever typed the cell. Figures are Decimals made from the number's shortest text, never float arithmetic.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache

from wdh_luigi.cells import NEVER_COMPUTED, Cell, ErrorCell, NumberCell

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
    r"(?P<sign>[+-]?)\s*¥?\s*(?P<sign2>[+-]?)"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?P<exponent>e[+-]?\d{1,3})?"
    r"\s*(?P<unit>\D*)",
    re.IGNORECASE,
)
_EXACT = Context(prec=400)
_LONGEST_NUMBER = 60  # characters; what is longer overflows every column there is
_MINUS = str.maketrans({"\u2212": "-"})


def normal(text: str) -> str:
    """Return text in NFKC without spaces around it: ５．５％ is 5.5%, an ideographic space is a space."""
    return unicodedata.normalize("NFKC", text).strip()


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
        return cell.code
    if isinstance(cell, NumberCell):
        return str(cell.value)
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    return str(cell)


def to_ratio(cell: Cell, bare_is_percent: bool, places: int) -> Decimal | None:
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
    number, unit = _figure(cell, "not a number or percentage")
    if unit not in ("", "%"):
        raise ValueError("not a number or percentage")
    if unit == "%" or (bare_is_percent and not shows_percent(cell)):
        number = number.scaleb(-2, _EXACT)
    return _rounded(number, places)


def to_amount(cell: Cell, factor: Decimal, places: int) -> Decimal | None:
    """
    Convert a cell with money to 元.

    Args:
        cell: number or text as read, for example 12000000.5, "12,000,000.50", "3.5万".
        factor: what one of a bare number is worth in 元; a unit in the cell itself goes before.
        places: decimal places to round to, half up.
    """
    if is_blank(cell):
        return None
    number, unit = _figure(cell, "not a number or amount")
    if unit and unit not in FACTORS:
        raise ValueError("not a number or amount" + (" (a percentage)" if unit == "%" else ""))
    return _rounded(_EXACT.multiply(number, FACTORS[unit] if unit else factor), places)


def to_unit_value(cell: Cell, places: int) -> Decimal | None:
    """Convert a value per unit to 元; no unit but 元 makes sense."""
    if is_blank(cell):
        return None
    number, unit = _figure(cell, "not a number")
    if unit not in ("", "元"):
        raise ValueError(f"not a value per unit: {unit!r} is no unit of it")
    return _rounded(number, places)


def bare_number(cell: Cell) -> Decimal | None:
    """Return the number in a cell that says nothing of its unit, in its text or its format; None for any other cell."""
    try:
        if is_blank(cell) or shows_percent(cell):
            return None
        number, unit = _figure(cell, "")
    except ValueError:
        return None
    return None if unit else number


def shows_percent(cell: Cell) -> bool:
    """Tell whether a number's own format shows a percentage: such a number is a ratio, whatever its heading says."""
    return isinstance(cell, NumberCell) and "%" in cell.format


def to_code(cell: Cell, longest: int) -> str | None:
    """
    Convert a code to its normal form: upper case, without ``-``, ``_`` and spaces.

    Args:
        cell: text, or a number as Excel keeps it: 600001.0 is "600001", and "000123" where its format shows it so.
        longest: characters that the normal form may have.
    """
    if is_blank(cell):
        return None
    text = normal(cell) if isinstance(cell, str) else _digits(cell)
    code = re.sub(r"[-_\s]", "", text.translate(_MINUS)).upper()
    for char in code:
        if not (char == "." or unicodedata.category(char)[0] in "LNM"):
            raise ValueError(f"not a code: {char!r} is no letter, digit or dot")
    if not code.strip("."):
        raise ValueError("not a code: no letter or digit")
    if len(code) > longest:
        raise ValueError(f"longer than {longest} characters ({len(code)})")
    return code


def to_period(cell: Cell) -> date | None:
    """Convert a 报告期 cell to the first of its month: "2024年11月", 202411, "2024/11/30", "11月2024", a date."""
    if is_blank(cell):
        return None
    if isinstance(cell, date):
        return _first_of(cell.year, cell.month)
    _refuse(cell, "not a period")
    if isinstance(cell, NumberCell):
        cell = cell.value
    text = _digits(cell) if isinstance(cell, (int, float)) else normal(str(cell))
    for form in _PERIODS:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            month, day = int(parts["month"]), int(parts.get("day") or 1)
            first = _first_of(_year(parts["year"]), month)
            _check_day(first, day)
            return first
    raise ValueError("not a period (expected one like 2024年11月, 202411 or 2024-11)")


def to_year_month(year: Cell, month: Cell) -> date | None:
    """Convert the cells under 年 and 月 to the first of the month; None where both are blank."""
    if is_blank(year) and is_blank(month):
        return None
    if is_blank(year) or is_blank(month):
        raise ValueError("年 without 月" if is_blank(month) else "月 without 年")
    return _first_of(_year(_part(year, "年", "year")), int(_part(month, "月", "month")))


_PERIODS = [
    re.compile(form)
    for form in (
        r"(?P<year>\d{4}|\d{2})\s*年\s*(?P<month>\d{1,2})\s*月?(?:份|\s*(?P<day>\d{1,2})\s*日)?",
        r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})?",
        r"(?P<year>\d{4})\s*[-/]\s*(?P<month>\d{1,2})(?:\s*[-/]\s*(?P<day>\d{1,2}))?(?:[ T]00:00(?::00(?:\.0+)?)?)?",
        r"(?P<month>\d{1,2})\s*月\s*(?P<year>\d{4})\s*年?",
    )
]


def _refuse(cell: Cell, what: str) -> None:
    """Raise for a cell that can be no figure, code or period at all, in words for its sender."""
    if isinstance(cell, ErrorCell):
        mend = " (open the workbook in Excel and save it)" if cell.code == NEVER_COMPUTED else ""
        raise ValueError(f"{what}: the cell holds {cell.code}{mend}")
    if isinstance(cell, bool):
        raise ValueError(f"{what}: the cell holds {str(cell).upper()}")
    if isinstance(cell, (date, datetime, time, timedelta)):
        raise ValueError(f"{what}: the cell holds a date or time")


def _figure(cell: Cell, what: str) -> tuple[Decimal, str]:
    """Return a figure's number and its unit as typed ("" for a bare number)."""
    _refuse(cell, what)
    if isinstance(cell, NumberCell):
        cell = cell.value
    if isinstance(cell, (int, float)):
        return Decimal(repr(cell)), ""
    text = normal(str(cell)).translate(_MINUS)
    negative, text = _brackets(text)
    found = _NUMBER.fullmatch(text)
    if found is None or (found["sign"] and found["sign2"]) or (negative and (found["sign"] or found["sign2"])):
        raise ValueError(what)
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"too long for a number ({len(text)} characters)")
    number = Decimal(found["digits"].replace(",", "") + (found["exponent"] or ""))
    negative = negative or "-" in (found["sign"], found["sign2"])
    return (-number if negative else number), found["unit"].strip()


def _brackets(text: str) -> tuple[bool, str]:
    """Take an accountant's brackets off: "(5.5%)" and "(5.5)%" are negative."""
    found = re.fullmatch(r"(¥?\s*)\(([^()]*)\)\s*(\D*)", text)
    if found is None:
        return False, text
    return True, found[1] + found[2].strip() + found[3]


def _rounded(number: Decimal, places: int) -> Decimal:
    if number.adjusted() > _LONGEST_NUMBER:
        raise ValueError("too large")
    rounded = number.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP, context=_EXACT)
    return abs(rounded) if rounded.is_zero() else rounded


def _digits(cell: Cell) -> str:
    """Return the digits of a whole number, with the zeros that its format puts before them."""
    _refuse(cell, "not a code")
    pattern = cell.format if isinstance(cell, NumberCell) else ""
    if isinstance(cell, NumberCell):
        cell = cell.value
    if not isinstance(cell, (int, float)) or cell != int(cell) or cell < 0:
        raise ValueError("not a whole number")
    digits = str(int(cell))
    if len(digits) > 15:
        raise ValueError("over 15 digits as a number: Excel keeps no more; type the code as text")
    return digits.zfill(len(pattern)) if re.fullmatch("0+", pattern) else digits


def _part(cell: Cell, mark: str, word: str) -> str:
    _refuse(cell, f"not a {word}")
    if isinstance(cell, NumberCell):
        cell = cell.value
    text = _digits(cell) if isinstance(cell, (int, float)) else normal(str(cell)).removesuffix("份")
    text = text.removesuffix(mark).strip()
    if not re.fullmatch(r"\d{1,2}|\d{4}" if word == "year" else r"\d{1,2}", text):
        raise ValueError(f"not a {word}")
    return text


def _year(digits: str) -> int:
    if len(digits) == 4:
        return int(digits)
    if len(digits) == 2:
        return 2000 + int(digits)
    raise ValueError("not a year")


def _first_of(year: int, month: int) -> date:
    if not 1 <= month <= 12:
        raise ValueError(f"no month {month}")
    if year < FIRST_YEAR:
        raise ValueError(f"before the year {FIRST_YEAR}")
    return date(year, month, 1)


def _check_day(first: date, day: int) -> None:
    try:
        first.replace(day=day)
    except ValueError:
        raise ValueError(f"no day {day} in {first:%Y-%m}") from None


@lru_cache(maxsize=4096)
def heading_parts(text: str) -> tuple[str, str]:
    """
    Split a heading into its name and its unit: 规模（万元） is ("规模", "万元").

    Headings are compared without any white space and line breaks, in lower case.
    """
    name = "".join(normal(text).split()).casefold()
    if found := re.fullmatch(r"(.+?)[(\[【]([^()\[\]【】]+)[)\]】]", name):
        unit = found[2].removeprefix("单位:").removeprefix("单位")
        if unit == "%" or unit in FACTORS:
            return found[1], unit
    if found := re.fullmatch(r"(.+?):?(%)", name):
        return found[1], found[2]
    return name, ""


def line_unit(text: str) -> str:
    """Return the unit of money that a line above the headings gives, as in 单位：万元; "" where it gives none."""
    found = re.search(
        r"单位[:(\[]*(?:人民币|rmb|cny)?[:(\[]*([千万百亿]{0,2}元)", "".join(normal(text).split()).casefold()
    )
    return found[1] if found and found[1] in FACTORS else ""
