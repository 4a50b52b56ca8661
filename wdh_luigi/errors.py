"""
The errors that a user can cause, each one line: where, what, and how to mend it.

    WdhError
    ├── ConfigError        data_sources.yml, a WDH_ setting or a task parameter
    ├── DiscoveryError     the inbox: nothing chosen, a tie, a period in the future
    ├── WorkbookError      one workbook cannot be read, or not be taken as it is
    ├── PlanError          a plan that is not what was written
    ├── DatabaseError      PostgreSQL: unreachable, or it refused a load
    ├── WorkDirError       the work directory cannot be written or read
    └── BusyError          another run is going on
"""

from __future__ import annotations

INTERRUPTED = 130  # the exit code that shells give to Ctrl-C


class WdhError(Exception):
    """
    Anything that stops a workbook or a run and that a person can mend.

    Args:
        where: file, setting or object, for example "data_sources.yml, line 3".
        what: what is wrong, with what was found and what was expected.
        mend: what to do about it, in the imperative.
    """

    def __init__(self, where: str, what: str, mend: str = "") -> None:
        super().__init__(where, what, mend)
        self.where = where
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return one_line(f"{self.where}: {self.what}" + (f"; {self.mend}" if self.mend else ""))


class ConfigError(WdhError):
    """data_sources.yml, a WDH_ setting or a parameter is not usable."""


class DiscoveryError(WdhError):
    """The inbox holds no workbook to take, or leaves open which."""


class WorkbookError(WdhError):
    """
    One workbook cannot be read, or not be taken as it is.

    Args:
        path: the workbook, as the user knows it.
        sheet: the sheet's name, where it matters.
        cell: the cell in Excel's own words, for example "D7".
    """

    def __init__(
        self, path: str, what: str, mend: str = "", *, sheet: str | None = None, cell: str | None = None
    ) -> None:
        place = [path]
        if sheet is not None:
            place.append(f"sheet {sheet}")
        if cell is not None:
            place.append(f"cell {cell}")
        super().__init__(", ".join(place), what, mend)
        self.path = path
        self.sheet = sheet
        self.cell = cell

    def __reduce__(self) -> tuple[object, ...]:  # pickled out of a child process: keyword arguments are lost otherwise
        return (_workbook_error, (type(self), self.path, self.what, self.mend, self.sheet, self.cell))


class PlanError(WdhError):
    """A plan's bytes are not what was written."""


class DatabaseError(WdhError):
    """PostgreSQL cannot be reached, or refused a load."""


class WorkDirError(WdhError):
    """The work directory, or a file in it, cannot be written or read."""


class BusyError(WdhError):
    """Another run of the domain holds the work directory."""


def one_line(text: str) -> str:
    """Escape what would break the line or the terminal, or cannot be printed; Chinese stays as it is."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _workbook_error(
    kind: type[WorkbookError], path: str, what: str, mend: str, sheet: str | None, cell: str | None
) -> WorkbookError:
    return kind(path, what, mend, sheet=sheet, cell=cell)
