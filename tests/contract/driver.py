"""Speaks raw lines to the real CLI, in front of the embedded stand-in Messages API.

It uses the daemon's own flags and environment (:mod:`claudeproxy.cli.launch`) and none of its
session code: these tests pin the CLI, not us.
"""

import json
import os
import signal
import uuid
from pathlib import Path

import pytest_twisted
from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError, ensureDeferred
from twisted.internet.protocol import ProcessProtocol

from claudeproxy.cli import launch
from claudeproxy.demo.app import DemoUpstream, listen

PATIENCE = 30.0
"""Seconds to wait for any one line; only a broken fact waits that long."""

OLD = "claude-sonnet-4-5"
"""A model that thinks within a budget and gets the environment block as text."""

NEW = "opus"
"""An alias of a model that thinks as it sees fit and gets the environment as a system message."""

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def run(coroutine):
    """The result of a coroutine, for fixtures and tests that are plain functions."""
    return pytest_twisted.blockon(ensureDeferred(coroutine))


# -- lines --


def text(said):
    return {"type": "text", "text": said}


def call(call_id, name="look", **arguments):
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id, *content, **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(content), **more}


def user(*content, query=True, composed=True):
    """A user line; strings are text blocks."""
    line = {
        "type": "user",
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": str(uuid.uuid4()),
        "message": {"role": "user", "content": _blocks(content)},
    }
    if composed:
        line["client_composed"] = True
    if not query:
        line["shouldQuery"] = False
    return line


def assistant(*content, id=None):
    """An assistant line of the history."""
    message = {
        "role": "assistant",
        "content": _blocks(content),
        "id": id or f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "model": "claude",
    }
    return {"type": "assistant", "parent_tool_use_id": None, "session_id": "", "message": message}


def _blocks(content):
    return [text(part) if isinstance(part, str) else part for part in content]


def control(request_id, subtype, **fields):
    request = {"subtype": subtype, **fields}
    return {"type": "control_request", "request_id": request_id, "request": request}


def flags(**settings):
    """The settings line; its id is always the same, as the daemon's is."""
    return control("flags", "apply_flag_settings", settings=settings)


def environ(**variables):
    """Flags that set variables of the running process."""
    return flags(env=variables)


def extra(**body):
    """Flags that add fields to the request's body."""
    return environ(CLAUDE_CODE_EXTRA_BODY=json.dumps(body))


def tool(name="look", description="Looks.", schema=None, *, parallel=True):
    """A tool of the MCP server."""
    return {
        "name": name,
        "description": description,
        "inputSchema": schema or {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True} if parallel else {},
        "_meta": {"anthropic/maxResultSizeChars": 500_000},
    }


def serving(*tools, **config):
    """The fields of ``initialize`` that announce the MCP server ``c``."""
    greeting = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "c", "version": "1"},
    }
    manifest = {"initializeResult": greeting, "toolsListResult": {"tools": list(tools)}}
    return {
        "sdkMcpServers": ["c"],
        "sdkMcpServerManifests": {"c": manifest},
        "sdkMcpServerConfigs": {"c": {"timeout": 86_400_000, **config}},
    }


# -- what matches --


def of_type(kind, subtype=None):
    return lambda line: line["type"] == kind and subtype in (None, line.get("subtype"))


RESULT = of_type("result")


def event(kind):
    return lambda line: line["type"] == "stream_event" and line["event"]["type"] == kind


def tools_call(line):
    request = line.get("request") or {}
    return (request.get("message") or {}).get("method") == "tools/call"


def use_id(call_line):
    return call_line["request"]["message"]["params"]["_meta"]["claudecode/toolUseId"]


# -- the process --


class CLI(ProcessProtocol):
    """One ``claude``; ``lines`` is all it has printed, parsed."""

    def __init__(self):
        self.lines = []
        self.ended = Deferred()
        self.exit = None
        self._rest = b""
        self._waiting = []

    def outReceived(self, data):
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [json.loads(line) for line in whole if line.strip()]
        self._look()

    def processEnded(self, reason):
        error = reason.value
        self.exit = -error.signal if error.signal else error.exitCode
        self._look()
        self.ended.callback(self.exit)

    def _look(self):
        for waiter in list(self._waiting):
            if any(map(waiter.match, self.lines[waiter.since :])) or self.exit is not None:
                self._waiting.remove(waiter)
                waiter.found.callback(None)

    async def line(self, match, since=0):
        """The first line that matches, of those from number ``since`` on."""
        waiter = _Waiter(match, since)
        self._waiting.append(waiter)
        waiter.found.addTimeout(PATIENCE, reactor)
        self._look()
        try:
            await waiter.found
        except TimeoutError:
            self._waiting.remove(waiter)
        for line in self.lines[since:]:
            if match(line):
                return line
        kinds = [line.get("subtype") or line["type"] for line in self.lines[since:]]
        raise AssertionError(f"no such line (exit {self.exit}); since then: {kinds}")

    def send(self, *lines):
        """Write lines, all at once."""
        self.transport.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    async def ask(self, subtype, **fields):
        """The response to a control request."""
        request_id = str(uuid.uuid4())
        self.send(control(request_id, subtype, **fields))
        answer = await self.line(
            lambda line: (
                line["type"] == "control_response" and line["response"]["request_id"] == request_id
            )
        )
        return answer["response"]

    def answer(self, call_line, *content, **more):
        """Answer a ``tools/call``."""
        message = call_line["request"]["message"]
        said = {"jsonrpc": "2.0", "id": message["id"], "result": {"content": content, **more}}
        response = {
            "subtype": "success",
            "request_id": call_line["request_id"],
            "response": {"mcp_response": said},
        }
        self.send({"type": "control_response", "response": response})

    async def kill(self):
        if self.exit is None:
            if self.transport.pid is not None:  # else it is reaped, and its pipes are closing
                os.kill(self.transport.pid, signal.SIGKILL)
            await self.ended


