"""Background responses: polling, streams that can be taken up again, cancelling, restarts."""

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
PATH = "/v1/responses"
OVER = ("completed", "incomplete", "failed", "cancelled")


def sdk(daemon: Daemon, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=daemon.url + "/v1", api_key=key, max_retries=0)


async def begin(daemon: Daemon, text: str = "Hello", **fields: Any) -> Any:
    create: Callable[..., Any] = sdk(daemon).responses.create
    return await in_thread(create, model=MODEL, input=text, background=True, **fields)


async def over(daemon: Daemon, ident: str) -> Any:
    """The response, once it is over."""
    while True:
        found = await in_thread(sdk(daemon).responses.retrieve, ident)
        if found.status in OVER:
            return found


async def slow(make_daemon: Any, tmp_path: Path, **changes: Any) -> Daemon:
    """A daemon whose CLI takes its time."""
    cli = fake_cli(tmp_path / "cli", deltas=40, pause=0.05)
    made: Daemon = await make_daemon(claude=cli, **changes)
    return made


def sent(events: list[Any]) -> list[dict[str, Any]]:
    return [event.to_dict() for event in events]


@ensureDeferred
async def test_a_response_is_polled_until_it_is_complete(daemon: Daemon) -> None:
    first = await begin(daemon)
    assert (first.status, first.output, first.background) == ("queued", [], True)
    last = await over(daemon, first.id)
    assert (last.status, last.output_text) == ("completed", "You said: Hello")
    assert last.usage.output_tokens > 0
    create: Callable[..., Any] = sdk(daemon).responses.create
    then = await in_thread(create, model=MODEL, input="And?", previous_response_id=first.id)
    assert then.output_text == "You said: And?"
    items = await in_thread(sdk(daemon).responses.input_items.list, first.id)
    assert [item.content[0].text for item in items] == ["Hello"]
    await until(lambda: not daemon.api.journal.running)


@ensureDeferred
async def test_what_had_no_effect_is_named_as_in_the_foreground(daemon: Daemon) -> None:
    body = {"model": "claude-sonnet-5-5", "input": "Hello", "temperature": 0.5, "top_logprobs": 1}
    for background in (False, True):
        response = await daemon.post("/v1/responses", {**body, "background": background})
        told = await treq.json_content(response)
        ignored = response.headers.getRawHeaders("x-claudemax-ignored")
        assert ignored == ["top_logprobs, temperature"]
    await over(daemon, told["id"])


@ensureDeferred
async def test_its_stream_can_be_taken_up_anywhere(daemon: Daemon) -> None:
    def whole() -> list[Any]:
        create: Callable[..., Any] = sdk(daemon).responses.create
        return list(create(model=MODEL, input="Hello", background=True, stream=True))

    events = sent(await in_thread(whole))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in events[:2]] == ["queued", "queued"]
    final = events[-1]["response"]
    retrieve: Callable[..., Any] = sdk(daemon).responses.retrieve

    def after(number: int | None) -> list[Any]:
        more = {} if number is None else {"starting_after": number}
        return list(retrieve(final["id"], stream=True, **more))

    assert sent(await in_thread(after, None)) == events
    for number in (0, 3, len(events) - 2):
        assert sent(await in_thread(after, number)) == events[number + 1 :]
    assert await in_thread(after, len(events) + 5) == []
    assert (await in_thread(retrieve, final["id"])).to_dict() == final


