"""luigid as a user starts it, on a port of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from job import REPOSITORY, WDH


@dataclass
class Luigid:
    """A luigid that is up: its address, its folder, and its process."""

    url: str
    folder: Path
    process: subprocess.Popen[str]

    def ask(self, method: str, **arguments: Any) -> Any:
        """Ask what the visualiser asks."""
        query = urlencode({"data": json.dumps(arguments)})
        return json.loads(self.get(f"/api/{method}?{query}"))["response"]

    def get(self, path: str) -> str:
        """Fetch a page."""
        with urlopen(self.url + path, timeout=30) as page:
            return str(page.read().decode())


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wdh(*arguments: str, folder: Path) -> list[Any]:
    """Return what starts ``wdh luigid`` for a folder: the command, and its environment."""
    command = [*WDH, "luigid", *arguments]
    return [command, {**os.environ, "WDH_LUIGID_DIR": str(folder), "PYTHONPATH": str(REPOSITORY)}]


@contextmanager
def running(folder: Path) -> Iterator[Luigid]:
    """Run a luigid for the length of the block."""
    port = free_port()
    command, environment = wdh("start", "--port", str(port), folder=folder)
    process = subprocess.Popen(
        command, env=environment, cwd=folder.parent, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert f"luigid is up: http://127.0.0.1:{port} " in process.stdout.readline()
        yield Luigid(f"http://127.0.0.1:{port}", folder, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
