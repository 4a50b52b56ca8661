"""Rows into records and rejects: one pydantic model decides, each row is accounted for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from itertools import compress
from math import isfinite
from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from wdh_luigi import plan, spellings, targets
from wdh_luigi.batches import Batch, Column, in_batches, side_by_side
from wdh_luigi.cells import Cell, NumberCell, Row
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import WorkbookError
from wdh_luigi.keys import Keys
from wdh_luigi.schema import Domain, Figure, PeriodCells, PeriodError, Reading, Record
from wdh_luigi.workbook import Extremes, Profile
from wdh_luigi.workbook.headings import letters

LARGEST_RATIO = Decimal("0.3")
SMALLEST_PERCENT = Decimal(1)
_EXAMPLES = 5
_REMEMBERED = 20_000  # distinct cells of one column: codes and periods repeat, figures need no more than a bound
_FORMATS = 16  # number formats of one column of which that is remembered
_LONG = 60  # characters, of a text that is not remembered, nor shown whole among the examples

Problem = tuple[str, str, str]  # field, the sheet's column (one of Domain.sheet_columns, or ""), reason


@dataclass
class Rates:
    """What the bare numbers of a workbook's rate columns mean, and why; for those that were guessed, by what."""

    percent: frozenset[str]
    guessed: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


class Clean:
    """
    Validate rows into records, column by column, and each distinct cell of a column once.

    The model's own field decides about a cell (a model of that one field), so that this says what the whole model
    would say of the row.
    """

    def __init__(self, domain: Domain, columns: Mapping[str, int], reading: Reading) -> None:
        self._domain = domain
        self._at = {name: columns.get(name) for name in domain.sheet_columns}
        self._fields = {name: _Field(domain, name, reading) for name in domain.columns}

    def row(self, cells: list[Cell]) -> tuple[Record | None, list[Problem]]:
        """Return the row's record, or what is wrong with it, all of it."""
        said = self.columns(Batch.of([(0, cells)]))
        problems = [problem for values in said.values() for problem in values.problems.get(0, ())]
        if problems:
            return None, problems
        return self._domain.model.model_construct(**{name: values.value(0) for name, values in said.items()}), []

    def columns(self, batch: Batch) -> dict[str, Values]:
        """Return what is said of the rows' cells, field by field."""
        cells = {name: self._column(at, batch) for name, at in self._at.items()}
        said, rows = {}, len(batch.rows)
        for name, one in self._fields.items():
            if name == self._domain.period_field:
                said[name] = one.of_periods([cells[part] for part in _PERIOD_PARTS], rows)
            else:
                said[name] = one.of_cells(cells[name], rows)
        return said

    @staticmethod
    def _column(at: int | None, batch: Batch) -> Column:
        return batch.columns[at] if at is not None and at < len(batch.columns) else _NO_COLUMN

    def cell(self, name: str, batch: Batch, place: int) -> Cell:
        """Return the cell under a heading of a row of the batch; None where the sheet has no such column."""
        return batch.cell(place, self._at[name])


_NO_COLUMN = Column([None])
_PERIOD_PARTS = ("year", "month", "report_period")


class _Said(NamedTuple):
    """What is said of one cell: its value as COPY takes it, what is wrong, and what is doubtful about it."""

    as_copy: str
    problems: Sequence[Problem] = ()
    doubts: Sequence[str] = ()


@dataclass(frozen=True)
class Values:
    """
    What is said of a field's cells, of a batch of rows.

    Attributes:
        as_copy: the values, as COPY takes them; neither COPY nor JSON needs anything in them escaped.
        problems, doubts: place -> what is wrong with the cell, or doubtful about it; of most there is none.
    """

    as_copy: Sequence[str]
    problems: Mapping[int, Sequence[Problem]]
    doubts: Mapping[int, Sequence[str]]
    read: Callable[[str], Any]

    def value(self, at: int) -> Any:
        """Return a cell's value."""
        return None if self.as_copy[at] == plan.NULL else self.read(self.as_copy[at])

    def chosen(self, mask: Sequence[bool]) -> Values:
        """Return what is said of some of the cells; in them nothing is wrong."""
        doubts = {}
        if self.doubts:
            places = {old: new for new, old in enumerate(at for at, one in enumerate(mask) if one)}
            doubts = {places[at]: found for at, found in self.doubts.items() if mask[at]}
        return Values(list(compress(self.as_copy, mask)), {}, doubts, self.read)

    def of_all(self, rows: int) -> Values:
        """Return the same, said of one cell, of so many."""
        every = range(rows)
        problems = dict.fromkeys(every, self.problems[0]) if self.problems else {}
        doubts = dict.fromkeys(every, self.doubts[0]) if self.doubts else {}
        return Values([self.as_copy[0]] * rows, problems, doubts, self.read)


