"""The CLI fails in the middle of a turn; each fault is met whole and streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_twisted
import treq
from harness import Daemon, start_daemon, stop_daemon, until
from matrix import all_is_well, ask, at_work, cases, fault
from pytest_twisted import ensureDeferred
from twisted.internet import defer

from claudeproxy.cli.states import State
from claudeproxy.testing import fake_cli, journal
from claudeproxy.web import sse

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

ENDED = "the Claude CLI ended before its answer did"
NONSENSE = "the Claude CLI printed"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon over the CLI's double, for faults that are ordered in the text."""
    home = tmp_path_factory.mktemp("double")
    claude = fake_cli(home / "cli")
    # Longer than the grace: one that closed its stdout is not silent, it is ended.
    starting = start_daemon(home, claude=claude, first_token_timeout=2.0, idle_timeout=1.6)
    daemon = pytest_twisted.blockon(defer.ensureDeferred(starting))
    yield daemon
    pytest_twisted.blockon(defer.ensureDeferred(stop_daemon(daemon)))


LIVES = ("question end", "question result", "question error", "error 429", "error 529",
         "middle begin", "stop end", "middle result", "middle error",
         "result begin", "result error", "parked result", "parked begin")  # fmt: skip
"""Faults of a turn, after which the process is as good as before."""


async def ended_or_rewound(double: Daemon, order: str) -> None:
    """Its process answers the next request, or is gone."""
    process = at_work(double)
    if order in LIVES:
        assert process is not None
        await all_is_well(double, rewound=process)
        return
    await until(lambda: process is None or process.state is State.DEAD, 10.0)
    await all_is_well(double)


@cases(
    "CLI",
    ("exits when asked", "502", "question exit", 502, ENDED),
    ("crashes when asked", "502 that names the signal", "question crash", 502, "signal 11"),
    ("is silent when asked",
     "504 at the first-token deadline; it is ended, as it answers no rewind either",
     "question silence", 504, "no answer began within"),
    ("closes stdout when asked, but lives", "502; it is ended", "question deaf", 502, ENDED),
    ("prints half a message when asked", "502; it is ended", "question broken", 502, NONSENSE),
    ("prints 80 MB without a newline", "502 at 64 MB; it is ended",
     "question endless", 502, "a line of more than"),
    ("prints an event without its fields", "502; it is ended",
     "question shapeless", 502, NONSENSE),
    ("prints a delta before any block", "502; it is ended", "question stray", 502, NONSENSE),
    ("ends the message before it began", "502; it is rewound", "question end", 502, "broke off"),
    ("gives a result without an answer", "502; it is rewound",
     "question result", 502, "ended the turn without an answer"),
    ("gives an error result", "500; it is rewound", "question error", 500, "no"),
    ("refuses a control request", "502; it is ended", "question refuse", 502, "refused"),
    ("passes on the upstream's 401", "401 with the command to type", "error 401", 401,
     "auth login"),
    ("passes on the upstream's 429", "429; it is rewound", "error 429", 429, "no"),
    ("passes on the upstream's 529", "529; it is rewound", "error 529", 529, "no"),
)  # fmt: skip
@BOTH
@ensureDeferred
async def test_before_the_answer(double: Daemon, case: Any, stream: bool) -> None:
    """The headers are not out yet: the failure has its status either way."""
    order, status, words = case
    reply = await ask(double, f"x[[{order}]]", stream=stream)
    assert (reply.status, reply.text, reply.whole) == (status, "", False), reply
    assert words in reply.error["message"]
    await ended_or_rewound(double, order)


