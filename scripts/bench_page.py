"""The part of a page that a benchmark writes: what is between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write(page: Path, mark: str, lines: Sequence[str]) -> None:
    """Put lines between a page's marks, in the place of those that are there."""
    before, _, rest = page.read_text("utf-8").partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- /{mark} -->")
    part = "\n".join(lines)
    page.write_text(f"{before}<!-- {mark} -->\n{part}\n<!-- /{mark} -->{after}", "utf-8")