_READ: dict[str, Callable[[str], Any]] = {"figure": Decimal, "period": date.fromisoformat, "code": str}


class _Field:
    """One field of the model, which remembers what it said of each distinct cell."""

    def __init__(self, domain: Domain, name: str, reading: Reading) -> None:
        model, kind = domain.model, domain.kinds[name]
        fields: Any = {name: (model.model_fields[name].rebuild_annotation(), ...)}
        self._model = create_model(f"{model.__name__}_{name}", __config__=model.model_config, **fields)
        self._name = name
        self._kind = kind
        self._reading = reading
        self._read = _READ[kind.column.kind]
        self._known: dict[str, _Known] = {}  # by the number format of the column's numbers

    def __call__(self, cell: Any) -> tuple[Any, Sequence[Problem]]:
        """Return a cell's value, or what is wrong with it."""
        values = self.of_cells(Column([cell]), 1)
        return (None, values.problems[0]) if values.problems else (values.value(0), [])

    def of_cells(self, column: Column, rows: int) -> Values:
        """Return what is said of each of a column's cells."""
        cells, number_format = column
        known = self._of_format(number_format)
        keys = cells
        if not set(map(type, cells)) <= _DISTINCT:
            keys = [
                cell if type(cell) in _DISTINCT else tuple(cell.items()) if type(cell) is dict else _distinct(cell)
                for cell in cells
            ]
        values = self._said(known, keys, column.at)
        return values if len(cells) == rows else values.of_all(rows)

    def of_periods(self, parts: Sequence[Column], rows: int) -> Values:
        """Return what is said of the parts of each row's period."""
        alike = all(len(part.cells) == 1 for part in parts)
        each = [part.each(1 if alike else rows) for part in parts]
        keys = list(zip(*each, *(map(type, cells) for cells in each), strict=True))
        values = self._said(self._of_format(""), keys, lambda at: PeriodCells(*(cells[at] for cells in each)))
        return values.of_all(rows) if alike else values

    def _of_format(self, number_format: str) -> _Known:
        known = self._known.get(number_format)
        if known is None:
            # Texts have no format, and may count otherwise than the numbers.
            sure = _Sure(self._figure(number_format), bare_as_is=self._figure("") is not None)
            if len(self._known) == _FORMATS:
                self._known.clear()
            known = self._known[number_format] = _Known(sure)
        return known

    def _figure(self, number_format: str) -> Figure | None:
        """Return what the numbers of a format are values of, but for rounding."""
        kind = self._kind
        if isinstance(kind, Figure) and kind.takes_as_is(self._name, self._reading, number_format):
            return kind
        return None

    def _said(self, known: _Known, keys: Sequence[Any], cell: Callable[[int], Any]) -> Values:
        found: list[Any] = known.texts(keys)
        problems: dict[int, Sequence[Problem]] = {}
        doubts: dict[int, Sequence[str]] = {}
        if None in found:
            for at in [at for at, text in enumerate(found) if text is None]:
                key = keys[at]
                found[at] = known.well.get(key)  # by now, from a row above
                if found[at] is not None:
                    continue
                said = known.other.get(key) or self._learn(known, key, cell(at))
                found[at] = said.as_copy
                if said.problems:
                    problems[at] = said.problems
                if said.doubts:
                    doubts[at] = said.doubts
        return Values(found, problems, doubts, self._read)

    def _learn(self, known: _Known, key: Any, cell: Any) -> _Said:
        said = known.sure.rounded(key) or self._validate(cell)
        if not isinstance(cell, str) or len(cell) <= _LONG:
            known.remember(key, said)
        return said

    def _validate(self, cell: Any) -> _Said:
        try:
            record = self._model.model_validate({self._name: cell}, context=self._reading)
        except ValidationError as error:
            found = [(self._name, *one) for problem in error.errors() for one in _reasons(problem, self._name)]
            return _Said(plan.NULL, found)
        value = getattr(record, self._name)
        return _Said(plan.copy_value(value), (), self._kind.doubts(value, self._reading))


