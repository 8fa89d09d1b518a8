"""Remedies name the program by which claudemax was installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from claudeproxy import _installed
from claudeproxy._installed import PIP, PIPX, UV_TOOL, UVX, Installer, installer, own_requirement
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
    came_from(tmp_path, monkeypatch, '{"url": "file:///home/you/claude%20max", "dir_info": {}}')
    with pytest.raises(CLIError, match=r"or `pipx install --force '/home/you/claude max\[cli\]'`"):
        find(None, os.devnull)


def came_from(folder: Path, monkeypatch: pytest.MonkeyPatch, told: str | None) -> None:
    """An installation of claudemax in ``folder``, as pip makes it."""
    info = folder / "claudemax-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: claudemax\nVersion: 0.1.0\n")
    if told is not None:
        (info / "direct_url.json").write_text(told)
    monkeypatch.setattr(sys, "path", [str(folder)])


@pytest.mark.parametrize(
    ("told", "is_a"),
    [
        (None, "claudemax[cli]"),
        ('{"url": "file:///w/claudemax-0.1.0-py3-none-any.whl", "archive_info": {}}',
         "/w/claudemax-0.1.0-py3-none-any.whl[cli]"),
        ('{"url": "https://forge/claudemax", "vcs_info": {"vcs": "git", "commit_id": "1"}}',
         "claudemax[cli] @ git+https://forge/claudemax"),
        ('{"url": "https://forge/claudemax-0.1.0.tar.gz", "archive_info": {}}',
         "claudemax[cli] @ https://forge/claudemax-0.1.0.tar.gz"),
    ],
)  # fmt: skip
def test_remedies_take_it_from_where_it_came_from(
    told: str | None, is_a: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by name from an index that does not have it, where the name is anybody's to take."""
    came_from(tmp_path, monkeypatch, told)
    assert own_requirement("[cli]") == is_a
    assert is_a.startswith("/") or Requirement(is_a).extras == {"cli"}
