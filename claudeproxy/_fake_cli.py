"""The program behind :func:`claudeproxy.testing.fake_cli`; which see for plans and points."""

# The standard library only, and no site packages, so that it starts in 40 ms.
from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from claudeproxy.testing import (
    call_block,
    closing,
    completed,
    event,
    line,
    opening,
    ready,
    response,
    result,
    text_block,
)

VERSION = "2.1.330 (Claude Code)"

_ORDER = re.compile(r"\[\[(\w+) (.*?)\]\]", re.DOTALL)


class Faults:
    """What can go wrong at a point. Unless said otherwise the process goes on as if nothing was."""

    def __init__(self, out: _Out) -> None:
        self._out = out

    def exit(self) -> None:
        """Exits with status 1."""
        os._exit(1)

    def crash(self) -> None:
        """Dies of SIGSEGV."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def silence(self) -> None:
        """Reads and says nothing any more."""
        while True:
            time.sleep(3600)

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
        """Prints messages of types nobody knows."""
        self._out.write(line({"type": "telepathy", "of": [1]}), line({"type": "system"}))
        self._out.write(event("aura", colour="blue"), event("content_block_delta", index=0,
                        delta={"type": "smell_delta"}))  # fmt: skip

    def prose(self) -> None:
        """Prints what is no JSON."""
        self._out.write(b"Segmentation fault (core dumped)\n")

    def noise(self) -> None:
        """Prints bytes that are no text."""
        self._out.write(b"\xff\xfe\x00\xc3\x28\n")

    def array(self) -> None:
        """Prints JSON that is no message."""
        self._out.write(b"[1, 2]\n")

    def deep(self) -> None:
        """Prints JSON of 100,000 levels."""
        self._out.write(b"[" * 100_000 + b"\n")

    def endless(self) -> None:
        """Prints 80 MB without a newline."""
        for _ in range(80):
            self._out.write(b"x" * (1 << 20))

    def shapeless(self) -> None:
        """Prints an event that lacks what it must have."""
        self._out.write(event("content_block_start", index=1))

    def number(self) -> None:
        """Prints a delta whose text is a number."""
        self._out.write(event("content_block_delta", index=0, delta={"type": "text_delta",
                        "text": 5}))  # fmt: skip

    def stray(self) -> None:
        """Prints a delta of a block that was never begun."""
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
        answer = {"subtype": "error", "request_id": "ready", "error": "no such request"}
        self._out.write(line({"type": "control_response", "response": answer}))


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


class CLI:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._out = _Out(folder)
        self._faults = Faults(self._out)
        self._plan: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._results: list[str] = []
        self._calls = 0
        self._then = ""

    def run(self, arguments: Sequence[str]) -> None:
        self._read_plan()
        if arguments[:1] == ["--version"]:
            print(self._plan.get("version", VERSION))
        elif arguments[:2] == ["auth", "status"]:
            print(json.dumps({"loggedIn": self._plan.get("logged_in", True)}))
        else:
            self._serve()

    def _serve(self) -> None:
        self._out.note("start")
        self._at("start")
        for said in iter(sys.stdin.buffer.readline, b""):
            self._read_plan()
            self._take(json.loads(said))
        self._at("closed")
        if self._waiting:
            time.sleep(0.01)  # the real one makes up a result, and that takes it longer
            self._out.note("went on")
        if self._out.stubborn:
            self._faults.silence()

    def _read_plan(self) -> None:
        with open(f"{self._folder}/plan.json") as file:
            self._plan = json.load(file)

    def _at(self, point: str) -> None:
        self._do(str(self._plan.get(point, "")))

    def _do(self, fault: str) -> None:
        word, _, argument = fault.partition(" ")
        if word:
            getattr(self._faults, word)(*[argument] if argument else [])

    def _take(self, said: Any) -> None:
        if said["type"] == "control_request":
            point = {"list_models": "ready", "initialize": "setup"}.get(
                said["request"]["subtype"], "flags"
            )
            self._at(point)
            if point == "ready":
                self._out.write(ready(said["request_id"]))
                self._at("warm")
            elif point == "setup":
                self._out.write(response(said["request_id"]))
        elif said["type"] == "control_response":
            self._returned(said["response"])
        elif said["type"] == "user" and said.get("shouldQuery") is False:
            self._at("history")
            self._out.write(completed(said["uuid"]))
        elif said["type"] == "user":
            self._answer(_text(said["message"]["content"]))

    def _returned(self, response: Any) -> None:
        content = response["response"]["mcp_response"]["result"]["content"]
        self._results += [part.get("text", "") for part in content]
        self._waiting.discard(response["request_id"])
        if not self._waiting:
            results, self._results = self._results, []
            self._answer(f"the tool says {' and '.join(results)}")

    def _answer(self, asked: str) -> None:
        orders = _ORDER.findall(asked)
        calls = [order.split(" ", 1) for name, order in orders if name == "call"]
        self._plan.update((name, order) for name, order in orders if name != "call")
        plan, out = self._plan, self._out
        self._do(self._then)
        self._then = str(plan.get("then", ""))
        out.cut = int(plan.get("cut", 0))
        out.note("turn")
        self._at("question")
        if plan.get("error"):
            status = int(plan["error"])
            out.write(result(f"API Error: {status} no", is_error=True, api_error_status=status))
            return
        out.write(line({"type": "system", "subtype": "init"}), opening())
        said = str(plan.get("answer", f"You said: {_ORDER.sub('', asked)}"))
        self._stream([said, *["x" * int(plan.get("size", 1))] * (int(plan.get("deltas", 1)) - 1)])
        ids = [f"toolu{os.getpid()}x{self._calls + n}" for n in range(len(calls))]
        self._calls += len(calls)
        for n, (name, arguments) in enumerate(calls):
            out.write(*call_block(ids[n], name, arguments, n + 1))
        self._at("stop")
        out.write(closing(plan.get("reason", "tool_use" if calls else "end_turn")))
        for call_id, (name, _) in zip(ids, calls, strict=True):
            self._call(call_id, name)
        self._at("parked" if calls else "result")
        if not calls:
            out.write(result(said))
            self._at("kept")

    def _stream(self, parts: Sequence[str]) -> None:
        pause, out = float(self._plan.get("pause", 0)), self._out
        lines = text_block(parts)
        out.write(next(lines), next(lines))
        self._at("middle")
        waiting: list[bytes] = []
        size = 0
        for part in lines:
            if pause:
                time.sleep(pause)
            waiting.append(part)
            size += len(part)
            if pause or size > 65536:
                out.write(*waiting)
                waiting, size = [], 0
        out.write(*waiting)

    def _call(self, call_id: str, name: str) -> None:
        meta = {"claudecode/toolUseId": call_id}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                   "params": {"name": name, "_meta": meta}}  # fmt: skip
        request = {"subtype": "mcp_message", "server_name": "c", "message": message}
        self._waiting.add(call_id)
        self._out.write(line({"type": "control_request", "request_id": call_id,
                              "request": request}))  # fmt: skip


def _text(blocks: Sequence[Any]) -> str:
    return "".join(block.get("text") or _text(block.get("content", ())) for block in blocks)


def main() -> None:
    """``sys.argv``: the double's directory, then what a ``claude`` gets."""
    CLI(sys.argv[1]).run(sys.argv[2:])
