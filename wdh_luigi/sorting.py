"""
A workbook's rows sorted into files, in one pass: records as JSON, the same as lines of a plan's COPY, and rejects.

The pass runs while the rows are read, on the machine's other core: a process of its own follows the file of rows as
it grows. What a bare rate means is known for certain only at the end, when all rows are; it is guessed from the first
rows, and where the end says otherwise, the pass is done again. So is it where anything went wrong: ProcessTrustee then
meets it itself, and tells it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain, islice
from pathlib import Path

from wdh_luigi import spellings, targets, validate
from wdh_luigi.batches import Batch
from wdh_luigi.config import DomainConfig
from wdh_luigi.errors import WdhError
from wdh_luigi.schema import Domain, Reading
from wdh_luigi.validate import Outcome
from wdh_luigi.workbook import Extremes, Profile, guard


@dataclass(frozen=True)
class Files:
    """Where the sorted rows go: the records, the records for COPY, the rejects, and what the pass came to."""

    accepted: Path
    copied: Path
    rejects: Path
    outcome: Path


@dataclass(frozen=True)
class Sorted:
    """
    What a pass came to.

    Attributes:
        digest: sha256 over the accepted records, as JSON and in their order.
        percent: rate fields whose bare numbers it took for percent points.
    """

    outcome: Outcome
    digest: str
    percent: frozenset[str]


def sort(
    files: Files,
    batches: Iterable[Batch],
    domain: Domain,
    profile: Profile,
    config: DomainConfig,
    reading: Reading,
) -> Sorted:
    """
    Sort rows into the files.

    Args:
        batches: the rows as read.
        profile: its headings are what matters.
        reading: with what the rates mean.
    """
    sha = hashlib.sha256()
    with targets.atomic_write(files.rejects) as rejects_file:
        rejects = targets.RowWriter(rejects_file)
        validation = validate.Validation(domain, profile, config, reading, rejects.write)
        with targets.atomic_write(files.accepted) as accepted_file, targets.atomic_write(files.copied) as copied:
            accepted = targets.RowWriter(accepted_file)
            for records in validation.records(batches):
                lines = records.lines()
                sha.update(lines)
                accepted.write_block(lines)
                copied.write(records.copied())
            accepted.close()
        rejects.close()
    outcome, digest = validation.outcome, sha.hexdigest()
    if outcome.conflicts:
        digest = _leave_out(files, outcome.conflicts)
    return Sorted(outcome, digest, reading.percent)


def _leave_out(files: Files, conflicts: set[int]) -> str:
    """Write the records again without those that a later row contradicted; return their digest."""
    sha = hashlib.sha256()
    with (
        files.accepted.open("rb") as former,
        files.copied.open("rb") as former_copied,
        targets.atomic_write(files.accepted) as file,
        targets.atomic_write(files.copied) as copied,
    ):
        accepted = targets.RowWriter(file)
        next(former)  # the list's first line
        for line, copy_line in zip(former, former_copied, strict=False):
            if int(copy_line.rpartition(b"\t")[2]) not in conflicts:
                record = line.rstrip(b",\n") + b"\n"
                sha.update(record)
                accepted.write_block(record)
                copied.write(copy_line)
        accepted.close()
    return sha.hexdigest()


def keep(files: Files, done: Sorted) -> None:
    """Write what a pass came to, for the process that goes on from there."""
    document = {"outcome": vars(done.outcome), "digest": done.digest, "percent": sorted(done.percent)}
    targets.write_json(files.outcome, document)


def kept(files: Files, percent: frozenset[str]) -> Sorted | None:
    """
    Return what a pass came to that was done ahead; None where there was none, or it is of no use.

    Args:
        percent: the rate fields whose bare numbers are percent points, now that all rows are known.
    """
    if not all(path.exists() for path in (files.outcome, files.accepted, files.copied, files.rejects)):
        return None
    document = targets.read_json(files.outcome)
    if frozenset(document["percent"]) != percent:
        return None
    said = document["outcome"]
    outcome = Outcome(**said | {"conflicts": set(said["conflicts"]), "reasons": Counter(said["reasons"])})
    outcome.periods = Counter({date.fromisoformat(month): count for month, count in said["periods"].items()})
    return Sorted(outcome, document["digest"], percent)


class Telling:
    """The reading process's end of the pipe to the one that sorts: first the profile, then a mark a batch."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def begin(self, profile: Profile) -> None:
        """Tell what the sheet is like, as far as its first rows show it."""
        self._send(pickle.dumps(profile))

    def go_on(self) -> None:
        """Tell that more rows are in the file."""
        self._send(b".")

    def end(self) -> None:
        """Close this end, in the process that does not read itself; the pipe ends with the last of them."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # nobody listens any more: the rows are sorted later
            while message:
                message = message[os.write(self._pipe, message) :]


class Ahead:
    """A pass that runs while the rows are read."""

    def __init__(self, telling: Telling, job: guard.Job[Sorted]) -> None:
        self.telling = telling
        self._job = job

    def result(self) -> Sorted | None:
        """Wait until it ends; return what it came to, or None where it is to be done again."""
        try:
            return self._job.result()
        except WdhError:
            return None


@contextmanager
def ahead(
    files: Files,
    rows_path: Path,
    domain: Domain,
    config: DomainConfig,
    base: Callable[[Profile], Reading],
    *,
    shown: str,
    memory: int,
    seconds: float,
) -> Iterator[Ahead]:
    """
    Sort the rows of a file while it grows, in a process of its own, which ends with the block.

    Args:
        base: what a workbook says of its cells, but for its rates.
        shown, memory, seconds: as in guard.run.
    """
    listening, telling = os.pipe()
    args = (listening, telling, files, rows_path, domain, config, base, shown)
    job = guard.start(_follow, *args, shown=shown, memory=memory, seconds=seconds)
    os.close(listening)
    end = Telling(telling)
    try:
        yield Ahead(end, job)
    finally:
        end.end()
        job.stop()


def _follow(
    listening: int,
    telling: int,
    files: Files,
    rows_path: Path,
    domain: Domain,
    config: DomainConfig,
    base: Callable[[Profile], Reading],
    shown: str,
) -> Sorted:
    os.close(telling)
    with os.fdopen(listening, "rb") as pipe:
        profile: Profile = pickle.load(pipe)
        batches = read_batches(rows_path, more=lambda: bool(pipe.read1(1 << 12)))
        begun = list(islice(batches, 2))  # the first one is small
        extremes = _extremes(profile, begun, [name for name, column in domain.columns.items() if column.unit == "rate"])
        rates = validate.rates(replace(profile, extremes=extremes), config, domain, shown)
        reading = validate.with_rates(base(profile), rates)
        return sort(files, chain(begun, batches), domain, profile, config, reading)


def _extremes(profile: Profile, batches: Iterable[Batch], columns: Collection[str]) -> dict[str, Extremes]:
    """Return the extremes of columns in the first rows, by which those of all are guessed."""
    found = {name: Extremes() for name in profile.extremes if name in columns}
    for name, extremes in found.items():
        at = profile.headings.columns[name]
        cells = (batch.cell(place, at) for batch in batches for place in range(len(batch.rows)))
        for bare in filter(None, map(spellings.bare_number, cells)):
            extremes.add(bare, "")
    return found


def read_batches(path: Path, more: Callable[[], bool] = lambda: False) -> Iterator[Batch]:
    """
    Yield the rows of a file that write_batches wrote or is writing.

    Args:
        more: as in targets.read_batches.
    Raises:
        WorkDirError: missing, or not what was written.
    """
    for documents in targets.read_batches(path, more):
        try:
            batches = list(map(Batch.of_document, documents))
        except (ValueError, TypeError, LookupError) as error:
            raise targets.not_json(path) from error
        yield from batches


def rows_of(path: Path, wanted: Collection[int]) -> Iterator[Batch]:
    """Yield those of the rows of a file that was read whose numbers are wanted."""
    for batch in read_batches(path):
        mask = [number in wanted for number in batch.rows]
        if any(mask):
            yield batch.chosen(mask)


def write_batches(file: targets.Output, batches: Iterable[Batch], wrote: Callable[[int], None]) -> None:
    """
    Write rows as read, a JSON list of their batches, one a line.

    Args:
        wrote: called after each batch, and at the end, with the number of rows written so far.
    """
    writer, rows = targets.RowWriter(file), 0
    for batch in batches:
        writer.write(batch.document())
        file.flush()
        rows += len(batch.rows)
        wrote(rows)
    writer.close()
    file.flush()
    wrote(rows)
