"""
Random histories of workbooks, loads, crashes and reverts, against the oracle.

``WDH_TEST_SECONDS`` sets for how long each of the two looks for a history that goes wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from job import Job, workbook
from oracle import Figures, Oracle, RefusedError, UnknownError, Wanted, plan_of, state
from relay import Relay, drop

from wdh_luigi import history, warehouse
from wdh_luigi.errors import DatabaseError

OCTOBER, NOVEMBER = date(2024, 10, 1), date(2024, 11, 1)
PERIODS = {"2024-10": OCTOBER, "2024-11": NOVEMBER}
CODES = [f"P{at}" for at in range(5)]
RATES = ["0.010000", "0.020000", None]


@st.composite
def figures(draw: st.DrawFn, months: list[date]) -> Figures:
    keys = st.tuples(st.sampled_from(months), st.sampled_from(CODES))
    return draw(st.dictionaries(keys, st.sampled_from(RATES), min_size=1, max_size=6))


@st.composite
def workbooks(draw: st.DrawFn) -> Wanted:
    """Draw a workbook; under replace: place the rows of other periods than its own are rejected before the load."""
    period = draw(st.sampled_from(list(PERIODS)))
    replace = draw(st.sampled_from(["keys", "place"]))
    months = [PERIODS[period]] if replace == "place" else [OCTOBER, PERIODS[period]]
    return Wanted(
        period=period,
        source=draw(st.sampled_from(["甲", "乙"])),
        figures=draw(figures(months)),
        mode=draw(st.sampled_from(["delete_insert", "delete_insert", "delete_insert", "append"])),
        replace=replace,
        overlap=draw(st.sampled_from(["error", "replace"])),
        max_delete_ratio=draw(st.sampled_from([0.5, 1.0])),
        keep_history=draw(st.sampled_from([True, True, False])),
    )


SECONDS = int(os.environ.get("WDH_TEST_SECONDS", "12"))
SEED = int(os.environ.get("WDH_TEST_SEED", "1"))


class Histories(RuleBasedStateMachine):
    """Loads below Luigi: hundreds of steps in the time of one run."""

    databases: tuple[str, ...] = ()  # two, given by the test

    def __init__(self) -> None:
        super().__init__()
        self.oracles = [Oracle() for _ in self.databases]
        self.at = 0
        self.folder = Path(tempfile.mkdtemp(prefix="wdh-model-", dir="/tmp"))
        self.written: list[Wanted] = []
        self.connections = [warehouse.connect(uri) for uri in self.databases]
        for connection in self.connections:
            with connection.cursor() as cursor:
                cursor.execute("SET client_min_messages = error")
                cursor.execute("DROP TABLE IF EXISTS performance, performance_history, wdh_load")

    def teardown(self) -> None:
        for connection in self.connections:
            connection.close()
        shutil.rmtree(self.folder)

    @property
    def oracle(self) -> Oracle:
        return self.oracles[self.at]

    @property
    def uri(self) -> str:
        return self.databases[self.at]

    @property
    def load_ids(self) -> list[int]:
        with self.connections[self.at].cursor() as cursor:
            cursor.execute("SELECT load_id FROM wdh_load ORDER BY 1")
            return [load_id for (load_id,) in cursor.fetchall()]

    def apply(self, wanted: Wanted, *, reverted_too: bool) -> None:
        """Load where the oracle loads, refuse where it refuses."""
        try:
            is_new: bool | str = self.oracle.load(wanted, reverted_too=reverted_too)
        except RefusedError as refused:
            is_new = str(refused)
        path = plan_of(self.folder, wanted)
        if isinstance(is_new, str):
            with pytest.raises(DatabaseError, match=is_new):
                warehouse.apply(self.connections[self.at], path, reverted_too=reverted_too)
        else:
            assert warehouse.apply(self.connections[self.at], path, reverted_too=reverted_too).loaded is is_new
        if wanted not in self.written:
            self.written.append(wanted)

    @rule(wanted=workbooks())
    def load(self, wanted: Wanted) -> None:
        self.apply(wanted, reverted_too=False)

    @precondition(lambda self: self.written)
    @rule(data=st.data(), reverted_too=st.booleans())
    def load_one_of_before_again(self, data: st.DataObject, reverted_too: bool) -> None:
        self.apply(data.draw(st.sampled_from(self.written)), reverted_too=reverted_too)

    @precondition(lambda self: self.oracle.receipts)
    @rule(data=st.data())
    def correct_the_newest(self, data: st.DataObject) -> None:
        """Change, add and drop some rows of a workbook that was loaded, under the same settings."""
        newest = self.oracle.receipts[-1].wanted
        months = sorted({key[0] for key in newest.figures})
        changed = data.draw(figures(months))
        kept = {key: rate for key, rate in newest.figures.items() if key not in changed}
        self.apply(Wanted(**{**vars(newest), "figures": {**kept, **changed}}), reverted_too=False)

    @precondition(lambda self: self.oracle.receipts)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.oracle.receipts) - 1))
        load_id, connection = self.load_ids[number], self.connections[self.at]
        after = self.oracle.copy()
        try:
            after.revert(number)
        except RefusedError as refused:
            with pytest.raises(DatabaseError, match=str(refused)):
                history.revert(connection, "public", load_id, 10)
            return
        except UnknownError:
            with suppress(DatabaseError):
                history.revert(connection, "public", load_id, 10)
                self.oracles[self.at] = after
            return
        history.revert(connection, "public", load_id, 10)
        self.oracles[self.at] = after

    @precondition(lambda self: self.oracle.rows)
    @rule(chance=st.integers(0, 3))
    def empty_the_table(self, chance: int) -> None:
        if chance:  # rarely: nothing can be reverted any more
            return
        with self.connections[self.at].cursor() as cursor:
            cursor.execute("TRUNCATE performance")
        self.oracle.truncate()

    @rule(chance=st.integers(0, 3))
    def go_to_the_other_database(self, chance: int) -> None:
        if not chance:
            self.at = 1 - self.at

    @rule(wanted=workbooks(), number=st.integers(1, 45), when=st.sampled_from(["before", "after"]))
    def load_over_a_bad_line(self, wanted: Wanted, number: int, when: Any) -> None:
        """The connection is lost at some message: it is as if it had not been."""
        made: list[warehouse.Connection] = []

        def connect() -> warehouse.Connection:
            made.append(warehouse.connect(relay.uri))
            return made[-1]

        try:
            is_new: bool | str = self.oracle.load(wanted)
        except RefusedError as refused:
            is_new = str(refused)
        with Relay(self.uri) as relay:
            relay.at(number, drop, when)
            path = plan_of(self.folder, wanted)
            if isinstance(is_new, str):
                with pytest.raises(DatabaseError, match=is_new):
                    warehouse.apply_once(connect, path)
            else:
                assert warehouse.apply_once(connect, path).loaded is is_new
            for connection in made:
                connection.close()

    @rule(wanted=workbooks(), number=st.integers(5, 45), when=st.sampled_from(["before", "after"]))
    def crash(self, wanted: Wanted, number: int, when: Any) -> None:
        """The loader dies at some message: the table is as before or as after."""
        after = self.oracle.copy()
        with suppress(RefusedError):
            after.load(wanted)
        with Relay(self.uri) as relay:
            relay.at(number, drop, when)
            with closing(warehouse.connect(relay.uri)) as connection, suppress(DatabaseError):
                warehouse.apply(connection, plan_of(self.folder, wanted))
        found = state(self.uri)
        assert found in (self.oracle.state(), after.state())
        if found == after.state():
            self.oracles[self.at] = after

    @precondition(lambda self: self.oracle.receipts)
    @rule(data=st.data(), number=st.integers(1, 40), when=st.sampled_from(["before", "after"]))
    def crash_a_revert(self, data: st.DataObject, number: int, when: Any) -> None:
        load = data.draw(st.integers(max(0, len(self.oracle.receipts) - 2), len(self.oracle.receipts) - 1))
        after = self.oracle.copy()
        try:
            after.revert(load)
        except RefusedError:
            after = self.oracle
        except UnknownError:
            pass
        load_id = self.load_ids[load]
        with Relay(self.uri) as relay:
            relay.at(number, drop, when)
            with closing(warehouse.connect(relay.uri)) as connection, suppress(DatabaseError):
                history.revert(connection, "public", load_id, 10)
        found = state(self.uri)
        assert found in (self.oracle.state(), after.state())
        if found == after.state():
            self.oracles[self.at] = after

    @invariant()
    def the_table_is_what_the_oracle_says(self) -> None:
        assert state(self.uri) == self.oracle.state()


def test_any_history_leaves_what_the_oracle_says(database: str, other_database: str) -> None:
    """Nobody lists all orders in which people correct, load, crash and take back."""
    Histories.databases = (database, other_database)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Histories,
        settings=settings(
            max_examples=SECONDS, stateful_step_count=40, suppress_health_check=list(HealthCheck), derandomize=False
        ),
    )


class Walk:
    """An inbox, its oracle and the real command."""

    def __init__(self, job: Job, seed: int) -> None:
        self.job = job
        self.random = Random(seed)
        self.oracle = Oracle()
        self.inbox: dict[tuple[str, str, int], Figures] = {}  # by period, source and version

    def put(self) -> None:
        """Put a workbook in, or another in its place, some of its rows kept; now and then as a new version."""
        period, source = self.random.choice(list(PERIODS)), self.random.choice("甲乙")
        version = self.random.choice([1, 1, 2])
        former = self.inbox.get((period, source, version), {})
        drawn = {
            (PERIODS[period], f"{source}{at}"): self.random.choice(RATES) for at in range(self.random.randint(1, 4))
        }
        kept = {key: rate for key, rate in former.items() if self.random.random() < 0.7}
        self.inbox[period, source, version] = figures = dict(sorted({**kept, **drawn}.items()))
        rows = [[key[0].year, key[0].month, key[1], "C1", rate and float(rate), 1, 1] for key, rate in figures.items()]
        workbook(self._path(period, source, version), rows)

    def remove(self) -> None:
        """Take a workbook away; what it loaded stays, and a former version may be the newest again."""
        if len(self.inbox) > 1:
            one = self.random.choice(list(self.inbox))
            del self.inbox[one]
            self._path(*one).unlink()

    def plan(self) -> None:
        assert self.job.run("--period", "all").returncode == 0

    def load(self) -> None:
        for wanted in self._chosen():
            self.oracle.load(wanted)
        self.job.load("--period", "all")

    def crash(self) -> None:
        """The server ends the connection for good at some message of a run; the next run loads what is left."""
        chosen = [wanted for wanted in self._chosen() if not self.oracle.is_loaded(wanted)]
        with Relay(str(self.job.database)) as relay:
            relay.at(self.random.randint(1, 100), lambda link: self._process.kill())
            command = self.job.command("--plan-only", "false", "--period", "all")
            with subprocess.Popen(
                command,
                cwd=self.job.folder,
                env={**self.job.environment, "WDH_DATABASE_URI": relay.uri},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as self._process:
                self._process.wait()
        for place in self._places()[len(self.oracle.receipts) :]:
            self.oracle.load(next(wanted for wanted in chosen if wanted.place == place))

    def revert(self) -> None:
        if not self.oracle.receipts:
            return
        number = self.random.randrange(len(self.oracle.receipts))
        load_id = self.job.query("SELECT load_id FROM wdh_load ORDER BY 1")[number][0]
        done = self.job.wdh("revert", str(load_id))
        try:
            self.oracle.revert(number)
        except RefusedError as refused:
            said = str(refused)
        else:
            said = f"^load {load_id} of .* is reverted: "
        assert re.search(said, done.stdout + done.stderr), done

    def empty(self) -> None:
        if self.oracle.receipts:
            self.job.execute("TRUNCATE trustee_performance")
            self.oracle.truncate()

    def check(self) -> None:
        there = self.job.query("SELECT to_regclass('wdh_load') IS NOT NULL")[0][0]
        rows = self.job.query("SELECT report_date, plan_code, return_rate FROM trustee_performance") if there else []
        assert {row[:2]: row[2] and str(row[2]) for row in rows} == {k: row.rate for k, row in self.oracle.rows.items()}
        receipts = (
            self.job.query("SELECT period, source, reverted_at IS NOT NULL FROM wdh_load ORDER BY load_id")
            if there
            else []
        )
        assert [(*one.wanted.place, one.reverted) for one in self.oracle.receipts] == receipts

    def _path(self, period: str, source: str, version: int) -> Path:
        return self.job.inbox / f"V{version}" / f"{source}_{period.replace('-', '_')}_受托业绩.xlsx"

    def _chosen(self) -> list[Wanted]:
        """Return the newest version of each place."""
        newest = {key[:2]: self.inbox[key] for key in sorted(self.inbox)}
        return [Wanted(*place, figures=one, replace="place") for place, one in newest.items()]

    def _places(self) -> list[tuple[Any, ...]]:
        """Return the place of each load."""
        if not self.job.query("SELECT to_regclass('wdh_load') IS NOT NULL")[0][0]:
            return []
        return self.job.query("SELECT period, source FROM wdh_load ORDER BY load_id")


def test_a_walk_with_the_real_command_leaves_what_the_oracle_says(tmp_path: Path, database: str) -> None:
    """The same through Luigi: versions, targets kept from former runs, runs killed in the middle."""
    for seed in range(SEED, SEED + max(1, SECONDS // 60)):
        (tmp_path / str(seed)).mkdir()
        walk = Walk(Job(tmp_path / str(seed), database), seed)
        walk.job.execute("DROP TABLE IF EXISTS trustee_performance, trustee_performance_history, wdh_load")
        walk.job.configure(replace="place", max_delete_ratio=1.0, keep_history=True)
        walk.put()
        walk.load()
        steps = [walk.put, walk.put, walk.remove, walk.plan, walk.load, walk.load, walk.crash, walk.revert, walk.empty]
        for at in range(12):
            step = walk.random.choice(steps)
            step()
            print(seed, at, step.__name__)  # shown when it fails
            walk.check()
        walk.load()
        walk.check()
        assert "Nothing had to be done" in walk.job.load("--period", "all").stdout
