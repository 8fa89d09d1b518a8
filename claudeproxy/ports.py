"""Ports that are taken: by whom, and which one is not."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import psutil
from attrs import frozen

TRIED = 50
"""How many ports are looked at for a free one."""


@frozen
class Holder:
    """The process that listens on a port. ``name``: of its program, as far as it may be seen."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def holder(port: int) -> Holder | None:
    """Who listens on TCP port ``port``; ``None`` where that may not be seen: it is another
    user's, or in a container."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return Holder(process.pid, _name(process))
    return None


def _name(process: psutil.Process) -> str:
    """What a user calls it: the script, where an interpreter runs one."""
    name, options = process.name(), process.cmdline()[1:]
    words = [word for word in options if not word.startswith("-")]
    if words and name.startswith(("python", "node", "twistd")):
        own = options[: options.index(words[0])]  # what is behind it is for the script
        if not {"-c", "-e"} & set(own):
            name = os.path.basename(words[0])
    return name


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def next_free(port: int, host: str = "127.0.0.1") -> int | None:
    """The first port above ``port`` on which nobody listens; ``None`` if none is near."""
    above = range(port + 1, min(port + 1 + TRIED, 65536))
    return next((candidate for candidate in above if is_free(candidate, host)), None)