@cases(
    "CLI",
    ("exits in mid-answer", "502, or an error event", "middle exit", 502, ENDED),
    ("crashes in mid-answer", "502, or an error event", "middle crash", 502, "signal 11"),
    ("falls silent in mid-answer", "504, or an error event, at the idle deadline; it is ended",
     "middle silence", 504, "silent for"),
    ("closes stdout in mid-answer, but lives", "502, or an error event; it is ended",
     "middle deaf", 502, ENDED),
    ("exits, and its child holds the pipes", "502, or an error event; the child is killed",
     "question child]][[middle exit", 502, ENDED),
    ("prints half a message in mid-answer", "502, or an error event; it is ended",
     "middle broken", 502, NONSENSE),
    ("prints a text that is a number", "502, or an error event; it is ended",
     "middle number", 502, NONSENSE),
    ("prints a delta of no block in mid-answer", "502, or an error event; it is ended",
     "middle stray", 502, NONSENSE),
    ("begins the answer anew", "502, or an error event; it is rewound",
     "middle begin", 502, "began anew"),
    ("ends the message without a reason", "502, or an error event; it is rewound",
     "stop end", 502, "broke off"),
    ("gives a result in mid-answer", "502, or an error event; it is rewound",
     "middle result", 502, "without an answer"),
    ("gives an error result in mid-answer", "500, or an error event; it is rewound",
     "middle error", 500, "no"),
    ("exits before the stop reason", "502, or an error event", "stop exit", 502, ENDED),
)  # fmt: skip
@BOTH
@ensureDeferred
async def test_in_mid_answer(double: Daemon, case: Any, stream: bool) -> None:
    """Streamed, what was written stays, and the stream does not end as if it were whole."""
    order, status, words = case
    reply = await ask(double, f"x[[{order}]]", stream=stream)
    assert (reply.status, reply.whole) == (200 if stream else status, False), reply
    assert words in reply.error["message"]
    assert reply.text == ("You said: x" if stream else "")
    await all_is_well(double)


@cases(
    "CLI",
    ("writes one byte at a time", "nothing", "cut 1"),
    ("cuts UTF-8 anywhere", "nothing", "cut 3"),
    ("floods stderr", "nothing", "question stderr"),
    ("prints messages of unknown types", "nothing", "middle unknown"),
    ("prints empty lines", "nothing", "middle nothing"),
    ("prints what is no JSON", "the line is passed over, and counted in the log", "middle prose"),
    ("prints bytes that are no text", "the line is passed over, and counted", "question noise"),
    ("prints JSON that is no message", "the line is passed over, and counted", "middle array"),
    ("prints JSON of 100,000 levels", "the line is passed over, and counted", "question deep"),
    (
        "ignores the end of stdin from its turn on",
        "nothing; it is killed after the grace",
        "question stubborn",
    ),
    ("leaves a child behind", "nothing; the child is killed with it", "question child"),
)
@BOTH
@ensureDeferred
async def test_nobody_notices(double: Daemon, case: Any, stream: bool) -> None:
    reply = await ask(double, f"ä€🎉x[[{case[0]}]]", stream=stream)
    assert (reply.status, reply.text, reply.whole) == (200, "You said: ä€🎉x", True), reply
    await all_is_well(double)


@fault("CLI", "prints a line of 20 MB", "nothing")
@BOTH
@ensureDeferred
async def test_a_huge_line(double: Daemon, stream: bool) -> None:
    reply = await ask(double, "x[[size 20000000]][[deltas 2]]", stream=stream)
    assert (reply.status, len(reply.text)) == (200, len("You said: x") + 20_000_000)
    await all_is_well(double)


