"""
The steps of one workbook, from its bytes to its plan: functions of a snapshot's workbook and files, without Luigi.

Every step's key is the sha256 of what it depends on: the workbook's bytes and name, the configuration and the code
that matter to it, and through the step before it all that mattered there. Its files are named by that key, so that
what is there is right, and what changed has another name.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from wdh_luigi import cells, domains, plan, sorting, targets, validate, workbook
from wdh_luigi.config import DomainConfig, load_settings
from wdh_luigi.discover import Candidate, Snapshot
from wdh_luigi.errors import ConfigError, WdhError, WorkbookError
from wdh_luigi.schema import CORRECTION, ORIGINAL_ROW, Domain, Reading
from wdh_luigi.workbook import Extremes, Profile, guard
from wdh_luigi.workbook.headings import Headings, letters

STEPS = ("ReadExcel", "ProcessTrustee", "Load")


class Steps:
    """
    One workbook's steps under a work directory.

    Args:
        work: the work directory.
        snapshot: the run's frozen inbox and configuration.
        file: the workbook, one of the snapshot's.
    """

    def __init__(self, work: Path, snapshot: Snapshot, file: Candidate) -> None:
        self.file = file
        self.config = snapshot.config
        self.domain = domains.get(snapshot.domain)
        self.path = Path(snapshot.inbox) / file.path
        self._folder = work / snapshot.domain

    @functools.cached_property
    def conditions(self) -> dict[str, dict[str, Any]]:
        """Return what each step's result depends on, beside the workbook and the step before, by its names."""
        headings = {name: column.headings for name, column in self.domain.sheet_columns.items()}
        return {
            "ReadExcel": {**self._settings("sheet", "reader"), "headings": targets.digest_of(headings)}
            | {"code": _code("workbook")},
            "ProcessTrustee": self._settings("rate_unit", "max_reject_ratio", "replace", "pk")
            | {"month": self.file.period or f"{date.today():%Y-%m}", "code": _code("validate", self.domain.name)},
            "Load": self._settings("table", "pk", "mode", "replace", "overlap", "max_delete_ratio")
            | self._settings("lock_timeout", "statement_timeout", "keep_history")
            | {"source": self.file.source, "code": _code("plan")},
        }

    def _settings(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in names}

    @functools.cached_property
    def read_key(self) -> str:
        """Depends on the bytes, the name, the sheet wanted, and how sheets are read."""
        # Without bytes to go by (unreadable), what is the matter stands for them.
        content = self.file.sha256 or self.file.reason
        return targets.digest_of("read", self.file.path, content, self.conditions["ReadExcel"])

    @functools.cached_property
    def process_key(self) -> str:
        """Depends on what was read, the file's period, and the domain's rules."""
        return targets.digest_of("process", self.read_key, self.conditions["ProcessTrustee"])

    @functools.cached_property
    def load_key(self) -> str:
        """Depends on the records, the place, and how they are loaded."""
        return targets.digest_of("load", self.process_key, self.conditions["Load"])

    @property
    def rows_path(self) -> Path:
        """Return where the rows as read are."""
        return self._folder / "read" / f"{self.read_key}.rows.json"

    @property
    def profile_path(self) -> Path:
        """Return where the sheet's profile is; written last."""
        return self._folder / "read" / f"{self.read_key}.json"

    @property
    def accepted_path(self) -> Path:
        """Return where the accepted records are."""
        return self._folder / "process" / f"{self.process_key}.accepted.json"

    @property
    def rejects_path(self) -> Path:
        """Return where the rejects are."""
        return self._folder / "process" / f"{self.process_key}.rejects.json"

    @property
    def copied_path(self) -> Path:
        """Return where the accepted records are as the plan's COPY takes them."""
        return self._folder / "process" / f"{self.process_key}.accepted.copy"

    @property
    def _sorted_files(self) -> sorting.Files:
        ahead = self._folder / "process" / f"{self.process_key}.ahead.json"
        return sorting.Files(self.accepted_path, self.copied_path, self.rejects_path, ahead)

    @property
    def rejects_workbook_path(self) -> Path:
        """Return where the rejects workbook is, under the name with which, corrected, it is put into the inbox."""
        name = PurePosixPath(self.file.path).stem.encode()[:200].decode(errors="ignore")
        return self._folder / "rejects" / self.process_key[:12] / f"{CORRECTION}_{name}.xlsx"

    @property
    def outcome_path(self) -> Path:
        """Return where the account of the rows is; written last."""
        return self._folder / "process" / f"{self.process_key}.json"

    @property
    def plan_path(self) -> Path:
        """Return where the plan is."""
        return self._folder / "plans" / f"{self.file.period or 'undated'}-{self.load_key[:12]}.sql"

    @property
    def planned_path(self) -> Path:
        """Return where the plan's account is."""
        return self._folder / "load" / f"{self.load_key}.json"

    @property
    def loaded_path(self) -> Path:
        """Return where the account of the applied plan is."""
        return self._folder / "load" / f"{self.load_key}.loaded.json"

    def failure_path(self, step: str) -> Path:
        """Return where a step's last failure is told."""
        return self._folder / "failed" / f"{targets.digest_of(step, self.load_key)}.json"

    def targets_of(self, step: str) -> list[Path]:
        """Return the files that there are when a step is done, the one that is written last at the end."""
        every = {
            "ReadExcel": [self.rows_path, self.profile_path],
            "ProcessTrustee": [self.accepted_path, self.copied_path, self.rejects_path, self.outcome_path],
            "Load": [self.plan_path, self.planned_path],
        }
        return every[step]

    def has_targets_of(self, step: str) -> bool:
        """Tell whether all files of a step are there."""
        return all(path.exists() for path in self.targets_of(step))

    @property
    def place(self) -> plan.Place:
        """Return what the workbook fills in the warehouse."""
        return plan.Place(self.domain.name, self.config.table, self.file.period, self.file.source)

    def read(self, progress: Callable[[int, int | None], None] = lambda rows, last_row: None) -> dict[str, Any]:
        """
        Read the workbook's sheet, and sort its rows ahead; return its profile.

        Args:
            progress: called twice a second with the rows read so far, and the sheet's last row where it says one.
        """
        if not self.file.sha256:
            raise WorkbookError(
                self.file.path, self.file.reason, "give this user the right to read it, or send it again"
            )
        settings, open_book = load_settings(), workbook.opener(self.config.reader, self.file.path)
        seen = mmap.mmap(-1, _SEEN.size)  # shared with the reading process, which says it
        limits: Any = {
            "shown": self.file.path,
            "memory": settings.read_memory_mb << 20,
            "seconds": settings.read_seconds,
        }
        with (
            targets.atomic_write(self.rows_path) as file,
            sorting.ahead(
                self._sorted_files, Path(file.name), self.domain, self.config, self._reading, **limits
            ) as ahead,
        ):
            profile = guard.run(
                self._read_into,
                file,
                open_book,
                ahead.telling,
                seen,
                watch=lambda: _tell(progress, seen),
                **limits,
            )
            ahead.telling.end()
            self._check_unchanged()
            os.fsync(file.fileno())  # while the last rows are sorted: at the end there is little left to wait for
            done = ahead.result()
        targets.write_json(self.profile_path, profile)
        if done is not None:
            sorting.keep(self._sorted_files, done)
        return profile

    def _read_into(
        self, file: BinaryIO, open_book: workbook.OpenBook, telling: sorting.Telling, seen: mmap.mmap
    ) -> dict[str, Any]:
        """Write the rows as read into a file; return the sheet's profile."""
        table = workbook.open_table(self.path, self.file.path, self.config.sheet, self.domain, open_book)
        out = targets.Output(file, self.rows_path)
        last_row = table.last_row() or 0

        def wrote(rows: int) -> None:
            seen[:] = _SEEN.pack(rows, last_row)
            telling.go_on()

        try:
            seen[:] = _SEEN.pack(0, last_row)
            telling.begin(table.profile)
            sorting.write_batches(out, table.batches(), wrote)
            return _profile_document(table.profile)
        finally:
            table.close()

    def _reading(self, profile: Profile) -> Reading:
        return validate.reading(profile, self.config, self.domain, self.file.month, date.today())

    def _check_unchanged(self) -> None:
        """Refuse rows of a file that is not, or not any more, the one that the snapshot saw."""
        try:
            same = targets.file_digest(self.path) == self.file.sha256
        except OSError:
            same = False
        if not same:
            raise WorkbookError(self.file.path, "changed while the run went on", "run again when it is whole")

    def process(self) -> dict[str, Any]:
        """Sort the rows into accepted records and rejects; return the account."""
        profile = _profile(targets.read_json(self.profile_path))
        shown, config, files = self.file.path, self.config, self._sorted_files
        rates = validate.rates(profile, config, self.domain, shown)
        reading = validate.with_rates(self._reading(profile), rates)
        done = sorting.kept(files, rates.percent) or sorting.sort(
            files, sorting.read_batches(self.rows_path), self.domain, profile, config, reading
        )
        outcome = done.outcome
        assert outcome.read == outcome.accepted + outcome.rejected + outcome.duplicate, outcome
        assert outcome.read == profile.rows_read, f"{outcome.read} rows sorted, {profile.rows_read} read"
        if outcome.rejected:
            self._write_rejects_workbook(profile, rates)
        validate.check_ratio(outcome, config, shown, profile.sheet, str(self.rejects_path))
        if ORIGINAL_ROW not in profile.headings.ignored:  # the rejects of a month may all be late rows
            validate.check_period(outcome, reading, shown, profile.sheet)
        account = {
            "sheet": profile.sheet,
            "rows_read": outcome.read,
            "rows_accepted": outcome.accepted,
            "rows_rejected": outcome.rejected,
            "rows_duplicate": outcome.duplicate,
            "rows_skipped": profile.rows_skipped,
            "rows_with_warnings": outcome.warnings,
            "duplicates": outcome.duplicates,
            "digest": done.digest,
            "dates": [min(outcome.periods), max(outcome.periods)] if outcome.periods else None,
            "guessed": list(rates.guessed.values()),
            "examples": validate.examples(outcome),
            "workbook": shown,
            "sha256": self.file.sha256,
            "read": self.read_key,
            "reading": _reading_document(reading),
        }
        targets.write_json(self.outcome_path, account)
        return account

    def _write_rejects_workbook(self, profile: Profile, rates: validate.Rates) -> None:
        """Write the rejected rows as a workbook; what was guessed from all rows is said in its headings and formats."""
        from wdh_luigi import rejects  # here, as it brings openpyxl, and most runs reject nothing

        found = profile.headings
        texts = list(found.row_texts)
        for name in rates.percent & rates.guessed.keys():
            texts[found.columns[name]] += "(%)"
        ratios = [found.columns[name] for name in rates.guessed.keys() - rates.percent]
        titles = [row for number, row in profile.top if number < found.first_row]
        by_row = rejects.by_row(targets.read_rows(self.rejects_path))
        with targets.atomic_write(self.rejects_workbook_path) as file:
            rejects.write(file, profile.sheet, titles, texts, sorting.rows_of(self.rows_path, by_row), by_row, ratios)

    def load(self) -> plan.Load:
        """Return what the plan says beside the rows."""
        outcome, config = self.outcome(), self.config
        words = ("read", "accepted", "rejected", "duplicate", "skipped")
        return plan.Load(
            domain=self.domain.name,
            table=config.table,
            columns={name: str(column.sql) for name, column in self.domain.columns.items()},
            key=config.pk,
            period=self.file.period,
            source=self.file.source,
            workbook=self.file.path,
            sha256=self.file.sha256,
            mode=config.mode,
            replace=config.replace,
            overlap=config.overlap,
            max_delete_ratio=config.max_delete_ratio,
            lock_timeout=config.lock_timeout,
            statement_timeout=config.statement_timeout,
            keep_history=config.keep_history,
            sheet=outcome["sheet"],
            cells=self._cells(),
            counts={word: outcome[f"rows_{word}"] for word in words},
            digest=outcome["digest"],
            version=metadata.version("wdh_luigi"),
            dates=outcome["dates"] and tuple(outcome["dates"]),
        )

    def _cells(self) -> dict[str, str]:
        """Return the letters under which the table's columns stand in the sheet."""
        found = _profile(targets.read_json(self.profile_path)).headings.columns
        columns = {name: found[name] for name in self.domain.columns if name in found}
        period = next((found[name] for name in self.domain.names("period") if name in found), None)
        if period is not None:
            columns[self.domain.period_field] = period
        return {name: letters(at) for name, at in columns.items()}

    def outcome(self) -> dict[str, Any]:
        """Return the account of the workbook's rows."""
        account: dict[str, Any] = targets.read_json(self.outcome_path)
        return account

    def plan(self, *, reviewable: bool) -> dict[str, Any]:
        """
        Write the plan; return its account.

        Args:
            reviewable: a plan-only run writes it, so that somebody can review it before it is applied.
        """
        with self.copied_path.open("rb") as records, targets.atomic_write(self.plan_path) as file:
            digest, batches = plan.write(file, self.load(), records)
        account = {
            "plan": str(self.plan_path),
            "plan_digest": digest,
            "batches": batches,
            "deleted": None,
            "inserted": self.outcome()["rows_accepted"],
            "reviewable": reviewable,
            "receipt": None,
            "workbook": self.file.path,
            "sha256": self.file.sha256,
            "place": asdict(self.place),
            "process": self.process_key,
            "conditions": self.conditions,
        }
        targets.write_json(self.planned_path, account)
        return account

    def planned_account(self) -> dict[str, Any]:
        """Return the account of the plan."""
        account: dict[str, Any] = targets.read_json(self.planned_path)
        return account

    def planned(self) -> bool:
        """Tell whether the plan is written."""
        return self.has_targets_of("Load")

    def reviewable(self) -> bool:
        """Tell whether the plan is written, and was there to be reviewed before anything was loaded by it."""
        return self.planned() and bool(self.planned_account()["reviewable"])


