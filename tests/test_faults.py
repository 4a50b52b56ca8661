"""
Whatever dies in the middle of a load, the table is as before it or as after it, and running again heals.

The oracle says what before and after are. ``WDH_TEST_ALL=1`` strikes at every message of every kind of plan.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg2
import pytest
from job import NAME, Job, workbook
from oracle import Oracle, Wanted, plan_of, state
from relay import Action, Link, Relay, When, crash, drop, fill_disk, terminate
from test_plan import load, psql, record, written

from wdh_luigi import embedded, history, warehouse
from wdh_luigi.errors import DatabaseError, PlanError

ALL = bool(os.environ.get("WDH_TEST_ALL"))
OCTOBER, NOVEMBER = date(2024, 10, 1), date(2024, 11, 1)
FIRST = {(OCTOBER, "P1"): "0.010000", (NOVEMBER, "P1"): "0.010000", (NOVEMBER, "P2"): None}
SECOND = {(NOVEMBER, "P1"): "0.020000", (NOVEMBER, "P3"): "0.030000"}
BEFORE = Wanted("2024-11", "甲", FIRST)
PLANS = {
    "keys": Wanted("2024-11", "甲", SECOND, keep_history=False),
    "keys-history": Wanted("2024-11", "甲", SECOND),
    "place": Wanted("2024-11", "甲", SECOND, replace="place", keep_history=False),
    "place-history": Wanted("2024-11", "甲", SECOND, replace="place"),
    "append": Wanted("2024-11", "乙", {(NOVEMBER, "P9"): "0.090000"}, mode="append"),
}


@pytest.fixture
def job(tmp_path: Path, database: str) -> Job:
    return Job(tmp_path, database)


COMMIT = 'INSERT INTO "public"."wdh_load"'  # the receipt, and in one message with it the commit


class Case:
    """A table with a former load, and a plan that is to follow it."""

    def __init__(self, uri: str, folder: Path, wanted: Wanted) -> None:
        self.uri = uri
        self.plan = plan_of(folder, wanted)
        self._first = plan_of(folder, BEFORE)
        oracle = Oracle()
        oracle.load(BEFORE)
        self.before = oracle.state()
        oracle.load(wanted)
        self.after = oracle.state()

    def reset(self) -> None:
        """Bring the table to its state before."""
        with closing(warehouse.connect(self.uri)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET client_min_messages = error")
                cursor.execute("DROP TABLE IF EXISTS performance, performance_history, wdh_load")
            warehouse.apply(connection, self._first)

    def apply(self, uri: str = "") -> bool:
        """Apply the plan as the product does; return whether it had to be."""
        with connecting(uri or self.uri) as connect:
            return warehouse.apply_once(connect, self.plan).loaded

    def strike(self, number: int, action: Action, when: When) -> None:
        """Let something happen at a message: the plan is loaded all the same, and once."""
        self.reset()
        with Relay(self.uri) as relay:
            relay.at(number, action, when)
            assert self.apply(relay.uri), number
            assert relay.struck, number
        assert state(self.uri) == self.after, number
        assert not self.apply()


@contextmanager
def connecting(uri: str) -> Iterator[Callable[[], warehouse.Connection]]:
    """Yield what connects anew each time; all connections end with the block."""
    made: list[warehouse.Connection] = []

    def connect() -> warehouse.Connection:
        made.append(warehouse.connect(uri))
        return made[-1]

    try:
        yield connect
    finally:
        for connection in made:
            connection.close()


def committed(relay: Relay) -> int:
    """Return the number of the message that commits, of those that a relay saw."""
    return next(at for at, words in enumerate(relay.messages, 1) if words.startswith(COMMIT))


KINDS = list(PLANS) if ALL else ["place-history"]


def strike_points(case: Case, when: str) -> range:
    """Return the numbers of the messages to strike at: after most of them it is the same as before the next."""
    case.reset()
    with Relay(case.uri) as relay:
        case.apply(relay.uri)
        count, commit = len(relay.messages), committed(relay)
    return range(1 if ALL or when == "before" else commit - 1, count + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_lost_at_any_message_is_made_again(database: str, tmp_path: Path, kind: str, when: When) -> None:
    """The answer to the COMMIT included: whoever asks again finds the load done, and does it no second time."""
    case = Case(database, tmp_path, PLANS[kind])
    for number in strike_points(case, when):
        case.strike(number, drop, when)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_that_an_administrator_ends_is_replaced(database: str, tmp_path: Path, kind: str) -> None:
    """Restarts of a server and failovers end connections in words of their own, in the middle of a COPY too."""
    case = Case(database, tmp_path, PLANS[kind])
    for number in strike_points(case, "before")[:: 1 if ALL else 7]:
        case.strike(number, terminate(database), "before")


@pytest.fixture
def own_server(embedded_folder: Path) -> str:
    """Return the URI of a server that may crash without harm to other tests."""
    return embedded.start(embedded_folder, options={"fsync": "off", "restart_after_crash": "on"}).uri


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="kills a process by the number that PostgreSQL gives")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_crashes_is_waited_for(own_server: str, tmp_path: Path, kind: str) -> None:
    """kill -9 of a backend takes the whole server down; after its recovery the load goes on."""
    case = Case(own_server, tmp_path, PLANS[kind])
    points = strike_points(case, "before")[:-1]  # after the last one nobody would wait for the server
    for number in points if ALL else (points[-6], points[-5]):
        case.strike(number, crash, "before")
    with Relay(own_server) as relay:
        case.reset()
        case.apply(relay.uri)
        commit = committed(relay)
    case.strike(commit, crash, "after")


def every(count: int, step: int = 1) -> list[tuple[int, When]]:
    """Return the messages before which to strike."""
    return [(number, "before") for number in range(1, count + 1, step)]


def killed(command: list[str], relay: Relay, number: int, when: When, folder: Path, variables: dict[str, str]) -> None:
    """Run a command that a kill -9 ends at a message."""
    started: list[subprocess.Popen[str]] = []
    is_started = threading.Event()

    def kill(link: Link) -> None:
        is_started.wait()
        started[0].kill()
        started[0].wait()
        link.close()

    relay.at(number, kill, when)
    with subprocess.Popen(
        command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        started.append(process)
        is_started.set()
        said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


@pytest.mark.parametrize("command", ["wdh apply", "psql"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_loader_leaves_the_table_as_before_or_as_after(job: Job, kind: str, command: str) -> None:
    """Its locks are gone with it: the next one does not wait, and loads what is not loaded."""
    case = Case(str(job.database), job.folder, PLANS[kind])
    words = {
        "wdh apply": job.wdh_command("apply", case.plan),
        "psql": [embedded.psql(), "-X", "-q", "-f", str(case.plan)],
    }[command]
    with Relay(case.uri) as relay:
        if command == "psql":
            words = [*words, relay.uri]
        variables = {**job.environment, "WDH_DATABASE_URI": relay.uri}
        case.reset()
        relay.at(0, drop)
        subprocess.run(words, cwd=job.folder, env=variables, check=True, capture_output=True)
        count = len(relay.messages)
        commit = relay.messages.index("COMMIT;") + 1 if command == "psql" else committed(relay)
        points: list[tuple[int, When]] = [(commit - 1, "before"), (commit, "before"), (commit, "after")]
        for number, when in [*every(count), (commit, "after")] if ALL else points:
            case.reset()
            killed(words, relay, number, when, job.folder, variables)
            is_after = number > commit or (number, when) == (commit, "after")
            assert state(case.uri) == (case.after if is_after else case.before), (number, when)
            assert case.apply() is not is_after
            assert state(case.uri) == case.after, (number, when)


def rate(at: int) -> float:
    return round(0.01 + at / 1000, 3)


def test_a_killed_run_is_healed_by_the_next(job: Job) -> None:
    """The real luigi command, killed at the rows, the commit, and between the commit and the writing of the target."""
    path = job.inbox / NAME
    workbook(path, [[2024, 11, "P1", "C1", rate(0), 1, 1], [2024, 11, "P2", "C1", rate(0), 1, 1]])
    job.configure(replace="place", keep_history=True)
    with Relay(str(job.database)) as relay:
        through = Job.__new__(Job)
        vars(through).update(vars(job))
        through.environment = {**job.environment, "WDH_DATABASE_URI": relay.uri}
        through.load()
        relay.at(0, drop)
        workbook(path, [[2024, 11, "P1", "C1", rate(1), 1, 1]])
        through.load()
        count, commit = len(relay.messages), committed(relay)
        points: list[tuple[int, When]] = [(commit - 2, "before"), (commit, "before"), (commit, "after")]
        points += [(commit + 1, "before")]  # between the commit and the target
        loads = 2
        for at, (number, when) in enumerate([*every(count, 2), *points] if ALL else points, 2):
            before = job.table()
            workbook(path, [[2024, 11, "P1", "C1", rate(at % 200), 1, 1], [2024, 11, f"P{at}", "C1", rate(5), 1, 1]])
            command = job.command("--plan-only", "false")
            killed(command, relay, number, when, job.folder, through.environment)
            assert job.table() == before or number >= commit, (number, when)
            job.load()
            loads += 1
            assert [(row[1], float(row[3])) for row in job.table()] == [("P1", rate(at % 200)), (f"P{at}", rate(5))]
            assert job.query("SELECT count(*) FROM wdh_load") == [(loads,)], (number, when)
            kept = "replaced_by = (SELECT max(load_id) FROM wdh_load)"
            assert job.query(f"SELECT count(*) FROM trustee_performance_history WHERE {kept}") == [(len(before),)]


@pytest.mark.parametrize("kind", ["place-history", "append"])
def test_a_retry_waits_for_what_the_lost_connection_still_does(database: str, tmp_path: Path, kind: str) -> None:
    """A network that fails leaves the server at work: its COMMIT may come after we have connected again."""
    case = Case(database, tmp_path, PLANS[kind])
    with Relay(database) as relay:
        waits = threading.Event()

        def part(link: Link) -> None:
            link.close_client()
            waits.wait()

        case.reset()
        relay.at_words(COMMIT, part)
        with ThreadPoolExecutor() as pool:
            loading = pool.submit(case.apply, relay.uri)
            wait_until(database, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            assert state(database) == case.before
            waits.set()
            assert loading.result(), "the first try's load counts as this one's"
    assert state(database) == case.after


def wait_until(uri: str, found: str) -> None:
    """Wait until a query finds something."""
    with closing(warehouse.connect(uri)) as connection, connection.cursor() as cursor:
        while True:
            cursor.execute(found)
            if cursor.fetchone() is not None:
                return
            time.sleep(0.01)


@pytest.mark.parametrize("kind", ["place-history", "append"])
@pytest.mark.parametrize("first", ["psql", "wdh"])
def test_two_loaders_at_a_time_load_once(job: Job, kind: str, first: str) -> None:
    """One waits for the other in the middle of its transaction, and then finds it done; psql loads what it is told."""
    case = Case(str(job.database), job.folder, PLANS[kind])
    goes_on = threading.Event()
    with Relay(case.uri) as relay, ThreadPoolExecutor() as pool:
        case.reset()
        relay.at_words('INSERT INTO "public"."performance"', lambda link: goes_on.wait())
        one = pool.submit(psql, relay.uri, case.plan) if first == "psql" else pool.submit(case.apply, relay.uri)
        while not relay.struck:
            time.sleep(0.01)
        others = [pool.submit(case.apply) for _ in range(2)]
        wait_until(case.uri, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted OFFSET 1")
        goes_on.set()
        assert one.result()
        assert [other.result() for other in others] == [False, False]
    assert state(case.uri) == case.after


def test_connections_that_were_idle_for_long_are_made_again(job: Job) -> None:
    """A firewall drops the parent's connection while its workers read: what was loaded is not told as failed."""
    workbook(job.inbox / f"甲_{NAME}", [[2024, 11, "P1", "C1", 0.01, 1, 1]])
    workbook(job.inbox / f"乙_{NAME}", [[2024, 11, "P2", "C1", 0.01, 1, 1]])

    def end_all(link: Link) -> None:
        job.query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'wdh_luigi'")

    uri = str(job.database)
    with Relay(uri) as relay:
        job.environment["WDH_DATABASE_URI"] = relay.uri
        relay.at_words(COMMIT, end_all, "after")
        done = job.load("--workers", "2")
        assert relay.struck
    assert [(file["status"], file["inserted"]) for file in job.summary()["files"]] == [("done", 1), ("done", 1)], done
    assert job.query("SELECT count(*) FROM wdh_load") == [(2,)]


