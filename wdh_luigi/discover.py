"""The inbox: every file in it, and which workbooks are taken or why not, frozen as a snapshot."""

from __future__ import annotations

import contextlib
import difflib
import errno
import fnmatch
import functools
import os
import re
import time
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from wdh_luigi.config import Discovery, DomainConfig
from wdh_luigi.errors import DiscoveryError, one_line
from wdh_luigi.targets import digest_of, file_digest

_NEAREST = 5  # names in an error; the receipt holds them all
# A folder of one month: 2024年11月, 2024-11, 2024_11, 2024.11, 202411.
_PERIOD_FOLDER = re.compile(r"(?P<year>20\d{2})(?:\s*年\s*|[-_. ]|(?=\d{2}$))(?P<month>1[0-2]|0?[1-9])(?:\s*月)?")
_RACY_SECONDS = 2.0  # a file changed so lately may change again without a new time: its hash is not kept


class Candidate(BaseModel):
    """
    A file of the inbox.

    Attributes:
        path: below the inbox, with forward slashes.
        period: "2024-11", or "" where the name gives none.
        source: who sent it, by the pattern's group, or "".
        version: the number of the V folder above it, 0 without one.
        sha256: of its bytes, or "" where it was not hashed.
        chosen: whether this run takes it.
        reason: why it was not chosen, or why its bytes could not be read.
        warning: what is doubtful about its place.
    """

    path: str
    size: int = 0
    modified: int = 0
    period: str = ""
    source: str = ""
    version: int = 0
    sha256: str = ""
    chosen: bool = False
    reason: str = ""
    warning: str = ""

    @property
    def month(self) -> date | None:
        """Return the first day of its period."""
        return date.fromisoformat(f"{self.period}-01") if self.period else None


class Snapshot(BaseModel):
    """
    What a run works on: the inbox and the configuration as they were when it began.

    Attributes:
        key: the same for the same workbooks under the same names and the same configuration.
    """

    key: str = ""
    domain: str
    inbox: str
    config: DomainConfig
    files: list[Candidate]

    @property
    def chosen(self) -> list[Candidate]:
        """Return the workbooks to process, in the order of their paths."""
        return [file for file in self.files if file.chosen]

    def seal(self) -> None:
        """Set the key, when every file has its choice or reason."""
        files = [(file.path, file.sha256, file.chosen, file.reason) for file in self.files]
        self.key = digest_of(self.domain, self.config, files)

    def file(self, path: str) -> Candidate:
        """Return the file of a path."""
        return self._by_path[path]

    @functools.cached_property
    def _by_path(self) -> dict[str, Candidate]:
        return {file.path: file for file in self.files}


def scan(inbox: Path, config: DomainConfig, discovery: Discovery) -> list[Candidate]:
    """
    Return every file of the inbox, in the order of their paths, with a reason where it is no candidate.

    Raises:
        DiscoveryError: there is no candidate, or a folder cannot be read.
    """
    files = sorted(_scan(inbox, config, discovery), key=lambda file: file.path)
    if all(file.reason for file in files):
        raise _nothing(inbox, config, files)
    return files


def freeze(
    inbox: Path,
    domain: str,
    config: DomainConfig,
    files: list[Candidate],
    *,
    period: str | None,
    hashes: dict[str, list[int | str]],
    today: date,
) -> Snapshot:
    """
    Hash what may be taken of scanned files, and choose.

    Args:
        files: as scanned; their choice or reason is filled in.
        period: "2024-11", "latest", "all", or None for what the domain's ``select`` says.
        hashes: path -> [size, mtime_ns, ctime_ns, inode, sha256] of former scans; brought up to date.
    Raises:
        DiscoveryError: no workbook of the period, a tie, or a chosen period in the future.
    """
    matching = [file for file in files if not file.reason]
    wanted = _periods(inbox, matching, config, period)
    for file in matching:
        if file.period not in wanted:
            file.reason = f"period {file.period or 'none'} is not wanted (wanted: {', '.join(sorted(wanted))})"
    rivals = [file for file in matching if not file.reason]
    for file in rivals:
        _hash(inbox / file.path, file, hashes)
    _choose(inbox, rivals, config)
    snapshot = Snapshot(domain=domain, inbox=str(inbox), config=config, files=files)
    for file in snapshot.chosen:
        if file.month and file.month > today:
            what = f"is of {file.period}, which has not begun"
            raise DiscoveryError(_shown(inbox, file), what, "correct the date in its name, or take another --period")
    snapshot.seal()
    return snapshot


