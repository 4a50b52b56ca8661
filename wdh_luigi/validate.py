"""Rows into records and rejects: one pydantic model decides, each row is accounted for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import ValidationError, create_model

from wdh_luigi import spellings, targets
from wdh_luigi.cells import Cell, NumberCell
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import WorkbookError
from wdh_luigi.schema import Domain, PeriodCells, Reading, Record
from wdh_luigi.workbook import Extremes, Profile
from wdh_luigi.workbook.book import Row
from wdh_luigi.workbook.headings import letters

LARGEST_RATIO = Decimal("0.3")
SMALLEST_PERCENT = Decimal(1)
_EXAMPLES = 5
_REMEMBERED = 20_000  # distinct cells of one column: codes and periods repeat, figures need no more than a bound


@dataclass
class Rates:
    """What the bare numbers of a workbook's rate columns mean; what was guessed, for the summary."""

    percent: frozenset[str]
    guessed: list[str] = field(default_factory=list)


_WORDS = {"year": "year", "month": "month", "report_period": "not a period"}  # in the reasons of row_period


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

    def row(self, cells: list[Cell]) -> tuple[Record | None, list[tuple[str, str]]]:
        """Return the row's record, or what is wrong with it: (field, reason) for each bad cell."""
        values: dict[str, Any] = {}
        problems: list[tuple[str, str]] = []
        for name, one in self._fields.items():
            value, reason = one(self._cell(name, cells))
            values[name] = value
            if reason:
                problems.append((name, reason))
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
        fields: Any = {name: (domain.model.model_fields[name].rebuild_annotation(), ...)}
        self._model = create_model(f"{domain.model.__name__}_{name}", **fields)
        self._name = name
        self._reading = reading
        self._known: dict[Any, tuple[Any, str]] = {}

    def __call__(self, cell: Any) -> tuple[Any, str]:
        key = _distinct(cell)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._validate(cell)
        return found

    def _validate(self, cell: Any) -> tuple[Any, str]:
        try:
            record = self._model.model_validate({self._name: cell}, context=self._reading)
        except ValidationError as error:
            return None, "; ".join(_reason(dict(problem)) for problem in error.errors())
        return getattr(record, self._name), ""


def _distinct(cell: Any) -> Any:
    """Return what tells a cell from every other: True, 1 and 1.0 are equal to Python, and not to us."""
    if isinstance(cell, PeriodCells):
        return _distinct(cell.year), _distinct(cell.month), _distinct(cell.period)
    if isinstance(cell, NumberCell):
        return type(cell.value), cell.value, cell.format
    return type(cell), cell


def _reason(problem: dict[str, Any]) -> str:
    """Put pydantic's finding into words for the sender."""
    context = problem.get("ctx") or {}
    match problem["type"]:
        case "value_error":
            return str(context["error"])
        case "greater_than":
            return f"must be greater than {context['gt']} (is {problem['input']})"
        case "greater_than_equal":
            return f"must be at least {context['ge']} (is {problem['input']})"
        case "less_than_equal":
            return f"must be at most {context['le']} (is {problem['input']})"
        case "decimal_max_digits" | "decimal_whole_digits":
            return f"too large (is {problem['input']})"
    return str(problem["msg"])


