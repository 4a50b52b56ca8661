"""Files that are whole or not there, and rows that come back as they went."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job import write_list
from rights import bound_by_modes

from wdh_luigi import targets
from wdh_luigi.errors import WorkDirError

REPOSITORY = Path(__file__).parent.parent
MEND = "give the work directory room and the right to write, or set WDH_WORK_DIR to another folder"


def everything(folder: Path) -> list[str]:
    """List the files and folders below a folder, unfinished ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    """Luigi takes a target that exists for one that is complete."""
    path = tmp_path / "new" / "folder" / "x.json"
    with targets.atomic_write(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert everything(path.parent) == ["x.json"]


def test_an_exception_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    """Half of the new rows in place of the old ones would be taken for all."""
    path = tmp_path / "x.json"
    path.write_bytes(b"former")

    def interrupted() -> None:
        with targets.atomic_write(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (path.read_bytes(), everything(tmp_path)) == (b"former", ["x.json"])


def test_an_error_of_what_the_block_reads_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    """The workbook that vanished is named, not the work directory."""
    with pytest.raises(FileNotFoundError) as caught, targets.atomic_write(tmp_path / "x.json"):
        (tmp_path / "workbook.xlsx").read_bytes()
    assert caught.value.filename == str(tmp_path / "workbook.xlsx")
    assert everything(tmp_path) == []


def test_a_kill_in_the_middle_leaves_the_former_file(tmp_path: Path) -> None:
    """kill -9 gives no time to tidy up: what is left has another name, and the next writer is not disturbed."""
    path = tmp_path / "x.json"
    targets.write_json(path, "former")
    code = (
        "import sys, time; from pathlib import Path; from wdh_luigi import targets\n"
        "with targets.atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new' * 100000); file.flush(); print('half', flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert targets.read_json(path) == "former"
    assert [name for name in everything(tmp_path) if not name.startswith(".")] == ["x.json"]
    targets.write_json(path, "new")
    assert targets.read_json(path) == "new"


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    """Two machines may write one target at a time: the last whole one stays."""
    path = tmp_path / "x.json"
    with targets.atomic_write(path) as first, targets.atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
        first.write(b" whole")
        second.write(b" whole")
    assert path.read_bytes() == b"first whole"  # left last
    assert everything(tmp_path) == ["x.json"]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    """A limit on the size of files fails a write as a full disk does, in its middle."""
    path = tmp_path / "x.json"
    former = resource.getrlimit(resource.RLIMIT_FSIZE)

    def overfull() -> None:
        with targets.atomic_write(path) as file:
            write_list(file, (["x" * 1000] for _ in range(1000)))

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, former[1]))
    try:
        with pytest.raises(WorkDirError) as caught:
            overfull()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert str(caught.value) == f"{path}: cannot be written (File too large); {MEND}"
    assert everything(tmp_path) == []


def test_a_work_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """No right to write, or a file where a folder should be: each with the setting to change."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with bound_by_modes():
        for path in (locked / "x.json", locked / "deeper" / "x.json"):
            with pytest.raises(WorkDirError, match=r"x\.json: cannot be written \(Permission denied\); give the work"):
                targets.write_json(path, 1)
    (tmp_path / "file").touch()
    with pytest.raises(WorkDirError, match=r"cannot be written \((Not a directory|File exists)\); give the work"):
        targets.write_json(tmp_path / "file" / "x.json", 1)
    with pytest.raises(WorkDirError, match=r"cannot be written \(Is a directory\)"):
        targets.write_json(locked.parent / "locked", 1)
    assert everything(tmp_path) == ["file", "locked"]


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    """The unfinished file's name must not be longer than a file system takes, in bytes."""
    path = tmp_path / ("受" * 83 + ".json")
    targets.write_json(path, 1)
    assert targets.read_json(path) == 1


ROWS: list[tuple[Any, Any]] = [
    ([], []),
    ([[2, ["a", None, True, 1, 1.5]]], [[2, ["a", None, True, 1, 1.5]]]),
    (["受托\n\"'\\ \t\u2028\x00\x7f", "[", "]", ",", ""], ["受托\n\"'\\ \t\u2028\x00\x7f", "[", "]", ",", ""]),
    ([Decimal("0.055000"), Decimal("1E+2"), Decimal("-0.00")], ["0.055000", "1E+2", "-0.00"]),
    (
        [date(2024, 11, 1), datetime(2024, 11, 1, 9, 30), datetime(2024, 11, 1, tzinfo=UTC)],
        ["2024-11-01", "2024-11-01T09:30:00", "2024-11-01T00:00:00Z"],
    ),
    (["\ud800", "a\udfffb", "\\ud800"], ["\ud800", "a\udfffb", "\\ud800"]),
    ([10**40, -(2**70), 0.1, 1e300], [10**40, -(2**70), 0.1, 1e300]),
]


@pytest.mark.parametrize(("rows", "read"), ROWS)
def test_rows_come_back_as_they_went(tmp_path: Path, rows: list[Any], read: list[Any]) -> None:
    """Decimals as text, dates in ISO 8601, anything that a cell can hold: and the whole file is one JSON list."""
    path = tmp_path / "rows.json"
    with targets.atomic_write(path) as file:
        write_list(file, iter(rows))
    assert list(targets.read_rows(path)) == read
    assert json.loads(path.read_bytes()) == read


@pytest.mark.parametrize(("rows", "read"), ROWS)
def test_documents_come_back_as_they_went(tmp_path: Path, rows: list[Any], read: list[Any]) -> None:
    """The same for the targets that are one document."""
    targets.write_json(tmp_path / "x.json", {"列": rows})
    assert targets.read_json(tmp_path / "x.json") == {"列": read}
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"列": read}


