"""The door to workbooks: a domain's rows out of a file, each with the row number that Excel shows."""

from __future__ import annotations

from wdh_luigi.workbook.table import Extremes, OpenBook, Profile, Table, named, open_table, opener

__all__ = ["Extremes", "OpenBook", "Profile", "Table", "named", "open_table", "opener"]
