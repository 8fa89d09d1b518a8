"""The end of a process, on a clock of its own and with a pipe that remembers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure as Reason

from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.cli.process import (
    GRACE,
    GRACE_LOGIN,
    RENEWAL_LOOK,
    REWIND_GRACE,
    CLIProcess,
)
from claudeproxy.cli.session import Session
from claudeproxy.cli.setup import Setup
from claudeproxy.cli.states import State
from claudeproxy.messages import Event, Failure, Finished, Message, Request, Text
from claudeproxy.testing import transcripts as cli

ASKS = Request("opus", (Message("user", (Text("x"),)),))
SETUP = Setup.of(ASKS)
ANSWER = b"".join(cli.text_block(["a"])) + cli.closing()
INFO = {"status": "allowed", "rateLimitType": "five_hour"}


class Pipe:
    """A process's transport: ``subtypes`` of what was written, and whether stdin is closed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.written = b""
        self.closed = False
        self.paused = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def closeStdin(self) -> None:
        assert not self.closed
        self.closed = True

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.written.splitlines()]

    @property
    def interrupts(self) -> int:
        return len(self.requests("interrupt"))

    @property
    def questions(self) -> int:
        return sum(line["type"] == "user" for line in self.lines)

    def requests(self, subtype: str) -> list[Any]:
        return [line for line in self.lines if line.get("request", {}).get("subtype") == subtype]


class Running:
    """A process, its clock, and what its owner and listener are told."""

    def __init__(self, grace: float = GRACE, renewing: Any = None) -> None:
        # A child of its own, for there is something to be killed.
        self.child = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True
        )
        self.clock = Clock()
        self.told: list[Any] = []
        self.on_rest = lambda: None
        self.process = CLIProcess(self.clock, Session(lambda: 1000.0), self, grace, renewing)
        self.pipe = Pipe(self.child.pid)
        self.process.transport = self.pipe
        self.process.connectionMade()

    def feed(self, data: bytes) -> None:
        self.process.outReceived(data)

    def start(self, *, rewinds: bool = True) -> None:
        """It has started up."""
        (probe,) = self.pipe.requests("rewind_conversation")
        known = cli.rewound_not(probe["request_id"], "target_not_found")
        self.feed(known if rewinds else cli.refused(probe["request_id"], "no such request"))
        self.feed(cli.ready())

    def ask(self, **how: Any) -> None:
        """A turn, up to its request."""
        self.start()
        self.process.open(self, ASKS.messages, SETUP, {}, **how)
        self.feed(cli.requesting() + cli.opening())

    @property
    def rewound(self) -> bytes:
        """The answer to its last rewind."""
        rewind = self.pipe.requests("rewind_conversation")[-1]
        return cli.rewound(rewind["request_id"], rewind["request"]["target_message_uuid"])

    def end(self) -> None:
        """It ends by itself."""
        self.process.processExited(Reason(ProcessDone(0)))
        self.process.processEnded(Reason(ProcessDone(0)))

    @property
    def was_killed(self) -> bool:
        try:
            return self.child.wait(0.2) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    # Owner and listener

    def ready(self, process: CLIProcess, models: tuple[ModelInfo, ...]) -> None:
        self.told.append("ready")

    def account(self, process: CLIProcess, status: LoginStatus | None) -> None:
        self.told.append(status)

    def rested(self, process: CLIProcess) -> None:
        self.told.append("rested")
        self.on_rest()

    def limits(self, process: CLIProcess, info: Mapping[str, Any]) -> None:
        self.told.append(info)

    def sizes(self, tokens: Mapping[str, int]) -> None:
        self.told.append(tokens)

    def process_ended(self, process: CLIProcess) -> None:
        self.told.append("gone")

    def events(self, events: list[Event]) -> None:
        self.told += [e for e in events if isinstance(e, (Finished, Failure))]


