"""A turn: what the CLI relays, what it reads into a text, and where it goes on by itself."""

import json
import socket

import pytest
from driver import CLI, NEW, OLD, conversation, event, run, serving, text, tool, user
from twisted.internet import reactor
from twisted.internet.task import deferLater

from claudeproxy.demo.steps import ApiError, Drop, Wait

USAGE = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7}
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-from-upstream",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 1},
    },
}


def block(index, opening, *deltas):
    yield {"type": "content_block_start", "index": index, "content_block": opening}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


EVENTS = [
    START,
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "hm \u2028 é"},
        {"type": "signature_delta", "signature": "c2ln"},
    ),
    *block(
        1,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": " Hello"},
        {"type": "text_delta", "text": "\n\n🎉 "},
    ),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
        "usage": {**USAGE, "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
    },
    {"type": "message_stop"},
]
BROKEN = EVENTS[:-4]
"""An answer that stops in its text."""


def end(stop):
    return {**EVENTS[-2], "delta": {"stop_reason": stop, "stop_sequence": None}}


@pytest.fixture(scope="module")
def talk(stage):
    """The turns of one process, by name."""
    made = stage()
    turns = {}

    async def take(name, *content, answer=None, **options):
        made.demo.answer = answer and (lambda received: answer)
        turns[name] = await made.turn(*content, **options)

    async def play():
        await made.begin("Be brief.", "Be kind.", **serving(tool()))
        await take("first", "Hello", answer=EVENTS)
        await take("slash", "/compact")
        await take("at", "Read @/etc/hostname and @file.txt")
        await take("several", "one", "two\n", "  three")
        await take("max_tokens", "[[say a]][[stop max_tokens]]")
        await take("refusal", "[[say a]][[stop refusal]]")
        await take("unknown tool", "[[call nobody {}]]")
        await take("broken arguments", '[[call look {"a": ]]')
        await take("error mid", "Hello", answer=[*BROKEN, Wait(0.05), ApiError(529, "Too busy")])
        await take("drop", "Hello", answer=[*BROKEN, Wait(0.05), Drop()])
    run(play())
    return turns

def test_x(talk):
    for k, t in talk.items():
        print("==", k, len(t.requests), [r.refused for r in t.requests])
        for l in t.lines:
            if l["type"] in ("stream_event", "result") or k in("error mid","drop"):
               if k not in ("slash","at","several"): print("   ", str({k: v for k, v in l.items() if k not in ("session_id", "uuid","modelUsage","usage","total_cost_usd")})[:300])
    print(talk["unknown tool"].requests[-1].body["messages"][-1])
    print(talk["broken arguments"].requests[-1].body["messages"][-2:])
