"""``claudemax try``: over a rehearsed subscription and the demo, through a daemon and its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from harness import Daemon, in_thread
from pytest_twisted import ensureDeferred
from shell import Command, free_port

from claudeproxy.command.connect.client import KEY_VARIABLE
from claudeproxy.command.trying.asker import Refused, Tokens
from claudeproxy.command.trying.questions import ADD, LONG, QUESTIONS, WORD
from claudeproxy.command.trying.report import as_dict, as_text
from claudeproxy.command.trying.trial import Outcome, Trial
from claudeproxy.demo.answering.answer import answer, orders_of
from claudeproxy.demo.app import Received, Script
from claudeproxy.demo.steps import ApiError, Wait
from claudeproxy.rehearsal.account import EMAIL, PlanWindow
from claudeproxy.rehearsal.home import put_login
from claudeproxy.rehearsal.proxy import rehearse

NAMES = [question.name for question in QUESTIONS]
REQUESTS = sum(question.requests for question in QUESTIONS)


def caching(broken: Script = lambda received: None) -> Script:
    """What has a cache: it reads the long text when that comes again. ``broken`` goes first."""
    known = []

    def script(received: Received) -> Any:
        found = broken(received)
        if found is None and received.body.get("max_tokens", 99) < 99:
            return [Wait(0.1), *answer(received.body, orders_of(received.body), message_id="msg_x")]
        if found is not None or "Line 1 of this" not in json.dumps(received.body.get("system")):
            return found
        usage = {f"cache_{'read' if known else 'creation'}_input_tokens": 5000, "input_tokens": 9}
        known.append(True)
        orders = evolve(orders_of(received.body), usage=usage)
        return answer(received.body, orders, message_id=f"msg_{len(known)}")

    return script


async def tried(command: Command, *arguments: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Exit status, what is told to machines, and the questions by name."""
    ran: subprocess.CompletedProcess[str] = await in_thread(
        command.run, "try", "--yes", "--json", *arguments
    )
    told = json.loads(ran.stdout)
    assert [one["name"] for one in told["questions"]] == NAMES
    return ran.returncode, told, {one["name"]: one for one in told["questions"]}


@ensureDeferred
async def test_a_subscription_by_which_all_holds(make_daemon: Any, command: Command) -> None:
    daemon: Daemon = await make_daemon(mode="subscription", script=caching())
    status, told, questions = await tried(command, "--url", daemon.url)
    assert [one for one in questions.values() if one["answer"] != "yes"] == []
    assert (status, told["holds"], told["stopped"]) == (0, True, None)
    assert told["requests"] == len(daemon.turns()) == REQUESTS
    assert told["windows"]["five_hour"] == {"before": None, "after": 25.0}
    assert told["extra_usage"] == {"enabled": False, "paid_turns": 0}
    assert questions["cached_follow_up"]["tokens"]["cached"] == 5000
    assert told["tokens"]["in"] == sum(one["tokens"]["in"] for one in questions.values())
    assert (told["upstream"], told["daemon"], told["model"]) == ("subscription", "running", "haiku")


def no_stops(received: Received) -> ApiError | None:
    if received.body.get("stop_sequences"):
        return ApiError(400, f"stop_sequences: not for {EMAIL}")
    return None


@ensureDeferred
async def test_what_does_not_hold_is_told_and_reported(
    make_daemon: Any, command: Command, tmp_path: Path
) -> None:
    """The user reads Anthropic's message; the report has only its kind."""
    daemon = await make_daemon(mode="subscription", script=no_stops)
    path = tmp_path / "report.md"
    ran = await in_thread(command.run, "try", "--yes", "--url", daemon.url, "--report", str(path))
    assert ran.returncode == 1
    assert f"answered 400 invalid_request_error: stop_sequences: not for {EMAIL}" in ran.stdout
    assert "the first turn put nothing into the cache" in ran.stdout
    assert "No: stop_sequence, cached_follow_up." in ran.stdout
    text = path.read_text()
    assert "| **no** |" in text and "status 400, type invalid_request_error, code None" in text
    account = daemon.subscription.account
    secrets = [EMAIL, "sk-ant", WORD, LONG[:20], "You said", str(tmp_path), str(command.home)]
    assert not [secret for secret in [*secrets, account.email, daemon.url] if secret in text]


