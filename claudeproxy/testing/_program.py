"""The program behind :func:`claudeproxy.testing.fake_cli`. Plans and points are described there."""

# The standard library only, and no site packages, so that it starts in 40 ms.
from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from .transcripts import (
    call_block,
    cancelled,
    closing,
    completed,
    event,
    lifecycle,
    line,
    mcp_request,
    opening,
    ready,
    refused,
    requesting,
    response,
    result,
    rewound,
    rewound_not,
    text_block,
    tools_call,
)

VERSION = "2.1.330 (Claude Code)"

_ORDER = re.compile(r"\[\[(\w+) (.*?)\]\]", re.DOTALL)


class _HeldBack(Exception):
    """Nothing more of this answer is to come."""


class Faults:
    """What can go wrong at a point. Unless it says otherwise, the process then continues."""

    def __init__(self, out: _Out) -> None:
        self._out = out

    def exit(self) -> None:
        """Exits with status 1."""
        os._exit(1)

    def crash(self) -> None:
        """Dies of SIGSEGV."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def kill(self) -> None:
        """Is killed by somebody."""
        os.kill(os.getpid(), signal.SIGKILL)

    def silence(self) -> NoReturn:
        """Neither reads nor prints any more."""
        while True:
            time.sleep(3600)

    def hold(self) -> None:
        """Prints no more of this answer, but reads on."""
        raise _HeldBack

    def sleep(self, seconds: str) -> None:
        """Takes its time."""
        time.sleep(float(seconds))

    def deaf(self) -> None:
        """Closes stdout, but lives."""
        os.close(1)
        self.silence()

    def stubborn(self) -> None:
        """Ignores TERM and the end of stdin from here on."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._out.stubborn = True

    def child(self) -> None:
        """Starts a process of its own that ignores TERM and holds its pipes."""
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.silence()

    def stderr(self) -> None:
        """Floods stderr with 10 MB."""
        for _ in range(160):
            os.write(2, b"x" * 65536)

    def nothing(self) -> None:
        """Prints empty lines."""
        self._out.write(b"\n\r\n  \n")

    def unknown(self) -> None:
        """Prints messages of unknown types."""
        self._out.write(line({"type": "telepathy", "of": [1]}), line({"type": "system"}))
        self._out.write(event("aura", colour="blue"), event("content_block_delta", index=0,
                        delta={"type": "smell_delta"}))  # fmt: skip

    def prose(self) -> None:
        """Prints something that is not JSON."""
        self._out.write(b"Segmentation fault (core dumped)\n")

    def broken(self) -> None:
        """Prints half a message."""
        self._out.write(b'{"type": "stream_ev\n')

    def noise(self) -> None:
        """Prints bytes that are not text."""
        self._out.write(b"\xff\xfe\x00\xc3\x28\n")

    def array(self) -> None:
        """Prints JSON that is not a message."""
        self._out.write(b"[1, 2]\n")

    def deep(self) -> None:
        """Prints JSON of 100,000 levels."""
        self._out.write(b"[" * 100_000 + b"\n")

    def endless(self) -> None:
        """Prints 80 MB without a newline."""
        for _ in range(80):
            self._out.write(b"x" * (1 << 20))

    def shapeless(self) -> None:
        """Prints an event without its required fields."""
        self._out.write(event("content_block_start", index=1))

    def number(self) -> None:
        """Prints a delta whose text is a number."""
        self._out.write(event("content_block_delta", index=0, delta={"type": "text_delta",
                        "text": 5}))  # fmt: skip

    def stray(self) -> None:
        """Prints a delta of a block that has not begun."""
        self._out.write(event("content_block_delta", index=7, delta={"type": "text_delta",
                        "text": "x"}))  # fmt: skip

    def begin(self) -> None:
        """Begins a message."""
        self._out.note("went on")
        self._out.write(opening())

    def end(self) -> None:
        """Ends the message, or the next, without a reason."""
        self._out.write(event("message_stop"))

    def result(self) -> None:
        """Ends the turn with a good result."""
        self._out.write(result("fine"))

    def error(self, seconds: str = "0") -> None:
        """Ends the turn with an error, after some time."""
        time.sleep(float(seconds))
        self._out.write(result("API Error: 500 no", is_error=True, api_error_status=500))

    def refuse(self) -> None:
        """Answers a control request with an error."""
        self._out.write(refused("ready", "no such request"))


