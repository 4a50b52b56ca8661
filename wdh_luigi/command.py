"""The door of the ``wdh`` command: all else is imported behind it, so that Ctrl-C meanwhile is one line too."""

from __future__ import annotations

import sys

from wdh_luigi.errors import INTERRUPTED


def main() -> None:
    """Run the command."""
    try:
        from wdh_luigi.cli import main as wdh

        wdh()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
