"""Clients that do anything, in any order, and what of it reaches the upstream.

Each client has a marker of its own in all it says, and each of its questions an id. So it can be
told of every upstream request whose it is, and whether there is anything of somebody else in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from claudeproxy.demo.answering.orders import last_user

Body = dict[str, Any]
Messages = list[dict[str, Any]]

MODELS = ("claude-sonnet-4-5", "claude-sonnet-4", "haiku")
MARKER = re.compile(r"marker-[0-9a-f]{8}")
ID = re.compile(r"question-\d+")
LATENCY = "[[wait 0.01]]"
"""Of the stand-in, in seconds: an upstream without any is none."""

ERRORS = (
    "[[error 400 no]]", "[[error 500 no]]", "[[error 529 no]]",
    "[[pause 0.01]][[say some]][[drop]]", "[[pause 0.01]][[say some]][[error-mid 500 no]]",
)  # fmt: skip
CUT = (
    "", "[[wait 0.3]]", "[[pause 0.02]][[repeat 25 word]]", "[[wait 0.1]][[error 500 no]]",
    "[[pause 0.02]][[call look {\"x\": \"a long, long, long, long argument\"}]]",
    "[[pause 0.02]][[repeat 3 word]][[stop max_tokens]]",
)  # fmt: skip
"""Orders of those who leave: they may do that at any moment."""

LONG = 40
"""Messages after which a conversation is let go."""

SCHEMAS = (
    {"type": "array", "items": {"type": "string"}, "minItems": 2},  # needs the answer's tool
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
     "additionalProperties": False},
)  # fmt: skip


def tool(name: str, description: str = "d") -> Body:
    parameters = {"type": "object", "properties": {"x": {"type": "string"}}}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


@define
class Asked:
    """A request with ``body`` was made ``whole`` times to its end, and ``cut`` times not."""

    marker: str
    body: Body
    whole: int = 0
    cut: int = 0
    ways: list[str] = Factory(list)


@frozen
class Reply:
    """``message`` is what a client holds of the answer; ``error`` is empty where it is whole."""

    status: int
    message: dict[str, Any]
    error: str
    way: str


class Connection(Protocol):
    """Receives until it is closed."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class Walk:
    """``turns``: how many; ``disturbed``: processes are killed meanwhile, and turns may fail."""

    def __init__(
        self, reactor: IReactorTime, endpoint: Any, turns: int, *, disturbed: bool = False
    ) -> None:
        self.reactor = reactor
        self.disturbed = disturbed
        self.asked: dict[str, Asked] = {}
        self.ways: Counter[str] = Counter()
        self.done = 0
        self.wrong: list[str] = []
        self._endpoint = endpoint
        self._turns = turns
        self._questions = 0
        self._heard: Counter[str] = Counter()

    async def run(self, seed: int, clients: int) -> None:
        """Let so many clients do as they like at once."""
        working = [Client(self, Random(f"{seed}.{n}")).work() for n in range(clients)]
        ended = await DeferredList([ensureDeferred(work) for work in working], consumeErrors=True)
        for good, result in ended:
            if not good:
                result.raiseException()

    @property
    def over(self) -> bool:
        return self.done >= self._turns or bool(self.wrong)

    def new_id(self) -> str:
        self._questions += 1
        return f"question-{self._questions}"

    async def post(self, body: Body, leave: float | None = None) -> Reply | None:
        """The reply; ``None`` to one who leaves after so many seconds."""
        got = await self.send(json.dumps(body).encode(), leave)
        return None if leave is not None else _reply(got)

    async def send(self, data: bytes, leave: float | None = None) -> bytes:
        """All that is sent back for a body."""
        head = (
            "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        connection = await connectProtocol(self._endpoint, Connection())
        connection.transport.write(head.encode() + data)
        if leave is not None:
            await deferLater(self.reactor, leave, connection.transport.abortConnection)
        await connection.closed
        return connection.got

    def heard(self, body: Mapping[str, Any]) -> None:
        """This has reached the upstream: there must be nothing in it of another client."""
        question = question_of(body)
        self._heard[question] += 1
        markers = set(MARKER.findall(json.dumps(body)))
        if question not in self.asked:
            self.wrong.append(f"nobody has asked {body['messages'][-1]}")
        elif markers != {self.asked[question].marker}:
            self.wrong.append(f"{question} of {self.asked[question].marker} has {markers}")

    def judge(self) -> None:
        """Hold the number of upstream requests against what was asked."""
        for question, asked in self.asked.items():
            least, most = 0 if self.disturbed else asked.whole, asked.whole + asked.cut
            if not least <= self._heard[question] <= most:
                found = self._heard[question]
                self.wrong.append(f"{question}: {found} requests, not {least} to {most}")


class Client:
    """One client, with one conversation at a time and one request at a time."""

    def __init__(self, walk: Walk, chance: Random) -> None:
        self._walk = walk
        self._chance = chance
        self.marker = f"marker-{chance.getrandbits(32):08x}"
        self._forks: list[Messages] = []
        self.begin()

    async def work(self) -> None:
        """Do anything until the walk is over."""
        actions, weights = zip(*ACTIONS, strict=True)
        while not self._walk.over:
            if len(self.messages) > LONG:
                self.begin()
            (action,) = self._chance.choices(actions, weights)
            await action(self)

    # -- what it may do --

    def begin(self) -> None:
        """Begin anew, with any set-up."""
        self.messages: Messages = []
        self._fields: Body = {"model": self._chance.choice(MODELS)}
        prompts = ("", "Be brief.", f"Be {self.marker}.")  # each has to have a process of its own
        (self._system,) = self._chance.choices(prompts, (3, 3, 1))
        self._choose_tools()

    def _choose_tools(self) -> None:
        sets = ([], [tool("look")], [tool("look"), tool("find")], [tool("look", self.marker)])
        self._fields["tools"] = self._chance.choice(sets)

    async def new(self) -> None:
        self.begin()
        await self.follow()

    async def follow(self, order: str = "", **once: Any) -> None:
        """One more question; results that are due go before it."""
        await self._go_on([*self.messages, *self._due(), self._question(order)], **once)

    async def answer_calls(self) -> None:
        """The results that are due, or a call to begin with."""
        due = self._due()
        await (self._go_on([*self.messages, *due]) if due else self.call())

    async def call(self) -> None:
        self._fields["tools"] = self._fields["tools"] or [tool("look")]
        await self.follow("[[call look {}]]" * self._chance.choice((1, 1, 2)))
        if self._chance.random() < 0.5:
            await self.answer_calls()

    async def edit(self) -> None:
        """Another question in the place of an earlier one."""
        at = self._somewhere()
        await self._go_on([*self.messages[:at], self._question()])

    async def rewrite(self) -> None:
        """Another question in the place of an earlier one; what came after it stays."""
        if self.messages:
            at = self._somewhere()
            changed = {"role": "user", "content": f"{self.marker} another"}
            self.messages[at] = changed
        await self.follow()

    async def fork(self) -> None:
        """Two go on from here."""
        self._forks.append(list(self.messages))
        await self.edit()

    async def back(self) -> None:
        """Back to where it has forked."""
        if self._forks:
            self.messages = self._forks.pop(self._chance.randrange(len(self._forks)))
        await self.follow()

    async def regenerate(self) -> None:
        """The same once more."""
        if not self.messages:
            return await self.new()
        *before, last = self.messages
        question = _last_id(before) if last["role"] == "assistant" else ""
        asked = self._walk.asked.get(question)
        if asked is not None and asked.body["messages"] == self._with_system(before):
            await self._go_on(before, asked.body)

    async def shorten(self) -> None:
        """Forget how it began."""
        del self.messages[: self._somewhere()]
        await self.follow()

    async def change(self) -> None:
        """Go on with something else set."""
        what = self._chance.randrange(4)
        if what == 0:
            self._fields["model"] = self._chance.choice(MODELS)
        elif what == 1:
            self._choose_tools()
        elif what == 2:
            self._system = "" if self._system else "Be brief."
        else:
            self._fields["max_tokens"] = self._chance.choice((500, 700))
        await self.follow()

    async def fail(self) -> None:
        await self.follow(self._chance.choice(ERRORS))

    async def overrun(self) -> None:
        """An answer after which the CLI would go on by itself."""
        order = self._chance.choice(
            (
                "[[stop refusal]]",
                "[[stop pause_turn]]",
                "[[call nobody {}]]",
                '[[call look {"x": ]]',
            )
        )
        await self.follow(order)

    async def limit(self) -> None:
        await self.follow("[[pause 0.002]][[repeat 40 word]]", max_tokens=8)

    async def stop(self) -> None:
        stop, text = self._chance.choice((("STOP", "STOP"), ("\n\n", "\n\n")))
        await self.follow(f"[[say {self.marker} before{text}after]]", stop=[stop])

    async def think(self) -> None:
        await self.follow("[[think hm]][[say well]]", reasoning_effort="low")

    async def shape(self) -> None:
        schema = self._chance.choice(SCHEMAS)
        form = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
        await self.follow(response_format=form)

    # -- how --

    def _question(self, order: str = "") -> dict[str, Any]:
        said = f"{self.marker} {self._walk.new_id()}"
        return {"role": "user", "content": f"{said}{LATENCY}{order}"}

    def _due(self) -> Messages:
        """The results of the calls that the conversation ends with."""
        calls = self.messages[-1].get("tool_calls", ()) if self.messages else ()
        said = f"{self.marker} {self._walk.new_id()}" if calls else ""
        return [{"role": "tool", "tool_call_id": call["id"], "content": said} for call in calls]

    def _somewhere(self) -> int:
        """Where one of its questions is."""
        places = [n for n, message in enumerate(self.messages) if message["role"] == "user"]
        return self._chance.choice(places or [0])

    def _with_system(self, messages: Messages) -> Messages:
        said = [{"role": "system", "content": self._system}] if self._system else []
        return said + messages

    async def _go_on(self, messages: Messages, body: Body | None = None, **once: Any) -> None:
        """Ask, or leave before the answer is whole; it counts where it is."""
        if self._walk.over:
            return
        walk, chance = self._walk, self._chance
        leave = chance.choice((0.0, 0.005, 0.02, 0.05, 0.1, 0.3)) if chance.random() < 0.2 else None
        if body is None:
            free = "response_format" not in once  # an answer in another form is asked for again
            if leave is not None and free and messages[-1]["role"] == "user":
                messages = [*messages[:-1], self._question(chance.choice(CUT))]
            body = {**self._fields, **once, "messages": self._with_system(messages)}
        asked = walk.asked.setdefault(_last_id(messages), Asked(self.marker, body))
        if leave is None:
            asked.whole += 1
        else:
            asked.cut += 1
        reply = await walk.post({**body, "stream": chance.random() < 0.5}, leave)
        walk.done += 1
        if reply is None:
            return
        asked.ways.append(reply.way)
        walk.ways[reply.way] += 1
        failing = any(error in str(messages[-1]["content"]) for error in ERRORS)
        if set(MARKER.findall(json.dumps(reply.message))) - {self.marker}:
            walk.wrong.append(f"{self.marker} is told {reply.message}")
        elif bool(reply.error) != failing and not (walk.disturbed and reply.error):
            walk.wrong.append(f"{_last_id(messages)}: {reply}, {body}")
        if not reply.error:
            self.messages = [*messages, reply.message]


ACTIONS: tuple[tuple[Callable[[Client], Any], int], ...] = (
    (Client.new, 8), (Client.follow, 12), (Client.answer_calls, 12), (Client.call, 6),
    (Client.edit, 6), (Client.rewrite, 4), (Client.fork, 4), (Client.back, 4),
    (Client.regenerate, 6), (Client.shorten, 4), (Client.change, 6), (Client.fail, 5),
    (Client.overrun, 6), (Client.limit, 4), (Client.stop, 4), (Client.think, 3), (Client.shape, 4),
)  # fmt: skip


def question_of(body: Mapping[str, Any]) -> str:
    """The id of the question, or of the results, that an upstream request is about."""
    said, result = last_user(body)
    found = ID.findall(said or result or "")
    return str(found[-1]) if found else ""


def _last_id(messages: Messages) -> str:
    found = ID.findall(str(messages[-1]["content"])) if messages else []
    return found[-1] if found else ""


def _reply(got: bytes) -> Reply:
    head, _, data = got.decode().partition("\r\n\r\n")
    assert head, "the connection was closed without a reply"
    way = re.search(r"(?i)x-claudemax-process: (\w+)", head)
    message, error = _joined(data) if data.startswith(("data: ", ": ")) else _whole(data)
    return Reply(int(head.split()[1]), message, error, way[1] if way else "")


def _whole(data: str) -> tuple[dict[str, Any], str]:
    value = json.loads(data)
    if "error" in value:
        return {}, value["error"]["message"]
    told = value["choices"][0]["message"]
    return {name: told[name] for name in ("role", "content", "tool_calls") if name in told}, ""


def _joined(data: str) -> tuple[dict[str, Any], str]:
    """The message and the error of a stream; one without an error has its end."""
    events = [line[6:] for line in data.split("\n") if line.startswith("data: ")]
    values = [json.loads(event) for event in events if event != "[DONE]"]
    error = next((value["error"]["message"] for value in values if "error" in value), "")
    assert error or events[-1] == "[DONE]", data
    text, calls = "", {}
    for delta in (choice["delta"] for value in values for choice in value.get("choices", ())):
        text += delta.get("content") or ""
        for part in delta.get("tool_calls", ()):
            told = {"name": part["function"].get("name"), "arguments": ""}
            new = {"type": "function", "id": part.get("id"), "function": told}
            call = calls.setdefault(part["index"], new)
            call["function"]["arguments"] += part["function"].get("arguments") or ""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    return {**message, "tool_calls": list(calls.values())} if calls else message, error
