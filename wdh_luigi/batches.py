"""Rows side by side: a batch of them by columns, as readers give them and targets keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, groupby, zip_longest
from typing import Any, NamedTuple

from wdh_luigi.cells import PLAIN, Cell, NumberCell, Row, from_json, to_json

BATCH_ROWS = 1_000  # enough to share the work that a batch costs
FIRST_ROWS = 50  # of the first batch: who looks for the headings needs no more, and does not meet what is behind
BATCH_CELLS = 200_000  # of a sheet that is wider than any table


class Column(NamedTuple):
    """
    The cells of one column.

    Attributes:
        cells: one for each row, or a single one that all rows have; as they are, or as JSON keeps them.
        number_format: what every number among them has, where it says more than the number; else "".
    """

    cells: Sequence[Any]
    number_format: str = ""

    def unformatted(self) -> Sequence[Cell]:
        """Return the cells, without the column's number format."""
        return [from_json(cell) for cell in self.cells] if dict in set(map(type, self.cells)) else self.cells

    def each(self, rows: int) -> Sequence[Cell]:
        """Return the cell of each of so many rows."""
        cells = self.unformatted()
        if self.number_format:
            cells = [self._formatted(cell) for cell in cells]
        return cells if len(cells) == rows else list(cells) * rows

    def at(self, place: int) -> Cell:
        """Return the cell of one row."""
        return self._formatted(from_json(self.cells[place if len(self.cells) > 1 else 0]))

    def _formatted(self, cell: Cell) -> Cell:
        is_number = self.number_format and type(cell) in (int, float)
        return NumberCell(cell, self.number_format) if is_number else cell  # type: ignore[arg-type]

    def chosen(self, mask: Sequence[bool]) -> Column:
        """Return the cells of some of the rows."""
        return self if len(self.cells) == 1 else Column(list(compress(self.cells, mask)), self.number_format)

    def document(self) -> Any:
        """Return the column as JSON keeps it: its cells, in an object with their format where there is one."""
        cells = self.cells
        kinds = set(map(type, cells))
        if len(kinds) == 1 and cells[0] == cells[-1] and cells.count(cells[0]) == len(cells):
            cells = cells[:1]
        if not kinds <= PLAIN:
            cells = [cell if type(cell) in PLAIN else to_json(cell) for cell in cells]
        return {"format": self.number_format, "cells": cells} if self.number_format else cells


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Some rows of a sheet.

    Attributes:
        rows: their numbers, upwards.
        columns: from column A on, as many as the widest row has.
    """

    rows: Sequence[int]
    columns: Sequence[Column]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Batch:
        """Put rows side by side."""
        across = zip_longest(*(cells for _, cells in rows))
        return cls([number for number, _ in rows], [Column(cells) for cells in across])

    @classmethod
    def of_document(cls, document: Any) -> Batch:
        """
        Return what ``document`` made this of.

        Raises:
            ValueError: a column has another number of cells.
        """
        rows = [number for first, last in document["rows"] for number in range(first, last + 1)]
        columns = [
            Column(column["cells"], column["format"]) if isinstance(column, dict) else Column(column)
            for column in document["columns"]
        ]
        for column in columns:
            if len(column.cells) not in (1, len(rows)):
                raise ValueError(f"{len(column.cells)} cells for {len(rows)} rows")
        return cls(rows, columns)

    def document(self) -> dict[str, Any]:
        """Return the batch as JSON keeps it; row numbers as spans, both ends included."""
        return {"rows": list(_spans(self.rows)), "columns": [column.document() for column in self.columns]}

    def by_rows(self) -> Iterator[Row]:
        """Yield the rows, without blank cells at their ends."""
        each = [column.each(len(self.rows)) for column in self.columns]
        for number, cells in zip(self.rows, zip(*each, strict=True), strict=True) if each else ():
            row = list(cells)
            while row and row[-1] is None:
                row.pop()
            yield number, row

    def chosen(self, mask: Sequence[bool]) -> Batch:
        """Return some of the rows."""
        return Batch(list(compress(self.rows, mask)), [column.chosen(mask) for column in self.columns])

    def cell(self, place: int, column: int | None) -> Cell:
        """Return the cell of the row at a place in the batch; None where it has no such column."""
        return self.columns[column].at(place) if column is not None and column < len(self.columns) else None


def _spans(rows: Sequence[int]) -> Iterator[list[int]]:
    if rows and rows[-1] - rows[0] == len(rows) - 1:
        yield [rows[0], rows[-1]]
        return
    for _, span in groupby(enumerate(rows), lambda one: one[1] - one[0]):
        numbers = [number for _, number in span]
        yield [numbers[0], numbers[-1]]


def in_batches(rows: Iterable[Row]) -> Iterator[Batch]:
    """Put rows side by side, so many at a time that memory holds them however wide they are."""
    batch: list[Row] = []
    widest, most = 0, FIRST_ROWS
    for row in rows:
        widest = max(widest, len(row[1]))
        if batch and (len(batch) == most or (len(batch) + 1) * widest > BATCH_CELLS):
            yield Batch.of(batch)
            batch, widest, most = [], len(row[1]), BATCH_ROWS
        batch.append(row)
    if batch:
        yield Batch.of(batch)


def side_by_side(parts: Iterable[str | Sequence[str]], rows: int) -> str:
    """
    Return lines, one behind the other, that are put together of parts.

    Args:
        parts: each a text that all lines have, or a text for each of them.
    Raises:
        ValueError: a part has another number of texts.
    """
    # What all lines have is joined once, also where it is a column's only value.
    pattern, columns = [""], []
    for part in parts:
        if isinstance(part, str):
            pattern[-1] += part
        elif part and part.count(part[0]) == len(part) == rows:
            pattern[-1] += part[0]
        else:
            columns.append(part)
            pattern += ["", ""]
    texts = pattern * rows
    for at, column in enumerate(columns):
        texts[2 * at + 1 :: len(pattern)] = column
    return "".join(texts)