@cases(
    "CLI",
    ("exits after its answer", "nothing: the next message is replayed", "result exit"),
    ("exits while it is kept", "nothing: the next message is replayed", "kept exit"),
    ("goes on by itself after its answer", "it is rewound; the next message is replayed",
     "result begin"),
    ("goes on by itself while it is kept", "it is ended; the next message is replayed",
     "kept begin"),
    ("prints half a message while it is kept", "it is ended; the next message is replayed",
     "kept broken"),
    ("ends its turn in an error after the answer", "it is rewound; the next message is replayed",
     "result error"),
    ("closes stdout while it is kept", "it is ended; the next message is replayed", "kept deaf"),
)  # fmt: skip
@ensureDeferred
async def test_after_the_answer(double: Daemon, case: Any) -> None:
    asked = f"x[[{case[0]}]]"
    reply = await ask(double, asked)
    assert (reply.status, reply.text) == (200, "You said: x")
    process = at_work(double)
    lives = case[0] in LIVES
    if lives:
        assert process is not None
        await until(lambda: (process.state, process.held) == (State.IDLE, 0))
    else:
        await until(lambda: process not in double.api.engine.processes)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply.text},
                {"role": "user", "content": "y"}]  # fmt: skip
    again = await ask(double, messages)
    assert (again.status, again.text) == (200, "You said: y")
    await all_is_well(double, rewound=process if lives else None)


