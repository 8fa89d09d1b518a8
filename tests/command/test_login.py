"""``claudemax login``: the CLI's own login, and where a token goes."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from shell import Command

from claudeproxy.command.login import keep_token, own_environment

pytestmark = pytest.mark.cli

CLI = """
echo "ran: $*"; env | grep -E '^(ANTHROPIC|CLAUDE)' | sed 's/^/env: /'
case "$1" in
  auth|setup-token) read answer; printf %s "$answer" > "$HOME/answered"; exit "${answer:-0}";;
  *) while read line; do
       echo '{"type":"control_response","response":{"subtype":"success","request_id":"whose",\
"response":{"account":{"tokenSource":"'$(test -s "$HOME/answered" && echo x || echo none)'"}}}}'
     done;;
esac
"""
"""A CLI that logs in by a line that is typed, which it then exits with."""


def test_it_runs_the_clis_own_login_and_waits(command: Command, cli_script: Any) -> None:
    claude = cli_script(CLI)
    command.variables["ANTHROPIC_API_KEY"] = "k"  # would lead the login elsewhere
    shown = command.terminal("login", "--claude", claude)
    shown.until("ran: auth login")
    assert shown.child.isalive()
    shown.child.sendline("0")
    shown.until("You are logged in.")
    assert shown.end() == 0
    assert "env:" not in shown.text


def test_a_login_that_fails(command: Command, cli_script: Any) -> None:
    claude = cli_script(CLI)
    shown = command.terminal("login", "--claude", claude)
    shown.until("ran: auth login")
    shown.child.sendline("3")
    assert shown.end() == 1
    assert shown.lines[-1] == f"claudemax: `{claude} auth login` ended with status 3"


def test_a_login_that_comes_to_nothing(command: Command, cli_script: Any) -> None:
    shown = command.terminal("login", "--claude", cli_script(CLI))
    shown.until("ran: auth login")
    shown.child.sendline("")
    assert shown.end() == 1
    assert shown.lines[-1] == "claudemax: the CLI still finds no login"


def test_an_interrupt_is_the_clis_to_obey(command: Command, cli_script: Any) -> None:
    """Ended by us it could lose the login that it is about to keep."""
    script = cli_script("trap 'sleep 0.3; touch \"$HOME/ended\"; exit 4' INT\necho ready; sleep 30")
    shown = command.terminal("login", "--claude", script)
    shown.until("ready")
    shown.child.sendintr()
    assert shown.end() == 1
    assert (command.home / "ended").exists()


def test_a_cli_that_ends_by_the_interrupt(command: Command, cli_script: Any) -> None:
    shown = command.terminal("login", "--claude", cli_script("echo ready; exec sleep 30"))
    shown.until("ready")
    shown.child.sendintr()
    assert shown.end() == 130
    assert "claudemax:" not in shown.text


def test_a_token_is_kept_for_the_service_alone(command: Command, cli_script: Any) -> None:
    path = command.home / ".config" / "claudemax" / "service.env"
    path.parent.mkdir(parents=True)
    path.write_text("CLAUDE_CODE_OAUTH_TOKEN=old\nTZ=UTC\n")
    path.chmod(0o644)
    shown = command.terminal("login", "--token", "--claude", cli_script(CLI))
    shown.until("ran: setup-token")
    shown.child.sendline("0")
    shown.until("Paste it")
    shown.child.waitnoecho()
    shown.child.sendline("sk-ant-oat01-made-up")
    shown.until("Kept.")
    assert shown.end() == 0
    assert "sk-ant-oat01" not in shown.text
    assert path.read_text() == "TZ=UTC\nCLAUDE_CODE_OAUTH_TOKEN=sk-ant-oat01-made-up\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = [file for file in command.home.rglob("*") if file.is_file()]
    assert [file for file in found if b"sk-ant" in file.read_bytes()] == [path]


@pytest.mark.parametrize(("typed", "says"), [("", "Not kept."), ("two words", "that is no token")])
def test_a_token_that_is_not_kept(command: Command, cli_script: Any, typed: str, says: str) -> None:
    shown = command.terminal("login", "--token", "--claude", cli_script(CLI))
    shown.until("ran: setup-token")
    shown.child.sendline("0")
    shown.until("Paste it")
    shown.child.waitnoecho()
    shown.child.sendline(typed)
    shown.until(says)
    assert shown.end() == (1 if typed else 0)
    assert not (command.home / ".config").exists()


def test_what_else_is_in_the_file_stays_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "service.env"
    path.write_bytes(b"NAME=caf\xe9\n")
    keep_token(path, "token")
    assert path.read_bytes() == b"NAME=caf\xe9\nCLAUDE_CODE_OAUTH_TOKEN=token\n"


def test_without_a_terminal_nothing_is_run(command: Command, cli_script: Any) -> None:
    said = command.refusal("login", "--claude", cli_script('touch "$HOME/ran"'))
    assert said == "a login needs a terminal: run `claudemax login` in one"
    assert not (command.home / "ran").exists()


def test_what_the_login_does_not_see() -> None:
    stray = {"ANTHROPIC_API_KEY": "k", "CLAUDE_CODE_OAUTH_TOKEN": "t", "CLAUDECODE": "1"}
    kept = {"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c", "DISPLAY": ":0"}
    assert own_environment({**stray, **kept}) == kept
