"""One run: what it is to do, frozen when it begins; what it did to each workbook; and its summary."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from wdh_luigi import config, discover, domains, ground, plan, report, steps, targets, warehouse
from wdh_luigi.config import Discovery, DomainConfig
from wdh_luigi.discover import Candidate, Snapshot
from wdh_luigi.errors import ConfigError, DiscoveryError, WdhError, WorkDirError
from wdh_luigi.report import FileSummary, Summary
from wdh_luigi.steps import Steps

_frozen: dict[str, Snapshot] = {}
_steps: dict[tuple[Path, str], dict[str, Steps]] = {}
_connections: dict[tuple[int, str], warehouse.Connection] = {}
_loaded: set[str] = set()  # keys of the loads that this process did in its present run


def freeze(
    *,
    domain: str,
    mode: str | None,
    plan_only: bool,
    sheet: str | None,
    period: str | None,
    diff: bool,
    announce: Callable[[str], None],
) -> Snapshot:
    """
    Validate everything that a run rests on, and freeze its inbox and configuration.

    Args:
        announce: called with a line that the user should see at once.
    Raises:
        WdhError: the configuration, the inbox, the work directory or the database cannot be used.
    """
    entry, discovery = entry_of(domain, mode=mode, sheet=sheet)
    _check_period(period)
    _reach_database(plan_only, diff, announce)
    _loaded.clear()
    inbox = config.load_settings().data_base_dir
    with _hashes() as hashes:
        files = discover.scan(inbox, entry, discovery)
        snapshot = discover.freeze(inbox, domain, entry, files, period=period, hashes=hashes, today=date.today())
    _frozen[snapshot.key] = snapshot
    return snapshot


def freeze_months(
    months: Sequence[str],
    *,
    domain: str,
    mode: str | None,
    plan_only: bool,
    sheet: str | None,
    diff: bool,
    announce: Callable[[str], None],
) -> dict[str, Snapshot | str]:
    """
    Do as ``freeze`` does for every month at once: one scan, one receipt, and a snapshot of its own for each month.

    Returns:
        For each month with a workbook its snapshot, or why there is none: a tie, or a month in the future.
    """
    entry, discovery = entry_of(domain, mode=mode, sheet=sheet)
    _reach_database(plan_only, diff, announce)
    _loaded.clear()
    inbox = config.load_settings().data_base_dir
    found: dict[str, Snapshot | str] = {}
    with _hashes() as hashes:
        files = discover.scan(inbox, entry, discovery)
        for month, of_month in _by_month(files, months).items():
            try:
                found[month] = discover.freeze(
                    inbox, domain, entry, of_month, period=month, hashes=hashes, today=date.today()
                )
            except DiscoveryError as error:
                found[month] = str(error)
    whole = Snapshot(domain=domain, inbox=str(inbox), config=entry, files=files)
    whole.seal()
    write_receipt(whole)
    _frozen.update((one.key, one) for one in found.values() if isinstance(one, Snapshot))
    return found


def _by_month(files: Sequence[Candidate], months: Sequence[str]) -> dict[str, list[Candidate]]:
    """Return the candidates of each month that has one; the others are given their reason."""
    found: dict[str, list[Candidate]] = {month: [] for month in months}
    for file in files:
        if file.period in found and not file.reason:
            found[file.period].append(file)
        elif not file.reason:
            file.reason = f"period {file.period or 'none'} is not wanted (wanted: {months[0]} to {months[-1]})"
    return {month: of_month for month, of_month in found.items() if of_month}


def forget(snapshot: Snapshot) -> None:
    """Drop what this process keeps of a snapshot whose run has ended."""
    _frozen.pop(snapshot.key, None)
    _steps.pop((config.load_settings().work_dir, snapshot.key), None)


def look(domain: str, period: str | None) -> Snapshot:
    """
    Freeze the inbox as a run with no other parameters would, and write nothing.

    Raises:
        WdhError: the configuration or the inbox cannot be used.
    """
    _check_period(period)
    entry, discovery = entry_of(domain, mode=None, sheet=None)
    inbox, hashes = config.load_settings().data_base_dir, _known_hashes()
    files = discover.scan(inbox, entry, discovery)
    return discover.freeze(inbox, domain, entry, files, period=period, hashes=hashes, today=date.today())


def look_at_all(domain: str) -> Snapshot:
    """
    Choose what runs of any period may take, and write nothing.

    Where candidates tie, or are of the future, all of their period are chosen: whoever mends that decides.

    Raises:
        WdhError: the configuration or the inbox cannot be used.
    """
    entry, discovery = entry_of(domain, mode=None, sheet=None)
    inbox, hashes = config.load_settings().data_base_dir, _known_hashes()
    files = discover.scan(inbox, entry, discovery)
    periods = sorted({file.period for file in files if not file.reason})
    for period, of_period in _by_month(files, periods).items():
        try:
            discover.freeze(inbox, domain, entry, of_period, period=period, hashes=hashes, today=date.today())
        except DiscoveryError:
            for file in of_period:
                file.chosen = True
    return Snapshot(domain=domain, inbox=str(inbox), config=entry, files=files)


def entry_of(domain: str, *, mode: str | None, sheet: str | None) -> tuple[DomainConfig, Discovery]:
    """Return a domain's entry with a run's parameters in it, and how its inbox is looked through."""
    path = config.load_settings().data_sources_config
    sources = config.load_data_sources(path)
    entry = config.override(config.domain_config(sources, domain, path), mode=mode, sheet=sheet)
    steps.check_key(domains.get(domain), entry, str(path))
    return entry, sources.discovery


def _check_period(period: str | None) -> None:
    if period is not None and not re.fullmatch(r"latest|all|\d{4}-(0[1-9]|1[0-2])", period):
        raise ConfigError("--period", f"{period!r} is no period", "write it like 2024-11, or latest, or all")


def _reach_database(plan_only: bool, diff: bool, announce: Callable[[str], None]) -> None:
    """Connect before anything runs, where it is needed: a database that is not there fails the run at once."""
    if diff and not plan_only:
        raise ConfigError("--diff", "asks what plans would change before they are applied", "leave out one of the two")
    if diff or not plan_only:
        _connection(announce)


@contextlib.contextmanager
def _hashes() -> Iterator[dict[str, list[int | str]]]:
    """Yield the hashes of former scans to bring up to date, and keep them."""
    hashes = _known_hashes()
    known = {path: list(entry) for path, entry in hashes.items()}
    yield hashes
    if hashes != known or not known:  # also the first time: a work directory that cannot be written is told at once
        targets.write_json(_hashes_path(), hashes)


def _known_hashes() -> dict[str, list[int | str]]:
    """Return the hashes of former scans; none where there is no such file, or none that can be read."""
    try:
        found = targets.read_json(_hashes_path())
    except WorkDirError:
        return {}
    return found if isinstance(found, dict) else {}


def _hashes_path() -> Path:
    return config.load_settings().work_dir / "hashes.json"


def frozen(domain: str, key: str) -> Snapshot:
    """
    Return the snapshot of a key, from this process or else from its receipt in the work directory.

    Raises:
        ConfigError: no run made it.
    """
    if key not in _frozen:
        path = receipt_path(domain, key)
        if not path.exists():
            raise ConfigError("--snapshot", f"no run of {domain} made {key!r}", "leave it out: a run makes its own")
        _frozen[key] = Snapshot.model_validate(targets.read_json(path), strict=False)
    return _frozen[key]


def receipt_path(domain: str, key: str) -> Path:
    """Return where a snapshot's discovery receipt is."""
    return config.load_settings().work_dir / domain / "discover" / f"{key}.json"


