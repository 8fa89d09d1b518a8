"""The files in packaging/ and examples/, by what reads them."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import pytest
from harness import newest_cli
from programs import HELLO, fetch, free_port_number, running

from claudeproxy.options import load

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
TWISTD = str(Path(sys.executable).with_name("twistd"))


def unit(name: str) -> dict[str, list[str]]:
    """Every ``Key=`` of a unit and its values."""
    found: dict[str, list[str]] = {}
    for line in (PACKAGING / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_hands_over_the_socket_the_daemon_asks_for() -> None:
    listens = unit("claudemax@.socket")
    variable = unit("claudemax@.service.d/socket.conf")["Environment"][0]
    name, _, value = variable.partition("=")
    (endpoint,) = load({}, {name: value}).port
    assert endpoint == f"systemd:domain=INET:name={listens['FileDescriptorName'][0]}"
    assert listens["ListenStream"] == ["127.0.0.1:3456"]


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


def demo(**more: str) -> dict[str, str]:
    """The environment of a daemon of this tree with the demo."""
    return {
        "PYTHONPATH": str(ROOT),
        "CLAUDEMAX_DEMO": "1",
        "CLAUDEMAX_CLAUDE": newest_cli(),
        "CLAUDEMAX_WARM": "1",
        **more,
    }


@pytest.mark.cli
def test_embedding_example(tmp_path: Path) -> None:
    port = free_port_number()
    tac = str(ROOT / "examples" / "embedding.tac")
    environ = demo(LISTEN=f"tcp:{port}:interface=127.0.0.1")
    with running([TWISTD, "--pidfile=", "-ny", tac], tmp_path, environ=environ):
        url = f"http://localhost:{port}"
        assert fetch(url) == b"A page of our own.\n"
        assert json.loads(fetch(url + "/claude/health"))["upstream"] == "demo"
        answer = json.loads(fetch(url + "/claude/v1/chat/completions", HELLO))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"
        large = {**HELLO, "user": "x" * 1_000_000}  # which twisted.web would put on disk
        answer = json.loads(fetch(url + "/claude/v1/chat/completions", large))
        assert answer["choices"][0]["message"]["content"] == "You said: Hello"


@pytest.mark.cli
def test_socket_from_systemd(tmp_path: Path) -> None:
    """As systemd does it: the socket is descriptor 3, and LISTEN_PID is the daemon's own."""
    (variable,) = unit("claudemax@.service.d/socket.conf")["Environment"]
    name, _, value = variable.partition("=")
    environ = demo(LISTEN_FDNAMES="claudemax", **{name: value})
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