@pytest.fixture
def started() -> Iterator[Any]:
    made: list[Running] = []

    def start(**how: Any) -> Running:
        made.append(Running(**how))
        return made[-1]

    yield start
    for running in made:
        running.child.kill()
        running.child.wait()


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """What the log warns of."""
    texts: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_level") is LogLevel.warn and "CLI" in event["log_format"]:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


def test_at_rest_its_pipe_is_closed_and_nothing_said(started: Any) -> None:
    running = started()
    running.feed(cli.ready())
    running.process.stop()
    assert (running.pipe.closed, running.pipe.interrupts) == (True, 0)
    running.end()
    assert running.told == ["ready", "gone"]
    assert not running.process.killed
    assert running.clock.getDelayedCalls() == []


def test_in_a_turn_it_is_interrupted_and_its_pipe_closed(started: Any) -> None:
    running = started()
    running.ask()
    running.process.stop()
    running.process.stop()
    assert (running.pipe.closed, running.pipe.interrupts) == (True, 1)
    assert running.process.state is State.DEAD


def test_it_is_killed_after_the_grace_and_not_before(started: Any) -> None:
    running = started()
    running.ask()
    running.process.stop()
    running.clock.advance(GRACE - 0.01)
    assert not running.process.killed
    running.clock.advance(0.02)
    assert running.process.killed
    assert running.was_killed


def test_stopping_twice_does_not_put_the_end_off(started: Any) -> None:
    running = started()
    running.ask()
    running.process.stop()
    running.clock.advance(GRACE / 2)
    running.process.stop()
    running.clock.advance(GRACE / 2)
    assert running.was_killed


def test_a_paused_one_reads_on_to_its_end(started: Any) -> None:
    running = started()
    running.ask()
    running.process.pause()
    assert running.pipe.paused
    running.process.stop()
    assert not running.pipe.paused


# -- a login at stake --


def test_its_pipe_stays_open_while_the_login_is_renewed(started: Any) -> None:
    renewing = [True]
    running = started(grace=GRACE_LOGIN, renewing=lambda: renewing[0])
    running.ask()
    running.process.stop()
    assert running.pipe.interrupts == 1
    running.clock.pump([RENEWAL_LOOK] * 200)
    assert not running.pipe.closed
    renewing.clear()
    renewing.append(False)
    running.clock.advance(RENEWAL_LOOK)
    assert running.pipe.closed
    running.end()
    assert not running.process.killed


def test_one_that_starts_up_may_be_about_to_renew(started: Any) -> None:
    running = started(grace=GRACE_LOGIN, renewing=lambda: False)
    running.process.stop()
    running.clock.advance(10.0)
    assert not running.pipe.closed
    running.feed(cli.ready())
    assert running.pipe.closed
    running.end()


def test_without_a_login_one_that_starts_up_is_ended_at_once(started: Any) -> None:
    running = started()
    running.process.stop()
    assert running.pipe.closed


@pytest.mark.parametrize("ready", [False, True])
def test_where_only_a_kill_is_left_the_log_says_what_it_may_cost(
    started: Any, ready: bool, warned: list[str]
) -> None:
    running = started(grace=GRACE_LOGIN, renewing=lambda: True)
    if ready:
        running.feed(cli.ready())
    running.process.stop()
    running.clock.pump([RENEWAL_LOOK] * int((GRACE_LOGIN - 1) / RENEWAL_LOOK))
    assert (running.process.killed, warned) == (False, [])
    running.clock.advance(1.5)
    assert running.was_killed
    (text,) = warned
    assert "renewing the login" in text and str(running.pipe.pid) in text


def test_where_no_login_is_at_stake_a_kill_is_no_matter(started: Any, warned: list[str]) -> None:
    running = started()
    running.ask()
    running.process.kill()
    assert running.was_killed
    assert warned == []


# -- how an answer was paid for --


def answered(running: Running, reason: str = "end_turn") -> list[Any]:
    """Its answer is out; what is said of how it was paid for, once that is."""
    billing: list[Any] = []
    running.ask(on_billing=billing.append)
    running.feed(b"".join(cli.text_block(["a"])) + cli.closing(reason))
    assert any(isinstance(told, Finished) for told in running.told)
    return billing