def write_receipt(snapshot: Snapshot) -> None:
    """Write the discovery receipt: every file of the inbox, chosen or why not."""
    targets.write_json(receipt_path(snapshot.domain, snapshot.key), snapshot.model_dump(mode="json"))


def steps_of(snapshot: Snapshot, workbook: str) -> Steps:
    """Return the steps of one of a snapshot's workbooks; their keys are computed once."""
    work = config.load_settings().work_dir
    of_snapshot = _steps.setdefault((work, snapshot.key), {})
    if workbook not in of_snapshot:
        of_snapshot[workbook] = Steps(work, snapshot, snapshot.file(workbook))
    return of_snapshot[workbook]


def loaded_before(snapshot: Snapshot, workbook: str) -> Steps | None:
    """
    Return the workbook whose load comes before another's; None where the order does not matter.

    Under ``overlap: replace`` the later of two loads has the keys that both hold: which is the later one must not
    depend on the workers, so that there the loads follow each other in the order of the paths.
    """
    if snapshot.config.overlap != "replace":
        return None
    paths = [file.path for file in snapshot.chosen]
    at = paths.index(workbook)
    return steps_of(snapshot, paths[at - 1]) if at else None


def _connection(announce: Callable[[str], None] = lambda line: None) -> warehouse.Connection:
    """Return this process's connection to the warehouse; a forked process has its own."""
    settings = config.load_settings()
    key = (os.getpid(), settings.warehouse_uri())
    if key not in _connections or _connections[key].closed:
        _connections[key] = warehouse.connect(warehouse.uri_of(settings, announce))
    return _connections[key]


