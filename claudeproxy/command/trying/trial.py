"""Asks all questions, until one must be the last."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from ..running import Running
from .asker import FINAL, Asker, NotHeld, Refused, Stopped, Tokens
from .questions import QUESTIONS, Question

SUBSCRIPTION, DEMO = "subscription", "demo"
"""Upstreams, as the daemon calls them."""


@frozen
class Outcome:
    """``holds``: ``None`` where it was not asked to its end; ``why`` is in our words;
    ``refused``: the error that came in place of an answer."""

    question: Question
    holds: bool | None
    why: str = ""
    refused: Refused | None = None
    seconds: float = 0.0
    tokens: Tokens = field(factory=Tokens)


@frozen
class Trial:
    """``stopped``: why not all was asked; ``health``: what ``/health`` told before, ``before`` and
    ``after``: what ``/v1/usage`` did."""

    outcomes: Sequence[Outcome]
    stopped: str | None
    health: Mapping[str, Any]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    requests: int
    tokens: Tokens
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing is amiss: what cannot be asked of an upstream is not."""
        return self.stopped is None and not any(one.holds is False for one in self.outcomes)


def run(daemon: Running, model: str, told: Callable[[int, int], object]) -> Trial:
    """Ask ``daemon``. ``told``: called with how many questions are done, and of how many.

    :raises NotRunning: when there is no daemon.
    """
    began = time.monotonic()
    asker, health = Asker(daemon, model), daemon.health()
    stopped: str | None = None
    outcomes: list[Outcome] = []
    for question in QUESTIONS:
        told(len(outcomes), len(QUESTIONS))
        cannot = _cannot(question, health["upstream"], asker, stopped)
        if cannot:
            outcomes.append(Outcome(question, None, cannot))
            continue
        spent, at = asker.tokens, time.monotonic()
        outcome, last = _ask(question, asker)
        stopped = stopped or last
        outcomes.append(
            evolve(outcome, seconds=time.monotonic() - at, tokens=_since(spent, asker.tokens))
        )
    return Trial(
        outcomes,
        stopped,
        health,
        asker.before,
        asker.after,
        asker.sent,
        asker.tokens,
        time.monotonic() - began,
    )


def _cannot(question: Question, upstream: str, asker: Asker, stopped: str | None) -> str:
    """Why a question is not asked; empty if it is."""
    if question.about == "plan" and upstream != SUBSCRIPTION:
        return "the upstream has no plan"
    if question.about == "cache" and upstream == DEMO:
        return "the demo has no cache"
    if question.about == "plan":
        return "" if asker.answered else "nothing was answered"
    return "" if stopped is None else "not asked any more"


def _ask(question: Question, asker: Asker) -> tuple[Outcome, str | None]:
    """What came of it, and why nothing more is to be asked, if so."""
    try:
        question.check(asker)
    except NotHeld as error:
        return Outcome(question, False, str(error)), None
    except Refused as error:
        last = f"status {error.status}" if error.status in FINAL else None
        return Outcome(question, False, "", error), last
    except Stopped as error:
        return Outcome(question, None, str(error)), str(error)
    except (LookupError, TypeError, AttributeError, ValueError):
        return Outcome(question, False, "the reply has another form"), None
    return Outcome(question, True), None


def _since(before: Tokens, now: Tokens) -> Tokens:
    return Tokens(now.read - before.read, now.cached - before.cached, now.written - before.written)
