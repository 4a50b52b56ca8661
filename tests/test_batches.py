"""Rows by columns are the rows that they were put together of, in memory and in a target."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wdh_luigi import targets
from wdh_luigi.batches import BATCH_CELLS, BATCH_ROWS, FIRST_ROWS, Batch, Column, in_batches, side_by_side
from wdh_luigi.cells import Cell, ErrorCell, NumberCell, Row

CELLS = st.sampled_from(
    [
        *(None, True, 1, 1.5, 0.055, 2024, -3, "", "text", "\ud800", '"\\\n', date(2024, 11, 5), time(8), timedelta(1)),
        *(datetime(2024, 11, 5, 8), ErrorCell("#N/A"), ErrorCell("merged over E2:E3", "5"), NumberCell(0.055, "0.00%")),
    ]
)


def rows_of(cells: list[list[Cell]], skipped: set[int]) -> list[Row]:
    numbers = (number for number in range(2, 1000) if number not in skipped)
    return [(number, row) for number, row in zip(numbers, cells, strict=False) if row and row[-1] is not None]


SHEETS = st.builds(rows_of, st.lists(st.lists(CELLS, max_size=4), min_size=1, max_size=8), st.sets(st.integers(2, 9)))


@given(SHEETS)
@example([(2, [True]), (3, [1])])
@example([(2, [2024, "a"]), (3, [2024, "b"]), (5, [2024])])
def test_a_batch_is_the_rows_that_it_was_made_of(rows: list[Row]) -> None:
    """Also when a target held it meanwhile: True stays True among ones, and a row's number its own."""
    batch = Batch.of(rows)
    kept = Batch.of_document(targets.loads(targets.dumps(batch.document())))
    for one in (batch, kept):
        assert repr(list(one.by_rows())) == repr(rows)
        for place, (number, cells) in enumerate(rows):
            assert one.rows[place] == number
            assert repr([one.cell(place, at) for at in range(len(cells))]) == repr(cells)
            assert one.cell(place, None) is one.cell(place, 9) is None


@given(SHEETS, st.data())
def test_some_rows_of_a_batch_are_those_rows(rows: list[Row], data: st.DataObject) -> None:
    """Whether a column holds a cell for each of them, or one for all."""
    mask = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    batch = Batch.of_document(Batch.of(rows).document())
    chosen = [row for row, one in zip(rows, mask, strict=True) if one]
    assert repr(list(batch.chosen(mask).by_rows())) == repr(chosen)


def test_a_column_has_its_format_once() -> None:
    """A percentage's format is told of every number, and of no text, error or truth value."""
    cells = [0.05, "5%", None, 1, True, ErrorCell("#N/A")]
    column = Column(cells, "0.00%")
    formatted = [NumberCell(0.05, "0.00%"), "5%", None, NumberCell(1, "0.00%"), True, ErrorCell("#N/A")]
    document = targets.loads(targets.dumps(Batch(range(6), [column]).document()))
    assert document["columns"] == [{"format": "0.00%", "cells": [0.05, "5%", None, 1, True, {"error": "#N/A"}]}]
    for one in (column, Batch.of_document(document).columns[0]):
        assert repr(one.each(6)) == repr(formatted)
        assert repr([one.at(place) for place in range(6)]) == repr(formatted)


def test_a_target_holds_what_repeats_once() -> None:
    """Year and month of a million rows are the same: a batch says them once."""
    rows: list[Row] = [(number, [2024, number]) for number in (2, 3, 4, 6)]
    assert Batch.of(rows).document() == {"rows": [[2, 4], [6, 6]], "columns": [(2024,), (2, 3, 4, 6)]}


def test_a_batch_is_bounded_in_rows_and_in_cells() -> None:
    """One cell far to the right among a thousand short rows must not make a million of them."""
    rows: list[Row] = [(number, ["x"]) for number in range(1, 2 * BATCH_ROWS + 2)]
    assert [len(batch.rows) for batch in in_batches(rows)] == [FIRST_ROWS, BATCH_ROWS, BATCH_ROWS + 1 - FIRST_ROWS]
    rows[10] = (11, [*[None] * 16_383, "x"])
    batches = list(in_batches(rows))
    assert max(len(batch.rows) * len(batch.columns) for batch in batches) <= BATCH_CELLS
    assert [row for batch in batches for row in batch.by_rows()] == rows


@pytest.mark.parametrize("column", [[], ["x"], ["x", "x"], ["x", "y"], ["x"] * 4, list("wxyz")])
def test_a_part_of_lines_that_is_of_other_rows_is_refused(column: list[str]) -> None:
    """Rows would be cut off in silence, or say what another one says."""
    with pytest.raises(ValueError, match="size"):
        side_by_side(["a", ["1", "2", "3"], column, "b"], 3)
