"""Trustees' Excel workbooks into PostgreSQL, as a Luigi task graph that can be reviewed before it runs."""

from __future__ import annotations

import gc
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

# Objects: neither what is imported nor rows of cells are garbage, and Python would look for some every 700.
gc.set_threshold(100_000)

if TYPE_CHECKING or "luigi" in sys.modules:  # luigi --module wdh_luigi looks for the tasks right after the import
    from wdh_luigi.tasks import DiscoverFiles, Load, ProcessDomain, ProcessTrustee, ReadExcel

__all__ = ["DiscoverFiles", "Load", "ProcessDomain", "ProcessTrustee", "ReadExcel", "__version__"]

__version__ = metadata.version("wdh_luigi")


def __getattr__(name: str) -> Any:
    """Import the tasks where Python asks for one of them: the ``wdh`` command is at work before Luigi is there."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wdh_luigi import tasks

    return getattr(tasks, name)
