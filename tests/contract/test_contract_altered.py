"""What the CLI leaves out or changes without a word. What the daemon does about it:
``tests/e2e/test_bound_answers.py``."""

import json

import pytest
from driver import (
    PNG,
    assistant,
    call,
    conversation,
    flags,
    result,
    run,
    serving,
    system_texts,
    text,
    tool,
    tools_of,
    user,
)

from claudeproxy.cli.altered import EXACT, NOTHING, normal
from claudeproxy.cli.models import most_tokens
from claudeproxy.cli.setup import BOUNDARY
from claudeproxy.messages import tool_schema


def properties(**schemas):
    return {"type": "object", "properties": schemas}


BROKEN = {
    "null type": {"type": None},
    "unknown type": {"type": "any"},
    "null enum": {"type": "string", "enum": None},
    "old items": {"type": "array", "items": [{"type": "string"}]},
    "old bound": {"type": "number", "minimum": 1, "exclusiveMinimum": True},
    "old required": {"type": "string", "required": True},
    "null text": {"type": "string", "description": None},
    "null": None,
}
NAMES = {"dollar": "$filter", "brackets": "ids[]", "umlaut": "größe", "long": "a" * 65, "empty": ""}
ROOTS = [
    {"type": "object", "properties": None},
    {"type": "object", "properties": []},
    {"type": "object", "properties": {}, "required": None},
    {"type": "object", "properties": {}, "required": "x"},
    {"properties": {}},
]
FOREIGN = {
    "2020-12": {"$schema": "https://json-schema.org/draft/2020-12/schema", **properties(a={})},
    "draft-04": {"$schema": "http://json-schema.org/draft-04/schema#", **properties(a={})},
    "keywords": properties(a={"type": "string", "example": "x", "x-own": 1, "discriminator": {}}),
    "python": properties(a={"type": "string", "pattern": "(?i)(?P<x>a)"}),
    "true": properties(a=True, b=False),
    "nested names": properties(a=properties(**{"$filter": {}, "größe": {}})),
    "dependent": {**properties(a={}), "dependentRequired": {"a": ["b"]}, "not": {}},
}
TEXTS = [
    "½ № ﬁ … ™ \uff21",
    "👩\u200d💻",
    "e\u0301",
    "a\u200bb\u00adc",
    "a\u00a0b",
    "é漢\x07\u2028",
    "❤️",
]
TEXT = properties(
    a={"enum": TEXTS, "description": TEXTS[0], "default": "½"}, b=properties(**{"№": {}})
)
NUMBERS = properties(a={"type": "integer", "maximum": 2**63 - 1, "enum": [EXACT + 1]})
LARGE = {"a": EXACT + 1, "b": [EXACT], "c": "½\u200b"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
MODELS = (
    "claude-opus-4-1 claude-sonnet-4 claude-sonnet-4-5 claude-haiku-4-5 claude-opus-4-5 "
    "claude-opus-4-6 claude-sonnet-4-6 claude-opus-4-8 claude-opus-5-5 claude-3-5-haiku-20241022 "
    "claude-3-7-sonnet-20250219"
).split()


@pytest.fixture(scope="module")
def offered(stage):
    """The tools that reach the request, by name, and their descriptions."""

    async def play():
        made = await stage()
        tools = [
            *(tool(f"broken {name}", schema=properties(a=one)) for name, one in BROKEN.items()),
            *(tool(f"name {name}", schema=properties(**{one: {}})) for name, one in NAMES.items()),
            *(tool(name, schema=one) for name, one in FOREIGN.items()),
            tool("proto", schema=properties(a=properties(**{"__proto__": {}, "b": {}}))),
            tool("text", TEXTS[1], TEXT),
            tool("numbers", schema=NUMBERS),
        ]
        for one in tools:
            one["name"] = one["name"].replace(" ", "-")
        await made.begin(**serving(*tools))
        return tools_of((await made.turn("x")).requests[0].body)

    return run(play())


@pytest.fixture(scope="module")
def roots(stage):
    """How often the CLI asks for the tools when one is broken at its root."""

    async def play():
        asked = []
        for root in ROOTS:
            made = await stage()
            await made.begin(**serving(tool("fine"), tool("broken", schema=root)))
            made.cli.send(user("x"))
            line = await made.cli.line(lambda line: line["type"] == "control_request")
            asked.append(line["request"]["message"]["method"])
            await made.cli.kill()
        return asked

    return run(play())


@pytest.fixture(scope="module")
def told(stage):
    """A conversation with what is left out of it, and the limits of models."""

    async def play():
        made = await stage()
        await made.begin("one", BOUNDARY, f"two {BOUNDARY}", **serving(tool()))
        await made.history(user("a", query=False))
        made.cli.send(assistant(f" {NOTHING}\n"))
        await made.history(user("b", query=False))
        made.cli.send(assistant(NOTHING, NOTHING))
        await made.history(user("b again", query=False))
        made.cli.send(assistant("(no content", ")", NOTHING))
        await made.history(user("c", query=False))
        made.cli.send(assistant(call("toolu_1", **LARGE)))
        failed = result("toolu_1", text("bad"), IMAGE, is_error=True)
        turn = await made.turn(failed, IMAGE, "d")
        limits = {}
        for model in MODELS:
            limit = flags(model=model, env={"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "999999"})
            limits[model] = (await made.turn("x", before=[limit])).body["max_tokens"]
        return turn.body, limits

    return run(play())


def test_a_tool_with_a_broken_property_is_left_out_by_the_newest(offered, newest):
    """``null``, an unknown type, and what only older drafts take."""
    present = {name for name in offered if name.startswith("broken")}
    assert present == (set() if newest else {f"broken-{n.replace(' ', '-')}" for n in BROKEN})


def test_a_tool_with_an_unfit_property_name_is_left_out_by_the_newest(offered, newest):
    """At the root; the oldest sends it, and the API refuses it."""
    present = {name for name in offered if name.startswith("name")}
    assert present == (set() if newest else {f"name-{name}" for name in NAMES})


def test_one_tool_broken_at_its_root_spoils_the_manifest(roots):
    """The CLI asks for the tools itself then, is told the same, and has none at all."""
    assert roots == ["initialize"] * len(ROOTS)


def test_other_schemas_are_passed_on_as_they_are(offered):
    """Whatever the draft they name, with unknown keywords, foreign patterns, names within."""
    assert {name: offered[name.replace(" ", "-")]["input_schema"] for name in FOREIGN} == FOREIGN
    assert all(tool_schema(schema, "") == schema for schema in FOREIGN.values())


def test_texts_of_a_tool_are_normalised(offered):
    """Descriptions, values and names alike: NFKC, and invisible characters go."""
    values = offered["text"]["input_schema"]["properties"]["a"]["enum"]
    assert values == [normal(one) for one in TEXTS]
    assert [value == one for value, one in zip(values, TEXTS, strict=True)].count(True) == 2
    assert offered["text"]["description"] == normal(TEXTS[1])
    assert list(offered["text"]["input_schema"]["properties"]["b"]["properties"]) == ["No"]


def test_large_integers_of_a_tool_are_rounded(offered):
    sent = offered["numbers"]["input_schema"]["properties"]["a"]
    assert sent == {"type": "integer", "maximum": 9223372036854776000, "enum": [EXACT]}


def test_a_property_called_proto_vanishes(offered):
    assert offered["proto"]["input_schema"] == properties(a=properties(b={}))


def test_a_part_of_the_system_prompt_that_is_the_boundary_is_left_out(told):
    assert system_texts(told[0])[-1] == f"one\n\ntwo {BOUNDARY}"


def test_no_content_is_left_out_of_history_unless_in_pieces(told):
    said = [(role, "".join(b.get("text", "") for b in blocks)) for role, blocks in
            conversation(told[0])]  # fmt: skip
    expected = [("user", "a\nb\nb again"), ("assistant", 2 * NOTHING), ("user", "c")]
    assert said[:3] == expected


def test_large_integers_in_arguments_are_rounded_and_texts_are_not(told):
    (use,) = conversation(told[0])[3][1]
    assert use["input"] == {**LARGE, "a": EXACT}
    assert json.dumps(use["input"]["b"]) == f"[{EXACT}]"


def test_an_image_in_an_error_result_is_left_out_but_not_behind_it(told):
    failed, image, _ = conversation(told[0])[-1][1]
    assert failed["is_error"] and failed["content"] in ("bad", [text("bad")])
    assert image == IMAGE


def test_a_limit_above_the_models_own_is_cut(told):
    assert told[1] == {model: most_tokens(model) for model in MODELS}
