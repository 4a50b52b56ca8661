"""Rows into records and rejects: one pydantic model decides, each row is accounted for."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import ValidationError, create_model

from wdh_luigi import spellings, targets
from wdh_luigi.cells import Cell, NumberCell
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import WorkbookError
from wdh_luigi.schema import Domain, PeriodCells, PeriodError, Reading, Record
from wdh_luigi.workbook import Extremes, Profile
from wdh_luigi.workbook.book import Row
from wdh_luigi.workbook.headings import letters

LARGEST_RATIO = Decimal("0.3")
SMALLEST_PERCENT = Decimal(1)
_EXAMPLES = 5
_REMEMBERED = 20_000  # distinct cells of one column: codes and periods repeat, figures need no more than a bound
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
    Validate rows into records, each distinct cell of a column once.

    The model's own field decides about a cell (a model of that one field), so that this says what the whole model
    would say of the row.
    """

    def __init__(self, domain: Domain, columns: Mapping[str, int], reading: Reading) -> None:
        self._domain = domain
        self._reading = reading
        self._at = {name: columns.get(name) for name in domain.sheet_columns}
        self._fields = {name: _Field(domain, name, reading) for name in domain.columns}

    def row(self, cells: list[Cell]) -> tuple[Record | None, list[Problem]]:
        """Return the row's record, or what is wrong with it, all of it."""
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, one in self._fields.items():
            values[name], found = one(self._cell(name, cells))
            problems += found
        if problems:
            return None, problems
        return self._domain.model.model_construct(**values), []

    def _cell(self, name: str, cells: list[Cell]) -> Cell | PeriodCells:
        if name == self._domain.period_field:
            return PeriodCells(*(self.cell(part, cells) for part in ("year", "month", "report_period")))
        return self.cell(name, cells)

    def cell(self, name: str, cells: list[Cell]) -> Cell:
        """Return the cell under a heading; None where the sheet has no such column."""
        at = self._at[name]
        return cells[at] if at is not None and at < len(cells) else None


class _Field:
    """One field of the model, which remembers what it said of each distinct cell."""

    def __init__(self, domain: Domain, name: str, reading: Reading) -> None:
        model = domain.model
        fields: Any = {name: (model.model_fields[name].rebuild_annotation(), ...)}
        self._model = create_model(f"{model.__name__}_{name}", __config__=model.model_config, **fields)
        self._name = name
        self._reading = reading
        self._known: dict[Any, tuple[Any, list[Problem]]] = {}

    def __call__(self, cell: Any) -> tuple[Any, list[Problem]]:
        if isinstance(cell, str) and len(cell) > _LONG:
            return self._validate(cell)
        key = _distinct(cell)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._validate(cell)
        return found

    def _validate(self, cell: Any) -> tuple[Any, list[Problem]]:
        try:
            record = self._model.model_validate({self._name: cell}, context=self._reading)
        except ValidationError as error:
            return None, [(self._name, *found) for problem in error.errors() for found in _reasons(problem, self._name)]
        return getattr(record, self._name), []


def _distinct(cell: Any) -> Any:
    """Return what tells a cell from every other: True, 1 and 1.0 are equal to Python, and not to us."""
    if isinstance(cell, PeriodCells):
        return _distinct(cell.year), _distinct(cell.month), _distinct(cell.report_period)
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


class Validation:
    """
    Sort a workbook's rows into accepted records and rejects.

    ``accepted()`` yields the records as JSON objects while the rows are read; afterwards ``outcome.conflicts`` names
    those among them that a later row contradicted. ``reject`` is called with every reject, as JSON, in order.
    """

    def __init__(
        self, domain: Domain, profile: Profile, config: DomainConfig, reading: Reading, reject: Callable[[Any], None]
    ) -> None:
        self._domain = domain
        self._columns = profile.headings.columns
        self._texts = profile.headings.texts
        self._clean = Clean(domain, self._columns, reading)
        self._reading = reading
        self._key = config.pk or [name for name, column in domain.columns.items() if column.kind != "figure"]
        self._reject = reject
        self._keys = Keys()
        self.outcome = Outcome()

    def accepted(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yield each record that is accepted as it is met: the fields, has_data, warnings and its row number."""
        for number, cells in rows:
            self.outcome.read += 1
            record, problems = self._clean.row(cells)
            if record is None:
                self.outcome.rejected += 1
                for problem in problems:
                    self._tell(number, cells, *problem)
                continue
            values = dict(record)
            self.outcome.periods[values[self._domain.period_field]] += 1
            if self._keys.is_first(tuple(values[name] for name in self._key), values, number):
                yield self._document(record, values, number)
        self._settle()

    def _document(self, record: Record, values: dict[str, Any], number: int) -> dict[str, Any]:
        figures = self._domain.names("figure")
        warnings = record.warnings(self._reading)
        self.outcome.warnings += bool(warnings)
        return {
            "row": number,
            **values,
            "has_performance_data": any(values[name] is not None for name in figures),
            "validation_warnings": warnings,
        }

    def _settle(self) -> None:
        """Settle the keys that were met more than once, when all rows are known."""
        outcome = self.outcome
        outcome.accepted = len(self._keys)
        for key, rows, differ in self._keys.repeated():
            if differ:
                outcome.accepted -= 1
                outcome.rejected += len(rows)
                outcome.conflicts.add(rows[0])
                self._tell_conflict(", ".join(str(part) for part in key), rows)
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

    def _tell(self, number: int, cells: list[Cell], name: str, column: str, reason: str) -> None:
        """Reject a row for one bad cell, which stands in one of the sheet's columns."""
        if not column:  # of the period: any of its columns could say it
            column = next((part for part in self._domain.names("period") if part in self._columns), "")
        at = self._columns.get(column)
        cell = f"{letters(at)}{number}" if at is not None else ""
        shown = spellings.shown(self._clean.cell(column, cells)) if at is not None else ""
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


class Keys:
    """The rows in which each key was met, and whether they say the same."""

    def __init__(self) -> None:
        self._met: dict[tuple[Any, ...], _Met] = {}

    def __len__(self) -> int:
        return len(self._met)

    def is_first(self, key: tuple[Any, ...], values: dict[str, Any], row: int) -> bool:
        """Note a row; tell whether its key was not met before."""
        mark = hash(repr(values))  # of the text: Python's hash(-1) is hash(-2)
        known = self._met.get(key)
        if known is None:
            self._met[key] = _Met(row, mark)
            return True
        if known.others is None:
            known.others = []
        known.others.append(row)
        known.differ = known.differ or mark != known.mark
        return False

    def repeated(self) -> Iterator[tuple[tuple[Any, ...], list[int], bool]]:
        """Yield (key, its rows, whether they differ) for the keys that were met more than once."""
        for key, met in self._met.items():
            if met.others is not None:
                yield key, [met.row, *met.others], met.differ


@dataclass(slots=True)
class _Met:
    row: int
    mark: int
    others: list[int] | None = None
    differ: bool = False


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


def digest(records: Iterable[dict[str, Any]]) -> tuple[int, str]:
    """Return how many records there are, and the sha256 over them in their order."""
    sha, count = hashlib.sha256(), 0
    for record in records:
        sha.update(targets.dumps(record) + b"\n")
        count += 1
    return count, sha.hexdigest()


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
