"""Whose login it is, asked without a reactor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from claudeproxy.cli import account_query
from claudeproxy.testing import fake_cli


@pytest.mark.parametrize("logged_in", [True, False])
def test_it_is_asked_and_left_to_end(tmp_path: Path, logged_in: bool) -> None:
    claude = fake_cli(tmp_path / "cli", logged_in=logged_in)
    status = account_query.ask(
        claude, {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}, str(tmp_path)
    )
    assert status is not None and status.logged_in is logged_in


def test_one_that_says_nothing(tmp_path: Path) -> None:
    claude = fake_cli(tmp_path / "cli", setup="exit")
    assert account_query.ask(claude, {"HOME": str(tmp_path)}, str(tmp_path)) is None