def _shown(inbox: Path, file: Candidate) -> str:
    return str(inbox / file.path)


def _scan(inbox: Path, config: DomainConfig, discovery: Discovery) -> Iterator[Candidate]:
    """Yield every file of the inbox, with a reason where it is no candidate."""
    pattern = re.compile(config.pattern, re.DOTALL)
    for path, entry, reason in _walk(inbox, discovery):
        file = Candidate(path=path, reason=reason)
        if entry is not None and not reason:
            _recognise(file, entry, pattern, discovery)
        yield file


def _walk(inbox: Path, discovery: Discovery) -> Iterator[tuple[str, os.DirEntry[str] | None, str]]:
    """Yield (path below the inbox, entry, why it is passed over) for every file, and for every folder left out."""
    excluded = {_nfc(name).casefold() for name in discovery.exclude_directories}
    seen: set[tuple[int, int]] = set()
    folders, linked = deque([("", 0)]), deque[tuple[str, int]]()
    while folders or linked:  # links last: what they lead to is known by its own place, if it has one in the inbox
        below, depth = (folders or linked).popleft()
        identity, entries = _entries(inbox, below)
        if identity in seen:
            yield below, None, "folder seen already: a link leads to it"
            continue
        seen.add(identity)
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_symlink() and not discovery.follow_symlinks:
                yield path, None, "symbolic link (follow_symlinks is false)"
            elif not _is_folder(entry):
                yield path, entry, ""
            elif reason := _left_out(entry.name, depth, excluded, discovery):
                yield path, None, reason
            else:
                (linked if entry.is_symlink() else folders).append((path, depth + 1))


def _entries(inbox: Path, below: str) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """Return who a folder is, and what is in it; one that cannot be read may hold what supersedes all others."""
    folder = inbox / below
    try:
        with os.scandir(folder) as entries:
            return _identity(folder.stat()), sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if below:
            mend = "give this user the right to read it, or name it in exclude_directories"
            raise DiscoveryError(f"folder {folder}", f"cannot be read ({error.strerror})", mend) from error
        words = {errno.ENOENT: "does not exist", errno.ENOTDIR: "is a file, not a folder"}
        what = words.get(error.errno or 0, f"cannot be read ({error.strerror})")
        mend = "set WDH_DATA_BASE_DIR to the folder that holds the workbooks"
        raise DiscoveryError(f"inbox {inbox}", what, mend) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: the entry fails by name, if it has a workbook's
        return False


def _left_out(name: str, depth: int, excluded: set[str], discovery: Discovery) -> str:
    """Say why a folder is not entered, or ""."""
    if _nfc(name).casefold() in excluded:
        return "folder excluded (exclude_directories)"
    if ignored := _ignored(name, discovery):
        return f"folder ignored by {ignored!r} (ignore_patterns)"
    if depth >= discovery.max_depth:
        return f"folder deeper than max_depth {discovery.max_depth}"
    return ""


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _ignored(name: str, discovery: Discovery) -> str | None:
    return next((one for one in discovery.ignore_patterns if fnmatch.fnmatchcase(_nfc(name), _nfc(one))), None)


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _recognise(file: Candidate, entry: os.DirEntry[str], pattern: re.Pattern[str], discovery: Discovery) -> None:
    """Fill in what a file's name and place say, or why it is no candidate."""
    name = _nfc(entry.name)
    suffix = PurePosixPath(name).suffix.lower()
    if ignored := _ignored(name, discovery):
        file.reason = f"ignored by {ignored!r} (ignore_patterns)"
    elif not _is_utf8(file.path):
        file.reason = "its name or folder is not UTF-8: rename it"
    elif suffix not in discovery.file_extensions:
        file.reason = f"extension {suffix or 'none'} is not one of {', '.join(discovery.file_extensions)}"
    elif (found := pattern.search(name)) is None:
        file.reason = _where_it_stops(pattern.pattern, name)
    else:
        _date(file, found)
    with contextlib.suppress(OSError):  # gone since, or a link to nothing: said where its bytes are wanted
        stat = entry.stat()
        file.size, file.modified = stat.st_size, stat.st_mtime_ns


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _date(file: Candidate, found: re.Match[str]) -> None:
    parts = found.groupdict()
    file.source = unicodedata.normalize("NFKC", parts.get("source") or "").strip()
    file.version = _version(file.path)
    year, month = parts.get("year"), parts.get("month")
    if year and month:
        try:
            first = date(int(year) + 2000 if int(year) < 100 else int(year), int(month), 1)
        except ValueError:
            file.reason = f"its name gives year {year} and month {month}, which is no month"
            return
        file.period = first.isoformat()[:7]
        file.warning = _misplaced(file)


