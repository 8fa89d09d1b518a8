"""The questions: what is asked, and what makes the answer a yes.

Each raises :class:`~claudeproxy.command.trying.asker.NotHeld` where it is a no. The prompts are of
a kind that any model answers alike, and the answers are as short as that allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import frozen
from jsonschema import Draft202012Validator

from .asker import Asker, NotHeld

Check = Callable[[Asker], None]

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MESSAGES, COMPLETIONS = "/v1/messages", "/v1/completions"

WORD = "Answer with the one word: yes"

LIMIT = 8
"""Tokens; the answer that is asked for is longer."""

ROOM = 1000
"""The ``max_tokens`` of Messages, which wants one, where it is to be no limit."""

COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}

LONG = "You answer with one word.\n" + "".join(
    f"Line {number} of this text means nothing.\n" for number in range(1, 501)
)
"""Longer than the 4,096 tokens below which the models of today cache nothing."""


@frozen
class Question:
    """``name``: for reports; ``text``: the question; ``requests``: how many it takes.

    ``about``: ``turns`` can be asked of any upstream, ``cache`` of one with a cache, ``plan`` of a
    subscription; those about the plan send nothing and are looked at last, whatever came before.
    """

    name: str
    text: str
    check: Check
    requests: int
    about: Literal["turns", "cache", "plan"]


QUESTIONS: list[Question] = []
"""In the order in which they are asked."""


def _question(
    requests: int = 1, about: Literal["turns", "cache", "plan"] = "turns"
) -> Callable[[Check], Check]:
    def mark(check: Check) -> Check:
        text = " ".join((check.__doc__ or "").split())
        QUESTIONS.append(Question(check.__name__, text, check, requests, about))
        return check

    return mark


def same(name: str, found: Any, wanted: str | int) -> None:
    """:raises NotHeld: when ``found`` is something else, which is not quoted."""
    if found != wanted:
        raise NotHeld(f"{name} is not {wanted}")


def holds(condition: Any, otherwise: str) -> None:
    """:raises NotHeld: with ``otherwise``."""
    if not condition:
        raise NotHeld(otherwise)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@_question()
def chat_completion(asker: Asker) -> None:
    """Is a chat completion answered?"""
    choice = asker.whole(CHAT, messages=_user(WORD))["choices"][0]
    same("finish_reason", choice["finish_reason"], "stop")
    holds(choice["message"]["content"], "the answer is empty")


@_question()
def chat_completion_streamed(asker: Asker) -> None:
    """Does a chat completion stream, and end with its usage?"""
    options = {"include_usage": True}
    chunks = asker.streamed(CHAT, messages=_user(WORD), stream_options=options)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    holds(any(choice["delta"].get("content") for choice in choices), "the answer is empty")
    same("finish_reason", choices[-1]["finish_reason"], "stop")
    holds(chunks[-1].get("usage"), "it does not end with its usage")


@_question()
def response(asker: Asker) -> None:
    """Is a request of the Responses API answered?"""
    made = asker.whole(RESPONSES, input=WORD, store=False)
    same("status", made["status"], "completed")
    texts = [part["text"] for item in made["output"] for part in item.get("content") or ()]
    holds("".join(texts), "the answer is empty")


@_question()
def json_schema(asker: Asker) -> None:
    """Does the answer to a login keep to a JSON schema? (Responses, streamed)"""
    form = {"type": "json_schema", "name": "colour", "schema": COLOUR, "strict": True}
    events = asker.streamed(
        RESPONSES, input="What colour is grass?", text={"format": form}, store=False
    )
    same("the last event", events[-1]["type"], "response.completed")
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    try:
        answer = json.loads("".join(event["delta"] for event in deltas))
    except ValueError:
        raise NotHeld("the answer is not JSON") from None
    holds(Draft202012Validator(COLOUR).is_valid(answer), "the answer does not fit the schema")


@_question()
def stop_sequence(asker: Asker) -> None:
    """Does Anthropic take stop sequences from a login? (Messages)"""
    prompt = _user("Repeat exactly: alpha beta gamma delta")
    made = asker.whole(MESSAGES, messages=prompt, stop_sequences=["gamma"], max_tokens=ROOM)
    same("stop_reason", made["stop_reason"], "stop_sequence")
    same("stop_sequence", made["stop_sequence"], "gamma")
    texts = "".join(block.get("text", "") for block in made["content"])
    holds("beta" in texts and "gamma" not in texts, "the answer does not end there")


@_question()
def max_tokens(asker: Asker) -> None:
    """Does Anthropic take max_tokens from a login? (Messages, streamed)"""
    prompt = _user("Write the numbers from one to fifty, in words and separated by commas.")
    events = asker.streamed(MESSAGES, messages=prompt, max_tokens=LIMIT)
    end = _only(events, "message_delta")
    same("stop_reason", end["delta"]["stop_reason"], "max_tokens")
    holds(end["usage"]["output_tokens"] <= LIMIT, "the answer is longer")
    same("the last event", events[-1]["type"], "message_stop")


@_question()
def completion(asker: Asker) -> None:
    """Is a legacy completion answered?"""
    choice = asker.whole(COMPLETIONS, prompt=WORD)["choices"][0]
    holds(choice["text"], "the answer is empty")


@_question()
def completion_streamed(asker: Asker) -> None:
    """Does a legacy completion stream, and say why it ends?"""
    chunks = asker.streamed(COMPLETIONS, prompt=WORD)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    holds("".join(choice["text"] for choice in choices), "the answer is empty")
    holds(choices[-1]["finish_reason"], "it does not say why it ends")


@_question(requests=2)
def tool_round(asker: Asker) -> None:
    """Does the model call a client's tool, and read what it gave? (chat completions)"""
    messages: list[Any] = _user("Use the tool to add 2 and 3.")
    choice = asker.whole(CHAT, messages=messages, tools=[ADD], tool_choice="required")["choices"][0]
    same("finish_reason", choice["finish_reason"], "tool_calls")
    calls = choice["message"]["tool_calls"]
    same("the number of calls", len(calls), 1)
    same("the tool", calls[0]["function"]["name"], "add")
    holds({"a", "b"} <= _arguments(calls[0]).keys(), "the arguments are not those of the tool")
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "5"}
    messages += [choice["message"], result]
    choice = asker.whole(CHAT, messages=messages, tools=[ADD])["choices"][0]
    same("finish_reason", choice["finish_reason"], "stop")
    holds("5" in (choice["message"]["content"] or ""), "the answer does not have the result")


