"""A real HAProxy before the nodes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .nodes import wait

PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")

CONFIG = """
global
    maxconn 4096
    stats socket {directory}/stats level admin

defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    timeout queue 30s
    option redispatch 1
    retries 3
    retry-on conn-failure

frontend api
    bind 127.0.0.1:{port}
    default_backend nodes

backend nodes
    balance hdr(x-claudemax-conversation)
    hash-type consistent
    option httpchk
    http-check send meth GET uri /health hdr Host localhost
    http-check expect status 200
    default-server inter 300ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
{servers}
"""


def program() -> str | None:
    """Where HAProxy is, if it is installed."""
    return shutil.which("haproxy") or next(
        (found for place in PLACES if (found := shutil.which("haproxy", path=place))), None
    )


class Balancer:
    """Runs until :meth:`stop`."""

    def __init__(self, directory: Path, port: int, nodes: Mapping[str, int]) -> None:
        """``nodes``: their ports, by name."""
        self.url = f"http://127.0.0.1:{port}"
        self._socket = directory / "stats"
        servers = "\n".join(
            f"    server {name} 127.0.0.1:{number} check" for name, number in nodes.items()
        )
        config = directory / "haproxy.cfg"
        config.write_text(CONFIG.format(directory=directory, port=port, servers=servers))
        self.log = directory / "haproxy.log"
        haproxy = program()
        assert haproxy is not None
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [haproxy, "-db", "-f", str(config)], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        wait(lambda: self._socket.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
