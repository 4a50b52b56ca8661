"""Fixtures for a real PostgreSQL: one throwaway server a session, one database a test; nothing of it is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg2
import psycopg2.extensions
import pytest
from hypothesis import settings

from wdh_luigi import embedded

settings.register_profile("wdh", database=None, deadline=None)  # nothing is left behind, and machines are noisy
settings.load_profile("wdh")

GIVEN_SERVER = os.environ.get("WDH_TEST_DATABASE_URI")
REPOSITORY = Path(__file__).parent.parent
NUMBERS = count(1)

# Waits for the end of pytest, be it a kill -9, then stops what was started below the scratch folder and removes it.
JANITOR = """
import fcntl, os, select, shutil, sys, time
from pathlib import Path
from wdh_luigi import embedded

scratch, pytest = Path(sys.argv[1]), int(sys.argv[2])
while os.getppid() == pytest and not select.select([sys.stdin], [], [], 1)[0]:
    pass
for lock in [path for path in scratch.rglob("lock") if path.is_file()]:
    with lock.open() as file:
        for _ in range(600):
            embedded.stop(lock.parent)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
shutil.rmtree(scratch)
"""


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """Make a folder that root's server can pass through, unlike tmp_path, and short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="wdh-test-", dir="/tmp"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with subprocess.Popen(
        [sys.executable, "-c", JANITOR, str(folder), str(os.getpid())],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        start_new_session=True,  # Ctrl-C is for pytest
    ):
        yield folder  # leaving closes the pipe and waits


@pytest.fixture(autouse=True)
def embedded_folder(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Hide the user's settings, and give the test an embedded server's folder of its own, not yet made."""
    folder = scratch / f"embedded-{next(NUMBERS)}"
    for name in [name for name in os.environ if name.startswith("WDH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WDH_EMBEDDED_DIR", str(folder))
    yield folder
    if folder.exists():
        embedded.stop(folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(scratch: Path) -> str:
    """Return the libpq URI of a server where tests may create databases: WDH_TEST_DATABASE_URI's, or a throwaway."""
    if GIVEN_SERVER:
        return GIVEN_SERVER
    careless = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    return embedded.start(scratch / "server", options=careless).uri  # the janitor stops it


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:
    """Yield the libpq URI of a fresh, empty database."""
    with _fresh(postgres_server) as uri:
        yield uri


@pytest.fixture
def other_database(postgres_server: str) -> Iterator[str]:
    """Yield the libpq URI of another one."""
    with _fresh(postgres_server) as uri:
        yield uri


@contextmanager
def _fresh(postgres_server: str) -> Iterator[str]:
    name = f"wdh_test_{uuid4().hex}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    parts = {**psycopg2.extensions.parse_dsn(postgres_server), "dbname": name}
    yield f"postgresql:///?{urlencode(parts, quote_via=quote)}"
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(uri: str, statement: str) -> None:
    with closing(psycopg2.connect(uri)) as connection:
        connection.autocommit = True  # neither statement can run in a transaction
        with connection.cursor() as cursor:
            cursor.execute(statement)
