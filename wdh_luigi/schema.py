"""
The words in which a domain declares itself, once: a pydantic model whose fields carry headings, unit and SQL type.

A domain's module builds its model from these fields; heading search, cleaning, validation and the table's definition
all come from it. A field's annotation is the contract: what it accepts is what its validators accept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from annotated_types import BaseMetadata, GroupedMetadata
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from wdh_luigi import spellings
from wdh_luigi.cells import Cell, scales_percent

# What a workbook of rejects is called, and its column of the rows that they had in the original.
CORRECTION, ORIGINAL_ROW = "更正", "原行号"

Kind = Literal["period", "code", "figure"]


@dataclass(frozen=True, slots=True)
class Column:
    """
    How a field stands in a sheet and in the table.

    Attributes:
        word: what messages call it, in the sender's language.
        headings: the headings under which sheets give it.
        sql: its column's type, or None for a part of another field.
        kind: a period or code says which row it is, a figure says what was measured.
        unit: "rate" (ratio or percent points), "money" (元, 万元 …), "per unit" (never scaled), or "" for no figure.
    """

    word: str
    headings: tuple[str, ...]
    sql: str | None
    kind: Kind
    unit: Literal["", "rate", "money", "per unit"] = ""


@dataclass(frozen=True)
class PeriodCells:
    """The cells from which a row's period is read; absent columns are None."""

    year: Cell = None
    month: Cell = None
    report_period: Cell = None


@dataclass(frozen=True)
class Reading:
    """
    What one workbook says about all of its cells; the context of every validator.

    Attributes:
        percent: rate fields whose bare numbers are percent points.
        factors: money fields and what one of a bare number is worth in 元.
        has_period: the sheet has a column of periods; without one the file's period counts.
        file_period: first of the month in the file's name, or None.
        latest: the last month that a row may be of.
        only_period: rows of another month are refused (``replace: place``).
        why: field -> why its bare numbers count what they count, for those that are not taken as they are.
        telling: column -> what takes down the rules that its cell went through; empty where nobody asks.
    """

    percent: frozenset[str] = frozenset()
    factors: Mapping[str, Decimal] = field(default_factory=dict)
    has_period: bool = True
    file_period: date | None = None
    latest: date = date.max
    only_period: bool = False
    why: Mapping[str, str] = field(default_factory=dict)
    telling: Mapping[str, spellings.Telling] = field(default_factory=dict)


def _reading(info: ValidationInfo) -> Reading:
    return info.context if isinstance(info.context, Reading) else Reading()


def _telling(info: ValidationInfo) -> spellings.Telling | None:
    return _reading(info).telling.get(info.field_name or "")


class FieldKind(GroupedMetadata):
    """What a field's annotation holds besides its type; pydantic takes its parts one by one."""

    column: Column
    bounds: tuple[object, ...] = ()

    def __iter__(self) -> Iterator[object]:
        yield from self.bounds
        yield BeforeValidator(self.clean)

    def clean(self, cell: Any, info: ValidationInfo) -> Any:
        """Turn a cell as read into the field's value, or raise ValueError in words for its sender."""
        raise NotImplementedError

    def doubts(self, value: Any, reading: Reading) -> list[str]:
        """List what is allowed but doubtful about a value, in words for its sender."""
        return []


class Code(FieldKind):
    """A code of at most so many characters after normalising; never blank."""

    def __init__(self, word: str, headings: tuple[str, ...], *, longest: int) -> None:
        self.column = Column(word, headings, f"varchar({longest})", "code")
        self.longest = longest

    def clean(self, cell: Any, info: ValidationInfo) -> str:
        code = spellings.to_code(cell, self.longest, _telling(info))
        if code is None:
            raise ValueError("blank")
        return code


@dataclass(frozen=True)
class Usual:
    """What a figure usually is: beyond ``least`` and ``most`` it is allowed, with a warning that ends in ``else_``."""

    least: Decimal
    most: Decimal
    else_: str


