"""The processes behind the turns: rewound, replaced, renewed, gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from http.client import HTTPConnection
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest
import treq
from harness import Daemon, in_thread, newest_cli, until
from pytest_twisted import ensureDeferred
from test_word_for_word import arrived
from twisted.internet.defer import ensureDeferred as ensured
from twisted.logger import globalLogPublisher

from claudeproxy.cli.process import CLIProcess
from claudeproxy.cli.states import State
from claudeproxy.testing import fake_cli

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
HELLO = [{"role": "user", "content": "Hello"}]


@ensureDeferred
async def test_a_waiting_process_that_dies_is_replaced(make_daemon: Any) -> None:
    daemon = await make_daemon()
    keeper = daemon.api.engine.keeper
    await until(lambda: keeper.unused)
    (process,) = daemon.api.engine.processes
    process.kill()
    await process.ended
    answer = await daemon.chat(HELLO)
    assert answer["choices"][0]["message"]["content"] == "You said: Hello"
    await until(lambda: keeper.unused)


@ensureDeferred
async def test_conversations_right_behind_each_other_use_one_process(make_daemon: Any) -> None:
    daemon = await make_daemon(processes=4)
    await until(lambda: daemon.api.engine.keeper.unused)
    await daemon.chat(HELLO)  # now it is known how such a turn is paid for
    (used,) = [process for process in daemon.api.engine.processes if process.turns]
    client = HTTPConnection(daemon.url.removeprefix("http://"))

    def ask(number: int) -> None:
        body = {"model": "sonnet", "messages": [{"role": "user", "content": f"Question {number}"}]}
        headers = {"Content-Type": "application/json"}
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = client.getresponse()
        assert (response.status, bool(response.read())) == (200, True)

    for number in range(20):
        await in_thread(ask, number)
    client.close()
    assert sum(process.turns for process in daemon.api.engine.processes) == 21
    assert used.turns == 21


BRIEF = {"role": "system", "content": "Be brief."}
SLOW = "[[pause 0.05]][[repeat 1000 word]]"


@pytest.mark.parametrize("order", [SLOW, "[[wait 30]]", f"[[think hm]]{SLOW}"])
@ensureDeferred
async def test_a_client_that_leaves_ends_its_turn_and_not_its_process(
    make_daemon: Any, order: str
) -> None:
    daemon = await make_daemon(processes=1)
    await daemon.chat(HELLO)  # now it is known how such a turn is paid for
    (only,) = daemon.api.engine.processes
    body = {"model": "sonnet", "messages": [{"role": "user", "content": order}], "stream": True}
    engine = daemon.api.engine
    client = HTTPConnection(daemon.url.removeprefix("http://"))

    def begin() -> None:
        headers = {"content-type": "application/json"}
        client.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        if order != "[[wait 30]]":
            client.getresponse().read(200)

    await in_thread(begin)
    await until(lambda: len(daemon.turns()) == 2)
    client.close()
    await until(lambda: engine.admission.running == 0, 2)
    answer = await daemon.chat(HELLO)
    assert answer["choices"][0]["message"]["content"] == "You said: Hello"
    assert (engine.processes, only.turns, only.killed) == ({only}, 3, False)
    assert len(daemon.turns()) == 3


@pytest.mark.parametrize(
    ("said", "fields", "reason"),
    [
        (
            "[[pause 0.01]][[say one]][[raw  two]][[raw  STOP]][[repeat 99 x]]",
            {"stop": ["STOP"]},
            "stop",
        ),
        ("[[pause 0.01]][[say a\n\nb]]", {"stop": ["\n\n"]}, "stop"),
        ("[[pause 0.01]][[repeat 99 word]]", {"max_tokens": 5}, "length"),
        ("[[pause 0.01]][[stop refusal]]", {}, "content_filter"),
        ("[[pause 0.01]][[call nobody {}]]", {"tools": TOOLS}, "tool_calls"),
        ('[[pause 0.01]][[call look {"x": ]]', {"tools": TOOLS}, "tool_calls"),
        ("[[pause 0.01]][[call look {}]]", {"tools": TOOLS}, "tool_calls"),  # never answered
        ("[[wait 0.01]][[error 400 no]]", {}, 400),
        ("[[wait 0.01]][[error 500 no]]", {}, 500),
        ("[[wait 0.01]][[error 529 no]]", {}, 529),
        ("[[pause 0.1]][[say some]][[drop]]", {}, 502),
        ("[[pause 0.1]][[say some]][[error-mid 500 no]]", {}, 500),
        ("[[wait 30]]", {}, 504),
        ("[[pause 0.1]][[say some]][[hang]]", {}, 504),
    ],
)
@ensureDeferred
async def test_however_a_turn_ends_its_process_serves_the_next(
    make_daemon: Any, said: str, fields: Any, reason: Any
) -> None:
    """With nothing of it left, and one request upstream for each turn."""
    daemon = await make_daemon(processes=1, first_token_timeout=5.0, idle_timeout=1.0)
    await until(lambda: daemon.api.engine.keeper.unused, 60)
    await daemon.chat([BRIEF, *HELLO])
    first = daemon.body()
    (only,) = daemon.api.engine.processes
    answer = await daemon.chat([BRIEF, {"role": "user", "content": said}], **fields)
    if "choices" in answer:
        assert answer["choices"][0]["finish_reason"] == reason
    else:
        assert "error" in answer and isinstance(reason, int), answer
    await daemon.chat([BRIEF, *HELLO])
    assert daemon.body()["messages"] == first["messages"]
    assert daemon.body()["system"][1:] == first["system"][1:]
    assert (daemon.api.engine.processes, only.turns, only.killed) == ({only}, 3, False)
    assert len(daemon.turns()) == 3


@ensureDeferred
async def test_a_client_may_leave_before_the_cli_has_begun(make_daemon: Any) -> None:
    """While other tools are made known to it, say: the question waits in its queue then, where no
    rewind and no interrupt reaches it."""
    daemon = await make_daemon(processes=1)
    await daemon.chat([BRIEF, *HELLO])
    (only,) = daemon.api.engine.processes
    other = {**TOOLS[0], "function": {"name": "find", "parameters": {"type": "object"}}}
    text = "[[wait 0.05]][[repeat 3 word]][[stop max_tokens]]"
    body = {"model": "sonnet", "messages": [BRIEF, {"role": "user", "content": text}]}
    states = []
    for tools in (TOOLS, [], [other], TOOLS, [other], []) * 2:
        going = daemon.post("/v1/chat/completions", {**body, "tools": tools})
        leaving = ensured(going)
        leaving.addErrback(lambda _: None)
        await until(lambda: only.state in (State.ASKED, State.ANSWERING))
        states.append(only.state)
        leaving.cancel()
        await until(lambda: only.state is State.IDLE)
    assert State.ASKED in states
    await daemon.chat([BRIEF, *HELLO])
    assert (daemon.api.engine.processes, only.turns, only.killed) == ({only}, 14, False)
    questions = [arrived(entry.body) for entry in daemon.turns()]
    assert len(questions) <= 14 and all(len(messages) == 1 for messages in questions)


@ensureDeferred
async def test_an_updated_cli_is_noticed(make_daemon: Any, tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.symlink_to(newest_cli())
    daemon = await make_daemon(claude=str(claude))
    cli, engine = daemon.api.cli, daemon.api.engine
    await until(lambda: engine.keeper.unused)
    before = set(engine.processes)
    assert await cli.changed() is False
    claude.unlink()
    claude.write_text("#!/bin/sh\necho '2.1.100 (Claude Code)'\n")
    claude.chmod(0o700)
    assert await cli.changed() is True
    engine.renew()
    await until(lambda: not before & engine.processes)
    response = await daemon.post("/v1/chat/completions", {"model": "opus", "messages": HELLO})
    error = (await treq.json_content(response))["error"]
    assert (response.code, "claude update" in error["message"]) == (503, True)
    claude.unlink()
    response = await daemon.post("/v1/chat/completions", {"model": "opus", "messages": HELLO})
    assert response.code == 503
    await treq.content(response)
    shutil.copy2(newest_cli(), claude)
    assert await cli.changed() is True
    await until(lambda: engine.keeper.unused, 30)
    answer = await daemon.chat(HELLO)
    assert "choices" in answer


@ensureDeferred
async def test_an_updated_cli_is_tried_before_it_is_used(make_daemon: Any, tmp_path: Path) -> None:
    """What it has lost is told by name; processes of the old one serve in the meantime."""
    claude = tmp_path / "claude"
    claude.symlink_to(newest_cli())
    warned: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(warned.append)
    try:
        daemon = await make_daemon(claude=str(claude))
        await until(lambda: daemon.api.engine.keeper.unused)
        before = set(daemon.api.engine.processes)
        other = fake_cli(tmp_path / "double", version="2.1.400")  # which asks nothing upstream
        claude.unlink()
        claude.symlink_to(other)
        await until(lambda: daemon.api.cli.version == "2.1.400")
        assert before <= daemon.api.engine.processes
        await until(lambda: not before & daemon.api.engine.processes, 40)
    finally:
        globalLogPublisher.removeObserver(warned.append)
    health = await treq.json_content(await treq.get(daemon.url + "/health"))
    assert health["status"] == "degraded"
    assert "slash_text_is_delivered_as_written" in health["lost_facts"]
    assert "models_are_told_before_initialize" not in health["lost_facts"]
    told = [event["fact"] for event in warned if "fact" in event]
    assert told == health["lost_facts"]


@ensureDeferred
async def test_a_stop_ends_the_trial_of_an_updated_cli(make_daemon: Any, tmp_path: Path) -> None:
    claude = tmp_path / "claude"
    claude.symlink_to(newest_cli())
    daemon = await make_daemon(claude=str(claude))
    other = fake_cli(tmp_path / "double", version="2.1.400", question="silence")
    claude.unlink()
    claude.symlink_to(other)
    await until(lambda: daemon.api.cli.version == "2.1.400")
    (trial,) = await until(
        lambda: list(Path(gettempdir()).glob(f"claudemax-{os.getpid()}-trial-*"))
    )
    began = time.monotonic()
    await daemon.api.stopService()
    assert time.monotonic() - began < 5
    assert not trial.exists()


@ensureDeferred
async def test_every_process_is_a_group_in_the_one_empty_directory(daemon: Any) -> None:
    await until(lambda: daemon.api.engine.processes and not daemon.api.engine.keeper.starting)
    for process in daemon.api.engine.processes:
        pid = process.transport.pid
        assert os.getpgid(pid) == pid
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
        assert core == ["0", "0"]
        directory = Path(os.readlink(f"/proc/{pid}/cwd"))
        assert directory == daemon.home / ".local/state/claudemax/empty"
        assert not list(directory.iterdir())
        assert directory.stat().st_mode & 0o777 == 0o700


@ensureDeferred
async def test_a_kept_process_that_is_killed_is_not_missed(make_daemon: Any) -> None:
    daemon = await make_daemon()
    answer = await daemon.chat(HELLO)
    keeper = daemon.api.engine.keeper
    assert keeper.holding == 1
    killed = set(daemon.api.engine.processes)
    for process in killed:
        os.killpg(process.transport.pid, signal.SIGKILL)
    await until(lambda: not killed & daemon.api.engine.processes)
    assert keeper.holding == 0
    asked = [*HELLO, answer["choices"][0]["message"], {"role": "user", "content": "again"}]
    answer = await daemon.chat(asked)
    assert answer["choices"][0]["message"]["content"] == "You said: again"


async def way_of(daemon: Daemon, messages: Any, **fields: Any) -> str:
    """How a request was served."""
    body = {"model": "claude-sonnet-4-5", "messages": messages, **fields}
    response = await daemon.post("/v1/chat/completions", body)
    await response.content()
    return str(response.headers.getRawHeaders("x-claudemax-process")[0])


@ensureDeferred
async def test_conversation_after_conversation_on_one_process(make_daemon: Any) -> None:
    """With other tools, models and limits; only another system prompt takes another process."""
    daemon = await make_daemon(processes=2)
    assert await way_of(daemon, [BRIEF, *HELLO]) == "warm"
    (first,) = [p for p in daemon.api.engine.processes if p.turns]
    other = [{**TOOLS[0], "function": {"name": "find", "parameters": {"type": "object"}}}]
    for fields in ({"tools": TOOLS}, {"tools": other}, {"model": "haiku"}, {"max_tokens": 99}):
        await until(lambda: first.state is State.IDLE)  # it has told how it was paid for
        assert await way_of(daemon, [BRIEF, *HELLO], **fields) == "rewound"
        sent = daemon.body()
        names = [tool["function"]["name"] for tool in fields.get("tools", ())]
        assert [tool["name"] for tool in sent["tools"]] == names
        assert sent["max_tokens"] == 99 or "max_tokens" not in fields
    assert first.turns == 5
    await until(lambda: daemon.api.engine.keeper.unused)
    assert await way_of(daemon, [{**BRIEF, "content": "Be verbose."}, *HELLO]) == "warm"
    assert daemon.body()["system"][-1]["text"] == "Be verbose."
    assert len(daemon.turns()) == 6


@ensureDeferred
async def test_only_what_is_new_of_a_conversation_is_put(
    make_daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regenerated answer, an edit in the middle, a fork."""
    put: list[tuple[int, int]] = []
    opens = CLIProcess.open

    def noted(
        process: CLIProcess, listener: Any, messages: Any, setup: Any, flags: Any, since: int,
        *more: Any,
    ) -> None:  # fmt: skip
        put.append((len(messages), since))
        opens(process, listener, messages, setup, flags, since, *more)

    monkeypatch.setattr(CLIProcess, "open", noted)
    daemon = await make_daemon(processes=1)
    messages: list[Any] = []
    for n in range(5):
        messages.append({"role": "user", "content": f"question {n}"})
        messages.append((await daemon.chat(messages))["choices"][0]["message"])
    last = messages[:-1]
    assert await way_of(daemon, last) == "rewound"
    edited = [*messages[:4], {"role": "user", "content": "another"}]
    assert await way_of(daemon, edited) == "rewound"
    assert [m["content"][0]["text"] for m in arrived(daemon.body())] == [
        *("question 0", "You said: question 0", "question 1", "You said: question 1", "another")
    ]
    assert put == [(1, 0), (3, 2), (5, 4), (7, 6), (9, 8), (9, 8), (5, 4)]
    assert len(daemon.turns()) == 7
