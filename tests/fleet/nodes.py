"""Daemons in processes of their own, each with its home, its state and its login."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from .keys import secret

ROOT = Path(__file__).parents[2]
SERVE = """
from claudeproxy.engine import closed
assert closed.PROBE
closed.PROBE = {probe}
from claudeproxy.command.main import main
main()
"""


class Node:
    """One daemon. ``steady``: nobody is about to end it, so that clients may ask it directly."""

    def __init__(
        self,
        name: str,
        home: Path,
        port: int,
        environ: Mapping[str, str],
        probe: float,
        options: Sequence[str],
    ) -> None:
        """``probe``: seconds after which it probes a closed window."""
        self.name = name
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.steady = False
        self.log = home / "log"
        self._environ = {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
            "HOME": str(home), "TMPDIR": str(home), **environ,
        }  # fmt: skip
        self._words = [sys.executable, "-c", SERVE.format(probe=probe), "serve",
                       "--port", str(port), *options]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Be up, and well."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._words, cwd=self.home, env=self._environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        wait(lambda: self.health()[0] == 200 or not self.running, 60, f"the start of {self.name}")
        assert self.running, self.log.read_text()[-3000:]
        self.steady = True

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> float:
        """Without a goodbye; when it was over, in seconds of the clock."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        return time.monotonic()

    def terminate(self) -> None:
        """Tell it to end."""
        assert self._process is not None
        self.steady = False
        self._process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 60) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait(seconds)

    @property
    def left_over(self) -> list[psutil.Process]:
        """All its processes."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.home):
                    found.append(process)
            except (psutil.Error, OSError):
                pass
        return found

    def errors(self) -> str:
        """What its log has of errors: the first one."""
        _, found, rest = self.log.read_text().partition("Traceback")
        return found + rest[:3000]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON; 0 and nothing where nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"authorization": f"Bearer {secret('anna')}"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        except (OSError, HTTPException):
            return 0, {}
        finally:
            connection.close()

    def health(self) -> tuple[int, Any]:
        return self.get("/health")

    def usage(self) -> Any:
        return self.get("/v1/usage")[1]


def wait(condition: Callable[[], Any], seconds: float = 30.0, what: str = "it") -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in time"
        time.sleep(0.01)
    return value
