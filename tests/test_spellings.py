"""Every spelling of a cell: the exact value, or the reason for its sender; properties start from a known value."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from wdh_luigi import cells, spellings
from wdh_luigi.cells import MERGED, NEVER_COMPUTED, ErrorCell, NumberCell

BLANK = ["", " ", "\u3000", "\xa0", "-", "－", "--", "—", "/", "／", "N/A", "n/a", "Ｎ／Ａ", "NA", "无", "暂无"]
BLANK += ["不适用", "null", "NULL", "None", " 无 ", None]
EXACT = Context(prec=500)

# No figure at all, whatever the field.
NO_NUMBER: list[Any] = [
    *[
        "abc",
        "待定",
        "12,34",
        "1,2345",
        "1,234,56",
        "0,123",
        ",123",
        "1,23,456",
        "12,345,6",
        "1,234.5,6",
        "1.2.3",
        "5,",
    ],
    *[
        "--5",
        "+-5",
        "-+5",
        "5-",
        "(-5)",
        "(+5)",
        "-(5)",
        "((5))",
        "(5",
        "5)",
        "()",
        "5%%",
        "%5",
        "5%5",
        "(5%)%",
        "5.5‰",
    ],
    *[
        "５．５．",
        "5 5",
        "5\n6",
        "1 234",
        "1_000",
        "0x10",
        "1e",
        "e5",
        "1e1.5",
        "1e5000",
        "5e5e5",
        "+",
        ".",
        "---",
        "——",
    ],
    *["5.5²", "①", "½", "⑸", "٣", "–5", "—5", "¥", "¥¥5", "¥(¥5)", "2024-11", "1/2", "N.A.", "#N/A"],
    *["nan", "NaN", "inf", "-inf", "Infinity", "∞", "\x00", "5\x00", "\x005", "5.5😀", "😀", "\ud800", "5\udfff"],
    *["\u200f5.5", "5\u200e.5", "5.5\u202e", "\u200b5", "\ufeff5"],
    *[True, False, date(2024, 11, 1), datetime(2024, 11, 1, 5), time(5), timedelta(1)],
    *[float("nan"), float("inf"), float("-inf"), NumberCell(float("inf"), "0%"), ErrorCell("#N/A")],
]
TOO_MUCH = ["9" * 400, "1" * 32_767, "x" * 32_767, "1" + " " * 32_765 + "1", "-" + " " * 32_765 + "x", "(" * 32_767]


def ratio(cell: Any, bare_is_percent: bool = False) -> Decimal | None:
    return spellings.to_ratio(cell, bare_is_percent, 6)


def amount(cell: Any, factor: str = "1") -> Decimal | None:
    return spellings.to_amount(cell, Decimal(factor), 2)


def unit_value(cell: Any) -> Decimal | None:
    return spellings.to_unit_value(cell, 4)


def refusal(convert: Callable[[], Any]) -> str:
    """Return why a cell is refused."""
    try:
        return f"accepted as {convert()!r}"
    except ValueError as error:
        return str(error)


FIGURES = [ratio, amount, unit_value]


@pytest.mark.parametrize("convert", [*FIGURES, lambda cell: spellings.to_code(cell, 50), spellings.to_period])
@pytest.mark.parametrize("cell", BLANK)
def test_a_blank_has_many_spellings(cell: Any, convert: Any) -> None:
    """What says that there is nothing is nothing, in any width."""
    assert convert(cell) is None


@pytest.mark.parametrize("convert", FIGURES)
@pytest.mark.parametrize("cell", [0, 0.0, -0.0, "0", "0.00", "－0", "¥0", "(0)"])
def test_zero_is_a_value(cell: Any, convert: Any) -> None:
    """A plan that earned nothing is no plan without figures; and zero has no sign."""
    if convert is not ratio or "¥" not in str(cell):
        assert str(convert(cell)) in ("0.000000", "0.0000", "0.00")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("5.5%", "0.055000"),
        ("５．５％", "0.055000"),
        ("5.5 %", "0.055000"),
        ("\u30005.5%\xa0", "0.055000"),
        ("(5.5%)", "-0.055000"),
        ("（5.5％）", "-0.055000"),
        ("(5.5)%", "-0.055000"),
        ("-5.5%", "-0.055000"),
        ("\u22125.5%", "-0.055000"),
        ("－5.5%", "-0.055000"),
        ("﹣5.5%", "-0.055000"),
        ("+5.5%", "0.055000"),
        ("- 5.5%", "-0.055000"),
        ("1,234.5%", "12.345000"),
        (".5%", "0.005000"),
        ("5.%", "0.050000"),
        ("0.055", "0.055000"),
        ("5.5e-2", "0.055000"),
        (0.055, "0.055000"),
        (-1, "-1.000000"),
        (NumberCell(0.055, "0.00%"), "0.055000"),
        ("0.00005%", "0.000001"),
        ("0.00004999%", "0.000000"),
        (0.0000005, "0.000001"),
        (-0.0000005, "-0.000001"),
        ("-0.0000004999999999999999999999999999999999", "0.000000"),
    ],
)
def test_a_rate_is_a_ratio(cell: Any, value: str) -> None:
    """One rate, many spellings; half is rounded away from zero, once."""
    assert value == str(ratio(cell))


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (5.5, "0.055000"),
        ("5.5", "0.055000"),
        ("(5.5)", "-0.055000"),
        ("5.5%", "0.055000"),
        (NumberCell(0.055, "0.00%"), "0.055000"),
        (NumberCell(5.5, '000.0"%"'), "0.055000"),
        (NumberCell(5.5, "000.0"), "0.055000"),
    ],
)
def test_percent_points_count_where_nothing_says_percent(cell: Any, value: str) -> None:
    """A % in the text or the format is nearer to the number than its heading; a quoted % is only text."""
    assert value == str(ratio(cell, bare_is_percent=True))


@pytest.mark.parametrize(
    ("cell", "factor", "value"),
    [
        (12000000.5, "1", "12000000.50"),
        ("12,000,000.50", "1", "12000000.50"),
        ("￥12,000,000.50", "1", "12000000.50"),
        ("¥ 5", "1", "5.00"),
        ("-¥5", "1", "-5.00"),
        ("¥-5", "1", "-5.00"),
        ("¥(5)", "1", "-5.00"),
        ("(¥5)", "1", "-5.00"),
        ("3.5万", "1", "35000.00"),
        ("３．５万元", "1", "35000.00"),
        ("3.5 万", "1", "35000.00"),
        ("(3.5万)", "1", "-35000.00"),
        ("1.2亿", "1", "120000000.00"),
        ("1.2亿元", "10000", "120000000.00"),
        ("2百万", "1", "2000000.00"),
        ("2千元", "1", "2000.00"),
        ("5元", "10000", "5.00"),
        (5, "10000", "50000.00"),
        ("¥5", "10000", "50000.00"),
        (0.1 + 0.2, "1", "0.30"),
        (2.675, "1", "2.68"),
        ("1e5", "1", "100000.00"),
        ("1e-400", "1", "0.00"),
        (1e22, "1", "10000000000000000000000.00"),
    ],
)
def test_an_amount_is_in_yuan(cell: Any, factor: str, value: str) -> None:
    """A unit in the cell goes before the heading's; a currency sign is no unit."""
    assert value == str(amount(cell, factor))


