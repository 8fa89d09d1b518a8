"""The whole daemon in this process, over the real CLI, talking to the embedded stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treq
from attrs import define, evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from claudeproxy.cli import launch
from claudeproxy.demo.app import DemoUpstream, Received, listen
from claudeproxy.options import Settings
from claudeproxy.service import Claudemax


@define
class Daemon:
    """A running daemon and the stand-in behind it."""

    api: Claudemax
    upstream: DemoUpstream
    url: str
    port: Any
    home: Path

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        """The response to a JSON body; ``await treq.json_content(...)`` reads it."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **headers}
        return await treq.post(self.url + path, data=data, headers=sent)

    async def chat(self, messages: Any, **fields: Any) -> Any:
        """The JSON of a whole chat completion, whatever its status."""
        body = {"model": "claude-sonnet-4-5", "messages": messages, **fields}
        return await treq.json_content(await self.post("/v1/chat/completions", body))

    def turns(self) -> list[Received]:
        """What reached the stand-in: one entry for each upstream request."""
        return [entry for entry in self.upstream.requests if entry.path.startswith("/v1/messages")]

    def body(self) -> Any:
        """The last request that reached the stand-in."""
        return self.turns()[-1].body


def settings(**changes: Any) -> Settings:
    """Settings for a small machine that runs tests."""
    return evolve(Settings(warm=1, concurrency=4, queue=8, drain=2.0), **changes)


async def start_daemon(home: Path, **changes: Any) -> Daemon:
    """A daemon of its own; :func:`stop_daemon` ends it."""
    script = changes.pop("script", None)
    upstream = DemoUpstream(reactor, answer=script)
    port, upstream_url = await listen(reactor, upstream)
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        **changes.pop("environ", {}),
    }
    claude = changes.pop("claude", None) or newest_cli()
    chosen = settings(upstream=upstream_url, claude=claude, **changes)
    api = Claudemax(reactor, chosen, environ)
    api.startService()
    site = reactor.listenTCP(0, api.site, interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{site.getHost().port}"
    return Daemon(api, upstream, url, (site, port), home)


async def stop_daemon(daemon: Daemon) -> None:
    """Ends the daemon, and checks that it leaves no process."""
    site, port = daemon.port
    await site.stopListening()
    await daemon.api.stopService()
    await port.stopListening()
    assert not daemon.api.engine.processes


def newest_cli() -> str:
    """The CLI that the ``[cli]`` extra brings."""
    bundled = launch.bundled()
    assert bundled is not None, "the [cli] extra is not installed"
    return bundled


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Blocking SDKs run beside the reactor that serves them."""
    return deferToThread(function, *args, **kwargs)


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of ``condition``; an AssertionError when it does not come in time."""
    deadline = reactor.seconds() + seconds  # type: ignore[attr-defined]
    while True:
        value = condition()
        if value:
            return value
        assert reactor.seconds() < deadline, "it did not happen in time"  # type: ignore[attr-defined]
        await deferLater(reactor, 0.01, lambda: None)
