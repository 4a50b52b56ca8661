"""A way to PostgreSQL on which something happens at one of the client's messages: what a network or a kill -9 does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote, urlencode

import psycopg2
from psycopg2 import extensions

_PORT = 5432
_KEY_DATA, _READY, _COPY_IN = b"K", b"Z", b"G"  # the backend's messages that matter here
_TERMINATE, _PASSWORD = b"X", b"p"  # the client's that do not count

When = Literal["before", "after"]  # the message is sent on; its answer is in the relay
Action = Callable[["Link"], object]


class Link:
    """One client's connection through the relay."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.backend = 0
        self.holds_answer = False

    def close(self) -> None:
        """Drop the connection at both ends, at once."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close_client(self) -> None:
        """Drop the client's end only: the backend hears of it when it next listens."""
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)


class Relay:
    """
    A unix socket before a PostgreSQL server.

    Args:
        uri: the libpq URI of the database behind.
    Attributes:
        uri: the libpq URI of the same database through the relay.
        messages: what clients sent up to now, as the text of each statement, or the message's type.
    """

    def __init__(self, uri: str) -> None:
        self._parts = extensions.parse_dsn(uri)
        self._folder = Path(tempfile.mkdtemp(prefix="wdh-relay-", dir="/tmp"))  # short enough for a socket
        parts = {**self._parts, "host": str(self._folder), "port": str(_PORT)}
        self.uri = f"postgresql:///?{urlencode(parts, quote_via=quote)}"
        self.messages: list[str] = []
        self._failure: BaseException | None = None
        self._is_due: Callable[[], bool] = lambda: False
        self._action: Action | None = None
        self._when: When = "before"
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._folder / f".s.PGSQL.{_PORT}"))
        self._listening.listen()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join()  # no link is added any more
        for link in self._links:
            link.close()
        for thread in self._threads:
            thread.join()
        for link in self._links:
            link.client.close()
            link.server.close()
        shutil.rmtree(self._folder)
        if self._failure is not None:
            raise self._failure

    def at(self, number: int, action: Action, when: When = "before") -> None:
        """Do something once, when the client's message of a number, from 1 on from now, is to be or was answered."""
        with self._lock:
            self.messages.clear()
            self._is_due, self._action, self._when = (lambda: len(self.messages) == number), action, when

    def at_words(self, words: str, action: Action, when: When = "before") -> None:
        """Do something once, at the client's first statement from now on that holds words."""
        with self._lock:
            self.messages.clear()
            self._is_due, self._action, self._when = (lambda: words in self.messages[-1]), action, when

    @property
    def struck(self) -> bool:
        """Tell whether what was to happen has happened."""
        return self._action is None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()  # like a server that is down
                continue
            link = Link(client, server)
            self._links.append(link)
            for pump in (self._from_client, self._from_server):
                self._start(_until_closed, pump, link)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _connect(self) -> socket.socket:
        host, port = self._parts.get("host", "localhost"), int(self._parts.get("port", _PORT))
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            server.close()
            raise
        return server

    def _from_client(self, link: Link) -> None:
        length = _exactly(link.client, 4)
        link.server.sendall(length + _exactly(link.client, struct.unpack("!i", length)[0] - 4))
        for kind, message in _messages(link.client):
            action = None if kind in (_TERMINATE, _PASSWORD) else self._due(kind, message)
            if action and self._when == "after":
                link.holds_answer, self._held = True, action
            elif action:
                self._act(action, link)
            link.server.sendall(message)

    def _from_server(self, link: Link) -> None:
        for kind, message in _messages(link.server):
            if kind == _KEY_DATA:
                (link.backend,) = struct.unpack("!i", message[5:9])
            if not link.holds_answer:
                link.client.sendall(message)
            elif kind in (_READY, _COPY_IN):
                self._act(self._held, link)

    def _act(self, action: Action, link: Link) -> None:
        try:
            action(link)
        except BaseException as error:  # for the test, which waits for another thread
            self._failure = error
            raise

    def _due(self, kind: bytes, message: bytes) -> Action | None:
        with self._lock:
            words = message[5:].decode(errors="replace").strip("\0\n") if kind == b"Q" else ""
            self.messages.append(words or kind.decode())
            if self._action is None or not self._is_due():
                return None
            action, self._action = self._action, None
            return action


def _until_closed(pump: Callable[[Link], None], link: Link) -> None:
    try:
        with contextlib.suppress(OSError):
            pump(link)
    finally:
        link.close()


def _messages(end: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        head = _exactly(end, 5)
        yield head[:1], head + _exactly(end, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(end: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise ConnectionError("closed")
        found += part
    return bytes(found)


def drop(link: Link) -> None:
    """Drop the connection."""
    link.close()


def crash(link: Link) -> None:
    """Kill the backend with kill -9: the server takes all others down, and recovers."""
    os.kill(link.backend, signal.SIGKILL)


def fill_disk(room: int) -> Action:
    """Return what lets a backend write files up to a size only, as a full disk does."""

    def action(link: Link) -> None:
        owner = Path(f"/proc/{link.backend}").stat()
        account = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        subprocess.run(["prlimit", "--pid", str(link.backend), f"--fsize={room}:"], check=True, **account)

    return action


def terminate(uri: str) -> Action:
    """Return what ends a backend as an administrator does, and waits for its end."""

    def action(link: Link) -> None:
        with closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (link.backend,))

    return action