def test_a_good_answer_tells_its_billing_by_its_result(started: Any) -> None:
    running = started()
    billing = answered(running)
    assert billing == []
    running.feed(cli.line({"type": "rate_limit_event", "rate_limit_info": INFO}))
    assert billing == [INFO]
    running.feed(cli.result("a"))
    assert (billing, running.process.state) == ([INFO], State.IDLE)
    assert not running.pipe.closed


def test_a_cut_answer_is_given_a_moment_and_taken_back(started: Any) -> None:
    running = started()
    billing = answered(running, "max_tokens")
    running.clock.advance(GRACE / 2)
    assert (billing, running.process.state) == ([], State.CUT)
    running.clock.advance(GRACE)
    assert (billing, running.process.state) == ([{}], State.REWINDING)
    running.feed(running.rewound)
    assert (running.told[-1], running.process.state) == ("rested", State.IDLE)
    assert running.clock.getDelayedCalls() == []


def test_the_moment_of_one_cut_answer_is_not_the_next_ones(started: Any) -> None:
    running = started()
    answered(running, "max_tokens")
    running.clock.advance(GRACE / 2)
    running.feed(cli.requesting())
    running.clock.advance(REWIND_GRACE - 0.1)
    assert (running.process.state, running.pipe.closed) == (State.REWINDING, False)
    running.feed(running.rewound)
    running.process.open(running, ASKS.messages, SETUP, {})
    running.feed(cli.requesting() + cli.opening() + cli.closing("max_tokens"))
    running.clock.advance(GRACE * 0.75)
    assert running.process.state is State.CUT
    running.clock.advance(GRACE / 2)
    assert running.process.state is State.REWINDING


def test_one_that_is_not_kept_tells_first_how_it_was_paid(started: Any) -> None:
    running = started()
    billing = answered(running)
    running.process.stop()
    assert not running.pipe.closed
    running.feed(cli.line({"type": "rate_limit_event", "rate_limit_info": INFO}))
    assert billing == [INFO]
    assert running.pipe.closed


def test_one_that_never_tells_it_is_ended_all_the_same(started: Any) -> None:
    running = started()
    billing = answered(running)
    running.process.stop()
    running.clock.advance(GRACE)
    assert running.pipe.closed
    running.clock.advance(GRACE)
    assert running.was_killed
    running.process.processEnded(Reason(ProcessTerminated(None, signal.SIGKILL)))
    assert billing == [None]


def outliving(started: Any) -> tuple[Running, list[Any]]:
    running = started()
    billing: list[Any] = []
    running.ask(on_billing=billing.append)
    running.process.outlive(60.0)
    running.clock.advance(30.0)
    return running, billing


INFORMED = cli.line({"type": "rate_limit_event", "rate_limit_info": INFO})


def test_an_answer_nobody_waits_for_may_end(started: Any) -> None:
    running, billing = outliving(started)
    running.feed(ANSWER)
    assert running.told == ["ready"]
    running.feed(INFORMED)
    assert (billing, running.told[1:]) == ([INFO], [INFO, "rested"])
    running.feed(cli.result("a"))
    assert (running.process.state, running.clock.getDelayedCalls()) == (State.IDLE, [])


def test_but_not_for_ever(started: Any) -> None:
    running, _ = outliving(started)
    running.clock.advance(30.0)
    assert running.process.state is State.REWINDING
    running.feed(running.rewound)
    assert running.told == ["ready", "rested"]


def test_an_answer_nobody_waits_for_is_not_the_next_turns(started: Any) -> None:
    """All of it may come at once, and the next turn begin on the way."""
    running, _ = outliving(started)
    other: list[Event] = []

    class Other:
        def events(self, events: list[Event]) -> None:
            other.extend(events)

    def reopen() -> None:
        running.process.open(Other(), ASKS.messages, SETUP, {}, 0)

    running.on_rest = reopen
    running.feed(ANSWER + INFORMED)
    assert running.process.state is State.QUEUED
    running.feed(cli.result("a"))
    running.feed(running.rewound)
    assert (running.process.state, other) == (State.ASKED, [])
    running.feed(cli.transcript("mine"))
    assert isinstance(other[-1], Finished)