@ensureDeferred
async def test_it_runs_on_without_its_client(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await slow(make_daemon, tmp_path)

    def leave() -> str:
        create: Callable[..., Any] = sdk(daemon).responses.create
        with create(model="haiku", input="Hello", background=True, stream=True) as stream:
            return str(next(iter(stream)).response.id)

    ident = await in_thread(leave)
    retrieve: Callable[..., Any] = sdk(daemon).responses.retrieve
    running = await in_thread(retrieve, ident)
    assert running.status in ("queued", "in_progress")

    def rest() -> list[Any]:
        return list(retrieve(ident, stream=True, starting_after=0))

    events = sent(await in_thread(rest))
    assert [event["sequence_number"] for event in events] == list(range(1, len(events) + 1))
    assert len([e for e in events if e["type"] == "response.output_text.delta"]) > 10
    assert events[-1]["type"] == "response.completed"
    assert (await in_thread(retrieve, ident)).to_dict() == events[-1]["response"]


@ensureDeferred
async def test_it_is_cancelled(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await slow(make_daemon, tmp_path)
    first = await begin(daemon)
    client = sdk(daemon).responses

    def rest() -> list[Any]:
        return list(client.retrieve(first.id, stream=True))

    following = run(in_thread(rest))
    await until(lambda: daemon.api.engine.admission.running == 1)
    found = await in_thread(client.cancel, first.id)
    assert (found.status, found.error) == ("cancelled", None)
    events = sent(await following)
    assert events[-1]["type"] == "response.cancelled"
    again = await in_thread(client.cancel, first.id)
    assert again.to_dict() == found.to_dict()
    assert (await over(daemon, first.id)).status == "cancelled"
    await until(lambda: daemon.api.engine.admission.running == 0)
    assert daemon.api.journal.running == {}
    assert (await in_thread(client.retrieve, first.id)).status == "cancelled"
    create: Callable[..., Any] = client.create
    plain = await in_thread(create, model="haiku", input="x")
    with pytest.raises(openai.BadRequestError, match="background"):
        await in_thread(client.cancel, plain.id)
    with pytest.raises(openai.NotFoundError):
        await in_thread(client.cancel, "resp_nowhere")


@ensureDeferred
async def test_deleted_while_it_runs(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await slow(make_daemon, tmp_path)
    first = await begin(daemon)
    await in_thread(sdk(daemon).responses.delete, first.id)
    await until(lambda: daemon.api.engine.admission.running == 0)
    with pytest.raises(openai.NotFoundError):
        await in_thread(sdk(daemon).responses.retrieve, first.id)


@ensureDeferred
async def test_a_failure_is_told_and_kept(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", middle="exit"))
    first = await begin(daemon)
    last = await over(daemon, first.id)
    assert last.status == "failed"
    assert last.error.code == "server_error"
    retrieve: Callable[..., Any] = sdk(daemon).responses.retrieve

    def stream() -> list[Any]:
        return list(retrieve(first.id, stream=True))

    with pytest.raises(openai.APIError):
        await in_thread(stream)


@ensureDeferred
async def test_in_a_conversation(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await slow(make_daemon, tmp_path)
    client = sdk(daemon)
    made = await in_thread(client.conversations.create)
    first = await begin(daemon, conversation=made.id)
    create: Callable[..., Any] = client.responses.create
    with pytest.raises(openai.ConflictError):
        await in_thread(create, model="haiku", input="x", conversation=made.id)
    last = await over(daemon, first.id)
    kept = [
        item.content[0].text for item in await in_thread(client.conversations.items.list, made.id)
    ]
    assert kept == [last.output_text, "Hello"]
    await in_thread(create, model="haiku", input="x", conversation=made.id)


@ensureDeferred
async def test_a_turn_in_ledger_and_quota(make_daemon: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("mine: mine requests=1/day\nguest: guest\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    mine = {"authorization": "Bearer mine"}
    body = {"model": "haiku", "input": "x", "background": True}
    first = await daemon.post(PATH, body, **mine)
    told = await treq.json_content(first)
    assert first.headers.getRawHeaders("x-ratelimit-remaining-requests") == ["0"]
    ident = first.headers.getRawHeaders("x-request-id")[0]
    await until(lambda: not daemon.api.journal.running)
    one = f"{daemon.url}{PATH}/{told['id']}"
    for key, code in (("guest", 404), ("mine", 200)):
        read = {"authorization": f"Bearer {key}"}
        assert (await treq.get(one, headers=read)).code == code
        assert (await treq.get(f"{one}?stream=true", headers=read)).code == code
        assert (await treq.post(f"{one}/cancel", headers=read)).code == code
    assert (await daemon.post(PATH, body, **mine)).code == 429
    row = await treq.json_content(
        await treq.get(f"{daemon.url}/v1/usage/turns/{ident}", headers=mine)
    )
    assert (row["outcome"], row["key"], row["dialect"]) == ("ok", "mine", "responses")
    assert row["reply_bytes"] > 100


@ensureDeferred
async def test_a_complete_response_as_a_stream(daemon: Daemon) -> None:
    create: Callable[..., Any] = sdk(daemon).responses.create
    retrieve: Callable[..., Any] = sdk(daemon).responses.retrieve
    tools = [
        {"type": "function", "name": "add", "parameters": {"type": "object"}},
        {"type": "custom", "name": "patch"},
    ]
    for text in (
        "[[think hm]][[say Hi]]",
        '[[call add {"a": 1}]]',
        '[[call patch {"input": "é"}]]',
    ):
        made = await in_thread(create, model=MODEL, input=text, tools=tools)

        def stream(ident: str = made.id) -> list[Any]:
            return list(retrieve(ident, stream=True))

        events = await in_thread(stream)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[0].type == "response.created"
        assert events[-1].response.to_dict() == made.to_dict()
        done = [e.item.to_dict() for e in events if e.type == "response.output_item.done"]
        assert done == [item.to_dict() for item in made.output]


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "9" * 30, "%00"])
@ensureDeferred
async def test_no_number_of_an_event(daemon: Daemon, after: str) -> None:
    response = await treq.get(f"{daemon.url}{PATH}/resp_x?stream=true&starting_after={after}")
    assert response.code == 400
    assert (await treq.json_content(response))["error"]["param"] == "starting_after"


@ensureDeferred
async def test_without_a_store(make_daemon: Any, tmp_path: Path) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), no_store=True)
    response = await daemon.post(PATH, {"model": "haiku", "input": "x", "background": True})
    assert response.code == 400
    assert (await treq.json_content(response))["error"]["param"] == "background"
    assert (await treq.post(f"{daemon.url}{PATH}/resp_x/cancel")).code == 404
