"""Whether a turn may use the plan now, and how it would be paid for.

All of this is learnt from turns. A turn that could only fail, or would cost money that nobody has
agreed to spend, is refused here and never sent upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from claudeproxy.cli.errors import EXPLAINED, billed, plan_limit
from claudeproxy.cli.models import ModelInfo
from claudeproxy.messages import Failure, FailureError, Kind, Tier

from .charges import Charges
from .login import LoginState
from .windows import Windows, bounds, is_paid

PROBE = 300.0
"""Seconds after which a turn is let through to see whether a closed window is open again."""

PROBE_RETRY = 5.0
"""Seconds after which a client should come back that was refused while another turn probes."""

DEFAULT_WAIT = 60.0
"""Seconds for which a window is closed that does not say when it resets."""

FULL = " full"
"""The gate for all turns while a window is nearly full. With its blank, it cannot be the digest of
a set-up."""

CLOSE = 0.95
"""Share of a window above which turns run one at a time if the next could be charged for."""


@frozen
class Policy:
    """``extra_usage``: turns may be paid as extra usage. ``reserve``: for each window, the share of
    it (0 to 1) that is kept for the owner's own use."""

    extra_usage: bool = False
    reserve: Mapping[str, float] = field(factory=dict)


@frozen
class Claim:
    """What the quota needs to know of a turn: its model, the digest of its set-up, the reserve it
    must leave, and its tier."""

    model: ModelInfo
    setup: str
    reserve: Mapping[str, float]
    tier: Tier = "default"


@define
class _Closed:
    until: float
    probe_at: float
    paid: bool
    """Whether it is closed because a turn was charged for: then a probe would be, too."""
    probing: bool = False


@define
class _Gate:
    """``holders``: running turns of which it is not yet known how they are paid for; ``waiting``:
    turns that wait to learn that."""

    holders: int = 0
    waiting: list[Deferred[None]] = field(factory=list)