def test_a_revert_that_is_lost_was_done_or_not(database: str, tmp_path: Path) -> None:
    """Whoever asks again is told; nothing is taken back twice, and no lock stays."""
    case = Case(database, tmp_path, PLANS["place-history"])
    reverted = Oracle()
    reverted.load(BEFORE)
    reverted.load(PLANS["place-history"])
    reverted.revert(1)

    def revert(uri: str) -> None:
        with closing(warehouse.connect(uri)) as connection:
            history.revert(connection, "public", newest(database), 10)

    number = 0
    while True:
        number += 1 if ALL else 4
        case.reset()
        case.apply()
        with Relay(database) as relay:
            relay.at(number, drop, "after")
            with suppress(warehouse.LostError):
                revert(relay.uri)
            if not relay.struck:
                break
        found = state(database)
        assert found in (case.after, reverted.state()), number
        if found == case.after:
            revert(database)
        else:
            with pytest.raises(DatabaseError, match="nothing is left to revert"):
                revert(database)
        assert state(database) == reverted.state(), number


def newest(uri: str) -> int:
    with closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT max(load_id) FROM wdh_load")
        return int(cursor.fetchone()[0])


def full_disk(room: int) -> None:
    """Limit the size of the files that this process writes, as a full disk does: for subprocess's preexec_fn."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


SIZES = [100, 1200, 4000] if not ALL else [*range(50, 2000, 50), *range(2000, 12000, 500)]


def test_a_full_work_directory_is_one_line_and_heals(job: Job) -> None:
    """Wherever the room ends: no half file under its final name, the table as before or as after, and a way on."""
    path = job.inbox / NAME
    for at, room in enumerate(SIZES):
        before = job.table() if at else []
        workbook(path, [[2024, 11, f"P{number}", "C1", rate(at), 1, 1] for number in range(20)])
        done = subprocess.run(
            job.command("--plan-only", "false"),
            cwd=job.folder,
            env={**job.environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            preexec_fn=functools.partial(full_disk, room),
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert "cannot be written (File too large)" in done.stderr + done.stdout or done.returncode == 0, done.stderr
        for target in job.work.rglob("*.json"):
            json.loads(target.read_bytes())
        assert not list(job.work.rglob("*.tmp"))
        there = job.query("SELECT to_regclass('trustee_performance') IS NOT NULL")[0][0]
        assert (job.table() if there else []) == before or done.returncode in (0, 30)
        job.load()
        assert {float(row[3]) for row in job.table()} == {rate(at)}
        assert job.query("SELECT count(*) FROM wdh_load") == [(at + 1,)], room


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="util-linux limits another process")
def test_a_server_whose_disk_is_full_loads_nothing(own_server: str, tmp_path: Path) -> None:
    """At each statement that writes: the staged rows, the history, the rows; with room again the same plan loads."""
    many = {(NOVEMBER, f"P{at}"): "0.010000" for at in range(3000)}
    first, second = Wanted("2024-11", "甲", many), Wanted("2024-11", "甲", {**many, (NOVEMBER, "P1"): "0.020000"})
    oracle = Oracle()
    oracle.load(first)
    before = oracle.state()
    oracle.load(second)
    path = plan_of(tmp_path, second)
    with connecting(own_server) as connect:
        assert warehouse.apply_once(connect, plan_of(tmp_path, first)).loaded
        for words in ("COPY pg_temp", "WITH gone", 'INSERT INTO "public"."performance"'):
            with Relay(own_server) as relay, connecting(relay.uri) as connect_through:
                relay.at_words(words, fill_disk(64_000))
                message = (
                    rf"{second.workbook}, plan .*: PostgreSQL refused: could not extend file .*; nothing was written"
                )
                with pytest.raises(DatabaseError, match=message):
                    warehouse.apply_once(connect_through, path)
            assert state(own_server) == before, words
        with Relay(own_server) as relay, connecting(relay.uri) as connect_through:
            relay.at_words(COMMIT, fill_disk(0))  # where the log of the database cannot be written, it crashes
            assert warehouse.apply_once(connect_through, path).loaded
    assert state(own_server) == oracle.state()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe", "is no regular file; save the plan as one: it is read twice"),
        ("folder", "is no regular file; save the plan as one: it is read twice"),
        ("empty", "its bytes are not what was written; delete it and run again: it is written anew"),
        ("missing", "cannot be read (No such file or directory); correct its name, or run again"),
        ("leads-nowhere", "cannot be read (No such file or directory); correct its name, or run again"),
    ],
)
def test_what_is_no_file_is_no_plan(tmp_path: Path, name: str, message: str) -> None:
    """A pipe can be read once only, and for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "leads-nowhere").symlink_to("nowhere")
    with pytest.raises(PlanError) as refused, warehouse.opened(tmp_path / name):
        pass
    assert str(refused.value) == f"{tmp_path / name}: {message}"


