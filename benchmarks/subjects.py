"""What is measured: our daemon, the peer from npm, and a CLI driven by hand."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from claudeproxy.cli import launch
from claudeproxy.cli.settings import BRAKE, RELEASE

from .client import get

ROOT = Path(__file__).parent.parent
PEER = "claude-max-api-proxy@1.0.0"


class Program:
    """A subprocess that is ended with what it started."""

    def __init__(
        self,
        command: list[str],
        environ: dict[str, str],
        directory: Path,
        stdout: Path | None = None,
    ) -> None:
        """``stdout``: a file for it; a pipe without one."""
        with open(stdout or os.devnull, "wb") as file:
            self.process = subprocess.Popen(
                command,
                env=environ,
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=file if stdout else subprocess.PIPE,
                stderr=file if stdout else subprocess.DEVNULL,
                start_new_session=True,
            )

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()

    def cpu(self) -> float:
        """Seconds of CPU it has used."""
        with suppress(FileNotFoundError):
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        spent = 0.0
        for part in self._ps("cputime").replace("-", ":").split(":"):
            spent = spent * 60 + float(part)
        return spent

    def rss(self) -> float:
        """Megabytes of memory it holds."""
        return int(self._ps("rss")) / 1024

    def tree(self) -> tuple[float, float]:
        """Seconds of CPU that it and all it has started have used, ended ones too, and the
        megabytes that they hold."""
        spent, held = 0.0, 0.0
        root = psutil.Process(self.process.pid)
        for one in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                times = one.cpu_times()
                spent += times.user + times.system + times.children_user + times.children_system
                held += one.memory_info().rss / 2**20
        return spent, held

    def _ps(self, field: str) -> str:
        command = ["ps", "-o", f"{field}=", "-p", str(self.process.pid)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class StandIn(Program):
    """The upstream."""

    def __init__(self, directory: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        super().__init__([sys.executable, "-m", "benchmarks.standin"], environ, directory)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()

    def received(self) -> list[dict[str, Any]]:
        """The requests since the last time it was asked."""
        found: list[dict[str, Any]] = get(f"{self.url}/received")
        return found


class Daemon(Program):
    """Ours, as a user starts it."""

    name = "claudemax"

    def __init__(self, directory: Path, claude: str, upstream: str, *options: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        command += ["-n", "--pidfile=", "claudemax", "--port", str(self.port), "--claude", claude]
        environ = {**_private(directory), "PYTHONPATH": str(ROOT)}
        command += ["--upstream", upstream, *options]
        super().__init__(command, environ, directory, directory / "log")
        wait(lambda: get(f"http://127.0.0.1:{self.port}/health")["status"] == "ok")

    def settle(self) -> None:
        """Wait until the pool is as full as it gets."""
        before = None

        def still() -> bool:
            nonlocal before
            health = get(f"http://127.0.0.1:{self.port}/health")
            now = (health["processes"], health["turns"])
            same, before = now == before, now
            return same and not now[0]["starting"] and not now[1]["running"]

        wait(still, pause=0.2)
        time.sleep(0.5)


class Peer(Program):
    """The proxy from npm."""

    name = "peer"

    def __init__(self, directory: Path, cache: Path, claude: str, upstream: str) -> None:
        self.port = free_port()
        folder = directory / "bin"
        folder.mkdir()
        (folder / "claude").symlink_to(os.path.realpath(claude))
        environ = {
            **_private(directory),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "ANTHROPIC_BASE_URL": upstream,
            "ANTHROPIC_API_KEY": "any",
            # To its advantage: nothing goes to the Internet beside the turn.
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        program = cache / "peer/node_modules/claude-max-api-proxy/dist/server/standalone.js"
        work = directory / "work"
        work.mkdir()
        super().__init__(["node", str(program), str(self.port)], environ, work, directory / "log")
        wait(lambda: get(f"http://127.0.0.1:{self.port}/health")["status"] == "ok")

    def settle(self) -> None:
        """Its processes end with their turns."""
        time.sleep(0.5)


class Bare(Program):
    """A CLI that has started up, and is spoken to by hand: nothing can be faster with it."""

    def __init__(
        self, directory: Path, claude: str, upstream: str, *, braked: bool = False
    ) -> None:
        """``braked``: whether each turn is put under the brake, as the daemon does it."""
        self._braked = braked
        there = launch.Upstream(upstream, "any", str(directory))
        environ = launch.environment({**_private(directory)}, there)
        super().__init__([claude, *launch.ARGUMENTS], environ, directory)
        self._say(_control("ready", {"subtype": "list_models"}))
        self._until(b'"control_response"')
        self._lines: list[str] = []

    def first(self, system: str, text: str) -> float:
        """Seconds to the first content of a conversation's first turn."""
        setup = {"subtype": "initialize", "systemPrompt": [system]}
        flags = {"subtype": "apply_flag_settings", "settings": {"model": "sonnet"}}
        return self._turn(_control("setup", setup) + _control("flags", flags), text)

    def next(self, text: str) -> float:
        """The same of a further turn."""
        return self._turn(b"", text)

    def rewound(self, text: str) -> float:
        """The same of another conversation, the one before being taken back first."""
        began = time.perf_counter()
        rewind = {
            "subtype": "rewind_conversation",
            "target_message_uuid": self._lines[0],
            "last_seen_user_message_uuid": self._lines[-1],
        }
        self._say(_control("rewind", rewind))
        self._lines.clear()
        self._until(b'"rewound":true')
        return time.perf_counter() - began + self._turn(b"", text)

    def _turn(self, before: bytes, text: str) -> float:
        content = [{"type": "text", "text": text}]
        self._lines.append(str(uuid4()))
        line = {
            "uuid": self._lines[-1],
            "type": "user",
            "client_composed": True,
            "message": {"role": "user", "content": content},
            "parent_tool_use_id": None,
            "session_id": "",
        }
        began = time.perf_counter()
        self._say(before + json.dumps(line).encode() + b"\n")
        if self._braked:
            self._until(b'"status":"requesting"')
            self._flags("brake", BRAKE)
        self._until(b'"content_block_delta"')
        took = time.perf_counter() - began
        self._until(b'"type":"result"')
        if self._braked:
            self._flags("release", {"env": RELEASE})
        return took

    def _flags(self, ident: str, settings: dict[str, Any]) -> None:
        self._say(_control(ident, {"subtype": "apply_flag_settings", "settings": settings}))

    def _say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def _until(self, mark: bytes) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if mark in line:
                return
        raise RuntimeError("the CLI has ended")


def install_peer(cache: Path) -> str | None:
    """Fetch the peer; what is in the way, if something is."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "there is no Node.js with npm here"
    folder = cache / "peer"
    if (folder / "node_modules/claude-max-api-proxy").exists():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), PEER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"npm cannot install it: {done.stderr[-200:]}"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(condition: Callable[[], bool], seconds: float = 120.0, pause: float = 0.1) -> None:
    """Wait until something holds; what is raised means not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError, KeyError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError("it did not happen in time")
        time.sleep(pause)


def _control(ident: str, request: dict[str, Any]) -> bytes:
    line = {"type": "control_request", "request_id": ident, "request": request}
    return json.dumps(line).encode() + b"\n"


def _private(directory: Path) -> dict[str, str]:
    return {"HOME": str(directory), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