@pytest.mark.parametrize(
    ("cell", "value"),
    [(1.05, "1.0500"), ("1.0512", "1.0512"), ("¥1,234.56", "1234.5600"), ("1.05元", "1.0500"), (1.00005, "1.0001")],
)
def test_a_value_per_unit_is_never_scaled(cell: Any, value: str) -> None:
    """A price has no unit but 元."""
    assert value == str(unit_value(cell))


@pytest.mark.parametrize("convert", FIGURES)
@pytest.mark.parametrize("cell", NO_NUMBER + TOO_MUCH, ids=lambda cell: ascii(cell)[:30])
def test_what_is_no_number_is_refused(cell: Any, convert: Any) -> None:
    """A near miss is never read as something near it; one short line says so, and at once."""
    reason = refusal(lambda: convert(cell))
    assert reason.startswith(("not a", "too large"))
    assert len(reason) < 120


@pytest.mark.parametrize(
    ("convert", "cell", "reason"),
    [
        (ratio, "abc", "not a number or percentage"),
        (ratio, "5.5元", "not a number or percentage"),
        (ratio, "¥5.5", "not a number or percentage"),
        (ratio, "5.5万", "not a number or percentage"),
        (amount, "abc", "not a number or amount"),
        (amount, "5.5%", "not a number or amount (a percentage)"),
        (amount, "5.5美元", "not a number or amount"),
        (unit_value, "abc", "not a number"),
        (unit_value, "5.5万", "not a value per unit: '万' is no unit of it"),
        (unit_value, "5.5%", "not a value per unit: '%' is no unit of it"),
        (ratio, True, "not a number or percentage: the cell holds TRUE"),
        (amount, date(2024, 11, 1), "not a number or amount: the cell holds a date or time"),
        (unit_value, ErrorCell("#DIV/0!"), "not a number: the cell holds #DIV/0!"),
        (
            ratio,
            ErrorCell(NEVER_COMPUTED),
            "not a number or percentage: the cell holds formula never computed"
            " (open the workbook in Excel and save it)",
        ),
        (
            amount,
            ErrorCell(MERGED + "E3:E5", "0.5"),
            "merged over E3:E5: which of them is it of? (give every row its own cell)",
        ),
        (amount, "1e400", "too large"),
        (amount, "9" * 61, "not a number or amount: 61 characters, and 60 at most make a number"),
    ],
)
def test_a_figure_is_refused_in_words_for_its_sender(convert: Any, cell: Any, reason: str) -> None:
    """Whoever typed it must see what is wrong with it."""
    assert reason == refusal(lambda: convert(cell))


