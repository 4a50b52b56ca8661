"""Every kind of file that an inbox may hold besides workbooks has its own message, and none of them is waited for."""

from __future__ import annotations

import io
import os
import struct
import time
import zipfile
from pathlib import Path

import pytest
import xlwt
from books import ods, ods_cell, xlsb, xlsx, xlsx_parts, zipped

from wdh_luigi.errors import WorkbookError
from wdh_luigi.workbook import guard, sniff

LONG_AGO = 1_600_000_000


def xls() -> bytes:
    book = xlwt.Workbook()
    book.add_sheet("S").write(0, 0, 1)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(WorkbookError) as caught:
        sniff.check(path, "a.xlsx")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("a.xlsx: ")
    assert "; " in message, "says what to do"
    return message.removeprefix("a.xlsx: ")


def written(folder: Path, content: bytes, name: str = "a.xlsx") -> Path:
    path = folder / name
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (xlsx(), "xlsx"),
        (xlsb([]), "xlsb"),
        (xls(), "xls"),
        (ods(ods_cell("float", "1")), "ods"),
    ],
    ids=["xlsx", "xlsb", "xls", "ods"],
)
@pytest.mark.parametrize("name", ["a.xlsx", "a.xls", "2024年11月受托业绩.xlsm"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, content: bytes, kind: str, name: str) -> None:
    """An .xlsx called .xls is what some systems export."""
    assert kind == sniff.check(written(tmp_path, content, name), name)


def compound(*streams: str) -> bytes:
    """Make an OLE file that holds nothing but the names of streams."""
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<HHHHH", 62, 3, 0xFFFE, 9, 6) + bytes(10)
    header += struct.pack("<IIIIIIIII", 1, 1, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0, 0)
    header += b"\xff" * (512 - len(header))
    table = struct.pack("<II", 0xFFFFFFFD, 0xFFFFFFFE) + b"\xff" * 504
    entries = b""
    for kind, name in [(5, "Root Entry"), *((2, stream) for stream in streams)]:
        encoded = name.encode("utf-16-le") + b"\0\0"
        entries += encoded.ljust(64, b"\0") + struct.pack("<HB", len(encoded), kind) + bytes(49)
        entries += struct.pack("<III", 0xFFFFFFFE, 0, 0)
    return header + table + entries.ljust(512, b"\0")


def old_excel(*records: tuple[int, bytes]) -> bytes:
    """Make an .xls whose first records are these."""
    content = xls()
    start = content.index(struct.pack("<HHH", 0x0809, 16, 0x0600))
    new = b"".join(struct.pack("<HH", number, len(data)) + data for number, data in records)
    return content[:start] + new + content[start + len(new) :]


SIGNATURE = struct.pack("<HH12x", 0x0600, 0x0005)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty (0 bytes)"),
        (bytes(4096), "nothing but zero bytes"),
        ("年,月,计划代码\n2024,11,A1\n".encode(), "text (CSV or the like)"),
        ("年\t月\t计划代码\n2024\t11\tA1\n".encode("gb18030"), "text (CSV or the like)"),
        ("年,月\n".encode("utf-16"), "text (CSV or the like)"),
        (b"ID;PWXL;N;E\nC;Y1;X1;K1\n", "text (CSV or the like)"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><html><body><table>", "an HTML page"),
        (b"<table border=1><tr><td>1</td></tr></table>", "an HTML page"),
        (b"MIME-Version: 1.0\nContent-Type: multipart/related\n", "a web archive (MHTML)"),
        (
            b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>\n<Workbook '
            b'xmlns="urn:schemas-microsoft-com:office:spreadsheet">',
            "an XML Spreadsheet 2003",
        ),
        (b'<?xml version="1.0"?><office:document>', "a flat OpenDocument file"),
        (b'<?xml version="1.0"?><invoice/>', "an XML file"),
        (b"%PDF-1.7\n\xe2\xe3", "a PDF document"),
        (b"{\\rtf1\\ansi}", "an RTF document"),
        (b"\x1f\x8b\x08" + bytes(9), "a gzip archive"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
        (b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
        (b"\x09\x00\x04\x00\x02\x00\x10\x00", "a workbook of Excel 4 or older"),
        (b"\x09\x02\x06\x00\x00\x00\x10\x00\0\0", "a workbook of Excel 4 or older"),
        (b"\x09\x04\x06\x00\x00\x00\x10\x00\0\0", "a workbook of Excel 4 or older"),
        (b"\x01\x02" * 9, "not a workbook (its first bytes are 01 02 01 02 01 02 01 02)"),
        (compound("EncryptionInfo", "EncryptedPackage"), "encrypted"),
        (compound("WordDocument"), "a Word document (.doc)"),
        (compound("PowerPoint Document"), "a PowerPoint presentation (.ppt)"),
        (compound("__properties_version1.0"), "an Outlook message (.msg)"),
        (compound("\tDRMContent"), "encrypted (rights management)"),
        (compound("Other"), "damaged (no workbook in its container)"),
        (old_excel((0x0809, SIGNATURE), (0x002F, bytes(6))), "encrypted"),
        (old_excel((0x0009, bytes(4))), "a workbook of Excel 4 or older"),
        (zipped({"a.txt": "x"}), "a zip archive, not a workbook"),
        (zipped({"V1/a.xlsx": xlsx(), "b.xls": b""}), "a zip archive with V1/a.xlsx, b.xls in it"),
        (zipped({"Index/Document.iwa": b"x"}), "an Apple Numbers document"),
        (zipped({"[Content_Types].xml": "<x>wordprocessingml</x>"}), "a Word document, not a workbook"),
        (
            zipped({"mimetype": "application/vnd.oasis.opendocument.text"}),
            "an OpenDocument file, but not a spreadsheet",
        ),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}), "damaged (content.xml is missing)"),
        (
            zipped({"content.xml": "", "META-INF/manifest.xml": "<manifest:encryption-data/>"}),
            "encrypted; open it",
        ),
        (
            zipped({name: part for name, part in xlsx_parts().items() if name != "xl/workbook.xml"}),
            "damaged (its workbook part is missing)",
        ),
        (xlsx()[:-30], "damaged (the end of the file is missing)"),
        (xls()[:600], "damaged (its container ends too early)"),
        (b"PK\x03\x04" + bytes(100), "damaged (the end of the file is missing)"),
    ],
)
def test_what_is_no_workbook_is_refused_in_its_own_words(tmp_path: Path, content: bytes, what: str) -> None:
    """The sender must learn from one line what to do differently."""
    assert what in refusal(written(tmp_path, content))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    """Some zip a workbook with a password and call it .xlsx."""
    content = bytearray(zipped({"[Content_Types].xml": "<x/>"}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    assert refusal(written(tmp_path, bytes(content))).startswith("encrypted")


def test_a_file_still_being_written_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    """Waiting helps the one, sending it again the other."""
    path = tmp_path / "a.xlsx"
    path.write_bytes(xlsx()[:-30])
    assert "perhaps it is still being written" in refusal(path)
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert "being written" not in refusal(path)


def test_a_zip_bomb_is_refused_by_what_it_says(tmp_path: Path) -> None:
    """600 MB of zeros are 600 KB in the file."""
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in xlsx_parts().items():
            archive.writestr(name, part)
        with archive.open("xl/bomb.xml", "w") as bomb:
            for _ in range(600):
                bomb.write(bytes(1 << 20))
    assert "too large (600 MB unpacked, limit 512 MB)" in refusal(path)


def test_a_zip_bomb_that_lies_is_refused_as_damaged(tmp_path: Path) -> None:
    """A directory that says 9 bytes for a mebibyte must not let it through."""
    name, size = "xl/worksheets/sheet1.xml", 1 << 20
    content = zipped({**xlsx_parts(), name: b" " * size})
    lying = content.replace(struct.pack("<I", size), struct.pack("<I", 9))
    assert lying != content
    assert "damaged" in refusal(written(tmp_path, lying))


def test_a_lock_file_is_known_by_its_name(tmp_path: Path) -> None:
    """Excel leaves ~$a.xlsx beside an open workbook, and after a crash for ever."""
    assert "a lock file" in refusal(written(tmp_path, b"\x05Admin" + bytes(159), "~$a.xlsx"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Opening a FIFO would wait until somebody writes to it."""
    os.mkfifo(tmp_path / "fifo.xlsx")
    (tmp_path / "folder.xlsx").mkdir()
    (tmp_path / "link.xlsx").symlink_to("gone.xlsx")
    (tmp_path / "loop.xlsx").symlink_to("loop.xlsx")
    started = time.monotonic()
    assert "not a file, but a FIFO" in refusal(tmp_path / "fifo.xlsx")
    assert "not a file, but a folder" in refusal(tmp_path / "folder.xlsx")
    assert "a link to a file that is not there (gone.xlsx)" in refusal(tmp_path / "link.xlsx")
    assert "cannot be read (Too many levels of symbolic links)" in refusal(tmp_path / "loop.xlsx")
    assert "no such file" in refusal(tmp_path / "gone.xlsx")
    assert "cannot be read (Not a directory)" in refusal(written(tmp_path, b"x") / "a.xlsx")
    assert "cannot be read" in refusal(tmp_path / ("a" * 300))
    assert "cannot be read" in refusal(tmp_path / "a\0b.xlsx")
    assert "not a file, but a device" in refusal(Path("/dev/null"))
    assert time.monotonic() - started < 5


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    """As nobody, since root may read anything."""
    path = written(tmp_path, xlsx())
    path.chmod(0)

    def check() -> None:
        if os.geteuid() == 0:
            for folder in tmp_path.parents[0], tmp_path.parents[1], tmp_path:
                folder.chmod(0o755)
            os.seteuid(65534)
        sniff.check(path, "a.xlsx")

    with pytest.raises(WorkbookError, match=r"^a.xlsx: may not be read; give this user the right to read it$"):
        guard.run(check, shown="a.xlsx")


def test_a_name_in_gbk_bytes_is_a_name_like_any_other(tmp_path: Path) -> None:
    """zip tools unpack names of Chinese Windows as they come."""
    path = written(tmp_path, xlsx(), os.fsdecode("业绩.xlsx".encode("gbk")))
    assert sniff.check(path, path.name) == "xlsx"
    path.write_bytes(b"")
    with pytest.raises(WorkbookError) as caught:
        sniff.check(path, path.name)
    str(caught.value).encode()  # can be printed
