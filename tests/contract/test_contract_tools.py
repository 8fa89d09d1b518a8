"""Client tools: what of them reaches the request, and how calls come and are answered."""

import json

import attrs
import pytest
from driver import (
    PNG,
    Turn,
    conversation,
    environ,
    event,
    flags,
    of_type,
    run,
    serving,
    text,
    tool,
    tools_call,
    tools_of,
    use_id,
)
from twisted.internet import reactor
from twisted.internet.task import deferLater

SCHEMA = {
    "type": "object",
    "description": "d" * 3000,
    "properties": {
        "a": {"type": ["string", "null"], "enum": ["x", None], "default": "x"},
        "b": {"$ref": "#/$defs/b"},
        "c": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "required": ["b"],
    "additionalProperties": False,
    "$defs": {"b": {"type": "array", "items": {"type": "number"}}},
}
UNION = {
    "anyOf": [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
    ],
    "type": "object",
}
TOOLS = [
    tool("zeta"),
    tool("Odd-name_1", schema=SCHEMA),
    tool("mcp__x__y"),
    tool("alpha", "l" * 3000),
    tool("union", schema=UNION),
    tool("alone", parallel=False),
    tool("ToolSearch"),
]
LONG = "[[say ok]]" + "long " * 50_000
PICTURE = {"type": "image", "data": PNG, "mimeType": "image/png"}


@attrs.frozen
class Call:
    """A turn up to its calls, the calls, and what answering them led to."""

    turn: Turn
    calls: list
    after: Turn

    @property
    def results(self):
        """The results as they reached upstream."""
        return conversation(self.after.body)[-1][1]


async def park(made, order, count=1):
    """A turn until ``count`` calls wait."""
    since, sent = len(made.cli.lines), len(made.demo.requests)
    calls = []

    def enough(line):
        if tools_call(line) and line not in calls:
            calls.append(line)
        return len(calls) == count

    await made.turn(order, until=enough)
    await made.cli.line(event("message_stop"), since)
    return Turn(made.cli.lines[since:], made.requests[sent:]), calls


async def answered(made, order, *answers, before=()):
    """Park on a turn's calls and answer them: one (content, fields) each."""
    turn, calls = await park(made, order, len(answers))
    since, sent = len(made.cli.lines), len(made.demo.requests)
    made.cli.send(*before)
    for called, (content, fields) in zip(calls, answers, strict=True):
        made.cli.answer(called, *content, **fields)
    await made.cli.line(of_type("result"), since)
    return Call(turn, calls, Turn(made.cli.lines[since:], made.requests[sent:]))


@pytest.fixture(scope="module")
def toolbox(stage):
    """One process with tools: calls by name, ``files`` after the first, ``after TERM``."""
    found = {}

    async def play():
        made = await stage(more={"MAX_MCP_OUTPUT_TOKENS": "100000000"})
        await made.begin("SECRET system", **serving(*TOOLS))
        call = '[[call zeta {"a": 1}]]'
        found["two"] = await answered(
            made,
            f'SECRET [[say hm]]{call}[[call Odd-name_1 {{"b": [1.5]}}]]',
            ([text("SECRET\n 1 \u2028 ")], {"isError": False}),
            ([text("two"), PICTURE], {"isError": False}),
            before=[
                flags(
                    model="claude-haiku-4-5",
                    env={
                        "CLAUDE_CODE_EXTRA_BODY": json.dumps({"stop_sequences": ["ZZ"]}),
                        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4321",
                    },
                )
            ],
        )
        await made.turn("[[say SECRET answer]]")
        found["files"] = made.files()
        found["cwd"] = list(made.cwd.iterdir())
        before = [environ(CLAUDE_CODE_MAX_OUTPUT_TOKENS="5432")]
        found["limit"] = await answered(made, call, ([text("1")], {}), before=before)
        found["limit later"] = await made.turn("Hi")
        found["long"] = await answered(made, call, ([text(LONG)], {}))
        found["mixed"] = await answered(made, call, ([text(LONG), PICTURE], {}))
        found["empty"] = await answered(made, call, ([], {}))
        found["blank"] = await answered(made, call, ([text(" ")], {}))
        failed = [text("bad"), text("worse")], {"isError": True}
        found["error"] = await answered(made, call, failed)
        turn, calls = await park(made, "[[call alone {}]][[call alone {}]]")
        since = len(made.cli.lines)
        made.cli.answer(*calls, text("1"))
        found["alone"] = turn, [*calls, await made.cli.line(tools_call, since)]
        sent = len(made.requests)
        made.cli.transport.signalProcess("TERM")
        found["exit"] = await made.cli.ended
        await deferLater(reactor, 0.2)
        found["after TERM"] = len(made.requests) - sent

    run(play())
    return found


@pytest.fixture(scope="module")
def impatient(stage):
    """A server with a time limit of one second and the usual limit of tokens; then stdin closed
    while parked."""
    found = {}

    async def play():
        made = await stage(more={"MAX_MCP_OUTPUT_TOKENS": "25000"})
        await made.begin(**serving(tool(), timeout=1000))
        mixed = [text("[[say ok]]" + "a" * 120_000), PICTURE]
        found["mixed"] = await answered(made, "[[call look {}]]", (mixed, {}))
        found["timeout"] = await made.turn("[[call look {}]]")
        await park(made, "[[call look {}]]")
        sent = len(made.requests)
        made.cli.transport.closeStdin()
        await made.cli.line(of_type("result"), len(made.cli.lines))
        found["closed"] = made.requests[sent:]

    run(play())
    return found


def offered(toolbox):
    return tools_of(toolbox["two"].turn.body)


def test_tools_keep_their_names_and_are_sorted(toolbox):
    """Without regard to case; "ToolSearch" is the CLI's own and is left out."""
    names = [name for name in offered(toolbox) if name != "union"]
    assert names == ["alone", "alpha", "mcp__x__y", "Odd-name_1", "zeta"]


def test_a_schema_is_passed_on_as_it_is(toolbox):
    """Its own description is not cut; annotations and ``_meta`` do not go upstream."""
    odd = offered(toolbox)["Odd-name_1"]
    assert odd == {"name": "Odd-name_1", "description": "Looks.", "input_schema": SCHEMA}


def test_a_schema_with_a_union_at_its_root_is_flattened_or_the_tool_left_out(toolbox, newest):
    union = offered(toolbox).get("union")
    if newest:
        assert union["input_schema"]["properties"].keys() == {"a", "b"}
        assert "anyOf" not in union["input_schema"]
        assert union["description"].startswith("Input constraint: ")
    else:
        assert union is None


def test_a_long_description_is_cut_by_the_oldest_only(toolbox, newest):
    description = offered(toolbox)["alpha"]["description"]
    if newest:
        assert description == "l" * 3000
    else:
        assert description.startswith("l" * 2048) and len(description) < 2100


def test_parallel_calls_come_at_once(toolbox):
    """With ``readOnlyHint``: both wait before either is answered."""
    assert len(toolbox["two"].calls) == 2


def test_a_call_that_is_not_read_only_waits_for_the_one_before(toolbox):
    turn, (first, second) = toolbox["alone"]
    assert sum(map(tools_call, turn.lines)) == 1
    assert use_id(first) != use_id(second)


def test_a_call_carries_the_id_and_the_arguments_of_its_tool_use(toolbox):
    two = toolbox["two"]
    (*_, first, second) = [
        relayed["content_block"]
        for relayed in two.turn.events
        if relayed["type"] == "content_block_start"
    ]
    assert [use_id(called) for called in two.calls] == [first["id"], second["id"]]
    params = [called["request"]["message"]["params"] for called in two.calls]
    assert [(p["name"], p["arguments"]) for p in params] == [
        ("zeta", {"a": 1}),
        ("Odd-name_1", {"b": [1.5]}),
    ]


def test_with_a_manifest_nothing_but_calls_is_asked(toolbox):
    asked = toolbox["two"].turn.all("control_request")
    assert all(map(tools_call, asked))


def test_a_parked_turn_has_sent_one_request(toolbox):
    assert len(toolbox["two"].turn.requests) == 1


def test_a_parked_turn_has_no_result(toolbox):
    assert toolbox["two"].turn.all("result") == []


def test_an_answered_turn_is_one_further_request(toolbox):
    assert len(toolbox["two"].after.requests) == 1


def test_text_and_images_answer_a_call_word_for_word(toolbox):
    image = {"type": "base64", "media_type": "image/png", "data": PNG}
    first, second = toolbox["two"].results
    assert first["content"] == [text("SECRET\n 1 \u2028 ")]
    assert second["content"] == [text("two"), {"type": "image", "source": image}]
    assert "is_error" not in first


def test_a_long_text_answers_a_call_word_for_word(toolbox):
    """Thanks to ``anthropic/maxResultSizeChars``; without it 50,000 characters are the limit."""
    (only,) = toolbox["long"].results
    assert only["content"] == [text(LONG)]


def test_a_long_text_with_an_image_is_whole_with_a_high_token_limit(toolbox):
    (only,) = toolbox["mixed"].results
    assert [part["type"] for part in only["content"]] == ["text", "image"]
    assert only["content"][0] == text(LONG)


def test_a_long_text_with_an_image_is_counted_and_cut_with_the_usual_token_limit(impatient):
    """``maxResultSizeChars`` is for text alone; counting takes requests of its own."""
    *counts, answer = impatient["mixed"].after.requests
    assert {count.path.split("?")[0] for count in counts} == {"/v1/messages/count_tokens"}
    (only,) = conversation(answer.body)[-1][1]
    assert "[OUTPUT TRUNCATED" in only["content"][-1]["text"]


@pytest.mark.parametrize("name", ["empty", "blank"])
def test_an_empty_answer_becomes_a_sentence(toolbox, name):
    (only,) = toolbox[name].results
    assert only["content"] == "(zeta completed with no output)"


def test_an_error_answer_is_joined(toolbox):
    (only,) = toolbox["error"].results
    assert only["content"] == "bad\nworse" and only["is_error"] is True


def test_flags_sent_while_parked_reach_the_continuation(toolbox):
    body = toolbox["two"].after.body
    assert body["model"] == "claude-haiku-4-5"
    assert body["stop_sequences"] == ["ZZ"]
    assert body["max_tokens"] == 4321


def test_max_tokens_alone_sent_while_parked_comes_a_turn_late_on_the_newest(toolbox, newest):
    """It reads the limit when a turn begins, or when the model changes."""
    assert toolbox["limit"].after.body["max_tokens"] == (4321 if newest else 5432)
    assert toolbox["limit later"].body["max_tokens"] == 5432


def test_a_server_may_set_its_own_time_limit(impatient):
    """And past it the CLI makes up a result and goes on: ours has to be the shorter one."""
    assert len(impatient["timeout"].requests) == 2
    (only,) = conversation(impatient["timeout"].requests[1].body)[-1][1]
    assert "timed out after 1s" in only["content"]


def test_closing_stdin_of_a_parked_process_sends_a_request(impatient):
    """With a result it made up: such a process is ended by a signal."""
    (request,) = impatient["closed"]
    (only,) = conversation(request.body)[-1][1]
    assert only["is_error"] is True and "interrupted" in only["content"]


def test_term_ends_a_parked_process_and_sends_no_request(toolbox):
    assert toolbox["exit"] == 143
    assert toolbox["after TERM"] == 0


def test_nothing_said_is_written_to_disk(toolbox):
    """Neither prompt nor system prompt, answer, argument or result of a call."""
    assert toolbox["files"], "the CLI writes some files: we looked in the wrong place"
    assert [path for path, data in toolbox["files"].items() if b"SECRET" in data] == []


def test_the_working_directory_stays_empty(toolbox):
    assert toolbox["cwd"] == []