def check_key(domain: Domain, config: DomainConfig, where: str) -> None:
    """Refuse a key with columns that the domain does not have."""
    unknown = [name for name in config.pk if name not in domain.columns]
    if unknown:
        there = ", ".join(domain.columns)
        raise ConfigError(where, f"pk names {', '.join(unknown)}, which {domain.name} does not have", f"it has {there}")


def _profile_document(profile: Profile) -> dict[str, Any]:
    document = asdict(profile)
    document["top"] = [[number, cells.row_to_json(row)] for number, row in profile.top]
    document["rows_skipped"] = profile.rows_skipped
    return document


def _profile(document: dict[str, Any]) -> Profile:
    extremes = {
        name: Extremes(**found | {end: found[end] and Decimal(found[end]) for end in ("smallest", "largest")})
        for name, found in document["extremes"].items()
    }
    return Profile(
        sheet=document["sheet"],
        headings=Headings(**document["headings"]),
        top=[(number, cells.row_from_json(row)) for number, row in document["top"]],
        gives_formats=document["gives_formats"],
        rows_read=document["rows_read"],
        skipped=document["skipped"],
        extremes=extremes,
        merged=[(at, first, last) for at, first, last in document["merged"]],
    )


def _reading_document(reading: Reading) -> dict[str, Any]:
    names = ("factors", "has_period", "file_period", "latest", "only_period", "why")
    return {"percent": sorted(reading.percent)} | {name: getattr(reading, name) for name in names}


