"""The whole daemon in this process, over the real CLI, talking to the embedded stand-in.

In two modes: ``key`` with a base URL and a key, ``subscription`` with a made-up login in front of a
rehearsed subscription. The CLI behaves differently in the two.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
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
from claudeproxy.cli.installation import Installation
from claudeproxy.cli.process import CLIProcess, Owner
from claudeproxy.cli.states import AT_REST, State
from claudeproxy.demo.app import DemoUpstream, Received, listen
from claudeproxy.options import Settings
from claudeproxy.rehearsal.account import PlanWindow
from claudeproxy.rehearsal.home import put_login
from claudeproxy.rehearsal.proxy import rehearse
from claudeproxy.rehearsal.subscription import Subscription
from claudeproxy.service import Claudemax

MODES = ("key", "subscription")

AFRESH = ("warm", "rewound")
"""Ways to serve a request (``x-claudemax-process``) that do not go on where a process is."""

HARMLESS = ("/api/oauth/profile", "/v1/oauth/token")
"""What a CLI with a login may ask besides messages."""

_started: defaultdict[Installation, list[CLIProcess]] = defaultdict(list)
_spawn = Installation.spawn


def _noted(self: Installation, owner: Owner) -> CLIProcess:
    process = _spawn(self, owner)
    _started[self].append(process)
    return process


Installation.spawn = _noted  # type: ignore[method-assign]


@define
class Daemon:
    """A running daemon and the stand-in behind it. ``subscription``: what else the account's hosts
    are asked; ``None`` with a key."""

    api: Claudemax
    upstream: DemoUpstream
    url: str
    port: Any
    home: Path
    subscription: Subscription | None = None

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
        """The last request that reached the stand-in, its tools under the client's names."""
        text = json.dumps(self.turns()[-1].body)
        return json.loads(re.sub(r"mcp__c[0-9a-f]{8}__", "", text))

    @property
    def extra_requests(self) -> int:
        """Upstream requests beyond one for each turn that was put to a process; each turn that was
        given up before its request went counts as one fewer."""
        asked = sum(process.turns for process in _started[self.api.cli])
        strange = 0
        if self.subscription is not None:
            strange = sum(asked.path not in HARMLESS for asked in self.subscription.asked)
        return len(self.turns()) - asked + strange

    async def at_rest(self) -> None:
        """Nothing is on its way upstream any more: what was given up has ended, and of every turn
        it is known how it is paid for."""
        rest = AT_REST | {State.STARTING}
        await until(
            lambda: all(
                process.state in rest and not process.awaits_billing
                for process in self.api.engine.processes
            )
        )


def settings(**changes: Any) -> Settings:
    """Settings for a small machine that runs tests."""
    return evolve(Settings(processes=4, concurrency=4, queue=8, drain=2.0), **changes)


async def start_daemon(home: Path, mode: str = "key", **changes: Any) -> Daemon:
    """A daemon of its own; :func:`stop_daemon` ends it.

    ``script``: answers of the stand-in; ``environ``: more of an environment; everything else:
    settings.
    """
    script = changes.pop("script", None)
    home.mkdir(parents=True, exist_ok=True)
    environ = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        **changes.pop("environ", {}),
    }
    claude = changes.pop("claude", None) or newest_cli()
    subscription = None
    if mode == "subscription":
        rehearsal = await rehearse(reactor, home, answer=script)
        subscription, port = rehearsal.subscription, rehearsal.port
        account, upstream = subscription.account, subscription.messages
        now = int(account.now())
        account.windows = {
            "five_hour": PlanWindow(0.25, now + 4 * 3600),
            "seven_day": PlanWindow(0.5, now + 5 * 86_400),
        }
        put_login(home, account.log_in())
        environ = {**rehearsal.environment, **environ}
        chosen = settings(claude=claude, **changes)
    else:
        upstream = DemoUpstream(reactor, answer=script)
        port, upstream_url = await listen(reactor, upstream)
        chosen = settings(upstream=upstream_url, claude=claude, **changes)
    api = Claudemax(reactor, chosen, environ)
    api.startService()
    site = reactor.listenTCP(0, api.site, interface="127.0.0.1")  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{site.getHost().port}"
    return Daemon(api, upstream, url, (site, port), home, subscription)


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
