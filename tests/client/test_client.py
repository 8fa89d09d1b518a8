"""The Python API in process and over HTTP: what is asked, what is answered, what fails."""

from __future__ import annotations

import gc
from contextlib import aclosing
from typing import Any

import pytest
import treq
import trustme
from harness import Daemon, until
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.defer import ensureDeferred as run
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from ways import claude_of

from claudeproxy.cli.states import State
from claudeproxy.client import (
    Answer,
    Claude,
    ClaudeError,
    Conversation,
    Kind,
    Message,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    in_process,
    over_http,
)
from claudeproxy.testing import fake_cli, journal

pytestmark = pytest.mark.cli

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}})
POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"],
         "additionalProperties": False}  # fmt: skip


async def pieces_of(claude: Claude, *args: Any, **more: Any) -> list[Any]:
    return [piece async for piece in claude.stream(*args, **more)]


# -- answers, by the real CLI --


@ensureDeferred
async def test_a_question(daemon: Daemon, real: Claude) -> None:
    answer = await real.ask("Hello", model="claude-sonnet-4-5", system="Be brief.", max_tokens=99)
    assert answer.text == "You said: Hello"
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert (answer.calls, answer.model) == ((), "claude-sonnet-4-5")
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.output_tokens > 0
    sent = daemon.body()
    assert sent["max_tokens"] == 99
    assert sent["system"][-1]["text"].endswith("Be brief.")


@ensureDeferred
async def test_an_answer_in_pieces(real: Claude) -> None:
    order = '[[think Hm so]][[say One two]][[call add {"a": 1}]]'
    *pieces, answer = await pieces_of(real, order, model="opus", tools=[ADD], effort="high")
    assert "".join(piece.thinking for piece in pieces if isinstance(piece, Thinking)) == "Hm so"
    said = [piece.text for piece in pieces if isinstance(piece, Text)]
    assert ("".join(said), len(said) > 1) == ("One two", True)
    (call,) = [piece for piece in pieces if isinstance(piece, ToolUse)]
    assert (call.name, call.input) == ("add", {"a": 1})
    assert isinstance(answer, Answer)
    assert (answer.text, answer.calls, answer.stop_reason) == ("One two", (call,), "tool_use")


@ensureDeferred
async def test_the_model_that_answered_is_told(real: Claude) -> None:
    whole = await real.ask("Hi", model="haiku")
    *_, last = await pieces_of(real, "Hi", model="haiku")
    assert isinstance(last, Answer)
    assert whole.model == last.model
    assert whole.model.startswith("claude-haiku-")


@ensureDeferred
async def test_it_reads_the_same_whole_and_in_pieces(real: Claude) -> None:
    order = '[[say One two]][[call add {"a": 1}]]'
    whole = await real.ask(order, tools=[ADD])
    *_, last = await pieces_of(real, order, tools=[ADD])
    assert (whole.text, whole.calls[0].input) == (last.text, last.calls[0].input)
    assert (whole.stop_reason, whole.model) == (last.stop_reason, last.model)
    assert whole.message == Message("assistant", whole.content)


@ensureDeferred
async def test_a_conversation_calls_tools_and_keeps_its_process(
    daemon: Daemon, real: Claude
) -> None:
    talk = Conversation(real, tools=[ADD], system=f"By {id(real)}.", model="haiku")
    answer = await talk.ask('[[call add {"a": 1}]]')
    (call,) = answer.calls
    answer = await talk.ask([ToolResult(call.id, (Text("two"),))])
    assert "two" in answer.text
    answer = await talk.ask("And?")
    assert answer.text == "You said: And?"
    assert len(talk.messages) == 6
    assert [message.role for message in talk.messages] == ["user", "assistant"] * 3
    await daemon.at_rest()
    turns = (await treq.json_content(await treq.get(daemon.url + "/v1/usage/turns?limit=3")))[
        "data"
    ]
    assert [turn["placement"] for turn in turns][:2] == ["kept", "parked"]


@ensureDeferred
async def test_a_schema(real: Claude) -> None:
    answer = await real.ask('[[say {"x": 1}]]', schema=POINT)
    assert answer.json() == {"x": 1}


@ensureDeferred
async def test_an_answer_that_breaks_its_schema_is_asked_for_once_more(make_double: Any) -> None:
    over = await make_double(answer="{}")
    with pytest.raises(ClaudeError, match="does not satisfy the schema") as caught:
        await over.claude.ask("Where?", schema=POINT)
    assert (caught.value.kind, caught.value.spent) == (Kind.UPSTREAM, True)
    assert turns(over.daemon) == 2


