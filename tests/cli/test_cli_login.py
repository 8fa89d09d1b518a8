"""The login that the CLI uses, as the CLI tells of it and as its files do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudeproxy.cli import login
from claudeproxy.cli.login import (
    LoginStatus,
    advice,
    config_directory,
    parse_account,
    renewing,
    trace,
)

ACCOUNT = {"tokenSource": "claude.ai", "email": "a@b.example", "subscriptionType": "max"}


@pytest.mark.parametrize("account", [None, 5, "x", [], True])
def test_nothing_is_told(account: object) -> None:
    assert parse_account(account) is None


@pytest.mark.parametrize(
    ("account", "logged_in"),
    [
        (ACCOUNT, True),
        ({"tokenSource": "CLAUDE_CODE_OAUTH_TOKEN"}, True),
        ({"tokenSource": "none"}, False),
        ({"tokenSource": "none", "email": "a@b.example"}, False),
    ],
)
def test_whether_somebody_is_logged_in(account: object, logged_in: bool) -> None:
    status = parse_account(account)
    assert status is not None
    assert status.logged_in is logged_in


def test_another_account_is_told_apart_and_none_is_told_by_name() -> None:
    status = parse_account(ACCOUNT)
    assert status == parse_account({**ACCOUNT, "apiProvider": "changes nothing"})
    assert isinstance(status, LoginStatus)
    for change in (
        {"email": "b@b.example"},
        {"tokenSource": "x"},
        {"subscriptionType": "pro"},
        {"organization": "another"},
    ):
        other = parse_account({**ACCOUNT, **change})
        assert other is not None and other.account != status.account
    assert "example" not in status.account


def test_the_remedy_names_the_cli_that_runs() -> None:
    said = advice("/opt/my tools/claude", {})
    assert said.renewable
    assert "`'/opt/my tools/claude' auth login`" in said.remedy


def test_the_remedy_for_a_token_of_the_environment() -> None:
    said = advice("/usr/bin/claude", {"CLAUDE_CODE_OAUTH_TOKEN": "secret"})
    assert not said.renewable
    assert "`/usr/bin/claude setup-token`" in said.remedy
    assert "CLAUDE_CODE_OAUTH_TOKEN" in said.remedy and "restart" in said.remedy
    assert "secret" not in said.remedy


def test_where_the_cli_keeps_its_configuration() -> None:
    assert config_directory({"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c"}) == "/c"
    assert config_directory({"HOME": "/h"}) == "/h/.claude"
    assert config_directory({}) == os.path.expanduser("~/.claude")


@pytest.mark.parametrize("place", ["HOME", "CLAUDE_CONFIG_DIR"])
def test_the_trace_of_a_login_on_disk(tmp_path: Path, place: str) -> None:
    environment = {place: str(tmp_path)}
    folder = tmp_path / ".claude" if place == "HOME" else tmp_path
    folder.mkdir(exist_ok=True)
    assert trace(environment) is None
    path = folder / ".credentials.json"
    path.write_text("1")
    first = trace(environment)
    assert first is not None
    assert trace(environment) == first
    new = folder / "new"  # put in its place, as the CLI does
    new.write_text("1")
    os.utime(new, ns=(first[0], first[0]))
    new.replace(path)
    second = trace(environment)
    assert second not in (None, first)
    os.utime(path, ns=(0, first[0] + 1))
    assert trace(environment) not in (None, second)
    path.unlink()
    assert trace(environment) is None


def test_a_renewal_shows_by_the_clis_own_lock(tmp_path: Path) -> None:
    environment = {"CLAUDE_CONFIG_DIR": str(tmp_path)}
    lock = tmp_path / login.LOCK
    assert not renewing(environment, 1000.0)
    lock.mkdir()
    os.utime(lock, (1000, 1000))
    assert renewing(environment, 1000.0)
    assert renewing(environment, 1000.0 + login.STALE - 1)
    assert not renewing(environment, 1000.0 + login.STALE), "left by a CLI that was killed"
    lock.rmdir()
    assert not renewing(environment, 1000.0)
