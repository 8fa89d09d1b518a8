"""Turns: those that run, the latest, and those that have failed."""

from __future__ import annotations

from twisted.web.template import Tag, tags

from claudeproxy.ledger.record import PAID, TurnRecord
from claudeproxy.web.journal import RunningTurn

from . import words
from .parts import Cell, Column, badge, bar, note, quiet, section, sentence, table
from .remedies import remedy
from .snapshot import Snapshot

_RUNNING = (
    Column("For", True), Column("Client"), Column("Model"), Column("State"),
    Column("Request", True, extra=True),
)  # fmt: skip

_LATEST = (
    Column("When"), Column("Client"), Column("Model", extra=True),
    Column("Input", True, extra=True),
    Column("Cached", True, extra=True), Column("Output", True),
    Column("First token", True, extra=True), Column("Took", True), Column("Outcome"),
)  # fmt: skip

_FAILED = (Column("When"), Column("What and why"), Column("Client", extra=True))


def now(seen: Snapshot) -> Tag:
    """The section of what goes on."""
    turns = seen.health["turns"]
    running, waiting = turns["running"], turns["waiting"]
    rows = [(_running(turn, seen.now), "") for turn in reversed(seen.running)]
    return section(
        "now",
        "Now",
        tags.div(
            _gauge("Running", running, seen.slots, "--concurrency, --processes"),
            _gauge("Waiting", waiting, seen.places, "--queue"),
            class_="gauges",
        ),
        table("Turns that run", _RUNNING, rows) if rows else note("No turn is running."),
    )


def summary(seen: Snapshot) -> str:
    """What goes on, in a few words."""
    turns = seen.health["turns"]
    if not turns["running"] and not turns["waiting"]:
        return "idle"
    return f"{turns['running']} running, {turns['waiting']} waiting"


def latest(seen: Snapshot) -> Tag:
    """The section of the latest turns."""
    if seen.turns is None:
        content = note(words.no_turns(seen.health))
    elif not seen.turns:
        content = note("There was no turn yet.")
    else:
        rows = [
            (_row(turn, seen.now), "paid" if turn.paid_by == PAID else "") for turn in seen.turns
        ]
        content = table("The latest turns, the newest first", _LATEST, rows)
    return section("turns", "Latest turns", content, wide=True)


def failed(seen: Snapshot) -> Tag:
    """The section of what went wrong."""
    if seen.turns is None:
        content = note(words.no_turns(seen.health))
    elif not seen.failed:
        content = note("No turn has failed.")
    else:
        rows = [(_failure(turn, seen.now), "") for turn in seen.failed]
        content = table("The latest turns that failed, and why", _FAILED, rows)
    return section("errors", "Errors", content, wide=True)


def _gauge(title: str, number: int, of: int, options: str) -> Tag:
    share = 100 * number / of if of else 0.0
    looks = "bad" if of and number >= of else "good"
    return tags.div(
        tags.p(
            tags.strong(str(number)),
            quiet(f" of {of}"),
            tags.span(*sentence(f" ({options})"), class_="quiet extra"),
        ),
        bar(f"{title}: {number} of {of}", ("track", 0, 100), (looks, 0, share)),
        class_="gauge",
    )(**{"data-title": title})


def _running(turn: RunningTurn, now: float) -> list[Cell]:
    record, facts = turn.record, turn.facts
    state = badge("waiting", "warning")
    if facts.first_token is not None:
        state = badge("answering", "good")
    elif facts.group is not None and facts.group.placement:
        state = badge("thinking")
    return [
        words.moment(record.time, words.span(now - record.time)),
        _client(record),
        words.name(facts.answered_by or record.model),
        state,
        words.size(record.body_bytes),
    ]


def _row(turn: TurnRecord, now: float) -> list[Cell]:
    usage = turn.usage
    prompt = usage.prompt_tokens
    return [
        words.ago(turn.time, now),
        _client(turn),
        words.name(turn.answered_by or turn.model),
        words.count(prompt),
        words.percent(usage.cache_read_tokens / prompt if prompt else None),
        words.count(usage.output_tokens),
        words.seconds(turn.first_token_ms),
        words.seconds(turn.total_ms),
        _outcome(turn),
    ]


def _client(turn: TurnRecord) -> Cell:
    if not turn.key:
        return words.name(turn.client)
    client = tags.span(" ", words.name(turn.client), class_="quiet extra")
    return [words.name(turn.key), client if turn.client else ""]


def _outcome(turn: TurnRecord) -> Cell:
    paid = [badge("paid", "bad"), " "] if turn.paid_by == PAID else []
    if turn.outcome == "ok":
        return [*paid, "ok", tags.span(" ", words.name(turn.placement), class_="quiet extra")]
    if turn.outcome == "client left":
        return [*paid, quiet("client left")]
    return [*paid, badge(_word(turn.outcome), "bad")]


def _failure(turn: TurnRecord, now: float) -> list[Cell]:
    what: list[Cell] = [badge(_word(turn.outcome), "bad"), " "]
    what += [quiet(words.text(str(word)), " ") for word in (turn.status, turn.code) if word]
    what.append(tags.code(words.text(turn.request_id), class_="quiet extra"))  # for the log
    return [
        words.ago(turn.time, now),
        [
            tags.div(what),
            tags.div(words.text(turn.cause)) if turn.cause else "",
            tags.div(quiet(*sentence(remedy(turn.outcome)))),
        ],
        [_client(turn), tags.div(quiet(words.name(turn.model)))],
    ]


def _word(kind: str) -> Cell:
    return words.name(kind.replace("_", " "))
