"""One CLI in front of one stand-in, in directories of its own."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure as Reason

from claudeproxy._reactor import IStageReactor
from claudeproxy.cli import launch
from claudeproxy.demo.app import DemoUpstream, Received, listen

from .lines import (
    RESULT,
    Line,
    Match,
    completed,
    control,
    conversation,
    event,
    flags,
    tools_call,
    user,
)

OLD = "claude-sonnet-4-5"
"""A model that thinks within a budget and gets the environment block as text."""


class Lost(AssertionError):
    """A fact does not hold; the text says what was seen instead."""


class CLI(ProcessProtocol):
    """One ``claude``; ``lines`` is all it has printed, parsed."""

    transport: Any

    def __init__(self, reactor: IReactorTime, patience: float) -> None:
        """``patience``: seconds to wait for any one line; only a broken fact waits that long."""
        self._reactor = reactor
        self._patience = patience
        self.lines: list[Line] = []
        self.ended: Deferred[int] = Deferred()
        self.exit: int | None = None
        self._rest = b""
        self._waiting: list[_Waiter] = []

    def outReceived(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [json.loads(line) for line in whole if line.strip()]
        self._look()

    def processEnded(self, reason: Reason) -> None:
        error: Any = reason.value
        self.exit = -error.signal if error.signal else int(error.exitCode)
        self._look()
        self.ended.callback(self.exit)

    def _look(self) -> None:
        for waiter in list(self._waiting):
            if any(map(waiter.match, self.lines[waiter.since :])) or self.exit is not None:
                self._waiting.remove(waiter)
                waiter.found.callback(None)

    async def line(self, match: Match, since: int = 0) -> Line:
        """The first line that matches, of those from number ``since`` on.

        :raises Lost: when none comes in time, or the process ends before.
        """
        await self._wait(match, since)
        for line in self.lines[since:]:
            if match(line):
                return line
        kinds = [line.get("subtype") or line["type"] for line in self.lines[since:]]
        raise Lost(f"no such line (exit {self.exit}); since then: {kinds}")

    async def exited(self) -> int:
        """Its exit code, or the negative number of the signal that ended it.

        :raises Lost: when it does not end in time.
        """
        await self._wait(lambda line: False, len(self.lines))
        if self.exit is None:
            raise Lost("it does not end")
        return self.exit

    async def _wait(self, match: Match, since: int) -> None:
        waiter = _Waiter(match, since)
        self._waiting.append(waiter)
        waiter.found.addTimeout(self._patience, self._reactor)
        self._look()
        try:
            await waiter.found
        except TimeoutError:
            self._waiting.remove(waiter)

    def send(self, *lines: Line) -> None:
        """Write lines, all at once, encoded as :func:`claudeproxy.cli.wire.message_line` does."""
        said = (json.dumps(line, ensure_ascii=False) for line in lines)
        data = "".join(f"{line}\n" for line in said).encode("utf-8", "backslashreplace")
        self.transport.write(data)

    async def ask(self, subtype: str, **fields: Any) -> Line:
        """The response to a control request."""
        request_id = str(uuid.uuid4())
        self.send(control(request_id, subtype, **fields))
        answer = await self.line(
            lambda line: (
                line["type"] == "control_response" and line["response"]["request_id"] == request_id
            )
        )
        response: Line = answer["response"]
        return response

    def answer(self, call_line: Line, *content: Line, **more: Any) -> None:
        """Answer a ``tools/call``."""
        self.reply(call_line, {"content": content, **more})

    def reply(self, mcp_line: Line, answer: Any) -> None:
        """Answer a message to the MCP server; a notification has no id."""
        message = mcp_line["request"]["message"]
        said = {"jsonrpc": "2.0", "id": message.get("id"), "result": answer}
        response = {
            "subtype": "success",
            "request_id": mcp_line["request_id"],
            "response": {"mcp_response": said},
        }
        self.send({"type": "control_response", "response": response})

    async def kill(self) -> None:
        """End it, if it has not ended."""
        if self.exit is None:
            if self.transport.pid is not None:  # else it is reaped, and its pipes are closing
                os.kill(self.transport.pid, signal.SIGKILL)
            await self.ended


@define(eq=False)
class _Waiter:
    match: Match
    since: int
    found: Deferred[None] = field(factory=Deferred)


@frozen
class Turn:
    """What one user line led to: the lines printed and the requests that reached upstream."""

    lines: list[Line]
    requests: list[Received]

    @property
    def body(self) -> Mapping[str, Any]:
        """The only request's body."""
        if len(self.requests) != 1:
            raise Lost(f"{len(self.requests)} requests reached upstream instead of one")
        if self.requests[0].refused is not None:
            raise Lost(f"upstream refused it: {self.requests[0].refused}")
        return self.requests[0].body

    @property
    def said(self) -> list[Line]:
        """The blocks of the last user message, without what the CLI adds."""
        return conversation(self.body)[-1][1]

    @property
    def events(self) -> list[Line]:
        """What was relayed."""
        return [line["event"] for line in self.lines if line["type"] == "stream_event"]

    @property
    def result(self) -> Line:
        """Its ``result`` line."""
        return next(line for line in self.lines if line["type"] == "result")

    def all(self, kind: str) -> list[Line]:
        """The lines of a type."""
        return [line for line in self.lines if line["type"] == kind]


