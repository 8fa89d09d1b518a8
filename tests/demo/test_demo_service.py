"""The stand-in's port: there while it runs, and not afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import settings
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.error import ConnectionRefusedError

from claudeproxy.demo.app import DemoUpstream
from claudeproxy.demo.service import DemoService
from claudeproxy.service import Claudemax
from claudeproxy.testing import fake_cli


@ensureDeferred
async def test_its_port_is_closed_when_it_stops() -> None:
    twisted: Any = reactor
    service = DemoService(twisted, DemoUpstream(twisted))
    service.startService()
    url = service.url
    assert (await treq.get(url, persistent=False)).code == 200
    await service.stopService()
    with pytest.raises(ConnectionRefusedError):
        await treq.get(url, persistent=False)


@pytest.mark.cli
@ensureDeferred
async def test_the_daemon_stops_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    chosen = settings(demo=True, warm=0, claude=fake_cli(tmp_path / "cli"))
    daemon = Claudemax(reactor, chosen, environ)  # type: ignore[arg-type]
    daemon.startService()
    url = daemon.cli.environment["ANTHROPIC_BASE_URL"]
    assert (await treq.get(url, persistent=False)).code == 200
    await daemon.stopService()
    with pytest.raises(ConnectionRefusedError):
        await treq.get(url, persistent=False)
