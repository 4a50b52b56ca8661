"""A real luigid on a free port of the loopback, by the project's luigi.cfg."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from job import REPOSITORY


class Luigid:
    """
    A luigid that can be killed and started again at the same URL.

    Args:
        disconnect: seconds after which it notices that a worker was killed.
    """

    def __init__(self, folder: Path, disconnect: int = 15) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder / "luigid"
        self._folder.mkdir()
        settings = (REPOSITORY / "luigi.cfg").read_text("utf-8")
        assert "\nworker_disconnect_delay = 15\n" in settings
        (self._folder / "luigi.cfg").write_text(settings.replace("delay = 15", f"delay = {disconnect}"), "utf-8")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        code = "from luigi.cmdline import luigid; luigid()"
        options = ["--address", "127.0.0.1", "--port", str(self.port), "--state-path", str(self._folder / "state")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/api/is_paused"):
                return
            assert self._process.poll() is None, "luigid ended"
            time.sleep(0.05)
        raise AssertionError("luigid does not answer")

    def kill(self) -> None:
        """End it by force: it keeps nothing."""
        self._process.kill()
        self._process.wait()
