"""What every reader gives: a workbook's sheets, and a sheet's rows with Excel's own row numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from wdh_luigi.batches import Batch, in_batches
from wdh_luigi.cells import Row as Row


@dataclass(frozen=True, slots=True)
class Sheet:
    """One tab of a workbook; only a worksheet has rows."""

    name: str
    kind: Literal["worksheet", "chart", "macro", "dialog"] = "worksheet"
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Merge:
    """A merged range, its rows and columns counted from 1 and both ends included."""

    first_row: int
    first_column: int
    last_row: int
    last_column: int


class Book(Protocol):
    """
    An open workbook.

    Every reader keeps these rules, so that none is seen from outside: rows come in order, each with the number that
    Excel shows; cells start at column A; a row without any value is left out, and so are blank cells at the end of
    a row; a cell under a merge is blank (None), its top left cell alone holds the value; text is as Excel shows it
    (``_x000D_`` decoded), blank text is None; an error, or a formula without a computed value, is an ErrorCell,
    never a blank; a number whose format shows a percentage or pads with zeros is a NumberCell.
    """

    sheets: list[Sheet]
    gives_formats: bool

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yield a worksheet's rows, one (row number, cells) pair a row that holds a value."""
        ...

    def batches(self, sheet: str) -> Iterator[Batch]:
        """Yield the same rows, side by side."""
        return in_batches(self.rows(sheet))

    def merges(self, sheet: str) -> list[Merge]:
        """List a worksheet's merged ranges."""
        ...

    def last_row(self, sheet: str) -> int | None:
        """Return a worksheet's last row as the file says beforehand, right or wrong; None where it says nothing."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...
