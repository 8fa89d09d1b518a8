"""The installed CLI and its processes, over the CLI's double."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from harness import until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from claudeproxy.cli import installation as module
from claudeproxy.cli.installation import Installation
from claudeproxy.cli.launch import CLIError
from claudeproxy.cli.login import LOCK, LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import GRACE, GRACE_LOGIN, CLIProcess
from claudeproxy.testing import fake_cli, journal


class Nobody:
    """An owner that does nothing with its processes."""

    def __init__(self) -> None:
        self.up: Deferred[None] = Deferred()

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        self.up.callback(None)

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        pass

    def rested(self, process: CLIProcess) -> None:
        pass

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        pass

    def sizes(self, tokens: Mapping[str, int]) -> None:
        pass

    def process_ended(self, process: CLIProcess) -> None:
        pass


@pytest_twisted.async_yield_fixture
async def installed(tmp_path: Path) -> Any:
    """``installed(**plan)``: the double, installed and ready to start."""
    opened: list[Installation] = []

    def install(**plan: Any) -> Installation:
        claude = fake_cli(tmp_path / "cli", **plan)
        made = Installation(reactor, claude, "2.1.330", str(tmp_path / "work"))
        made.environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        made.open()
        opened.append(made)
        return made

    yield install
    for one in opened:
        await one.close()


@ensureDeferred
async def test_whose_login_it_uses(installed: Any, tmp_path: Path) -> None:
    cli = installed()
    there = await cli.login()
    assert there.logged_in
    fake_cli(tmp_path / "cli", logged_in=False)
    nobody = await cli.login()
    assert not nobody.logged_in and nobody.account != there.account
    assert "turn" not in journal(cli.executable), "no quota is spent"


@pytest.mark.parametrize("plan", [{"start": "exit"}, {"ready": "exit"}, {"setup": "exit"}])
@ensureDeferred
async def test_one_that_does_not_say(installed: Any, plan: Any) -> None:
    assert await installed(**plan).login() is None


@ensureDeferred
async def test_one_that_takes_too_long_to_say(
    installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER", 0.3)
    assert await installed(setup="silence").login() is None


@ensureDeferred
async def test_one_that_is_gone_cannot_say(installed: Any) -> None:
    cli = installed()
    os.unlink(cli.executable)
    with pytest.raises(CLIError, match="it is gone from"):
        await cli.login()


def test_a_login_that_is_stored_is_noticed_once(tmp_path: Path) -> None:
    cli = Installation(reactor, "/nowhere/claude", "2.1.330", str(tmp_path))
    cli.environment = {"CLAUDE_CONFIG_DIR": str(tmp_path)}
    assert not cli.login_was_stored()
    (tmp_path / ".credentials.json").write_text("{}")
    assert cli.login_was_stored()
    assert not cli.login_was_stored()
    (tmp_path / ".credentials.json").unlink()
    assert cli.login_was_stored()


def test_the_grace_is_long_where_a_login_is_at_stake(tmp_path: Path) -> None:
    cli = Installation(reactor, "/nowhere/claude", "2.1.330", str(tmp_path))
    assert cli.grace == GRACE
    cli.holds_login = True
    assert cli.grace == GRACE_LOGIN


@ensureDeferred
async def test_an_updated_one_is_noticed(installed: Any, tmp_path: Path) -> None:
    cli = installed()
    assert not await cli.changed()
    updated = tmp_path / "new"
    updated.write_bytes(Path(cli.executable).read_bytes())
    updated.chmod(0o755)
    fake_cli(tmp_path / "cli", version="2.1.400 (Claude Code)")
    updated.replace(cli.executable)
    assert await cli.changed()
    assert cli.version == "2.1.400"
    assert not await cli.changed()


@ensureDeferred
async def test_one_that_is_too_old_now_starts_nothing(installed: Any, tmp_path: Path) -> None:
    cli = installed()
    fake_cli(tmp_path / "cli", version="2.1.1 (Claude Code)")
    os.utime(cli.executable, (1, 1))
    assert await cli.changed()
    with pytest.raises(CLIError, match="older than"):
        cli.spawn(Nobody())
    fake_cli(tmp_path / "cli")
    os.utime(cli.executable, (2, 2))
    assert await cli.changed()
    assert (await cli.login()).logged_in


@ensureDeferred
async def test_running_processes_are_struck_off_the_list_of_sessions(
    installed: Any, tmp_path: Path
) -> None:
    """The double makes no entry; the contract tests see that the CLI makes its own only once."""
    cli, owner = installed(), Nobody()
    process = cli.spawn(owner)
    pid = process.transport.pid
    sessions = tmp_path / ".claude" / "sessions"
    sessions.mkdir(parents=True)
    for name in (f"{pid}.json", f"{pid}.ab.key", f"{pid}1.json", "other.json"):
        (sessions / name).write_text("{}")
    await owner.up
    assert sorted(os.listdir(sessions)) == [f"{pid}1.json", "other.json"]
    (sessions / f"{pid}.json").write_text("{}")  # it was late
    cli.unlist()
    assert sorted(os.listdir(sessions)) == [f"{pid}1.json", "other.json"]
    process.stop()
    await process.ended


@pytest.mark.parametrize("killed", [False, True])
@ensureDeferred
async def test_only_what_was_killed_is_struck_off_the_list_of_sessions(
    installed: Any, tmp_path: Path, killed: bool
) -> None:
    """One that ends by itself does so on its own, and its number may be another's by then."""
    cli, owner = installed(), Nobody()
    process = cli.spawn(owner)
    await owner.up
    pid = process.transport.pid
    sessions = tmp_path / ".claude" / "sessions"
    sessions.mkdir(parents=True)
    names = [f"{pid}.json", f"{pid}.ab.key", f"{pid}1.json", "other.json"]
    for name in names:
        (sessions / name).write_text("{}")
    if killed:
        process.kill()
    else:
        process.stop()
    await process.ended
    assert sorted(os.listdir(sessions)) == sorted(names[2:] if killed else names)


@ensureDeferred
async def test_one_process_waits_for_the_renewal_of_another(installed: Any, tmp_path: Path) -> None:
    cli, owner = installed(), Nobody()
    cli.holds_login = True
    (tmp_path / ".claude" / LOCK).mkdir(parents=True)
    process = cli.spawn(owner)
    await owner.up
    process.stop()
    ended: list[bool] = []
    process.ended.addCallback(lambda _: ended.append(process.killed))
    later: Deferred[None] = Deferred()
    reactor.callLater(0.4, later.callback, None)  # type: ignore[attr-defined]
    await later
    assert ended == []
    (tmp_path / ".claude" / LOCK).rmdir()
    await until(lambda: ended == [False])
