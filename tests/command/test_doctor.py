"""``claudemax doctor``, over real files, ports and CLIs."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from harness import newest_cli
from shell import Command, free_port

from claudeproxy.command.checks_cli import installed
from claudeproxy.command.doctor import CHECKS
from claudeproxy.selftest.facts import FACTS
from claudeproxy.testing import fake_cli

pytestmark = pytest.mark.cli

TOO_OLD = "echo '2.1.100 (Claude Code)'"


def examine(command: Command, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and every finding by the name of its check."""
    ran = command.run("doctor", "--json", *options)
    told = json.loads(ran.stdout)
    assert told["ok"] == (ran.returncode == 0)
    found = {one["name"]: one for one in told["checks"]}
    assert list(found) == list(CHECKS)
    return ran.returncode, found


def configure(command: Command, text: str) -> None:
    folder = command.home / ".config" / "claudemax"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)


def test_all_is_well(command: Command, tmp_path: Path) -> None:
    """With the newest CLI and the demo; every fact of the self-test holds."""
    configure(command, f'demo = true\nport = "{free_port()}"\nmodel-alias = {{ a = "opus" }}\n')
    status, found = examine(command, "--claude", newest_cli())
    assert status == 0
    skipped = {name for name, one in found.items() if one["state"] == "skipped"}
    assert skipped == {"login", "service", "other sessions", "network"}
    assert {one["state"] for name, one in found.items() if name not in skipped} == {"ok"}
    test = found["self-test"]
    assert [fact["name"] for fact in test["facts"]] == [fact.name for fact in FACTS]
    assert all(fact["holds"] for fact in test["facts"])
    assert found["cli"]["executable"] == newest_cli()
    assert found["cli origin"]["update"] == "pip install --upgrade claude-agent-sdk"


def test_a_terminal_is_told_what_to_do(command: Command) -> None:
    command.variables["ANTHROPIC_API_KEY"] = "k"
    shown = command.terminal("doctor", "--claude", newest_cli())
    assert shown.end() == 1
    lines = shown.lines
    login = lines.index(" ✗ login            NOT LOGGED IN")
    assert lines[login + 1].strip() == "→ claudemax login"
    assert any("ANTHROPIC_API_KEY set here; not passed on to the CLI" in line for line in lines)
    assert any(f"✓ self-test        all {len(FACTS)} facts hold" in line for line in lines)
    assert lines[-1].startswith("Failed: login")
    assert "checking" not in shown.text


def test_a_pipe_is_told_that_it_goes_on(command: Command) -> None:
    ran = command.run("doctor", "--claude", newest_cli())
    lines = ran.stderr.splitlines()
    assert lines and all(line.startswith("checking self-test ...") for line in lines)
    assert "\x1b" not in ran.stdout


def test_a_cli_that_has_changed(command: Command, tmp_path: Path) -> None:
    """A double, which asks nothing upstream: what is lost is told by name."""
    configure(command, 'demo = true\nmodel-alias = { a = "opsu" }\n')
    claude = fake_cli(tmp_path / "cli", version="2.1.400")
    status, found = examine(command, "--claude", claude)
    assert status == 1
    test = found["self-test"]
    lost = {fact["name"]: fact["seen"] for fact in test["facts"] if not fact["holds"]}
    assert test["state"] == "failed" and all(name in test["found"] for name in lost)
    assert lost["slash_text_is_delivered_as_written"] == (
        "0 requests reached upstream instead of one"
    )
    assert "models_are_told_before_initialize" not in lost
    assert found["model aliases"]["found"] == "no model for a=opsu (did you mean opus?)"


def test_an_old_cli_on_the_path_beside_a_good_one(command: Command, cli_script: Any) -> None:
    old = cli_script(TOO_OLD)
    command.variables["PATH"] = f"{Path(old).parent}:/usr/bin:/bin"
    status, found = examine(command)
    assert status == 1
    assert found["cli"]["found"] == f"{old}: it is the first on the PATH"
    version = found["cli version"]
    assert version["state"] == "failed" and "is 2.1.100, older than 2.1.290" in version["found"]
    assert version["remedy"].endswith(f"--claude {newest_cli()}")
    assert found["login"]["state"] == found["self-test"]["state"] == "skipped"