def test_an_answer_nobody_waits_for_that_fails_leaves_the_next_turn_alone(started: Any) -> None:
    running, _ = outliving(started)
    running.feed(cli.result("API Error: 529", is_error=True, api_error_status=529))
    running.feed(running.rewound)
    assert running.told == ["ready", "rested"]
    running.process.open(running, ASKS.messages, SETUP, {})
    running.clock.advance(60.0)
    assert running.process.state is State.ASKED


@pytest.mark.parametrize("reason", ["end_turn", "tool_use"])
def test_how_an_answer_was_paid_is_told_to_whoever_asked_for_it(started: Any, reason: str) -> None:
    """Not to the turn that is put behind it before that is known."""
    running = started()
    before: list[Any] = []
    running.ask(on_billing=before.append)
    running.feed(b"".join(cli.text_block(["a"])) + cli.closing(reason))
    after: list[Any] = []
    running.process.open(running, ASKS.messages, SETUP, {}, 0, after.append)
    assert (before, after) == ([{}], [])
    running.feed(cli.result("a"))
    running.feed(running.rewound)
    running.feed(cli.transcript("b"))
    assert (before, after) == ([{}], [{}])


def test_one_that_dies_before_it_told_is_no_verdict(started: Any) -> None:
    running = started()
    billing = answered(running)
    running.end()
    assert billing == [None]
    assert running.clock.getDelayedCalls() == []


# -- a rewind --


def reopening(started: Any, **how: Any) -> Running:
    """A turn waits for another conversation to be cut off."""
    running: Running = started(**how)
    running.ask()
    running.feed(ANSWER + cli.result("a"))
    running.told.clear()
    running.process.open(running, ASKS.messages, SETUP, {})
    assert running.process.state is State.REOPENING
    return running


def rewinding(started: Any, **how: Any) -> Running:
    """A turn was given up in mid-answer."""
    running: Running = started(**how)
    running.ask()
    running.process.give_up()
    running.told.clear()
    assert running.process.state is State.REWINDING
    return running


def test_a_turn_is_put_once_the_rewind_is_done(started: Any) -> None:
    running = reopening(started)
    running.clock.advance(REWIND_GRACE - 0.1)
    assert running.pipe.questions == 1
    running.feed(running.rewound)
    assert running.pipe.questions == 2
    running.clock.advance(REWIND_GRACE)
    running.feed(cli.transcript("b"))
    assert [type(told) for told in running.told if told != "rested"] == [Finished]
    assert running.clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", [{}, {"grace": GRACE_LOGIN, "renewing": lambda: False}])
def test_a_turn_whose_rewind_is_not_answered_is_lost(started: Any, how: Any) -> None:
    """At rest, no login is being renewed: there is nothing a rewind could wait for."""
    running = reopening(started, **how)
    running.clock.advance(REWIND_GRACE + 0.1)
    (failure,) = running.told
    assert isinstance(failure, Failure) and failure.status == 502
    assert running.process.lost and running.pipe.closed
    assert running.pipe.questions == 1
    running.feed(running.rewound)
    assert running.pipe.questions == 1
    running.end()
    assert running.told == [failure, "gone"]
    assert running.clock.getDelayedCalls() == []


@pytest.mark.parametrize("how", ["refused", "unknown", "partly"])
def test_a_turn_whose_rewind_is_refused_is_lost(started: Any, how: str) -> None:
    running = reopening(started)
    rewind = running.pipe.requests("rewind_conversation")[-1]
    asked, target = rewind["request_id"], rewind["request"]["target_message_uuid"]
    running.feed(
        {
            "refused": cli.rewound_not(asked, "commands_queued"),
            "unknown": cli.refused(asked, "no such request"),
            "partly": cli.rewound(asked, target, "an answer"),
        }[how]
    )
    assert [type(told) for told in running.told] == [Failure]
    assert running.process.lost and running.pipe.closed
    assert running.pipe.questions == 1