@_question(requests=2, about="cache")
def cached_follow_up(asker: Asker) -> None:
    """Does a second turn read the first from the cache? (Messages)"""
    first = asker.whole(MESSAGES, system=LONG, messages=_user(WORD), max_tokens=ROOM)
    said = [*_user(WORD), {"role": "assistant", "content": first["content"]}, *_user("Again.")]
    second = asker.whole(MESSAGES, system=LONG, messages=said, max_tokens=ROOM)
    there = (
        first["usage"]["cache_read_input_tokens"] + first["usage"]["cache_creation_input_tokens"]
    )
    holds(there, "the first turn put nothing into the cache")
    read = second["usage"]["cache_read_input_tokens"]
    holds(read >= there, f"it read {int(read):,} of {int(there):,} tokens from the cache")


@_question(requests=0, about="plan")
def windows(asker: Asker) -> None:
    """Do answers tell how much of the plan's windows is used?"""
    known = asker.after["windows"].values()
    holds(any(window["used"] is not None for window in known), "nothing is known of the windows")


@_question(requests=0, about="plan")
def paid_by_the_plan(asker: Asker) -> None:
    """Does the plan pay for all of it, and nothing is charged as extra usage?"""
    holds(not asker.paid, "a turn was paid as extra usage")


def _only(events: list[Any], kind: str) -> Any:
    found = [event for event in events if event["type"] == kind]
    same(f"the number of {kind} events", len(found), 1)
    return found[0]


def _arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(call["function"]["arguments"])
    except ValueError:
        found = None
    holds(isinstance(found, dict), "the arguments are not a JSON object")
    return dict(found)
