"""What ``apply_flag_settings`` changes in the next request, and how it is taken back."""

import json

import pytest
from driver import OLD, extra, flags, run, serving, text, tool

FORMAT = {
    "type": "json_schema",
    "schema": {"type": "object", "properties": {}, "additionalProperties": False},
}
STOPS = ["END", "\n\nHuman:"]
CHOICE = {"type": "auto", "disable_parallel_tool_use": True}
OFF = {"type": "disabled"}
SAID = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def settings(model=OLD, effort=None, limit="", **body):
    """The flags as the daemon sends them: every one, every time."""
    variables = {
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": limit,
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(body),
    }
    return flags(model=model, effortLevel=effort, env=variables)


@pytest.fixture(scope="module")
def asked(stage):
    """The turns of one process, by name; and its list of models."""
    found = {}

    async def play():
        made = await stage()

        async def take(name, line):
            found[name] = await made.turn("[[say ok]]", before=[line])

        await made.begin(**serving(tool()))
        await take("plain", settings())
        await take(
            "all",
            settings(
                limit="55",
                stop_sequences=STOPS,
                temperature=0.5,
                tool_choice=CHOICE,
                thinking=OFF,
                output_config={"format": FORMAT},
            ),
        )
        await take("nothing sent", flags())
        await take("cleared", settings())
        await take("top_p", settings(top_p=0.5, thinking=OFF))
        budget = {"type": "enabled", "budget_tokens": 2048}
        await take("budget", settings(limit="3000", thinking=budget))
        await take("effort", settings("opus", "low", output_config={"format": FORMAT}))
        await take("effort stays", extra())
        await take("effort null", settings("opus"))
        await take("thinking off", settings("opus", thinking=OFF))
        for model in made.models:
            await take(model["value"], settings(model["value"]))
        await take("claude-opus-4-1", settings("claude-opus-4-1"))
        await take("small limit", settings(limit="55"))
        return made.models, found

    return run(play())


@pytest.fixture(scope="module")
def models(asked):
    return asked[0]


@pytest.fixture(scope="module")
def turns(asked):
    return asked[1]


def test_models_are_told_before_initialize(models):
    """``Stage.start`` asks for them first of all."""
    names = {model["value"] for model in models}
    assert {"default", "opus", "sonnet", "haiku"} <= names
    for model in models:
        assert model["resolvedModel"].startswith("claude-")
        assert model["displayName"]
        assert isinstance(model.get("supportedEffortLevels", []), list)
        assert isinstance(model.get("supportsAdaptiveThinking", False), bool)


def test_models_tell_that_thinking_cannot_be_switched_off_in_the_newest_only(models, newest):
    said = {model.get("supportsThinkingOff") for model in models}
    assert said == ({False} if newest else {None})


def test_a_model_is_sent_under_its_resolved_name(models, turns):
    for model in models:
        assert turns[model["value"]].body["model"] == model["resolvedModel"]


def test_a_full_model_name_is_sent_as_it_is(turns):
    assert turns["plain"].body["model"] == OLD
    assert turns["claude-opus-4-1"].requests[0].body["model"] == "claude-opus-4-1"


def test_the_limit_is_sent(turns):
    assert turns["all"].body["max_tokens"] == 55


def test_the_body_fields_are_sent(turns):
    body = turns["all"].body
    assert body["stop_sequences"] == STOPS
    assert body["temperature"] == 0.5
    assert body["tool_choice"] == CHOICE
    assert body["thinking"] == OFF
    assert body["output_config"] == {"format": FORMAT}
    assert turns["top_p"].body["top_p"] == 0.5


def test_variables_stay_until_set_again(turns):
    """So the daemon sends every one, every time."""
    changing = ("messages", "metadata", "system")  # a login's billing line is new every time
    before, after = ({**turns[name].body} for name in ("all", "nothing sent"))
    for name in changing:
        del before[name], after[name]
    assert before == after


def test_an_empty_limit_and_an_empty_body_clear(turns):
    plain, cleared = turns["plain"].body, turns["cleared"].body
    assert cleared.keys() == plain.keys()
    for name in ("max_tokens", "thinking", "tools"):
        assert cleared[name] == plain[name]
    assert cleared["system"][1:] == plain["system"][1:]


def test_a_thinking_budget_is_sent(turns):
    assert turns["budget"].body["thinking"] == {"type": "enabled", "budget_tokens": 2048}


def test_effort_is_sent_beside_the_format(turns):
    assert turns["effort"].body["output_config"] == {"effort": "low", "format": FORMAT}


def test_effort_stays_until_set_again(turns):
    assert turns["effort stays"].body["output_config"] == {"effort": "low"}


def test_effort_null_resets(turns):
    """To what the CLI takes for the model, which is not what was set before."""
    assert (turns["effort null"].body.get("output_config") or {}).get("effort") != "low"


def test_effort_is_ignored_by_models_without(turns):
    assert "output_config" not in turns["plain"].body


def test_thinking_off_is_sent_to_the_aliases(turns):
    """The CLI passes it on; whether the API takes it is another matter."""
    assert turns["thinking off"].body["thinking"] == OFF


def test_a_small_limit_leaves_too_large_a_budget(turns):
    """Which the API refuses: so the daemon switches thinking off there."""
    request = turns["small limit"].requests[0]
    assert request.body["max_tokens"] == 55
    assert request.body["thinking"]["budget_tokens"] == 1024
    assert request.refused.status == 400


def test_flags_do_not_show_in_the_conversation(turns):
    assert turns["cleared"].said == [text("[[say ok]]")]
    assert len(turns["cleared"].body["messages"]) == 7