class Figure(FieldKind):
    """A number that was measured, with the digits of its column and its bounds (annotated_types); blank is None."""

    unit: Literal["rate", "money", "per unit"]

    def __init__(
        self,
        word: str,
        headings: tuple[str, ...],
        *bounds: BaseMetadata,
        digits: int,
        places: int,
        usual: Usual | None = None,
    ) -> None:
        self.column = Column(word, headings, f"numeric({digits},{places})", "figure", self.unit)
        # Both, as pydantic leaves zeros at the end out of the digits: 10**16 has one, and is too large for (18,2).
        self.bounds = (Field(max_digits=digits, decimal_places=places), *bounds)
        self.places = places
        self.usual = usual
        self._limit = Decimal(10) ** (digits - places)

    def doubts(self, value: Decimal | None, reading: Reading) -> list[str]:
        if value is None or self.usual is None or self.usual.least <= value <= self.usual.most:
            return []
        return [f"{self.column.word} {value} {self.usual.else_}"]

    def takes_as_is(self, name: str, reading: Reading, number_format: str) -> bool:
        """Tell whether a number under the field is its value, but for rounding; one without a format says no unit."""
        return not number_format

    def plain(self, text: str, *, as_is: bool) -> Decimal | None:
        """
        Return the value, but for rounding, of a text that is spelt plainly; None for most others, also if it has one.

        Args:
            as_is: whether bare numbers are values.
        """
        return spellings.plain_number(text) if as_is else None

    def sure(self) -> tuple[Decimal, Decimal]:
        """Return two ends: what lies between them, rounded, is within all bounds and usual."""
        lows = [self.usual.least] if self.usual else []
        highs = [self.usual.most] if self.usual else []
        lows += [getattr(bound, side) for bound in self.bounds for side in ("ge", "gt") if hasattr(bound, side)]
        highs += [getattr(bound, side) for bound in self.bounds for side in ("le", "lt") if hasattr(bound, side)]
        return max([-self._limit, *lows]), min([self._limit, *highs])


class Rate(Figure):
    """A rate, kept as a ratio: 0.055 is 5.5 %."""

    unit = "rate"

    def takes_as_is(self, name: str, reading: Reading, number_format: str) -> bool:
        return scales_percent(number_format) if number_format else name not in reading.percent

    def plain(self, text: str, *, as_is: bool) -> Decimal | None:
        ratio = spellings.plain_percent(text)
        return super().plain(text, as_is=as_is) if ratio is None else ratio

    def clean(self, cell: Any, info: ValidationInfo) -> Decimal | None:
        return spellings.to_ratio(cell, info.field_name in _reading(info).percent, self.places, _telling(info))


class Money(Figure):
    """An amount of money, kept in 元."""

    unit = "money"

    def takes_as_is(self, name: str, reading: Reading, number_format: str) -> bool:
        return not number_format and reading.factors.get(name, 1) == 1

    def clean(self, cell: Any, info: ValidationInfo) -> Decimal | None:
        factor = _reading(info).factors.get(info.field_name or "", Decimal(1))
        return spellings.to_amount(cell, factor, self.places, _telling(info))


class PerUnit(Figure):
    """A value per unit, in 元; never scaled."""

    unit = "per unit"

    def clean(self, cell: Any, info: ValidationInfo) -> Decimal | None:
        return spellings.to_unit_value(cell, self.places, _telling(info))


class Month(FieldKind):
    """The month that a row is of, kept as its first day; its value comes in as PeriodCells."""

    def __init__(self, word: str, headings: tuple[str, ...]) -> None:
        self.column = Column(word, headings, "date", "period")

    def clean(self, cells: Any, info: ValidationInfo) -> date:
        return row_period(cells, _reading(info), _telling(info))

    def doubts(self, value: date, reading: Reading) -> list[str]:
        month, found = reading.file_period, []
        if month and value < month:
            found.append(f"{self.column.word} {value:%Y-%m} is earlier than the file's {month:%Y-%m}")
            if value < month.replace(year=month.year - _LONG_AGO):
                found.append(f"{self.column.word} {value:%Y-%m} is more than ten years before the file's period")
        return found


_LONG_AGO = 10  # years


