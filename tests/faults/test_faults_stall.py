"""Bodies that would keep everybody waiting, on a daemon in a process of its own.

What another client waits is counted in the daemon's CPU, so that a busy machine changes nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from matrix import cases
from subdaemon import Twistd, wait

from claudeproxy.messages import MAX_VALUES
from claudeproxy.testing import fake_cli

TICKS = os.sysconf("SC_CLK_TCK")
SIZE = 60_000_000


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    running = Twistd(tmp_path_factory.mktemp("d")).up()
    fake_cli(running.log.parent / "cli", answer="An answer.")
    yield running
    assert running.stop() == 0
    wait(lambda: not running.children)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak(pid: int) -> int:
    """The most memory it has used since that was last cleared, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


class Other:
    """Another client, who asks for ``/health`` all the time; ``waited``: the longest, in seconds
    of the daemon's CPU."""

    def __init__(self, daemon: Twistd) -> None:
        self.waited = 0.0
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Other:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        pid = self._daemon.process.pid
        while not self._stop.wait(0.05):
            before = cpu(pid)
            assert self._daemon.get("/health").status == 200
            self.waited = max(self.waited, cpu(pid) - before)


def body(content: str = '"x"', more: str = "") -> bytes:
    return f'{{"model":"sonnet","messages":[{{"role":"user","content":{content}}}]{more}}}'.encode()


def messages(number: int) -> bytes:
    said = [{"role": "user", "content": "x"}] * number
    return json.dumps({"model": "sonnet", "messages": said}).encode()


def turns(number: int) -> bytes:
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * number
    said.append({"role": "user", "content": "x"})
    return json.dumps({"model": "sonnet", "messages": said}).encode()


def arguments(text: str) -> bytes:
    function = {"name": "look", "arguments": text}
    calls = [{"id": "a", "type": "function", "function": function}]
    said = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "y"},
    ]
    return json.dumps({"model": "sonnet", "messages": said}).encode()


def filled(item: str) -> str:
    """An array as large as a body may be."""
    return "[" + f"{item}," * (SIZE // (len(item) + 1)) + "0]"


ARRAY = ("413; nobody waits for a second", 413)
TEXT = ("served; nobody waits for a second", 200)


def hostile(name: str, made: Callable[[], bytes], seen: tuple[str, int] = ARRAY) -> Any:
    return (name, seen[0], made, seen[1])


@cases(
    "client",
    hostile("sends 60 MB of brackets", lambda: body(more=f',"metadata":{filled("[]")}')),
    hostile("sends 60 MB of braces", lambda: body(more=f',"metadata":{filled("{}")}')),
    hostile("sends 60 MB of open brackets", lambda: b"[" * SIZE),
    hostile("sends 60 MB of numbers", lambda: body(more=f',"metadata":{filled("1.5")}')),
    hostile("sends 60 MB of empty strings",
            lambda: body(more=f',"metadata":{filled(chr(34) * 2)}')),
    hostile("sends 60 MB of backslashes, then numbers",
            lambda: body('"' + "\\\\" * (SIZE // 2) + '"', ',"a":[' + "0," * 300_000 + "0]")),
    hostile("sends 60 MB of integers of 4,000 digits",
            lambda: body(more=f',"metadata":{filled("9" * 4_000)}'),
            ("400; nobody waits for a second", 400)),
    hostile("sends 900,000 messages", lambda: messages(900_000)),
    hostile("sends 60 MB of brackets as the arguments of a call",
            lambda: arguments(filled("[]")), ("400; nobody waits for a second", 400)),
    hostile("sends as many messages as it may", lambda: messages(MAX_VALUES // 3 - 5), TEXT),
    hostile("sends as many turns as it may", lambda: turns(5_000), TEXT),
    hostile("sends a text of 60 MB", lambda: body('"' + "x" * SIZE + '"'), TEXT),
    hostile("sends a text of 60 MB that is full of brackets",
            lambda: body('"' + "[,:{" * (SIZE // 4) + '"'), TEXT),
    hostile("sends a text of 60 MB that is no ASCII",
            lambda: body('"' + "é" * (SIZE // 2) + '"'), TEXT),
)  # fmt: skip
def test_nobody_waits_for_it(daemon: Twistd, case: Any) -> None:
    made, status = case
    data = made()
    # When the machine is busy for a moment, a second of CPU does less. What the daemon itself does
    # to others, it does every time.
    assert min(waited(daemon, data, status) for _ in range(2)) < 1.0
    assert peak(daemon.process.pid) < 900


def waited(daemon: Twistd, data: bytes, status: int) -> float:
    """How long others had to wait for this body."""
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    client = HTTPConnection("localhost")
    client.sock = daemon.connect()
    client.sock.settimeout(150)
    with Other(daemon) as other:
        client.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
        reply = client.getresponse()
        said = reply.read()
    client.close()
    assert reply.status == status, said[:300]
    assert len(said) < 2_000
    return other.waited
