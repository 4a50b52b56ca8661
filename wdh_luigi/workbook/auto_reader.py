"""Read any workbook with the reader that suits its content, whatever its name says."""

from __future__ import annotations

from pathlib import Path

from wdh_luigi.workbook import calamine_reader, ods_reader, sniff, xls_reader, xlsb_reader
from wdh_luigi.workbook.book import Book

_READERS = {
    "xlsx": calamine_reader.open_book,
    "xlsb": xlsb_reader.open_book,
    "xls": xls_reader.open_book,
    "ods": ods_reader.open_book,
}


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xlsx, .xlsm, .xlsb, .xls or .ods workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it is no workbook, or it cannot be read.
    """
    return _READERS[sniff.check(path, shown)](path, shown)
