"""
What the cells of an .xlsx sheet mean that is read straight from its XML.

What a style means, or a shared string that is more than a text, is the library's to say: it is asked by a workbook of
the same parts, but for its sheet, which holds each of them once.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError, fromstring
from zipfile import ZipFile

from python_calamine_plus import CalamineWorkbook

from wdh_luigi import targets
from wdh_luigi.cells import format_matters
from wdh_luigi.workbook import package, rules

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_MOST_STRINGS, _MOST_BYTES = 250_000, 1 << 25  # of shared strings
_SAID = re.compile(b'(?: s="[0-9]{1,5}"| t="(?:n|s|inlineStr)")*/?>')
_NO_STRINGS = f'<sst xmlns="{_MAIN}"/>'.encode()
_SHARED = re.compile(
    rb'(?:<\?xml(?: version="1\.0"| encoding="(?i:utf-8)"| standalone="(?:yes|no)")*\s*\?>\s*)?'
    rb"<sst(?: [^<>]*)?>(.*)</sst>\s*",
    re.DOTALL,
)
_SHARED_TEXT = re.compile(
    b'<si><t((?: xml:space="preserve")?>[^<>]+)</t>(?:<phoneticPr [^<>]*/>)?</si>'  # Chinese input methods leave it
)
_ATTRIBUTE = re.compile(b' ([st])="([A-Za-z0-9]+)"')


class Kind(Enum):
    """What a cell that is no number is."""

    BLANK = 0
    SHARED = 1  # a shared string
    INLINE = 2  # a text of its own


_TEXTS = {b"s": Kind.SHARED, b"inlineStr": Kind.INLINE}


class Other(Exception):
    """There is a cell of another kind."""


class Says(NamedTuple):
    """
    What cells say.

    Attributes:
        texts: the shared strings, as cells.
        formats: of each style, the number format where it says more than the number, else ""; None for a date's.
    """

    texts: Sequence[str | None]
    formats: Sequence[str | None]

    def kind(self, said: bytes) -> str | Kind:
        """Return what a cell is by what it says behind its place: of a number, the number format that matters."""
        if not _SAID.fullmatch(said):
            raise Other
        attributes = dict(_ATTRIBUTE.findall(said))
        if said.endswith(b"/>"):
            return Kind.BLANK
        if attributes.get(b"t") in _TEXTS:
            return _TEXTS[attributes[b"t"]]
        number_format = self.formats[int(attributes.get(b"s", 0))]
        if number_format is None:
            raise Other
        return number_format

    def cells(self, kind: str | Kind, values: Sequence[bytes]) -> list[Any]:
        """Return the cells of a kind."""
        if kind is Kind.SHARED:
            texts = self.texts
            return list(map(texts.__getitem__, _parsed(values, int)))
        return list(map(_inline, values)) if kind is Kind.INLINE else _numbers(values)


def ask(archive: ZipFile, part: str, index: int) -> Says:
    """Tell what each shared string and each style of a workbook means, as far as need be by asking the library."""
    book = package.book_part(archive)
    folder = posixpath.dirname(book)
    kept = [name for kind, name in package.relations(archive, book).values() if kind == "sharedStrings"]
    size = sum(archive.getinfo(name).file_size for name in kept)
    if posixpath.dirname(part) == folder or size >= _MOST_BYTES:
        raise Other  # too much to ask: they are kept, and copied with all parts of the folder
    strings = {name: archive.read(name) for name in kept}
    count = sum(content.count(b"<si") for content in strings.values())
    if count > _MOST_STRINGS:
        raise Other
    asked = _Asked(archive, part, index, {"", "_rels", folder, f"{folder}/_rels"}, dict.fromkeys(strings, _NO_STRINGS))
    styles = asked.stream("", 0, rich=True).styles
    numbers = [row[0] for row in asked.stream(' s="%d"><v>1</v>', len(styles), rich=True)]
    texts = _shared(*strings.values()) if len(strings) == 1 else None
    if texts is None and strings:
        texts = [rules.text(row[0]) for row in asked._replace(instead=strings).stream(' t="s"><v>%d</v>', count)]
    return Says(texts or [], list(map(_format, numbers, styles)))


def _shared(content: bytes) -> list[str | None] | None:
    """Return the shared strings as cells, where all of them are written as plain texts."""
    within = _SHARED.fullmatch(content)
    if within is None or b"<!" in content:  # a comment or CDATA, of which strings may be a part
        return None
    found = _SHARED_TEXT.findall(within[1])
    if not within[1].count(b"<") == within[1].count(b">") == 4 * len(found) + within[1].count(b"<phoneticPr "):
        return None
    try:
        return list(map(_inline, found))
    except (Other, ParseError, ValueError):
        return None


def _format(number: Any, style: dict[str, Any]) -> str | None:
    number_format: str = style["number_format"] or ""
    if number.data_type != "n":
        return None
    return number_format if format_matters(number_format) else ""


class _Asked(NamedTuple):
    """
    A workbook that the library is asked by.

    Attributes:
        folders: of the parts that are not sheets, nor belong to one.
        instead: parts of other content than the archive's.
    """

    archive: ZipFile
    part: str
    sheet: int
    folders: set[str]
    instead: dict[str, bytes]

    def stream(self, cell: str, count: int, *, rich: bool = False) -> Any:
        """Return a stream of rows whose first cells are those with the numbers from 0 on."""
        first = f'<row r="%d"><c r="A%d"{cell}</c><c r="B%d"><v>1</v></c></row>'  # B1, as a row of a blank is none
        rows = "".join(first % (at + 1, at + 1, at, at + 1) for at in range(count)) if count else ""
        copy = io.BytesIO()
        with ZipFile(copy, "w") as parts:
            for name in self.archive.namelist():
                if name == self.part:
                    parts.writestr(name, f'<worksheet xmlns="{_MAIN}"><sheetData>{rows}</sheetData></worksheet>')
                elif posixpath.dirname(name) in self.folders:
                    parts.writestr(name, self.instead[name] if name in self.instead else self.archive.read(name))
        copy.seek(0)
        return CalamineWorkbook.from_filelike(copy).stream_sheet_by_index(self.sheet, rich=rich)


def _inline(value: bytes) -> str | None:
    """Return the cell of a text of its own, which comes with the end of its tag; without a word, its ends are blank."""
    kept, _, text = value.partition(b">")
    if b"_x" in text:  # may be an escape
        raise Other
    if b"&" in text:
        text = (fromstring(b"<t>" + text + b"</t>").text or "").encode()
    return rules.text((text if kept else text.strip(b" \t\r\n")).decode())


def _numbers(texts: Sequence[bytes]) -> list[Any]:
    """Return the cells of numbers; ValueError where one is none."""
    values = _parsed(texts, float)
    kinds = set(map(type, values))
    if kinds == {int} and min(values) > -rules.FIFTEEN_DIGITS and max(values) < rules.FIFTEEN_DIGITS:
        return values
    return rules.numbers(list(map(float, values)) if int in kinds else values)


def _parsed(texts: Sequence[bytes], kind: type[int] | type[float]) -> list[Any]:
    """Return numbers, by way of JSON: in a quarter of the time that Python takes for one after the other."""
    try:
        numbers: list[Any] = targets.loads(b"[" + b",".join(texts) + b"]")
    except ValueError:  # as they are spelt otherwise, .5 for example
        numbers = list(map(kind, texts))
    return numbers
