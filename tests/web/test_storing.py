"""A reply that promises a stored object ends once that is stored; and what becomes of requests
while the store does not answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread, until
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.internet.defer import ensureDeferred as run
from websockets.sync.client import connect

from claudeproxy.store.database import StoreLost
from claudeproxy.store.sqlite import SQLite
from claudeproxy.testing import fake_cli

pytestmark = pytest.mark.cli

RESPONSES, CHAT, CONVERSATIONS = "/v1/responses", "/v1/chat/completions", "/v1/conversations"
ASK = {"model": "haiku", "input": "Hello"}
STORED_CHAT = {
    "model": "haiku",
    "store": True,
    "messages": [{"role": "user", "content": "Hello"}],
}


class Switch:
    """The file of the store: it waits, or is lost, on order. A real one does neither."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = self.waits = False
        self.waiting: list[Callable[[], object]] = []
        self.monkeypatch = monkeypatch
        run = SQLite.run

        def switched(file: SQLite, work: Any, *args: Any) -> Deferred[Any]:
            if file._path.name != "responses.sqlite" or not (self.lost or self.waits):
                return run(file, work, *args)
            if self.lost:
                return fail(StoreLost())
            done: Deferred[Any] = Deferred()
            self.waiting.append(lambda: run(file, work, *args).chainDeferred(done))
            return done

        def since(file: SQLite) -> float | None:
            return 1.0 if self.lost and file._path.name == "responses.sqlite" else None

        monkeypatch.setattr(SQLite, "run", switched)
        monkeypatch.setattr(SQLite, "lost_since", property(since))

    def hang(self) -> None:
        self.waits = True
        self.monkeypatch.setattr("claudeproxy.web.storing.PATIENCE", 0.2)

    def go_on(self) -> None:
        self.waits = False
        for begin in self.waiting:
            begin()


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    return Switch(monkeypatch)


async def made(make_daemon: Any, tmp_path: Path, **changes: Any) -> Daemon:
    """A daemon whose CLI takes a moment, so that something can happen meanwhile."""
    cli = fake_cli(tmp_path / "cli", deltas=4, pause=0.1)
    daemon: Daemon = await make_daemon(claude=cli, **changes)
    return daemon


async def told(response: Any, code: int = 200) -> Any:
    body = await treq.json_content(response)
    assert response.code == code, body
    return body


async def get(url: str) -> Any:
    return await treq.get(url)


