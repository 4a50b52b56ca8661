"""The inbox frozen: each file with its reason, the choice that select and on_tie make, and hashes that are true."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import unicodedata
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rights import bound_by_modes

from wdh_luigi.config import load_data_sources
from wdh_luigi.discover import Snapshot, describe, freeze, scan
from wdh_luigi.errors import DiscoveryError

SHIPPED = load_data_sources(Path(__file__).parent.parent / "data_sources.yml")
TODAY = date(2025, 1, 15)
NOVEMBER, OCTOBER = "2024年11月受托业绩.xlsx", "2024年10月受托业绩.xlsx"
ALL = "latest_by_year_month_and_version"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def put(inbox: Path, *paths: str, text: str | None = None, age: int = 0) -> None:
    """Put files into the inbox, each with its own bytes unless a text is given, changed ``age`` seconds ago."""
    for path in paths:
        file = inbox / path
        assert inbox in file.parents, "a test writes nowhere else"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path if text is None else text)
        os.utime(file, (1_700_000_000 - age, 1_700_000_000 - age))


def frozen(inbox: Path, period: str | None = None, today: date = TODAY, **changes: Any) -> Snapshot:
    """Freeze an inbox by the shipped configuration with some of its keys changed."""
    hashes = changes.pop("hashes", {})
    discovery = {key: changes.pop(key) for key in list(changes) if key in type(SHIPPED.discovery).model_fields}
    config = SHIPPED.domains["trustee_performance"].model_copy(update=changes)
    files = scan(inbox, config, SHIPPED.discovery.model_copy(update=discovery))
    return freeze(inbox, "trustee_performance", config, files, period=period, hashes=hashes, today=today)


def chosen(snapshot: Snapshot) -> list[str]:
    return [file.path for file in snapshot.chosen]


def reasons(snapshot: Snapshot) -> dict[str, str]:
    """Return why each file was not chosen."""
    return {file.path: file.reason for file in snapshot.files if not file.chosen}


def refusal(inbox: Path, *arguments: Any, **changes: Any) -> str:
    with pytest.raises(DiscoveryError) as caught:
        frozen(inbox, *arguments, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_receipt_tells_of_every_file_why_it_was_not_taken(inbox: Path) -> None:
    """Whoever misses a workbook finds it in the receipt, with the reason."""
    put(inbox, NOVEMBER, OCTOBER, f"V2/{NOVEMBER}", f"~${NOVEMBER}", ".hidden", "a.bak", "notes.txt", "README")
    put(inbox, "2024年11月业绩.xlsx", "2024_13_受托业绩.xlsx", f"备份/{NOVEMBER}", f"Backup/x/{NOVEMBER}")
    snapshot = frozen(inbox)
    (file,) = snapshot.chosen
    assert (file.path, file.period, file.source, file.version) == (f"V2/{NOVEMBER}", "2024-11", "", 2)
    assert (file.size, file.sha256) == (
        len(f"V2/{NOVEMBER}".encode()),
        hashlib.sha256(f"V2/{NOVEMBER}".encode()).hexdigest(),
    )
    told = reasons(snapshot)
    stops = {path: told.pop(path) for path in ("2024年11月业绩.xlsx", "2024_13_受托业绩.xlsx")}
    assert stops["2024年11月业绩.xlsx"] == "does not match the pattern from 受托业绩 on"
    assert "does not match the pattern from " in stops["2024_13_受托业绩.xlsx"]
    assert told == {
        NOVEMBER: f"lower version than V2/{NOVEMBER}",
        OCTOBER: "period 2024-10 is not wanted (wanted: 2024-11)",
        f"~${NOVEMBER}": "ignored by '~$*' (ignore_patterns)",
        ".hidden": "ignored by '.*' (ignore_patterns)",
        "a.bak": "ignored by '*.bak' (ignore_patterns)",
        "notes.txt": "extension .txt is not one of .xlsx, .xlsm, .xls, .xlsb, .ods",
        "README": "extension none is not one of .xlsx, .xlsm, .xls, .xlsb, .ods",
        "备份": "folder excluded (exclude_directories)",
        "Backup": "folder excluded (exclude_directories)",
    }
    assert [file.path for file in snapshot.files] == sorted(file.path for file in snapshot.files)


@pytest.mark.parametrize(
    ("folders", "version", "folder"),
    [
        (["V9", "V10"], 10, "V10"),
        ([".", "V1"], 1, "V1"),
        (["v2", "V1"], 2, "v2"),
        (["V1", "2024/11/V3/from trustee"], 3, "2024/11/V3/from trustee"),
        (["V1/V4", "V3"], 4, "V1/V4"),
        (["V02", "V1"], 2, "V02"),
        (["V1", "Version 9", "V9x", "XV9"], 1, "V1"),
    ],
)
def test_the_highest_version_is_taken(inbox: Path, folders: list[str], version: int, folder: str) -> None:
    """V10 comes after V9; only a folder V<number>, wherever it is above the file, is a version."""
    put(inbox, *(f"{one}/{NOVEMBER}" for one in folders))
    (file,) = frozen(inbox).chosen
    assert (file.path, file.version) == (f"{folder}/{NOVEMBER}", version)


def test_each_source_has_its_own_workbook(inbox: Path) -> None:
    """Two trustees' workbooks of a month do not supersede each other; one trustee's V2 does its V1."""
    put(inbox, f"甲_{NOVEMBER}", f"V2/甲_{NOVEMBER}", f"乙_{NOVEMBER}", NOVEMBER)
    assert chosen(frozen(inbox)) == sorted([f"V2/甲_{NOVEMBER}", f"乙_{NOVEMBER}", NOVEMBER])


def test_one_source_in_two_spellings_is_one(inbox: Path) -> None:
    """Full-width letters and decomposed accents are the keyboard's, not another trustee."""
    put(inbox, f"ＡＢＣ_{NOVEMBER}", f"V2/ABC_{NOVEMBER}")
    put(inbox, unicodedata.normalize("NFD", f"é_{NOVEMBER}"), unicodedata.normalize("NFC", f"V2/é_{NOVEMBER}"))
    assert chosen(frozen(inbox)) == [f"V2/ABC_{NOVEMBER}", f"V2/é_{NOVEMBER}"]