@ensureDeferred
async def test_messages_and_tools_may_be_those_of_the_api(daemon: Daemon, real: Claude) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        Message("assistant", (Text("Yes?"),)),
        {"role": "user", "content": "Call"},
    ]
    tool = {"name": "look", "input_schema": {"type": "object"}}
    answer = await real.ask(messages, tools=[tool], model="claude-sonnet-4-5", temperature=0.5)
    assert answer.text == "You said: Call"
    assert daemon.body()["temperature"] == 0.5
    assert [tool["name"] for tool in daemon.body()["tools"]] == ["look"]


@ensureDeferred
async def test_what_is_wrong_with_a_question_is_told(daemon: Daemon, real: Claude) -> None:
    before = len(daemon.turns())
    for wrong, kind, told in (
        ({"model": "gpt-4"}, Kind.MODEL_NOT_FOUND, "there is no model 'gpt-4' here"),
        ({"max_tokens": 0}, Kind.INVALID, "max_tokens: must be at least 1"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, Kind.INVALID, "tools[0].name"),
        ({"schema": {"type": "nonsense"}}, Kind.INVALID, "not a JSON schema"),
    ):
        with pytest.raises(ClaudeError, match="^" + told.replace("[", r"\[")) as caught:
            await real.ask("Hi", **wrong)
        assert (caught.value.kind, caught.value.spent) == (kind, False)
    with pytest.raises(ClaudeError, match="nothing in it to answer"):
        await real.ask("")
    with pytest.raises(ClaudeError, match="unanswered: toolu1"):
        call = Message("assistant", (ToolUse("toolu_1", "add", {}),))
        await real.ask([Message("user", (Text("Hi"),)), call, Message("user", (Text("So?"),))])
    assert len(daemon.turns()) == before


# -- failures, by the double --


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("order", "kind", "spent"),
    [
        ("[[error 429]]", Kind.RATE_LIMIT, False),
        ("[[error 529]]", Kind.OVERLOADED, False),
        ("[[error 403]]", Kind.PERMISSION, False),
        ("[[question exit]]", Kind.UPSTREAM, False),
        ("[[middle exit]]", Kind.UPSTREAM, True),
    ],
)
@ensureDeferred
async def test_failures_have_their_kind(
    make_double: Any, order: str, kind: Kind, spent: bool, streamed: bool
) -> None:
    over = await make_double()
    with pytest.raises(ClaudeError) as caught:
        await (pieces_of(over.claude, order) if streamed else over.claude.ask(order))
    assert (caught.value.kind, caught.value.spent) == (kind, spent)
    assert (await over.claude.ask("Hi")).text == "You said: Hi"


@ensureDeferred
async def test_a_daemon_that_is_full_says_when_to_come_back(make_double: Any) -> None:
    over = await make_double(daemon={"concurrency": 1, "queue": 0})
    first = over.claude.ask("[[middle silence]]")
    await until(lambda: over.daemon.api.engine.admission.running)
    with pytest.raises(ClaudeError) as caught:
        await over.claude.ask("Hi")
    assert (caught.value.kind, caught.value.spent) == (Kind.RATE_LIMIT, False)
    assert caught.value.retry_after == 10.0
    first.cancel()
    with pytest.raises(CancelledError):
        await first


# -- giving up --


async def at_rest(daemon: Daemon) -> None:
    """The slot is free, and the process that was given up is rewound and not killed."""
    engine = daemon.api.engine
    await until(lambda: engine.admission.running == 0)
    await until(lambda: any(p.turns and p.state is State.IDLE for p in engine.processes))
    assert not daemon.api.journal.running


def turns(daemon: Daemon, noted: str = "turn") -> int:
    """How many the processes of the double have noted."""
    return sum(line.startswith(noted) for line in journal(daemon.api.cli.executable))


@ensureDeferred
async def test_a_cancelled_question_frees_its_slot(make_double: Any) -> None:
    over = await make_double(deltas=1000, pause=0.05)
    asking = over.claude.ask("Hi")
    running = over.daemon.api.journal.running
    await until(lambda: any(turn.facts.first_token for turn in running.values()))
    asking.cancel()
    with pytest.raises(CancelledError):
        await asking
    await at_rest(over.daemon)
    assert (turns(over.daemon), turns(over.daemon, "rewind")) == (1, 1)
    usage = await until_told(over.daemon)
    assert (usage["outcome"], usage["answers"]) == ("client left", 1)


async def until_told(daemon: Daemon) -> Any:
    """The last row of the ledger."""

    async def told() -> Any:
        return (await treq.json_content(await treq.get(f"{daemon.url}/v1/usage/turns")))["data"]

    while not (rows := await told()):
        await deferLater(reactor, 0.01)
    return rows[0]


