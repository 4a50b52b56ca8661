"""
What a work directory need not keep any longer: wdh clean.

Only files that the product itself wrote are touched, known by their folder and name; nothing is followed that is a
link. What was found is kept when the present inbox needs it, when it belongs to a place's last load, or when it is
young; and what is kept keeps what it was made from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wdh_luigi import accounts, config, lock, plan, run, targets, warehouse
from wdh_luigi.accounts import Account
from wdh_luigi.errors import DiscoveryError, WdhError, WorkDirError
from wdh_luigi.schema import CORRECTION
from wdh_luigi.steps import Steps

DAY = 86_400.0  # seconds
_KEY = "(?P<key>[0-9a-f]{32})"
_SHORT = 12  # digits of a key in the names of plans and of folders of rejects

# What a domain's folder holds, in the order in which it is removed: what says that a step is done goes first.
KINDS = {
    "load": re.compile(rf"{_KEY}(\.loaded)?\.json"),
    "plans": re.compile(r"(?:\d{4}-\d{2}|undated)-(?P<key>[0-9a-f]{12})(\.sql|\.diff\.json)"),
    "rejects": re.compile(rf"{CORRECTION}_.*\.xlsx", re.DOTALL),
    "process": re.compile(rf"{_KEY}((\.accepted|\.rejects|\.ahead)?\.json|\.accepted\.copy)"),
    "read": re.compile(rf"{_KEY}(\.rows)?\.json"),
    "failed": re.compile(rf"{_KEY}\.json"),
    "discover": re.compile(rf"{_KEY}\.json"),
}
_OF_PROCESS = re.compile(r"[0-9a-f]{12}")
_LUIGI = re.compile(r"(?P<name>.+)-luigi-tmp-\d+", re.DOTALL)  # as Luigi's own targets name unfinished files

LITTER, HASHES = "litter", "hashes"
Mark = tuple[str, str]  # a kind, and the key of a step


@dataclass(frozen=True)
class File:
    """
    A file that the product wrote.

    Attributes:
        folders: where it is, from the work directory.
        key: of the step that wrote it, as far as its name, or its folder's, tells it.
        process: that writes it, where it is unfinished.
        modified: in seconds since 1970.
    """

    kind: str
    key: str
    folders: tuple[str, ...]
    name: str
    size: int
    modified: float
    process: int | None = None

    @property
    def mark(self) -> Mark:
        """Return what it is kept by."""
        return self.kind, self.key

    def path(self, work: Path) -> Path:
        """Return its path."""
        return work.joinpath(*self.folders, self.name)


@dataclass
class Cleaned:
    """
    What was removed, or would be.

    Attributes:
        kinds: kind -> files (of ``hashes``: entries) and bytes.
        kept: files that stay.
        errors: what could not be removed, a line each.
    """

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept: int = 0
    errors: list[str] = field(default_factory=list)

    def add(self, kind: str, size: int, files: int = 1) -> None:
        """Count what was removed."""
        count, total = self.kinds.get(kind, (0, 0))
        self.kinds[kind] = (count + files, total + size)


def clean(domains: Iterable[str], age: float, *, dry_run: bool, connection: warehouse.Connection | None) -> Cleaned:
    """
    Remove what is not needed any longer; where that cannot be known of a domain, it is told and left as it is.

    Args:
        age: in seconds; what is younger stays.
        dry_run: tell what would be removed, and remove nothing.
        connection: of the database whose receipts say which loads are the last; None: the work directory's accounts do.
    """
    work = config.load_settings().work_dir
    cleaned = Cleaned()
    for domain in domains:
        with _telling(cleaned, f"{domain}: nothing was removed: "):
            _clean_domain(work, domain, age, cleaned, dry_run=dry_run, connection=connection)
    with _telling(cleaned):
        for file in _unfinished(work, (), re.compile(r"(hashes|summary)\.json")):
            if _is_done_with(file, set(), age):
                _remove(work, file, cleaned, dry_run=dry_run)
    if not cleaned.errors:  # an inbox that is not mounted has not lost its files
        with _telling(cleaned):
            _forget_hashes(work / "hashes.json", cleaned, dry_run=dry_run)
    return cleaned


@contextlib.contextmanager
def _telling(cleaned: Cleaned, what: str = "") -> Iterator[None]:
    try:
        yield
    except WdhError as error:
        cleaned.errors.append(f"{what}{error}")


def _clean_domain(
    work: Path, domain: str, age: float, cleaned: Cleaned, *, dry_run: bool, connection: warehouse.Connection | None
) -> None:
    """
    Remove what a domain does not need any longer.

    Raises:
        BusyError: a run of the domain is going on.
        WdhError: what is needed cannot be known; nothing was removed.
    """
    run.entry_of(domain, mode=None, sheet=None)  # else its name may be any path
    if not any(_files(work, domain)):  # else it may be a folder that is no work directory
        return
    with contextlib.ExitStack() as held:
        if not dry_run:
            held.enter_context(lock.held(work / domain / "run.lock", shared=False))
        files = list(_files(work, domain))
        needed = _needed(work, domain, files, time.time() - age, connection)
        going = [file for file in files if _is_done_with(file, needed, age)]
        cleaned.kept += len(files) - len(going)
        for file in going:
            _remove(work, file, cleaned, dry_run=dry_run)


def _files(work: Path, domain: str) -> Iterator[File]:
    """Yield the files of a domain that the product wrote, whatever else there is."""
    yield from _unfinished(work, (domain,), re.compile(r"summary\.json"))
    for kind, pattern in KINDS.items():
        folders = (domain, kind)
        if kind == "rejects":
            for name, _ in _entries(work, folders, stat.S_ISDIR):
                if _OF_PROCESS.fullmatch(name):
                    yield from _of_kind(work, (*folders, name), kind, pattern, name)
        else:
            yield from _of_kind(work, folders, kind, pattern)


def _of_kind(
    work: Path, folders: tuple[str, ...], kind: str, pattern: re.Pattern[str], key: str = ""
) -> Iterator[File]:
    for name, found in _entries(work, folders, stat.S_ISREG):
        if match := pattern.fullmatch(name):
            yield File(kind, key or match["key"], folders, name, found.st_size, found.st_mtime)
    yield from _unfinished(work, folders, pattern)


def _unfinished(work: Path, folders: tuple[str, ...], pattern: re.Pattern[str]) -> Iterator[File]:
    """Yield what a killed process left of the files of a pattern."""
    for name, found in _entries(work, folders, stat.S_ISREG):
        match = targets.UNFINISHED.fullmatch(name) or _LUIGI.fullmatch(name)
        if match and _begins(pattern, match["name"]):
            process = int(match["process"]) if match.re is targets.UNFINISHED else None
            yield File(LITTER, "", folders, name, found.st_size, found.st_mtime, process)


def _begins(pattern: re.Pattern[str], name: str) -> bool:
    """Tell whether a name is one of a pattern, or the begin of one that was too long."""
    return bool(pattern.fullmatch(name) or (len(name) == targets.NAME_KEPT and pattern.fullmatch(f"{name}.xlsx")))


def _entries(
    work: Path, folders: tuple[str, ...], is_wanted: Callable[[int], bool]
) -> Iterator[tuple[str, os.stat_result]]:
    """
    Yield the names in a folder with what they are, no link among them; nothing where there is no such folder.

    Raises:
        WorkDirError: the folder is a link, or cannot be read.
    """
    try:
        with _opened(work, folders) as handle, os.scandir(handle) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        is_link = error.errno in (errno.ELOOP, errno.ENOTDIR)
        what = "is a link, or no folder" if is_link else f"cannot be read ({error.strerror})"
        mend = "nothing was removed there; give this user the right to read it, as a folder of its own"
        raise WorkDirError(str(work.joinpath(*folders)), what, mend) from error
    yield from sorted(((name, one) for name, one in found if is_wanted(one.st_mode)), key=lambda one: one[0])


@contextlib.contextmanager
def _opened(work: Path, folders: Iterable[str]) -> Iterator[int]:
    """Open a folder below the work directory, through no link."""
    handle = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def _needed(
    work: Path, domain: str, files: Iterable[File], since: float, connection: warehouse.Connection | None
) -> set[Mark]:
    """
    Return what is to stay: of the present inbox, of each place's last load, of what is young, and what they rest on.

    Raises:
        WdhError: the inbox, an account or the database does not say it.
    """
    needed = _of_inbox(work, domain)
    young = {file.mark for file in files if file.modified > since}
    needed |= young
    plans = {key for kind, key in young if kind == "plans"}
    folder = work / domain
    every = [accounts.read(folder / "load", file.key) for file in files if _is_account(file)]
    last = _last_loads(domain, every, connection)
    for one in every:
        if one.key in last or ("load", one.key) in needed or one.key[:_SHORT] in plans:
            needed |= {("load", one.key), ("plans", one.key[:_SHORT])} | _of_process(one.process)
    there = {file.key for file in files if file.name == f"{file.key}.json" and file.kind == "process"}
    for key in sorted(there & {key for kind, key in needed if kind == "process"}):
        needed.add(("read", _read_key(folder / "process" / f"{key}.json")))
    return needed


def _is_account(file: File) -> bool:
    return file.kind == "load" and file.name == f"{file.key}.json"


def _of_inbox(work: Path, domain: str) -> set[Mark]:
    """Return what runs over the present inbox need, of whichever period."""
    needed: set[Mark] = set()
    snapshot = run.look_at_all(domain)
    for file in snapshot.chosen:
        one = Steps(work, snapshot, file)
        needed |= {("read", one.read_key), ("load", one.load_key), ("plans", one.load_key[:_SHORT])}
        needed |= _of_process(one.process_key)
        needed |= {("failed", one.failure_path(step).stem) for step in one.conditions}
    for period in (None, "all"):
        with contextlib.suppress(DiscoveryError):  # candidates tie: no run has written a receipt of it
            needed.add(("discover", run.look(domain, period).key))
    return needed


def _of_process(key: str) -> set[Mark]:
    return {("process", key), ("rejects", key[:_SHORT])}


def _read_key(path: Path) -> str:
    """Return the key of the rows that an account of rows was made from."""
    account = targets.read_json(path)
    if not isinstance(account, dict) or "read" not in account:
        raise WorkDirError(str(path), "is not the account that was written", "delete it and run again")
    return str(account["read"])


def _last_loads(domain: str, every: list[Account], connection: warehouse.Connection | None) -> set[str]:
    """Return the keys of each place's last load, by the work directory's own accounts and the database's receipts."""
    of_place: defaultdict[plan.Place, list[Account]] = defaultdict(list)
    for one in every:
        if one.load_id is not None:
            of_place[one.place].append(one)
    last = [max(loads, key=lambda one: (one.applied, one.load_id)) for loads in of_place.values()]
    # By their number too: times are those of the machines that ran them, and numbers those of one database.
    last += [max(loads, key=lambda one: (one.load_id, one.applied)) for loads in of_place.values()]
    if connection is not None:
        schemas = {plan.schema_of(run.entry_of(domain, mode=None, sheet=None)[0].table)}
        schemas |= {one.place.schema for one in every}
        digests = set[str]().union(*(warehouse.last_plans(connection, schema, domain) for schema in schemas))
        last += [one for one in every if one.plan_digest in digests]
    return {one.key for one in last}