@pytest.mark.parametrize(
    ("select", "period", "expected"),
    [
        ("latest_by_year_month", None, [NOVEMBER]),
        ("latest_by_year_month", "latest", [NOVEMBER]),
        ("latest_by_year_month", "all", [OCTOBER, NOVEMBER]),
        ("latest_by_year_month", "2024-10", [OCTOBER]),
        (ALL, None, [OCTOBER, NOVEMBER]),
        (ALL, "latest", [NOVEMBER]),
        (ALL, "2024-10", [OCTOBER]),
        ("latest_by_mtime", None, [OCTOBER]),
        ("latest_by_mtime", "all", [OCTOBER]),
        ("latest_by_mtime", "2024-11", [NOVEMBER]),
        ("latest_by_mtime", "latest", [NOVEMBER]),
    ],
)
def test_the_period_says_which_and_select_picks_within(
    inbox: Path, select: str, period: str | None, expected: list[str]
) -> None:
    """October was sent again after November: only latest_by_mtime goes by that."""
    put(inbox, NOVEMBER, age=100)
    put(inbox, OCTOBER)
    assert chosen(frozen(inbox, period, select=select)) == expected


def test_a_period_that_is_not_there_is_answered_with_those_that_are(inbox: Path) -> None:
    """A month not yet sent is the usual cause."""
    put(inbox, NOVEMBER, OCTOBER, f"V2/{OCTOBER}")
    line = refusal(inbox, "2024-12")
    assert "holds no workbook of 2024-12; it has the periods 2024-10, 2024-11; choose one of these" in line


