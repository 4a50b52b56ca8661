"""What a plan would change, as the database it meets stands: asked before it is applied, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wdh_luigi import plan, targets, warehouse
from wdh_luigi.errors import PlanError

_EXAMPLES = 20


@dataclass(frozen=True)
class Ground:
    """
    What applying a plan would come to.

    Attributes:
        plan_digest: the plan that was asked about.
        new, changed, unchanged: its rows, by what the table holds under their keys.
        deleted: rows that would leave the table and not come back (``replace: place``).
        left_over: rows of former loads of its place that would stay, though the workbook does not hold them.
        examples: the first twenty changes: key, column, old, new.
    """

    plan_digest: str
    new: int
    changed: int
    unchanged: int
    deleted: int
    left_over: int
    examples: list[list[str | None]]

    @property
    def counts(self) -> str:
        """Return the counts in words."""
        return (
            f"{self.new} new, {self.changed} changed, {self.unchanged} unchanged, {self.deleted} deleted,"
            f" {self.left_over} left over from the place's former loads"
        )


def path_of(path: Path) -> Path:
    """Return where the ground of a plan is kept: beside it."""
    return path.with_suffix(".diff.json")


def diff(connection: warehouse.Connection, path: Path) -> Ground:
    """
    Ask the database what a plan would change; the table is as it was afterwards.

    Raises:
        PlanError: the plan's bytes are not what was written.
        DatabaseError: a guard of the plan stops it, as it would stop its load.
    """
    with (
        warehouse.opened(path) as (file, written),
        warehouse.locked(connection, written.place, written.lock_timeout),
        warehouse.staged(connection, file, written, path) as cursor,
    ):
        new, changed, unchanged = _rows(cursor, written)
        gone = _not_held(cursor, written)
        is_place = written.replace == "place" and written.mode == "delete_insert"
        deleted, left_over = (gone, 0) if is_place else (0, gone)
        return Ground(written.plan_digest, new, changed, unchanged, deleted, left_over, _examples(cursor, written))


def keep(path: Path, found: Ground) -> None:
    """Write the ground of a plan beside it."""
    targets.write_json(path_of(path), asdict(found))


def expect(connection: warehouse.Connection, path: Path) -> None:
    """
    Check that the ground of a plan is still what ``diff`` found.

    Raises:
        PlanError: nothing was found before, or it is another now.
    """
    before = path_of(path)
    if not before.exists():
        raise PlanError(str(path), "nobody asked what it would change", "run wdh diff, review, and apply again")
    now = asdict(diff(connection, path))
    then = targets.read_json(before)
    if now != then:
        shifted = [f"{name} {then.get(name)} -> {now[name]}" for name in _COUNTS if now[name] != then.get(name)]
        what = f"the ground has shifted since wdh diff ({', '.join(shifted) or 'other values'})"
        raise PlanError(str(path), what, "run wdh diff again, review, and apply again")


_COUNTS = ("new", "changed", "unchanged", "deleted", "left_over")


def _match(written: plan.Written) -> str:
    return " AND ".join(f"t.{plan.identifier(name)} = s.{plan.identifier(name)}" for name in written.key) or "false"


def _figures(written: plan.Written) -> list[str]:
    return [plan.identifier(name) for name in written.columns if name not in written.key]


def _differ(names: Sequence[str]) -> str:
    return " OR ".join(f"t.{name} IS DISTINCT FROM s.{name}" for name in names) or "false"


def _rows(cursor: Any, written: plan.Written) -> tuple[int, int, int]:
    """Count the plan's rows that are new, changed and unchanged."""
    cursor.execute(
        "SELECT count(*) FILTER (WHERE t.ctid IS NULL),"
        f" count(*) FILTER (WHERE t.ctid IS NOT NULL AND ({_differ(_figures(written))})), count(*)"
        f" FROM pg_temp.wdh_staged AS s LEFT JOIN {written.place.target} AS t ON {_match(written)}"
    )
    new, changed, rows = cursor.fetchone()
    return new, changed, rows - new - changed


def _not_held(cursor: Any, written: plan.Written) -> int:
    """Count the rows of former loads of the plan's place whose keys the workbook does not hold."""
    cursor.execute(
        f"SELECT count(*) FROM {written.place.target} AS t JOIN {written.place.receipts} AS l ON l.load_id = t.load_id"
        f" WHERE {plan.same_place(written.place)}"
        f" AND NOT EXISTS (SELECT FROM pg_temp.wdh_staged AS s WHERE {_match(written)})"
    )
    return int(cursor.fetchone()[0])


def _examples(cursor: Any, written: plan.Written) -> list[list[str | None]]:
    key = ", ".join(f"s.{plan.identifier(name)}" for name in written.key)
    changes = ", ".join(f"({plan.literal(name)}, t.{name}::text, s.{name}::text)" for name in _figures(written))
    if not key or not changes:
        return []
    cursor.execute(
        f"SELECT concat_ws(' ', {key}), c.name, c.old, c.new FROM pg_temp.wdh_staged AS s"
        f" JOIN {written.place.target} AS t ON {_match(written)}"
        f" CROSS JOIN LATERAL (VALUES {changes}) AS c (name, old, new)"
        f" WHERE c.old IS DISTINCT FROM c.new ORDER BY s.workbook_row, c.name LIMIT {_EXAMPLES}"
    )
    return [[key, name.strip('"'), old, new] for key, name, old, new in cursor.fetchall()]