# Properties: a known number, one of its spellings, the number again.

DECIMALS = st.builds(
    lambda digits, places, sign: Decimal(digits).scaleb(-places, EXACT) * sign,
    st.integers(0, 10**20) | st.integers(0, 10**6),
    st.integers(0, 12),
    st.sampled_from([1, -1]),
)
SPACES = st.sampled_from(["", "", " ", "\xa0", "\u3000", "\u2003", "\n"])


def rounded(number: Decimal, places: int) -> Decimal:
    """Round as Python's decimal does, half up; zero without a sign."""
    found = number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, EXACT)
    return abs(found) if found == 0 else found


def wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


@st.composite
def spelt(draw: Any, number: Decimal, suffix: str = "", currency: bool = True) -> str:
    """Spell a number as people do."""
    grouped = draw(st.booleans())
    text = f"{abs(number):,f}" if grouped else f"{abs(number):f}"
    if "." in text and draw(st.booleans()):
        text += "0" * draw(st.integers(0, 3))
    if text.startswith("0.") and draw(st.booleans()):
        text = text[1:]
    sign = draw(st.sampled_from(["¥", "￥", "¥ ", ""])) if currency else ""
    text = sign + text
    space = draw(st.sampled_from(["", " ", "\xa0", "\u3000"])) if suffix else ""
    if number.is_signed():
        style = draw(st.sampled_from(["-", "\u2212", "－", "﹣", "- ", "()", "（）", "(unit)"]))
        if style in ("()", "（）"):
            text = style[0] + text + style[1] + space + suffix
        elif style == "(unit)":
            text = f"({text}{space}{suffix})"
        else:
            text = style + text + space + suffix
    else:
        text = draw(st.sampled_from(["", "+"])) + text + space + suffix
    if draw(st.booleans()):
        text = wide(text)
    return str(draw(SPACES) + text + draw(SPACES))


@given(st.data(), DECIMALS)
def test_every_spelling_of_a_percentage_is_its_ratio(data: Any, percent: Decimal) -> None:
    """Truth first: the number, then a spelling, then the number again."""
    truth = rounded(percent.scaleb(-2, EXACT), 6)
    assert truth == ratio(data.draw(spelt(percent, "%", currency=False)))
    assert truth == ratio(data.draw(spelt(percent, currency=False)), bare_is_percent=True)
    assert rounded(percent, 6) == ratio(data.draw(spelt(percent, currency=False)))


