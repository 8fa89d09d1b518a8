"""Turns from the request to the last event, and what becomes of the processes behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from machine import LOOK, Heard, Machine, begun, call, request, said, texts, user

from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.names import ToolNames
from claudeproxy.cli.states import State
from claudeproxy.cli.tools import RESERVED
from claudeproxy.engine import memory
from claudeproxy.engine.answer_tool import AnswerTool
from claudeproxy.engine.attempt import OUTLIVE
from claudeproxy.engine.deadlines import Deadlines
from claudeproxy.engine.engine import MAX_STOPS, MAX_TOOLS, TEND, Limits
from claudeproxy.engine.keeper import MAX_AGE, REFILL
from claudeproxy.messages import (
    BlockStopped,
    Failure,
    FailureError,
    Finished,
    Kind,
    Message,
    Started,
    TextDelta,
    ToolResult,
    ToolUse,
    Usage,
)
from claudeproxy.testing import transcripts as cli

MINE = LoginStatus(True, "mine")
HERS = LoginStatus(True, "hers")
NATIVE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
INFO = {
    "status": "allowed",
    "rateLimitType": "five_hour",
    "overageStatus": "rejected",
    "unifiedWindows": {"five_hour": {"utilization": 0.1, "resetsAt": 9000}},
}


# -- a turn --


def test_a_turn_and_the_next_one_on_the_same_process() -> None:
    machine = Machine([said("Good ", "day"), said("again")])
    first = machine.ask(request("Hello"))
    assert isinstance(first.events[0], Started)
    assert (first.text, first.group.placement) == ("Good day", "warm")
    assert first.end == Finished("end_turn", None, Usage(input_tokens=7, output_tokens=5))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    assert claude.settings["model"] == "opus"
    assert (machine.engine.admission.running, machine.engine.keeper.holding) == (0, 1)
    assert machine.engine.keeper.unused == 1  # another waits already
    second = machine.ask(request("Hello", "Good day", "And?"))
    assert (second.text, second.group.placement) == ("again", "kept")
    assert texts(claude.asked) == ["Hello", "And?"]
    assert (claude.process.turns, len(machine.clis)) == (2, 2)


def test_a_conversation_that_no_process_holds_is_replayed() -> None:
    machine = Machine([said("yes")])
    heard = machine.ask(request("one", "two", "three"))
    assert (heard.text, heard.group.placement) == ("yes", "warm")
    (claude,) = [claude for claude in machine.clis if claude.asked]
    assert texts(claude.asked) == ["one", "three"]


def test_a_call_is_parked_and_goes_on_with_its_result() -> None:
    machine = Machine([call(), said("seen")])
    asks = request("Look", tools=(LOOK,))
    first = machine.ask(asks)
    assert first.end.stop_reason == "tool_use"
    (claude,) = [claude for claude in machine.clis if claude.asked]
    assert claude.process.state is State.PARKED
    # The next start leaves the CPU to the client's tool.
    assert machine.engine.keeper.unused + machine.engine.keeper.starting == 0
    machine.run(REFILL)
    assert machine.engine.keeper.unused == 1
    called = Message("assistant", (ToolUse("toolu_1", "look", {}),))
    result = Message("user", (ToolResult("toolu_1", user("a door")[0].content),))
    second = machine.ask(evolve(asks, messages=(*asks.messages, called, result)))
    assert (second.text, second.group.placement) == ("seen", "parked")
    assert "a door" in json.dumps(claude.read)


def test_a_kept_process_that_fails_before_it_asks_is_replaced_by_a_replay() -> None:
    machine = Machine([said("one"), b"", said("two")])
    machine.ask(request("a"))
    (kept,) = [claude for claude in machine.clis if claude.asked]
    heard = machine.ask(request("a", "one", "b"))
    assert texts(kept.asked) == ["a", "b"]
    kept.die()
    machine.run()
    assert (heard.text, heard.group.placement) == ("two", "warm")
    assert isinstance(heard.end, Finished)


def test_one_that_has_asked_is_not_asked_again() -> None:
    machine = Machine([said("one"), cli.requesting()])
    machine.ask(request("a"))
    (kept,) = [claude for claude in machine.clis if claude.asked]
    heard = machine.ask(request("a", "one", "b"))
    kept.die()
    machine.run()
    assert (heard.end.status, heard.end.spent) == (502, True)
    assert machine.engine.admission.running == 0


def test_a_failure_of_a_first_turn_is_told() -> None:
    machine = Machine([b""])
    heard = machine.ask(request("a"))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    claude.die()
    assert (heard.end.status, heard.end.spent) == (502, False)


@pytest.mark.parametrize(("text", "spent"), [((), False), (("a",), True)])
def test_an_error_after_the_answer_began_has_cost_something(text: Any, spent: bool) -> None:
    broken = cli.result("API Error: 500 no", is_error=True, api_error_status=500)
    machine = Machine([(begun(*text) if text else cli.requesting()) + broken])
    heard = machine.ask(request("x", stream=True))
    assert (heard.end.status, heard.end.spent) == (500, spent)


def test_several_answers_have_an_index_each() -> None:
    machine = Machine([said("a"), said("b"), said("c")], Limits(processes=6, starts=3))
    ends: dict[int, str] = {}

    def sink(index: int, events: list[Any]) -> None:
        ends[index] = "".join(e.text for e in events if isinstance(e, TextDelta)) or ends[index]

    machine.engine.ask_all((request("x", n=2), request("y")), sink)
    machine.run()
    assert ends.keys() == {0, 1, 2}
    assert sorted(ends.values()) == ["a", "b", "c"]


# -- what a request asks of its answer --


def test_a_stop_sequence_cuts_the_answer_and_its_process_is_taken_back() -> None:
    machine = Machine([begun("one ", "two ST", "OP three"), said("b")])
    heard = machine.ask(request("x", stop=("STOP",)))
    assert heard.text == "one two "
    assert heard.end == Finished("stop_sequence", "STOP", Usage(input_tokens=7, output_tokens=2))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    assert (claude.rewinds, claude.holds, machine.engine.keeper.holding) == (1, [], 1)
    again = machine.ask(request("x", "one two ", "y"))
    assert (again.text, again.group.placement) == ("b", "rewound")
    assert claude.upstream == [["x"], ["x", "one two ", "y"]]


def test_what_its_client_did_not_see_is_nothing_to_go_on_from() -> None:
    machine = Machine([said("one STOP three"), said("b")])
    assert machine.ask(request("x", stop=("STOP",))).text == "one "
    (claude,) = [claude for claude in machine.clis if claude.asked]
    for answer in ("one STOP three", "one "):
        again = machine.ask(request("x", answer, "y"))
        assert (again.text, again.group.placement) == ("b", "rewound")
        assert claude.upstream[-1] == ["x", answer, "y"]
        machine.script = [said("b")]


def test_what_only_began_like_a_stop_sequence_comes_out_all_the_same() -> None:
    machine = Machine([said("one ST")])
    heard = machine.ask(request("x", stop=("STOP",)))
    assert heard.text == "one ST"
    assert [type(event) for event in heard.events[-3:]] == [TextDelta, BlockStopped, Finished]
    machine = Machine([said("S", "T", "U")])
    heard = machine.ask(request("x", stop=("STOP",)))
    assert [e.text for e in heard.events if isinstance(e, TextDelta)] == ["STU"]


@pytest.mark.parametrize(("before", "tokens"), [("", 1), ("a", 1), ("x" * 11, 2)])
def test_what_a_cut_answer_cost_is_estimated(before: str, tokens: int) -> None:
    heard = Machine([begun(f"{before}STOP")]).ask(request("x", stop=("STOP",)))
    usage = heard.end.usage
    assert (usage.output_tokens, type(usage.output_tokens)) == (tokens, int)


def test_a_whole_answer_that_does_not_fit_its_schema_is_repaired_once() -> None:
    machine = Machine([said('{"a": "x"}'), said('{"a": 1}')])
    heard = machine.ask(request("x", schema=NATIVE, stream=False))
    assert (heard.text, isinstance(heard.end, Finished)) == ('{"a": 1}', True)
    assert sum(isinstance(event, Started) for event in heard.events) == 1  # of the first, nothing
    (asked,) = [claude for claude in machine.clis if claude.asked]
    assert "does not satisfy" in texts(asked.asked)[-1]
    assert "'x' is not of type 'integer'" in texts(asked.asked)[-1]
    body = json.loads(asked.settings["env"]["CLAUDE_CODE_EXTRA_BODY"])
    sent = {"type": "json_schema", "schema": {**NATIVE, "additionalProperties": False}}
    assert body["output_config"]["format"] == sent
    machine = Machine([said('{"a": "x"}'), said("no"), said('{"a": 1}')])
    heard = machine.ask(request("x", schema=NATIVE, stream=False))
    assert (heard.end.status, heard.end.spent, len(machine.script)) == (502, True, 1)


def test_a_stream_that_does_not_fit_its_schema_fails_and_is_not_asked_again() -> None:
    machine = Machine([said('{"a": "x"}'), said('{"a": 1}')])
    heard = machine.ask(request("x", schema=NATIVE, stream=True))
    assert (heard.text, heard.end.status, heard.end.spent) == ('{"a": "x"}', 502, True)
    assert len(machine.script) == 1


def test_what_is_no_end_of_an_answer_is_not_held_against_the_schema() -> None:
    machine = Machine([said('{"a": ', reason="max_tokens")])
    heard = machine.ask(request("x", schema=NATIVE, stream=False))
    assert heard.end.stop_reason == "max_tokens"
    machine = Machine([call()])
    heard = machine.ask(request("x", schema=NATIVE, stream=False, tools=(LOOK,)))
    assert heard.end.stop_reason == "tool_use"


def test_a_schema_that_the_upstream_refuses_goes_by_the_tool() -> None:
    refusal = cli.requesting() + cli.result(
        "API Error: 400 output_config.format: too complex", is_error=True, api_error_status=400
    )
    asks = request("x", schema=NATIVE, stream=False)
    bound = AnswerTool(asks).bound
    upstream = ToolNames.of(bound.tools).upstream(bound.tools[-1].name)
    by_tool = (
        cli.requesting()
        + cli.opening()
        + b"".join(cli.call_block("toolu_1", upstream, '{"a": 1}', 0))
        + cli.closing("tool_use")
    )
    machine = Machine([refusal, by_tool, by_tool])
    for _ in range(2):  # the second time it is known
        heard = machine.ask(asks)
        assert (heard.text, heard.end.stop_reason) == ('{"a": 1}', "end_turn")
    assert machine.script == []


# -- its end before its time --


def test_a_client_that_leaves_frees_slot_and_process() -> None:
    machine = Machine([cli.requesting() + cli.opening(), said("b")])
    heard = machine.ask(request("x"))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    assert machine.engine.admission.running == 1
    heard.group.cancel()
    machine.run()
    assert (claude.rewinds, machine.engine.admission.running) == (1, 0)
    assert [type(event) for event in heard.events] == [Started]
    assert heard.group.done.called
    again = machine.ask(request("y"))
    assert (again.text, again.group.placement) == ("b", "rewound")
    assert claude.upstream == [["x"], ["y"]]


def test_one_that_leaves_while_it_waits_for_a_process() -> None:
    machine = Machine([said("a")], Limits(processes=4))
    machine.engine.keeper.close()
    heard = machine.ask(request("x"))
    heard.group.cancel()
    assert (heard.events, machine.engine.admission.running) == ([], 0)


def test_a_model_that_is_silent() -> None:
    limits = Limits(deadlines=Deadlines(first_token=5.0, idle=3.0, turn=60.0))
    machine = Machine([cli.requesting(), begun("a")], limits)
    heard = machine.ask(request("x"))
    machine.run(4.9)
    assert heard.events == []
    machine.run(0.2)
    assert (heard.end.status, heard.end.kind, heard.end.spent) == (504, Kind.TIMEOUT, True)
    assert machine.engine.admission.running == 0
    heard = machine.ask(request("x"))
    machine.run(3.1)
    assert (heard.end.status, heard.end.spent) == (504, True)


def test_no_process_in_time() -> None:
    limits = Limits(deadlines=Deadlines(first_token=5.0))
    machine = Machine([], limits)
    machine.engine.keeper.close()
    heard = machine.ask(request("x"))
    machine.run(5.1)
    assert (heard.end.status, heard.end.spent) == (504, False)
    assert "no Claude CLI was ready" in heard.end.message
    assert machine.engine.admission.running == 0


def test_a_client_that_does_not_read_stops_the_process() -> None:
    limits = Limits(deadlines=Deadlines(idle=3.0))
    machine = Machine([begun("a")], limits)
    heard = machine.ask(request("x"))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    heard.group.pause()
    assert claude.paused
    machine.run(10.0)
    assert len(heard.events) == 4  # and no failure: it is not the model that is silent
    heard.group.resume()
    assert not claude.paused
    machine.run(4.0)
    assert heard.end.status == 504


def test_one_that_does_not_read_before_there_is_a_process() -> None:
    machine = Machine([begun("a")], Limits(processes=4))
    events: list[Any] = []
    answers = machine.engine.ask(request("x"), lambda _, burst: events.extend(burst))
    answers.pause()
    machine.run()
    (claude,) = machine.clis
    assert claude.paused
    answers.resume()
    assert not claude.paused


@pytest.mark.parametrize("reads_again", [False, True])
def test_one_that_does_not_read_before_it_has_a_slot(reads_again: bool) -> None:
    machine = Machine([begun("a"), begun("b")], Limits(processes=4, concurrency=1))
    first, second = machine.ask(request("x")), machine.ask(request("y"))
    second.group.pause()
    if reads_again:
        second.group.resume()
    first.group.cancel()
    machine.run()
    (busy,) = [claude for claude in machine.clis if claude.process.listener]
    assert busy.paused is not reads_again


def test_a_reserve_in_place_of_the_policys() -> None:
    machine = paying([said("a")])
    machine.engine.quota.hear(INFO)
    events: list[Any] = []
    machine.engine.ask(request("x"), lambda _, burst: events.extend(burst), {"five_hour": 0.95})
    machine.run()
    assert [event.kind for event in events] == [Kind.PLAN_LIMIT]
    machine.engine.ask(request("x"), lambda _, burst: events.extend(burst), {})
    machine.run()
    assert isinstance(events[-1], Finished)


def test_a_turn_in_the_queue_waits_for_its_slot_and_tells_how_long() -> None:
    machine = Machine([begun("a"), said("b")], Limits(processes=4, concurrency=1))
    first, second = machine.ask(request("x")), machine.ask(request("y"))
    assert (second.events, machine.engine.admission.waiting) == ([], 1)
    machine.run(3.0)
    (claude,) = [claude for claude in machine.clis if claude.asked]
    claude.say(cli.closing() + cli.result("a"))
    machine.run()
    assert isinstance(first.end, Finished)
    assert (second.text, first.group.queued, second.group.queued) == ("b", 0.0, 3.0)
    assert machine.engine.admission.running == 0


# -- what is refused before any process is touched --


def refusal(machine: Machine, **fields: Any) -> Failure:
    with pytest.raises(FailureError) as caught:
        machine.ask(request("x", **fields))
    assert not any(claude.asked for claude in machine.clis)
    return caught.value.failure


def test_what_could_keep_others_waiting_is_refused() -> None:
    machine = Machine()
    tools = tuple(evolve(LOOK, name=f"t{n}") for n in range(MAX_TOOLS + 1))
    found = refusal(machine, tools=tools)
    assert (found.status, found.param) == (400, "tools")
    assert machine.engine._check(request("x", tools=tools[1:])).name == "opus"
    stops = tuple(str(n) for n in range(MAX_STOPS + 1))
    found = refusal(machine, stop=stops)
    assert (found.status, found.param) == (400, "stop")
    assert machine.engine._check(request("x", stop=stops[1:])).name == "opus"
    found = refusal(machine, schema={"type": "nothing"})
    assert (found.status, found.param is not None and found.param[:6]) == (400, "schema")
    assert refusal(machine, n=1000).param == "n"


def test_the_name_that_the_cli_keeps_for_itself() -> None:
    tools = (evolve(LOOK, name=RESERVED),)
    found = refusal(Machine(limits=Limits(plain_names=True)), tools=tools)
    assert (found.status, found.param) == (400, "tools")
    assert repr(RESERVED) in found.message
    assert Machine([said("a")]).ask(request("x", tools=tools)).text == "a"


# -- processes that go, and others in their place --


def test_an_unused_process_is_replaced_when_it_is_old() -> None:
    machine = Machine()
    old = list(machine.alive)
    for _ in range(int(MAX_AGE / TEND)):
        machine.run(TEND)
    assert machine.alive == old
    machine.run(TEND)
    assert len(machine.alive) == 1
    assert not set(old) & set(machine.alive)
    assert all(claude.closed for claude in old)


def test_where_memory_is_short_idle_processes_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine([said("a"), said("b")], Limits(idle=1e6))
    machine.ask(request("x"))
    machine.ask(request("y", system=("Be brief.",)))
    machine.run(TEND)
    assert (machine.engine.keeper.holding, machine.engine.keeper.unused) == (2, 1)
    monkeypatch.setattr(memory, "SCARCE", 2.0)
    machine.run(TEND)
    machine.run(TEND)
    assert (machine.engine.keeper.holding, machine.engine.keeper.unused) == (0, 1)
    assert len(machine.alive) == 1


def paying(script: list[bytes], limits: Limits | None = None) -> Machine:
    """A machine with a login."""
    machine = Machine(script, limits or Limits(processes=4))
    machine.engine.quota.applies = True
    machine.engine.login_is(MINE)
    return machine


def test_a_new_login_renews_every_process_that_no_turn_runs_on() -> None:
    machine = paying([said("a"), begun("b")], Limits(processes=4))
    machine.engine.quota.hear(INFO)
    machine.ask(request("x"))
    heard = machine.ask(request("y", system=("Be brief.",)))
    (kept, busy) = [claude for claude in machine.clis if claude.asked]
    waiting = [claude for claude in machine.alive if not claude.asked]
    machine.engine.login_is(MINE)
    machine.run()
    assert not any(claude.closed for claude in machine.clis)
    machine.engine.login_is(HERS)
    machine.run()
    assert [claude.closed for claude in (*waiting, kept)] == [True] * (len(waiting) + 1)
    assert (busy.closed, machine.engine.keeper.holding) == (False, 0)
    assert machine.engine.keeper.unused == 1
    assert machine.engine.quota.windows.known == {}  # they were another account's
    busy.say(cli.closing() + cli.result("b"))
    machine.run()
    assert (heard.text, busy.closed) == ("b", True)


def test_what_ends_under_the_login_of_before_tells_nothing_of_the_new_one() -> None:
    machine = paying([begun("a")], Limits(processes=2))
    heard = machine.ask(request("x"))
    (busy,) = [claude for claude in machine.clis if claude.asked]
    machine.engine.login_is(HERS)
    told = cli.line({"type": "rate_limit_event", "rate_limit_info": INFO})
    busy.say(cli.closing() + told + cli.result("a"))
    machine.run()
    assert (heard.text, busy.closed) == ("a", True)
    assert machine.engine.quota.windows.known == {}


def test_the_same_login_stored_anew_keeps_the_windows() -> None:
    machine = paying([])
    machine.engine.quota.hear(INFO)
    out = Failure(Kind.AUTHENTICATION, "out", 401, code="not_logged_in")
    machine.engine.quota.login.ended(out, machine.engine.quota.login.number)
    before = list(machine.alive)
    machine.engine.login_is(MINE, stored=True)
    machine.run()
    assert not set(before) & set(machine.alive)
    assert list(machine.engine.quota.windows.known) == ["five_hour"]


def test_with_another_upstream_nobody_asks_whose_login_it_is() -> None:
    machine = Machine([said("a")])
    before = list(machine.alive)
    machine.engine.login_is(MINE)
    machine.engine.login_is(HERS)
    machine.run()
    assert (machine.alive, machine.engine.quota.login.account) == (before, None)


def test_the_account_that_a_process_tells_is_heard() -> None:
    machine = paying([])
    (claude,) = machine.alive
    machine.engine.account(claude.process, None)
    assert machine.engine.quota.login.account == "mine"
    machine.engine.account(claude.process, HERS)
    machine.run()
    assert (machine.engine.quota.login.account, claude.closed) == ("hers", True)


@pytest.mark.parametrize("begun", [cli.opening(), b""], ids=["begun", "asked for"])
def test_an_answer_that_is_not_wanted_any_more_tells_how_it_is_paid(begun: bytes) -> None:
    machine = paying([cli.requesting() + begun, said("c")], Limits(processes=4))
    heard = machine.ask(request("x"))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    heard.group.cancel()
    machine.run()
    assert not claude.closed
    next_one = machine.ask(request("x"))
    assert next_one.events == []  # it is not known yet whether the first is charged for
    machine.run(OUTLIVE - 1)
    claude.say((b"" if begun else cli.opening()) + b"".join(cli.text_block(["a"])) + cli.closing())
    claude.say(cli.line({"type": "rate_limit_event", "rate_limit_info": INFO}))
    machine.run()
    assert (claude.closed, next_one.text) == (False, "c")


def test_the_next_turn_waits_until_the_answer_is_paid_for() -> None:
    machine = paying([begun("a") + cli.closing(), said("b")], Limits(processes=4))
    first, second = machine.ask(request("x")), machine.ask(request("y"))
    assert isinstance(first.end, Finished)
    assert second.events == []
    (claude,) = [claude for claude in machine.clis if claude.asked]
    claude.say(cli.line({"type": "rate_limit_event", "rate_limit_info": INFO}) + cli.result("a"))
    machine.run()
    assert second.text == "b"


def test_the_same_account_told_again_is_no_new_login() -> None:
    machine = paying([])
    out = Failure(Kind.AUTHENTICATION, "out", 401, code="not_logged_in")
    machine.engine.quota.login.ended(out, machine.engine.quota.login.number)
    before = list(machine.alive)
    machine.engine.login_is(MINE)
    machine.run()
    assert (machine.alive, machine.engine.quota.login.works) == (before, False)


def test_one_that_had_not_asked_yet_is_taken_back_at_once() -> None:
    machine = paying([b""])
    heard = machine.ask(request("x"))
    (claude,) = [claude for claude in machine.clis if claude.asked]
    heard.group.cancel()
    machine.run()
    assert (claude.rewinds, claude.process.state) == (1, State.IDLE)


def test_a_turn_that_finds_the_login_dead_tells_the_others() -> None:
    out = cli.requesting() + cli.result("Not logged in", is_error=True, api_error_status=401)
    machine = paying([out])
    assert machine.ask(request("x")).end.status == 401
    assert machine.engine.quota.login.works is False
    assert machine.ask(request("x")).end.code == "not_logged_in"
    assert machine.script == []  # the second was put to nobody


def test_processes_that_end_by_themselves_are_forgotten_or_replaced() -> None:
    machine = Machine([said("a")])
    machine.ask(request("x"))
    (kept,) = [claude for claude in machine.clis if claude.asked]
    (waiting,) = [claude for claude in machine.alive if claude is not kept]
    kept.die()
    assert machine.engine.keeper.holding == 0
    waiting.die()
    assert machine.engine.keeper.unused == 0
    machine.run(1.0)
    assert machine.engine.keeper.unused == 1
    assert not {kept, waiting} & set(machine.alive)


def test_who_has_priority_goes_first() -> None:
    machine = Machine([begun("a"), said("b"), said("c")], Limits(processes=4, concurrency=1))
    first = machine.ask(request("x"))
    later, sooner = machine.ask(request("y")), machine.ask(request("z", tier="priority"))
    first.group.cancel()
    machine.run()
    assert (sooner.text, later.text) == ("b", "c")


# -- the end --


def test_stopped_it_lets_turns_end_and_takes_nobody_in() -> None:
    machine = Machine([said("k"), begun("a")], Limits(idle=1e6))
    machine.ask(request("k"))
    heard = machine.ask(request("x"))
    stopped = machine.engine.stop(10.0)
    with pytest.raises(FailureError) as caught:
        machine.ask(request("y"))
    assert (caught.value.failure.status, caught.value.failure.retry_after) == (503, 1.0)
    machine.run(5.0)
    assert not stopped.called
    busy = [claude for claude in machine.clis if claude.asked][-1]
    busy.say(cli.closing() + cli.result("a"))
    machine.run()
    assert (heard.text, stopped.called) == ("a", True)
    assert machine.engine.processes == set()
    assert machine.clock.getDelayedCalls() == []


def test_stopped_it_sends_away_what_takes_too_long() -> None:
    machine = Machine([begun("a")], Limits(processes=4, concurrency=1))
    heard, queued = machine.ask(request("x")), machine.ask(request("y"))
    stopped = machine.engine.stop(10.0)
    assert (queued.end.status, heard.group.done.called) == (503, False)
    machine.run(9.9)
    assert not heard.group.done.called
    machine.run(0.2)
    ended: list[Heard] = [heard, queued]
    assert [each.end.status for each in ended] == [503, 503]
    assert (stopped.called, machine.engine.processes) == (True, set())