def test_a_rewind_nobody_waits_for_is_waited_for_and_ended(started: Any) -> None:
    running = rewinding(started)
    running.clock.advance(REWIND_GRACE + 0.1)
    assert running.pipe.closed and running.told == []
    running.clock.advance(GRACE)
    assert running.was_killed


def test_where_a_login_may_be_renewed_a_rewind_gets_its_time(started: Any) -> None:
    running = rewinding(started, grace=GRACE_LOGIN, renewing=lambda: False)
    running.clock.advance(GRACE_LOGIN - 1)
    assert not running.pipe.closed
    running.feed(running.rewound)
    assert running.told == ["rested"]
    running.clock.advance(GRACE_LOGIN)
    assert not running.pipe.closed


def test_each_rewind_has_its_own_time(started: Any) -> None:
    """The next begins with the end of the one before."""
    running = rewinding(started)
    running.on_rest = lambda: running.process.open(running, ASKS.messages, SETUP, {})
    running.clock.advance(REWIND_GRACE - 0.1)
    running.feed(running.rewound)
    running.feed(cli.requesting())
    assert running.process.state is State.ANSWERING
    running.process.give_up()
    running.clock.advance(REWIND_GRACE - 0.1)
    assert running.process.state is State.REWINDING and not running.pipe.closed


def test_a_history_that_is_never_taken_in_does_not_hold_a_process(started: Any) -> None:
    running = started()
    running.start()
    history = (*ASKS.messages, Message("assistant", (Text("a"),)), *ASKS.messages)
    running.process.open(running, history, SETUP, {})
    running.process.give_up()
    assert running.process.state is State.PREPARING
    running.clock.advance(REWIND_GRACE + 0.1)
    assert running.pipe.closed


def test_a_paused_one_reads_on_to_the_end_of_its_rewind(started: Any) -> None:
    running = started()
    running.ask()
    running.process.pause()
    running.process.give_up()
    assert not running.pipe.paused


def test_one_that_cannot_rewind_ends(started: Any) -> None:
    running = started()
    running.start(rewinds=False)
    running.process.open(running, ASKS.messages, SETUP, {})
    running.process.give_up()
    assert running.pipe.closed and not running.process.can_rewind


def test_a_turn_that_cannot_be_put_changes_nothing(started: Any) -> None:
    running = started()
    running.ask()
    with pytest.raises(ValueError):
        running.process.open(None, ASKS.messages, SETUP, {})
    assert (running.process.listener, running.process.turns) == (running, 1)


# -- what was lost --


def test_who_asked_is_told_when_it_closes_its_stdout(started: Any) -> None:
    running = started()
    running.ask()
    running.process.outConnectionLost()
    assert (running.pipe.closed, running.pipe.interrupts) == (True, 1)
    running.process.processExited(Reason(ProcessTerminated(None, signal.SIGSEGV)))
    running.process.processEnded(Reason(ProcessTerminated(None, signal.SIGSEGV)))
    failure = running.told[-2]
    assert isinstance(failure, Failure)
    assert (failure.status, "signal 11" in failure.message) == (502, True)


def test_a_turn_is_lost_only_before_anything_was_asked(started: Any) -> None:
    running = started()
    running.start()
    running.process.open(running, ASKS.messages, SETUP, {})
    running.end()
    assert running.process.lost
    running = started()
    running.ask()
    running.end()
    assert not running.process.lost


def test_the_owner_is_told_of_account_and_windows(started: Any) -> None:
    running = started()
    running.ask()
    running.feed(cli.response("setup", account={"tokenSource": "none"}))
    running.feed(cli.line({"type": "rate_limit_event", "rate_limit_info": INFO}))
    ready, status, info = running.told
    assert (ready, info) == ("ready", INFO)
    assert isinstance(status, LoginStatus) and not status.logged_in
