"""Nothing that is said and no key is left anywhere: canaries on every way through the real CLI."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from otlp_collector import Collector, collecting
from subdaemon import Twistd, wait
from websockets.sync.client import unix_connect

from claudeproxy.cli import launch

WORDS = (
    "system user answer history tool-description tool-schema tool-arguments tool-result "
    "tool-error image-data document-data schema-text stop-text upstream-error header-value "
    "url-value bad-body bad-json model-name api-key wrong-key upstream-key user-field"
).split()
CANARY = {word: f"CANARYx{number:02d}x{word.replace('-', '')}" for number, word in enumerate(WORDS)}
"""No blanks or dashes, so that nothing cuts them."""

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)


class Clients:
    """Sends to one daemon; after each reply it looks at all command lines."""

    def __init__(self, daemon: Twistd) -> None:
        self._daemon = daemon
        self.seen: set[str] = set()

    def send(
        self, body: Any, path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        known = {
            "content-type": "application/json",
            "authorization": f"Bearer {CANARY['api-key']}",
            "x-canary": CANARY["header-value"],
            "baggage": f"a={CANARY['header-value']}",
            "tracestate": f"a={CANARY['header-value']}",
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        }
        connection.request("POST", f"{path}?q={CANARY['url-value']}", data, {**known, **headers})
        self._look()
        reply = connection.getresponse()
        text = reply.read().decode()
        self._look()
        return reply.status, text

    def scrape(self) -> str:
        """The metrics."""
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        key = {"authorization": f"Bearer {CANARY['api-key']}"}
        connection.request("GET", f"/metrics?q={CANARY['url-value']}", headers=key)
        return connection.getresponse().read().decode()

    def over_a_socket(self, *bodies: Any) -> list[str]:
        """The last event of each turn."""
        told = []
        headers = {"authorization": f"Bearer {CANARY['api-key']}"}
        uri = f"ws://localhost/v1/responses?q={CANARY['url-value']}"
        path = str(self._daemon.socket)
        with unix_connect(path, uri=uri, additional_headers=headers) as socket:
            for body in bodies:
                socket.send(json.dumps(body))
                while True:
                    event = json.loads(socket.recv(timeout=60))
                    if event["type"] in ("response.completed", "error"):
                        break
                told.append(json.dumps(event))
                self._look()
        return told

    def chat(self, *messages: Any, **fields: Any) -> tuple[int, str]:
        said = [{"role": "system", "content": CANARY["system"]}, *messages]
        body = {"model": "sonnet", "messages": said, "user": CANARY["user-field"], **fields}
        return self.send(body)

    def refused(self) -> str:
        """What the daemon remembers of the requests it refused."""
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        connection.request("GET", "/v1/debug/refused", headers={"x-api-key": CANARY["api-key"]})
        return connection.getresponse().read().decode()

    def page(self) -> str:
        """All that the page shows to who has signed in."""
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = self._daemon.connect()
        form = {"content-type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/page/sign-in", f"key={CANARY['api-key']}", form)
        reply = connection.getresponse()
        assert reply.status == 303, reply.read()
        reply.read()
        cookie = (reply.headers["set-cookie"] or "").partition(";")[0]
        shown = []
        for path in ("/", "/page/main", "/page/tokens-24h-620.svg"):
            connection.request("GET", path, headers={"cookie": cookie, "accept": "text/html"})
            reply = connection.getresponse()
            shown.append(reply.read().decode())
            assert reply.status == 200, shown[-1]
        return "\n".join(shown)

    def _look(self) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    line = (entry / "cmdline").read_bytes()
                    self.seen.update(w for w, c in CANARY.items() if c.encode() in line)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(word: str, orders: str = "") -> dict[str, Any]:
    return user(f"{CANARY[word]} {orders}")


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": CANARY["tool-description"],
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string", "description": CANARY["tool-schema"]}},
            },
        },
    }
]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "a",
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": CANARY["schema-text"]}},
        },
    },
}


def call(client: Clients, result: Any, **more: Any) -> None:
    """A tool call, and the result that comes back while it waits."""
    asked = said("user", f'[[call look {{"a": "{CANARY["tool-arguments"]}"}}]]')
    status, text = client.chat(asked, tools=TOOLS)
    assert status == 200, text
    answer = json.loads(text)["choices"][0]["message"]
    (made,) = answer["tool_calls"]
    tool = {"role": "tool", "tool_call_id": made["id"], "content": result}
    status, text = client.chat(asked, answer, tool, tools=TOOLS, **more)
    assert status == 200, text


def every_way(client: Clients) -> None:
    """Every path a word can take, errors among them."""
    for stream in (False, True):
        answer = f"[[say {CANARY['answer']}]]"
        status, text = client.chat(said("user", answer), stream=stream)
        assert status == 200 and CANARY["answer"] in text, text
        for order, expected in (
            (f"[[error 400 {CANARY['upstream-error']}]]", 400),
            (f"[[error 401 {CANARY['upstream-error']}]]", 401),
            (f"[[error 429 {CANARY['upstream-error']}]]", 429),
            (f"[[error 500 {CANARY['upstream-error']}]]", 500),
            (f"[[error 529 {CANARY['upstream-error']}]]", 529),
        ):
            status, text = client.chat(said("user", order), stream=stream)
            assert status == expected, text
        for order in (f"[[error-mid 500 {CANARY['upstream-error']}]]", "[[pause 0.1]][[drop]]"):
            status, text = client.chat(said("user", answer + order), stream=stream)
            assert status >= 500 or '"error"' in text, text
    client.chat(said("user"), {"role": "assistant", "content": CANARY["history"]}, said("user"))
    client.chat(said("user"), stop=[CANARY["stop-text"]])
    client.chat(said("user"), response_format=SCHEMA)
    image = {"url": f"data:image/png;base64,{PICTURE}"}
    client.chat(user([{"type": "text", "text": CANARY["user"]}, {"type": "image_url", "image_url":
                image}]))  # fmt: skip
    client.chat(user([{"type": "image_url", "image_url":
                {"url": f"data:image/png;base64,{CANARY['image-data']}"}}]))  # fmt: skip
    call(client, CANARY["tool-result"])
    call(client, CANARY["tool-result"] * 20_000)  # the CLI would save it to disk
    call(client, [{"type": "text", "text": CANARY["tool-result"]}, {"type": "image_url",
         "image_url": image}])  # fmt: skip
    error = {"type": "tool_result", "tool_use_id": "toolu1", "is_error": True,
             "content": CANARY["tool-error"]}  # fmt: skip
    use = {"type": "tool_use", "id": "toolu1", "name": "look",
           "input": {"a": CANARY["tool-arguments"]}}  # fmt: skip
    anthropic = {"model": "sonnet", "max_tokens": 50, "system": CANARY["system"], "messages": [
        said("user"), {"role": "assistant", "content": [use]}, user([error])], "tools": [
        {"name": "look", "description": CANARY["tool-description"],
         "input_schema": {"type": "object"}}]}  # fmt: skip
    status, text = client.send(anthropic, "/v1/messages")
    assert status == 200, text
    response = {"model": "sonnet", "input": CANARY["user"], "instructions": CANARY["system"],
                "store": False}  # fmt: skip
    status, text = client.send(response, "/v1/responses")
    assert status == 200, text
    status, text = client.send(
        {"model": "sonnet", "input": CANARY["user"]}, "/v1/responses/compact"
    )
    assert status == 200, text
    asked = {"type": "response.create", "model": "sonnet", "store": False}
    told = client.over_a_socket(
        {**asked, "input": CANARY["user"], "instructions": CANARY["system"]},
        {**asked, "input": [{"type": CANARY["bad-body"]}]},
        {"type": CANARY["bad-body"]},
    )
    assert CANARY["user"] in told[-3]
    # Bad input.
    client.send({"items": [{"type": CANARY["bad-body"]}]}, "/v1/conversations")
    client.send(
        {"model": "sonnet", "input": "x", "conversation": CANARY["bad-body"]}, "/v1/responses"
    )
    client.send(f'{{"model": "{CANARY["bad-json"]}'.encode())
    client.send({"model": "sonnet", "messages": [{"role": CANARY["bad-body"], "content": "x"}]})
    client.send({"model": CANARY["model-name"], "messages": [said("user")]})
    client.send({"model": "sonnet", "messages": [said("user")]}, "/v1/nothing")
    status, _ = client.send({}, authorization=f"Bearer {CANARY['wrong-key']}")
    assert status == 401
    status, _ = client.send({"model": "sonnet", "messages": [said("user")]}, origin="http://evil")
    assert status == 403


def left(folder: Path) -> dict[str, list[str]]:
    """The canaries in the files below ``folder``: by file, which."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with suppress(OSError):
                data = path.read_bytes() if path.is_file() else b""
                words = [word for word, canary in CANARY.items() if canary.encode() in data]
                if words:
                    found[str(path)] = words
    return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture
def daemon(collector: Collector, tmp_path: Path) -> Iterator[Twistd]:
    home = tmp_path / "h"
    home.mkdir()
    keys = tmp_path / "keys"  # beside what is searched
    keys.write_text(CANARY["api-key"] + "\n")
    keys.chmod(0o600)
    claude = launch.bundled()
    assert claude is not None, "the [cli] extra is not installed"
    running = Twistd(
        home, "--claude", claude, "--demo", "--api-key-file", str(keys), "--idle-timeout", "20",
        "--otlp", collector.url, environ={"CLAUDEMAX_UPSTREAM_KEY": CANARY["upstream-key"]},
    )  # fmt: skip
    yield running.up()
    running.process.kill()
    running.process.wait()


def test_nothing_is_left(daemon: Twistd, collector: Collector) -> None:
    client = Clients(daemon)
    every_way(client)
    refused = client.refused()
    assert refused.count('"request_id"') > 10
    assert [word for word, canary in CANARY.items() if canary in refused] == []
    metrics = client.scrape()
    assert "claudemax_turns_total{" in metrics
    assert [word for word, canary in CANARY.items() if canary in metrics] == []
    home = daemon.log.parent
    assert client.seen == set()
    shown = client.page()
    assert "overloaded" in shown and "signed in as" in shown
    assert [word for word, canary in CANARY.items() if canary in shown] == []
    assert list(home.glob("claudemax-*/config/.claude.json")), "the CLI writes where we look"
    assert left(home) == {}, "while the daemon runs"
    assert daemon.stop() == 0
    assert left(home) == {}, "after its end"
    state = {f".local/state/claudemax/{name}.sqlite" for name in ("responses", "ledger")}
    files = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert files == {"log", "cli/claude", "cli/plan.json", *state}
    assert daemon.log.read_text().count("req_") > 20
    assert len(collector.spans()) > 20 and collector.metrics()
    sent = b"".join(body for _, _, body in collector.received)
    assert [word for word, canary in CANARY.items() if canary.encode() in sent] == []


def test_a_killed_daemon_leaves_nothing_either(daemon: Twistd) -> None:
    client = Clients(daemon)
    call(client, CANARY["tool-result"])
    client.chat(said("user", f'[[call look {{"a": "{CANARY["tool-arguments"]}"}}]]'), tools=TOOLS)
    daemon.process.kill()
    daemon.process.wait()
    wait(lambda: not daemon.children, 5.0)
    assert left(daemon.log.parent) == {}