def _misplaced(file: Candidate) -> str:
    """Warn of a workbook in a folder that is named by another period."""
    for folder in reversed(PurePosixPath(file.path).parts[:-1]):
        if found := _PERIOD_FOLDER.fullmatch(_nfc(folder)):
            named = f"{found['year']}-{int(found['month']):02}"
            return "" if named == file.period else f"is of {file.period} by its name, and in a folder of {named}"
    return ""


def month_of(name: str, pattern: str) -> date | None:
    """Return the month that a file's name gives, None where it gives none."""
    file = Candidate(path=name)
    if found := re.compile(pattern, re.DOTALL).search(_nfc(name)):
        _date(file, found)
    return file.month


def holding(inbox: Path, sha256: str, usual: str, discovery: Discovery, hashes: dict[Path, str]) -> Path | None:
    """
    Find a workbook in the inbox by its bytes, wherever it was moved and whatever it is called by now.

    Args:
        usual: its path below the inbox, which is looked at first.
        hashes: of files that were looked at before; brought up to date.
    """
    paths = [
        Path(folder) / name
        for folder, _, names in os.walk(inbox)
        for name in names
        if Path(name).suffix.lower() in discovery.file_extensions
    ]
    for path in sorted(paths, key=lambda path: (path != inbox / usual, path)):
        with contextlib.suppress(OSError):
            if path not in hashes and path.is_file():
                hashes[path] = file_digest(path)
            if hashes.get(path) == sha256:
                return path
    return None


def _version(path: str) -> int:
    """Return the number of the nearest folder V<number> above a file; V10 is after V9."""
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        if found := re.fullmatch(r"[vV](\d{1,9})", folder):
            return int(found[1])
    return 0


def _where_it_stops(pattern: str, name: str) -> str:
    """Say how far into the pattern a name can be matched."""
    return f"does not match the pattern from {pattern[_matched(pattern, name) :][:60]} on"


def _matched(pattern: str, name: str) -> int:
    """Return the length of the longest part of a pattern, from its start, that is one and matches the name."""
    return next((length for length, part in _parts(pattern) if part.search(name)), 0)


@functools.lru_cache(maxsize=4)
def _parts(pattern: str) -> list[tuple[int, re.Pattern[str]]]:
    """Return every part of a pattern, from its start, that is one itself, with its length; the longest first."""
    parts = []
    for end in range(len(pattern), 0, -1):
        with contextlib.suppress(re.error):
            parts.append((end, re.compile(pattern[:end], re.DOTALL)))
    return parts


def _nothing(inbox: Path, config: DomainConfig, files: Sequence[Candidate]) -> DiscoveryError:
    """Explain an inbox without a candidate by the nearest names and why they are none."""
    what = f"no workbook matches the pattern {config.pattern}"
    if not files:
        return DiscoveryError(f"inbox {inbox}", f"{what}: the folder is empty", "set WDH_DATA_BASE_DIR to the inbox")
    nearest = sorted(files, key=lambda file: _nearness(file, config), reverse=True)[:_NEAREST]
    names = "; ".join(f"{file.path}: {file.reason}" for file in nearest)
    more = f" (and {len(files) - _NEAREST} more)" if len(files) > _NEAREST else ""
    mend = "rename the workbook, or correct pattern or discovery in data_sources.yml"
    return DiscoveryError(f"inbox {inbox}", f"{what}; nearest are {names}{more}", mend)


def _nearness(file: Candidate, config: DomainConfig) -> tuple[float, float]:
    name = PurePosixPath(file.path).name
    likeness = difflib.SequenceMatcher(None, config.pattern, name).ratio()
    return _matched(config.pattern, name) if "pattern" in file.reason else len(config.pattern) * likeness, likeness


