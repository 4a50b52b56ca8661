"""The architecture as a checked contract: imports point strictly down, and each outside dependency has one door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wdh_luigi"

# From the top; a module may import what stands in a line below its own, and modules of its own package.
LAYERS = [
    {"command"},
    {"cli"},
    {"months"},
    {"crew"},
    {"__init__"},
    {"tasks", "luigid"},
    {"launch"},
    {"places", "housekeeping"},
    {"watch"},
    {"run", "trace"},
    {"steps", "preview", "ground", "history", "accounts"},
    {"sorting"},
    {"validate", "warehouse"},
    {"discover", "workbook", "plan", "report", "rejects", "progress", "logs"},
    {"domains"},
    {"schema"},
    {"spellings", "batches"},
    {"cells", "config", "targets", "embedded", "lock", "keys"},
    {"errors"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

DOORS = {
    "luigi": {"tasks", "launch", "watch", "luigid", "crew", "months"},
    "psycopg2": {"warehouse"},
    "openpyxl": {"workbook", "rejects"},
    "python_calamine": {"workbook"},
    "xlrd": {"workbook"},
    "zlib_ng": {"workbook"},
    "yaml": {"config"},
    "pydantic_settings": {"config"},
    "rich": {"report", "progress", "cli"},
    "tornado": {"luigid"},
    "click": {"cli"},
}


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Return every module that a file imports, those under TYPE_CHECKING and inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            module = node.module or ""
            found += [f"{module}.{alias.name}" for alias in node.names] if module == "wdh_luigi" else [module]
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_strictly_down(path: Path) -> None:
    """A change below is felt above, and never the other way round."""
    own = module_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "wdh_luigi" and parts[1] not in (own, "__version__"):
            assert RANK[own] < RANK[parts[1]], f"{own} imports {parts[1]}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_dependency_has_one_door(path: Path) -> None:
    """What a library does wrong is put right in one place."""
    own = module_of(path)
    for name in imports(path):
        door = DOORS.get(name.split(".")[0])
        assert door is None or own in door, f"{own} imports {name}; only {door} may"


def test_every_module_has_its_layer() -> None:
    """A new module is placed on purpose."""
    assert {module_of(path) for path in FILES} == set(RANK)