@given(st.data(), DECIMALS, st.sampled_from(["", *spellings.FACTORS]), st.sampled_from(["元", "万元", "亿元"]))
def test_every_spelling_of_an_amount_is_its_yuan(data: Any, number: Decimal, unit: str, heading: str) -> None:
    """The cell's own unit, else the heading's."""
    factor = spellings.FACTORS[unit or heading]
    truth = rounded(EXACT.multiply(number, factor), 2)
    assert truth == spellings.to_amount(data.draw(spelt(number, unit)), spellings.FACTORS[heading], 2)


@given(st.data(), DECIMALS, st.sampled_from(["", "元"]))
def test_every_spelling_of_a_value_per_unit_is_itself(data: Any, number: Decimal, unit: str) -> None:
    """A price is a number with or without 元."""
    assert rounded(number, 4) == unit_value(data.draw(spelt(number, unit)))


@given(st.text("0123456789.,-+ ()eE%￥¥元万约５．", max_size=8) | st.text(max_size=8))
def test_a_bare_number_is_one_without_unit_and_currency(text: str) -> None:
    """Most texts are known at a glance; the glance says what a look would say."""
    try:
        number, unit, currency = spellings._figure(text, "")
        expected = None if unit or currency or spellings.is_blank(text) else number
    except ValueError:
        expected = None
    assert repr(expected) == repr(spellings.bare_number(text))


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e40, max_value=1e40))
@example(0.1 + 0.2)
@example(1.005)
@example(5e-324)
def test_a_number_cell_counts_as_its_shortest_text(number: float) -> None:
    """Excel shows 1.005 as it was typed; binary arithmetic would make 1.00 of it."""
    assert rounded(Decimal(repr(number)), 2) == amount(number)
    assert rounded(Decimal(repr(number)), 6) == ratio(number)


@given(st.text(alphabet="0123456789.,-+()%¥eE 万亿元٣²x\u200f", max_size=12))
def test_what_is_accepted_is_what_it_looks_like(text: str) -> None:
    """Of any jumble, what is taken for a number holds one sign, one point and well-placed separators."""
    try:
        number = spellings.to_amount(text, Decimal(1), 2)
    except ValueError:
        return
    if number is None:
        assert spellings.is_blank(text)
        return
    bare = text.translate({ord(char): None for char in "+-()¥万亿元 "})
    whole = bare.lower().split("e")[0].split(".")[0]
    assert whole == "" or "," not in whole or f"{int(whole.replace(',', '')):,}" == whole
    assert bare.count(".") <= 1
    assert text.count("-") <= 1 + ("e-" in text.lower())
    assert abs(float(bare.replace(",", ""))) < 1e62


@given(st.text())
@example("\ud800")
@example("\x00" * 40)
def test_any_text_is_a_value_or_refused_in_words(text: str) -> None:
    """Nothing but ValueError leaves a converter, and its words can be printed."""
    for convert in (ratio, amount, unit_value, lambda cell: spellings.to_code(cell, 50), spellings.to_period):
        try:
            convert(text)
        except ValueError as error:
            str(error).encode()
    spellings.heading_parts(text)
    spellings.line_units([text])