class _Out:
    """Stdout, and the journal."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.cut = 0
        self.stubborn = False

    def write(self, *lines: bytes) -> None:
        data = memoryview(b"".join(lines))
        while data:
            data = data[os.write(1, data[: self.cut or len(data)]) :]

    def note(self, what: str) -> None:
        with open(f"{self._folder}/journal", "a") as file:
            file.write(what + "\n")


class _In:
    """Stdin, of which a line can be looked for before it is its turn."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._pieces: list[bytes] = []  # of the line that has begun; joined once, as lines are long
        self._open = True

    def __iter__(self) -> Iterator[Any]:
        while self._lines or self._open:
            if self._lines:
                yield json.loads(self._lines.popleft())
            else:
                self._read()

    def rewind_came(self, seconds: float) -> bool:
        """Whether a rewind waits, or comes within ``seconds``."""
        until = time.monotonic() + seconds
        while not any(b'"rewind_conversation"' in said for said in self._lines):
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not self._open:
                time.sleep(left)
            elif select.select([0], [], [], left)[0]:
                self._read()
        return True

    def _read(self) -> None:
        data = os.read(0, 65536)
        self._open = bool(data)
        first, *others = data.split(b"\n")
        self._pieces.append(first)
        for piece in others:
            self._lines.append(b"".join(self._pieces))
            self._pieces = [piece]


class _Interrupted(Exception):
    """A rewind has come in mid-answer."""