def test_a_pattern_without_a_period_takes_a_workbook_without_one(inbox: Path) -> None:
    """Its sheet says the period; then there is nothing to compare but versions."""
    put(inbox, "受托业绩.xlsx", "V2/受托业绩.xlsx")
    snapshot = frozen(inbox, pattern="受托业绩")
    assert chosen(snapshot) == ["V2/受托业绩.xlsx"]
    assert (snapshot.chosen[0].period, snapshot.chosen[0].month) == ("", None)
    assert describe(snapshot.chosen[0]) == "V2/受托业绩.xlsx (no period V2)"


@pytest.mark.parametrize(("year", "month"), [("2024", "十一"), ("2024", "13"), ("2024", "0"), ("99999", "11")])
def test_groups_that_give_no_month_are_a_reason_not_a_crash(inbox: Path, year: str, month: str) -> None:
    """A domain's own pattern may catch any words as year and month."""
    put(inbox, NOVEMBER, f"{year}年{month}月受托业绩.xlsx")
    snapshot = frozen(inbox, pattern="(?P<year>[0-9]+)年(?P<month>.+)月受托业绩")
    assert reasons(snapshot) == {
        f"{year}年{month}月受托业绩.xlsx": f"its name gives year {year} and month {month}, which is no month"
    }


def test_a_tie_is_an_error_that_names_both(inbox: Path) -> None:
    """Two workbooks for one place and no version: only a person knows which is right."""
    put(inbox, NOVEMBER, f"sub/{NOVEMBER}")
    line = refusal(inbox)
    assert f"two candidates tie for 2024-11: {NOVEMBER} and sub/{NOVEMBER}; put the correction into a folder V2" in line
    assert "on_tie: newest" in line


def test_a_tie_of_many_names_five(inbox: Path) -> None:
    """A line that names a hundred files is read by nobody."""
    put(inbox, *(f"{n}/{NOVEMBER}" for n in range(9)))
    line = refusal(inbox)
    assert "9 candidates tie for 2024-11: " in line
    assert line.count(NOVEMBER) == 5
    assert "(and 4 more)" in line


def test_on_tie_newest_takes_the_newest(inbox: Path) -> None:
    """Only between those that tie: a higher version still stands above a newer file."""
    put(inbox, f"a/{NOVEMBER}", age=50)
    put(inbox, f"b/{NOVEMBER}", age=20)
    snapshot = frozen(inbox, on_tie="newest")
    assert chosen(snapshot) == [f"b/{NOVEMBER}"]
    assert reasons(snapshot) == {f"a/{NOVEMBER}": "older of those that tie (on_tie: newest)"}
    put(inbox, f"V1/{NOVEMBER}", age=90)
    assert chosen(frozen(inbox, on_tie="newest")) == [f"V1/{NOVEMBER}"]


def test_on_tie_newest_still_refuses_two_of_one_time(inbox: Path) -> None:
    """And does not advise what is set already."""
    put(inbox, f"a/{NOVEMBER}", f"b/{NOVEMBER}")
    line = refusal(inbox, on_tie="newest")
    assert "two candidates tie" in line
    assert line.endswith("put the correction into a folder V2, or put the source before the date")
    assert "they changed at the same time; touch the one to take" in refusal(inbox, select="latest_by_mtime")


def test_the_first_version_sent_again_is_the_newest(inbox: Path) -> None:
    """A, its correction, and A once more under another name: the newest bytes are A's, not the correction's."""
    put(inbox, NOVEMBER, text="A", age=90)
    put(inbox, f"corrected/{NOVEMBER}", text="B", age=50)
    put(inbox, f"sent again/{NOVEMBER}", text="A", age=10)
    assert chosen(frozen(inbox, on_tie="newest")) == [NOVEMBER]


@pytest.mark.parametrize("select", ["latest_by_year_month", "latest_by_mtime"])
def test_files_of_equal_bytes_are_one(inbox: Path, select: str) -> None:
    """A copy is nothing new, however new it is: the workbook keeps its name, so that nothing is done again."""
    put(inbox, NOVEMBER, text="same", age=90)
    put(inbox, "2024年11月受托业绩 (1).xlsx", f"copy/{NOVEMBER}", text="same")
    snapshot = frozen(inbox, select=select)
    assert chosen(snapshot) == [NOVEMBER]
    assert set(reasons(snapshot).values()) == {f"the same bytes as {NOVEMBER}"}