# Codes


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("P1", "P1"),
        (" p-1_2 3 ", "P123"),
        ("Ｐ－１", "P1"),
        ("P\u22121", "P1"),
        ("A.1", "A.1"),
        ("计划１号", "计划1号"),
        ("пл1", "ПЛ1"),
        ("क़ि", unicodedata.normalize("NFKC", "क़ि")),
        ("straße", "STRASSE"),
        (600001, "600001"),
        (600001.0, "600001"),
        (0, "0"),
        (123456789012345, "123456789012345"),
        ("12345678901234567890", "12345678901234567890"),
        ("000123", "000123"),
        (NumberCell(123, "000000"), "000123"),
        (NumberCell(123.0, "000000"), "000123"),
        (NumberCell(1234567, "000000"), "1234567"),
        (NumberCell(123, "000000_ "), "000123"),
        (NumberCell(123, "000000;-000000"), "000123"),
        (NumberCell(123, '[=0]"-";000000'), "000123"),
        (NumberCell(123, '"P"00000'), "P00123"),
        (NumberCell(123456, "000-000"), "123456"),
        (NumberCell(123, "#000"), "123"),
        (NumberCell(600001, "0.00%"), "600001"),
        (NumberCell(123, "00.00"), "123"),
    ],
)
def test_a_code_has_one_form(cell: Any, code: str) -> None:
    """Codes are the key: what a person takes for one must be one."""
    assert code == spellings.to_code(cell, 50)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("P*1", "not a code: '*' is no letter, digit or dot"),
        ("P\x001", "not a code: '\\x00' is no letter, digit or dot"),
        ("P\u200f1", "not a code: '\\u200f' is no letter, digit or dot"),
        ("P\ud8001", "not a code: '\\ud800' is no letter, digit or dot"),
        ("P😀", "not a code: '😀' is no letter, digit or dot"),
        ("P1\ufe0f", "not a code: '️' is no letter, digit or dot"),
        ("1\u20e3", "not a code: '⃣' is no letter, digit or dot"),
        ("6.00001E+05", "not a code: '+' is no letter, digit or dot"),
        ("...", "not a code: no letter or digit"),
        ("_ _", "not a code: no letter or digit"),
        ("x" * 51, "longer than 50 characters (51)"),
        ("x" * 32_767, "longer than 50 characters (32767)"),
        (1234567890123456, "over 15 digits as a number: Excel keeps no more; type the code as text"),
        (1e15, "over 15 digits as a number: Excel keeps no more; type the code as text"),
        (NumberCell(1e15, "0" * 20), "over 15 digits as a number: Excel keeps no more; type the code as text"),
        (600001.5, "not a code: no whole number"),
        (-5, "not a code: no whole number"),
        (float("nan"), "not a code: no whole number"),
        (float("inf"), "not a code: no whole number"),
        (True, "not a code: the cell holds TRUE"),
        (date(2024, 11, 1), "not a code: the cell holds a date or time"),
        (ErrorCell("#REF!"), "not a code: the cell holds #REF!"),
    ],
)
def test_what_is_no_code_is_refused(cell: Any, reason: str) -> None:
    """A wrong key is worse than a missing row."""
    assert reason == refusal(lambda: spellings.to_code(cell, 50))


@pytest.mark.parametrize(("text", "fits"), [("x" * 50, True), ("x-" * 50, True), ("x" * 51, False), ("ß" * 26, False)])
def test_a_code_is_measured_in_its_normal_form(text: str, fits: bool) -> None:
    """Dashes do not count, and two letters in place of one do."""
    assert refusal(lambda: spellings.to_code(text, 50)).startswith("accepted" if fits else "longer than 50 characters")


@given(st.text(alphabet=st.characters(categories=["L", "N", "Mn", "Mc"]) | st.sampled_from("-_ .\u3000"), max_size=30))
@example("ΐ")
def test_the_normal_form_of_a_code_is_its_own(text: str) -> None:
    """A code read back from the table, or typed in another case or width, is the same code."""
    try:
        code = spellings.to_code(text, 50)
    except ValueError:
        return
    assume(code is not None and not spellings.is_blank(code))
    assert code is not None
    assert code == spellings.to_code(code, 50)
    assert code == spellings.to_code(unicodedata.normalize("NFD", text), 50)


@given(st.integers(0, 10**15 - 1), st.integers(0, 15))
def test_a_number_is_the_code_that_it_shows(number: int, zeros: int) -> None:
    """Excel keeps 5 and 5.0 alike, and shows zeros that are not there."""
    assert str(number) == spellings.to_code(number, 50) == spellings.to_code(float(number), 50)
    assert f"{number:0{zeros}}" == spellings.to_code(NumberCell(number, "0" * zeros), 50)


# Periods

NOVEMBER = date(2024, 11, 1)