class Quota:
    """All times are epoch seconds, as the CLI reports them."""

    log = Logger()

    def __init__(self, now: Callable[[], float], policy: Policy | None = None) -> None:
        self._now = now
        self.policy = policy or Policy()
        self.login = LoginState(now)
        self.windows = Windows()
        self.charges = Charges(now)
        self.applies = False
        """Whether turns use a plan at all, rather than another upstream."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when something has changed that :meth:`kept` returns."""
        self._closed: dict[str, _Closed] = {}
        self._undecided: dict[str, _Gate] = {}
        self._told = False
        """Whether it is known, since the start, how an answer was paid for."""

    def admit(self, claim: Claim) -> Permit | Deferred[None]:
        """Let a turn through. The permit must be given back with :meth:`Permit.ended`. While it is
        not known how another turn of its kind is paid for, returns what to wait for before calling
        this again.

        :raises FailureError: 401 or 503 for the login; 429 while a window is used up, entirely or
            up to the reserve; 402 for a set-up that would be charged for.
        """
        self.check(claim)
        gates = self._gates(claim)
        for gate in (claim.setup, *gates):
            if gate in self._undecided:
                turn: Deferred[None] = Deferred()
                self._undecided[gate].waiting.append(turn)
                return turn
        for gate in gates:
            self.shut(gate)
        self.login.probed()
        probes = [entry for name, entry in self._closed.items() if bounds(name, claim.model)]
        for entry in probes:
            entry.probing = True
        return Permit(self, claim, gates, probes)

    def check(self, claim: Claim) -> None:
        """:raises FailureError: as :meth:`admit` does."""
        self.login.check()
        now = self._now()
        for name, entry in list(self._closed.items()):
            if now >= entry.until:
                del self._closed[name]
            elif bounds(name, claim.model):
                self._check_closed(name, entry, now)
        for name, window in self.windows.bounding(claim.model, now):
            share = claim.reserve.get(name, 0.0) * (2 if claim.tier == "flex" else 1)
            if share and window.used >= 1 - share:
                raise FailureError(_kept_back(name, min(share, 1.0), window.resets - now))
            if window.is_full and self._guards():
                raise FailureError(_would_be_charged(name, window.resets - now))
        if self._guards() and self.charges.is_charged(claim.setup):
            raise FailureError(
                billed(
                    "Anthropic charges extra usage for requests with this system prompt and these "
                    f"tools although the plan has room ({self._room()}). It is not spent without "
                    f"--extra-usage. {EXPLAINED}"
                )
            )

    def _guards(self) -> bool:
        return self.applies and self.windows.extra_usage is True and not self.policy.extra_usage

    def _check_closed(self, name: str, entry: _Closed, now: float) -> None:
        told = {"rateLimitType": name, "resetsAt": entry.until}
        if now < entry.probe_at or (entry.paid and self._guards()):
            raise FailureError(plan_limit(told, now))
        if entry.probing:
            raise FailureError(plan_limit({**told, "resetsAt": now + PROBE_RETRY}, now))

    @property
    def may_be_charged(self) -> bool:
        """Whether a turn could be paid as extra usage that nobody has agreed to."""
        return (
            self.applies and not self.policy.extra_usage and self.windows.extra_usage is not False
        )

    def _gates(self, claim: Claim) -> tuple[str, ...]:
        """The gates that ``claim`` shuts behind itself until it is known how it is paid for, so
        that at most one turn of its kind is charged for unawares. None where nothing can be
        charged."""
        if not self.may_be_charged:
            return ()
        gates = () if self.charges.is_judged(claim.setup) else (claim.setup,)
        running = [window for _, window in self.windows.bounding(claim.model, self._now())]
        if not self._told or any(window.used >= CLOSE for window in running):
            return (*gates, FULL)
        return gates

    def _room(self) -> str:
        now = self._now()
        running = [(n, w) for n, w in self.windows.known.items() if now < w.resets]
        used = [f"{name.replace('_', ' ')}: {window.used:.0%} used" for name, window in running]
        return ", ".join(used) or "its windows are not known"

    def hear(self, info: Mapping[str, Any]) -> None:
        """The CLI reported the state of the plan's windows."""
        self.windows.hear(info)
        self.on_change()

    def billing_known(self, claim: Claim, info: Mapping[str, Any]) -> None:
        """A turn was answered; ``info``: the ``rate_limit_info`` that came with the answer."""
        self._told = True
        if not is_paid(info):
            self.charges.clear(claim.setup)
            return
        self.charges.paid += 1
        self.log.warn("a turn was paid as extra usage, not by the plan ({room})", room=self._room())
        self.on_change()
        if self.policy.extra_usage:
            return
        name = info.get("rateLimitType")
        rejected = info.get("status") == "rejected" and isinstance(name, str)
        if rejected and bounds(str(name), claim.model):
            resets = info.get("resetsAt")
            known = resets if isinstance(resets, (int, float)) else None
            self._close(str(name), known, paid=True)
        else:
            self.charges.charge(claim.setup)

    def close(self, failure: Failure) -> None:
        """A turn failed because a window is used up."""
        if failure.window is not None:
            after = failure.retry_after
            self._close(failure.window, None if after is None else self._now() + after, paid=False)

    def _close(self, name: str, resets: float | None, *, paid: bool) -> None:
        now = self._now()
        until = now + DEFAULT_WAIT if resets is None else float(resets)
        self._closed[name] = _Closed(until, now + PROBE, paid)

    def open(self, entries: list[_Closed]) -> None:
        """A probe was answered."""
        for name, entry in list(self._closed.items()):
            if any(entry is opened for opened in entries):
                del self._closed[name]

    def shut(self, gate: str) -> None:
        """Let no turn through ``gate`` until :meth:`decide` is called as often as this was."""
        self._undecided.setdefault(gate, _Gate()).holders += 1

    def decide(self, gate: str) -> None:
        """Let the turns go on that wait at ``gate``, if nobody else has shut it."""
        undecided = self._undecided[gate]
        undecided.holders -= 1
        if undecided.holders == 0:
            del self._undecided[gate]
            for turn in undecided.waiting:
                if not turn.called:
                    turn.callback(None)

    @property
    def undecided(self) -> bool:
        """Whether a turn could be charged for of which it is not yet known."""
        return bool(self._undecided)

    def changed_login(self, *, other_account: bool) -> None:
        """Somebody logged in: closed windows may be probed at once. What is known of another
        account is forgotten."""
        if other_account:
            self._closed.clear()
            self._told = False
            self.windows.forget()
            self.charges.forget()
        for entry in self._closed.values():
            entry.probe_at = 0.0
        self.on_change()

    def closed(self) -> dict[str, float]:
        """The windows that are closed, and when they reset."""
        now = self._now()
        return {name: entry.until for name, entry in self._closed.items() if now < entry.until}

    def kept(self) -> dict[str, Any]:
        """The state as JSON, for after a restart."""
        return {
            "account": self.login.account,
            "windows": self.windows.kept(),
            "charged": self.charges.kept(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Restore what :meth:`kept` returned, as far as it still holds.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        self.windows = Windows.restored(kept["windows"], self._now())
        self.charges.restore(kept["charged"])
        self.login.account = kept["account"]


class Permit:
    """The permit of a turn that was let through."""

    def __init__(
        self, quota: Quota, claim: Claim, gates: tuple[str, ...], probes: list[_Closed]
    ) -> None:
        self._quota = quota
        self._claim = claim
        self._gates = gates
        self._probes = probes
        self._login = quota.login.number
        self._over = False
        self.paid: bool | None = None
        """Whether the turn was paid as extra usage; ``None`` while that is not known."""
        self.settled: Deferred[bool | None] = Deferred()
        """Fires with :attr:`paid` once the turn is over and no more is to come."""

    @property
    def undecided(self) -> bool:
        """Whether others wait to learn how the turn is paid for, even if nobody wants its
        answer."""
        return bool(self._gates)

    def billing_known(self, info: Mapping[str, Any] | None) -> None:
        """How the answer was paid for (``rate_limit_info``); ``None`` if that will never be
        known."""
        if info is not None:
            self.paid = is_paid(info)
            self._quota.billing_known(self._claim, info)
        self._decide()
        if self._over:
            self._settle()

    def ended(self, failure: Failure | None, *, awaits_billing: bool = False) -> None:
        """It is over; ``failure`` if it brought no answer. ``awaits_billing``:
        :meth:`billing_known` is still to come."""
        quota = self._quota
        for entry in self._probes:
            entry.probing = False
        quota.login.ended(failure, self._login)
        if failure is None:
            quota.open(self._probes)
        elif failure.kind is Kind.PLAN_LIMIT:
            quota.close(failure)
        if not awaits_billing:
            self._decide()
            self._settle()
        elif not self._gates and quota.may_be_charged:
            # It will be known in a moment; until then, the client's next turn might be charged.
            self._gates = (self._claim.setup,)
            quota.shut(self._claim.setup)
        self._over = True

    def _settle(self) -> None:
        if not self.settled.called:
            self.settled.callback(self.paid)

    def _decide(self) -> None:
        gates, self._gates = self._gates, ()
        for gate in gates:
            self._quota.decide(gate)


def _kept_back(name: str, share: float, after: float) -> Failure:
    return Failure(
        Kind.PLAN_LIMIT,
        f"the last {share:.0%} of the {name.replace('_', ' ')} window is kept for the owner's own "
        "use (--reserve)",
        429,
        retry_after=max(1.0, after),
        code="rate_limit_exceeded",
    )


def _would_be_charged(name: str, after: float) -> Failure:
    return Failure(
        Kind.PLAN_LIMIT,
        f"the subscription's {name.replace('_', ' ')} window is used up, and this turn would be "
        f"charged as extra usage, which is not spent without --extra-usage. {EXPLAINED}",
        429,
        retry_after=max(1.0, after),
        code="rate_limit_exceeded",
    )
