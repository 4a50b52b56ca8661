"""Where a row of the table comes from: its workbook's cells as typed, the rules that changed them, and its load."""

from __future__ import annotations

from wdh_luigi.trace.known import Known
from wdh_luigi.trace.rows import terms
from wdh_luigi.trace.text import lines
from wdh_luigi.trace.told import trace

__all__ = ["Known", "lines", "terms", "trace"]