def is_loaded(one: Steps) -> bool:
    """
    Tell whether the warehouse holds a workbook's records, as far as they are known.

    Luigi asks several times about a load that this process has just done, which would take the warehouse a look at all
    of its rows each time.
    """
    if one.load_key in _loaded:
        return True
    digest = _digest_of(one)
    if digest is None:
        return False
    present = warehouse.again(lambda: warehouse.newest_receipt(_connection(), one.place))
    return warehouse.is_loaded(present, digest, one.config.replace)


def _digest_of(one: Steps) -> str | None:
    """Return the digest of a workbook's accepted records; None where their account is not there yet, or damaged."""
    with contextlib.suppress(WorkDirError):
        return str(one.outcome()["digest"])
    return None


def complete(snapshot: Snapshot, plan_only: bool, *, afresh: bool = True) -> list[bool]:
    """
    Tell for each chosen workbook, in order, whether it is planned, or when executing loaded.

    Args:
        afresh: ask the warehouse also about what this process has just loaded.
    """
    every = [steps_of(snapshot, file.path) for file in snapshot.chosen]
    if plan_only:
        return [one.reviewable() for one in every]
    done = set() if afresh else _loaded
    digests = {one.file.path: _digest_of(one) for one in every if one.load_key not in done}
    known = [(one, digest) for one in every if (digest := digests.get(one.file.path))]
    places = [one.place for one, _ in known]
    receipts = warehouse.again(lambda: warehouse.newest_receipts(_connection(), places))
    loaded = {
        one.file.path
        for (one, digest), present in zip(known, receipts, strict=True)
        if warehouse.is_loaded(present, digest, one.config.replace)
    }
    return [one.file.path in loaded or one.load_key in done for one in every]


def apply(one: Steps, progress: Callable[[float], None] = lambda part: None) -> dict[str, Any]:
    """Apply a workbook's plan; return its account with the receipt. Progress: see warehouse.apply."""
    one.outcome()  # where it is damaged, nobody could tell later whether it is loaded
    planned = one.planned_account()
    applied = warehouse.apply_once(_connection, one.plan_path, planned["plan_digest"], progress=progress)
    account = {
        **planned,
        "loaded": applied.loaded,
        "deleted": applied.receipt.deleted,
        "inserted": applied.receipt.inserted,
        "receipt": applied.receipt.load_id,
    }
    targets.write_json(one.loaded_path, account)
    _loaded.add(one.load_key)
    return account


def record_failure(one: Steps, step: str, line: str, trace: str) -> None:
    """Keep why a step failed, for the summary; what cannot be written is in the log."""
    failure = {"workbook": one.file.path, "step": step, "error": line, "time": time.time(), "traceback": trace}
    with contextlib.suppress(WdhError):
        targets.write_json(one.failure_path(step), failure)


def forget_failure(one: Steps, step: str) -> None:
    """Drop a former failure of a step that has now succeeded."""
    with contextlib.suppress(OSError):
        one.failure_path(step).unlink(missing_ok=True)


def failures(one: Steps) -> list[dict[str, Any]]:
    """Return the last failures of a workbook's steps, each as it was recorded."""
    found = []
    for path in map(one.failure_path, steps.STEPS):
        with contextlib.suppress(WdhError):
            if path.exists():
                found.append(targets.read_json(path))
    return found


