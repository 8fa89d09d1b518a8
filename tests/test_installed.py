"""Remedies name the program by which claudemax was installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudeproxy import _installed
from claudeproxy._installed import PIP, PIPX, UV_TOOL, UVX, Installer, installer
from claudeproxy.cli.launch import CLIError, find


@pytest.mark.parametrize(
    ("folder", "file", "by"),
    [
        ("venv", "pyvenv.cfg", PIP),
        ("pipx/venvs/claudemax", "pipx_metadata.json", PIPX),
        ("uv/tools/claudemax", "uv-receipt.toml", UV_TOOL),
        (".cache/uv/archive-v0/TqhI3WtOCE9qvg5X", "pyvenv.cfg", UVX),
        (".cache/uv/environments-v2/script-1a2b", "pyvenv.cfg", UVX),
    ],
)
def test_an_environment_tells_by_what_it_was_made(
    folder: str, file: str, by: Installer, tmp_path: Path
) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    (path / file).touch()
    assert installer(str(path)) is by


def test_without_a_cli_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipx_metadata.json").touch()
    monkeypatch.setattr(_installed.sys, "prefix", str(tmp_path))  # type: ignore[attr-defined]
    monkeypatch.setattr("claudeproxy.cli.launch.bundled", lambda: None)
    with pytest.raises(CLIError, match=r"or `pipx install --force 'claudemax\[cli\]'`"):
        find(None, os.devnull)