def row_period(cells: PeriodCells, reading: Reading, telling: spellings.Telling | None = None) -> date:
    """
    Return the first of the month that a row is of: 年 and 月, else 报告期, else, in a sheet without, the file's.

    Raises:
        PeriodError: no period, two that differ, or one that the workbook cannot be of.
    """
    year, month, single = _period_parts(cells, reading)
    joint = spellings.first_of(year, month) if year and month else None
    if joint and single and joint != single:
        raise PeriodError({"report_period": f"{single:%Y-%m}, and 年 and 月 say {joint:%Y-%m}"})
    period = joint or single or (None if reading.has_period else reading.file_period)
    if period is None:
        what = "blank" if reading.has_period else "neither the sheet nor the file's name gives a period"
        raise PeriodError({"": what})
    if reason := _misplaced(period, reading):
        raise PeriodError({_differing(period, reading) if joint else "report_period": reason})
    if telling is not None and not single:
        telling.decided("the first of 年 and 月" if joint else "no column of periods: the file's name", period)
    return period


class PeriodError(ValueError):
    """
    What is wrong with the cells that a row's period is read from.

    Attributes:
        problems: part -> reason; the part is one of Domain.sheet_columns, or "" for all that there are.
    """

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = problems


def _period_parts(cells: PeriodCells, reading: Reading) -> tuple[int | None, int | None, date | None]:
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for part, convert in _PERIOD_PARTS.items():
        try:
            found[part] = convert(getattr(cells, part), reading.telling.get(part))
        except ValueError as error:
            problems[part] = str(error)
    if problems:
        raise PeriodError(problems)
    if found["month"] and not found["year"]:
        raise PeriodError({"year": f"blank, and 月 says {found['month']}"})
    if found["year"] and not found["month"]:
        raise PeriodError({"month": f"blank, and 年 says {found['year']}"})
    return found["year"], found["month"], found["report_period"]


_PERIOD_PARTS = {"year": spellings.to_year, "month": spellings.to_month, "report_period": spellings.to_period}


def _misplaced(period: date, reading: Reading) -> str:
    """Say why a row of this workbook cannot be of a month, or ""."""
    if period > reading.latest:
        limit = "the file's period" if reading.file_period else "this month"
        return f"{period:%Y-%m} is later than {limit}, {reading.latest:%Y-%m}"
    if reading.only_period and reading.file_period and period != reading.file_period:
        return f"{period:%Y-%m} is not {reading.file_period:%Y-%m}, the file's period (replace: place)"
    return ""


def _differing(period: date, reading: Reading) -> str:
    """Tell which of 年 and 月 to blame for a month that does not fit."""
    return "month" if period.year == (reading.file_period or reading.latest).year else "year"


class Record(BaseModel):
    """A row that was understood; a domain's model derives from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Domain:
    """
    A domain: its name, its model, and the headings of the parts of its period.

    Attributes:
        year, month, period: the headings under which sheets give the parts; the model's period field is made of them.
    """

    name: str
    model: type[Record]
    year: tuple[str, ...]
    month: tuple[str, ...]
    period: tuple[str, ...]

    def __post_init__(self) -> None:
        rules = self.model.__pydantic_decorators__
        if rules.field_validators or rules.model_validators or rules.validators or rules.root_validators:
            # Rows are validated field by field, each distinct cell once: what stands beside the fields would not run.
            raise TypeError(f"{self.model.__name__}: put its rules into the annotations of its fields")

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Return the table's columns that come from the sheet, in order."""
        return {name: kind.column for name, kind in self.kinds.items()}

    @cached_property
    def kinds(self) -> dict[str, FieldKind]:
        """Return what each field's annotation holds."""
        return {
            name: next(part for part in info.metadata if isinstance(part, FieldKind))
            for name, info in self.model.model_fields.items()
        }

    @cached_property
    def sheet_columns(self) -> dict[str, Column]:
        """Return everything that a sheet may give: the model's fields, its period taken apart."""
        parts = {"year": Column("年", self.year, None, "period"), "month": Column("月", self.month, None, "period")}
        parts["report_period"] = Column("报告期", self.period, None, "period")
        fields = {name: column for name, column in self.columns.items() if column.kind != "period"}
        return parts | fields

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Return every heading, as headings are compared, with the name of what stands under it."""
        return {
            spellings.heading_parts(heading)[0]: name
            for name, column in self.sheet_columns.items()
            for heading in column.headings
        }

    @cached_property
    def period_field(self) -> str:
        """Return the name of the field that is the row's month."""
        return next(name for name, column in self.columns.items() if column.kind == "period")

    def names(self, kind: Kind) -> list[str]:
        """Return the names of the sheet's columns of one kind."""
        return [name for name, column in self.sheet_columns.items() if column.kind == kind]
