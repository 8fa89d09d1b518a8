"""The CLI fails before it is asked anything: not there, too old, not starting, dying while warm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, settings, until
from matrix import all_is_well, ask, cases, fault
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from claudeproxy.engine import starts
from claudeproxy.options import ConfigError
from claudeproxy.service import Claudemax
from claudeproxy.testing import fake_cli, journal


async def health(daemon: Daemon) -> Any:
    return await treq.json_content(await treq.get(daemon.url + "/health"))


@cases(
    "CLI",
    ("exits at its start", "503 after three tries; the tries go on, ever slower; /health tells",
     {"start": "exit"}),
    ("crashes at its start", "503 after three tries", {"start": "crash"}),
    ("never starts up", "ended at the start-up limit; 503 after three tries",
     {"start": "silence"}),
    ("prints half a message at its start", "ended; 503 after three tries", {"start": "broken"}),
    ("closes stdout at its start, but lives", "ended; 503 after three tries",
     {"start": "deaf"}),
    ("exits when asked for its models", "503 after three tries", {"ready": "exit"}),
    ("refuses to tell its models", "ended; 503 after three tries", {"ready": "refuse"}),
)  # fmt: skip
@ensureDeferred
async def test_it_does_not_start(
    make_daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Any
) -> None:
    monkeypatch.setattr(starts, "START_TIMEOUT", 0.5)
    monkeypatch.setattr(starts, "MAX_BACKOFF", 0.3)
    claude = fake_cli(tmp_path / "cli", **case[0])
    daemon = await make_daemon(claude=claude)
    reply = await ask(daemon, "x")
    assert (reply.status, reply.whole) == (503, False)
    assert "the Claude CLI does not start" in reply.error["message"]
    told = await health(daemon)
    assert told["status"] == "degraded"
    assert told["processes"]["failed_starts"] >= 3
    assert (await treq.get(daemon.url + "/health")).code == 503
    monkeypatch.setattr(starts, "START_TIMEOUT", 60.0)
    fake_cli(tmp_path / "cli")
    await until(lambda: daemon.api.engine.keeper.unused)
    assert (await health(daemon))["status"] == "ok"
    await all_is_well(daemon)


@cases(
    "CLI",
    ("starts slowly", "the request waits for it", {"start": "sleep 1"}),
    ("floods stderr at its start", "nothing", {"start": "stderr"}),
    ("prints unknown messages at its start", "nothing", {"start": "unknown"}),
    ("prints empty lines at its start", "nothing", {"start": "nothing"}),
    ("prints nonsense at its start", "the line is passed over, and counted in the log",
     {"start": "prose"}),
    ("prints an array at its start", "the line is passed over, and counted", {"start": "array"}),
    ("prints noise at its start", "the line is passed over, and counted", {"start": "noise"}),
    ("ignores the end of stdin", "nothing; it is killed after the grace", {"start": "stubborn"}),
    ("ignores the end of stdin, and so does its child", "nothing; both are killed after the grace",
     {"start": "stubborn", "ready": "child"}),
    ("takes no notice of its set-up", "nothing", {"setup": "unknown"}),
)  # fmt: skip
@ensureDeferred
async def test_nobody_notices_at_its_start(make_daemon: Any, tmp_path: Path, case: Any) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", **case[0]))
    reply = await ask(daemon, "x")
    assert (reply.status, reply.text) == (200, "You said: x")
    await all_is_well(daemon)


@fault("CLI", "dies while it waits", "it is replaced, and nobody notices")
@ensureDeferred
async def test_it_dies_while_it_waits(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    await until(lambda: daemon.api.engine.keeper.unused)
    (process,) = daemon.api.engine.processes
    os.kill(process.transport.pid, 9)
    await until(lambda: process not in daemon.api.engine.processes)
    await all_is_well(daemon)


@fault("CLI", "always dies while it waits", "the starts become ever slower; /health tells")
@ensureDeferred
async def test_it_always_dies_while_it_waits(make_daemon: Any, tmp_path: Path) -> None:
    claude = fake_cli(tmp_path / "cli", warm="exit")
    daemon = await make_daemon(claude=claude)
    await until(lambda: daemon.api.engine.keeper.failures >= 2)
    assert (await health(daemon))["status"] == "degraded"
    assert journal(claude).count("start") <= 3
    fake_cli(tmp_path / "cli")
    await all_is_well(daemon)


@fault("CLI", "vanishes while the daemon runs", "503, until it is back")
@ensureDeferred
async def test_it_vanishes(make_daemon: Any, tmp_path: Path) -> None:
    claude = Path(fake_cli(tmp_path / "cli"))
    daemon = await make_daemon(claude=str(claude))
    hidden = claude.rename(claude.with_name("hidden"))
    reply = await ask(daemon, "x")
    assert reply.status == 503
    assert "gone" in reply.error["message"]
    hidden.rename(claude)
    await all_is_well(daemon)


@fault("CLI", "becomes a broken file while the daemon runs", "503, until it is whole again")
@ensureDeferred
async def test_it_becomes_a_broken_file(make_daemon: Any, tmp_path: Path) -> None:
    claude = Path(fake_cli(tmp_path / "cli"))
    daemon = await make_daemon(claude=str(claude))
    whole = claude.read_bytes()
    claude.write_bytes(b"\x7fELF nonsense")
    reply = await ask(daemon, "x")
    assert reply.status == 503
    claude.write_bytes(whole)
    await until(lambda: daemon.api.engine.keeper.failures == 0)  # one more may have been starting
    await all_is_well(daemon)


@cases(
    "CLI",
    ("is too old", "the daemon does not start: one line, with the remedy",
     {"version": "2.1.197 (Claude Code)"}, "older than"),
    ("is something else", "the daemon does not start: one line", {"version": "ls 9.4"},
     "is not the Claude CLI"),
    ("tells no version", "the daemon does not start: one line", {"version": ""},
     "is not the Claude CLI"),
)  # fmt: skip
@ensureDeferred
async def test_it_is_refused(tmp_path: Path, case: Any) -> None:
    plan, words = case
    with pytest.raises(ConfigError) as refused:
        Claudemax(reactor, settings(claude=fake_cli(tmp_path, **plan)), {"HOME": str(tmp_path)})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@cases(
    "CLI",
    ("is missing", "the daemon does not start: one line", None, "no Claude CLI"),
    ("is a broken file", "the daemon does not start: one line", b"\x7fELF nonsense",
     "does not run"),
    ("cannot be executed", "the daemon does not start: one line", b"", "no Claude CLI"),
)  # fmt: skip
@ensureDeferred
async def test_it_cannot_be_run(tmp_path: Path, case: Any) -> None:
    content, words = case
    path = tmp_path / "claude"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o755 if content else 0o600)
    with pytest.raises(ConfigError) as refused:
        Claudemax(reactor, settings(claude=str(path)), {"HOME": str(tmp_path)})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@fault("CLI", "is not logged in",
       "401 with the command to type, at once; /health tells; a new login is noticed within "
       "seconds")  # fmt: skip
@ensureDeferred
async def test_it_is_not_logged_in(tmp_path: Path) -> None:
    claude = fake_cli(tmp_path / "cli", logged_in=False)
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    api = Claudemax(reactor, settings(claude=claude), environ)
    api.startService()
    site = reactor.listenTCP(0, api.site, interface="127.0.0.1")  # type: ignore[attr-defined]
    daemon = Daemon(api, None, f"http://127.0.0.1:{site.getHost().port}", None, tmp_path)  # type: ignore[arg-type]
    login = api.engine.quota.login
    await until(lambda: login.works is False)
    started = journal(claude).count("start")
    reply = await ask(daemon, "x")
    assert (reply.status, reply.error["code"]) == (401, "not_logged_in")
    assert f"`{claude} auth login`" in reply.error["message"]
    assert journal(claude).count("start") == started, "it was never asked"
    told = await health(daemon)
    assert (told["status"], told["logged_in"]) == ("degraded", False)
    assert (await treq.get(daemon.url + "/health")).code == 503
    fake_cli(tmp_path / "cli")
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/.credentials.json").write_text("{}")
    await until(lambda: login.works)
    assert (await ask(daemon, "x")).status == 200
    assert (await health(daemon))["status"] == "ok"
    await site.stopListening()
    await api.stopService()
    assert not api.engine.processes