class CLI:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._out = _Out(folder)
        self._in = _In()
        self._faults = Faults(self._out)
        self._plan: dict[str, Any] = {}
        self._orders: dict[str, str] = {}
        self._held: list[tuple[str, str]] = []  # role and id of each message
        self._waiting: set[str] = set()
        self._results: list[str] = []
        self._calls = 0
        self._then = ""
        self._prefix = ""

    def run(self, arguments: Sequence[str]) -> None:
        self._read_plan()
        if arguments[:1] == ["--version"]:
            print(self._plan.get("version", VERSION))
        else:
            self._serve()

    def _serve(self) -> None:
        self._out.note("start")
        self._at("start")
        for said in self._in:
            self._read_plan()
            try:
                self._take(said)
            except _HeldBack:
                continue
            except _Interrupted:
                self._out.write(result(subtype="error_during_execution", is_error=True))
                self._out.write(cancelled(self._held[-1][1]))
        self._at("closed")
        if self._waiting:
            time.sleep(0.01)  # the real one makes up a result, and that takes it longer
            self._out.note("went on")
        if self._out.stubborn:
            self._faults.silence()

    def _read_plan(self) -> None:
        with open(f"{self._folder}/plan.json") as file:
            self._plan = {**json.load(file), **self._orders}

    def _at(self, point: str) -> None:
        self._do(str(self._plan.get(point, "")))

    def _do(self, fault: str) -> None:
        word, _, argument = fault.partition(" ")
        if word:
            getattr(self._faults, word)(*[argument] if argument else [])

    def _take(self, said: Any) -> None:
        if said["type"] == "control_request":
            self._control(said["request_id"], said["request"])
        elif said["type"] == "control_response":
            self._returned(said["response"])
        elif said["type"] == "assistant":
            self._held.append(("assistant", said["message"]["id"]))
        elif said.get("shouldQuery") is False:
            self._held.append(("user", said["uuid"]))
            self._at("history")
            self._out.write(completed(said["uuid"]))
        else:
            self._held.append(("user", said["uuid"]))
            self._out.write(lifecycle(said["uuid"], "started"))
            self._answer(_text(said["message"]["content"]))

    def _control(self, request_id: str, request: Any) -> None:
        subtype = request["subtype"]
        if subtype == "interrupt":
            self._waiting.clear()
        elif subtype == "rewind_conversation":
            self._rewind(request_id, request)
        elif subtype == "list_models":
            self._at("ready")
            self._out.write(ready(request_id))
            self._at("warm")
        elif subtype == "initialize":
            self._at("setup")
            self._serve_tools(request.get("sdkMcpServers", ()))
            source = "user" if self._plan.get("logged_in", True) else "none"
            self._out.write(response(request_id, account={"tokenSource": source}))
        elif subtype == "mcp_set_servers":
            self._at("servers")
            added = list(request["servers"])
            self._serve_tools(added)
            self._out.write(response(request_id, added=added, removed=[], errors={}))
            for server in added:
                for method in ("initialize", "notifications/initialized", "tools/list"):
                    self._out.write(mcp_request(method, {"method": method}, server))
        else:
            self._at("flags")

    def _serve_tools(self, servers: Sequence[str]) -> None:
        plain = "CLAUDE_AGENT_SDK_MCP_NO_PREFIX" in os.environ
        self._prefix = "" if plain or not servers else f"mcp__{servers[0]}__"

    def _rewind(self, request_id: str, request: Any) -> None:
        how = self._plan.get("rewinds", "well")
        target = ("user", request["target_message_uuid"])
        if how == "unknown":
            self._out.write(refused(request_id, "Unsupported control request subtype"))
            return
        if target not in self._held:
            self._out.write(rewound_not(request_id, "target_not_found"))
            return
        self._at("rewind")
        lines = [line_id for role, line_id in self._held if role == "user"]
        last = request.get("last_seen_user_message_uuid")
        if target[1] != lines[-1] and last != lines[-1]:
            how = "unseen_later_turn" if last else "stale_target"
        if how not in ("well", "partly"):
            self._out.write(rewound_not(request_id, how))
            return
        at = self._held.index(target)
        before = self._held[at - 1][1] if at else None
        if how == "partly":
            before = "kept"
        del self._held[at:]
        self._orders = {}
        self._then = ""
        self._waiting.clear()
        self._results = []
        self._out.note("rewind")
        self._out.write(rewound(request_id, target[1], before))

    def _returned(self, response: Any) -> None:
        if response["request_id"] not in self._waiting:
            return
        content = response["response"]["mcp_response"]["result"]["content"]
        self._results += [part.get("text", "") for part in content]
        self._waiting.discard(response["request_id"])
        if not self._waiting:
            results, self._results = self._results, []
            self._answer(f"the tool says {' and '.join(results)}")

    def _answer(self, asked: str) -> None:
        orders = _ORDER.findall(asked)
        calls = [order.split(" ", 1) for name, order in orders if name == "call"]
        self._orders = {name: order for name, order in orders if name != "call"}
        self._read_plan()
        plan, out = self._plan, self._out
        self._do(self._then)
        self._then = str(plan.get("then", ""))
        out.cut = int(plan.get("cut", 0))
        out.note("turn")
        self._at("question")
        out.write(requesting())
        self._at("asked")
        if plan.get("error"):
            status = int(plan["error"])
            out.write(result(f"API Error: {status} no", is_error=True, api_error_status=status))
            return
        out.write(line({"type": "system", "subtype": "init"}), opening())
        said = str(plan.get("answer", f"You said: {_ORDER.sub('', asked)}"))
        self._stream(said, "x" * int(plan.get("size", 1)), int(plan.get("deltas", 1)) - 1)
        ids = [f"toolu{os.getpid()}x{self._calls + n}" for n in range(len(calls))]
        self._calls += len(calls)
        for n, (name, arguments) in enumerate(calls):
            out.write(*call_block(ids[n], self._prefix + name, arguments, n + 1))
        self._at("stop")
        self._held.append(("assistant", f"answer{len(self._held)}"))
        out.write(closing(plan.get("reason", "tool_use" if calls else "end_turn")))
        for call_id, (name, _) in zip(ids, calls, strict=True):
            self._call(call_id, name)
        self._at("parked" if calls else "result")
        if not calls:
            out.write(result(said))
            self._at("kept")

    def _stream(self, first: str, rest: str, count: int) -> None:
        """A text block: the delta ``first``, and so many others of ``rest``."""
        pause, out = float(self._plan.get("pause", 0)), self._out
        start, opening_delta, stop = text_block([first])
        _, delta, _ = text_block([rest])
        out.write(start, opening_delta)
        self._at("middle")
        if pause:
            began = time.monotonic()
            for number in range(1, count + 1):
                if self._in.rewind_came(began + number * pause - time.monotonic()):
                    raise _Interrupted
                out.write(delta)
        else:
            at_once = max(1, 65536 // len(delta))
            for done in range(0, count, at_once):
                out.write(delta * min(at_once, count - done))
        out.write(stop)

    def _call(self, call_id: str, name: str) -> None:
        self._waiting.add(call_id)
        self._out.write(tools_call(call_id, name, call_id))


def _text(blocks: Sequence[Any]) -> str:
    return "".join(block.get("text") or _text(block.get("content", ())) for block in blocks)


def main() -> None:
    """``sys.argv``: the double's directory, then what a ``claude`` gets."""
    CLI(sys.argv[1]).run(sys.argv[2:])
