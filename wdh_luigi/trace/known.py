"""What this machine still knows of loaded workbooks: the work directory's targets, else the inbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from wdh_luigi import discover, steps, targets, validate, workbook
from wdh_luigi.cells import Cell
from wdh_luigi.config import Discovery, DomainConfig, Settings
from wdh_luigi.errors import WdhError, WorkbookError
from wdh_luigi.schema import Domain, Reading
from wdh_luigi.workbook import Profile, guard


@dataclass(frozen=True)
class Cells:
    """
    Rows of a workbook as read, and what its headings and name say of all of them.

    Attributes:
        rows: row number -> its cells.
        duplicates: rows that say the same as another: {"row", "of"}.
        origin: where they were found.
    """

    profile: Profile
    reading: Reading
    rows: dict[int, list[Cell]]
    duplicates: list[dict[str, int]]
    origin: str


class Known:
    """The work directory and the inbox, asked for the workbook and the plan of a receipt; nothing is written."""

    def __init__(self, settings: Settings, domain: Domain, config: DomainConfig, discovery: Discovery) -> None:
        self._settings = settings
        self._domain = domain
        self._config = config
        self._discovery = discovery
        self._hashes: dict[Path, str] = {}

    def plan_of(self, receipt: Mapping[str, Any]) -> str | None:
        """Return where the plan of a load is, as it was applied."""
        path = steps.plan_of(self._settings.work_dir, self._domain.name, receipt["plan_digest"])
        return str(path) if path else None

    def cells(self, receipt: Mapping[str, Any], wanted: set[int]) -> Cells | str:
        """Return rows of a load's workbook as read, of no other bytes than were loaded; or why they are not known."""
        work, inbox = self._settings.work_dir, self._settings.data_base_dir
        sha256 = receipt["workbook_sha256"]
        found = steps.processed(work, self._domain.name, sha256, receipt["records_digest"])
        for one in sorted(found, key=lambda one: one.workbook != receipt["workbook"]):
            try:
                rows = one.rows(wanted)
            except (WdhError, LookupError, TypeError, ValueError):  # cut or edited
                continue
            return Cells(one.profile, one.reading, rows, one.duplicates, f"as read into {one.rows_path}")
        path = discover.holding(inbox, sha256, receipt["workbook"], self._discovery, self._hashes)
        if path is None:
            return f"the cells are not known here: neither {work} nor {inbox} holds that workbook (sha256 {sha256})"
        try:
            return self._read_again(path, receipt, wanted)
        except WdhError as error:
            return f"the cells are not known here: {error}"

    def _read_again(self, path: Path, receipt: Mapping[str, Any], wanted: set[int]) -> Cells:
        """Read a workbook by today's code and configuration; its month is the one of its name when it was loaded."""
        settings, config, domain = self._settings, self._config, self._domain
        profile, rows = guard.run(
            _read,
            path,
            config.sheet,
            domain,
            workbook.opener(config.reader),
            wanted,
            shown=str(path),
            memory=settings.read_memory_mb << 20,
            seconds=settings.read_seconds,
        )
        if targets.file_digest(path) != receipt["workbook_sha256"]:
            raise WorkbookError(str(path), "changed while it was read", "run again when it is whole")
        month = date.fromisoformat(f"{receipt['period']}-01") if receipt["period"] else None
        reading = validate.reading(profile, config, domain, month, date.today())
        reading = validate.with_rates(reading, validate.rates(profile, config, domain, str(path)))
        return Cells(profile, reading, rows, [], f"read again from {path}, by today's code and configuration")


def _read(
    path: Path, sheet: int | str | None, domain: Domain, open_book: workbook.OpenBook, wanted: set[int]
) -> tuple[Profile, dict[int, list[Cell]]]:
    table = workbook.open_table(path, str(path), sheet, domain, open_book)
    try:
        rows = {number: cells for number, cells in table.rows() if number in wanted}
        return table.profile, rows
    finally:
        table.close()