class Stage:
    """A CLI in front of a stand-in, in directories of its own under ``folder``.

    ``login``: ``key`` is what ``--upstream`` does; ``oauth`` is a token, and a base URL all the
    same; ``none`` has no login. ``more``: variables for the CLI beyond those the daemon gives it.
    """

    def __init__(
        self,
        reactor: IStageReactor,
        executable: str,
        folder: Path,
        *,
        login: str = "key",
        more: Iterable[tuple[str, str]] = (),
        inbound: str = "refuse",
        plain_names: bool = False,
        patience: float = 10.0,
        **demo: Any,
    ) -> None:
        """``inbound``: what is done with words of other sessions; ``demo``: as
        :class:`~claudeproxy.demo.app.DemoUpstream` takes it."""
        self._reactor = reactor
        self.executable = executable
        self.folder = folder
        self.home, self.config, self.tmp = (folder / name for name in ("home", "config", "tmp"))
        self.cwd = folder / "work" / "empty"
        for directory in (self.home, self.config, self.tmp, self.cwd):
            directory.mkdir(parents=True)
        self.cli = CLI(reactor, patience)
        self.models: list[Line] = []
        self._demo_options = demo
        self._login = login
        self._inbound = inbound
        self._plain_names = plain_names
        self._more = dict(more)
        self._environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
        }

    async def start(self) -> None:
        """Serve and spawn; it has started up once it has told its models."""
        await self._serve()
        command = launch.command(self.executable, str(self.cwd))
        command = [part.replace("refuse", self._inbound) for part in command]
        self._reactor.spawnProcess(self.cli, command[0], command, self.environment())
        self.models = (await self.cli.ask("list_models"))["response"]["models"]

    async def _serve(self) -> None:
        self.demo = DemoUpstream(self._reactor, **self._demo_options)
        self._port, self.url = await listen(self._reactor, self.demo)

    def environment(self) -> dict[str, str]:
        """What the CLI gets."""
        upstream = None
        if self._login == "key":
            upstream = launch.Upstream(self.url, "any", str(self.config))
        variables = launch.environment(self._environ, upstream, plain_names=self._plain_names)
        if self._login in ("oauth", "none"):
            variables["ANTHROPIC_BASE_URL"] = self.url
        if self._login == "oauth":
            variables["CLAUDE_CODE_OAUTH_TOKEN"] = "any"
        return {**variables, **self._more}

    async def close(self) -> None:
        """End the CLI, and the stand-in."""
        await self.cli.kill()
        stopped = self._port.stopListening()
        if stopped is not None:
            await stopped

    @property
    def requests(self) -> list[Received]:
        """All that reached upstream."""
        return list(self.demo.requests)

    async def begin(self, *system: str, model: str = OLD, **fields: Any) -> None:
        """Set up the conversation the way the daemon does: nothing is awaited."""
        self.cli.send(
            control("setup", "initialize", systemPrompt=list(system), **fields),
            flags(model=model, permissions={"allow": ["mcp__c"]}),
        )

    async def history(self, *lines: Line) -> None:
        """Replay: a user line is awaited, since user lines queue and assistant lines do not."""
        for line in lines:
            self.cli.send(line)
            if line["type"] == "user":
                await self.cli.line(completed(line))

    async def turn(
        self,
        *content: str | Line,
        before: Iterable[Line] = (),
        until: Match = RESULT,
        **options: Any,
    ) -> Turn:
        """Ask, with the lines ``before`` in the same write, until a line; what it led to."""
        since, sent = len(self.cli.lines), len(self.demo.requests)
        line = content[0] if isinstance(content[0], dict) and "message" in content[0] else None
        self.cli.send(*before, line or user(*content, **options))
        await self.cli.line(until, since)
        return Turn(self.cli.lines[since:], self.requests[sent:])

    async def park(self, order: str, count: int = 1) -> tuple[Turn, list[Line]]:
        """A turn until ``count`` calls wait, and the calls."""
        since, sent = len(self.cli.lines), len(self.demo.requests)
        calls: list[Line] = []

        def enough(line: Line) -> bool:
            if tools_call(line) and line not in calls:
                calls.append(line)
            return len(calls) == count

        await self.turn(order, until=enough)
        await self.cli.line(event("message_stop"), since)
        return Turn(self.cli.lines[since:], self.requests[sent:]), calls

    def files(self) -> dict[Path, bytes]:
        """Every file in its directories, by path."""
        found = (Path(root, name) for root, _, names in os.walk(self.folder) for name in names)
        return {path: path.read_bytes() for path in found if path.is_file()}