class _Known:
    """
    What was said of cells, each once.

    Attributes:
        well: cell -> its value as COPY takes it, of cells of which nothing else was said.
        other: cell -> what was said of it, of all others.
        sure: says the same of plain numbers, without asking the model.
    """

    def __init__(self, sure: _Sure) -> None:
        self.well: dict[Any, str] = {}
        self.other: dict[Any, _Said] = {}
        self.sure = sure

    def texts(self, cells: Sequence[Any]) -> list[str | None]:
        """Return the cells' values, as COPY takes them; None where that is not known, or not all there is to say."""
        kinds = set(map(type, cells)) if self.sure else ()
        if float not in kinds:
            return list(map(self.well.get, cells))
        if len(kinds) == 1:
            return self.sure.texts(cells)
        texts = self.sure.texts([cell for cell in cells if type(cell) is float])
        for at in [at for at, cell in enumerate(cells) if type(cell) is not float]:
            texts.insert(at, self.well.get(cells[at]))
        return texts

    def remember(self, key: Any, said: _Said) -> None:
        """Remember what was said of a cell, among so many."""
        if len(self.well) + len(self.other) >= _REMEMBERED:
            self.well.clear()
            self.other.clear()
        if said.problems or said.doubts:
            self.other[key] = said
        else:
            self.well[key] = said.as_copy


class _Sure:
    """
    Numbers of which no more need be asked: between ends where no bound is near, and only to be rounded.

    Figures are seldom twice the same, and are most of what validation costs. A number with so few decimals that the
    column's keep it is written with these: no two decimals of up to 15 digits are the same float.
    """

    def __init__(self, kind: Figure | None, *, bare_as_is: bool) -> None:
        self._kind = kind
        self._bare_as_is = bare_as_is
        self._ends = (Decimal(0), Decimal(0))
        self._low, self._high, self._form = 0.0, 0.0, ""
        if kind is not None:
            self._ends = kind.sure()
            exact = 10.0 ** (_EXACT_DIGITS - kind.places)
            self._low, self._high = max(float(self._ends[0]), -exact), min(float(self._ends[1]), exact)
            self._form = f"%.{kind.places}f"
            self._unit = Decimal(1).scaleb(-kind.places)

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return self._low < self._high

    def texts(self, numbers: Sequence[float]) -> list[str | None]:
        """Return the values of such numbers, as COPY takes them, and None for all others."""
        low, high = self._low, self._high
        # no zero, of which there are two; the sum is finite without NaN alone
        if numbers and low < min(numbers) and max(numbers) < high and 0.0 not in numbers and isfinite(sum(numbers)):
            return self._spelt(numbers)
        inside = [low < number < high and number != 0 for number in numbers]
        texts = iter(self._spelt(list(compress(numbers, inside))))
        return [next(texts) if one else None for one in inside]

    def _spelt(self, numbers: Sequence[float]) -> list[str | None]:
        joined = ",".join([self._form] * len(numbers)) % tuple(numbers)
        texts: list[str | None] = [*joined.split(",")]
        meant = targets.loads(f"[{joined}]".encode())  # much faster than by float()
        if meant != list(numbers):
            texts = [text if one == number else None for text, one, number in zip(texts, meant, numbers, strict=True)]
        return texts

    def rounded(self, key: Any) -> _Said | None:
        """Return what the model would say of a cell that is a number to be rounded, or the plain text of one."""
        number, (low, high) = self._number(key), self._ends
        if number is None or not low < number < high:
            return None
        value = number.quantize(self._unit, ROUND_HALF_UP)
        if not value or not low < value < high:
            return None
        return _Said(str(value))

    def _number(self, key: Any) -> Decimal | None:
        if type(key) is float and isfinite(key):
            return Decimal(repr(key))
        if type(key) is str:
            return self._kind.plain(key, as_is=self._bare_as_is) if self._kind else None
        return Decimal(key[1]) if type(key) is tuple and key[:-1] == (int,) else None


_EXACT_DIGITS = 15
_DISTINCT = frozenset({float, str, type(None)})


