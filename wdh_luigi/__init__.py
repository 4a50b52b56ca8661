"""Trustees' Excel workbooks into PostgreSQL, as a Luigi task graph that can be reviewed before it runs."""

from __future__ import annotations

from importlib import metadata

from wdh_luigi.tasks import DiscoverFiles, Load, ProcessDomain, ProcessTrustee, ReadExcel

__all__ = ["DiscoverFiles", "Load", "ProcessDomain", "ProcessTrustee", "ReadExcel", "__version__"]

__version__ = metadata.version("wdh_luigi")
