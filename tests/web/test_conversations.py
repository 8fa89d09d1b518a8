"""Conversations: the API with the official SDK, and responses that belong to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import treq
from harness import Daemon, in_thread, until
from pytest_twisted import ensureDeferred
from twisted.internet.defer import ensureDeferred as run

from claudeproxy.testing import fake_cli

pytestmark = [
    pytest.mark.cli,
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

MODEL = "claude-sonnet-4-5"
DEVELOPER = {"type": "message", "role": "developer", "content": "Be brief"}
USER = {"type": "message", "role": "user", "content": "Hello"}


def sdk(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)


async def ask(daemon: Daemon, text: Any, **fields: Any) -> Any:
    create: Callable[..., Any] = sdk(daemon).responses.create
    return await in_thread(create, model=MODEL, input=text, **fields)


def texts(daemon: Daemon, ident: str) -> list[str]:
    items: Any = sdk(daemon).conversations.items.list(ident, order="asc")
    return [part.text for item in items for part in item.content]


@ensureDeferred
async def test_a_conversation_is_made_changed_and_deleted(daemon: Daemon) -> None:
    client = sdk(daemon).conversations
    made = await in_thread(client.create, metadata={"topic": "a"}, items=[USER])
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "a"})
    assert await in_thread(client.retrieve, made.id) == made
    changed = await in_thread(client.update, made.id, metadata={"topic": "b"})
    assert changed.to_dict() == {**made.to_dict(), "metadata": {"topic": "b"}}
    assert (await in_thread(client.delete, made.id)).deleted
    for use in (client.retrieve, client.delete, client.items.list):
        with pytest.raises(openai.NotFoundError):
            await in_thread(use, made.id)


@ensureDeferred
async def test_the_items_of_a_conversation(daemon: Daemon) -> None:
    client = sdk(daemon).conversations
    made = await in_thread(client.create)
    assert made.metadata == {}
    more: list[Any] = [{**USER, "content": f"{n}", "id": "msg_mine"} for n in range(20)]
    added = await in_thread(client.items.create, made.id, items=more)
    assert [item.content[0].text for item in added.data] == [f"{n}" for n in range(20)]
    assert len({item.id for item in added.data}) == 20
    first = added.data[0]
    assert await in_thread(client.items.retrieve, first.id, conversation_id=made.id) == first
    page = await in_thread(client.items.list, made.id, limit=3)
    assert [item.content[0].text for item in page.data] == ["19", "18", "17"]
    assert page.has_more
    assert await in_thread(texts, daemon, made.id) == [f"{n}" for n in range(20)]
    left = await in_thread(client.items.delete, first.id, conversation_id=made.id)
    assert left == made
    assert await in_thread(texts, daemon, made.id) == [f"{n}" for n in range(1, 20)]
    for use in (client.items.retrieve, client.items.delete):
        with pytest.raises(openai.NotFoundError):
            await in_thread(use, first.id, conversation_id=made.id)


@ensureDeferred
async def test_responses_belong_to_a_conversation(daemon: Daemon) -> None:
    client = sdk(daemon)
    made = await in_thread(client.conversations.create, items=[DEVELOPER])
    first = await ask(daemon, "Hello", conversation=made.id)
    assert first.conversation.id == made.id
    second = await ask(daemon, "And?", conversation={"id": made.id}, store=False)
    said = ["Be brief", "Hello", "You said: Hello", "And?", "You said: And?"]
    assert second.output_text == said[-1]
    assert await in_thread(texts, daemon, made.id) == said
    blocks = [block["text"] for m in daemon.body()["messages"] for block in m["content"]]
    assert [text for text in blocks if not text.startswith("<")] == said[1:-1]

    def stream() -> str:
        with client.responses.stream(model=MODEL, input="x", conversation=made.id) as events:
            return events.get_final_response().output_text

    assert await in_thread(stream) == "You said: x"
    assert (await in_thread(texts, daemon, made.id))[-2:] == ["x", "You said: x"]
    stored = await in_thread(client.responses.retrieve, first.id)
    assert stored.output_text == "You said: Hello"


@ensureDeferred
async def test_a_tool_loop_in_a_conversation(daemon: Daemon) -> None:
    made = await in_thread(sdk(daemon).conversations.create)
    tools = [{"type": "function", "name": "add", "parameters": {"type": "object"}}]
    first = await ask(daemon, '[[call add {"a": 1}]]', conversation=made.id, tools=tools)
    result = {
        "type": "function_call_output",
        "call_id": first.output[0].call_id,
        "output": "two",
    }
    last = await ask(daemon, [result], conversation=made.id, tools=tools)
    assert last.output_text == "The tool said: two"
    kinds = [item.type for item in await in_thread(sdk(daemon).conversations.items.list, made.id)]
    assert kinds == ["message", "function_call_output", "function_call", "message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/conversations", {"metadata": {"a": 1}}, "metadata.a"),
        ("/v1/conversations", {"metadata": {"a" * 65: "x"}}, "metadata"),
        ("/v1/conversations", {"metadata": {"a": "x" * 513}}, "metadata.a"),
        ("/v1/conversations", {"metadata": {f"{n}": "x" for n in range(17)}}, "metadata"),
        ("/v1/conversations/conv_any", {}, "metadata"),  # not to be taken for "no metadata"
        ("/v1/conversations", {"items": [USER] * 21}, "items"),
        ("/v1/conversations", {"items": [{"type": "nonsense"}]}, "items[0].type"),
        ("/v1/conversations", {"items": [{"type": "function_call"}]}, "items[0].call_id"),
        (
            "/v1/conversations",
            {"items": [{"type": "item_reference", "id": "msg_1"}]},
            "items[0].type",
        ),
        ("/v1/responses", {"model": MODEL, "input": "x", "conversation": 5}, "conversation"),
        (
            "/v1/responses",
            {"model": MODEL, "input": "x", "conversation": "c", "previous_response_id": "r"},
            "conversation",
        ),
    ],
)
@ensureDeferred
async def test_what_is_refused(daemon: Daemon, path: str, body: Any, param: str) -> None:
    response = await daemon.post(path, body)
    told = await treq.json_content(response)
    assert (response.code, told["error"]["param"]) == (400, param), told


@pytest.mark.parametrize("ident", ["conv_nowhere", "'; DROP TABLE items", "%00", "x" * 4000, "%ff"])
@ensureDeferred
async def test_ids_that_are_none(daemon: Daemon, ident: str) -> None:
    for path in (f"/v1/conversations/{ident}", f"/conversations/{ident}/items/msg_1"):
        response = await treq.get(daemon.url + path)
        assert response.code in (400, 404), await treq.content(response)
        assert len(await treq.content(response)) < 5000
    body = {"model": MODEL, "input": "x", "conversation": ident}
    response = await daemon.post("/v1/responses", body)
    assert response.code == 404, await treq.content(response)
    told = (await treq.json_content(response))["error"]
    assert told["param"] == "conversation"
    assert len(told["message"]) < 200


@ensureDeferred
async def test_one_response_at_a_time(make_daemon: Any, tmp_path: Path) -> None:
    cli = fake_cli(tmp_path / "cli", deltas=20, pause=0.05)
    daemon = await make_daemon(claude=cli)
    made = await in_thread(sdk(daemon).conversations.create)
    body = {"model": "haiku", "input": "x", "conversation": made.id}
    first = run(daemon.post("/v1/responses", body))
    await until(lambda: daemon.api.engine.admission.running == 1)
    second = await daemon.post("/v1/responses", body)
    told = (await treq.json_content(second))["error"]
    assert (second.code, told["code"]) == (409, "conversation_locked")
    assert (await first).code == 200
    assert (await daemon.post("/v1/responses", body)).code == 200
    await until(lambda: daemon.api.engine.admission.running == 0)
    assert len(await in_thread(texts, daemon, made.id)) == 4


@ensureDeferred
async def test_a_key_sees_no_conversation_of_another(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("mine: mine\nguest: guest\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    mine = {"authorization": "Bearer mine"}
    made = await treq.json_content(
        await daemon.post("/v1/conversations", {"items": [USER]}, **mine)
    )
    path = f"/v1/conversations/{made['id']}"
    item = (await treq.json_content(await treq.get(f"{daemon.url}{path}/items", headers=mine)))[
        "first_id"
    ]
    body = {"model": "haiku", "input": "x", "conversation": made["id"]}
    for key, code in (("guest", 404), ("mine", 200)):
        sent = {"authorization": f"Bearer {key}"}
        for read in (path, f"{path}/items", f"{path}/items/{item}"):
            assert (await treq.get(daemon.url + read, headers=sent)).code == code, read
        for write, value in ((path, {"metadata": {}}), (f"{path}/items", {"items": [USER]})):
            assert (await daemon.post(write, value, **sent)).code == code, write
        assert (await daemon.post("/v1/responses", body, **sent)).code == code
        for gone in (f"{path}/items/{item}", path):
            assert (await treq.delete(daemon.url + gone, headers=sent)).code == code, gone


@ensureDeferred
async def test_without_a_store(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_store=True)
    body = {"model": "haiku", "input": "x", "conversation": "conv_1"}
    for path, sent in (("/v1/conversations", {}), ("/v1/responses", body)):
        response = await daemon.post(path, sent)
        assert response.code == 404, await treq.content(response)
    response = await daemon.post("/v1/conversations", {})
    assert "--no-store" in (await treq.json_content(response))["error"]["message"]
