"""Keys kept as hashes: a million of them must not be what fills the memory."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wdh_luigi import keys
from wdh_luigi.keys import Keys, Repeated

MET = st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy"))))
STEPS = st.lists(st.lists(st.tuples(st.sampled_from([1] * 20 + [0, -1, -3, 4]), st.sampled_from("xy")), max_size=8))


def met(batches: list[list[tuple[str, str]]]) -> tuple[list[bool], Keys]:
    """Note batches of (key, what the row says); rows are numbered from 2."""
    found, first, row = Keys(), [], 2
    for batch in batches:
        first += found.are_first([key for key, _ in batch], [says for _, says in batch], range(row, row + len(batch)))
        row += len(batch)
    return first, found


def expected(batches: list[list[tuple[str, str]]]) -> tuple[list[bool], list[Repeated]]:
    """Do the same with the texts themselves."""
    rows: dict[str, list[tuple[int, str]]] = {}
    first = []
    for row, (key, says) in enumerate([one for batch in batches for one in batch], 2):
        first.append(key not in rows)
        rows.setdefault(key, []).append((row, says))
    return first, [
        Repeated(key, [row for row, _ in of], len({says for _, says in of}) > 1)
        for key, of in rows.items()
        if len(of) > 1
    ]


@given(MET)
def test_they_say_what_the_texts_would_say(batches: list[list[tuple[str, str]]]) -> None:
    """Within a batch and across batches, in the order in which the keys were met."""
    first, found = met(batches)
    assert (first, list(found.repeated())) == expected(batches)
    assert len(found) == sum(first)


@given(MET)
def test_hashes_that_collide_are_no_equal_keys(batches: list[list[tuple[str, str]]]) -> None:
    """A row of another key must not be taken for a duplicate, or a contradiction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_hash", lambda text: ord(text[0]) % 2)
        first, found = met(batches)
    assert (first, list(found.repeated())) == expected([[(key, says) for key, says in batch] for batch in batches])


@given(STEPS, st.sampled_from([2, 16, 1 << 10]))
@example([[(1, "x")] * 9, [(1, "x")] * 9, [(-17, "y"), (40, "x")], [(1, "x")] * 9, [], [(-9, "x")]], 1 << 10)
@example([[(1, "x")] * 2, [(0, "x")], [(0, "y")]], 1)
def test_keys_that_mostly_ascend(steps: list[list[tuple[int, str]]], slots: int) -> None:
    """Where the order breaks, all that got no slot until then is found; also where the slots must grow for it."""
    numbers = accumulate((step for batch in steps for step, _ in batch), initial=100)
    next(numbers)
    batches = [[(f"P{next(numbers):04}", says) for _, says in batch] for batch in steps]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "_FIRST_SLOTS", slots)
        first, found = met(batches)
    assert (first, list(found.repeated())) == expected(batches)
    assert len(found) == sum(first)


def test_a_sorted_workbook_takes_no_slots() -> None:
    """Nor the time to look for what cannot be there, until the order breaks."""
    texts = [f"P{number:05}" for number in range(50_000)]
    found = Keys()
    for at in range(0, len(texts), 1000):
        assert all(found.are_first(texts[at : at + 1000], texts[at : at + 1000], range(at, at + 1000)))
    assert not any(found._slots)
    assert found.are_first(["P3", texts[7], "P4"], ["", "", ""], [1, 2, 3]) == [True, False, True]
    assert sum(map(bool, found._slots)) == len(found) == len(texts) + 2


def test_many_are_found_again() -> None:
    """The table of slots has grown many times by then."""
    texts = [f"2024-11-01\tP{number}" for number in range(50_000)]
    found = Keys()
    for at in range(0, len(texts), 1000):
        assert all(found.are_first(texts[at : at + 1000], texts[at : at + 1000], range(at, at + 1000)))
    assert not any(found.are_first(texts, texts, range(len(texts))))
    assert all(not one.differ and one.rows[0] == one.rows[1] for one in found.repeated())
    assert len(found) == len(texts)
