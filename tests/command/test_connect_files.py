"""A client's file: written whole with its mode kept, and brought back byte for byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import click
import pytest

from claudeproxy.command.connect import files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    first, second, third = b"\xef\xbb\xbf{ }\r\n", b"{1}", b"{2}"
    path.write_bytes(first)
    path.chmod(0o640)
    files.write(path, first, second)
    files.write(path, second, third)
    assert (path.read_bytes(), mode(path)) == (third, 0o640)
    for before in (second, first):
        backup = files.backups(path)[-1]
        assert (backup.content(), mode(backup.path)) == (before, 0o640)
        files.restore(path, backup)
        assert (path.read_bytes(), mode(path)) == (before, 0o640)
    assert os.listdir(tmp_path) == [path.name]


def test_backups_are_counted_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x"
    content = b"0"
    path.write_bytes(content)
    for number in range(1, 12):
        files.write(path, content, content := str(number).encode())
    (tmp_path / "x.claudemax-99.bak.mine").touch()
    assert [backup.content() for backup in files.backups(path)][-2:] == [b"9", b"10"]


def test_a_file_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config.toml"
    assert files.read(path) is None and files.backups(path) == []
    files.write(path, None, b"x")
    assert (path.read_bytes(), mode(path), mode(path.parent)) == (b"x", 0o600, 0o700)
    files.restore(path, files.backups(path)[-1])
    assert os.listdir(path.parent) == []


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real, link = tmp_path / "dotfiles" / "aider.yml", tmp_path / ".aider.conf.yml"
    real.write_bytes(b"a")
    link.symlink_to(real)
    backup = files.write(link, b"a", b"b")
    assert link.is_symlink() and real.read_bytes() == b"b"
    assert backup.path.parent == real.parent
    files.restore(link, files.backups(link)[-1])
    assert link.is_symlink() and real.read_bytes() == b"a"


def test_what_was_changed_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"theirs")
    for old in (b"mine", None):
        with pytest.raises(click.ClickException, match="was changed meanwhile"):
            files.write(path, old, b"new")
    assert path.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["x"]


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(click.ClickException, match=r"folder cannot be read: Is a directory$"):
        files.read(tmp_path / "folder")
    below = tmp_path / "file" / "x"
    with pytest.raises(click.ClickException, match=r"x cannot be read: Not a directory$"):
        files.write(below, None, b"x")
    gone = tmp_path / "gone"
    gone.symlink_to(tmp_path / "file" / "x")
    with pytest.raises(click.ClickException):
        files.write(gone, None, b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "gone"]


def test_a_failed_write_leaves_the_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the file itself is written."""
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(click.ClickException, match=r"x cannot be written: No space left"):
        files.write(path, b"old", b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]