def test_what_is_wrong_with_the_machine(command: Command, cli_script: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret\n")
    keys.chmod(0o644)
    state = command.home / ".local" / "state" / "claudemax" / "empty"
    state.mkdir(parents=True)
    (state / "stray").touch()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        configure(command, f'port = "{port}"\napi-key-file = "{keys}"\n')
        status, found = examine(command, "--claude", cli_script(TOO_OLD))
    assert status == 1
    assert found["port"]["state"] == "failed"
    assert f"{port} is taken by " in found["port"]["found"]
    assert f"(process {os.getpid()})" in found["port"]["found"]
    assert "serve with --port " in found["port"]["remedy"]
    assert found["keys"]["state"] == "failed" and "can be read by others" in found["keys"]["found"]
    assert found["state directory"]["found"] == f"{state / 'stray'} is where nothing may be"


def test_a_keys_file_with_a_key_that_has_expired(command: Command, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a: 1 expires=2020-01-31\nb: 2\n")
    keys.chmod(0o600)
    configure(command, f'api-key-file = "{keys}"\n')
    _, found = examine(command)
    assert found["keys"]["state"] == "warning"
    assert found["keys"]["found"] == f"{keys}: expired: a"


def test_a_wrong_option_and_a_state_directory_that_cannot_be(
    command: Command, cli_script: Any
) -> None:
    configure(command, "warn = 1\n")
    old = cli_script(TOO_OLD)  # on the PATH, for without settings no option counts
    command.variables["PATH"] = f"{Path(old).parent}:/usr/bin:/bin"
    (command.home / "file").touch()
    command.variables["XDG_STATE_HOME"] = str(command.home / "file")
    _, found = examine(command)
    assert found["settings"]["state"] == "failed"
    assert 'there is no option "warn" (did you mean "warm"?)' in found["settings"]["found"]
    assert found["state directory"]["state"] == "failed"
    assert "Not a directory" in found["state directory"]["found"]
    assert "XDG_STATE_HOME" in found["state directory"]["remedy"]


def test_a_token_that_hides_a_login(command: Command, cli_script: Any) -> None:
    """Told without opening either."""
    (command.home / ".claude").mkdir()
    (command.home / ".claude" / ".credentials.json").mkdir()  # whoever opened it would fail
    command.variables["CLAUDE_CODE_OAUTH_TOKEN"] = "sk-ant-oat01-made-up"
    _, found = examine(command, "--claude", cli_script(TOO_OLD))
    assert found["variables"]["state"] == "warning"
    assert "hides the login that is stored" in found["variables"]["found"]
    assert "sk-ant" not in json.dumps(found)


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("/x/site-packages/claude_agent_sdk/_bundled/claude", "bundled"),
        ("/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", "npm"),
        ("/opt/homebrew/Caskroom/claude-code/2.1.331/claude", "Homebrew"),
        ("/home/x/.local/share/claude/versions/2.1.331", "native"),
    ],
)
def test_how_it_was_installed(path: str, how: str, tmp_path: Path) -> None:
    assert installed(path) == how
    link = tmp_path / "claude"
    link.symlink_to(path)
    assert installed(str(link)) == how


def test_the_self_test_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command.variables["TMPDIR"] = str(tmp_path / "tmp")
    before = set(os.listdir(command.home))
    configure(command, "demo = true\n")
    examine(command, "--claude", newest_cli())
    assert list((tmp_path / "tmp").iterdir()) == []
    assert set(os.listdir(command.home)) - before == {".config", ".local"}


def test_ctrl_c_ends_it_and_clears_up(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command.variables["TMPDIR"] = str(tmp_path / "tmp")
    configure(command, "demo = true\n")
    shown = command.terminal("doctor", "--claude", newest_cli())
    shown.until("checking self-test")
    shown.until(f"of {len(FACTS)}")
    shown.child.sendintr()
    assert shown.end() == 130
    assert "Traceback" not in shown.text
    assert list((tmp_path / "tmp").iterdir()) == []
