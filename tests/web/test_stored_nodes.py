"""Two nodes over one PostgreSQL: what one has stored, or runs, is there for the other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from harness import Daemon, in_thread, until
from postgres import Postgres
from pytest_twisted import ensureDeferred
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.defer import gatherResults
from websockets.sync.client import connect

from claudeproxy.testing import fake_cli

pytestmark = pytest.mark.cli

RESPONSES, CHAT, CONVERSATIONS = "/v1/responses", "/v1/chat/completions", "/v1/conversations"
ASK = {"model": "claude-sonnet-4-5", "input": "Hello"}

Nodes = Callable[..., Awaitable[tuple[Daemon, Daemon]]]


@pytest_twisted.async_fixture
async def nodes(postgres_url: str, make_daemon: Any, tmp_path: Path) -> Nodes:
    """``await nodes(deltas=40)``: two that use one database; with a double of the CLI that does so,
    else with the real one."""

    async def two(**plan: Any) -> tuple[Daemon, Daemon]:
        claude = fake_cli(tmp_path / "cli", **plan) if plan else None
        first = await make_daemon(store=postgres_url, claude=claude)
        second = await make_daemon(store=postgres_url, claude=claude)
        for each in (first, second):
            await until(lambda each=each: len(each.api._kept.nodes.alive))
        return first, second

    return two


async def told(response: Any, code: int = 200) -> Any:
    body = await treq.json_content(response)
    assert response.code == code, body
    return body


async def get(daemon: Daemon, path: str, code: int = 200) -> Any:
    return await told(await treq.get(daemon.url + path), code)


async def post(daemon: Daemon, path: str, body: Any, code: int = 200) -> Any:
    return await told(await daemon.post(path, body), code)


async def begin(daemon: Daemon, **fields: Any) -> str:
    """A background response that runs there. Its path."""
    made = await post(daemon, RESPONSES, {**ASK, "background": True, **fields})
    await until(lambda: daemon.api.engine.admission.running == 1)
    return f"{RESPONSES}/{made['id']}"


def events(body: bytes) -> list[Any]:
    lines = [line for line in body.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def texts(daemon: Daemon) -> list[str]:
    """The texts of the last request upstream."""
    said = []
    for message in daemon.body()["messages"]:
        content = message["content"]
        said += [content] if isinstance(content, str) else [block["text"] for block in content]
    return [text for text in said if not text.startswith("<")]


@ensureDeferred
async def test_what_one_has_stored_the_other_goes_on_with(nodes: Nodes) -> None:
    first, second = await nodes()
    made = await post(first, RESPONSES, ASK)
    assert await get(second, f"{RESPONSES}/{made['id']}") == made
    then = {**ASK, "input": "And?", "previous_response_id": made["id"]}
    more = await post(second, RESPONSES, then)
    assert texts(second) == ["Hello", "You said: Hello", "And?"]
    await post(first, RESPONSES, {**then, "previous_response_id": more["id"]})
    assert len(texts(first)) == 5

    conversation = (await post(first, CONVERSATIONS, {}))["id"]
    for each in (second, first, second):
        await post(each, RESPONSES, {**ASK, "conversation": conversation})
    assert len(texts(second)) == 5
    items = await get(first, f"{CONVERSATIONS}/{conversation}/items")
    assert len(items["data"]) == 6

    message = {"role": "user", "content": "Hello"}
    body = {"model": "claude-sonnet-4-5", "store": True, "messages": [message]}
    kept = await post(first, CHAT, body)
    assert (await get(second, CHAT))["data"][0]["id"] == kept["id"]
    assert (len(first.turns()), len(second.turns())) == (4, 3)


@ensureDeferred
async def test_a_stream_that_has_ended_is_there_on_the_other(nodes: Nodes) -> None:
    first, second = await nodes(deltas=2)

    def over_socket() -> Any:
        url = first.url.replace("http", "ws", 1) + RESPONSES
        with connect(url, max_size=None, proxy=None) as socket:
            socket.send(json.dumps({"type": "response.create", **ASK}))
            while (event := json.loads(socket.recv(timeout=30)))["type"] != "response.completed":
                pass
            return event["response"]

    for _ in range(20):
        body = await treq.content(await first.post(RESPONSES, {**ASK, "stream": True}))
        made = events(body)[-1]["response"]
        assert await get(second, f"{RESPONSES}/{made['id']}") == made
        made = await in_thread(over_socket)
        assert await get(second, f"{RESPONSES}/{made['id']}") == made


@ensureDeferred
async def test_a_conversation_has_one_response_at_a_time_on_all_nodes(nodes: Nodes) -> None:
    first, second = await nodes(deltas=10, pause=0.05)
    body = {**ASK, "conversation": (await post(first, CONVERSATIONS, {}))["id"]}
    asking = run(first.post(RESPONSES, body))
    await until(lambda: first.api.engine.admission.running == 1)
    error = (await post(second, RESPONSES, body, 409))["error"]
    assert (error["code"], error["param"]) == ("conversation_locked", "conversation")
    await told(await asking)
    streamed = await treq.content(await second.post(RESPONSES, {**body, "stream": True}))
    assert events(streamed)[-1]["type"] == "response.completed"
    path = await begin(first, conversation=body["conversation"])
    await post(second, RESPONSES, body, 409)
    await treq.content(await treq.get(f"{first.url}{path}?stream=true"))

    async def ask(daemon: Daemon) -> int:
        return int((await daemon.post(RESPONSES, body)).code)

    codes = await gatherResults([run(ask(each)) for each in (first, second) * 5])
    assert sorted(codes) == [200] + [409] * 9
    asking = run(second.post(RESPONSES, body))
    await until(lambda: second.api.engine.admission.running == 1)
    asking.addErrback(lambda _: None)
    asking.cancel()  # the client leaves
    await until(lambda: second.api.engine.admission.running == 0)
    await until(lambda: not second.api._kept.leases.held)
    await post(first, RESPONSES, body)
    items = await get(second, f"{CONVERSATIONS}/{body['conversation']}/items")
    assert len(items["data"]) == 2 * 5


@ensureDeferred
async def test_a_conversation_of_a_node_that_is_dead_is_free(
    nodes: Nodes, postgres: Postgres, postgres_url: str
) -> None:
    first, second = await nodes(deltas=10, pause=0.05)
    body = {**ASK, "conversation": (await post(first, CONVERSATIONS, {}))["id"]}
    asking = run(first.post(RESPONSES, body))
    await until(lambda: first.api.engine.admission.running == 1)
    await post(second, RESPONSES, body, 409)
    die(first, postgres, postgres_url)
    await post(second, RESPONSES, body)
    await told(await asking)


def die(daemon: Daemon, postgres: Postgres, url: str) -> None:
    """To the other nodes, this one is dead: it has said nothing for 20 seconds."""
    daemon.api._kept.nodes._beating.stop()
    sql = "UPDATE claudemax.nodes SET seen = seen - INTERVAL '20 seconds' WHERE id = '{}'"
    postgres.execute(sql.format(daemon.api.node), url.rpartition("/")[2])
    daemon.api._kept.nodes._beating.start(60.0, now=False)


@ensureDeferred
async def test_a_background_response_is_told_by_the_other(nodes: Nodes) -> None:
    first, second = await nodes(deltas=20, pause=0.05)
    path = await begin(first)
    assert (await get(second, path))["status"] in ("queued", "in_progress")
    body = {**ASK, "previous_response_id": path.rpartition("/")[2]}
    error = (await post(second, RESPONSES, body, 400))["error"]
    assert "not complete yet" in error["message"]
    whole = await treq.content(await treq.get(f"{second.url}{path}?stream=true"))
    here = await treq.content(await treq.get(f"{first.url}{path}?stream=true"))
    assert events(whole) == events(here)
    assert events(whole)[-1]["type"] == "response.completed"
    assert len(events(whole)) > 20
    rest = await treq.content(await treq.get(f"{second.url}{path}?stream=true&starting_after=9"))
    assert events(rest) == events(whole)[10:]
    assert await get(second, path) == events(whole)[-1]["response"]
    await post(second, RESPONSES, body)


@ensureDeferred
async def test_a_background_response_is_ended_by_the_other(nodes: Nodes) -> None:
    first, second = await nodes(deltas=200, pause=0.05)
    path = await begin(first)
    found = await told(await treq.post(f"{second.url}{path}/cancel"))
    assert found["status"] == "cancelled"
    assert await get(first, path) == await get(second, path) == found
    await until(lambda: first.api.engine.admission.running == 0)
    assert await told(await treq.post(f"{second.url}{path}/cancel")) == found

    path = await begin(first)
    following = run(treq.content(await treq.get(f"{first.url}{path}?stream=true")))
    assert (await told(await treq.delete(second.url + path)))["deleted"]
    for each in (first, second):
        await get(each, path, 404)
    await following
    await until(lambda: first.api.engine.admission.running == 0)
    await get(second, path, 404)
    assert (await treq.delete(second.url + path)).code == 404


@ensureDeferred
async def test_news_that_are_lost_are_told_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await nodes(deltas=200, pause=0.05)
    path = await begin(first)
    tell, lost = second.api._kept.news.tell, []

    def lossy(kind: str, what: Any) -> None:
        lost.append(kind)
        if len(lost) > 1:
            tell(kind, what)

    monkeypatch.setattr(second.api._kept.news, "tell", lossy)
    found = await told(await treq.post(f"{second.url}{path}/cancel"))
    assert (found["status"], lost) == ("cancelled", ["response.cancel"] * 2)


@ensureDeferred
async def test_a_node_that_does_not_end_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claudeproxy.web.elsewhere.PATIENCE", 0.5)
    first, second = await nodes(deltas=200, pause=0.05)
    path = await begin(first)
    first.api._kept.news.heard.clear()
    for reply in (
        await treq.post(f"{second.url}{path}/cancel"),
        await treq.delete(second.url + path),
    ):
        assert (await told(reply, 503))["error"]["code"] == "node_unreachable"
        assert reply.headers.getRawHeaders("retry-after") == ["1"]
    assert (await get(second, path))["status"] == "queued"


@ensureDeferred
async def test_what_ran_on_a_node_that_is_dead_is_told_as_failed(
    nodes: Nodes, postgres: Postgres, postgres_url: str
) -> None:
    first, second = await nodes(deltas=60, pause=0.05)
    path = await begin(first)
    response = run(treq.content(await treq.get(f"{second.url}{path}")))
    assert json.loads(await response)["status"] == "queued"

    async def follow() -> bytes:
        body: bytes = await treq.content(await treq.get(f"{second.url}{path}?stream=true"))
        return body

    following = run(follow())
    die(first, postgres, postgres_url)
    found = await get(second, path)
    assert found["status"] == "failed"
    assert "has ended" in found["error"]["message"]
    assert events(await following)[-1]["response"]["status"] == "failed"
    assert (await told(await treq.post(f"{second.url}{path}/cancel")))["status"] == "failed"


@pytest.mark.expected_errors
@ensureDeferred
async def test_what_could_not_be_stored_is_although_the_store_was_there(
    nodes: Nodes, postgres: Postgres, postgres_url: str
) -> None:
    first, second = await nodes(deltas=10, pause=0.05)
    table, database = "ALTER TABLE claudemax.responses", postgres_url.rpartition("/")[2]
    postgres.execute(f"{table} ADD CONSTRAINT begun CHECK (node IS NOT NULL)", database)
    path = await begin(first)
    await until(lambda: first.api.engine.admission.running == 0)
    assert (await get(first, path))["store"] is False
    assert (await get(second, path))["status"] == "queued"
    postgres.execute(f"{table} DROP CONSTRAINT begun", database)
    there = await treq.get(f"{second.url}{path}?stream=true")
    assert events(await treq.content(there))[-1]["type"] == "response.completed"
    made = await get(first, path)
    assert made["store"] is True
    assert made == await get(second, path)


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_store_that_is_lost_and_back(
    nodes: Nodes, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudeproxy.web.sse.KEEP_ALIVE", 0.1)
    first, second = await nodes(deltas=30, pause=0.05)
    path = await begin(first)
    here, there = [await treq.get(f"{each.url}{path}?stream=true") for each in (first, second)]
    following, elsewhere = run(treq.content(here)), run(treq.content(there))
    postgres.stop("immediate")
    error = (await get(second, path, 503))["error"]
    assert error["code"] == "store_lost"
    ignored = await first.post(RESPONSES, {**ASK, "store": True, "input": "x"})
    assert ignored.headers.getRawHeaders("x-claudemax-ignored") == ["store"]
    last = events(await following)[-1]
    assert (last["type"], last["response"]["store"]) == ("response.completed", False)
    assert (await get(first, path))["status"] == "completed"
    postgres.start()
    for each in (first, second):
        await until(lambda each=each: not each.api._kept.store.lost)
    assert events(await elsewhere)[-1]["type"] == "response.completed"
    assert (await get(second, path))["status"] == "completed"
    await post(second, RESPONSES, {**ASK, "previous_response_id": path.rpartition("/")[2]})