@ensureDeferred
async def test_a_question_that_waits_is_never_asked(make_double: Any) -> None:
    over = await make_double(daemon={"concurrency": 1})
    admission = over.daemon.api.engine.admission
    first = over.claude.ask("[[deltas 1000]][[pause 0.05]]")
    await until(lambda: turns(over.daemon) == 1)
    second = over.claude.ask("Never")
    await until(lambda: admission.waiting == 1)
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    await until(lambda: admission.waiting == 0)
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    await at_rest(over.daemon)
    assert turns(over.daemon) == 1


@pytest.mark.parametrize("how", ["break", "aclose", "cancel", "error"])
@ensureDeferred
async def test_a_stream_that_is_left_ends_its_turn(make_double: Any, how: str) -> None:
    over = await make_double(deltas=1000, pause=0.02)

    async def leaves() -> None:
        if how == "aclose":
            async with aclosing(over.claude.stream("Hi")) as pieces:
                async for _ in pieces:
                    return
        async for _ in over.claude.stream("Hi"):
            if how == "break":
                break
            if how == "error":
                raise KeyError(how)

    leaving = run(leaves())
    if how == "cancel":
        running = over.daemon.api.journal.running
        await until(lambda: any(turn.facts.first_token for turn in running.values()))
        leaving.cancel()
        with pytest.raises(CancelledError):
            await leaving
    elif how == "error":
        with pytest.raises(KeyError):
            await leaving
        del leaving
        gc.collect()  # until then its traceback holds the generator
    else:
        await leaving
    await at_rest(over.daemon)
    assert (await over.claude.ask("[[deltas 1]]")).stop_reason == "end_turn"


@ensureDeferred
async def test_questions_may_be_given_up_at_any_moment(make_double: Any) -> None:
    over = await make_double(deltas=30, pause=0.01)
    engine = over.daemon.api.engine
    await until(lambda: any(p.state is not State.STARTING for p in engine.processes))
    for moment in range(24):
        asking = over.claude.ask("Hi") if moment % 2 else run(pieces_of(over.claude, "Hi"))
        for _ in range(moment):
            await deferLater(reactor, 0.002 * (moment % 5))
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
    await until(lambda: engine.admission.running == 0)
    assert (await over.claude.ask("So?")).text.startswith("You said: So?")
    assert turns(over.daemon) <= 25
    assert not over.daemon.api.journal.running


# -- side by side, and slow --


@ensureDeferred
async def test_two_streams_at_once(make_double: Any) -> None:
    over = await make_double(deltas=20, pause=0.01)
    order: list[str] = []

    async def reads(name: str) -> Answer:
        pieces = []
        async for piece in over.claude.stream(name):
            order.append(name)
            pieces.append(piece)
        assert isinstance(pieces[-1], Answer)
        return pieces[-1]

    one, two = await gatherResults([run(reads("one")), run(reads("two"))])
    assert order.index("two") < len(order) - 1 - order[::-1].index("one")
    assert order.index("one") < len(order) - 1 - order[::-1].index("two")
    assert (one.text[:13], two.text[:13]) == ("You said: one", "You said: two")


@ensureDeferred
async def test_a_slow_program_pauses_the_process(make_double: Any) -> None:
    over = await make_double(deltas=300, size=100_000)
    engine = over.daemon.api.engine

    def paused() -> bool:
        return any(process._paused for process in engine.processes)

    async with aclosing(over.claude.stream("Hi")) as pieces:
        said = await anext(pieces)
        assert isinstance(said, Text)
        await until(paused)
        size = len(said.text)
        async for piece in pieces:
            size += len(piece.text) if isinstance(piece, Text) else 0
    assert isinstance(piece, Answer)
    assert len(piece.text) == size > 299 * 100_000
    await at_rest(over.daemon)


# -- what the daemon knows of it --


@ensureDeferred
async def test_a_turn_of_a_program_is_in_the_ledger(make_daemon: Any, tmp_path: Any) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), concurrency=1, queue=0)
    claude = in_process(daemon.api, "bot")
    records = []
    daemon.api.journal.observers.append(records.append)
    await claude.ask("Hi", model="haiku")
    with pytest.raises(ClaudeError):
        await claude.ask("[[middle exit]]")
    with pytest.raises(ClaudeError):
        await claude.ask("Hi", model="gpt-4")  # a mistake, and no turn
    await until(lambda: len(records) == 2)
    good, bad = records
    assert (good.dialect, good.client, good.model, good.answered_by) == (
        "python", "bot", "haiku", "claude-fake",
    )  # fmt: skip
    assert (good.outcome, good.status, good.usage.output_tokens) == ("ok", None, 5)
    assert (good.placement, good.key) == ("warm", None)
    assert 0 < good.first_token_ms <= good.total_ms
    assert (bad.outcome, bad.usage.input_tokens) == ("upstream", 7)
    assert (await until_told(daemon))["dialect"] == "python"


