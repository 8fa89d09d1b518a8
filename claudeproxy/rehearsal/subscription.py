"""Anthropic's hosts, as far as the CLI asks them: messages, the token endpoint, the profile."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure as Reason
from twisted.web.resource import Resource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from claudeproxy.demo.app import DemoUpstream
from claudeproxy.demo.play import respond, respond_error
from claudeproxy.demo.steps import ApiError

from .account import Account

PERSON = "00000000-0000-4000-8000-000000000001"
ORGANIZATION = {"uuid": "00000000-0000-4000-8000-000000000002", "name": "made up"}


@frozen
class Asked:
    """A request for anything but messages."""

    host: str
    method: str
    path: str
    body: Mapping[str, Any]


class Subscription:
    """``messages`` is the Messages API with its rules, orders and scripts, open to the account's
    login alone; ``asked``: every other request; ``renewals``: how many token requests have come.
    """

    _app = Klein()

    def __init__(self, reactor: IReactorTime, **demo: Any) -> None:
        """``demo``: as :class:`~claudeproxy.demo.app.DemoUpstream` takes it."""
        self._reactor = reactor
        self.account = Account(time.time)
        self.messages = DemoUpstream(reactor, admit=self.account.judge, **demo)
        self.asked: list[Asked] = []
        self.renewing = 0
        """Token requests that have not been answered yet."""

    @property
    def renewals(self) -> int:
        """Token requests so far."""
        return sum(asked.path == "/v1/oauth/token" for asked in self.asked)

    def resource(self) -> Resource:
        """The resource for the root of a site that serves all of the hosts."""
        return _Hosts(self.messages.resource(), self._app.resource())

    @_app.route("/v1/oauth/token", methods=["POST"])
    async def _token(self, request: Request) -> None:
        asked = self._remember(request)
        failure = self.account.renewal_failure
        # Used up as it comes, whether the CLI lives to read the reply or not.
        login = None if failure else self.account.renew(asked.body.get("refresh_token"))
        self.renewing += 1
        try:
            await deferLater(self._reactor, self.account.renewal_seconds)
        finally:
            self.renewing -= 1
        if failure:
            respond(request, failure, {"error": "server_error"})
            return
        if login is None:
            why = "Refresh token not found or invalid"
            respond(request, 400, {"error": "invalid_grant", "error_description": why})
            return
        respond(
            request,
            200,
            {
                "token_type": "Bearer",
                "access_token": login.access,
                "refresh_token": login.refresh,
                "expires_in": round(login.until - time.time()),
                "scope": asked.body.get("scope", ""),
                "account": self._person(),
                "organization": ORGANIZATION,
            },
        )

    @_app.route("/api/oauth/profile", methods=["GET"])
    def _profile(self, request: Request) -> None:
        self._remember(request)
        refusal = self.account.bearer(_headers(request))
        if refusal is not None:
            respond_error(request, refusal)
        else:
            respond(request, 200, {"account": self._person(), "organization": ORGANIZATION})

    def _person(self) -> dict[str, str]:
        email = self.account.email
        return {"uuid": PERSON, "email": email, "email_address": email}

    @_app.handle_errors(HTTPException)
    def _nothing_else(self, request: Any, failure: Reason) -> None:
        self._remember(request)
        respond_error(request, ApiError(404, "Not found"))

    def _remember(self, request: Request) -> Asked:
        assert request.content is not None
        try:
            body = json.loads(request.content.read() or b"{}")
        except ValueError:
            body = {}
        host = request.requestHeaders.getRawHeaders("host", [""])[0]
        asked = Asked(host, request.method.decode(), request.path.decode(), body)
        self.asked.append(asked)
        return asked


class _Hosts(Resource):
    isLeaf = True

    def __init__(self, messages: Resource, others: Resource) -> None:
        super().__init__()
        self._messages = messages
        self._others = others

    def render(self, request: Request) -> Any:
        messages = request.path in (b"/", b"/v1/messages", b"/v1/messages/count_tokens")
        return (self._messages if messages else self._others).render(request)


def _headers(request: Request) -> dict[str, str]:
    raw = request.requestHeaders.getAllRawHeaders()
    return {name.decode("latin-1").lower(): v[0].decode("latin-1") for name, v in raw}
