"""``claudemax status``, of a daemon that runs, and of none."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import in_thread
from pytest_twisted import ensureDeferred
from shell import Command, free_port

from claudeproxy.command.service import systemd
from claudeproxy.testing import fake_cli

HELLO = [{"role": "user", "content": "Hello"}]


def port_of(daemon: Any) -> str:
    return str(daemon.port[0].getHost().port)


@pytest.mark.cli
@ensureDeferred
async def test_of_a_subscription(make_daemon: Any, command: Command) -> None:
    daemon = await make_daemon(mode="subscription")
    await daemon.chat(HELLO)
    ran = await in_thread(command.run, "status", "--port", port_of(daemon))
    assert (ran.returncode, ran.stderr) == (0, "")
    said = " ".join(ran.stdout.split())
    assert f"Daemon http://localhost:{port_of(daemon)} ok CLI claude 2.1." in said
    assert "Login your subscription" in said and "Turns 0 running, 0 waiting" in said
    assert re.search(r"Processes \d warm, 1 kept, \d starting", said)
    assert f"Config {command.home}/.config/claudemax/config.toml" in said
    assert re.search(r"five hour 25 % █{5} [34] h \d\d min seven day 50 % █{10} [45] d \d+ h", said)


@ensureDeferred
async def test_of_one_that_records(make_daemon: Any, command: Command, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), record=str(tmp_path / "r"))
    ran = await in_thread(command.run, "status", "--port", port_of(daemon))
    assert "RECORDING  every prompt and every answer is written to disk" in ran.stdout


@ensureDeferred
async def test_of_one_that_a_service_runs(
    make_daemon: Any, command: Command, cli_script: Callable[[str], str], tmp_path: Path
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    folder = Path(cli_script("exit 0")).parent
    (folder / "claude").rename(folder / "systemctl")
    command.variables["PATH"] = f"{folder}:/usr/bin:/bin"
    command.variables["CLAUDEMAX_PORT"] = port_of(daemon)
    assert "Log" not in (await in_thread(command.run, "status")).stdout.split()
    unit = command.home / ".config" / "systemd" / "user" / "claudemax.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(systemd.MARK)
    said = (await in_thread(command.run, "status")).stdout
    assert "Log claudemax logs" in " ".join(said.split())
    told = json.loads((await in_thread(command.run, "status", "--json")).stdout)
    assert told["log"] == "claudemax logs"
    # That of another daemon is not the service's.
    said = (await in_thread(command.run, "status", "--port", port_of(daemon))).stdout
    assert "Log" not in said.split()


@ensureDeferred
async def test_what_was_refused(make_daemon: Any, command: Command, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    port = ("--port", port_of(daemon))
    ran = await in_thread(command.run, "status", "--refused", *port)
    assert ran.stdout == "No request was refused since the daemon started.\n"
    assert "Refused" not in (await in_thread(command.run, "status", *port)).stdout
    await daemon.post("/v1/[bold]", {}, **{"user-agent": "[red]x"})
    await daemon.chat([{"role": "\x1b[0m", "content": "SECRET"}], **{"a[b]\n": 1})
    await daemon.post("/v1/messages", b"SECRET")
    ran = await in_thread(command.run, "status", *port)
    said = " ".join(ran.stdout.split())
    assert "3 requests were refused, the last just now: claudemax status --refused" in said
    ran = await in_thread(command.run, "status", "--refused", *port)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [
        re.sub(r"^\d\d:\d\d:\d\d|req_\w+", "", line).strip() for line in ran.stdout.splitlines()
    ]
    assert lines[0] == "POST /v1/%5Bbold%5D  404 not_found unknown_url"
    assert lines[1].startswith("because there is no /v1/%5Bbold%5D here;")
    assert lines[lines.index("from [red]x") :] == [
        "from [red]x",
        "id",
        "POST /v1/chat/completions  400 invalid",
        "field messages[0].role",
        "body 101 bytes with model, messages, a[b]?",
        "from a client that gives no name",
        "id",
        "POST /v1/messages  400 invalid",
        "body 6 bytes, not a JSON object",
        "from a client that gives no name",
        "id",
    ]
    ran = await in_thread(command.run, "status", "--refused", "--json", *port)
    assert [one["status"] for one in json.loads(ran.stdout)] == [400, 400, 404]
    ran = await in_thread(command.run, "status", "--json", *port)
    assert len(json.loads(ran.stdout)["refused"]) == 3


@ensureDeferred
async def test_of_one_with_a_key_on_a_socket(
    make_daemon: Any, command: Command, tmp_path: Path
) -> None:
    """The settings lead there, and the key file lets it in."""
    from twisted.internet import reactor

    keys = tmp_path / "keys"
    keys.write_text(
        "# two\nold: gone expires=2020-01-01\nlaptop: s3cret reserve=five_hour=10\nphone: other\n"
    )
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    path = tmp_path / "socket"
    listening = reactor.listenUNIX(str(path), daemon.api.site)  # type: ignore[attr-defined]
    try:
        folder = command.home / ".config" / "claudemax"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(f'port = "unix:{path}"\napi-key-file = "{keys}"\n')
        ran = await in_thread(command.run, "status", "--json")
        told = json.loads(ran.stdout)
        assert (ran.returncode, told["running"], told["address"]) == (0, True, f"unix:{path}")
        assert told["health"]["cli_version"] and told["usage"]["plan"] is False
        (tmp_path / "others").write_text("another\n")
        other = f'port = "unix:{path}"\napi-key-file = "{tmp_path}/others"\n'
        (folder / "config.toml").write_text(other)
        ran = await in_thread(command.run, "status")
        assert (ran.returncode, ran.stderr) == (
            1,
            f"claudemax: unix:{path} wants another key: name the daemon's key file in "
            "CLAUDEMAX_API_KEY_FILE\n",
        )
        ran = await in_thread(command.run, "status", "--json")
        told = json.loads(ran.stdout)
        assert (ran.returncode, told["running"]) == (1, True) and "another key" in told["why"]
        command.variables["CLAUDEMAX_API_KEY_FILE"] = str(keys)
        assert (await in_thread(command.run, "status")).returncode == 0
    finally:
        await listening.stopListening()


@pytest.mark.parametrize("name", ["status", "usage"])
def test_of_none(refused: Callable[..., str], name: str) -> None:
    port = free_port()
    assert refused(name, "--port", str(port)) == (
        f"nothing answers at http://localhost:{port}; start it with `claudemax`"
    )


def test_of_none_for_machines(command: Command) -> None:
    ran = command.run("status", "--json", "--port", str(free_port()))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert json.loads(ran.stdout)["running"] is False


@contextmanager
def another_server(body: bytes, code: int = 200) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"<html>", 200), (b"[]", 200), (b'{"status": "fine"}', 200), (b"<html>", 401), (b"{}", 401)],
)
@pytest.mark.parametrize("name", ["status", "usage"])
def test_of_something_else(refused: Callable[..., str], body: bytes, code: int, name: str) -> None:
    with another_server(body, code) as port:
        said = refused(name, "--port", str(port))
    assert said.startswith(f"what answers at http://localhost:{port} is not claudemax (")