@ensureDeferred
async def test_the_reserve_of_the_plan_holds_for_programs(make_daemon: Any, way: str) -> None:
    daemon = await make_daemon(mode="subscription", reserve=(("five_hour", 0.8),))
    records: list[Any] = []
    daemon.api.journal.observers.append(records.append)
    claude = claude_of(daemon, way)
    assert (await claude.ask("x")).text == "You said: x"  # a quarter of the window is used
    await until(lambda: records)
    assert records[0].paid_by == "plan"
    asked = len(daemon.turns())
    with pytest.raises(ClaudeError, match="--reserve") as caught:
        await claude.ask("x")
    assert (caught.value.kind, caught.value.spent) == (Kind.PLAN_LIMIT, False)
    assert caught.value.retry_after == pytest.approx(4 * 3600, abs=120)
    assert len(daemon.turns()) == asked


@ensureDeferred
async def test_over_http_a_program_has_a_key_and_a_name(make_daemon: Any, tmp_path: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text("bots: s3cret requests=1/day\n")
    keys.chmod(0o600)
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"), api_key_file=str(keys))
    records: list[Any] = []
    daemon.api.journal.observers.append(records.append)
    claude = over_http(daemon.url + "/v1/", key="s3cret", name="bot/1.0")
    assert (await claude.ask("Hi")).text == "You said: Hi"
    await until(lambda: records)
    assert (records[0].key, records[0].client, records[0].dialect) == ("bots", "bot", "messages")
    with pytest.raises(ClaudeError, match="used up its quota") as caught:
        await claude.ask("Hi")
    assert caught.value.kind is Kind.RATE_LIMIT
    assert caught.value.retry_after is not None
    for key in (None, "wrong"):
        with pytest.raises(ClaudeError) as caught:
            await over_http(daemon.url, key=key).ask("Hi")
        assert caught.value.kind is Kind.AUTHENTICATION


@ensureDeferred
async def test_over_tls(make_daemon: Any, tmp_path: Any, monkeypatch: Any) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli", deltas=1000, pause=0.02))
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ca.issue_cert("localhost")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    endpoint = f"ssl:0:privateKey={tmp_path}/server.pem:interface=127.0.0.1"
    port = await serverFromString(reactor, endpoint).listen(daemon.api.site)
    claude = over_http(f"https://localhost:{port.getHost().port}")
    with pytest.raises(ClaudeError, match="certificate verify failed") as caught:
        await claude.ask("Hi")
    assert caught.value.kind is Kind.UNAVAILABLE
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert (await claude.ask("[[deltas 2]]")).text.startswith("You said: ")
    async with aclosing(claude.stream("Hi")) as pieces:
        assert isinstance(await anext(pieces), Text)
    await at_rest(daemon)
    await port.stopListening()


# -- a daemon that is not there, or goes --


@ensureDeferred
async def test_a_daemon_that_stops_in_mid_answer(make_double: Any) -> None:
    over = await make_double(deltas=1000, pause=0.02, daemon={"drain": 0.1})
    got: list[Any] = []

    async def reads() -> None:
        async for piece in over.claude.stream("Hi"):
            got.append(piece)

    reading = run(reads())
    await until(lambda: got)
    await over.daemon.api.stopService()
    with pytest.raises(ClaudeError) as caught:
        await reading
    assert (caught.value.kind, str(caught.value)) == (Kind.UNAVAILABLE, "the daemon is stopping")


@ensureDeferred
async def test_a_daemon_that_stops_while_the_program_does_not_read(make_double: Any) -> None:
    over = await make_double(deltas=300, size=100_000, daemon={"drain": 0.1})
    pieces = over.claude.stream("Hi")
    assert isinstance(await anext(pieces), Text)
    engine = over.daemon.api.engine
    await until(lambda: any(process._paused for process in engine.processes))
    await over.daemon.api.stopService()
    with pytest.raises(ClaudeError) as caught:
        async for piece in pieces:
            assert isinstance(piece, Text)
    assert caught.value.kind is Kind.UNAVAILABLE


@ensureDeferred
async def test_a_service_that_does_not_run(make_daemon: Any, tmp_path: Any) -> None:
    daemon = await make_daemon(claude=fake_cli(tmp_path / "cli"))
    claude = in_process(daemon.api)
    await daemon.api.stopService()
    with pytest.raises(ClaudeError, match="is not running") as caught:
        await claude.ask("Hi")
    assert caught.value.kind is Kind.UNAVAILABLE