@pytest.mark.parametrize(
    "cell",
    [
        *["2024年11月", "24年11月", "２０２４年１１月", "2024 年 11 月", "2024年11月份", "2024年11", "2024年11月30日"],
        *[202411, 202411.0, "202411", 20241130, 20241101.0, "20241130", "2024-11", "2024/11", "2024-11-30"],
        *["2024/11/30", "2024-11-30 00:00:00", "2024-11-30T00:00:00.000", "11月2024", "11月2024年", "11 月 2024 年"],
        *[date(2024, 11, 30), datetime(2024, 11, 30), datetime(2024, 11, 30, 12, 30), NumberCell(202411, "000000")],
    ],
)
def test_a_period_has_many_spellings(cell: Any) -> None:
    """Each is the first of its month."""
    assert spellings.to_period(cell) == NOVEMBER


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2024年13月", "no month 13"),
        ("2024年0月", "no month 0"),
        (202413, "no month 13"),
        (202400, "no month 0"),
        ("2024-02-31", "no day 31 in 2024-02"),
        ("2023/2/29", "no day 29 in 2023-02"),
        (20241100, "no day 0 in 2024-11"),
        ("2024年11月31日", "no day 31 in 2024-11"),
        ("1999年12月", "before the year 2000"),
        (199912, "before the year 2000"),
        ("1899-12-31", "before the year 2000"),
        ("0000-01", "before the year 2000"),
        (date(1999, 12, 31), "before the year 2000"),
        (True, "not a period: the cell holds TRUE"),
        (time(11), "not a period: the cell holds a date or time"),
        (timedelta(5), "not a period: the cell holds a date or time"),
        (ErrorCell("#N/A"), "not a period: the cell holds #N/A"),
        (2024.11, "not a period: no whole number"),
        (-202411, "not a period: no whole number"),
        (float("inf"), "not a period: no whole number"),
        *(
            (cell, "not a period (expected one like 2024年11月, 202411 or 2024-11)")
            for cell in [
                *["2411", 2411, 45597, 45597.0, 2024, "2024", 20241, "24-11", "24/11", "11-2024", "11/2024"],
                *["11月24", "11月", "2024年", "2024年1130", "2024年11份", "2024年1130日", "2024-11/30", "2024--11"],
                *["2024.11", "2024年十一月", "二〇二四年十一月", "2024-11-30 10:00:00", "2024年11月至12月", "Nov 2024"],
                *[
                    "٢٠٢٤年11月",
                    "2024Q4",
                    "2024年11月\x00",
                    "2024年11月\u200f",
                    "\ud800",
                    "😀",
                    "9" * 400,
                    "2" * 32_767,
                ],
            ]
        ),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_period_is_refused(cell: Any, reason: str) -> None:
    """A serial number, a half date or a day that is not there is no month."""
    assert reason == refusal(lambda: spellings.to_period(cell))


@given(st.dates(date(2000, 1, 1), date(9999, 12, 31)), st.sampled_from(["", "0"]), SPACES, st.booleans())
def test_every_spelling_of_a_day_is_its_month(day: date, zero: str, space: str, full: bool) -> None:
    """From the year 2000 to the last that there is."""
    year, month = day.year, f"{zero}{day.month}" if day.month < 10 else str(day.month)
    forms = [f"{year}年{month}月", f"{year}年{month}月份", f"{year}-{month}", f"{year}/{month}/{day.day}"]
    forms += [f"{year}{day.month:02}", f"{year}{day:%m%d}", f"{month}月{year}", f"{year}年{month}月{day.day}日"]
    if year < 2100:
        forms.append(f"{day:%y}年{month}月")
    for form in forms:
        assert spellings.to_period(space + (wide(form) if full else form) + space) == day.replace(day=1)
    assert spellings.to_period(year * 100 + day.month) == day.replace(day=1)
    assert spellings.to_period(day) == day.replace(day=1)


@pytest.mark.parametrize(
    "cell", ["2024", 2024, 2024.0, "2024年", "2024 年", "24", 24, "24年", "２０２４年", "2024年份"]
)
def test_a_year_has_many_spellings(cell: Any) -> None:
    """Two digits are of this century."""
    assert spellings.to_year(cell) == 2024