def _reading(document: dict[str, Any]) -> Reading:
    month = document["file_period"]
    return Reading(
        percent=frozenset(document["percent"]),
        factors={name: Decimal(factor) for name, factor in document["factors"].items()},
        has_period=document["has_period"],
        file_period=date.fromisoformat(month) if month else None,
        latest=date.fromisoformat(document["latest"]),
        only_period=document["only_period"],
        why=document["why"],
    )


@dataclass(frozen=True)
class Processed:
    """
    What a work directory holds of a workbook that was processed in it.

    Attributes:
        workbook: its path below the inbox, then.
        duplicates: rows that say the same as another: {"row", "of"}.
    """

    workbook: str
    profile: Profile
    reading: Reading
    duplicates: list[dict[str, int]]
    rows_path: Path

    def rows(self, wanted: Collection[int]) -> dict[int, list[cells.Cell]]:
        """
        Return rows as read, by their numbers, as far as they are data rows.

        Raises:
            WorkDirError: what is there is not what was written.
        """
        found: dict[int, list[cells.Cell]] = {}
        for batch in sorting.rows_of(self.rows_path, wanted):
            found |= batch.by_rows()
            if len(found) == len(wanted):
                break
        return found


def processed(work: Path, domain: str, sha256: str, digest: str) -> list[Processed]:
    """Find what a work directory holds of a workbook's bytes that gave the accepted records of a digest."""
    folder, found = work / domain / "read", []
    for account in _accounts(work / domain / "process"):
        if (account.get("sha256"), account.get("digest")) == (sha256, digest):
            # What another version wrote, or somebody cut, is as good as not there.
            with contextlib.suppress(WdhError, LookupError, TypeError, ValueError, ArithmeticError):
                profile = _profile(targets.read_json(folder / f"{account['read']}.json"))
                rows, reading = folder / f"{account['read']}.rows.json", _reading(account["reading"])
                found.append(Processed(account["workbook"], profile, reading, account["duplicates"], rows))
    return found


