"""Read any workbook with the reader that suits its content, whatever its name says."""

from __future__ import annotations

import importlib
from pathlib import Path, PurePath
from typing import Any

from wdh_luigi.workbook import sniff
from wdh_luigi.workbook.around import Around
from wdh_luigi.workbook.book import Book

_READERS = {"xlsx": "calamine", "xlsb": "xlsb", "xls": "xls", "ods": "ods"}
_BY_SUFFIX = {".xlsx": ["xlsx"], ".xlsm": ["xlsx"]}


def prepare(name: str) -> None:
    """Import what a workbook of a name is likely to need; what its content needs beyond is imported then."""
    for content in _BY_SUFFIX.get(PurePath(name).suffix.lower(), _READERS):
        _reader(content)


def _reader(content: str) -> Any:
    return importlib.import_module(f"wdh_luigi.workbook.{_READERS[content]}_reader")


def open_book(path: Path, shown: str) -> Book:
    """
    Open an .xlsx, .xlsm, .xlsb, .xls or .ods workbook.

    Args:
        shown: the workbook's name in messages.
    Raises:
        WorkbookError: it is no workbook, or it cannot be read.
    """
    around = Around()
    kind = sniff.check(path, shown, around.take)
    book: Book = _reader(kind).open_book(path, shown, *([around] if kind == "xlsx" else []))
    return book
