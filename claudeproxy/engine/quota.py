"""Whether a turn may use the plan now, and how it would be paid for.

All of this is learnt from turns. A turn that could only fail, or would cost money that nobody has
agreed to spend, is refused here and never sent upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from claudeproxy.cli.errors import PAID_FOR, plan_limit
from claudeproxy.cli.login import LoginStatus
from claudeproxy.cli.models import ModelInfo
from claudeproxy.messages import Failure, FailureError, Tier

from .charges import Charges
from .closed import Closed, ClosedWindows
from .gates import FULL, Gates
from .leases import Leases
from .login import LoginState
from .permit import PROBE_RETRY, Permit
from .refusals import is_charged, kept_back, with_room, would_be_charged
from .windows import Windows, bounds, is_paid

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


class Quota:
    """All times are epoch seconds, as the CLI reports them.

    Several nodes can share what they learn of one account: each tells what it learns
    (:attr:`on_learnt`) and takes in what others tell (:meth:`apply`); leases see to it that one
    finds out what would cost each of them a turn (:meth:`share`).
    """

    log = Logger()

    def __init__(self, now: Callable[[], float], policy: Policy | None = None) -> None:
        self.now = now
        self.policy = policy or Policy()
        self.login = LoginState(now)
        self.windows = Windows()
        self.charges = Charges(now)
        self.applies = False
        """Whether turns use a plan at all, rather than another upstream."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when something has changed that :meth:`kept` returns."""
        self.on_learnt: Callable[[dict[str, Any]], None] = lambda event: None
        """Called with what was learnt here, for :meth:`apply` on other nodes: a JSON object with
        any of the parts of :meth:`kept` but the account, as far as they have changed; ``paid``, how
        many turns were paid as extra usage, once it is known how one was paid for; ``decided``, the
        gates that other nodes need wait for no longer."""
        self.on_account: Callable[[], None] = lambda: None
        """Called when it is another account than before, or is known for the first time."""
        self.leases: Leases | None = None
        self.gates = Gates()
        self._clock: IReactorTime | None = None
        self._closed = ClosedWindows(now)
        self._told = False
        """Whether it is known, since the start, how an answer was paid for."""

    def admit(self, claim: Claim) -> Permit | Deferred[None]:
        """Let a turn through. The permit must be given back with :meth:`Permit.ended`; with several
        nodes, it counts only once :meth:`Permit.lease` says so. While it is not known how another
        turn of its kind is paid for, returns what to wait for before calling this again.

        :raises FailureError: 401 or 503 for the login; 429 while a window is used up, entirely or
            up to the reserve; 402 for a set-up that would be charged for.
        """
        self.check(claim)
        gates = self._gates(claim)
        for gate in (claim.setup, *gates):
            if gate in self.gates:
                return self.gates.wait(gate)
        return Permit(self, claim, gates, self._closed.bounding(claim.model))

    def needs(self, claim: Claim) -> set[str]:
        """The gates and the closed windows that a turn must have for itself."""
        closed = self._closed.bounding(claim.model)
        return {*self._gates(claim), *(entry.name for entry in closed)}

    def check(self, claim: Claim, own: Collection[Closed] = ()) -> None:
        """``own``: the closed windows that this very turn probes.

        :raises FailureError: as :meth:`admit` does.
        """
        self.login.check()
        now = self.now()
        for entry in self._closed.bounding(claim.model):
            self._check_closed(entry, now, own)
        for name, window in self.windows.bounding(claim.model, now):
            reserve, flex = claim.reserve.get(name, 0.0), claim.tier == "flex"
            if reserve and window.used >= 1 - reserve * (2 if flex else 1):
                of_key = reserve != self.policy.reserve.get(name)
                after = window.resets - now
                raise FailureError(kept_back(name, reserve, after, of_key=of_key, flex=flex))
            if window.is_full and self._guards():
                raise FailureError(would_be_charged(name, window.resets - now))
        if self._guards() and self.charges.is_charged(claim.setup):
            raise FailureError(is_charged(self._room()))

    def _guards(self) -> bool:
        return self.applies and self.windows.extra_usage is True and not self.policy.extra_usage

    def _check_closed(self, entry: Closed, now: float, own: Collection[Closed]) -> None:
        if entry.paid and self.policy.extra_usage:
            return  # it was closed by a daemon that was not to pay
        if entry.paid and self._guards():
            raise FailureError(would_be_charged(entry.name, entry.until - now))
        told = {"rateLimitType": entry.name, "resetsAt": entry.until}
        if now < entry.probe_at:
            raise FailureError(plan_limit(told, now))
        if entry.probing and entry not in own:
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
        running = [window for _, window in self.windows.bounding(claim.model, self.now())]
        if not self._told or any(window.used >= CLOSE for window in running):
            return (*gates, FULL)
        return gates

    def told(self, failure: Failure) -> Failure:
        """``failure`` of a turn; if Anthropic wants to be paid for it, with the state of the plan's
        windows."""
        return with_room(failure, self._room()) if failure.code == PAID_FOR else failure

    def _room(self) -> str:
        now = self.now()
        running = [(n, w) for n, w in self.windows.known.items() if now < w.resets]
        used = [f"{name.replace('_', ' ')}: {window.used:.0%} used" for name, window in running]
        return ", ".join(used) or "its windows are not known"

    def hear(self, info: Mapping[str, Any]) -> None:
        """The CLI reported the state of the plan's windows."""
        before = self.windows.kept()
        self.windows.hear(info, self.now())
        after = self.windows.kept()
        if {**before, "told": 0.0} != {**after, "told": 0.0}:
            self._learnt({"windows": after})

    def billing_known(
        self, claim: Claim, info: Mapping[str, Any], *, other_account: bool = False
    ) -> None:
        """A turn was answered; ``info``: the ``rate_limit_info`` that came with the answer.
        ``other_account``: it began under the login of an account before the present one."""
        paid = is_paid(info)
        if paid:
            self.charges.paid += 1
            room = "an account of before" if other_account else self._room()
            self.log.warn("a turn was paid as extra usage, not by the plan ({room})", room=room)
        if other_account:
            return
        first, self._told = not self._told, True
        if paid:
            self._learnt({"paid": 1, **self._charged(claim, info)})
            return
        at = self.charges.clear(claim.setup)
        if first or at is not None:
            cleared = {} if at is None else {claim.setup: at}
            self._learnt({"paid": 0, "cleared": cleared})

    def _charged(self, claim: Claim, info: Mapping[str, Any]) -> dict[str, Any]:
        """What is learnt from a turn that was charged for."""
        if self.policy.extra_usage:
            return {}
        name = info.get("rateLimitType")
        rejected = info.get("status") == "rejected" and isinstance(name, str)
        if rejected and bounds(str(name), claim.model):
            resets = info.get("resetsAt")
            known = resets if isinstance(resets, (int, float)) else None
            self._closed.close(str(name), known, paid=True)
            return {"closed": self._closed.kept([str(name)])}
        return {"charged": {claim.setup: self.charges.charge(claim.setup)}}

    def close(self, failure: Failure) -> None:
        """A turn failed because a window is used up."""
        if failure.window is not None:
            after = failure.retry_after
            resets = None if after is None else self.now() + after
            self._closed.close(failure.window, resets, paid=False)
            self._learnt({"closed": self._closed.kept([failure.window])})

    def open(self, entries: Collection[Closed]) -> None:
        """A probe was answered."""
        opened = self._closed.open(entries)
        if opened:
            self._learnt({"closed": self._closed.kept(opened)})

    def _learnt(self, event: dict[str, Any]) -> None:
        self.on_change()
        self.on_learnt(event)

    def share(self, leases: Leases, clock: IReactorTime) -> None:
        """There are other nodes from now on. ``clock``: for when another one tells nothing."""
        self.leases, self._clock = leases, clock

    def leave(self, gate: str) -> None:
        """Another node has shut ``gate``, which was shut here to ask for it."""
        assert self._clock is not None
        self.gates.leave(gate, self._clock)

    def decided(self, gates: Collection[str]) -> None:
        """The leases of ``gates`` are given back: let those go on that wait, on all nodes."""
        self.on_learnt({"decided": list(gates)})
        for gate in gates:
            self.gates.decide(gate)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in what another node has learnt, or the state that nodes of this account have kept.
        It is not told again.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        if "windows" in event:
            self.windows = self.windows.joined(event["windows"], self.now())
        self._closed.apply(event.get("closed", {}))
        self.charges.restore(event.get("charged", {}), event.get("cleared", {}))
        if "paid" in event:
            self._told = True
            self.charges.paid_elsewhere += int(event["paid"])
        self.on_change()
        for gate in event.get("decided", ()):
            self.gates.decided_elsewhere(str(gate))

    @property
    def undecided(self) -> bool:
        """Whether a turn could be charged for of which it is not yet known."""
        return bool(self.gates)

    def login_is(self, status: LoginStatus, *, stored: bool) -> bool:
        """The CLI reported whose login it finds. Returns whether that is a new login; ``stored``:
        see :meth:`.login.LoginState.told`."""
        before = self.login.account
        new = self.login.told(status, stored=stored)
        if new or stored:  # a renewal looks like a login, and a probe costs nothing
            self.changed_login(other_account=before not in (None, self.login.account))
        if self.login.account != before:
            self.on_account()
        return new

    def changed_login(self, *, other_account: bool) -> None:
        """Somebody logged in: closed windows may be probed at once. What is known of another
        account is forgotten."""
        if other_account:
            self._closed.forget()
            self._told = False
            self.windows.forget()
            self.charges.forget()
        self._closed.probe_at_once()
        self.on_change()

    def closed(self) -> dict[str, float]:
        """The windows that are closed, and when they reset."""
        return self._closed.until()

    def kept(self) -> dict[str, Any]:
        """The state as JSON, for after a restart. :func:`.merging.merge` merges two."""
        return {
            "account": self.login.account,
            "windows": self.windows.kept(),
            "closed": self._closed.kept(),
            "charged": self.charges.kept(),
            "cleared": self.charges.cleared(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Restore what :meth:`kept` returned, as far as it still holds.

        :raises ValueError, TypeError, KeyError, AttributeError: when it has another shape.
        """
        self.windows = Windows.restored(kept["windows"], self.now())
        self._closed.apply(kept.get("closed", {}))
        self.charges.restore(kept["charged"], kept.get("cleared", {}))
        self.login.account = kept["account"]
