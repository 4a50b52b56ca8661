"""What an .ods document's styles say that changes a value: zeros before a number, units, and hidden sheets."""

from __future__ import annotations

from xml.etree.ElementTree import Element

_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_NUMBER = "{urn:oasis:names:tc:opendocument:xmlns:datastyle:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"


class Styles:
    """The styles of a document, gathered element by element."""

    def __init__(self) -> None:
        self._formats: dict[str, str] = {}
        self._number_styles: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._hidden: set[str] = set()

    def add(self, element: Element) -> None:
        """Take in an element, if it is a style."""
        name = element.get(f"{_STYLE}name", "")
        if element.tag == f"{_NUMBER}number-style":
            digits = [int(one.get(f"{_NUMBER}min-integer-digits", 0)) for one in element.iter(f"{_NUMBER}number")]
            self._formats[name] = "0" * min(max(digits, default=0), 255) + _shown_by(element)
        elif element.tag == f"{_STYLE}style":
            self._number_styles[name] = element.get(f"{_STYLE}data-style-name", "")
            self._parents[name] = element.get(f"{_STYLE}parent-style-name", "")
            if any(one.get(f"{_TABLE}display") == "false" for one in element.iter(f"{_STYLE}table-properties")):
                self._hidden.add(name)

    def number_format(self, style: str) -> str | None:
        """Give what matters of a cell style's number format, as Excel writes it: "000000", or ``0"万元"``."""
        for _ in range(8):  # styles inherit; a damaged file's might for ever
            if number_style := self._number_styles.get(style):
                return self._formats.get(number_style)
            style = self._parents.get(style, "")
        return None

    def hides(self, style: str) -> bool:
        """Tell whether a table style hides its sheet."""
        return style in self._hidden


def _shown_by(number_style: Element) -> str:
    """Return what a number style shows beside the digits: texts, and a comma where it divides by thousands."""
    scales = any(one.get(f"{_NUMBER}display-factor") for one in number_style.iter(f"{_NUMBER}number"))
    texts = "".join(one.text or "" for one in number_style.iter(f"{_NUMBER}text")).replace('"', "")
    return ("," if scales else "") + (f'"{texts}"' if texts else "")