def plan_of(work: Path, domain: str, plan_digest: str) -> Path | None:
    """Find a plan that was written in a work directory; None where it is not there as it was written."""
    for account in _accounts(work / domain / "load"):
        if account.get("plan_digest") == plan_digest:
            path = work / domain / "plans" / Path(account["plan"]).name
            with contextlib.suppress(WdhError, OSError), path.open("rb") as file:
                if plan.verify(file, path).plan_digest == plan_digest:
                    return path
    return None


def _accounts(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the accounts in a folder of targets; one that is damaged is passed over."""
    return (account for account in targets.readable(folder, targets.read_json) if isinstance(account, dict))


_SEEN = struct.Struct("<QQ")  # rows read so far, and the sheet's last row where it says one


def _tell(progress: Callable[[int, int | None], None], seen: mmap.mmap) -> None:
    rows, last_row = _SEEN.unpack(seen[:])
    progress(rows, last_row or None)


_PACKAGE = Path(__file__).parent
_CODE = {
    "workbook": ("workbook", "batches.py", "cells.py", "spellings.py", "schema.py"),
    "validate": (
        "validate.py",
        "rejects.py",
        "schema.py",
        "spellings.py",
        "batches.py",
        "cells.py",
        "steps.py",
        "sorting.py",
        "keys.py",
    ),
    "plan": ("plan.py",),
}


@functools.cache
def _code(step: str, domain: str = "") -> str:
    """Return the sha256 of the code that a step's result depends on: mended code is run again, by itself."""
    names = [*_CODE[step], *([f"domains/{domain}.py"] if domain else [])]
    files = [file for name in names for file in sorted((_PACKAGE / name).rglob("*.py")) or [_PACKAGE / name]]
    return targets.digest_of([(file.name, targets.file_digest(file)) for file in files])
