"""Parts of a zip archive come as zipfile gives them, or not at all."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wdh_luigi.workbook.zip_part import ZipPart

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]
TEXT = b"".join(b'<row r="%d"><c r="A%d"><v>%d</v></c></row>' % (at, at, at * at) for at in range(20_000))


def zipped(content: bytes, method: int = zipfile.ZIP_DEFLATED, level: int | None = 6) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, compresslevel=level) as archive:
        archive.writestr("a", content)
        archive.writestr("b", b"other")
    return out.getvalue()


def pieces(archive: zipfile.ZipFile, sizes: list[int]) -> Iterator[bytes]:
    source = ZipPart(archive, "a")
    for size in cycle(sizes):
        if not (piece := source.read(size)):
            return
        yield piece


@given(
    st.binary(max_size=3000), st.sampled_from(METHODS), st.integers(1, 9), st.lists(st.integers(1, 5000), min_size=1)
)
@example(b"", zipfile.ZIP_DEFLATED, 6, [1])
@example(TEXT, zipfile.ZIP_DEFLATED, 1, [100_000, 1])
@example(TEXT, zipfile.ZIP_DEFLATED, 9, [1 << 20])
@example(b"\0" * (1 << 22), zipfile.ZIP_DEFLATED, 9, [70_000])
def test_a_part_comes_in_pieces_as_they_are_asked_for(
    content: bytes, method: int, level: int, sizes: list[int]
) -> None:
    """However it is packed; each as long as it is wanted, but for the last."""
    with zipfile.ZipFile(io.BytesIO(zipped(content, method, level))) as archive:
        found = list(pieces(archive, sizes))
        assert b"".join(found) == content
        assert all(len(piece) == size for piece, size in zip(found[:-1], cycle(sizes), strict=False))


def test_two_parts_can_be_read_in_turn() -> None:
    """Each goes on where it was."""
    with zipfile.ZipFile(io.BytesIO(zipped(TEXT))) as archive:
        first, second = ZipPart(archive, "a"), ZipPart(archive, "a")
        for start in range(0, 300_000, 100_000):
            assert first.read(100_000) == second.read(100_000) == TEXT[start : start + 100_000]
            assert archive.read("b") == b"other"


def test_a_part_with_a_flipped_bit_is_refused_or_the_same() -> None:
    """No other bytes come to its end; in what is packed, and in what the archive says of it."""
    whole, text = zipped(TEXT[:3000]), TEXT[:3000]
    refused = 0
    for at in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        try:
            with zipfile.ZipFile(io.BytesIO(damaged)) as archive:
                assert b"".join(pieces(archive, [1000])) == text
        except (zipfile.BadZipFile, NotImplementedError, EOFError, KeyError, RuntimeError, ValueError, OSError):
            refused += 1
    assert refused > len(whole) * 8 * 0.8


@pytest.mark.parametrize(
    "said",
    [
        {"file_size": len(TEXT) - 1},
        {"file_size": len(TEXT) + 1},
        {"file_size": 10},
        {"CRC": zlib.crc32(TEXT) ^ 1},
        {"compress_size": 1000},
    ],
)
def test_a_part_that_is_not_as_the_archive_says_is_refused(said: dict[str, Any]) -> None:
    """It may unpack to more than memory holds, or be cut."""
    with zipfile.ZipFile(io.BytesIO(zipped(TEXT))) as archive:
        for name, value in said.items():
            setattr(archive.getinfo("a"), name, value)
        found: list[bytes] = []
        with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32 for file 'a'"):
            found.extend(pieces(archive, [100]))
        assert len(b"".join(found)) <= said.get("file_size", len(TEXT))


def test_a_part_of_the_wrong_name_is_refused() -> None:
    """What stands before it is held against the archive's directory."""
    content = zipped(TEXT).replace(b"a", b"c", 1)
    with zipfile.ZipFile(io.BytesIO(content)) as archive, pytest.raises(zipfile.BadZipFile, match="differ"):
        ZipPart(archive, "a")
