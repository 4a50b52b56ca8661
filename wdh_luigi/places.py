"""How far each place is, what would run next, and why: wdh status. It writes nothing."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from wdh_luigi import accounts, config, plan, run, targets, warehouse
from wdh_luigi.accounts import Account
from wdh_luigi.discover import Candidate, Snapshot
from wdh_luigi.errors import WdhError, WorkDirError
from wdh_luigi.steps import STEPS, Steps
from wdh_luigi.warehouse import Standing

State = Literal["chosen", "read", "validated", "planned", "loaded", "reverted", "failed"]
_COUNTS = ("read", "accepted", "rejected", "duplicate", "skipped")


@dataclass(frozen=True)
class Place:
    """
    How far a place is, by the names of the JSON document.

    Attributes:
        workbook: the chosen one's path below the inbox.
        warning: what is doubtful about where the workbook lies.
        rows: of the workbook: read, accepted, rejected, duplicate, skipped; None until it is validated.
        rejects: where the rejects are, if there are any.
        plan: where the plan is; None until it is written.
        reviewable: a plan-only run wrote the plan.
        loaded: the place's newest load, of this workbook or of another; None where there is none or it is not known.
        failures: the last failure of each step that has not succeeded since: step, error, at.
        next: the first step that the next executing run does; None where it does nothing.
    """

    domain: str
    table: str
    period: str
    source: str
    workbook: str
    version: int
    sha256: str
    warning: str
    state: State
    rows: dict[str, int] | None
    rejects: str | None
    plan: str | None
    plan_digest: str | None
    reviewable: bool
    loaded: dict[str, Any] | None
    failures: list[dict[str, str]]
    next: str | None
    why: str


@dataclass
class Domain:
    """
    How far a domain's places are.

    Attributes:
        database: why the database does not say what is loaded; None where it does.
        gone: the newest loads of places whose workbook is no longer in the inbox.
    """

    domain: str
    table: str
    inbox: str
    database: str | None
    places: list[Place] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)

    @property
    def to_do(self) -> int:
        """Count the places that the next run does something for."""
        return sum(one.next is not None for one in self.places)

    def states(self) -> dict[State, int]:
        """Count the places by their state."""
        return dict(Counter(one.state for one in self.places))

    def document(self) -> dict[str, Any]:
        """Return what --json shows."""
        return asdict(self) | {"to_do": self.to_do}


def status(domain: str, period: str | None, connection: warehouse.Connection | None, unknown: str) -> Domain:
    """
    Tell how far a domain's places are.

    Args:
        period: "2024-11", "latest", "all", or None for what a run without --period takes.
        connection: None where the database is not asked.
        unknown: then, why not.
    Raises:
        WdhError: the configuration, the inbox or the database cannot be used.
    """
    snapshot = run.look(domain, period)
    work = config.load_settings().work_dir
    chosen = {(file.period, file.source): Steps(work, snapshot, file) for file in snapshot.chosen}
    known = Domain(domain, snapshot.config.table, snapshot.inbox, None if connection else unknown)
    loads: dict[tuple[str, str], Standing] = {}
    if connection is not None:
        any_place = plan.Place(domain, snapshot.config.table, "", "")
        loads = warehouse.newest_loads(connection, any_place, counted=chosen.keys())
        known.gone = _gone(snapshot, period, loads)
    former = _Former(work / domain / "load")
    for key, one in sorted(chosen.items()):
        known.places.append(_Look(one, former, loads.get(key), is_asked=connection is not None).place())
    return known


def _gone(snapshot: Snapshot, period: str | None, loads: Mapping[tuple[str, str], Standing]) -> list[dict[str, Any]]:
    """Return the loads of places that no workbook of the inbox has; of one period where that is asked for."""
    present = {(file.period, file.source) for file in snapshot.files if _is_candidate(file)}
    gone = sorted(key for key in loads.keys() - present if period in (None, "latest", "all", key[0]))
    return [{"period": key[0], "source": key[1], **_load(loads[key])} for key in gone]


def _is_candidate(file: Candidate) -> bool:
    return bool(file.period or file.sha256 or file.chosen)


def _load(standing: Standing) -> dict[str, Any]:
    says = standing.says
    return {
        "load_id": says["load_id"],
        "at": says.get("finished_at"),
        "by": says.get("loaded_by"),
        "workbook": says["workbook"],
        "sha256": says["workbook_sha256"],
        "plan_digest": says.get("plan_digest"),
        "inserted": says["inserted"],
        "taken_over": says.get("taken_over", 0),
        "standing": standing.rows,
        "reverted_at": says.get("reverted_at"),
        "reverted_by": says.get("reverted_by"),
    }


class _Former:
    """The accounts of plans that were written before, read when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def _newest(self) -> list[Account]:
        return sorted(accounts.readable(self._folder), key=lambda one: one.written, reverse=True)

    @functools.cached_property
    def _of_workbook(self) -> dict[tuple[str, str], Account]:
        return {(one.workbook, one.sha256): one for one in reversed(self._newest)}

    @functools.cached_property
    def _of_place(self) -> dict[plan.Place, Account]:
        return {one.place: one for one in reversed(self._newest)}

    def of_workbook(self, file: Candidate) -> Account | None:
        """Return the newest account of a workbook with the same bytes."""
        return self._of_workbook.get((file.path, file.sha256))

    def of_place(self, place: plan.Place) -> Account | None:
        """Return the newest account of a place, whichever its workbook."""
        return self._of_place.get(place)


