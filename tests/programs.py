"""Programs of their own, as a user or a supervisor starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}


def free_port_number() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], home: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with ``environ`` and little else; it must end well when it is told to."""
    environ = {"HOME": str(home), "PATH": os.environ["PATH"], **more.pop("environ", {})}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(command, env=environ, cwd=home, stdout=log, stderr=log, **more)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            # twistd tells its parent by which signal it ended; supervisors count that as well.
            assert process.wait(30) in (0, -signal.SIGTERM), (home / "log").read_text()
            assert b"Server Shut Down." in (home / "log").read_bytes()
        finally:
            process.kill()
            process.wait()


def fetch(url: str, body: Any = None) -> bytes:
    """What there is at ``url``, within some seconds."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"content-type": "application/json"})
    for _ in range(200):
        try:
            with urlopen(request, timeout=30) as response:
                return bytes(response.read())
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise AssertionError(f"nothing answers at {url}")