def test_a_value_is_written_alike_beside_a_lone_surrogate() -> None:
    """What a neighbouring cell holds must not change how a date or a number is spelt."""
    values = [date(2024, 11, 1), datetime(2024, 11, 1, 9, 30), Decimal("0.10"), 1.0]
    assert json.loads(targets.dumps(values)) == json.loads(targets.dumps([*values, "\ud800"]))[:-1]


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(database=None, deadline=None)
@given(CELLS)
def test_any_value_is_one_line_and_comes_back(value: Any) -> None:
    """A row is a line: no cell may end it."""
    line = targets.dumps(value)
    assert b"\n" not in line
    assert targets.loads(line) == value


@pytest.mark.parametrize("content", [b"", b"[\n", b"[\n1,\n2", b"[\n1,\n2\n", b"[\n{\n]\n", b"\x00\n", b"[\n\xff\n]\n"])
def test_rows_that_were_cut_short_are_refused(tmp_path: Path, content: bytes) -> None:
    """A damaged disk or a hand that edited: fewer rows must not pass for all."""
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(WorkDirError) as caught:
        list(targets.read_rows(path))
    assert str(caught.value) == f"{path}: is not the JSON that was written; delete it and run again"


def test_a_target_that_is_gone_or_damaged_says_so(tmp_path: Path) -> None:
    """Somebody tidied the work directory."""
    path = tmp_path / "x.json"
    for read in (targets.read_json, lambda path: list(targets.read_rows(path))):
        with pytest.raises(WorkDirError, match=r"x\.json: cannot be read \(No such file or directory\)"):
            read(path)
    path.write_bytes(b'{"half": ')
    with pytest.raises(WorkDirError, match="is not the JSON that was written; delete it and run again"):
        targets.read_json(path)


def test_a_digest_depends_on_the_values_alone(tmp_path: Path) -> None:
    """Keys must agree between machines and versions of Python: the value is fixed here."""
    assert targets.digest_of("read", [1, None], "受托") == targets.digest_of("read", [1, None], "受托")
    assert targets.digest_of("a", "bc") != targets.digest_of("ab", "c")
    assert targets.digest_of("read", 1) == hashlib.sha256(b'["read",1]').hexdigest()[:32]
    assert len(targets.digest_of("\ud800")) == 32
    (tmp_path / "x").write_bytes(b"bytes")
    assert targets.file_digest(tmp_path / "x") == hashlib.sha256(b"bytes").hexdigest()