def reading(profile: Profile, config: DomainConfig, domain: Domain, month: date | None, today: date) -> Reading:
    """Collect what a workbook's headings, name and configuration say of all its cells, but for its rates."""
    given = profile.headings
    factors = {
        name: spellings.FACTORS[given.units.get(name) or given.line_unit or "元"]
        for name, column in domain.sheet_columns.items()
        if column.unit == "money"
    }
    return Reading(
        factors=factors,
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
    percent, guesses = set(), []
    for name, column in domain.sheet_columns.items():
        if column.unit != "rate" or name not in profile.headings.columns:
            continue
        if config.rate_unit != "auto":
            means_percent, guessed = config.rate_unit == "percent", ""
        elif profile.headings.units.get(name) == "%":
            means_percent, guessed = True, ""
        else:
            means_percent, guessed = _by_size(profile.extremes[name], column.word, profile, shown)
        if means_percent:
            percent.add(name)
        if guessed:
            meaning = "percent points" if means_percent else "ratios"
            guesses.append(f"{column.word}: bare numbers are {meaning}, guessed by size ({guessed})")
    return Rates(frozenset(percent), guesses)


def _by_size(found: Extremes, word: str, profile: Profile, shown: str) -> tuple[bool, str]:
    if found.smallest is None or found.largest is None:
        return False, ""
    extremes = f"smallest {found.smallest} in {found.smallest_cell}, largest {found.largest} in {found.largest_cell}"
    sheet = profile.sheet
    mend = "set rate_unit: ratio or percent in data_sources.yml, or write % into the heading"
    if not profile.gives_formats:
        what = f"whether {word} counts ratios or percent points is not known: this format's cells show no percent sign"
        raise WorkbookError(shown, what, mend, sheet=sheet)
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
        digest: sha256 over the accepted records in the order of their rows.
        conflicts: rows that were accepted before another row contradicted them; they are rejected.
        reasons: how often each reason rejected a row, with its first instance.
    """

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    digest: str = ""
    conflicts: set[int] = field(default_factory=set)
    duplicates: list[dict[str, int]] = field(default_factory=list)
    warnings: int = 0
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
        self._rows_of: dict[tuple[Any, ...], _Rows] = {}
        self.outcome = Outcome()

    def accepted(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yield each record that is accepted as it is met: the fields, has_data, warnings and its row number."""
        for number, cells in rows:
            self.outcome.read += 1
            record, problems = self._clean.row(cells)
            if record is None:
                self.outcome.rejected += 1
                for name, reason in problems:
                    self._tell(number, cells, name, reason)
            elif self._is_first(record, number):
                yield self._document(record, number)
        self._tell_conflicts()

    def _document(self, record: Record, number: int) -> dict[str, Any]:
        values = dict(record)
        figures = self._domain.names("figure")
        warnings = record.warnings(self._reading)
        self.outcome.warnings += bool(warnings)
        return {
            "row": number,
            **values,
            "has_performance_data": any(values[name] is not None for name in figures),
            "validation_warnings": warnings,
        }

    def _is_first(self, record: Record, number: int) -> bool:
        values = dict(record)
        key = tuple(values[name] for name in self._key)
        mark = hash(repr(values))  # of the text: Python's hash(-1) is hash(-2)
        known = self._rows_of.get(key)
        if known is None:
            self._rows_of[key] = _Rows(number, mark)
            return True
        known.add(number, mark)
        return False

    def _tell_conflicts(self) -> None:
        """Settle the keys that were met more than once, when all rows are known."""
        accepted = len(self._rows_of)
        for key, rows in self._rows_of.items():
            if rows.others is None:
                continue
            if rows.differ:
                accepted -= 1
                self._tell_conflict(key, [rows.first, *rows.others])
                self.outcome.conflicts.add(rows.first)
            else:
                self.outcome.duplicate += len(rows.others)
                self.outcome.duplicates += [{"row": row, "of": rows.first} for row in rows.others]
        self.outcome.accepted = accepted

    def _tell_conflict(self, key: tuple[Any, ...], rows: list[int]) -> None:
        self.outcome.rejected += len(rows)
        shown = ", ".join(str(part) for part in key)
        for row in rows:
            others = [str(other) for other in rows if other != row]
            listed = ", ".join(others[:_EXAMPLES]) + (f" and {len(others) - _EXAMPLES} more" if len(others) > 5 else "")
            reason = f"the key ({shown}) stands also in row {listed}, with other values"
            self._record_reject(row, "", "", self._key[-1], shown, reason, kind="one key with differing values")

    def _tell(self, number: int, cells: list[Cell], name: str, reason: str) -> None:
        """Reject a row for one bad cell; a period is named by the columns that it was read from."""
        parts = [name]
        if name == self._domain.period_field:
            parts = [part for part in self._domain.names("period") if part in self._columns] or [name]
        part = next((one for one in parts if _WORDS.get(one, "") in reason), parts[0])
        at = self._columns.get(part)
        cell = f"{letters(at)}{number}" if at is not None else ""
        shown = spellings.shown(self._clean.cell(part, cells)) if at is not None else ""
        self._record_reject(number, cell, self._texts.get(part, ""), name, shown, reason, kind=reason)

    def _record_reject(
        self, row: int, cell: str, heading: str, name: str, value: str, reason: str, *, kind: str
    ) -> None:
        word = self._domain.columns[name].word
        kind = f"{word}: {kind}"
        self.outcome.reasons[kind] += 1
        place = f"cell {cell}" if cell else f"row {row}"
        self.outcome.examples.setdefault(kind, f"{place} {heading or word} {value!r}: {reason}")
        self._reject({"row": row, "cell": cell, "heading": heading, "field": name, "value": value, "reason": reason})


@dataclass(slots=True)
class _Rows:
    """The rows in which a key was met; almost always one."""

    first: int
    mark: int
    others: list[int] | None = None
    differ: bool = False

    def add(self, number: int, mark: int) -> None:
        self.others = [*(self.others or []), number]
        self.differ = self.differ or mark != self.mark


def check_ratio(outcome: Outcome, config: DomainConfig, shown: str, sheet: str, rejects: str) -> None:
    """
    Refuse a workbook of which too much was rejected.

    Raises:
        WorkbookError: names the counts, the five first reasons, and where all of them are.
    """
    if outcome.read == 0:
        raise WorkbookError(shown, "no data row below the headings", "send the workbook with its rows", sheet=sheet)
    if outcome.rejected <= config.max_reject_ratio * outcome.read:
        return
    what = (
        f"{outcome.rejected} of {outcome.read} rows rejected, more than max_reject_ratio {config.max_reject_ratio}: "
        + "; ".join(examples(outcome))
    )
    raise WorkbookError(shown, what, f"all of them are in {rejects}", sheet=sheet)


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
    return replace(base, percent=found.percent)
