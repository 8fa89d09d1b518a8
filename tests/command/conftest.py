"""Fixtures: the command in a private HOME, and a CLI that is a script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shell import Command, environment

from claudeproxy.command.main import main


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """A command in a HOME of its own."""
    home = tmp_path / "home"
    home.mkdir()
    made = Command(home)
    yield made
    for terminal in made.terminals:
        if terminal.child.isalive():
            terminal.child.close(force=True)


@pytest.fixture
def cli_script(tmp_path: Path) -> Callable[[str], str]:
    """``cli_script(body)``: an executable ``claude`` that is a shell script."""

    def make(body: str) -> str:
        path = tmp_path / "bin" / "claude"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``refused("status")``: the one line with which it ends, in this process. Keywords are
    variables."""

    def run(*arguments: str, **variables: str) -> str:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in environment(tmp_path, **variables).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        said = caught.value.code
        assert isinstance(said, str) and said.startswith("claudemax: ") and "\n" not in said
        assert capsys.readouterr() == ("", "")
        return said.removeprefix("claudemax: ")

    return run
