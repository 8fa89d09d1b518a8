"""The files in packaging/ and examples/, by what reads them."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from harness import newest_cli

from claudeproxy.options import Settings, load
from claudeproxy.service import LAST_BYTES

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
TWISTD = str(Path(sys.executable).with_name("twistd"))
HELLO = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}
GOODBYE = Settings().drain + LAST_BYTES
"""Seconds that the daemon may take to stop."""


def unit(name: str) -> dict[str, list[str]]:
    """Every ``Key=`` of a unit and its values."""
    found: dict[str, list[str]] = {}
    for line in (PACKAGING / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_waits_for_the_drain() -> None:
    service = unit("claudemax@.service")
    assert GOODBYE < float(service["TimeoutStopSec"][0]) < GOODBYE + 15
    assert service["KillMode"] == ["mixed"]
    assert service["User"] == ["%i"]


def test_systemd_hands_over_the_socket_the_daemon_asks_for() -> None:
    listens = unit("claudemax@.socket")
    variable = unit("claudemax@.service.d/socket.conf")["Environment"][0]
    name, _, value = variable.partition("=")
    (endpoint,) = load({}, {name: value}).port
    assert endpoint == f"systemd:domain=INET:name={listens['FileDescriptorName'][0]}"
    assert listens["ListenStream"] == ["127.0.0.1:3456"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_its_units(tmp_path: Path) -> None:
    user = "root"  # the only one there is everywhere
    service = tmp_path / f"claudemax@{user}.service"
    shutil.copy(PACKAGING / "claudemax@.service", service)
    listens = tmp_path / f"claudemax@{user}.socket"
    shutil.copy(PACKAGING / "claudemax@.socket", listens)
    drop_in = tmp_path / f"claudemax@{user}.service.d"
    shutil.copytree(PACKAGING / "claudemax@.service.d", drop_in)
    ran = subprocess.run(
        ["systemd-analyze", "verify", service, listens],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = [line for line in ran.stderr.splitlines() if "claudemax" in line]
    assert (ran.returncode, ours) == (0, [])
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", service],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unrecognized option" in ran.stderr:
        pytest.skip("this systemd cannot judge a file")
    score = re.search(r"exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert score is not None
    assert float(score[1]) <= 2.0


def test_launchd_waits_for_the_drain() -> None:
    agent = plistlib.loads((PACKAGING / "com.claude-max-api.plist").read_bytes())
    assert agent["Label"] == "com.claude-max-api"
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert GOODBYE < agent["ExitTimeOut"] < GOODBYE + 15
    assert agent["Umask"] == 0o077
    shell, option, command = agent["ProgramArguments"]
    assert (shell, option) == ("/bin/sh", "-c")
    assert subprocess.run([shell, "-n", option, command], check=False).returncode == 0


@pytest.mark.parametrize("file", ["claudemax@.service", "com.claude-max-api.plist"])
def test_what_service_files_run(file: str, tmp_path: Path) -> None:
    """Their own command line, with a twistd that tells what it was called with."""
    if file.endswith(".plist"):
        command = plistlib.loads((PACKAGING / file).read_bytes())["ProgramArguments"][2]
    else:
        found = re.fullmatch(r"/bin/sh -c '(.*)'", unit(file)["ExecStart"][0])
        assert found is not None
        assert not re.search(r"(?<!\$)\$(?!\$)", found[1])  # systemd would replace it
        command = found[1].replace("$$", "$")
    twistd = tmp_path / ".local" / "share" / "claudemax" / "bin" / "twistd"
    twistd.parent.mkdir(parents=True)
    twistd.write_text('#!/bin/sh\nprintf "%s\\n" "$PATH" "$*"\n')
    twistd.chmod(0o755)
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.check_output(["/bin/sh", "-c", command], env=environ, text=True)
    path, arguments = said.splitlines()
    assert path.startswith(f"{tmp_path}/.local/bin:")
    assert path.endswith(":/usr/bin:/bin")
    assert arguments.startswith("-n --pidfile= ")
    assert arguments.endswith(" claudemax")


def test_container_serves_only_with_a_key() -> None:
    text = (PACKAGING / "Containerfile").read_text()
    variables = dict(re.findall(r"(CLAUDEMAX_\w+)=(\S+)", text))
    settings = load({}, variables)
    assert settings.port == ("tcp:3456",)
    assert settings.api_key_file is not None
    assert "\nUSER claude\n" in text


def test_packaging_is_no_package() -> None:
    assert not list(PACKAGING.rglob("__init__.py"))


# -- run for real --


def free_port_number() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], home: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program with the demo in its environment; it must end well when it is told to."""
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "CLAUDEMAX_DEMO": "1",
        "CLAUDEMAX_CLAUDE": newest_cli(),
        "CLAUDEMAX_WARM": "1",
        **more.pop("environ", {}),
    }
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


def test_embedding_example(tmp_path: Path) -> None:
    port = free_port_number()
    tac = str(ROOT / "examples" / "embedding.tac")
    listen = {"LISTEN": f"tcp:{port}:interface=127.0.0.1"}
    with running([TWISTD, "--pidfile=", "-ny", tac], tmp_path, environ=listen):
        url = f"http://localhost:{port}"
        assert fetch(url) == b"A page of our own.\n"
        assert json.loads(fetch(url + "/claude/health"))["upstream"] == "demo"
        answer = json.loads(fetch(url + "/claude/v1/chat/completions", HELLO))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"


def test_socket_from_systemd(tmp_path: Path) -> None:
    """As systemd does it: the socket is descriptor 3, and LISTEN_PID is the daemon's own."""
    (variable,) = unit("claudemax@.service.d/socket.conf")["Environment"]
    name, _, value = variable.partition("=")
    environ = {name: value, "LISTEN_FDNAMES": "claudemax"}
    become = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        daemon = [TWISTD, "-n", "--pidfile=", "claudemax"]
        command = [sys.executable, "-c", become, str(number), *daemon]
        with running(command, tmp_path, environ=environ, pass_fds=[number]):
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
            assert b"You said: Hello" in fetch(url, HELLO)