def test_a_link_is_what_it_leads_to_and_no_row_is_a_plan_too(database: str, tmp_path: Path) -> None:
    """A workbook may hold a heading row and nothing else."""
    link = tmp_path / "link.sql"
    link.symlink_to(written(tmp_path / "plan.sql", load()))
    with connecting(database) as connect:
        applied = warehouse.apply_once(connect, link)
        assert (applied.loaded, applied.receipt.inserted) == (True, 0)
        assert not warehouse.apply_once(connect, link).loaded


@pytest.mark.parametrize(
    "change",
    [
        lambda path, lines: os.truncate(path, len(lines) // 2),
        lambda path, lines: os.truncate(path, 0),
        lambda path, lines: path.write_bytes(lines.replace(b"0.055000", b"0.550000")),
        lambda path, lines: path.write_bytes(lines.replace(b"\nINSERT INTO", b"\n  SELECT 1;")),
    ],
)
def test_a_plan_that_changes_while_it_is_applied_loads_nothing(
    job: Job, change: Callable[[Path, bytes], object]
) -> None:
    """Verified, and then written over in its place: what ran is not what was verified."""
    records = [record(at, f"P{at}", note="x" * 1000) for at in range(100)]
    path = written(job.folder / "plan.sql", load(), *records)
    lines = path.read_bytes()
    with Relay(str(job.database)) as relay, connecting(relay.uri) as connect:
        relay.at(12, lambda link: change(path, lines))
        with pytest.raises((PlanError, DatabaseError), match="changed while it was applied"):
            warehouse.apply_once(connect, path)
    assert job.query("SELECT to_regclass('performance')") == [(None,)]


def test_a_plan_that_is_replaced_while_it_is_applied_is_applied_as_verified(job: Job) -> None:
    """A run that writes the plan anew renames a whole file into its place."""
    path = written(job.folder / "plan.sql", load(), record())
    other = written(job.folder / "other.sql", load(digest="d2"), record(rate="0.9"))
    with Relay(str(job.database)) as relay, connecting(relay.uri) as connect:
        relay.at(12, lambda link: other.replace(path))
        warehouse.apply_once(connect, path)
    assert job.query("SELECT return_rate FROM performance") == [(Decimal("0.055000"),)]


def test_a_work_directory_that_vanishes_costs_a_run_only(job: Job) -> None:
    """Somebody tidies up between two runs, or while the plan is applied."""
    workbook(job.inbox / NAME, [[2024, 11, "P1", "C1", 0.01, 1, 1]])
    with Relay(str(job.database)) as relay:
        relay.at_words("CREATE TEMPORARY TABLE wdh_staged", lambda link: shutil.rmtree(job.work))
        done = job.run("--plan-only", "false", WDH_DATABASE_URI=relay.uri)
        assert relay.struck
    assert "Traceback" not in done.stderr + done.stdout
    assert len(job.table()) == 1
    job.load()
    assert job.query("SELECT count(*) FROM wdh_load") == [(1,)]