def _periods(inbox: Path, files: Iterable[Candidate], config: DomainConfig, period: str | None) -> set[str]:
    """Return the periods that are wanted."""
    there = {file.period for file in files}
    if period is None:
        period = "latest" if config.select == "latest_by_year_month" else "all"
    if period == "all":
        return there
    if period == "latest":
        return {max(there)}
    if period not in there:
        names = ", ".join(sorted(there - {""})) or "none"
        what = f"holds no workbook of {period}; it has the periods {names}"
        raise DiscoveryError(f"inbox {inbox}", what, "choose one of these with --period")
    return {period}


def _hash(path: Path, file: Candidate, hashes: dict[str, list[int | str]]) -> None:
    """Set the sha256 of a file's bytes; one that cannot be read is taken all the same, to fail by name."""
    try:
        stat = path.stat()
        signature: list[int | str] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        known = hashes.get(str(path))
        if known and known[:4] == signature:
            file.sha256 = str(known[4])
            return
        if not path.is_file():
            file.reason = "is not a regular file"
            return
        file.sha256 = file_digest(path)
    except OSError as error:
        file.reason = f"cannot be read ({error.strerror})"
        return
    if max(stat.st_mtime, stat.st_ctime) < time.time() - _RACY_SECONDS:
        hashes[str(path)] = [*signature, file.sha256]


def _choose(inbox: Path, files: Sequence[Candidate], config: DomainConfig) -> None:
    """Mark the workbooks to take: one for each period and source, or the newest file."""
    if config.select == "latest_by_mtime":
        changed = _changed(files)
        _choose_one(inbox, list(files), config, rank=lambda file: changed[_content(file)], word="older file")
        return
    places: defaultdict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for file in files:
        places[file.period, file.source].append(file)
    for rivals in places.values():
        _choose_one(inbox, rivals, config, rank=lambda file: file.version, word="lower version")


def _choose_one(
    inbox: Path, rivals: list[Candidate], config: DomainConfig, *, rank: Callable[[Candidate], int], word: str
) -> None:
    winner = max(rivals, key=rank)
    best = rank(winner)
    tied: list[Candidate] = []
    for file in sorted(rivals, key=lambda file: (len(file.path), file.path)):  # a copy's name is the longer one
        twin = next((other for other in tied if other.sha256 and other.sha256 == file.sha256), None)
        if rank(file) < best:
            file.reason = f"{word} than {winner.path}"
        elif twin:
            file.reason = f"the same bytes as {twin.path}"
        else:
            tied.append(file)
    if len(tied) > 1 and config.on_tie == "newest":
        changed = _changed([file for file in rivals if rank(file) == best])
        newest = max(changed.values())
        for file in tied:
            if changed[_content(file)] < newest:
                file.reason = "older of those that tie (on_tie: newest)"
        tied = [file for file in tied if changed[_content(file)] == newest]
    if len(tied) > 1:
        raise _tie(inbox, tied, config)
    tied[0].chosen = True


def _content(file: Candidate) -> str:
    """Return what makes two files one: their bytes, or their path where those cannot be read."""
    return file.sha256 or file.path


def _changed(files: Iterable[Candidate]) -> dict[str, int]:
    """Return the newest time of change for each content: the first version sent again counts as new."""
    changed: dict[str, int] = {}
    for file in files:
        changed[_content(file)] = max(file.modified, changed.get(_content(file), file.modified))
    return changed


def _tie(inbox: Path, tied: Sequence[Candidate], config: DomainConfig) -> DiscoveryError:
    names = " and ".join(file.path for file in tied[:_NEAREST])
    more = f" (and {len(tied) - _NEAREST} more)" if len(tied) > _NEAREST else ""
    of = f" for {tied[0].period}" if tied[0].period else ""
    what = f"{'two' if len(tied) == 2 else len(tied)} candidates tie{of}: {names}{more}"
    if config.select == "latest_by_mtime":
        return DiscoveryError(f"inbox {inbox}", f"{what}; they changed at the same time", "touch the one to take")
    newest = "" if config.on_tie == "newest" else ", or set on_tie: newest"
    mend = f"put the correction into a folder V2, or put the source before the date{newest}"
    return DiscoveryError(f"inbox {inbox}", what, mend)


def describe(file: Candidate) -> str:
    """Return one line about a workbook: its path with its period and version."""
    version = f" V{file.version}" if file.version else ""
    return one_line(f"{file.path} ({file.period or 'no period'}{version})")
