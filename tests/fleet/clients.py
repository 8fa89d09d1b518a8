"""Clients that hold conversations of many kinds, each of which its number alone decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from threading import Event, Lock
from typing import Any

from attrs import define, field
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from . import asking, keys
from .asking import Failed, cause_of
from .nodes import Node
from .turns import Turn, Turns
from .upstream import LATENCY, QUESTION

TOOLS = [{
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
    },
}]  # fmt: skip

POLL = 0.05
"""Seconds between two looks at a background response."""

PATIENCE = 60.0
"""Seconds within which a background response is over, its node dead or not."""


class Over(Exception):
    """A conversation cannot go on."""


@define
class Farm:
    """What clients may ask. ``store_lost``: set while there is no database, and nobody begins what
    needs one; ``over``: set to let them end."""

    balancer: str
    nodes: Sequence[Node]
    turns: Turns
    seed: int = 17
    store_lost: Event = field(factory=Event)
    over: Event = field(factory=Event)
    _numbers: int = 0
    _left: list[int] = field(factory=list)
    _lock: Any = field(factory=Lock)

    def next(self) -> int:
        """The number of the next conversation; while the store is lost, of one that needs none.
        Those that are passed over come later."""
        with self._lock:
            lost = self.store_lost.is_set()
            if self._left and not lost:
                return self._left.pop(0)
            while True:
                number = self._numbers
                self._numbers += 1
                if not lost or not self._needs_store(number):
                    return number
                self._left.append(number)

    def _needs_store(self, number: int) -> bool:
        return self.kind(number) in STORED or self.key(number) in keys.QUOTA

    def kind(self, number: int) -> Kind:
        kinds, weights = zip(*KINDS, strict=True)
        (kind,) = Random(f"{self.seed}.{number}").choices(kinds, weights)
        return kind

    def key(self, number: int) -> str:
        """The name of the key that it is held with."""
        return Random(f"{self.seed}.{number}.key").choice(keys.CLIENTS)


class Client:
    """One worker's. ``number``: of the conversation, which all its questions carry; ``name``: of
    its key."""

    def __init__(self, farm: Farm, worker: int, number: int, name: str = "") -> None:
        self.farm = farm
        self.number = number
        self.chance = Random(f"{farm.seed}.{number}.")
        self.name = name or farm.key(number)
        self.key = keys.secret(self.name)
        self._worker = worker
        self._questions = 0

    # -- what all kinds do --

    def ask(
        self, kind: str, url: str, how: Callable[[Turn], str], question: str = "", **more: Any
    ) -> str:
        """One turn: its answer, which carries its own question and no other.

        :raises Over: if there is none.
        """
        turn = Turn(question or self.question(), kind, self.name, self._where(url), **more)
        self.farm.turns.begin(turn)
        try:
            text = how(turn)
        except Exception as error:
            turn.request_id = getattr(error, "request_id", None) or turn.request_id
            self.farm.turns.end(turn, cause_of(error))
            raise Over from error
        self.farm.turns.end(turn, "")
        found = {match[0] for match in QUESTION.finditer(text)}
        if found != {turn.question}:
            self.wrong(f"{kind}: {turn.question} was answered with {text[:100]!r}")
        return text

    def question(self) -> str:
        """A new one."""
        self._questions += 1
        return f"question-{self.number}-{self._questions}"

    def text(self, question: str) -> str:
        """What is said: the question, with orders to the stand-in."""
        if self.chance.random() < 0.3:
            return f"{question}{LATENCY}[[say {question}]][[repeat 15 word]][[pause 0.02]]"
        return f"{question}{LATENCY}"

    def read(self, url: str, how: Callable[[Any], Any]) -> Any:
        """Something that is stored, asked for again where the balancer or the node is lost."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return how(self.openai(url))
            except Exception as error:
                cause = cause_of(error)
                mend = cause == asking.LOST or cause.startswith(("502", "503", "504"))
                if not mend or time.monotonic() > deadline:
                    self.wrong(f"what is stored cannot be read by {self._where(url)}: {cause}")
                    raise Over from error
                url = self.farm.balancer
                time.sleep(POLL)

    def wrong(self, what: str) -> None:
        self.farm.turns.wrong.append(what)

    def openai(self, url: str) -> Any:
        return asking.openai_client(url, self.key, self._worker)

    def anthropic(self, url: str) -> Any:
        return asking.anthropic_client(url, self.key, self._worker)

    def streams(self) -> bool:
        return self.chance.random() < 0.5

    def anywhere(self) -> str:
        """The balancer, or one of the nodes: what is stored has to be known to all."""
        steady = [node.url for node in self.farm.nodes if node.steady]
        urls = [self.farm.balancer, *steady]
        return urls[self.chance.randrange(3) % len(urls)]

    def _where(self, url: str) -> str:
        names = {node.url: node.name for node in self.farm.nodes}
        return names.get(url, "balancer")

    # -- the kinds --

    def chat(self) -> None:
        """Several questions, whose answers are sent along; by the SDK or by plain HTTP."""
        url, said, by_sdk = self.farm.balancer, [], self.chance.random() < 0.5
        # By its name the balancer keeps a conversation at a node, where there is no other reason.
        name = f"conversation-{self.number}" if self.chance.random() < 0.5 else ""

        def how(turn: Turn) -> str:
            if by_sdk:
                return asking.chat(self.openai(url), turn, said, stream, name)
            return asking.plain_chat(url, turn, said, stream, name)

        for _ in range(self.chance.randint(1, 3)):
            stream, kind = self.streams(), f"chat, {'SDK' if by_sdk else 'HTTP'}"
            self._say(said, f"{kind}{', streamed' if stream else ''}", how, named=bool(name))

    def messages(self) -> None:
        """As :meth:`chat`, in Anthropic's words."""
        url, said, by_sdk = self.farm.balancer, [], self.chance.random() < 0.7

        def how(turn: Turn) -> str:
            if by_sdk:
                return asking.message(self.anthropic(url), turn, said, stream)
            return asking.plain_message(url, turn, said)

        for _ in range(self.chance.randint(1, 2)):
            stream = by_sdk and self.streams()
            kind = f"messages, {'SDK' if by_sdk else 'HTTP'}"
            self._say(said, f"{kind}{', streamed' if stream else ''}", how)

    def _say(
        self, said: list[dict[str, Any]], kind: str, how: Callable[[Turn], str], **more: Any
    ) -> None:
        """One more question of a conversation, and its answer."""
        question = self.question()
        said.append({"role": "user", "content": self.text(question)})
        text = self.ask(kind, self.farm.balancer, how, question, **more)
        said.append({"role": "assistant", "content": text})

    def ollama(self) -> None:
        question, stream = self.question(), self.streams()
        said = [{"role": "user", "content": self.text(question)}]
        url = self.farm.balancer
        kind = f"ollama{', streamed' if stream else ''}"
        self.ask(kind, url, lambda turn: asking.ollama(url, turn, said, stream), question)

    def tools(self) -> None:
        """A tool is called, and its result goes wherever the balancer sends it."""
        client, question, messages = self.openai(self.farm.balancer), self.question(), []
        order = f'{question}{LATENCY}[[call look {{"x": "{question}"}}]]'
        messages.append({"role": "user", "content": order})

        def calls(turn: Turn) -> str:
            messages.append(asking.call(client, turn, messages, TOOLS))
            return str(messages[-1].get("tool_calls"))

        self.ask("tools, call", self.farm.balancer, calls, question)
        result = self.question()
        ident = messages[-1]["tool_calls"][0]["id"]
        messages.append({"role": "tool", "tool_call_id": ident, "content": result})
        stream = self.streams()
        self.ask(
            f"tools, result{', streamed' if stream else ''}", self.farm.balancer,
            lambda turn: asking.chat(client, turn, messages, stream, tools=TOOLS), result,
        )  # fmt: skip

    def socket(self) -> None:
        """Turns over one WebSocket, each on top of the one before. Where the daemon says that it is
        going away, the client goes on over another one, if the last response is stored."""
        url, stored = self.farm.balancer, not self.farm.store_lost.is_set()
        previous: dict[str, str] = {}
        sockets: list[Any] = []

        def how(turn: Turn) -> str:
            text = self.text(turn.question)
            if not sockets:
                sockets.append(asking.open_socket(url, self.key))
            try:
                answer, ident = asking.over_socket(
                    sockets[-1], turn, text, store=stored, **previous
                )
            except ConnectionClosed as error:
                leaves = error.rcvd is not None and error.rcvd.code == CloseCode.GOING_AWAY
                if not leaves or turn.request_id:
                    raise
                sockets.append(asking.open_socket(url, self.key))
                more = previous if stored else {}
                answer, ident = asking.over_socket(sockets[-1], turn, text, store=stored, **more)
            previous["previous_response_id"] = ident
            return answer

        try:
            for _ in range(3):
                self.ask("WebSocket", url, how)
        finally:
            for socket in sockets:
                socket.close()

    def responses(self) -> None:
        """A chain, each link asked of any node."""
        self._chain("responses", {})

    def conversation(self) -> None:
        """Responses of a conversation, each asked of any node, which all know its items."""
        made = self.read(self.anywhere(), lambda client: client.conversations.create())
        questions = self._chain("conversation", {"conversation": made.id})
        listed = self.read(
            self.anywhere(), lambda client: list(client.conversations.items.list(made.id, limit=50))
        )
        text = str(listed)
        self.farm.turns.unkept += [question for question in questions if question not in text]
        if set(QUESTION.findall(text)) - {str(self.number)}:
            self.wrong(f"conversation {made.id} has {sorted(set(QUESTION.findall(text)))} in it")

    def _chain(self, kind: str, more: dict[str, Any]) -> list[str]:
        return [self.go_on(kind, self.anywhere(), more, stream=self.streams()) for _ in range(3)]

    def go_on(self, kind: str, url: str, more: dict[str, Any], *, stream: bool = False) -> str:
        """One more response, on top of what ``more`` names: its question."""
        question = self.question()

        def how(turn: Turn) -> str:
            text = self.text(question)
            answer, ident = asking.respond(self.openai(url), turn, text, stream, **more)
            if "conversation" not in more:
                more["previous_response_id"] = ident
            return answer

        self.ask(f"{kind}{', streamed' if stream else ''}", url, how, question)
        return question

    def background(self) -> None:
        """Asked of one node, waited for at any."""
        url, question = self.anywhere(), self.question()

        def retrieve(ident: str) -> Callable[[Any], Any]:
            return lambda client: client.responses.retrieve(ident)

        def how(turn: Turn) -> str:
            text = self.text(question)
            made = self.openai(url).responses.create(
                model=asking.MODEL, input=text, background=True
            )
            turn.request_id = made._request_id or ""
            deadline = time.monotonic() + PATIENCE
            while made.status in ("queued", "in_progress"):
                if time.monotonic() > deadline:
                    raise Failed("background response does not end")
                time.sleep(POLL)
                made = self.read(self.anywhere(), retrieve(made.id))
            return asking.responded(made)

        self.ask("background", url, how, question)

    def stored_chat(self) -> None:
        """Kept, and read elsewhere."""
        url, question = self.anywhere(), self.question()
        said = [{"role": "user", "content": self.text(question)}]
        told: list[str] = []

        def how(turn: Turn) -> str:
            raw = self.openai(url).chat.completions.with_raw_response.create(
                model=asking.MODEL, messages=said, store=True
            )
            turn.request_id = raw.headers["x-request-id"]
            whole = raw.parse()
            # The store may be lost meanwhile; then the reply says so.
            turn.ignored = raw.headers.get("x-claudemax-ignored", "")
            if "store" not in turn.ignored:
                told.append(whole.id)
            return whole.choices[0].message.content or ""

        self.ask("chat, stored", url, how, question)
        if not told:
            return
        kept = self.read(self.anywhere(), lambda client: client.chat.completions.retrieve(told[0]))
        if question not in (kept.choices[0].message.content or ""):
            self.wrong(f"chat completion {told[0]} is stored as another")


Kind = Callable[[Client], None]

STORED: frozenset[Kind] = frozenset(
    (Client.responses, Client.conversation, Client.background, Client.stored_chat)
)
"""Those that can do nothing without the store."""

KINDS: tuple[tuple[Kind, int], ...] = (
    (Client.chat, 26), (Client.messages, 18), (Client.ollama, 8), (Client.tools, 10),
    (Client.socket, 8), (Client.responses, 10), (Client.conversation, 6),
    (Client.background, 8), (Client.stored_chat, 6),
)  # fmt: skip


def work(farm: Farm, worker: int) -> None:
    """One conversation after the other."""
    while not farm.over.is_set():
        number = farm.next()
        kind = farm.kind(number)
        try:
            kind(Client(farm, worker, number))
        except Over:
            pass
        except Exception as error:
            farm.turns.wrong.append(f"{kind.__name__} {number}: {error!r:.300}")
            raise