class _Look:
    """
    One place, looked at.

    Args:
        standing: its newest load.
        is_asked: the database was asked.
    """

    def __init__(self, one: Steps, former: _Former, standing: Standing | None, *, is_asked: bool) -> None:
        self._one = one
        self._former = former
        self._standing = standing
        self._is_asked = is_asked

    def place(self) -> Place:
        """Return how far the place is; a damaged file of the work directory is its place's failure alone."""
        try:
            return self._place()
        except WdhError as error:
            self._outcome = self._planned = None  # one of them is the damaged one
            return self._described("failed", "Load", str(error), self._failures)

    def _place(self) -> Place:
        step, why = self._next()
        failures = self._failures if step or not self._is_asked else []
        if not failures:
            return self._described(self._state(step), step, why, [])
        last = failures[-1]
        why = f"failed {minute(last['at'])}: {last['error']}"
        return self._described("failed", step or last["step"] or "Load", why, failures)

    def _described(self, state: State, step: str | None, why: str, failures: list[dict[str, str]]) -> Place:
        one, file, place = self._one, self._one.file, self._one.place
        is_planned, rows = self._planned is not None, self._rows
        return Place(
            domain=place.domain,
            table=place.table,
            period=place.period,
            source=place.source,
            workbook=file.path,
            version=file.version,
            sha256=file.sha256,
            warning=file.warning,
            state=state,
            rows=rows,
            rejects=str(one.rejects_path) if one.rejects_path.exists() and (not rows or rows["rejected"]) else None,
            plan=str(one.plan_path) if is_planned else None,
            plan_digest=self._planned["plan_digest"] if self._planned else None,
            reviewable=bool(self._planned and self._planned["reviewable"]),
            loaded=_load(self._standing) if self._standing else None,
            failures=failures,
            next=step,
            why=why,
        )

    @functools.cached_property
    def _outcome(self) -> dict[str, Any] | None:
        one = self._one
        names = ("digest", *(f"rows_{name}" for name in _COUNTS))
        return _document(one.outcome_path, *names) if one.has_targets_of("ProcessTrustee") else None

    @property
    def _rows(self) -> dict[str, int] | None:
        return {name: self._outcome[f"rows_{name}"] for name in _COUNTS} if self._outcome else None

    @functools.cached_property
    def _planned(self) -> dict[str, Any] | None:
        one = self._one
        return _document(one.planned_path, "plan_digest", "reviewable") if one.planned() else None

    @functools.cached_property
    def _failures(self) -> list[dict[str, str]]:
        """Return the failures of the present steps, the last one last; a damaged one tells of itself."""
        found = []
        for path in map(self._one.failure_path, STEPS):
            if path.exists():
                try:
                    says = _document(path, "time", "step", "error")
                    found.append((float(says["time"]), str(says["step"]), str(says["error"])))
                except WdhError as error:
                    found.append((path.stat().st_mtime, "", str(error)))
        return [
            {"step": step, "error": error, "at": datetime.fromtimestamp(time).astimezone().isoformat()}
            for time, step, error in sorted(found)
        ]

    def _state(self, step: str | None) -> State:
        if step is None and self._is_asked:
            return "reverted" if self._standing and self._standing.receipt.reverted else "loaded"
        if self._planned:
            return "planned"
        if self._outcome:
            return "validated"
        return "read" if self._is_read else "chosen"

    @property
    def _is_read(self) -> bool:
        return self._one.has_targets_of("ReadExcel")

    def _next(self) -> tuple[str | None, str]:
        """Return the step that an executing run begins with, and why; in plan-only terms where no database is asked."""
        if self._is_asked and self._outcome and self._is_loaded:
            return None, self._stands()
        if self._planned and self._is_asked:
            return "Load", self._why_load()
        if self._planned and self._planned["reviewable"]:
            return None, "planned; whether it is loaded is not known"
        if self._outcome:
            step, otherwise = "Load", "validated, not planned"
        elif self._is_read:
            step, otherwise = "ProcessTrustee", "read, not validated"
        else:
            step, otherwise = "ReadExcel", "not read in this work directory"
        if self._planned:
            otherwise = "planned by an executing run only, to be written again for a review"
        return step, self._why(step, otherwise)

    @property
    def _is_loaded(self) -> bool:
        assert self._outcome is not None, "asked of records that are known"
        receipt = self._standing.receipt if self._standing else None
        return warehouse.is_loaded(receipt, self._outcome["digest"], self._one.config.replace)

    def _stands(self) -> str:
        assert self._standing is not None, "it is loaded"
        if self._standing.receipt.reverted:
            return "reverted, until the workbook changes or wdh apply is given its plan"
        return "loaded"

    def _why_load(self) -> str:
        """Say why a plan that is written is to be loaded, by the database."""
        standing, outcome = self._standing, self._outcome
        if standing is None:
            if self._one.loaded_path.exists():
                load_id = _document(self._one.loaded_path, "receipt")["receipt"]
                return f"planned; load {load_id} is not in this database: it is another one, or was emptied"
            return "planned, not loaded"
        says, receipt = standing.says, standing.receipt
        if outcome and receipt.digest != outcome["digest"]:
            return f"planned; the place's newest load ({self._newest}) is of other records"
        if receipt.replace != self._one.config.replace:
            return f"planned; replace {receipt.replace} -> {self._one.config.replace} since load {receipt.load_id}"
        there = 0 if standing.rows is None else standing.rows
        stand = says["inserted"] - says.get("taken_over", 0)
        return f"planned; of load {receipt.load_id}'s {stand} rows the table holds {there}"

    @property
    def _newest(self) -> str:
        assert self._standing is not None
        return f"{self._standing.says['load_id']}, {self._standing.says['workbook']}"

    def _why(self, step: str, otherwise: str) -> str:
        """Say why a step is to be done, by what is different from the last time that the place came further."""
        file, place = self._one.file, self._one.place
        if not file.sha256:
            return file.reason
        if changed := self._changed(step):
            return changed
        if self._standing is not None and self._standing.says["workbook_sha256"] != file.sha256:
            since = f"load {self._standing.says['load_id']}"
            return _replaced(file, self._standing.says["workbook"], since)
        if self._standing is not None:
            return f"{otherwise}; its bytes are those of load {self._standing.says['load_id']}"
        before = self._former.of_place(place)
        if before is not None and before.sha256 != file.sha256:
            since = "its plan" if before.load_id is None else f"load {before.load_id}"
            return _replaced(file, before.workbook, since)
        return otherwise

    def _changed(self, step: str) -> str:
        """Say what a step depends on that is another than when the workbook was planned before."""
        before = self._former.of_workbook(self._one.file)
        if before is None:
            return ""
        then, now = before.conditions.get(step, {}), targets.loads(targets.dumps(self._one.conditions[step]))
        return ", ".join(
            f"{name} {_shown(then.get(name))} -> {_shown(value)}" if name not in _HIDDEN else _HIDDEN[name]
            for name, value in now.items()
            if then.get(name) != value
        )


_HIDDEN = {
    "code": "the step's code changed",
    "headings": "the domain's headings changed",
    "month": "the month began",
    "source": "the source is read from its name otherwise",
}


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _replaced(file: Candidate, former: str, since: str) -> str:
    if former == file.path:
        return f"the workbook changed since {since}"
    return f"takes the place of {former} ({since})"


def _document(path: Path, *names: str) -> dict[str, Any]:
    """
    Read a JSON document of the work directory that has certain names.

    Raises:
        WorkDirError: it is not what was written.
    """
    document = targets.read_json(path)
    if not isinstance(document, dict) or not document.keys() >= set(names):
        raise WorkDirError(str(path), "is not what was written", "delete it and run again")
    return document


def minute(at: str) -> str:
    """Return a time in ISO 8601 as people read it, on this machine's clock."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")
