"""``claudemax key``."""

import base64
import stat
from pathlib import Path

import pytest

from claudeproxy.command.main import main
from claudeproxy.web.keys import read


def run(*arguments: str) -> None:
    """A command that ends well."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0


def test_key_is_made_where_the_daemons_settings_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run("key")
    path = tmp_path / ".config" / "claudemax" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    key = path.read_text().strip()
    assert len(base64.urlsafe_b64decode(key + "=")) == 32
    assert read(str(path)).name_of([key]) == "default"
    said = capsys.readouterr().out
    assert f"--api-key-file {path}" in said
    assert key not in said


def test_key_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("key", "a/one")
    run("key", "a/two")
    assert (tmp_path / "a" / "one").read_text() != (tmp_path / "a" / "two").read_text()


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(["key", str(path)])
    assert caught.value.code == f"claudemax: {path} is there already; it stays as it is"
    assert path.read_text() == "mine"


def test_key_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="is there already"):
        main(["key", str(tmp_path / "key")])
    assert not (tmp_path / "elsewhere").exists()


def test_key_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"cannot be written: Not a directory$"):
        main(["key", str(tmp_path / "file" / "key")])