def _distinct(cell: Any) -> Any:
    """Return what tells a cell from every other: True, 1 and 1.0 are equal to Python, and not to us."""
    if isinstance(cell, NumberCell):
        return type(cell.value), cell.value, cell.format
    return type(cell), cell


def _reasons(problem: Any, name: str) -> list[tuple[str, str]]:
    """Put pydantic's finding into words for the sender: (column, reason) for each cell that is to blame."""
    context = problem.get("ctx") or {}
    error = context.get("error")
    if isinstance(error, PeriodError):
        return list(error.problems.items())
    match problem["type"]:
        case "value_error":
            reason = str(error)
        case "greater_than":
            reason = f"must be greater than {context['gt']} (is {problem['input']})"
        case "greater_than_equal":
            reason = f"must be at least {context['ge']} (is {problem['input']})"
        case "less_than":
            reason = f"must be less than {context['lt']} (is {problem['input']})"
        case "less_than_equal":
            reason = f"must be at most {context['le']} (is {problem['input']})"
        case "decimal_max_digits" | "decimal_whole_digits":
            reason = f"too large (is {problem['input']})"
        case _:
            reason = str(problem["msg"])
    return [(name, reason)]


def reading(profile: Profile, config: DomainConfig, domain: Domain, month: date | None, today: date) -> Reading:
    """Collect what a workbook's headings, name and configuration say of all its cells, but for its rates."""
    given = profile.headings
    money = [name for name, column in domain.sheet_columns.items() if column.unit == "money"]
    factors = {name: spellings.FACTORS[given.units.get(name) or given.line_unit or "元"] for name in money}
    line = f"the line above the headings gives {given.line_unit}"
    why = {name: f"heading {given.texts[name]}" if given.units.get(name) else line for name in given.texts}
    return Reading(
        factors=factors,
        why={name: why[name] for name in money if name in why and factors[name] != 1},
        has_period=any(name in given.columns for name in domain.names("period")),
        file_period=month,
        latest=month or today,
        only_period=config.replace == "place",
    )


def rates(profile: Profile, config: DomainConfig, domain: Domain, shown: str) -> Rates:
    """
    Decide what bare numbers in rate columns mean: as configured, else by the heading, else by their size.

    Raises:
        WorkbookError: the column's numbers can be either; names a cell of each kind.
    """
    percent, guesses, why = set(), {}, {}
    for name, column in domain.sheet_columns.items():
        if column.unit != "rate" or name not in profile.headings.columns:
            continue
        if config.rate_unit != "auto":
            means_percent, guessed = config.rate_unit == "percent", ""
            why[name] = f"rate_unit {config.rate_unit}"
        elif profile.headings.units.get(name) == "%":
            means_percent, guessed = True, ""
            why[name] = f"heading {profile.headings.texts[name]}"
        else:
            means_percent, guessed = _by_size(profile.extremes[name], column.word, profile, shown)
        if means_percent:
            percent.add(name)
        if guessed:
            meaning = "percent points" if means_percent else "ratios"
            why[name] = f"bare numbers are {meaning}, guessed by size ({guessed})"
            guesses[name] = f"{column.word}: {why[name]}"
    return Rates(frozenset(percent), guesses, why)


def _by_size(found: Extremes, word: str, profile: Profile, shown: str) -> tuple[bool, str]:
    if found.smallest is None or found.largest is None:
        return False, ""
    extremes = f"smallest {found.smallest} in {found.smallest_cell}, largest {found.largest} in {found.largest_cell}"
    sheet = profile.sheet
    mend = "set rate_unit: ratio or percent in data_sources.yml, or write % into the heading"
    if not profile.gives_formats:
        what = f"{word} may count ratios or percent points: this format does not tell which cells show a % ({extremes})"
        raise WorkbookError(shown, what, mend, sheet=sheet, cell=found.smallest_cell)
    if abs(found.largest) <= LARGEST_RATIO:
        return False, extremes
    if abs(found.smallest) > SMALLEST_PERCENT:
        return True, extremes
    what = f"{word} may count ratios or percent points: {extremes}"
    raise WorkbookError(shown, what, mend, sheet=sheet, cell=found.smallest_cell)


