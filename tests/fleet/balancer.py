"""A real HAProxy before the nodes, with the configuration that comes with the package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from socket import AF_UNIX, socket

from .nodes import ROOT, wait

CONFIG = ROOT / "packaging" / "haproxy.cfg"
PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"))


def program() -> str | None:
    """Where HAProxy is, if it is installed."""
    return shutil.which("haproxy", path=PATH)


class Balancer:
    """Runs until :meth:`stop`. ``log``: the file of what went wrong between it and the nodes."""

    def __init__(self, directory: Path, port: int, nodes: Mapping[str, int]) -> None:
        """``nodes``: the ports of a and b."""
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "haproxy.log"
        self._socket = directory / "haproxy.sock"
        haproxy = program()
        assert haproxy is not None
        environ = {
            "PATH": PATH, "BIND": f"127.0.0.1:{port}", "ADMIN_SOCKET": str(self._socket),
            **{f"NODE_{name.upper()}": f"127.0.0.1:{number}" for name, number in nodes.items()},
        }  # fmt: skip
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [haproxy, "-db", "-f", str(CONFIG)], env=environ, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        wait(lambda: self._socket.exists() or self._process.poll() is not None)
        assert self._process.poll() is None, self.log.read_text()

    @property
    def up(self) -> set[str]:
        """The names of the nodes that get turns."""
        with socket(AF_UNIX) as asked, asked.makefile("rwb") as lines:
            asked.connect(str(self._socket))
            lines.write(b"show stat nodes 4 -1\n")
            lines.flush()
            rows = [line.split(b",") for line in lines if line.startswith(b"nodes,")]
        return {row[1].decode() for row in rows if row[17] == b"UP"}

    def stop(self) -> None:
        """Run no longer, whoever is connected."""
        self._process.terminate()
        self._process.wait(30)
