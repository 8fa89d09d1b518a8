"""Whatever was asked before, and of whichever process, the same request is sent as by a fresh one.

Clients do anything in any order on a few processes, which go on, are rewound, are given other
tools and are given up in the middle; every request that reaches the upstream is compared with what
a process that has never done anything sends for it.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from difflib import unified_diff
from random import Random
from typing import Any

import pytest
from harness import Daemon, until
from pytest_twisted import ensureDeferred
from test_word_for_word import arrived
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from walk import ID, Walk, question_of

from claudeproxy.cli.process import CLIProcess

TURNS = int(os.environ.get("ANY_ORDER_TURNS", "80"))
ANEW = int(os.environ.get("ANY_ORDER_ANEW", "24"))
"""How many of the questions are put to a fresh process, too: each costs a start."""
SEED = int(os.environ.get("ANY_ORDER_SEED", "3"))
RANDOM = re.compile(r"(cc_version=[\d.]+)\.\w+|(cch|cc_prompt_id|cc_prev_req)=[^;]*")
"""What differs in the billing line of any two processes."""


def walk_on(daemon: Daemon, turns: int) -> Walk:
    port = daemon.port[0].getHost().port
    return Walk(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", port), turns)  # type: ignore[arg-type]


def masked(body: Any) -> Any:
    """A body without what differs between any two processes."""
    first, *system = body["system"]
    billing = {**first, "text": RANDOM.sub(r"\1\2", first["text"])}
    return {**body, "metadata": None, "system": [billing, *system]}


def said(body: Any) -> Any:
    """A body without what may also differ where a conversation goes on: the place of what the CLI
    adds, what was thought, and how far it is cached."""
    messages = arrived(body)
    for message in messages:
        message["content"] = [b for b in message["content"] if "thinking" not in b["type"]]
    system = [block["text"] for block in body["system"][1:]]
    return {**body, "metadata": None, "system": system, "messages": messages}


def difference(one: Any, other: Any) -> str:
    texts = [json.dumps(value, indent=1, sort_keys=True) for value in (one, other)]
    lines = [re.sub(r"/home\d\b", "/home", text).splitlines() for text in texts]  # of each daemon
    return "\n".join(unified_diff(*lines, lineterm=""))


async def of_a_fresh_process(daemon: Daemon, walk: Walk, body: Any) -> Any:
    """What reaches the upstream when nothing was asked before."""
    await until(lambda: daemon.api.engine.keeper.unused, 30)
    before = len(daemon.turns())
    assert not any(process.turns for process in daemon.api.engine.processes)
    await walk.post({**body, "stream": False})
    await daemon.at_rest()
    for process in [process for process in daemon.api.engine.processes if process.turns]:
        process.stop()
        await process.ended
    assert len(daemon.turns()) == before + 1, body
    return daemon.turns()[-1].body


@pytest.mark.slow
@pytest.mark.timeout(900)
@ensureDeferred
async def test_in_any_order(make_daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: defaultdict[str, set[int]] = defaultdict(set)
    opens = CLIProcess.open

    def noted(
        process: CLIProcess, listener: Any, messages: Any, setup: Any, flags: Any, since: int,
        *more: Any,
    ) -> None:  # fmt: skip
        held[ID.findall(str(messages[-1].content))[-1]].add(since)
        opens(process, listener, messages, setup, flags, since, *more)

    monkeypatch.setattr(CLIProcess, "open", noted)
    daemon = await make_daemon(processes=4, concurrency=3)
    walk = walk_on(daemon, TURNS)
    await walk.run(SEED, 4)
    await daemon.at_rest()
    bodies = [entry.body for entry in daemon.turns()]
    for body in bodies:
        walk.heard(body)
    walk.judge()
    assert not walk.wrong, (SEED, walk.wrong)
    assert {"kept", "rewound", "parked", "warm"} <= walk.ways.keys(), walk.ways

    fresh = await make_daemon(processes=2, concurrency=1)
    alone = walk_on(fresh, 0)
    known = {question: set(counts) for question, counts in held.items()}
    anew: dict[str, Any] = {}
    exact = 0
    Random(SEED).shuffle(bodies)
    for body in bodies:
        question = question_of(body)
        if question not in anew and len(anew) == ANEW:
            continue
        if question not in anew:
            anew[question] = await of_a_fresh_process(fresh, alone, walk.asked[question].body)
        told = (SEED, walk.asked[question], known.get(question))
        form = masked if known.get(question) == {0} else said  # {0}: replayed from its beginning
        exact += form is masked
        assert not (change := difference(form(anew[question]), form(body))), change + f"\n{told}"
    assert 0 < exact < len(bodies), exact