@dataclass
class Outcome:
    """
    The account of a workbook's rows: read = accepted + rejected + duplicate.

    Attributes:
        conflicts: rows that were accepted before another row contradicted them; they are rejected.
        periods: how many rows were understood of each month.
        reasons: how often each kind of reason was given, with its first instance.
    """

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    conflicts: set[int] = field(default_factory=set)
    duplicates: list[dict[str, int]] = field(default_factory=list)
    warnings: int = 0
    periods: Counter[date] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Records:
    """
    Accepted records, a batch of them.

    Attributes:
        rows: their row numbers.
        columns: field -> what was said of its cells.
        texts: each one's fields, as COPY takes them.
        has_data: whether any figure is not blank.
        warnings: place -> what is doubtful about the record.
    """

    rows: Sequence[int]
    columns: Mapping[str, Values]
    texts: Sequence[str]
    has_data: Sequence[bool]
    warnings: Mapping[int, Sequence[str]]

    def documents(self) -> Iterator[dict[str, Any]]:
        """Yield them as JSON objects: the row number, the fields, has_performance_data and validation_warnings."""
        for at, row in enumerate(self.rows):
            yield {
                "row": row,
                **{name: values.value(at) for name, values in self.columns.items()},
                "has_performance_data": self.has_data[at],
                "validation_warnings": list(self.warnings.get(at, ())),
            }

    def lines(self) -> bytes:
        """Return the documents as JSON, one a line; put together of what is known of each cell."""
        parts: list[str | Sequence[str]] = ['{"row":', self._numbers]
        for name, values in self.columns.items():
            before, texts = f",{targets.dumps(name).decode()}:", values.as_copy
            if plan.NULL in texts:
                parts += [before, ["null" if text == plan.NULL else f'"{text}"' for text in texts]]
            else:
                parts += [f'{before}"', texts, '"']
        parts += [',"has_performance_data":', ["true" if one else "false" for one in self.has_data]]
        parts += [',"validation_warnings":', self._warnings(lambda found: targets.dumps(list(found)).decode()), "}\n"]
        return side_by_side(parts, len(self.rows)).encode()

    def copied(self) -> bytes:
        """Return them as the lines of a plan's COPY."""
        has_data = ["t" if one else "f" for one in self.has_data]
        warnings = self._warnings(plan.copy_warnings)
        parts = [self.texts, "\t", has_data, "\t", warnings, "\t", self._numbers, "\n"]
        return side_by_side(parts, len(self.rows)).encode()

    @cached_property
    def _numbers(self) -> list[str]:
        return list(map(str, self.rows))

    def _warnings(self, spell: Callable[[Sequence[str]], str]) -> list[str]:
        spelt = ["[]"] * len(self.rows)
        for at, found in self.warnings.items():
            spelt[at] = spell(found)
        return spelt


