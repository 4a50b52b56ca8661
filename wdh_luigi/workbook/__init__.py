"""The door to workbooks: a domain's rows out of a file, each with the row number that Excel shows."""

from __future__ import annotations

from wdh_luigi.workbook.table import Extremes, Profile, Table, open_table

__all__ = ["Extremes", "Profile", "Table", "open_table"]
