"""A daemon in a process of its own, over the CLI's double, for those who hurt the whole process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from claudeproxy.testing import fake_cli

TWISTD = """
import sys, time
{before}
sys.argv = ["twistd", *sys.argv[1:]]
from twisted.scripts.twistd import run
run()
"""


class Twistd:
    """A daemon in a process of its own, over the CLI's double."""

    def __init__(self, home: Path, *options: str, before: str = "", **popen: Any) -> None:
        self.claude = fake_cli(home / "cli")
        self.socket = home / "claudemax.sock"
        self.log = home / "log"
        environ = {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(home)}
        environ.update(popen.pop("environ", {}))
        logfile = popen.pop("logfile", self.log)
        words = ["-n", "--pidfile=", *([f"--logfile={logfile}"] if logfile else []), "claudemax",
                 "--port", f"unix:{self.socket}", "--claude", self.claude,
                 "--processes", "4"]  # fmt: skip
        if "--demo" not in options:
            words += ["--upstream", "http://127.0.0.1:9"]  # the double never asks it
        words += options
        self.process = subprocess.Popen(
            [sys.executable, "-c", TWISTD.format(before=before), *words],
            cwd=Path(__file__).parents[2], env=environ, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, **popen,
        )  # fmt: skip

    def up(self) -> Twistd:
        """Once it serves."""
        wait(lambda: self._answers() or self.process.poll() is not None, 60.0)
        assert self.process.poll() is None, self.process.stderr.read()  # type: ignore[union-attr]
        return self

    def _answers(self) -> bool:
        try:
            return self.get("/health").status == 200
        except OSError:
            return False

    @property
    def listens(self) -> bool:
        """Whether it takes connections."""
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def get(self, path: str) -> HTTPResponse:
        return self._send("GET", path)

    def start(self, text: str, **fields: Any) -> HTTPResponse:
        """A streamed answer that has begun."""
        messages = [{"role": "user", "content": text}]
        body = {"model": "sonnet", "messages": messages, "stream": True, **fields}
        return self._send("POST", "/v1/chat/completions", json.dumps(body).encode())

    def say(self, text: str) -> str:
        """What is answered, to its end; an error event's message instead."""
        return said(self.start(text))

    def _send(self, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self.connect()
        connection.request(method, path, body, {"content-type": "application/json"})
        return connection.getresponse()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(self.socket))
        return client

    @property
    def children(self) -> list[int]:
        """The processes that work, or are about to, in the CLI's directory."""
        place = str(self.log.parent / ".local/state/claudemax/empty")
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (
                    os.readlink(entry / "cwd").startswith(place)
                    or place.encode() in (entry / "cmdline").read_bytes()
                ):
                    found.append(int(entry.name))
        return found

    @property
    def reaper(self) -> int:
        """The process beside it that ends what it leaves behind."""
        task = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        (found,) = (int(pid) for pid in Path(task).read_text().split() if b"reaper.py" in line(pid))
        return found

    def kill(self) -> None:
        """Without a goodbye."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Its exit status after TERM."""
        self.process.terminate()
        return self.process.wait(60)


def line(pid: int | str) -> bytes:
    """A process's command line; nothing once it has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def said(response: HTTPResponse) -> str:
    events = [line[6:].strip() for line in response if line.startswith(b"data: ")]
    values = [json.loads(event) for event in events if event != b"[DONE]"]
    for value in values:
        if "error" in value:
            return str(value["error"]["message"])
    return "".join(value["choices"][0]["delta"].get("content") or "" for value in values)


def wait(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