@pytest.mark.parametrize("cell", ["2", "02", 2, 2.0, "2月", "02月", "2 月", "２月", "2月份"])
def test_a_month_has_many_spellings(cell: Any) -> None:
    """With or without 月."""
    assert spellings.to_month(cell) == 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("1999", "before the year 2000"), ("0000", "before the year 2000")]
    + [(cell, "not a year (expected one like 2024)") for cell in ["202", "20244", 5, "二四", "2024份", "2024年11月"]]
    + [(2024.5, "not a year: no whole number"), (date(2024, 1, 1), "not a year: the cell holds a date or time")],
)
def test_what_is_no_year_is_refused(cell: Any, reason: str) -> None:
    """Neither a day's serial number nor three digits."""
    assert reason == refusal(lambda: spellings.to_year(cell))


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("13", "no month 13"), (0, "no month 0"), ("00", "no month 0"), ("99月", "no month 99")]
    + [(cell, "not a month (expected one of 1 to 12)") for cell in ["十一", "11份", "001", "Nov", 202411, "-1"]]
    + [(1.5, "not a month: no whole number"), (-1, "not a month: no whole number")]
    + [(True, "not a month: the cell holds TRUE"), (ErrorCell("#N/A"), "not a month: the cell holds #N/A")],
)
def test_what_is_no_month_is_refused(cell: Any, reason: str) -> None:
    """One of twelve, in digits."""
    assert reason == refusal(lambda: spellings.to_month(cell))


# Totals, headings and units


@pytest.mark.parametrize("cell", ["合计", "合 计", "合　计：", "总计:", "小计", "共计", "Total", "TOTAL :", " 合计 "])
def test_a_total_has_many_spellings(cell: str) -> None:
    """Inner spaces and a trailing colon are habit."""
    assert spellings.is_total(cell)


@pytest.mark.parametrize("cell", ["合计数", "总", "Totals", "", None, 5, "合计1", ErrorCell("#N/A")])
def test_what_only_resembles_a_total_is_none(cell: Any) -> None:
    """A plan may be called 合计一号."""
    assert not spellings.is_total(cell)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("收益率", ("收益率", "")),
        (" 收 益\n率 ", ("收益率", "")),
        ("收益率(%)", ("收益率", "%")),
        ("收益率（％）", ("收益率", "%")),
        ("收益率%", ("收益率", "%")),
        ("规模（万元）", ("规模", "万元")),
        ("规模\n（万元）", ("规模", "万元")),
        ("规模\n万元", ("规模", "万元")),
        ("规模(亿元)", ("规模", "亿元")),
        ("规模[亿]", ("规模", "亿")),
        ("规模【单位：万元】", ("规模", "万元")),
        ("规模（人民币万元）", ("规模", "万元")),
        ("规模/万元", ("规模", "万元")),
        ("单位净值（元/份）", ("单位净值", "元/份")),
        ("规模（期末）", ("规模(期末)", "")),
        ("规模（美元）", ("规模(美元)", "")),
        ("Fund_Scale", ("fund_scale", "")),
        ("年", ("年", "")),
    ],
)
def test_a_heading_is_a_name_and_a_unit(text: str, parts: tuple[str, str]) -> None:
    """Headings are compared without what a person would not see."""
    assert parts == spellings.heading_parts(text)


@pytest.mark.parametrize(
    ("texts", "units"),
    [
        (["单位：万元"], {"万元"}),
        (["金额单位:人民币 万元"], {"万元"}),
        (["2024年11月受托业绩（单位：亿元）"], {"亿元"}),
        (["单位：", "万元"], {"万元"}),
        (["单位：万元，%"], {"万元"}),
        (["单位：万"], {"万"}),
        (["编制单位：长河养老", "单位：元"], {"元"}),
        (["单位净值单位：元；规模单位：万元"], {"元", "万元"}),
        (["单位：万美元"], {"万美元"}),
        (["单位：港币"], {"港币"}),
        (["编制单位：长河养老"], set()),
        (["单位净值表"], set()),
        (["单位：元/份"], set()),
        (["业绩"], set()),
    ],
)
def test_a_line_above_the_headings_gives_a_unit(texts: list[str], units: set[str]) -> None:
    """单位 is a unit and an organisation; a unit that is not known must not pass for none."""
    assert units == spellings.line_units(texts)