def _is_done_with(file: File, needed: set[Mark], age: float) -> bool:
    idle = time.time() - file.modified
    if file.kind != LITTER:
        return idle >= age and file.mark not in needed
    return idle >= max(age, DAY) and not _is_running(file.process)  # a day: the process may be another machine's


def _is_running(process: int | None) -> bool:
    if process is None:
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _remove(work: Path, file: File, cleaned: Cleaned, *, dry_run: bool) -> None:
    """Remove a file, and its folder where that held the rejects of one workbook and is empty now."""
    try:
        if not dry_run:
            with _opened(work, file.folders) as handle:
                os.unlink(file.name, dir_fd=handle)
            if _OF_PROCESS.fullmatch(file.folders[-1] if file.folders else ""):
                _remove_empty(work, file.folders)
    except FileNotFoundError:
        return
    except OSError as error:
        mend = "give this user the right to write its folder, and clean again"
        what = f"cannot be removed ({error.strerror})"
        cleaned.errors.append(str(WorkDirError(str(file.path(work)), what, mend)))
        return
    cleaned.add(file.kind, file.size)


def _remove_empty(work: Path, folders: tuple[str, ...]) -> None:
    try:
        with _opened(work, folders[:-1]) as handle:
            os.rmdir(folders[-1], dir_fd=handle)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _forget_hashes(path: Path, cleaned: Cleaned, *, dry_run: bool) -> None:
    """Drop the hashes of files that are gone; a file that is not the product's is left as it is."""
    try:
        hashes = targets.read_json(path) if path.is_file() and not path.is_symlink() else None
    except WdhError:
        return
    if not isinstance(hashes, dict) or not all(map(_is_hash, hashes.values())):
        return
    gone = {name: entry for name, entry in hashes.items() if _is_gone(name)}
    if gone:
        if not dry_run:
            targets.write_json(path, {name: entry for name, entry in hashes.items() if name not in gone})
        cleaned.add(HASHES, len(targets.dumps(gone)), len(gone))


def _is_hash(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 5 and isinstance(entry[-1], str)


def _is_gone(name: str) -> bool:
    try:
        os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # not for us to see
        return False
    return False
