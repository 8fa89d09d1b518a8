"""What an answer is made of: a sequence of `Step`s, played by `app`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""HTTP status to the API's error type (platform.claude.com/docs/en/api/errors)."""


@frozen
class ApiError:
    """An error of the Messages API.

    As a step before any event it is the HTTP response; after one it is an SSE `error` event.
    """

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def type(self) -> str:
        """The API's name for the status; an unlisted 4xx is an invalid request."""
        unlisted = "invalid_request_error" if self.status < 500 else "api_error"
        return ERROR_TYPES.get(self.status, unlisted)

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body, which is also the data of the SSE event."""
        error = {"type": self.type, "message": self.message}
        return {"type": "error", "error": error, "request_id": request_id}


@frozen
class Wait:
    """Send nothing for some seconds; as the first step, not even the response headers."""

    seconds: float


@frozen
class Header:
    """A response header; only before the first event."""

    name: str
    value: str


@frozen
class Drop:
    """Close the connection without ending the response."""


@frozen
class Hang:
    """Send nothing further, and keep the connection until the client closes it."""


Event = dict[str, Any]
"""One SSE event of the Messages API, as the JSON object that is its data."""

Step = Event | Wait | Header | ApiError | Drop | Hang
"""What is played in order; see each class."""