@pytest.mark.parametrize(
    "cell",
    [
        *[
            None,
            True,
            5,
            5.5,
            "text",
            "\ud800",
            date(2024, 1, 1),
            datetime(2024, 1, 1, 5),
            time(5),
            timedelta(hours=30),
        ],
        *[ErrorCell("#N/A"), ErrorCell(MERGED + "A1:A2", "5"), NumberCell(5, "0%")],
    ],
)
def test_a_cell_survives_the_rows_file(cell: Any) -> None:
    """Rows are kept between two steps; what comes out is what went in."""
    assert cell == cells.from_json(cells.to_json(cell))


@pytest.mark.parametrize(
    ("number_format", "unit"),
    [
        ('0.00"%"', "%"),
        (r"0.00\%", "%"),
        ('0.00"％"', "%"),
        ('0.00"%";-0.00"%"', "%"),
        ('#,##0.00"万元"', "万元"),
        ('#,##0.00_ "亿"', "亿"),
        ('#,##0.00\\ "万元"', "万元"),
        ('General"万元"', "万元"),
        ('"人民币"0.00"元"', "元"),
        ("0.00%", ""),
        ("#,##0.00", ""),
        ('"P"000', ""),
        ('_ * #,##0.00_ ;_ * \\-#,##0.00_ ;_ * "-"??_ ;_ @_ ', ""),
        ('_ ¥* #,##0.00_ ;_ ¥* \\-#,##0.00_ ;_ ¥* "-"??_ ;_ @_ ', ""),
        ("#,##0.00_);[Red](#,##0.00)", ""),
        ("#,##0.00;[红色]-#,##0.00", ""),
        ("[DBNum1]General", ""),
        ("#,##0,", cells.SCALED),
        ('0.00,,"百万"', cells.SCALED),
        ('0\\.0,"万"', cells.SCALED),
        ('0!.0000"万"', cells.SCALED),
        ('[>=100000000]0\\.00,,"亿";[>=10000]0\\.0,"万";0', cells.SCALED),
    ],
)
def test_a_number_format_shows_a_unit(number_format: str, unit: str) -> None:
    """What Excel writes behind the digits is the cell's own unit, unless the digits are not the number's."""
    assert unit == cells.shown_unit(number_format)


def test_a_number_counts_in_the_unit_that_its_format_shows() -> None:
    """1200 shown as 1200.00万元 is no 1200 元, and 0.25 shown as 0.25% no 25 %."""
    assert Decimal("0.0025") == spellings.to_ratio(NumberCell(0.25, '0.00"%"'), False, 6)
    assert spellings.bare_number(NumberCell(0.25, '0.00"%"')) is None
    assert Decimal(12_000_000) == spellings.to_amount(NumberCell(1200, '0.00"万元"'), Decimal(1), 2)
    assert Decimal(12_000_000) == spellings.to_amount(NumberCell(1200, '0.00"万元"'), Decimal(10**8), 2)
    assert Decimal("1.05") == spellings.to_unit_value(NumberCell(1.05, '0.0000"元"'), 4)


def test_a_number_shown_in_thousands_is_its_own_value_or_refused() -> None:
    """1200000 shown as 1,200 counts 元; under 规模（千元） nobody knows which of the two was meant."""
    assert Decimal(1_200_000) == spellings.to_amount(NumberCell(1_200_000, "#,##0,"), Decimal(1), 2)
    with pytest.raises(ValueError, match="its number format shows another number"):
        spellings.to_amount(NumberCell(1_200_000, "#,##0,"), Decimal(1000), 2)
    with pytest.raises(ValueError, match="its number format shows another"):
        spellings.to_unit_value(NumberCell(1200, "0.0,"), 4)