@define
class _Waiter:
    match: object
    since: int
    found: Deferred = field(factory=Deferred)


@define
class Turn:
    """What one user line led to: the lines printed and the requests that reached upstream."""

    lines: list
    requests: list

    @property
    def body(self):
        """The only request's body."""
        assert len(self.requests) == 1, [request.body["messages"][-1] for request in self.requests]
        assert self.requests[0].refused is None, self.requests[0].refused
        return self.requests[0].body

    @property
    def said(self):
        """The blocks of the last user message, without what the CLI adds."""
        return conversation(self.body)[-1][1]

    @property
    def events(self):
        return [line["event"] for line in self.lines if line["type"] == "stream_event"]

    @property
    def result(self):
        return next(line for line in self.lines if line["type"] == "result")

    def all(self, kind):
        return [line for line in self.lines if line["type"] == kind]


class Stage:
    """A CLI in front of a stand-in, in directories of its own under ``folder``."""

    def __init__(self, executable, folder, *, login, more, **demo):
        self.executable = executable
        self.folder = folder
        self.home, self.config, self.tmp = (folder / name for name in ("home", "config", "tmp"))
        self.cwd = folder / "work" / "empty"
        for directory in (self.home, self.config, self.tmp, self.cwd):
            directory.mkdir(parents=True)
        self.cli = CLI()
        self.demo = DemoUpstream(reactor, **demo)
        self._login = login
        self._more = more
        self._environ = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
        }

    async def start(self):
        """Serve and spawn; it has started up once it has told its models."""
        self._port, self.url = await listen(reactor, self.demo)
        command = launch.command(self.executable, str(self.cwd))
        reactor.spawnProcess(self.cli, command[0], command, self.environment())
        self.models = (await self.cli.ask("list_models"))["response"]["models"]

    def environment(self):
        """``login``: ``key`` is what ``--upstream`` does, the others what a user's machine has."""
        if self._login == "key":
            upstream = launch.Upstream(self.url, "any", str(self.config))
            return {**launch.environment(self._environ, upstream), **self._more}
        variables = launch.environment(self._environ)
        variables["ANTHROPIC_BASE_URL"] = self.url
        if self._login == "oauth":
            variables["CLAUDE_CODE_OAUTH_TOKEN"] = "any"
        return {**variables, **self._more}

    async def close(self):
        await self.cli.kill()
        await self._port.stopListening()

    @property
    def requests(self):
        return list(self.demo.requests)

    async def begin(self, *system, model=OLD, **fields):
        """Set up the conversation the way the daemon does: nothing is awaited."""
        self.cli.send(
            control("setup", "initialize", systemPrompt=list(system), **fields), flags(model=model)
        )

    async def history(self, *lines):
        """Replay: a user line is awaited, since user lines queue and assistant lines do not."""
        for line in lines:
            self.cli.send(line)
            if line["type"] == "user":
                await self.cli.line(completed(line))

    async def turn(self, *content, before=(), until=RESULT, **options):
        """Ask, with the lines ``before`` in the same write, until a line; what it led to."""
        since, sent = len(self.cli.lines), len(self.demo.requests)
        line = content[0] if "type" in content[0] and "message" in content[0] else None
        self.cli.send(*before, line or user(*content, **options))
        await self.cli.line(until, since)
        return Turn(self.cli.lines[since:], self.requests[sent:])

    def files(self):
        """Every file in its directories, by path."""
        found = (Path(root, name) for root, _, names in os.walk(self.folder) for name in names)
        return {path: path.read_bytes() for path in found if path.is_file()}


def completed(line):
    """Matches the end of a user line's own processing."""
    return lambda said: (
        said["type"] == "command_lifecycle"
        and said["command_uuid"] == line["uuid"]
        and said["state"] == "completed"
    )


# -- what arrived upstream --


def conversation(body):
    """The messages as (role, blocks), without what the CLI adds: see "What the CLI adds"."""
    found = []
    for message in body["messages"]:
        if message["role"] != "system":
            content = message["content"]
            blocks = [text(content)] if isinstance(content, str) else content
            found.append((message["role"], [_bare(b) for b in blocks if not is_reminder(b)]))
    return found


def _bare(block):
    return {name: value for name, value in block.items() if name != "cache_control"}


def is_reminder(block):
    return block["type"] == "text" and block["text"].startswith("<system-reminder>")


def system_texts(body):
    return [block["text"] for block in body.get("system") or ()]


def tools_of(body):
    return {tool["name"]: tool for tool in body.get("tools") or ()}
