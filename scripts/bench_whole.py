"""
Load the same workbooks with wdh_luigi and its peers, in turn, and compare; run by scripts/bench.

Every peer gets a database of its own in one PostgreSQL, loads a workbook into it, and then a correction of the
workbook over the same keys. Times are of whole processes, from the command to its end. Memory is measured in a round
of its own, as looking at it takes time. Quote the ratios: they are of one run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, urlencode

import bench_data
import bench_page
import psycopg2
import psycopg2.extensions

from wdh_luigi import embedded

ROOT = Path(__file__).parent.parent
FLOOR, OURS = "floor", "wdh_luigi"
WORDS = {
    FLOOR: "the floor: one script, python-calamine, COPY",
    "tight_floor": "the same, streaming and by columns",
    OURS: "**wdh_luigi**: luigi command, targets, plan, receipt",
    "psql_plan": "psql -f of its plan alone",
    "dlt_fastest": "dlt, fastexcel, polars, arrow, merge",
    "dlt_default": "dlt, openpyxl, dicts, merge",
    "pandas_rows": "pandas, a model per row, execute_values",
}
SLOW = ("dlt_default", "pandas_rows")  # timed once above SLOW_ROWS
SLOW_ROWS = 100_000
REJECTS = (0.01, 0.5)
FILES = 300  # workbooks of the run in which nothing is to be done
TARGETS = "100,000 rows ≤ 1.4 × the floor, 1,000,000 rows ≤ 1.2 ×, peak memory ≤ 192 MiB, rejects ≤ 2 × the clean rows"
# What scripts/bench --quick tolerates, of 100,000 rows: times the floor's wall and CPU seconds, and MiB. It guards
# what was reached: 1.3 first and 1.6 again, 1.4 and 1.5, and 79.
QUICK_ROWS, QUICK_ROUNDS = 100_000, 3
QUICK_LIMITS = {"wall": 1.9, "cpu": 1.8, "memory": 100.0}
_EQUAL = (
    "SELECT count(*), md5(string_agg(concat_ws('|', report_date, plan_code, company_code, return_rate,"
    " net_asset_value, fund_scale), E'\\n' ORDER BY report_date, plan_code, company_code)) FROM {}"
)


@dataclass
class Measured:
    """One process: seconds by the clock, CPU seconds of it and of the server, peak MiB of its process tree."""

    wall: float
    client: float
    server: float
    peak: float = 0.0


@dataclass
class Bench:
    """
    Where everything is.

    Attributes:
        folder: workbooks, databases and the peers' environment.
        uri: of a database of the server.
    """

    folder: Path
    uri: str
    results: dict[tuple[int, str, str], list[Measured]] = field(default_factory=dict)
    tables: dict[tuple[int, str], set[str]] = field(default_factory=dict)

    def workbook(self, rows: int, version: int = 1, rejects: float = 0.0) -> Path:
        """Return a workbook in an inbox of its own, made once."""
        seed = hashlib.sha256(Path(bench_data.__file__).read_bytes()).hexdigest()[:8]
        path = self.folder / "data" / f"{seed}-{rows}-{rejects}-{version}" / bench_data.NAME
        if not path.exists():
            print(f"making {path.parent.name} ...", file=sys.stderr)
            bench_data.write(path, rows, rejects=rejects, version=version)
        return path

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URI of a new database."""
        name = "bench"
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name} TEMPLATE template0")
        parts = {**psycopg2.extensions.parse_dsn(self.uri), "dbname": name}
        yield f"postgresql:///?{urlencode(parts, quote_via=quote)}"
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str) -> None:
        """Run statements that cannot run in a transaction."""
        with closing(psycopg2.connect(self.uri)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)

    def command(self, peer: str, workbook: Path, uri: str, *options: str) -> tuple[list[str], dict[str, str]]:
        """Return a peer's command and environment."""
        if peer == "psql_plan":
            plan = str(self.plan(workbook))
            return [embedded.psql(), uri, "--quiet", "--no-psqlrc", "-f", plan], dict(os.environ)
        if peer != OURS:
            python = str(self.folder / "venv/bin/python")
            return [python, "-W", "ignore", str(ROOT / "scripts/bench_peers.py"), peer, str(workbook), uri], {
                **os.environ,
                "HOME": str(self.folder / "home"),  # where dlt keeps its pipelines
            }
        environment = {**os.environ, "WDH_DATABASE_URI": uri, "WDH_DATA_BASE_DIR": str(workbook.parent)}
        environment |= {"WDH_WORK_DIR": str(self.folder / "work")}
        environment |= {"WDH_DATA_SOURCES_CONFIG": str(ROOT / "data_sources.yml")}
        environment |= {"LUIGI_CONFIG_PATH": str(ROOT / "luigi.cfg")}
        job = ["luigi", "--module", "wdh_luigi", "ProcessDomain", "--local-scheduler", *options]
        return [str(Path(sys.executable).with_name(job[0])), *job[1:]], environment

    def plan(self, workbook: Path) -> Path:
        """Return a workbook's plan, made once by a plan-only run."""
        path = workbook.with_suffix(".sql")
        if not path.exists():
            self.fresh()
            command, environment = self.command(OURS, workbook, "")
            environment.pop("WDH_DATABASE_URI")
            subprocess.run(command, env=environment, check=True, capture_output=True)
            (made,) = (self.folder / "work").glob("*/plans/*.sql")
            shutil.copy(made, path)
        return path

    def fresh(self) -> None:
        """Forget what the peers keep between runs."""
        for name in ("work", "home"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def measure(self, command: Sequence[str], environment: dict[str, str], *, memory: bool = False) -> Measured:
        """Run a command; memory is looked at only where it is asked for."""
        # Compiled code is kept, as on a user's machine, whatever is set here.
        environment = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.execute("CHECKPOINT")
        before = self.server_seconds()
        started = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)
            peak = _Peak(child.pid) if memory else None
            _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{(self.folder / 'log').read_text('utf-8')[-2000:]}")
        time.sleep(0.3)  # until the server has counted the time of the backend that has ended
        server = self.server_seconds() - before
        return Measured(wall, usage.ru_utime + usage.ru_stime, server, peak.stop() if peak else 0.0)

    def server_seconds(self) -> float:
        """Return the CPU seconds of the server and of all its processes, those that have ended too; Linux only."""
        with closing(psycopg2.connect(self.uri)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")
            (postmaster,) = cursor.fetchone() or ("0",)
        seconds = 0.0
        for pid in [int(postmaster), *_children(int(postmaster))]:
            times = _stat(pid)[11:15] if pid == int(postmaster) else _stat(pid)[11:13]
            seconds += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        return seconds

    def load_twice(self, peer: str, rows: int, *, memory: bool) -> None:
        """Load a workbook and its correction with a peer, and keep what it took."""
        self.fresh()
        options = ("--plan-only", "false") if peer == OURS else ()
        if peer == "psql_plan":
            for version in (1, 2):
                self.plan(self.workbook(rows, version))
        with self.database() as uri:
            for version, word in enumerate(("first", "reload"), 1):
                measured = self.measure(*self.command(peer, self.workbook(rows, version), uri, *options), memory=memory)
                self.results.setdefault((rows, word, peer), []).append(measured)
                self.tables.setdefault((rows, word), set()).add(_contents(uri, peer))
                print(f"{rows:>9} {word:<6} {peer:<12} {_shown(measured)}", file=sys.stderr, flush=True)

    def rounds(self, rows: int, rounds: int, peers: Sequence[str]) -> None:
        """Run the peers in turn, each round beginning with another one."""
        self.workbook(rows, 1), self.workbook(rows, 2)
        for at in range(rounds + 1):
            memory = at == rounds
            for peer in [*peers[at % len(peers) :], *peers[: at % len(peers)]]:
                if peer not in SLOW or rows <= SLOW_ROWS or at == 0:
                    self.load_twice(peer, rows, memory=memory)
        for word in ("first", "reload"):
            if len(self.tables[rows, word]) != 1:
                raise SystemExit(f"the tables differ: {rows} rows, {word}: {self.tables[rows, word]}")

    def wall(self, rows: int, word: str, peer: str) -> float:
        """Return the median of the clock, of the rounds without a look at memory."""
        return statistics.median(one.wall for one in self._timed(rows, word, peer))

    def _timed(self, rows: int, word: str, peer: str) -> list[Measured]:
        found = self.results[rows, word, peer]
        return [one for one in found if not one.peak] or found

    def table(self, rows: int, word: str) -> Iterator[str]:
        """Yield the lines of a table: the peers and what they took."""
        yield f"\n**{rows:,} rows, {'first load' if word == 'first' else 'reload over the same keys'}**\n"
        yield "| | × floor | wall s | CPU s client | CPU s server | peak MiB |\n|---|---|---|---|---|---|"
        for peer, words in WORDS.items():
            if (rows, word, peer) in self.results:
                timed = self._timed(rows, word, peer)
                wall, client, server = (
                    statistics.median(getattr(one, part) for one in timed) for part in ("wall", "client", "server")
                )
                peak = max(one.peak for one in self.results[rows, word, peer])
                ratio = wall / self.wall(rows, word, FLOOR)
                shown = f"{peak:.0f}" if peak else ""
                yield f"| {words} | {ratio:.2f} | {wall:.2f} | {client:.2f} | {server:.2f} | {shown} |"

    def rejects(self, rows: int, rounds: int) -> Iterator[str]:
        """Yield the lines about workbooks of which a part is rejected, against the clean one."""
        found: dict[float, list[Measured]] = {share: [] for share in (0.0, *REJECTS)}
        for share in found:
            self.workbook(rows, 1, share)
        for _ in range(rounds):
            for share, measured in found.items():
                self.fresh()
                with self.database() as uri:
                    book = self.workbook(rows, 1, share)
                    measured.append(self.measure(*self.command(OURS, book, uri, "--plan-only", "false")))
                print(f"{rows:>9} rejects {share:.0%} {_shown(measured[-1])}", file=sys.stderr, flush=True)
        walls = {share: statistics.median(one.wall for one in measured) for share, measured in found.items()}
        yield f"\n**{rows:,} rows, of which some are rejected**\n\n| rejects | × clean | wall s |\n|---|---|---|"
        for share, wall in walls.items():
            yield f"| {share:.0%} | {wall / walls[0.0]:.2f} | {wall:.2f} |"

    def nothing_to_do(self, rounds: int) -> Iterator[str]:
        """Yield the line about a run that finds everything done."""
        inbox = self.folder / "data" / f"{FILES}-files"
        for at in range(FILES):
            path = inbox / f"机构{at:03}_2024_11_受托业绩.xlsx"
            if not path.exists():
                bench_data.write(path, 20, first=at * bench_data.COMPANIES)
        self.fresh()
        with self.database() as uri:
            command, environment = self.command(OURS, inbox / "x", uri, "--plan-only", "false")
            first = self.measure(command, environment)
            again = statistics.median(self.measure(command, environment).wall for _ in range(rounds))
        yield f"\n**A run over {FILES} workbooks with nothing to do: {again:.2f} s** (the first: {first.wall:.0f} s)."


def _shown(measured: Measured) -> str:
    return (
        f"{measured.wall:7.2f} s, CPU {measured.client:6.2f} + {measured.server:6.2f}, {measured.peak:4.0f} MiB at most"
    )


def _contents(uri: str, peer: str) -> str:
    """Return how many rows a peer's table holds, and the md5 of all their values."""
    name = {OURS: "trustee_performance", "psql_plan": "trustee_performance"}.get(peer, peer)
    with closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute(_EQUAL.format(f"dlt.{name}" if name.startswith("dlt_") else name))
        found = cursor.fetchone()
    return str(found)


def _stat(pid: int) -> list[str]:
    """Return what /proc tells of a process behind its name; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 20


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(child) for child in listed]


class _Peak:
    """Looks at the memory of a process and all below it: PSS, which counts a page that several share once."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended, self._most = pid, threading.Event(), 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._most = max(self._most, _pss(self._pid))

    def stop(self) -> float:
        """Return the most that it was, in MiB."""
        self._ended.set()
        self._thread.join()
        return self._most / 1024


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    own = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    threads = Path(f"/proc/{pid}/task")
    tasks = [int(one.name) for one in threads.iterdir()] if threads.exists() else []
    below = {child for task in tasks for child in _task_children(pid, task)}
    return own + sum(map(_pss, below))


def _task_children(pid: int, task: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        return []


def quick(bench: Bench) -> int:
    """Compare ourselves with the floor; return the exit code."""
    bench.workbook(QUICK_ROWS, 1), bench.workbook(QUICK_ROWS, 2)
    for at in range(QUICK_ROUNDS + 1):
        for peer in (FLOOR, OURS) if at % 2 else (OURS, FLOOR):
            bench.load_twice(peer, QUICK_ROWS, memory=at == QUICK_ROUNDS)
    failed = 0
    for word in ("first", "reload"):
        ours, floor = ([one for one in bench.results[QUICK_ROWS, word, peer] if not one.peak] for peer in (OURS, FLOOR))
        found = {
            # of each round by itself: what else the machine does meets both
            "wall": statistics.median(a.wall / b.wall for a, b in zip(ours, floor, strict=True)),
            "cpu": statistics.median(
                (a.client + a.server) / (b.client + b.server) for a, b in zip(ours, floor, strict=True)
            ),
            "memory": max(one.peak for one in bench.results[QUICK_ROWS, word, OURS]),
        }
        for name, value in found.items():
            verdict = "ok" if value <= QUICK_LIMITS[name] else "ABOVE ITS LIMIT"
            failed |= value > QUICK_LIMITS[name]
            print(f"{QUICK_ROWS:,} rows, {word}: {name} {value:.2f}, limit {QUICK_LIMITS[name]} {verdict}")
    if len(bench.tables[QUICK_ROWS, "first"]) > 1 or len(bench.tables[QUICK_ROWS, "reload"]) > 1:
        raise SystemExit("the tables differ")
    return failed


def machine(bench: Bench, rounds: int) -> str:
    """Describe what it was run on."""
    with closing(psycopg2.connect(bench.uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT version()")
        (server,) = cursor.fetchone() or ("",)
    python = bench.folder / "venv/bin/python"
    names = ("dlt", "fastexcel", "polars", "pyarrow", "pandas", "python-calamine", "openpyxl")
    code = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    peers = subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout.strip()
    own = ", ".join(f"{name} {metadata.version(name)}" for name in ("luigi", "pydantic", "python-calamine-plus"))
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return (
        f"Medians of {rounds} rounds, peers in turn ({', '.join(SLOW)} once above {SLOW_ROWS:,} rows); after each load"
        f" all tables held the same rows. {model}, {os.cpu_count()} processors, {platform.system()}, Python"
        f" {platform.python_version()}; {' '.join(server.split()[:2])} as the product embeds it, with fsync; {own};"
        f" peers: {peers}."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="+", choices=list(WORDS), default=list(WORDS))
    parser.add_argument("--quick", action="store_true", help="the regression guard")
    parser.add_argument("--write", type=Path, help="the page whose part between the bench marks is replaced")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, embedded.start(folder / "postgres").uri)
    try:
        if arguments.quick:
            return quick(bench)
        for rows in arguments.rows:
            bench.rounds(rows, arguments.rounds, arguments.peers)
        lines = [machine(bench, arguments.rounds), f"\nWanted: {TARGETS}."]
        for rows in arguments.rows:
            for word in ("first", "reload"):
                lines += bench.table(rows, word)
        lines += bench.rejects(SLOW_ROWS, arguments.rounds)
        lines += bench.nothing_to_do(arguments.rounds)
        print("\n".join(lines))
        if arguments.write:
            bench_page.write(arguments.write, "bench", lines)
    finally:
        embedded.stop(folder / "postgres")
    return 0


if __name__ == "__main__":
    sys.exit(main())
