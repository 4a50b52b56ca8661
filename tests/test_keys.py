"""Keys kept as hashes: a million of them must not be what fills the memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wdh_luigi import keys
from wdh_luigi.keys import Keys, Repeated

MET = st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy"))))


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


def test_many_are_found_again() -> None:
    """The table of slots has grown many times by then."""
    texts = [f"2024-11-01\tP{number}" for number in range(50_000)]
    found = Keys()
    for at in range(0, len(texts), 1000):
        assert all(found.are_first(texts[at : at + 1000], texts[at : at + 1000], range(at, at + 1000)))
    assert not any(found.are_first(texts, texts, range(len(texts))))
    assert all(not one.differ and one.rows[0] == one.rows[1] for one in found.repeated())
    assert len(found) == len(texts)
