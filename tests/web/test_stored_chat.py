"""Stored chat completions, with the official SDK."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import treq
from harness import Daemon, in_thread, until
from pytest_twisted import ensureDeferred

from claudeproxy.testing import fake_cli

pytestmark = [
    pytest.mark.cli,
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

CHAT = "/v1/chat/completions"


def sdk(daemon: Daemon) -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key="none", max_retries=0)


async def ask(daemon: Daemon, text: Any, **fields: Any) -> Any:
    create: Callable[..., Any] = sdk(daemon).chat.completions.create
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": text}]
    asked = {"model": "haiku", "store": True, **fields}
    return await in_thread(create, messages=messages, **asked)


@ensureDeferred
async def test_a_completion_is_stored_changed_and_deleted(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = sdk(daemon).chat.completions
    made = await ask(daemon, "Hello", metadata={"topic": "a"})
    found = await in_thread(client.retrieve, made.id)
    assert found.to_dict() == {**made.to_dict(), "metadata": {"topic": "a"}}
    response = await daemon.post(f"/v1/chat/completions/{made.id}", {})
    refused = await treq.json_content(response)
    assert (response.code, refused["error"]["param"]) == (400, "metadata")
    changed = await in_thread(client.update, made.id, metadata={"topic": "b"})
    assert changed.to_dict() == {**made.to_dict(), "metadata": {"topic": "b"}}
    parts = [{"type": "text", "text": "in parts"}]
    other = await ask(daemon, parts)
    messages = await in_thread(client.messages.list, made.id)
    assert [(m.role, m.content) for m in messages] == [("system", "Be brief"), ("user", "Hello")]
    [last] = (await in_thread(client.messages.list, other.id, order="desc", limit=1)).data
    assert (last.id, last.content) == (f"{other.id}-1", None)
    assert [part.to_dict() for part in last.content_parts] == parts
    assert (await in_thread(client.delete, made.id)).deleted
    for use in (client.retrieve, client.delete, client.messages.list):
        with pytest.raises(openai.NotFoundError):
            await in_thread(use, made.id)
    with pytest.raises(openai.NotFoundError):
        await in_thread(client.update, made.id, metadata={})


@ensureDeferred
async def test_only_what_is_asked_to_be_and_what_is_whole(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = sdk(daemon).chat.completions
    await ask(daemon, "x", store=False)
    with pytest.raises(openai.APIError):
        await ask(daemon, "[[middle exit]]")
    assert (await in_thread(client.list)).data == []

    def stream() -> str:
        create: Callable[..., Any] = client.create
        message = {"role": "user", "content": "Hello"}
        chunks = list(create(model="haiku", messages=[message], stream=True, store=True))
        return str(chunks[-1].id)

    ident = await in_thread(stream)
    [kept] = (await in_thread(client.list)).data
    assert kept.id == ident
    assert kept.choices[0].message.content.startswith("You said")


@ensureDeferred
async def test_lists_are_filtered_and_paged(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    client = sdk(daemon).chat.completions
    made = []
    for number, model in enumerate(("haiku", "sonnet", "haiku", "haiku")):
        topic = {"topic": "a'; --" if number % 2 else "b", "n": f"{number}"}
        made.append((await ask(daemon, f"{number}", model=model, metadata=topic)).id)

    def idents(**query: Any) -> list[str]:
        return [one.id for one in client.list(**query)]

    assert await in_thread(idents) == made
    assert await in_thread(idents, order="desc", limit=1) == made[::-1]
    assert await in_thread(idents, limit=3) == made
    assert await in_thread(idents, model="haiku") == [made[0], made[2], made[3]]
    assert await in_thread(idents, metadata={"topic": "a'; --"}) == [made[1], made[3]]
    assert await in_thread(idents, metadata={"topic": "b", "n": "2"}) == [made[2]]
    assert await in_thread(idents, metadata={"n": "%"}) == []
    page = await treq.json_content(await treq.get(f"{daemon.url}{CHAT}?limit=2"))
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[0], made[1], True)
    for query in ("limit=0", "limit=x", "order=up", "after=nowhere"):
        response = await treq.get(f"{daemon.url}{CHAT}?{query}")
        assert response.code == 400
        told = await treq.json_content(response)
        assert told["error"]["param"] == query.partition("=")[0]


@ensureDeferred
async def test_a_key_sees_no_completion_of_another(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("mine: mine\nguest: guest\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    body = {"model": "haiku", "store": True, "messages": [{"role": "user", "content": "x"}]}
    made = await treq.json_content(await daemon.post(CHAT, body, authorization="Bearer mine"))
    path = f"{CHAT}/{made['id']}"
    for key, code in (("guest", 404), ("mine", 200)):
        sent = {"authorization": f"Bearer {key}"}
        listed = await treq.json_content(await treq.get(daemon.url + CHAT, headers=sent))
        assert len(listed["data"]) == (code == 200)
        for read in (path, f"{path}/messages"):
            assert (await treq.get(daemon.url + read, headers=sent)).code == code
        assert (await daemon.post(path, {"metadata": {}}, **sent)).code == code
        after = await treq.get(f"{daemon.url}{CHAT}?after={made['id']}", headers=sent)
        assert after.code == (200 if code == 200 else 400)
    for key, code in (("guest", 404), ("mine", 200)):
        sent = {"authorization": f"Bearer {key}"}
        assert (await treq.delete(daemon.url + path, headers=sent)).code == code


@ensureDeferred
async def test_without_a_store(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_store=True)
    body = {"model": "haiku", "store": True, "messages": [{"role": "user", "content": "x"}]}
    response = await daemon.post(CHAT, body)
    assert response.code == 200
    assert response.headers.getRawHeaders("x-claudemax-ignored") == ["store"]
    for path in (CHAT, f"{CHAT}/chatcmpl-x", f"{CHAT}/chatcmpl-x/messages"):
        assert (await treq.get(daemon.url + path)).code == 404


@pytest.mark.expected_errors
@ensureDeferred
async def test_a_full_disk(
    make_daemon: Any, tmp_path: Path, nothing_logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(daemon.api._kept.store.completions, "_put", full)
    made = await ask(daemon, "Hello")
    await until(lambda: bool(nothing_logged))
    nothing_logged.clear()
    with pytest.raises(openai.NotFoundError):
        await in_thread(sdk(daemon).chat.completions.retrieve, made.id)