def test_ignore_patterns_hold_for_files_and_folders(inbox: Path) -> None:
    """In composed form, as the names are compared; letters' case counts."""
    put(inbox, NOVEMBER, f"V2/作废{NOVEMBER}", f"草稿1/{NOVEMBER}", unicodedata.normalize("NFD", f"é/{NOVEMBER}"))
    snapshot = frozen(inbox, ignore_patterns=["作废*", "草稿?", "é"])
    assert chosen(snapshot) == [NOVEMBER]
    assert sorted(reason for reason in reasons(snapshot).values()) == [
        "folder ignored by 'é' (ignore_patterns)",
        "folder ignored by '草稿?' (ignore_patterns)",
        "ignored by '作废*' (ignore_patterns)",
    ]


def test_excluded_directories_are_left_out_at_any_depth(inbox: Path) -> None:
    """A backup below a version folder would else be the highest version."""
    put(inbox, NOVEMBER, f"V9/BACKUP/{NOVEMBER}", f"V9/归档/V10/{NOVEMBER}", f"backups/V1/{NOVEMBER}")
    assert chosen(frozen(inbox)) == [f"backups/V1/{NOVEMBER}"]


@pytest.mark.parametrize(("depth", "version"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_max_depth_counts_folders_below_the_inbox(inbox: Path, depth: int, version: int) -> None:
    """0 is the inbox itself."""
    put(inbox, NOVEMBER, f"V1/{NOVEMBER}", f"V1/V2/{NOVEMBER}", f"V1/V2/V3/{NOVEMBER}")
    snapshot = frozen(inbox, max_depth=depth)
    assert [file.version for file in snapshot.chosen] == [version]
    if depth < 3:
        assert f"folder deeper than max_depth {depth}" in reasons(snapshot).values()


def test_file_extensions_decide_without_regard_to_case(inbox: Path) -> None:
    """Windows writes .XLSX as it likes."""
    put(inbox, "2024年11月受托业绩.XLSX", "V2/2024年11月受托业绩.csv")
    assert chosen(frozen(inbox)) == ["2024年11月受托业绩.XLSX"]
    assert chosen(frozen(inbox, file_extensions=[".csv"])) == ["V2/2024年11月受托业绩.csv"]


def test_links_are_followed_only_where_that_is_set(inbox: Path, tmp_path: Path) -> None:
    """A link may lead out of the inbox: the user decides."""
    put(tmp_path / "elsewhere", f"V3/{NOVEMBER}", "single.xlsx")
    put(inbox, NOVEMBER)
    (inbox / "link").symlink_to(tmp_path / "elsewhere")
    (inbox / f"乙{NOVEMBER}").symlink_to(tmp_path / "elsewhere" / "single.xlsx")
    off = frozen(inbox)
    assert chosen(off) == [NOVEMBER]
    assert set(reasons(off).values()) == {"symbolic link (follow_symlinks is false)"}
    assert chosen(frozen(inbox, follow_symlinks=True)) == [f"link/V3/{NOVEMBER}", f"乙{NOVEMBER}"]


def test_links_that_lead_back_end(inbox: Path) -> None:
    """Loops of links must not be walked for ever, nor hide a folder behind a link's name."""
    put(inbox, f"real/V1/{NOVEMBER}")
    (inbox / "real" / "up").symlink_to(inbox)
    (inbox / "a").symlink_to(inbox / "real")
    (inbox / "self").symlink_to(inbox / "self")
    (inbox / f"V5{OCTOBER}").symlink_to(inbox / f"V5{OCTOBER}")
    snapshot = frozen(inbox, follow_symlinks=True)
    assert chosen(snapshot) == [f"real/V1/{NOVEMBER}"]
    told = reasons(snapshot)
    assert told["a"] == told["real/up"] == "folder seen already: a link leads to it"
    assert "self" in told


def test_a_workbook_that_cannot_be_read_is_taken_to_fail_by_name(inbox: Path) -> None:
    """Passing over an unreadable V2 would load V1 as if nobody had corrected it."""
    put(inbox, NOVEMBER, f"V2/{NOVEMBER}")
    (inbox / "V2" / NOVEMBER).chmod(0)
    with bound_by_modes():
        (file,) = frozen(inbox).chosen
    assert (file.path, file.sha256, file.reason) == (f"V2/{NOVEMBER}", "", "cannot be read (Permission denied)")
    (inbox / "V3").mkdir()
    (inbox / "V3" / NOVEMBER).symlink_to(inbox / "nowhere")
    (file,) = frozen(inbox, follow_symlinks=True).chosen
    assert (file.path, file.reason) == (f"V3/{NOVEMBER}", "cannot be read (No such file or directory)")


def test_a_folder_that_cannot_be_read_stops_the_run(inbox: Path) -> None:
    """It may hold the correction of what would be loaded; exclude_directories says that it does not matter."""
    put(inbox, NOVEMBER, f"V2/{NOVEMBER}")
    (inbox / "V2").chmod(0)
    try:
        with bound_by_modes():
            line = refusal(inbox)
            assert chosen(frozen(inbox, exclude_directories=["v2"])) == [NOVEMBER]
    finally:
        (inbox / "V2").chmod(0o700)
    assert line == (
        f"folder {inbox}/V2: cannot be read (Permission denied);"
        " give this user the right to read it, or name it in exclude_directories"
    )


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("nowhere", "does not exist"),
        (f"inbox/{NOVEMBER}", "is a file, not a folder"),
        (f"inbox/{NOVEMBER}/x", "is a file, not a folder"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("locked", "cannot be read (Permission denied)"),
        ("locked/inbox", "cannot be read (Permission denied)"),
    ],
)
def test_an_inbox_that_is_none_is_named_with_its_setting(inbox: Path, tmp_path: Path, place: str, what: str) -> None:
    """The wrong folder is the commonest mistake of all."""
    put(inbox, NOVEMBER)
    locked = tmp_path / "locked"
    (locked / "inbox").mkdir(parents=True)
    locked.chmod(0)
    try:
        with bound_by_modes():
            line = refusal(tmp_path / place)
    finally:
        locked.chmod(0o700)
    mend = "set WDH_DATA_BASE_DIR to the folder that holds the workbooks"
    assert line == f"inbox {tmp_path / place}: {what}; {mend}"


def test_names_that_are_no_text_are_told_and_passed_over(inbox: Path) -> None:
    """An archive packed on Windows leaves names in GBK; JSON, plan and database hold text."""
    put(inbox, NOVEMBER)
    name = os.fsencode(inbox) + b"/" + "2024年12月受托业绩.xlsx".encode("gbk")
    try:
        with open(name, "w") as file:
            file.write("december")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    snapshot = frozen(inbox)
    assert chosen(snapshot) == [NOVEMBER]
    assert list(reasons(snapshot).values()) == ["its name or folder is not UTF-8: rename it"]
    (inbox / NOVEMBER).unlink()
    assert "its name or folder is not UTF-8: rename it" in refusal(inbox)


@pytest.mark.parametrize(
    "name", [f"a\nb{NOVEMBER}", f"'; DROP TABLE t; --{NOVEMBER}", f'q"\\{NOVEMBER}', f" {NOVEMBER}"]
)
def test_a_name_may_hold_anything_else(inbox: Path, name: str) -> None:
    """The path is kept as it is, and shown in one line."""
    put(inbox, name)
    (file,) = frozen(inbox).chosen
    assert file.path == name
    assert "\n" not in describe(file)


def test_a_pipe_named_like_a_workbook_never_blocks(inbox: Path) -> None:
    """Opening a FIFO waits for a writer that never comes."""
    os.mkfifo(inbox / NOVEMBER)
    done: list[Snapshot] = []
    thread = threading.Thread(target=lambda: done.append(frozen(inbox)), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    (file,) = done[0].chosen
    assert (file.sha256, file.reason) == ("", "is not a regular file")


def test_thousands_of_other_files_are_no_matter(inbox: Path) -> None:
    """An inbox is often a mail folder of years; a run must still start at once."""
    for number in range(5_000):
        (inbox / f"长河养老_2023_{number}_说明.xlsx").touch()
    started = time.monotonic()
    assert "(and 4995 more)" in refusal(inbox)
    put(inbox, NOVEMBER)
    snapshot = frozen(inbox)
    assert len(snapshot.files) == 5_001
    assert time.monotonic() - started < 10


def test_no_match_names_inbox_pattern_and_the_nearest_names(inbox: Path) -> None:
    """The mistake is in the name, the pattern or the folder: one line shows all three."""
    put(inbox, "2024年11月受拖业绩.xlsx", "holiday.jpg", "2024_13_受托业绩.xlsx", *(f"{n}.txt" for n in range(9)))
    line = refusal(inbox)
    pattern = SHIPPED.domains["trustee_performance"].pattern
    assert line.startswith(f"inbox {inbox}: no workbook matches the pattern {pattern}; nearest are ")
    first, second = line.partition("nearest are ")[2].split("; ")[:2]
    assert first == "2024年11月受拖业绩.xlsx: does not match the pattern from 托业绩 on"
    assert second.startswith("2024_13_受托业绩.xlsx: does not match the pattern from ")
    assert "(and 7 more); rename the workbook, or correct pattern" in line


def test_an_empty_inbox_says_that_it_is_empty(inbox: Path) -> None:
    """Nothing has arrived, or it is the wrong folder."""
    assert refusal(inbox).endswith("the folder is empty; set WDH_DATA_BASE_DIR to the inbox")


@pytest.mark.parametrize(("today", "refused"), [(date(2024, 10, 31), True), (date(2024, 11, 1), False)])
def test_a_chosen_period_in_the_future_is_an_error(inbox: Path, today: date, refused: bool) -> None:
    """2042 typed for 2024 would be the latest period until 2042."""
    put(inbox, NOVEMBER, OCTOBER)
    if refused:
        line = refusal(inbox, None, today)
        assert line.startswith(f"{inbox}/{NOVEMBER}: is of 2024-11, which has not begun; correct the date in its name")
    else:
        assert chosen(frozen(inbox, None, today)) == [NOVEMBER]
    assert chosen(frozen(inbox, "2024-10", today)) == [OCTOBER], "another period may still be asked for"


def keys(snapshots: Iterable[Snapshot]) -> set[str]:
    return {snapshot.key for snapshot in snapshots}


def test_the_key_is_that_of_names_and_bytes(inbox: Path, tmp_path: Path) -> None:
    """Not of times or of the inbox's place: two machines, or a touch, make the same snapshot."""
    elsewhere = tmp_path / "elsewhere"
    put(inbox, NOVEMBER, OCTOBER, f"V2/{NOVEMBER}", "notes.txt")
    put(elsewhere, NOVEMBER, OCTOBER, f"V2/{NOVEMBER}", "notes.txt", age=1000)
    assert len(keys([frozen(inbox), frozen(inbox, "latest"), frozen(elsewhere)])) == 1


def test_the_key_differs_for_what_is_new_corrected_or_renamed(inbox: Path) -> None:
    """A snapshot that hid one of these would run on yesterday's files."""
    put(inbox, NOVEMBER)
    snapshots = [frozen(inbox), frozen(inbox, table="other"), frozen(inbox, mode="append")]
    put(inbox, f"甲{NOVEMBER}")
    snapshots.append(frozen(inbox))
    put(inbox, NOVEMBER, text="corrected")
    snapshots.append(frozen(inbox))
    (inbox / NOVEMBER).rename(inbox / f"乙{NOVEMBER}")
    snapshots.append(frozen(inbox))
    put(inbox, "notes.txt")
    snapshots.append(frozen(inbox))
    put(inbox, OCTOBER)
    snapshots += [frozen(inbox), frozen(inbox, "all")]
    assert len(keys(snapshots)) == len(snapshots)


def entry(path: Path, sha256: str) -> list[int | str]:
    """Return what a former scan noted of a file as it is now."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, sha256]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_known_hash_is_used_again(inbox: Path) -> None:
    """An untouched workbook of 100 MB is not read to learn that nothing happened."""
    put(inbox, NOVEMBER)
    noted = entry(inbox / NOVEMBER, "noted")
    assert frozen(inbox, hashes={str(inbox / NOVEMBER): noted}).chosen[0].sha256 == "noted"


def test_a_change_that_keeps_size_and_time_is_noticed(inbox: Path) -> None:
    """A tool that sets the time back cannot set back when the file was changed (ctime), nor a rename its inode."""
    path = inbox / NOVEMBER
    put(inbox, NOVEMBER, text="first!")
    hashes = {str(path): entry(path, "noted")}
    time.sleep(0.02)  # the kernel's clock for files ticks at 100 to 1000 Hz
    put(inbox, NOVEMBER, text="second")
    assert path.stat().st_mtime_ns == hashes[str(path)][1]
    assert frozen(inbox, hashes=hashes).chosen[0].sha256 == digest(path)
    hashes = {str(path): entry(path, "noted")}
    put(inbox, "other", text="renamd")
    (inbox / "other").replace(path)
    assert frozen(inbox, hashes=hashes).chosen[0].sha256 == digest(path)


def test_a_touch_reads_again_and_finds_the_same(inbox: Path) -> None:
    """A new time is no new workbook."""
    put(inbox, NOVEMBER)
    before = frozen(inbox)
    hashes = {str(inbox / NOVEMBER): entry(inbox / NOVEMBER, "noted")}
    (inbox / NOVEMBER).touch()
    after = frozen(inbox, hashes=hashes)
    assert (before.key, before.chosen[0].sha256) == (after.key, after.chosen[0].sha256)


def test_hashes_are_kept_once_the_file_has_settled_and_never_of_one_that_changes(inbox: Path) -> None:
    """A file still being copied into the inbox may change twice within one tick: its hash is not kept."""
    settled, growing = inbox / OCTOBER, inbox / NOVEMBER
    put(inbox, OCTOBER)
    with growing.open("wb") as file:
        file.truncate(400 << 20)  # sparse: long to hash, no room on the disk
    hashes: dict[str, list[int | str]] = {}
    frozen(inbox, "2024-10", hashes=hashes)
    assert hashes == {}
    time.sleep(2.1)
    scan = threading.Thread(target=lambda: frozen(inbox, "all", hashes=hashes))
    scan.start()
    time.sleep(0.1)
    with growing.open("r+b") as file:
        file.write(b"changed at its beginning, when that was read")
        file.truncate(1 << 20)
    scan.join()
    assert hashes[str(settled)] == entry(settled, digest(settled))
    assert {file.path: file.sha256 for file in frozen(inbox, "all", hashes=hashes).chosen} == {
        OCTOBER: digest(settled),
        NOVEMBER: digest(growing),
    }


@pytest.mark.parametrize("folder", ["2024年10月", "2024-10", "2024_10", "202410", "2024-10/V2", "2024-11/2024.10"])
def test_a_folder_of_another_period_is_warned_of(inbox: Path, folder: str) -> None:
    """A workbook in the wrong month's folder may be misnamed: its name counts, and somebody should look."""
    put(inbox, f"{folder}/{NOVEMBER}")
    (file,) = frozen(inbox).chosen
    assert file.warning == "is of 2024-11 by its name, and in a folder of 2024-10"


@pytest.mark.parametrize("folder", ["2024年11月", "2024-11/V1", "2024年10月/2024年11月", "十月", "V2", "20241", "2024"])
def test_a_folder_of_its_own_period_or_of_none_is_not(inbox: Path, folder: str) -> None:
    """A warning that comes for nothing is read by nobody."""
    put(inbox, f"{folder}/{NOVEMBER}")
    (file,) = frozen(inbox).chosen
    assert file.warning == ""