@pytest.mark.parametrize("switched", [True, False], ids=["charged", "refused"])
@ensureDeferred
async def test_it_stops_when_a_turn_is_charged(
    make_daemon: Any, command: Command, switched: bool
) -> None:
    """It is the tool by which Anthropic takes it for a third-party app."""
    daemon: Daemon = await make_daemon(mode="subscription", script=caching())
    assert daemon.subscription is not None
    account = daemon.subscription.account
    account.judged, account.extra_usage = f"__{ADD['function']['name']}", switched
    status, told, questions = await tried(command, "--url", daemon.url)
    assert (status, account.paid) == (1, switched)
    assert told["extra_usage"]["paid_turns"] == account.paid
    before = NAMES[: NAMES.index("tool_round")]
    assert {questions[name]["answer"] for name in before} == {"yes"}
    assert questions["cached_follow_up"]["why"] == "not asked any more"
    if switched:
        assert told["stopped"] == "a turn was paid as extra usage"
        assert questions["paid_by_the_plan"]["answer"] == "no"
    else:
        assert told["stopped"] == "status 402"
        assert questions["tool_round"]["error"]["code"] == "insufficient_quota"
        assert questions["paid_by_the_plan"]["answer"] == "yes"
    assert len(daemon.turns()) == told["requests"]


@pytest.mark.cli
@ensureDeferred
async def test_its_own_daemon_on_a_terminal(command: Command) -> None:
    """It asks first, and leaves nothing behind."""
    from twisted.internet import reactor

    rehearsal = await rehearse(reactor, command.home, answer=caching())  # type: ignore[arg-type]
    account = rehearsal.subscription.account
    account.windows = {"five_hour": PlanWindow(0.25, int(account.now()) + 3600)}
    put_login(command.home, account.log_in())
    tmp = command.home / "tmp"
    tmp.mkdir()
    command.variables.update(rehearsal.environment, TMPDIR=str(tmp))
    command.variables["CLAUDEMAX_PORT"] = str(free_port())
    turns = rehearsal.subscription.messages.requests

    def declined() -> str:
        shown = command.terminal("try")
        shown.until("Go on? [y/N]: ")
        assert not turns
        shown.child.sendline("")
        assert shown.end() == 1
        return shown.text

    def agreed() -> str:
        shown = command.terminal("try")
        shown.until("Go on? [y/N]: ")
        shown.child.sendline("y")
        assert shown.end() == 0, shown.text
        return shown.text

    def interrupted() -> str:
        shown = command.terminal("try")
        shown.until("Go on? [y/N]: ")
        shown.child.sendline("y")
        shown.until("2 of ")
        shown.child.sendintr()
        assert shown.end() == 130, shown.text
        return shown.text

    try:
        said = await in_thread(declined)
        assert "This spends a little of your plan: 12 short requests to haiku" in said
        assert said.endswith("claudemax: nothing was sent") and not turns
        said = await in_thread(agreed)
        assert "All of it holds." in said and "five hour" in said
        assert said.count("✓") == len(QUESTIONS)
        assert len(turns) == REQUESTS
        assert "Traceback" not in await in_thread(interrupted)
        assert len(turns) < 2 * REQUESTS
        assert not list(tmp.glob("claudemax*"))
    finally:
        await rehearsal.port.stopListening()


@pytest.mark.cli
def test_the_demo_tells_nothing_of_a_plan(command: Command) -> None:
    command.variables.update(CLAUDEMAX_DEMO="true", CLAUDEMAX_PORT=str(free_port()))
    ran = command.run("try", "--yes", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["upstream"], told["daemon"]) == (0, "demo", "of the trial")
    assert "This spends nothing, and tells nothing of a subscription" in ran.stderr
    unasked = {one["name"] for one in told["questions"] if one["answer"] == "not asked"}
    assert unasked == {"cached_follow_up", "windows", "paid_by_the_plan"}


@pytest.mark.cli
def test_not_logged_in(command: Command) -> None:
    command.variables["CLAUDEMAX_PORT"] = str(free_port())
    assert command.refusal("try", "--yes") == (
        "NOT LOGGED IN: run `claudemax login`; nothing was sent"
    )