class Validation:
    """
    Sort a workbook's rows into accepted records and rejects.

    ``records()`` yields the records while the rows are read; afterwards ``outcome.conflicts`` names those among them
    that a later row contradicted. ``reject`` is called with every reject, as JSON, in order.
    """

    def __init__(
        self, domain: Domain, profile: Profile, config: DomainConfig, reading: Reading, reject: Callable[[Any], None]
    ) -> None:
        self._domain = domain
        self._columns = profile.headings.columns
        self._texts = profile.headings.texts
        self._clean = Clean(domain, self._columns, reading)
        self._key = config.pk or [name for name, column in domain.columns.items() if column.kind != "figure"]
        self._reject = reject
        self._keys = Keys()
        self.outcome = Outcome()

    def accepted(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yield each record that is accepted: row, the fields, has_performance_data and validation_warnings."""
        for records in self.records(in_batches(rows)):
            yield from records.documents()

    def records(self, batches: Iterable[Batch]) -> Iterator[Records]:
        """Yield the records that are accepted of each batch of rows."""
        for batch in batches:
            rows, columns = self._understood(batch)
            for text, count in Counter(columns[self._domain.period_field].as_copy).items():
                self.outcome.periods[date.fromisoformat(text)] += count
            yield self._first(rows, columns)
        self._settle()

    def _understood(self, batch: Batch) -> tuple[Sequence[int], dict[str, Values]]:
        """Return the rows that make records, and tell of those that do not."""
        rows, columns = batch.rows, self._clean.columns(batch)
        self.outcome.read += len(rows)
        wrong: defaultdict[int, list[Problem]] = defaultdict(list)
        for values in columns.values():
            for at, problems in values.problems.items():
                wrong[at] += problems
        if not wrong:
            return rows, columns
        self.outcome.rejected += len(wrong)
        for at in sorted(wrong):
            for problem in wrong[at]:
                self._tell(batch, at, *problem)
        mask = [at not in wrong for at in range(len(rows))]
        return list(compress(rows, mask)), {name: values.chosen(mask) for name, values in columns.items()}

    def _first(self, rows: Sequence[int], columns: dict[str, Values]) -> Records:
        """Return the records of the rows whose key was not met before."""
        texts = list(map("\t".join, zip(*(values.as_copy for values in columns.values()), strict=True)))
        keys = list(map("\t".join, zip(*(columns[name].as_copy for name in self._key), strict=True)))
        first = self._keys.are_first(keys, texts, rows)
        if not all(first):
            rows, texts = list(compress(rows, first)), list(compress(texts, first))
            columns = {name: values.chosen(first) for name, values in columns.items()}
        warnings = self._warnings(columns)
        self.outcome.warnings += len(warnings)
        return Records(rows, columns, texts, self._has_data(columns, len(rows)), warnings)

    def _has_data(self, columns: dict[str, Values], count: int) -> list[bool]:
        figures = [columns[name].as_copy for name in self._domain.names("figure")]
        if any(plan.NULL not in column for column in figures):
            return [True] * count
        return [any(text != plan.NULL for text in of_row) for of_row in zip(*figures, strict=True)]

    def _warnings(self, columns: dict[str, Values]) -> dict[int, Sequence[str]]:
        """Gather what is doubtful of each record, of its figures first."""
        warnings: dict[int, Sequence[str]] = {}
        for name in (*self._domain.names("figure"), *self._domain.names("code"), self._domain.period_field):
            for at, doubts in columns[name].doubts.items():
                warnings[at] = [*warnings.get(at, ()), *doubts]
        return warnings

    def _settle(self) -> None:
        """Settle the keys that were met more than once, when all rows are known."""
        outcome = self.outcome
        outcome.accepted = len(self._keys)
        for found in self._keys.repeated():
            rows = found.rows
            if found.differ:
                outcome.accepted -= 1
                outcome.rejected += len(rows)
                outcome.conflicts.add(rows[0])
                self._tell_conflict(found.key.replace("\t", ", "), rows)
            else:
                outcome.duplicate += len(rows) - 1
                outcome.duplicates += [{"row": row, "of": rows[0]} for row in rows[1:]]

    def _tell_conflict(self, shown: str, rows: list[int]) -> None:
        """Reject every row of a key; each names the others, at most five of them."""
        more = f" and {len(rows) - 1 - _EXAMPLES} more" if len(rows) - 1 > _EXAMPLES else ""
        for row in rows:
            others = [str(other) for other in rows[: _EXAMPLES + 1] if other != row][:_EXAMPLES]
            reason = f"the key ({shown}) stands also in row {', '.join(others)}{more}, with other values"
            self._record_reject(row, "", "", self._key[-1], shown, reason, kind="one key with differing values")

    def _tell(self, batch: Batch, place: int, name: str, column: str, reason: str) -> None:
        """Reject a row for one bad cell, which stands in one of the sheet's columns."""
        if not column:  # of the period: any of its columns could say it
            column = next((part for part in self._domain.names("period") if part in self._columns), "")
        at, number = self._columns.get(column), batch.rows[place]
        cell = f"{letters(at)}{number}" if at is not None else ""
        shown = spellings.shown(self._clean.cell(column, batch, place)) if at is not None else ""
        heading, kind = self._texts.get(column, ""), _VALUE.sub("…", reason)
        self._record_reject(number, cell, heading, name, shown, reason, kind=kind)

    def _record_reject(
        self, row: int, cell: str, heading: str, name: str, value: str, reason: str, *, kind: str
    ) -> None:
        word = self._domain.columns[name].word
        kind = f"{word}: {kind}"
        self.outcome.reasons[kind] += 1
        if kind not in self.outcome.examples:
            place = f"cell {cell}" if cell else f"row {row}"
            self.outcome.examples[kind] = f"{place} {heading or word} {_short(value)!r}: {reason}"
        self._reject({"row": row, "cell": cell, "heading": heading, "field": name, "value": value, "reason": reason})


_VALUE = re.compile(r"'.*?'|[A-Z]*[0-9][0-9.:,A-Z-]*")  # what tells two reasons of one kind apart


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def check_ratio(outcome: Outcome, config: DomainConfig, shown: str, sheet: str, rejects: str) -> None:
    """
    Refuse a workbook of which too much was rejected.

    Raises:
        WorkbookError: names the counts, the five first reasons, and where all of them are.
    """
    if outcome.read == 0:
        raise WorkbookError(shown, "no data row below the headings", "send the workbook with its rows", sheet=sheet)
    if outcome.rejected <= Decimal(str(config.max_reject_ratio)) * outcome.read:  # 0.29 * 100 is below 29
        return
    what = (
        f"{outcome.rejected} of {outcome.read} rows rejected, more than max_reject_ratio {config.max_reject_ratio}: "
        + "; ".join(examples(outcome))
    )
    raise WorkbookError(shown, what, f"all of them are in {rejects}", sheet=sheet)


def check_period(outcome: Outcome, reading: Reading, shown: str, sheet: str) -> None:
    """
    Refuse a workbook none of whose rows is of the month in its name.

    Raises:
        WorkbookError: names both.
    """
    month = reading.file_period
    if month is None or not outcome.periods or month in outcome.periods:
        return
    first, last = min(outcome.periods), max(outcome.periods)
    rows = f"{first:%Y-%m}" + (f" to {last:%Y-%m}" if last > first else "")
    what = f"the name says {month:%Y-%m}, and no row is of it: they are of {rows}"
    raise WorkbookError(shown, what, "correct the file's name, or the rows", sheet=sheet)


def examples(outcome: Outcome) -> list[str]:
    """Return the five first reasons for rejects, one a kind, with how often each came."""
    return [
        outcome.examples[kind] + (f" (and {count - 1} more like it)" if count > 1 else "")
        for kind, count in list(outcome.reasons.items())[:_EXAMPLES]
    ]


def with_rates(base: Reading, found: Rates) -> Reading:
    """Return the reading with what the rate columns mean."""
    return replace(base, percent=found.percent, why={**base.why, **found.why})


@dataclass
class Explained:
    """
    One row by the plain model, told.

    Attributes:
        values: the record's fields, or None where the row is rejected.
        reasons: why it is.
        rules: sheet column or field -> each rule that its cell went through, with the value that it gave.
    """

    values: dict[str, Any] | None
    reasons: list[str]
    rules: dict[str, list[tuple[str, Any]]]


def explain(domain: Domain, columns: Mapping[str, int], reading: Reading, cells: Sequence[Cell]) -> Explained:
    """Validate one row by the whole model, and tell the rules that made its values of its cells."""
    telling = {name: spellings.Telling(reading.why.get(name, "")) for name in (*domain.columns, *domain.sheet_columns)}
    given: dict[str, Any] = {name: cells[at] if at < len(cells) else None for name, at in columns.items()}
    for name, cell in given.items():
        if cell is not None and spellings.is_blank(cell):
            telling[name].decided("a spelling of blank", None)
    parts = {name: given.pop(name, None) for name in domain.names("period")}
    fields: dict[str, Any] = {name: given.get(name) for name in domain.columns}
    fields[domain.period_field] = PeriodCells(**parts)
    try:
        record = domain.model.model_validate(fields, context=replace(reading, telling=telling))
    except ValidationError as error:
        found = [one for problem in error.errors() for one in _reasons(problem, str(problem["loc"][0]))]
        words = {"": domain.columns[domain.period_field], **domain.sheet_columns, **domain.columns}
        return Explained(None, [f"{words[name].word} {reason}" for name, reason in found], {})
    return Explained(dict(record), [], {name: one.steps for name, one in telling.items()})


def key_value(domain: Domain, name: str, text: str) -> Any:
    """
    Return the value of a key's column that a text means, cleaned as a cell is.

    Raises:
        ValueError: it means none; says why.
    """
    cell: Any = PeriodCells(report_period=text) if name == domain.period_field else text
    value, problems = _Field(domain, name, Reading())(cell)
    if problems:
        raise ValueError(problems[0][2])
    return value
