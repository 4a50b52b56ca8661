"""luigid for one machine: Luigi's central scheduler and visualiser, on loopback, as it asks nobody who they are."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import logging.handlers
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import luigi.configuration

from wdh_luigi import embedded, launch
from wdh_luigi.errors import ConfigError, WorkDirError

ADDRESS = "127.0.0.1"
_LOG_BYTES, _LOGS_KEPT = 5_000_000, 3
_SAVED_EVERY = 15  # seconds: what a kill -9 costs the visualiser
_PATIENCE = 15.0  # seconds that a stop may take


def default_folder() -> Path:
    """Return where luigid keeps its state and its log: beside the embedded PostgreSQL."""
    return embedded.default_folder().with_name("luigid")


def url(port: int) -> str:
    """Return the visualiser's address."""
    return f"http://{ADDRESS}:{port}"


def serve(folder: Path, port: int, announce: Callable[[str], None]) -> None:
    """
    Run luigid until it is stopped, by ``stop``, SIGTERM or Ctrl-C.

    Args:
        folder: for its state and its log; made if missing. One luigid runs in it at a time.
        announce: called with the lines that say where it is, once it answers.
    Raises:
        ConfigError: it is up already, the port is taken, or the package for its metrics is not installed.
        WorkDirError: the folder cannot be used.
    """
    with _only_one(folder, port):
        scheduler = _scheduler(folder)
        from luigi import server  # tornado's, for luigid alone
        from tornado.ioloop import IOLoop, PeriodicCallback

        IOLoop.current().add_callback(_greet, folder, port, announce)  # once it runs, the port is bound
        PeriodicCallback(scheduler.dump, _SAVED_EVERY * 1000).start()
        try:
            server.run(port, ADDRESS, scheduler=scheduler)
        except OSError as error:
            what = f"cannot be listened on ({error.strerror})"
            raise ConfigError(f"port {port} of {ADDRESS}", what, "choose another with --port") from error


def _greet(folder: Path, port: int, announce: Callable[[str], None]) -> None:
    announce(f"luigid is up: {url(port)} (metrics: {url(port)}/metrics), its state and log in {folder}")
    announce(f"runs use it with --scheduler-url {url(port)}; Ctrl-C or wdh luigid stop ends it")


def _scheduler(folder: Path) -> luigi.scheduler.Scheduler:
    """Return a scheduler with metrics that keeps its state in the folder, and log there."""
    log = logging.handlers.RotatingFileHandler(
        folder / "luigid.log", maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8"
    )
    logging.basicConfig(level=logging.INFO, handlers=[log], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.WARNING)  # else a line a second and worker
    launch.set_luigi_defaults()
    parser = luigi.configuration.get_config()
    parser.set("scheduler", "state_path", str(folder / "state.pickle"))
    if not parser.has_option("scheduler", "metrics_collector"):
        parser.set("scheduler", "metrics_collector", "prometheus")
    try:
        return luigi.scheduler.Scheduler()
    except ImportError as error:
        raise ConfigError("luigid", f"{error.name} is not installed", "pip install 'wdh_luigi[luigid]'") from error


@contextlib.contextmanager
def _only_one(folder: Path, port: int) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however that ends."""
    with _lock_file(folder) as file:
        if not _take(file):
            where = _holder(file)[1]
            raise ConfigError("luigid", f"is up already: {where}", "stop it first, with wdh luigid stop")
        file.truncate(0)
        file.write(f"{os.getpid()} {url(port)}\n")
        file.flush()
        yield


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (folder / "lock").open("a+")
    except OSError as error:
        mend = "give this user the right to write it, or set WDH_LUIGID_DIR to another folder"
        raise WorkDirError(str(folder), f"cannot be used ({error.strerror})", mend) from error


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> tuple[int, str]:
    """Return the process that holds the lock, and its address; it may just be about to write them."""
    for _ in range(20):
        file.seek(0)
        pid, _, where = file.read().strip().partition(" ")
        if where:
            return int(pid), where
        time.sleep(0.1)
    raise ConfigError("luigid", "is just starting or stopping", "try again")


def stop(folder: Path) -> bool:
    """
    Stop the folder's luigid; tell whether it was up.

    Raises:
        ConfigError: it does not stop.
        WorkDirError: the folder cannot be used.
    """
    with _lock_file(folder) as file:
        if _take(file):
            return False
        pid, where = _holder(file)
        with contextlib.suppress(ProcessLookupError):  # it ends just now
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        while not _take(file):
            if time.monotonic() > deadline:
                raise ConfigError("luigid", f"{where} does not stop", f"kill -9 {pid}")
            time.sleep(0.05)
    return True