def events(body: bytes) -> list[Any]:
    lines = [line for line in body.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def ignored(response: Any) -> Any:
    return response.headers.getRawHeaders("x-claudemax-ignored")


def ask_socket(daemon: Daemon, **fields: Any) -> Any:
    """The last event of a turn over a WebSocket."""
    url = daemon.url.replace("http", "ws", 1) + RESPONSES
    with connect(url, max_size=None, proxy=None) as socket:
        socket.send(json.dumps({"type": "response.create", **ASK, **fields}))
        while True:
            event = json.loads(socket.recv(timeout=30))
            if event["type"] in ("response.completed", "response.failed", "error"):
                return event


@pytest.mark.parametrize(("path", "body"), [(RESPONSES, ASK), (CHAT, STORED_CHAT)])
@ensureDeferred
async def test_a_reply_comes_once_it_is_stored(
    make_daemon: Any, tmp_path: Path, switch: Switch, path: str, body: Any
) -> None:
    daemon = await made(make_daemon, tmp_path)
    switch.waits = True
    asking = run(daemon.post(path, body))
    await until(lambda: switch.waiting)
    assert not asking.called
    switch.go_on()
    response = await asking
    answer = await told(response)
    assert ignored(response) is None
    assert (await treq.get(f"{daemon.url}{path}/{answer['id']}")).code == 200


@pytest.mark.parametrize(("path", "body"), [(RESPONSES, ASK), (CHAT, STORED_CHAT)])
@ensureDeferred
async def test_only_the_end_of_a_stream_waits(
    make_daemon: Any, tmp_path: Path, switch: Switch, path: str, body: Any
) -> None:
    daemon = await made(make_daemon, tmp_path)
    switch.waits = True
    response = await daemon.post(path, {**body, "stream": True})
    got: list[bytes] = []
    reading = run(treq.collect(response, got.append))
    await until(lambda: switch.waiting)
    await until(lambda: b"You said" in b"".join(got))
    before = b"".join(got)
    assert not reading.called
    assert b'"response.completed"' not in before and b"[DONE]" not in before
    switch.go_on()
    await reading
    whole = events(b"".join(got))
    first = events(before)
    assert whole[: len(first)] == first
    ident = whole[-1]["response"]["id"] if path == RESPONSES else whole[-1]["id"]
    assert (await treq.get(f"{daemon.url}{path}/{ident}")).code == 200


@ensureDeferred
async def test_the_end_of_a_turn_over_a_socket_waits(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    switch.waits = True
    asking = in_thread(ask_socket, daemon)
    await until(lambda: switch.waiting)
    assert not asking.called
    switch.go_on()
    answer = (await asking)["response"]
    assert await told(await treq.get(f"{daemon.url}{RESPONSES}/{answer['id']}")) == answer


@ensureDeferred
async def test_items_of_a_conversation_are_there_at_the_end(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    ident = (await told(await daemon.post(CONVERSATIONS, {})))["id"]
    for body in (ASK, {**ASK, "store": False}):
        await told(await daemon.post(RESPONSES, {**body, "conversation": ident}))
    items = await told(await treq.get(f"{daemon.url}{CONVERSATIONS}/{ident}/items"))
    assert len(items["data"]) == 4


@ensureDeferred
async def test_a_client_that_leaves_frees_its_conversation_once_its_items_are_there(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    ident = (await told(await daemon.post(CONVERSATIONS, {})))["id"]
    body = {**ASK, "conversation": ident}
    leaving = run(daemon.post(RESPONSES, body))
    await until(lambda: daemon.api.engine.admission.running == 1)
    switch.waits = True
    await until(lambda: switch.waiting)
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    await until(lambda: not daemon.api.journal.running)
    await told(await daemon.post(RESPONSES, body), 409)
    switch.go_on()
    while (reply := await daemon.post(RESPONSES, body)).code == 409:
        pass
    await told(reply)
    items = await told(await treq.get(f"{daemon.url}{CONVERSATIONS}/{ident}/items"))
    assert len(items["data"]) == 4


@ensureDeferred
async def test_a_background_response_begins_and_ends_in_the_store(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    switch.waits = True
    asking = run(daemon.post(RESPONSES, {**ASK, "background": True}))
    await until(lambda: len(daemon.api.engine.processes) and switch.waiting)
    await until(lambda: daemon.api.engine.admission.running == 0)
    assert not asking.called
    switch.go_on()
    first = await told(await asking)
    assert (first["status"], first["store"]) == ("queued", True)
    one = f"{daemon.url}{RESPONSES}/{first['id']}"

    async def completed() -> Any:
        while True:
            found = await told(await treq.get(one))
            if found["status"] == "completed":
                return found

    found = await completed()
    assert daemon.api.journal.running == {}
    then = {**ASK, "previous_response_id": found["id"]}
    assert (await daemon.post(RESPONSES, then)).code == 200

    second = await told(await daemon.post(RESPONSES, {**ASK, "background": True}))
    switch.waits, switch.waiting = True, []
    await until(lambda: switch.waiting)
    one = f"{daemon.url}{RESPONSES}/{second['id']}"
    asking = run(get(one))
    got: list[bytes] = []
    reading = run(treq.collect(await get(f"{one}?stream=true"), got.append))
    await until(lambda: got)
    assert not asking.called and not reading.called
    assert events(b"".join(got))[-1]["type"] != "response.completed"
    switch.go_on()
    assert (await told(await asking))["status"] == "completed"
    await reading
    assert events(b"".join(got))[-1]["type"] == "response.completed"


@pytest.mark.expected_errors
@pytest.mark.parametrize("lost", [True, False])
@ensureDeferred
async def test_a_store_that_fails_meanwhile_keeps_no_reply(
    make_daemon: Any, tmp_path: Path, switch: Switch, nothing_logged: list[str], lost: bool
) -> None:
    daemon = await made(make_daemon, tmp_path)

    async def during(path: str, body: Any) -> Any:
        """The reply, when the store fails after the request has come."""
        switch.lost = switch.waits = False
        asking = run(daemon.post(path, body))
        await until(lambda: daemon.api.engine.admission.running == 1)
        switch.lost = lost
        switch.hang()
        return await asking

    response = await during(RESPONSES, ASK)
    assert ignored(response) == ["store"]
    assert (await told(response))["store"] is False
    response = await during(CHAT, STORED_CHAT)
    assert ignored(response) == ["store"]
    body = await treq.content(await during(RESPONSES, {**ASK, "stream": True}))
    last = events(body)[-1]
    assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert [line.split(": ")[0] for line in nothing_logged] == [
        "{what} is not stored",
    ] * 3
    nothing_logged.clear()


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_background_response_that_cannot_be_stored(
    make_daemon: Any, tmp_path: Path, switch: Switch, nothing_logged: list[str]
) -> None:
    daemon = await made(make_daemon, tmp_path)
    first = await told(await daemon.post(RESPONSES, {**ASK, "background": True}))
    switch.hang()
    one = f"{daemon.url}{RESPONSES}/{first['id']}"
    last = events(await treq.content(await treq.get(f"{one}?stream=true")))[-1]
    assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert await told(await treq.get(one)) == last["response"]
    assert len(nothing_logged) == 1
    response = await daemon.post(RESPONSES, {**ASK, "background": True})
    assert ignored(response) == ["store"]
    assert (await told(response))["store"] is False
    switch.go_on()
    await until(lambda: not daemon.api.journal.running)
    nothing_logged.clear()


@ensureDeferred
async def test_what_needs_a_lost_store_is_refused_by_name(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    conversation = (await told(await daemon.post(CONVERSATIONS, {})))["id"]
    response = (await told(await daemon.post(RESPONSES, ASK)))["id"]
    chat = (await told(await daemon.post(CHAT, STORED_CHAT)))["id"]
    switch.lost = True
    turns = daemon.api.journal.running
    item = {"type": "item_reference", "id": f"msg_{response.removeprefix('resp_')}x0"}
    message = {"role": "user", "content": "x"}
    posts: list[tuple[str, Any]] = [
        (RESPONSES, {**ASK, "previous_response_id": response}),
        (RESPONSES, {**ASK, "conversation": conversation}),
        (RESPONSES, {**ASK, "background": True}),
        (RESPONSES, {**ASK, "input": [item, message]}),
        (f"{RESPONSES}/compact", {**ASK, "previous_response_id": response}),
        (f"{RESPONSES}/input_tokens", {**ASK, "previous_response_id": response}),
        (f"{RESPONSES}/{response}/cancel", {}),
        (CONVERSATIONS, {}),
        (f"{CONVERSATIONS}/{conversation}", {"metadata": {}}),
        (f"{CONVERSATIONS}/{conversation}/items", {"items": [{"type": "message", **message}]}),
        (f"{CHAT}/{chat}", {"metadata": {}}),
    ]
    others: list[tuple[str, str]] = [
        ("GET", f"{RESPONSES}/{response}"),
        ("GET", f"{RESPONSES}/{response}?stream=true"),
        ("GET", f"{RESPONSES}/{response}/input_items"),
        ("DELETE", f"{RESPONSES}/{response}"),
        ("GET", f"{CONVERSATIONS}/{conversation}"),
        ("GET", f"{CONVERSATIONS}/{conversation}/items"),
        ("GET", f"{CONVERSATIONS}/{conversation}/items/msg_x"),
        ("DELETE", f"{CONVERSATIONS}/{conversation}/items/msg_x"),
        ("DELETE", f"{CONVERSATIONS}/{conversation}"),
        ("GET", CHAT),
        ("GET", f"{CHAT}/{chat}"),
        ("GET", f"{CHAT}/{chat}/messages"),
        ("DELETE", f"{CHAT}/{chat}"),
    ]
    replies = [(path, await daemon.post(path, body)) for path, body in posts]
    replies += [(path, await treq.request(how, daemon.url + path)) for how, path in others]
    for path, reply in replies:
        error = (await treq.json_content(reply))["error"]
        assert (reply.code, error["code"]) == (503, "store_lost"), path
        assert error["type"] == "server_error"
        assert reply.headers.getRawHeaders("retry-after") == ["5"]
        assert reply.headers.getRawHeaders("x-should-retry") is None
    event = await in_thread(ask_socket, daemon, previous_response_id=response)
    assert (event["status"], event["error"]["code"]) == (503, "store_lost")
    assert event["headers"]["retry-after"] == "5"
    assert not turns
    switch.lost = False
    again = await daemon.post(RESPONSES, {**ASK, "previous_response_id": response})
    assert again.code == 200


@ensureDeferred
async def test_what_needs_no_store_is_answered_while_it_is_lost(
    make_daemon: Any, tmp_path: Path, switch: Switch
) -> None:
    daemon = await made(make_daemon, tmp_path)
    switch.lost = True
    for body, named in ((ASK, None), ({**ASK, "store": True}, ["store"])):
        response = await daemon.post(RESPONSES, body)
        assert ignored(response) == named
        assert (await told(response))["store"] is False
    response = await daemon.post(CHAT, STORED_CHAT)
    assert (response.code, ignored(response)) == (200, ["store"])

    def talk() -> list[Any]:
        url = daemon.url.replace("http", "ws", 1) + RESPONSES
        told = []
        previous = None
        with connect(url, max_size=None, proxy=None) as socket:
            for _ in range(2):
                more = {"previous_response_id": previous}
                socket.send(json.dumps({"type": "response.create", **ASK, **more}))
                while (event := json.loads(socket.recv(timeout=30)))["type"] != (
                    "response.completed"
                ):
                    pass
                previous = event["response"]["id"]
                told.append(event["response"]["store"])
        return told

    assert await in_thread(talk) == [False, False]
