"""The accounts of plans that a work directory holds: of which workbook each is, how it was made, and its load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdh_luigi import targets
from wdh_luigi.errors import WorkDirError
from wdh_luigi.plan import Place


@dataclass(frozen=True)
class Account:
    """
    A plan that was written.

    Attributes:
        key: of the step that wrote it.
        workbook: its path below the inbox, then.
        process: the key of the step before.
        conditions: for each step what its result depends on, by name.
        written: when, in seconds since 1970.
        load_id: of the load by a run of this work directory; None where none applied it.
        applied: when that was; 0 where none applied it.
    """

    key: str
    workbook: str
    sha256: str
    place: Place
    process: str
    conditions: Mapping[str, Mapping[str, Any]]
    plan_digest: str
    written: float
    load_id: int | None
    applied: float


def read(folder: Path, key: str) -> Account:
    """
    Read the account of a plan.

    Raises:
        WorkDirError: missing, or not what was written.
    """
    path, loaded = folder / f"{key}.json", folder / f"{key}.loaded.json"
    document = targets.read_json(path)
    load_id, applied = None, 0.0
    try:
        if loaded.exists():
            load_id, applied = int(targets.read_json(loaded)["receipt"]), loaded.stat().st_mtime
        return Account(
            key=key,
            **{name: document[name] for name in ("workbook", "sha256", "process", "conditions", "plan_digest")},
            place=Place(**document["place"]),
            written=path.stat().st_mtime,
            load_id=load_id,
            applied=applied,
        )
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise WorkDirError(str(path), "is not the account that was written", "delete it and run again") from error


def readable(folder: Path) -> Iterator[Account]:
    """Yield the accounts in a folder; one that is damaged is passed over."""
    return targets.readable(folder, lambda path: read(folder, path.stem))
