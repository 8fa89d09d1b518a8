"""What outlives the daemon, on disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from claudeproxy.engine.quota import Quota
from claudeproxy.state import (
    SAVE,
    SCRATCH,
    QuotaFile,
    StateError,
    directory,
    sweep,
    working_directory,
)

KEPT: dict[str, Any] = {"account": None, "windows": {"known": {}}, "charged": {"a": 1.5}}


def test_where() -> None:
    assert directory({"HOME": "/home/a"}) == Path("/home/a/.local/state/claudemax")
    assert directory({"HOME": "/a", "XDG_STATE_HOME": "/state"}) == Path("/state/claudemax")


def test_what_was_written_last(tmp_path: Path) -> None:
    file = QuotaFile(Clock(), tmp_path)
    assert file.read() is None
    file.write({"windows": {}})
    file.write(KEPT)
    assert file.read() == QuotaFile(Clock(), tmp_path).read() == KEPT
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "cut", "no-text", "deep"]
)
def test_what_cannot_be_read_is_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "quota.json").write_bytes(content)
    assert QuotaFile(Clock(), tmp_path).read() is None


def test_what_cannot_be_written_is_lost_and_harms_nothing(tmp_path: Path) -> None:
    QuotaFile(Clock(), tmp_path / "none").write(KEPT)
    (tmp_path / "quota.json").mkdir()
    file = QuotaFile(Clock(), tmp_path)
    file.write(KEPT)
    assert file.read() is None


def test_changes_are_written_together_and_restored(tmp_path: Path) -> None:
    clock = Clock()
    file, quota = QuotaFile(clock, tmp_path), Quota(lambda: 1000.0)
    file.open(quota)
    quota.login.account = "mine"
    quota.on_change()
    clock.advance(SAVE / 2)
    quota.on_change()
    assert file.read() is None
    clock.advance(SAVE / 2)
    again = Quota(lambda: 1000.0)
    QuotaFile(clock, tmp_path).open(again)
    assert again.login.account == "mine"
    assert not clock.getDelayedCalls()


def test_what_is_not_written_yet_is_written_at_the_end(tmp_path: Path) -> None:
    clock = Clock()
    file = QuotaFile(clock, tmp_path)
    file.open(Quota(lambda: 1000.0))
    file.close()
    assert file.read() is None
    file.open(Quota(lambda: 1000.0))
    file._changed()
    file.close()
    assert file.read() == Quota(lambda: 1000.0).kept()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("kept", [{}, [], {"windows": 1, "charged": 2, "account": 3}])
def test_what_makes_no_sense_is_begun_anew(tmp_path: Path, kept: Any) -> None:
    quota = Quota(lambda: 1000.0)
    (tmp_path / "quota.json").write_text(json.dumps(kept))
    QuotaFile(Clock(), tmp_path).open(quota)
    assert quota.kept() == Quota(lambda: 1000.0).kept()


def test_the_working_directory_is_private_and_empty(tmp_path: Path) -> None:
    path = working_directory({"HOME": str(tmp_path)})
    assert working_directory({"HOME": str(tmp_path)}) == path
    assert (stat.S_IMODE(path.stat().st_mode), list(path.iterdir())) == (0o700, [])
    (path / "CLAUDE.md").touch()
    with pytest.raises(StateError, match="must be empty, and holds CLAUDE"):
        working_directory({"HOME": str(tmp_path)})


def test_a_working_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "claudemax").touch()
    with pytest.raises(StateError, match="cannot make"):
        working_directory({"XDG_STATE_HOME": str(tmp_path)})


def test_what_dead_daemons_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = {
        f"{SCRATCH}{dead.pid}-x": False,
        f"{SCRATCH}{os.getpid()}-x": True,
        f"{SCRATCH}1-x": True,
        f"{SCRATCH}nobody-x": True,
        "other-1-x": True,
    }
    for name in names:
        (tmp_path / name / "config").mkdir(parents=True)
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(name for name, stays in names.items() if stays)
