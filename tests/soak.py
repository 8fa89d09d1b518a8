"""The soak: thousands of mixed turns, with faults and clients that leave, through one daemon.

``make soak``, or ``SOAK_TURNS=500 python tests/soak.py``. First over the double of the CLI, which
fails in every way: each answer has to carry the marker of its own question. Then over the real one,
some of whose processes are killed: nothing that reaches the upstream may carry the marker of
another client, and nothing is asked twice. Printed as it goes: memory, descriptors and processes of
the daemon, which have to stay flat, and in the end how the turns were placed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

sys.path[:0] = [str(Path(__file__).parent / "faults"), str(Path(__file__).parents[1])]

from harness import newest_cli  # noqa: E402
from subdaemon import Twistd, wait  # noqa: E402
from twisted.internet import task  # noqa: E402
from twisted.internet.defer import ensureDeferred, gatherResults  # noqa: E402
from twisted.internet.endpoints import UNIXClientEndpoint  # noqa: E402
from twisted.internet.task import LoopingCall, deferLater  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from walk import Walk  # noqa: E402

from claudeproxy.demo.app import DemoUpstream, Received, listen  # noqa: E402

TURNS = int(os.environ.get("SOAK_TURNS", "10000"))
CLIENTS = 6
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
FAULTS = (
    "question exit", "question crash", "question broken", "question error", "question kill",
    "middle exit", "middle crash", "middle broken", "middle begin", "middle number", "middle kill",
    "stop end", "error 429", "question child]][[middle exit",
)  # fmt: skip
HARMLESS = (
    "cut 7", "middle unknown", "middle array", "question prose", "result exit", "kept exit",
    "kept kill", "kept broken", "question stubborn", "deltas 50",
)  # fmt: skip

BRACKETS = (b"[" * 5_000_000, b"[[]," * 1_000_000, b'{"a":' * 500_000)
"""Bodies that only cost."""

HEAD = "  turns  seconds  RSS MB   fds  processes  largest, MB  wrong"
"""Of the daemon, of all CLIs, and of the largest of them."""

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

    def brackets(self) -> int:
        """A body that only costs: it is refused, and the others go on."""
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        body = self._chance.choice(BRACKETS)
        head = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/chat/completions", body, head)
        reply = connection.getresponse()
        assert reply.status in (400, 413), reply.status
        assert json.loads(reply.read())["error"]["message"]
        connection.close()
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
    (Client.fault, 12), (Client.leave, 7), (Client.bad, 3), (Client.brackets, 1),
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
        print(HEAD)

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
        done = self.done.total()
        self.looks.append(looked(self._daemon, done, self._began, len(self.wrong)))


async def main(reactor: Any) -> None:
    for folder in ("double", "real"):
        with tempfile.TemporaryDirectory(prefix="soak") as home:
            if folder == "double":
                options = ("--concurrency", str(CLIENTS), "--processes", str(CLIENTS))
                await deferToThread(run_on, Twistd(Path(home), *options), soak)
            else:
                await over_the_real_cli(reactor, Path(home))


def run_on(daemon: Twistd, work: Callable[[Twistd], None]) -> None:
    try:
        work(daemon.up())
    finally:
        daemon.process.kill()


def soak(daemon: Twistd) -> None:
    """Run it, and hold the figures against what is expected."""
    run = Soak(daemon)
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(run.work, range(CLIENTS)))
    run.look()
    ended(daemon, run.looks, run.wrong, str(dict(run.done)))


def ended(daemon: Twistd, looks: list[Any], wrong: list[str], done: str) -> None:
    """Nothing is left at work, and after its end nothing at all; it has not grown."""
    health = wait(lambda: _at_rest(daemon), 60.0)
    wait(lambda: len(daemon.children) == health["warm"] + health["kept"], 30.0)
    status = daemon.stop()
    left = daemon.children
    log = daemon.log.read_text()
    print(done, "at rest:", health, "exit", status, "left", left, flush=True)
    assert not wrong and status == 0 and not left, wrong
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
    early, late = looks[1], looks[-1]
    assert late[1] < early[1] * 1.3 + 10, "memory grows"
    assert late[2] <= early[2] + 10, "descriptors leak"


def looked(daemon: Twistd, done: int, began: float, wrong: int) -> tuple[int, int, int, int]:
    """What the daemon and its CLIs take, printed."""
    pid, children = daemon.process.pid, daemon.children
    rss, fds = _megabytes(pid), len(os.listdir(f"/proc/{pid}/fd"))
    largest = max(map(_megabytes, children), default=0)
    print(f"{done:7} {time.monotonic() - began:8.0f} {rss:7} {fds:5} {len(children):10} "
          f"{largest:12} {wrong:6}", flush=True)  # fmt: skip
    return done, rss, fds, len(children)


def _megabytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


async def over_the_real_cli(reactor: Any, home: Path) -> None:
    """Random clients, see :mod:`walk`, and somebody who kills processes meanwhile."""
    endpoint = UNIXClientEndpoint(reactor, str(home / "claudemax.sock"))
    walk = Walk(reactor, endpoint, TURNS, disturbed=True)

    def answer(received: Received) -> None:
        walk.heard(received.body)

    upstream = DemoUpstream(reactor, answer=answer, keep=1)
    port, url = await listen(reactor, upstream)
    options = ("--concurrency", str(CLIENTS), "--processes", str(CLIENTS), "--claude", newest_cli())
    daemon = Twistd(home, *options, "--upstream", url)
    try:
        await deferToThread(daemon.up)
        began = time.monotonic()
        looks: list[Any] = []
        chance = random.Random(0)

        def watch() -> None:
            if walk.done * 10 // TURNS >= len(looks):
                looks.append(looked(daemon, walk.done, began, len(walk.wrong)))

        async def disturb() -> None:
            while not walk.over:
                await deferLater(reactor, chance.uniform(0.5, 5.0), lambda: None)
                if chance.random() < 0.5 and daemon.children:
                    with suppress(ProcessLookupError):
                        os.kill(chance.choice(daemon.children), signal.SIGKILL)
                else:
                    got = await walk.send(chance.choice(BRACKETS))
                    if got[9:12] not in (b"400", b"413"):
                        walk.wrong.append(f"brackets: {got[:200]!r}")

        print(HEAD)
        watching = LoopingCall(watch)
        watching.start(0.2)
        await gatherResults([ensureDeferred(disturb()), ensureDeferred(walk.run(0, CLIENTS))])
        watching.stop()
        walk.judge()
        looks.append(looked(daemon, walk.done, began, len(walk.wrong)))
        await deferToThread(ended, daemon, looks, walk.wrong, f"{walk.done} {dict(walk.ways)}")
    finally:
        daemon.process.kill()
        await port.stopListening()


def _at_rest(daemon: Twistd) -> dict[str, int] | None:
    health = json.load(daemon.get("/health"))
    busy = health["turns"]["running"] + health["turns"]["waiting"] + health["processes"]["starting"]
    return None if busy else health["processes"]


if __name__ == "__main__":
    task.react(lambda reactor: ensureDeferred(main(reactor)))
