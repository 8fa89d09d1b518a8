"""The permit of a turn that was let through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from claudeproxy.cli.errors import plan_limit
from claudeproxy.messages import Failure, FailureError, Kind

from .closed import Closed
from .leases import LeasesLost, take
from .windows import is_paid

if TYPE_CHECKING:
    from .quota import Claim, Quota

PROBE_RETRY = 5.0
"""Seconds after which a client should come back that was refused while another turn probes."""


class Permit:
    """It must be given back with :meth:`ended`."""

    def __init__(
        self, quota: Quota, claim: Claim, gates: Sequence[str], probes: Sequence[Closed]
    ) -> None:
        self._quota = quota
        self._claim = claim
        self._gates = tuple(gates)
        self._probes = probes
        self._account = quota.login.account
        shared = self._account is not None and (gates or probes)
        self._leases = quota.leases if shared else None
        self._leased: set[str] = set()
        self._login = quota.login.number
        self._over = False
        self.paid: bool | None = None
        """Whether the turn was paid as extra usage; ``None`` while that is not known."""
        self.settled: Deferred[bool | None] = Deferred()
        """Fires with :attr:`paid` once the turn is over and no more is to come."""
        for gate in gates:
            quota.gates.shut(gate)
        for entry in probes:
            entry.probing = True
        if self._leases is None:
            quota.login.probed()

    @property
    def undecided(self) -> bool:
        """Whether others wait to learn how the turn is paid for, even if nobody wants its
        answer."""
        return bool(self._gates)

    async def lease(self) -> Deferred[None] | None:
        """See to it, before the turn begins, that no other node lets through what this permit keeps
        back here. ``None`` if it may begin; otherwise the permit is void, and this is what to wait
        for before asking for another.

        While the leases cannot be asked, no window is probed, and this node judges alone how turns
        are paid for: at most one a node is charged for unawares. Nor is anything shared before the
        CLI has reported which account it uses, for the first time on this machine.

        :raises FailureError: 429 while a window is used up that cannot be probed, or was found to
            be meanwhile; 402 if the set-up was found to be charged for.
        """
        if self._leases is None:
            return None
        probes = {self._name("probe", entry.name): entry for entry in self._probes}
        gates = {self._name("gate", gate): gate for gate in self._gates}
        names = probes.keys() | gates.keys()
        try:
            missing = await take(self._leases, names)
            if not missing:
                self._leased = set(names)
                self._quota.check(self._claim, own=self._probes)
        except LeasesLost:
            missing = set()
            if self._probes:
                self._withdraw()
                entry = self._probes[0]
                raise FailureError(self._closed(entry, entry.until)) from None
        except (CancelledError, FailureError):
            self._withdraw()
            raise
        probed = missing & probes.keys()
        if probed:
            self._withdraw()
            entry = probes[min(probed)]
            raise FailureError(self._closed(entry, self._quota.now() + PROBE_RETRY))
        if missing:
            return self._left({gates[name] for name in missing})
        if self._quota.needs(self._claim) - self._held():
            self._withdraw()  # more is known now, and other leases are needed
            return succeed(None)
        self._quota.login.probed()
        return None

    def _left(self, elsewhere: set[str]) -> Deferred[None]:
        """Leave the gates ``elsewhere`` to the node that has them, and wait for one of them."""
        self._gates = tuple(gate for gate in self._gates if gate not in elsewhere)
        for gate in elsewhere:
            self._quota.leave(gate)
        turn = self._quota.gates.wait(min(elsewhere))
        self._withdraw()
        return turn

    def _withdraw(self) -> None:
        """The turn does not begin."""
        self._end_probes()
        self._decide()

    def _held(self) -> set[str]:
        return {*self._gates, *(entry.name for entry in self._probes)}

    def _name(self, kind: str, of: str) -> str:
        return f"{self._account} {kind} {of}"

    def _closed(self, entry: Closed, until: float) -> Failure:
        return plan_limit({"rateLimitType": entry.name, "resetsAt": until}, self._quota.now())

    def billing_known(self, info: Mapping[str, Any] | None) -> None:
        """How the answer was paid for (``rate_limit_info``); ``None`` if that will never be
        known."""
        if info is not None:
            self.paid = is_paid(info)
            self._quota.billing_known(self._claim, info, other_account=self._of_another)
        self._decide()
        if self._over:
            self._settle()

    def ended(self, failure: Failure | None, *, awaits_billing: bool = False) -> None:
        """It is over; ``failure`` if it brought no answer. ``awaits_billing``:
        :meth:`billing_known` is still to come."""
        quota = self._quota
        quota.login.ended(failure, self._login)
        if self._of_another:
            pass  # it tells nothing of the present account's windows
        elif failure is None:
            quota.open(self._probes)
        elif failure.kind is Kind.PLAN_LIMIT:
            quota.close(failure)
        self._end_probes()
        if not awaits_billing:
            self._decide()
            self._settle()
        elif not self._gates and quota.may_be_charged:
            # It will be known in a moment; until then, the client's next turn might be charged.
            self._gates = (self._claim.setup,)
            quota.gates.shut(self._claim.setup)
        self._over = True

    @property
    def _of_another(self) -> bool:
        """Whether the turn began under the login of another account than the present one."""
        return self._account not in (None, self._quota.login.account)

    def _settle(self) -> None:
        if not self.settled.called:
            self.settled.callback(self.paid)

    def _end_probes(self) -> None:
        for entry in self._probes:
            entry.probing = False
        self._release({self._name("probe", entry.name) for entry in self._probes})

    def _decide(self) -> None:
        gates, self._gates = self._gates, ()
        released = self._release({self._name("gate", gate) for gate in gates})
        if released is None:
            for gate in gates:
                self._quota.gates.decide(gate)
        else:  # only now: those who wait here could not have the leases before
            released.addBoth(lambda _: self._quota.decided(gates))

    def _release(self, names: set[str]) -> Deferred[None] | None:
        """Give back what was leased of ``names``; ``None`` if nothing was."""
        leased = names & self._leased
        self._leased -= leased
        return self._leases.release(leased) if self._leases is not None and leased else None
