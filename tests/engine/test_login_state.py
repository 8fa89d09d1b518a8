"""Whether the login works, on a clock of its own."""

from __future__ import annotations

import pytest

from claudeproxy.cli.errors import LOGGED_OUT, NOT_RENEWED, LoginAdvice, not_logged_in
from claudeproxy.cli.login import LoginStatus
from claudeproxy.engine.login import PROBE, LoginState
from claudeproxy.messages import Failure, FailureError, Kind

MINE = LoginStatus(True, "mine")
HERS = LoginStatus(True, "hers")
NOBODY = LoginStatus(False, "none")
BROKEN = Failure(Kind.UPSTREAM, "broken", 502)
OUT = not_logged_in(LoginAdvice())
LATER = Failure(Kind.UNAVAILABLE, "later", 503, retry_after=30.0, code=NOT_RENEWED)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(login: LoginState) -> Failure | None:
    try:
        login.check()
    except FailureError as error:
        return error.failure
    return None


def known(status: LoginStatus = MINE) -> tuple[Clock, LoginState]:
    """A login that works as far as the CLI says."""
    clock = Clock()
    login = LoginState(clock)
    assert login.told(status, stored=False) is False
    return clock, login


def test_nothing_is_known_at_first_and_nothing_refused() -> None:
    login = LoginState(Clock())
    assert (login.works, login.failing, refusal(login)) == (None, False, None)


def test_the_login_of_another_upstream_is_nobodys_business() -> None:
    login = LoginState(Clock())
    login.ended(OUT, login.number)
    assert (login.works, refusal(login)) == (None, None)
    login.ended(None, login.number)
    assert login.works is None


def test_a_balancer_sends_a_turn_when_only_a_turn_can_tell() -> None:
    clock, login = known()
    assert not login.refuses
    login.ended(OUT, login.number)
    assert login.refuses
    clock.now += PROBE
    assert not login.refuses
    login.told(NOBODY, stored=False)  # the CLI is asked again anyway
    assert login.refuses
    login.told(MINE, stored=False)
    assert not login.refuses
    login.ended(LATER, login.number)
    assert login.refuses
    clock.now += 30
    assert not login.refuses


def test_a_turn_tells_that_it_has_ended() -> None:
    _, login = known()
    login.ended(BROKEN, login.number)
    assert (login.works, login.failing) == (True, False)
    login.ended(OUT, login.number)
    assert (login.works, login.failing) == (False, True)
    failure = refusal(login)
    assert failure is not None
    assert (failure.status, failure.code) == (401, LOGGED_OUT)


def test_what_the_cli_says_does_not_revive_it() -> None:
    """The CLI calls a login good that is revoked or expired."""
    _, login = known()
    login.ended(OUT, login.number)
    assert login.told(MINE, stored=False) is False
    assert refusal(login) == OUT


def test_a_new_login_of_the_same_account_does() -> None:
    _, login = known()
    login.ended(OUT, login.number)
    assert login.told(MINE, stored=True) is True
    assert (login.works, refusal(login)) == (True, None)


def test_a_login_of_another_account_does() -> None:
    _, login = known()
    login.ended(OUT, login.number)
    assert login.told(HERS, stored=False) is True
    assert (login.works, login.account, refusal(login)) == (True, "hers", None)


def test_another_account_is_a_new_login_also_while_the_old_one_works() -> None:
    _, login = known()
    assert login.told(MINE, stored=True) is False
    assert login.told(HERS, stored=True) is True
    assert login.told(HERS, stored=False) is False


def test_nobody_is_logged_in_and_then_somebody() -> None:
    clock = Clock()
    login = LoginState(clock)
    login.advice = LoginAdvice("type this")
    assert login.told(NOBODY, stored=False) is False
    failure = refusal(login)
    assert failure is not None
    assert (failure.status, failure.code) == (401, LOGGED_OUT)
    assert "type this" in failure.message
    assert login.told(NOBODY, stored=False) is False
    assert login.told(MINE, stored=False) is True
    assert (login.works, refusal(login)) == (True, None)


def test_one_turn_a_minute_is_let_through_to_see() -> None:
    clock, login = known()
    login.ended(OUT, login.number)
    clock.now += PROBE - 1
    assert refusal(login) is not None
    clock.now += 1
    assert refusal(login) is None
    login.probed()
    assert refusal(login) is not None
    login.ended(OUT, login.number)
    clock.now += PROBE
    assert refusal(login) is None
    login.probed()
    login.ended(None, login.number)
    assert (login.works, login.failing, refusal(login)) == (True, False, None)


def test_a_probe_that_tells_nothing_leaves_it_as_it_was() -> None:
    clock, login = known()
    login.ended(OUT, login.number)
    clock.now += PROBE
    login.probed()
    login.ended(BROKEN, login.number)
    assert (login.works, refusal(login)) == (False, OUT)


def test_a_renewal_that_did_not_succeed_is_tried_again_soon() -> None:
    clock, login = known()
    login.ended(LATER, login.number)
    assert (login.works, login.failing, refusal(login)) == (True, True, LATER)
    clock.now += 30
    assert refusal(login) is None
    login.probed()
    assert refusal(login) == LATER
    login.ended(None, login.number)
    assert (login.failing, refusal(login)) == (False, None)


def test_nor_does_it_wait_when_the_login_is_stored_anew() -> None:
    _, login = known()
    login.ended(LATER, login.number)
    assert login.told(MINE, stored=False) is False
    assert refusal(login) == LATER
    assert login.told(MINE, stored=True) is True
    assert (login.failing, refusal(login)) == (False, None)


def test_a_login_that_worked_in_between_dies_like_any_other() -> None:
    """Somebody was logged out once; that is no sign of a new login the next time."""
    clock, login = known()
    login.told(NOBODY, stored=False)
    clock.now += PROBE
    login.probed()
    login.ended(None, login.number)
    assert login.works is True
    login.ended(OUT, login.number)
    assert login.told(MINE, stored=False) is False
    assert refusal(login) == OUT


@pytest.mark.parametrize("stored", [False, True])
def test_the_account_of_before_a_restart(stored: bool) -> None:
    login = LoginState(Clock())
    login.account = "mine"
    assert login.told(MINE, stored=stored) is False
    login = LoginState(Clock())
    login.account = "mine"
    assert login.told(HERS, stored=stored) is True


def test_a_word_about_the_login_of_before_does_not_count() -> None:
    _, login = known()
    old = login.number
    login.ended(OUT, old)
    assert login.told(MINE, stored=True)
    login.ended(OUT, old)
    assert refusal(login) is None
    login.ended(OUT, login.number)
    assert refusal(login) is OUT


def test_nobody_is_logged_in_from_the_beginning() -> None:
    clock = Clock()
    login = LoginState(clock)
    login.told(NOBODY, stored=False)
    assert (login.works, login.failing) == (False, True)
    clock.now += PROBE / 2
    login.told(NOBODY, stored=False)  # said again it is no news, and puts no probe off
    clock.now += PROBE / 2
    assert refusal(login) is None


def test_each_new_login_has_a_number_of_its_own() -> None:
    _, login = known()
    numbers = [login.number]
    for status in (HERS, MINE, HERS):
        assert login.told(status, stored=False) is True
        numbers.append(login.number)
    assert numbers == [0, 1, 2, 3]
