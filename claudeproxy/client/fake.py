"""Claude for the tests of programs."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred

from claudeproxy.dialects import anthropic
from claudeproxy.engine.validation import check_schema
from claudeproxy.messages import (
    ArgumentsDelta,
    Block,
    BlockStarted,
    BlockStopped,
    Event,
    Failure,
    FailureError,
    Finished,
    Kind,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
)

from .answer import Answer
from .buffer import Buffer, Source
from .claude import Claude
from .failures import STATUSES

Scripted: TypeAlias = str | Answer | Failure | Kind
"""A text, a whole answer, or what goes wrong."""


class FakeClaude(Claude):
    """Gives the answers that it was given, one for each question.

    ::

        claude = FakeClaude("Hello!", Kind.PLAN_LIMIT)
        assert (await claude.ask("Hi")).text == "Hello!"

    A Deferred in place of an answer is one that comes when that fires; a question that is given up
    cancels it. Text is streamed word by word. What the daemon would refuse is refused here, too,
    but for the name of a model: which there are, the CLI tells.
    """

    def __init__(self, *answers: Scripted | Deferred[Any]) -> None:
        self._answers = deque(answers)
        self.asked: list[Mapping[str, Any]] = []
        """What was asked, in the shape of the Messages API: ``asked[-1]["messages"]``."""

    def _begin(self, asked: Mapping[str, Any], buffer: Buffer) -> Source:
        self.asked.append(asked)
        try:
            [request] = anthropic.read(dict(asked), "fake", 0).requests
            if request.schema:
                check_schema(request.schema, "schema")
        except FailureError as error:
            buffer.events([error.failure])
            return _Play(None)
        assert self._answers, "FakeClaude is asked more than it was given answers"
        answer = self._answers.popleft()
        model = str(asked["model"])
        if not isinstance(answer, Deferred):
            buffer.events(_events(answer, model))
            return _Play(None)
        answer.addCallback(lambda late: buffer.events(_events(late, model)))
        answer.addErrback(lambda why: why.trap(CancelledError))
        return _Play(answer)


class _Play:
    """A source that has said all, or waits."""

    def __init__(self, waiting: Deferred[Any] | None) -> None:
        self._waiting = waiting

    def pause(self) -> None:
        """There is nothing to pause."""

    def resume(self) -> None:
        """There is nothing to resume."""

    def stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()


def _events(answer: Scripted, model: str) -> Iterator[Event]:
    if isinstance(answer, Kind):
        answer = Failure(answer, f"this fails as planned: {answer.value}", STATUSES[answer])
    if isinstance(answer, Failure):
        yield answer
        return
    if isinstance(answer, str):
        answer = Answer((Text(answer),))
    yield Started("msg_fake", answer.model or model, Usage())
    for index, block in enumerate(answer.content):
        yield from _block(index, block)
    called = answer.calls and answer.stop_reason == "end_turn"
    reason = "tool_use" if called else answer.stop_reason
    yield Finished(reason, answer.stop_sequence, answer.usage)


def _block(index: int, block: Block) -> Iterator[Event]:
    if isinstance(block, Text):
        yield BlockStarted(index, Text(""))
        for word in re.findall(r"\S+\s*|\s+", block.text):
            yield TextDelta(index, word)
    elif isinstance(block, Thinking):
        yield BlockStarted(index, Thinking(""))
        yield ThinkingDelta(index, block.thinking)
    elif isinstance(block, ToolUse):
        yield BlockStarted(index, ToolUse(block.id, block.name, {}))
        yield ArgumentsDelta(index, json.dumps(block.input))
    else:
        raise TypeError(f"an answer holds no {type(block).__name__}")
    yield BlockStopped(index)
