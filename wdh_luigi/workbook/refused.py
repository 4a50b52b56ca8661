"""What the looks into a file's container say: its format, or why it is refused."""

from __future__ import annotations

from typing import Literal

Kind = Literal["xlsx", "xlsb", "xls", "ods"]

ASK = "ask for the workbook itself"
AGAIN = "send it again"
SAVE_AS = "open it in Excel and save it as Excel Workbook (.xlsx)"
RESAVE = "open it in Excel and save it again, or send it again"
NO_PASSWORD = "open it in Excel, remove the password (File, Info, Protect Workbook) and save it"


class Refused(Exception):
    """
    A file is no workbook that can be read.

    Args:
        what: what it is instead.
        mend: what to do about it.
    """

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend)
        self.what = what
        self.mend = mend


class Cut(Refused):
    """A file ends too early: damaged, or still being written."""

    def __init__(self, what: str) -> None:
        super().__init__(what, RESAVE)