@cases(
    "CLI",
    ("exits as the next message reaches it", "nothing: the message is replayed", "then exit"),
    ("closes stdout as the next message reaches it",
     "it is ended; the message is replayed", "then deaf"),
)  # fmt: skip
@BOTH
@ensureDeferred
async def test_at_the_next_message(double: Daemon, case: Any, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": f"{uuid4()}[[{case[0]}]]"}]
    reply = await ask(double, messages)
    await until(lambda: double.api.engine.keeper.holding == 1)
    messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": "y"}]
    again = await ask(double, messages, stream=stream)
    assert (again.status, again.text, again.whole) == (200, "You said: y", True)
    await all_is_well(double)


@cases(
    "CLI",
    ("exits in the middle of the next message", "an error event; it is not asked again",
     "[[deltas 5]][[pause 0.05]][[middle exit]]", 200, "You said: y"),
    ("passes on the upstream's 400 at the next message", "400; it is not asked again",
     "[[error 400]]", 400, ""),
)  # fmt: skip
@ensureDeferred
async def test_it_fails_at_the_next_message(double: Daemon, case: Any) -> None:
    order, status, text = case
    reply = await ask(double, (messages := [{"role": "user", "content": str(uuid4())}]))
    await until(lambda: double.api.engine.keeper.holding == 1)
    turns = journal(double.api.cli.executable).count("turn")
    messages += [{"role": "assistant", "content": reply.text},
                 {"role": "user", "content": f"y{order}"}]  # fmt: skip
    again = await ask(double, messages, stream=True)
    assert (again.status, again.text, again.whole) == (status, text, False)
    assert journal(double.api.cli.executable).count("turn") == turns + 1
    await all_is_well(double)


@fault("CLI", "ends its turn in an error when the next message waits for its end",
       "it is rewound; the next message is replayed")  # fmt: skip
@ensureDeferred
async def test_a_late_error(double: Daemon) -> None:
    messages = [{"role": "user", "content": f"{uuid4()}[[result error 0.3]]"}]
    reply = await ask(double, messages)
    process = at_work(double)
    assert process is not None and process.state is State.AWAITING_RESULT
    messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": "y"}]
    again = await ask(double, messages)
    assert (again.status, again.text) == (200, "You said: y")
    await all_is_well(double)


@fault("CLI", "never ends its turn, and the next message comes",
       "it is ended at the first-token deadline; the message is replayed")  # fmt: skip
@ensureDeferred
async def test_a_turn_without_end(double: Daemon) -> None:
    messages = [{"role": "user", "content": f"{uuid4()}[[result silence]]"}]
    reply = await ask(double, messages)
    messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": "y"}]
    again = await ask(double, messages)
    assert (again.status, again.text) == (200, "You said: y")
    await all_is_well(double)


@fault("CLI", "is silent for a while", "comments keep the stream open")
@ensureDeferred
async def test_silence(double: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE", 0.2)
    silent = await body_of(double, "x[[question sleep 0.7]][[middle sleep 0.5]]")
    assert silent.startswith(": keep-alive\n\n" * 2)
    assert silent.partition("data: ")[2].count(": keep-alive\n\n") >= 1
    assert ": keep-alive" not in await body_of(double, "x[[deltas 12]][[pause 0.05]]")
    await all_is_well(double)


async def body_of(double: Daemon, asked: str) -> str:
    """The bytes of a streamed answer."""
    messages = [{"role": "user", "content": asked}]
    body = {"model": "sonnet", "messages": messages, "stream": True}
    response = await double.post("/v1/chat/completions", body)
    text: str = await treq.text_content(response)
    assert text.endswith("data: [DONE]\n\n")
    return text


@fault("CLI", "exits as the result of its tool call reaches it", "nothing: the result is replayed")
@ensureDeferred
async def test_at_the_result(double: Daemon) -> None:
    messages: list[Any] = [{"role": "user", "content": f"{uuid4()}[[call look {{}}]][[then exit]]"}]
    said = (await double.chat(messages, tools=TOOLS))["choices"][0]["message"]
    (call,) = said["tool_calls"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "found"}
    again = await ask(double, [*messages, said, result], tools=TOOLS)
    assert (again.status, again.whole) == (200, True)
    await all_is_well(double)


@cases(
    "CLI",
    ("exits while its tool call waits", "nothing: the result is replayed", "parked exit"),
    ("gives up its tool call", "it is rewound; the result is replayed", "parked result"),
    ("goes on while its tool call waits", "it is rewound; the result is replayed",
     "parked begin"),
)  # fmt: skip
@ensureDeferred
async def test_while_a_call_waits(double: Daemon, case: Any) -> None:
    asked = f"x[[call look {{}}]][[{case[0]}]]"
    messages: list[Any] = [{"role": "user", "content": asked}]
    answer = await double.chat(messages, tools=TOOLS)
    said = answer["choices"][0]["message"]
    assert said["tool_calls"]
    process = at_work(double)
    lives = case[0] in LIVES
    if lives:
        assert process is not None
        await until(lambda: (process.state, process.held) == (State.IDLE, 0))
    else:
        await until(lambda: process not in double.api.engine.processes)
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "found"}
    again = await ask(double, [*messages, said, result], tools=TOOLS)
    assert again.status == 200
    await all_is_well(double, rewound=process if lives else None)


@cases(
    "CLI",
    ("calls a tool nobody has", "the call is passed on; it is rewound before it goes on",
     "x[[call nosuch {}]]", "tool_calls"),
    ("calls a tool with broken arguments", "the call is passed on; it is rewound before it goes on",
     'x[[call look {"a]]', "tool_calls"),
    ("calls a tool with arguments 100,000 levels deep",
     "the call is passed on; it is rewound before it goes on",
     "x[[call look {\"a\":" + "[" * 100_000 + "]]", "tool_calls"),
    ("would go on after max_tokens", "the answer is passed on; it is rewound before it goes on",
     "x[[reason max_tokens]]", "length"),
    ("would go on after a refusal", "the answer is passed on; it is rewound before it goes on",
     "x[[reason refusal]]", "content_filter"),
)  # fmt: skip
@ensureDeferred
async def test_it_would_act_by_itself(double: Daemon, case: Any) -> None:
    asked, reason = case
    went = journal(double.api.cli.executable).count("went on")
    answer = await double.chat([{"role": "user", "content": asked}], tools=TOOLS)
    assert answer["choices"][0]["finish_reason"] == reason
    process = at_work(double)
    assert process is not None
    await until(lambda: (process.state, process.held) == (State.IDLE, 0))
    assert journal(double.api.cli.executable).count("went on") == went
    await all_is_well(double, rewound=process)


@cases(
    "CLI",
    ("exits at its set-up", "502", {"setup": "exit"}, 502),
    ("refuses its set-up", "502; it is ended", {"setup": "refuse"}, 502),
    ("exits at its settings", "502", {"flags": "exit"}, 502),
    ("refuses its settings", "502; it is ended", {"flags": "refuse"}, 502),
    ("exits at a line of the history", "502", {"history": "exit"}, 502),
    ("never takes a line of the history in", "504; it is ended", {"history": "silence"}, 504),
)
@BOTH
@ensureDeferred
async def test_before_the_question(
    make_daemon: Any, tmp_path: Path, case: Any, stream: bool
) -> None:
    plan, status = case
    claude = fake_cli(tmp_path / "cli", **plan)
    daemon = await make_daemon(claude=claude, first_token_timeout=1.0)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"}]  # fmt: skip
    reply = await ask(daemon, messages, stream=stream)
    assert (reply.status, reply.text) == (status, ""), reply
    assert "turn" not in journal(claude)
    fake_cli(tmp_path / "cli")
    await all_is_well(daemon)


@cases(
    "CLI",
    ("cannot rewind", "nothing: each process serves one conversation",
     {"rewinds": "unknown"}, False),
    ("answers a rewind late", "the next turn waits for it", {"rewind": "sleep 1"}, None),
    ("refuses a rewind", "it is ended; another serves the next turn",
     {"rewinds": "commands_queued"}, False),
    ("keeps a part of what it was to forget", "it is ended; another serves the next turn",
     {"rewinds": "partly"}, False),
    ("exits at a rewind", "another serves the next turn", {"rewind": "exit"}, False),
    ("answers no rewind", "it is ended after 5 s; another serves the next turn",
     {"rewind": "silence"}, False),
    ("closes stdout at a rewind", "it is ended; another serves the next turn",
     {"rewind": "deaf"}, False),
)  # fmt: skip
@pytest.mark.parametrize("first", ["x", "x[[result error]]", "x[[reason max_tokens]]"],
                         ids=["at-rest", "failed", "cut"])  # fmt: skip
@ensureDeferred
async def test_at_a_rewind(make_daemon: Any, tmp_path: Path, case: Any, first: str) -> None:
    """Whether it is rewound as a turn is given up, or as the next turn comes."""
    plan, same = case
    claude = fake_cli(tmp_path / "cli", **plan)
    daemon = await make_daemon(claude=claude, processes=1)
    assert (await ask(daemon, first)).text == "You said: x"
    process = at_work(daemon)
    reply = await ask(daemon, "y")
    assert (reply.status, reply.text) == (200, "You said: y"), reply
    assert journal(claude).count("turn") == 2
    if same is not None:  # a start may be as fast as a rewind that is late
        assert (at_work(daemon) is process) is same
    fake_cli(tmp_path / "cli")
    await all_is_well(daemon)


@cases(
    "CLI",
    ("exits as it is given other tools", "another serves the turn", {"servers": "exit"}, 200),
    ("refuses other tools", "502; it is ended", {"servers": "refuse"}, 502),
)
@ensureDeferred
async def test_at_other_tools(make_daemon: Any, tmp_path: Path, case: Any) -> None:
    plan, status = case
    claude = fake_cli(tmp_path / "cli", **plan)
    daemon = await make_daemon(claude=claude, processes=1)
    assert (await ask(daemon, "x")).text == "You said: x"
    process = at_work(daemon)
    assert (await ask(daemon, "y", tools=TOOLS)).status == status
    assert process not in daemon.api.engine.processes or process.state is State.DEAD
    fake_cli(tmp_path / "cli")
    await all_is_well(daemon)


@fault("CLI", "dies after it has asked upstream, before a word of its answer",
       "502, and it is not asked again: that would be paid for twice")  # fmt: skip
@ensureDeferred
async def test_it_dies_after_it_has_asked(double: Daemon) -> None:
    said: list[Any] = [{"role": "user", "content": "x"}]
    first = await ask(double, said)
    said += [{"role": "assistant", "content": first.text}]
    said += [{"role": "user", "content": "y[[asked exit]]"}]
    turns = journal(double.api.cli.executable).count("turn")
    reply = await ask(double, said)
    assert reply.status == 502
    assert journal(double.api.cli.executable).count("turn") == turns + 1
    await all_is_well(double)
