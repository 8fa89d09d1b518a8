"""Ours, the peer and a bare CLI beside each other: the same CLI, the same upstream, in turn."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from typing import Any
from uuid import uuid4

from .client import ask, leave, together
from .subjects import Bare, Daemon, Peer, StandIn

SYSTEM = "You are a helpful assistant. Answer in one short paragraph, in plain words."
PAIRS = 50
MANY = 48
BRAKED = "first turn, under the brake"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

Times = dict[str, dict[str, list[float]]]
"""Scenario to subject to seconds, one for each round."""


class Turns:
    """One run: :meth:`run` fills :attr:`times` and :attr:`facts`."""

    def __init__(self, claude: str, cache: Path, peer: bool, rounds: int) -> None:
        self._claude = claude
        self._cache = cache
        self._with_peer = peer
        self._rounds = rounds
        self.times: Times = {}
        self.facts: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        with ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="claudemax-bench-"))
            )
            self._folder = folder
            self._standin = StandIn(folder)
            stack.callback(self._standin.end)
            self._upstream = self._standin.url
            self._daemon = Daemon(self._new("daemon"), self._claude, self._upstream)
            stack.callback(self._daemon.end)
            self._peers: list[Daemon | Peer] = [self._daemon]
            if self._with_peer:
                peer = Peer(self._new("peer"), self._cache, self._claude, self._upstream)
                stack.callback(peer.end)
                self._peers.append(peer)
            self._daemon.settle()
            self._bare = Bare(self._new("bare"), self._claude, self._upstream)
            stack.callback(self._bare.end)
            self._bare.first(SYSTEM, f"Hello {uuid4()}")
            self._braked = Bare(self._new("bare"), self._claude, self._upstream, braked=True)
            stack.callback(self._braked.end)
            self._braked.first(SYSTEM, f"Hello {uuid4()}")
            for scenario in (
                self._conversation,
                self._fresh,
                self._long,
                self._tools,
                self._tools_swapped,
            ):
                _say(scenario.__name__.strip("_"))
                for number in range(-2, self._rounds):
                    self._round(scenario, number)
            for size, rounds in ((4, self._rounds), (16, max(1, self._rounds // 3))):
                _say(f"burst of {size}")
                for _ in range(rounds):
                    self._burst(size)
            for size in (4, 16):
                _say(f"many conversations, {size} at once")
                for _ in range(max(1, self._rounds // 3)):
                    self._many(size)
            _say("20 conversations")
            self._twenty()
            _say("bytes")
            self._bytes()

    def _round(self, scenario: Callable[[], Iterator[tuple[str, str, float]]], number: int) -> None:
        for name, subject, seconds in scenario():
            if number >= 0:  # those before the first warm all subjects up
                self._note(name, subject, seconds)

    def _note(self, name: str, subject: str, seconds: float) -> None:
        self.times.setdefault(name, {}).setdefault(subject, []).append(seconds)

    # -- scenarios: name, subject, seconds --

    def _conversation(self) -> Iterator[tuple[str, str, float]]:
        """A first turn with the system prompt of the turn before, and the turn that follows."""
        time.sleep(0.5)
        yield "first turn", "bare", self._bare.rewound(f"Hello {uuid4()}")
        time.sleep(0.5)
        yield "follow-up", "bare", self._bare.next("And now?")
        time.sleep(0.5)
        yield BRAKED, "bare", self._braked.rewound(f"Hello {uuid4()}")
        time.sleep(0.5)  # ours is not to be asked while a bare one still tidies up
        for subject in self._peers:
            messages = self._start()
            answer = ask(subject.port, messages)
            yield "first turn", subject.name, answer.first
            subject.settle()
            follow = [*messages, answer.message, _user("And now?")]
            yield "follow-up", subject.name, ask(subject.port, follow).first
            subject.settle()
            yield "regenerate", subject.name, ask(subject.port, follow).first
            subject.settle()

    def _fresh(self) -> Iterator[tuple[str, str, float]]:
        """A first turn with a system prompt that nobody has sent before."""
        for subject in self._peers:
            messages = self._start(f"{SYSTEM} You are assistant {uuid4()}.")
            yield "first turn, new system prompt", subject.name, ask(subject.port, messages).first
            subject.settle()

    def _long(self) -> Iterator[tuple[str, str, float]]:
        """A conversation that the subject has never seen, and the turn that follows."""
        for subject in self._peers:
            messages = self._start()
            for number in range(PAIRS):
                messages.append(
                    {"role": "assistant", "content": f"Answer {number}: " + "word " * 40}
                )
                messages.append(_user(f"Question {number}: " + "why " * 20))
            answer = ask(subject.port, messages)
            yield f"{PAIRS} turns of history, unknown", subject.name, answer.first
            subject.settle()
            follow = [*messages, answer.message, _user("And now?")]
            seconds = ask(subject.port, follow).first
            yield f"{PAIRS} turns of history, follow-up", subject.name, seconds
            subject.settle()
            edited = [*messages[:PAIRS], _user(f"Something else {uuid4()}")]
            seconds = ask(subject.port, edited).first
            yield f"{PAIRS} turns of history, edited in the middle", subject.name, seconds
            subject.settle()

    def _tools(self) -> Iterator[tuple[str, str, float]]:
        """A tool call, its result at once, and the answer to that. The peer has no tools."""
        daemon = self._daemon
        asked = [_system(SYSTEM), _user(f'[[call weather {{"city": "Oslo"}}]] {uuid4()}')]
        call = ask(daemon.port, asked, tools=[TOOL])
        ident = call.message["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": ident, "content": "Rain, 4 degrees."}
        end = ask(daemon.port, [*asked, call.message, result], tools=[TOOL])
        yield "tool call", daemon.name, call.first
        yield "tool result to answer", daemon.name, end.first
        daemon.settle()

    def _tools_swapped(self) -> Iterator[tuple[str, str, float]]:
        """A first turn with tools that the process before did not have. The peer has no tools."""
        tool = {**TOOL, "function": {**TOOL["function"], "description": f"Looks {uuid4()}"}}
        answer = ask(self._daemon.port, self._start(), tools=[tool])
        yield "first turn, other tools", self._daemon.name, answer.first
        self._daemon.settle()

    def _many(self, size: int) -> None:
        """:data:`MANY` new conversations with one system prompt, ``size`` at once, of each."""
        name = f"new conversations a second, {size} at once"
        for subject in self._peers:
            self._rate(name, subject, size, lambda port: ask(port, self._start()))
            subject.settle()
        leaving = f"clients that leave after the first token a second, {size} at once"
        long = "[[pause 0.02]][[repeat 500 word]]"
        self._rate(
            leaving,
            self._daemon,
            size,
            lambda port: leave(port, [_system(SYSTEM), _user(f"{long} {uuid4()}")]),
        )
        self._daemon.settle()
        if size == 4:
            self._by_hand(name, size)

    def _rate(
        self, name: str, subject: Daemon | Peer, size: int, one: Callable[[int], object]
    ) -> None:
        spent, began = subject.tree()[0], time.perf_counter()
        together(size, lambda _: [one(subject.port) for _ in range(MANY // size)])
        took = time.perf_counter() - began
        self._note(name, subject.name, MANY / took)
        cpu = (subject.tree()[0] - spent) / MANY
        self._note(name.replace("a second", "CPU of each"), subject.name, cpu)

    def _by_hand(self, name: str, size: int) -> None:
        """The same with bare processes, each rewound by hand: nothing can be faster."""
        with ExitStack() as stack:
            processes: list[Bare] = []
            for _ in range(size):
                bare = Bare(self._new("bare"), self._claude, self._upstream)
                stack.callback(bare.end)
                bare.first(SYSTEM, f"Hello {uuid4()}")
                processes.append(bare)
            began = time.perf_counter()
            spent = sum(bare.tree()[0] for bare in processes)
            together(
                size,
                lambda n: [processes[n].rewound(f"Hello {uuid4()}") for _ in range(MANY // size)],
            )
            self._note(name, "bare", MANY / (time.perf_counter() - began))
            cpu = (sum(bare.tree()[0] for bare in processes) - spent) / MANY
            self._note(name.replace("a second", "CPU of each"), "bare", cpu)

    def _twenty(self) -> None:
        """Twenty conversations of two turns each, one after the other; what all of it holds."""
        memory = self.facts.setdefault("memory after 20 conversations, MB", {})
        for subject in self._peers:
            for _ in range(20):
                messages = self._start()
                answer = ask(subject.port, messages)
                ask(subject.port, [*messages, answer.message, _user("And now?")])
            subject.settle()
            memory[subject.name] = subject.tree()[1]

    def _burst(self, size: int) -> None:
        for subject in self._peers:
            port = subject.port
            answers = together(size, lambda _, port=port: ask(port, self._start()))
            firsts = [answer.first for answer in answers]
            self._note(f"burst of {size}, mean", subject.name, sum(firsts) / size)
            self._note(f"burst of {size}, last", subject.name, max(firsts))
            subject.settle()

    # -- what goes upstream --

    def _bytes(self) -> None:
        """What a "Hello" costs upstream, and how much of it a follow-up can read from the cache."""
        self._standin.received()
        hello = self.facts.setdefault("bytes upstream for Hello", {})
        cached = self.facts.setdefault("prefix that a follow-up repeats, share", {})
        for subject in self._peers:
            answer = ask(subject.port, [_user("Hello")])
            subject.settle()
            hello[subject.name] = sum(one["size"] for one in self._standin.received())
            messages = self._start()
            answer = ask(subject.port, messages)
            subject.settle()
            first = self._standin.received()[-1]["body"]
            follow = [*messages, answer.message, _user("And now?")]
            # The second time no process holds the conversation up to here: it is replayed.
            for name in (subject.name, f"{subject.name}, replayed"):
                ask(subject.port, follow)
                subject.settle()
                cached[name] = repeated(first, self._standin.received()[-1]["body"])

    def _start(self, system: str = SYSTEM) -> list[dict[str, Any]]:
        return [_system(system), _user(f"Hello {uuid4()}")]

    def _new(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))


def repeated(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The share of the first request's bytes that the second one repeats at its beginning.

    Block by block, in the order in which the API caches: tools, system, messages. The CLI's
    ``cache_control`` moves with the end of the conversation, so it is left out, and so is its
    billing line, which is no part of the prompt.
    """
    blocks, others = _blocks(first), _blocks(second)
    pairs = zip(blocks, others, strict=False)
    same = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return sum(map(len, same)) / sum(map(len, blocks))


def _blocks(body: dict[str, Any]) -> list[str]:
    found = [("tool", tool) for tool in body.get("tools") or ()]
    found += [("system", block) for block in body.get("system") or ()]
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found += [(message["role"], block) for block in blocks]
    return [
        json.dumps([place, {key: block[key] for key in block if key != "cache_control"}])
        for place, block in found
        if not str(block.get("text", "")).startswith("x-anthropic-billing-header")
    ]


def _system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _say(what: str) -> None:
    print(f"  {what} ...", flush=True)