def test_a_cli_that_does_not_say_who_is_logged_in(command: Command, cli_script: Any) -> None:
    """It would not answer the questions either, one after another."""
    claude = cli_script('[ "$1" = --version ] && echo 2.1.330')
    command.variables.update(CLAUDEMAX_PORT=str(free_port()), CLAUDEMAX_CLAUDE=claude)
    refusal = command.refusal("try", "--yes")
    assert refusal.startswith("the CLI does not say who is logged in; `claudemax doctor` tries it")


@ensureDeferred
async def test_a_login_that_has_ended(make_daemon: Any, command: Command) -> None:
    """The first refusal is the last."""
    daemon = await make_daemon(mode="subscription")
    daemon.subscription.account.revoke()
    status, told, questions = await tried(command, "--url", daemon.url)
    assert (status, told["stopped"], told["requests"]) == (1, "status 401", 1)
    assert questions[NAMES[0]]["error"]["status"] == 401
    assert questions["paid_by_the_plan"]["answer"] == "not asked"
    said = await in_thread(command.refusal, "try", "--yes", "--url", daemon.url)
    assert said.startswith("NOT LOGGED IN")


@ensureDeferred
async def test_what_is_refused_before_anything_is_sent(
    make_daemon: Any, command: Command, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("s3cret\n")
    keys.chmod(0o600)
    daemon = await make_daemon(mode="subscription", extra_usage=True, api_key_file=str(keys))
    there = ("try", "--yes", "--url", daemon.url)
    refusal = await in_thread(command.refusal, *there)
    assert refusal == f"{daemon.url} wants another key; put it into {KEY_VARIABLE}"
    command.variables[KEY_VARIABLE] = "s3cret"
    refusal = await in_thread(command.refusal, *there)
    assert refusal.startswith(f"{daemon.url} may pay for turns (--extra-usage)")
    assert not daemon.turns()


@ensureDeferred
async def test_a_model_that_there_is_not(make_daemon: Any, command: Command) -> None:
    daemon = await make_daemon()
    refusal = await in_thread(
        command.refusal, "try", "--yes", "--url", daemon.url, "--model", "hiaku"
    )
    assert refusal == "--model: there is no 'hiaku' (did you mean \"haiku\"?)"


def test_without_a_terminal_nothing_is_asked(refused: Callable[..., str]) -> None:
    with open(os.devnull) as nothing, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", nothing)
        assert refused("try") == ("there is no terminal to ask on; nothing was sent (--yes sends)")


def test_a_report_that_cannot_be_written(refused: Callable[..., str], tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    assert refused("try", "--yes", "--report", str(there)) == (
        f"--report: {there} is there already; nothing was sent"
    )
    nowhere = tmp_path / "no" / "r"
    assert refused("try", "--yes", "--report", str(nowhere)) == (
        f"--report: {nowhere} cannot be written; nothing was sent"
    )


def test_no_daemon_at_the_url(refused: Callable[..., str]) -> None:
    url = f"http://localhost:{free_port()}"
    assert refused("try", "--yes", "--url", url).startswith(f"nothing answers at {url}")


def test_a_report_has_nothing_private() -> None:
    """Whatever the daemon and its upstream say."""
    canary = "CANARY-alice@example.org-/home/alice-sk-ant-oat01"
    error = Refused(400, {"type": canary, "code": canary, "message": canary})
    usage = {
        "plan": True,
        "windows": {canary: {"used": 25.0}},
        "extra_usage": {"enabled": True, "paid_turns": 0, "disabled_reason": canary},
    }
    trial = Trial(
        [Outcome(QUESTIONS[0], False, refused=error)],
        None,
        {"upstream": f"http://{canary}", "cli_version": canary},
        usage,
        usage,
        1,
        Tokens(1, 2, 3),
        1.0,
    )
    told = as_dict(trial, canary, own=True)
    assert "CANARY" not in json.dumps(told) + as_text(told)
    assert told["questions"][0]["error"] == {"status": 400, "type": "another", "code": "another"}
    assert told["windows"] == {"another": {"before": 25.0, "after": 25.0}}
    assert (told["model"], told["upstream"], told["cli"]) == ("another",) * 3


def test_tokens_of_each_dialect() -> None:
    chat = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    responses = {
        "input_tokens": 9,
        "output_tokens": 2,
        "input_tokens_details": {"cached_tokens": 4},
    }
    messages = {
        "input_tokens": 2,
        "output_tokens": 2,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 3,
    }
    assert {Tokens().plus(usage) for usage in (chat, responses, messages)} == {Tokens(9, 4, 2)}
