"""The soak: thousands of mixed turns, with faults and clients that leave, through one daemon.

``make soak``, or ``SOAK_TURNS=500 python tests/soak.py``. Every answer has to carry the marker of
its own question. Printed as it goes: memory, descriptors and processes of the daemon, which have
to stay flat.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

sys.path[:0] = [str(Path(__file__).parent / "faults"), str(Path(__file__).parents[1])]

from subdaemon import Twistd, wait  # noqa: E402

TURNS = int(os.environ.get("SOAK_TURNS", "10000"))
CLIENTS = 6
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
FAULTS = (
    "question exit", "question crash", "question prose", "question error", "middle exit",
    "middle crash", "middle array", "middle begin", "middle number", "stop end", "error 429",
    "question child]][[middle exit",
)  # fmt: skip
HARMLESS = (
    "cut 7", "middle unknown", "result exit", "kept exit", "kept prose", "question stubborn",
    "deltas 50",
)  # fmt: skip

Messages = list[dict[str, Any]]


class Client:
    """What one client does, one turn after the other."""

    def __init__(self, daemon: Twistd, chance: random.Random) -> None:
        self._daemon = daemon
        self._chance = chance

    def ask(self, messages: Messages, **fields: Any) -> tuple[int, dict[str, Any], str]:
        """Status, message and error text of one turn, which is streamed or not."""
        stream = self._chance.random() < 0.5
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        body = {"model": "sonnet", "messages": messages, "stream": stream, **fields}
        head = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
        reply = connection.getresponse()
        data = reply.read().decode()
        connection.close()
        if not data.startswith("data: "):
            value = json.loads(data)
            error = value["error"]["message"] if "error" in value else ""
            return reply.status, value["choices"][0]["message"] if not error else {}, error
        return reply.status, *_joined(data)

    def plain(self) -> int:
        marker = uuid4().hex
        order = f"[[{self._chance.choice(HARMLESS)}]]" if self._chance.random() < 0.3 else ""
        status, message, error = self.ask([_user(marker + order)])
        assert status == 200 and not error, (status, error)
        expected = f"You said: {marker}" + ("x" * 49 if "deltas" in order else "")
        assert message["content"] == expected, message
        return 1

    def conversation(self) -> int:
        messages: Messages = []
        for _ in range(3):
            marker = uuid4().hex
            messages.append(_user(marker))
            status, message, error = self.ask(messages)
            assert (status, message.get("content")) == (200, f"You said: {marker}"), error
            messages.append({"role": "assistant", "content": message["content"]})
        return 3

    def tool(self) -> int:
        marker = uuid4().hex
        messages = [_user(f"{marker}[[call look {{}}]]")]
        status, message, error = self.ask(messages, tools=TOOLS)
        assert status == 200 and message["tool_calls"], error
        call = message["tool_calls"][0]["id"]
        messages += [{"role": "assistant", "content": f"You said: {marker}", "tool_calls": [
            {"id": call, "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": call, "content": marker}]  # fmt: skip
        status, message, error = self.ask(messages, tools=TOOLS)
        assert status == 200, error
        parked, replayed = f"You said: the tool says {marker}", f"You said: {marker}"
        assert message["content"] in (parked, replayed), message
        return 2

    def fault(self) -> int:
        marker, order = uuid4().hex, self._chance.choice(FAULTS)
        status, message, error = self.ask([_user(f"{marker}[[{order}]]")])
        assert error and status in (200, 429, 500, 502), (order, status, message)
        assert (message.get("content") or "") in ("", f"You said: {marker}"), message
        return 1

    def leave(self) -> int:
        client = self._daemon.connect()
        body = json.dumps({"model": "sonnet", "stream": True, "messages": [
            _user(uuid4().hex + "[[deltas 500]][[pause 0.01]]")]}).encode()  # fmt: skip
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                       b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                       % (len(body), body))  # fmt: skip
        if self._chance.random() < 0.7:
            client.recv(100)
        client.close()
        return 1

    def bad(self) -> int:
        status, _, error = self.ask([{"role": "nobody", "content": "x"}])
        assert status == 400 and error
        return 1


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _joined(data: str) -> tuple[dict[str, Any], str]:
    """The message and the error of a stream; a stream without an error has its end."""
    events = [line[6:] for line in data.split("\n") if line.startswith("data: ")]
    values = [json.loads(event) for event in events if event != "[DONE]"]
    error = next((value["error"]["message"] for value in values if "error" in value), "")
    assert error or events[-1] == "[DONE]"
    deltas = [choice["delta"] for value in values for choice in value.get("choices", ())]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ()) if call.get("id")]
    text = "".join(delta.get("content") or "" for delta in deltas)
    return {"content": text, "tool_calls": calls}, error


KINDS: tuple[tuple[Callable[[Client], int], int], ...] = (
    (Client.plain, 55), (Client.conversation, 12), (Client.tool, 10),
    (Client.fault, 12), (Client.leave, 7), (Client.bad, 4),
)  # fmt: skip


class Soak:
    """Counts the turns, and looks at the daemon ten times on the way."""

    def __init__(self, daemon: Twistd) -> None:
        self._daemon = daemon
        self._lock = Lock()
        self._began = time.monotonic()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.looks: list[tuple[int, int, int, int]] = []
        print("  turns  seconds  RSS MB   fds  processes  wrong")

    def work(self, seed: int) -> None:
        chance = random.Random(seed)
        client = Client(self._daemon, chance)
        while self.done.total() < TURNS and len(self.wrong) < 10:
            (kind,) = chance.choices([k for k, _ in KINDS], [weight for _, weight in KINDS])
            try:
                turns = kind(client)
            except Exception as error:
                turns = 1
                self.wrong.append(f"{kind.__name__}: {error!r:.300}")
                print(self.wrong[-1], flush=True)
            with self._lock:
                before = self.done.total()
                self.done[kind.__name__] += turns
                if before * 10 // TURNS != self.done.total() * 10 // TURNS:
                    self.look()

    def look(self) -> None:
        proc = Path(f"/proc/{self._daemon.process.pid}")
        rss = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        fds, processes = len(os.listdir(proc / "fd")), len(self._daemon.children)
        self.looks.append((self.done.total(), rss, fds, processes))
        seconds = time.monotonic() - self._began
        print(f"{self.done.total():7} {seconds:8.0f} {rss:7} {fds:5} {processes:10} "
              f"{len(self.wrong):6}", flush=True)  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        options = ("--concurrency", str(CLIENTS), "--warm", "2", "--keep", "4")
        daemon = Twistd(Path(folder), *options)
        try:
            soak(daemon.up())
        finally:
            daemon.process.kill()


def soak(daemon: Twistd) -> None:
    """Run it, and hold the figures against what is expected."""
    run = Soak(daemon)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(run.work, range(CLIENTS)))
    health = wait(lambda: _at_rest(daemon), 30.0)
    wait(lambda: len(daemon.children) == health["warm"] + health["kept"], 30.0)
    run.look()
    status = daemon.stop()
    left = daemon.children
    log = daemon.log.read_text()
    print(dict(run.done), "at rest:", health, "exit", status, "left", left)
    assert not run.wrong and status == 0 and not left
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
    early, late = run.looks[1], run.looks[-1]
    assert late[1] < early[1] * 1.3 + 10, "memory grows"
    assert late[2] <= early[2] + 10, "descriptors leak"


def _at_rest(daemon: Twistd) -> dict[str, int] | None:
    health = json.load(daemon.get("/health"))
    busy = health["turns"]["running"] + health["turns"]["waiting"] + health["processes"]["starting"]
    return None if busy else health["processes"]


if __name__ == "__main__":
    main()
