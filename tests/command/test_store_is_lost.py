"""What is seen of a daemon whose PostgreSQL does not answer: on the page, and by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import in_thread, until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from shell import Command

from claudeproxy.testing import fake_cli
from claudeproxy.web.storing import LOST

pytestmark = pytest.mark.only("key")


@ensureDeferred
async def test_page_and_command_say_so(
    make_daemon: Any, postgres: Postgres, postgres_url: str, command: Command, tmp_path: Path
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), store=postgres_url)
    port = ("--port", str(daemon.port[0].getHost().port))
    chart = f"{daemon.url}/page/tokens-24h-620.svg"
    postgres.stop()
    try:
        await until(lambda: daemon.api._kept.database.lost_since is not None)
        shown = await treq.get(chart)
        assert (shown.code, (await shown.text()).rstrip()) == (503, LOST.message)
        reply = await treq.get(daemon.url, headers={"accept": "text/html"})
        page = await reply.text()
        assert (reply.code, "the store does not answer; the log says why" in page) == (200, True)
        assert "Turns are told again once it does." in page and "keeps no turns" not in page
        told = await in_thread(command.run, "status", *port)
        assert (told.returncode, told.stderr) == (0, "")
        assert "Store      it does not answer  its log says why" in told.stdout
        told = await in_thread(command.run, "status", "--json", *port)
        assert json.loads(told.stdout)["usage"] is None
        why = await in_thread(command.refusal, "usage", *port)
        assert (
            why
            == f"http://localhost:{port[1]}: its store does not answer at present; its log says why"
        )
    finally:
        postgres.start()
    await until(lambda: daemon.api._kept.database.lost_since is None)
    assert "Store" not in (await in_thread(command.run, "status", *port)).stdout
    assert (await treq.get(chart)).code == 200