@dataclass
class Run:
    """
    A run in the process that a person or cron started.

    Attributes:
        diff: whether to ask the database what each plan would change.
        command: the command, for the lines that say what to run next.
        complete: for each chosen workbook, in order, whether there was nothing to do when the run began.
    """

    snapshot: Snapshot
    plan_only: bool
    diff: bool
    command: str
    complete: list[bool]

    def __post_init__(self) -> None:
        # A failure is this run's when it was not there before: the clocks of several machines do not agree.
        self._known = {one.file.path: failures(one) for one in self.open()}

    def open(self) -> list[Steps]:
        """Return the workbooks that there was something to do for when the run began."""
        chosen = zip(self.snapshot.chosen, self.complete, strict=True)
        return [steps_of(self.snapshot, file.path) for file, before in chosen if not before]

    def failure(self, one: Steps) -> str | None:
        """Return the error of the workbook's step that failed in this run, None where none did."""
        known = self._known.get(one.file.path, [])
        return next((str(found["error"]) for found in failures(one) if found not in known), None)

    def files(self) -> list[FileSummary]:
        """Return what the run came to for each chosen workbook."""
        try:
            now = self.complete if all(self.complete) else complete(self.snapshot, self.plan_only, afresh=False)
        except WdhError:  # of the database
            now = [False] * len(self.complete)
        chosen = zip(self.snapshot.chosen, self.complete, now, strict=True)
        return [self._summary(file, before, done) for file, before, done in chosen]

    @property
    def rerun(self) -> str:
        """Return the command that runs the same again."""
        return self.command if self.plan_only else f"{self.command} --plan-only false"

    def finish(self, out: TextIO | None) -> Summary:
        """Write summary.json, print the summary unless there is nowhere to, and return it."""
        files = self.files()
        summary = Summary(self.snapshot.domain, self.snapshot.config.mode, self.plan_only, files)
        done = [file for file, one in zip(self.snapshot.chosen, files, strict=True) if one.status == "done"]
        shown = self._statements(done[0]) if done else []
        try:
            keep(summary)
        finally:  # also where the disk is full
            if out is not None:
                written = summary_path(summary.domain)
                report.show(summary, out, statements=shown, command=self.command, written=written)
        return summary

    @functools.cached_property
    def _reverted(self) -> dict[tuple[str, str], str]:
        """Return what was reverted of the run's places, by their period and source."""
        places = [steps_of(self.snapshot, file.path).place for file in self.snapshot.chosen]
        return warehouse.again(lambda: warehouse.reverted(_connection(), places))

    def _statements(self, file: Candidate) -> list[str]:
        load = steps_of(self.snapshot, file.path).load()
        return [f"{statement};" for statement in (*plan.delete_statements(load), plan.insert_statement(load))]

    def _summary(self, file: Candidate, before: bool, done: bool) -> FileSummary:
        one = steps_of(self.snapshot, file.path)
        summary = FileSummary(
            path=file.path,
            status="unchanged" if before else "done",
            sha256=file.sha256,
            period=file.period,
            source=file.source,
            version=file.version,
            table=one.config.table,
            mode=one.config.mode,
        )
        summary.notes = [f"warning: {file.warning}"] if file.warning else []
        _add_outcome(summary, one)
        if not before and not done:
            ended = f"{file.path}: not done, the run ended before; run the same command again"
            summary.status, summary.error = "failed", self.failure(one) or ended
        else:
            self._add_load(summary, one, before)
        return summary

    def _add_load(self, summary: FileSummary, one: Steps, before: bool) -> None:
        if one.planned():
            planned = one.planned_account()
            summary.plan, summary.batches, summary.inserted = planned["plan"], planned["batches"], planned["inserted"]
        if self.diff:
            summary.notes.append(_diff(one))
        if self.plan_only:
            return
        loaded = targets.read_json(one.loaded_path) if one.loaded_path.exists() else None
        if before or not loaded or not loaded["loaded"]:
            summary.status, summary.deleted, summary.inserted = "unchanged", 0, 0
            if what := self._reverted.get((one.place.period, one.place.source)):
                summary.notes.append(f"{what}: it stays so until the workbook changes or wdh apply is given the plan")
        else:
            summary.deleted, summary.inserted = loaded["deleted"], loaded["inserted"]
            reviewed = "a plan-only run had written this plan" if loaded["reviewable"] else "no plan-only run before"
            summary.notes.append(f"{'reviewed' if loaded['reviewable'] else 'not reviewed'}: {reviewed}")


def _diff(one: Steps) -> str:
    """Ask the database what a plan would change, keep the answer beside it, and say it; or say why it is not known."""
    try:
        found = warehouse.again(lambda: ground.diff(_connection(), one.plan_path))
        ground.keep(one.plan_path, found)
    except WdhError as error:
        return f"cannot be applied as it is: {error}"
    return f"would change: {found.counts}"


def summary_path(domain: str) -> Path:
    """Return where the summary of a domain's newest run is."""
    return config.load_settings().work_dir / domain / "summary.json"


def keep(summary: Summary) -> None:
    """Write summary.json, and beside the domains the newest run's, whichever domain's."""
    report.write(summary, summary_path(summary.domain))
    report.write(summary, config.load_settings().work_dir / "summary.json")


def _add_outcome(summary: FileSummary, one: Steps) -> None:
    """Add what is known of the rows; of a failed workbook perhaps nothing, or the rejects alone."""
    try:
        outcome = one.outcome()
    except WorkDirError:  # not there, or damaged, which is what the workbook failed by
        if one.rejects_workbook_path.exists():  # so many that the workbook failed
            summary.rejects, summary.rejects_workbook = str(one.rejects_path), str(one.rejects_workbook_path)
        return
    if outcome["rows_rejected"]:
        summary.rejects, summary.rejects_workbook = str(one.rejects_path), str(one.rejects_workbook_path)
    for name in ("sheet", "rows_read", "rows_accepted", "rows_rejected", "rows_duplicate", "rows_skipped"):
        setattr(summary, name, outcome[name])
    summary.notes += [*outcome["guessed"], *outcome["examples"]]
    if warned := outcome["rows_with_warnings"]:
        summary.notes.append(f"{warned} rows with warnings, kept in validation_warnings")
