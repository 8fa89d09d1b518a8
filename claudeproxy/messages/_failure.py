"""A failure is a value, made where it is understood and rendered by each dialect."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Kind(Enum):
    """What went wrong, whatever a dialect calls it."""

    INVALID = "invalid"
    CONTEXT_LENGTH = "context_length"
    AUTHENTICATION = "authentication"
    BILLING = "billing"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    TOO_LARGE = "too_large"
    RATE_LIMIT = "rate_limit"
    PLAN_LIMIT = "plan_limit"
    OVERLOADED = "overloaded"
    UPSTREAM = "upstream"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"


@frozen
class Failure:
    """Why there is no answer, or no more of it.

    ``status``: the HTTP status, if the headers have not been sent yet. ``retry_after``: seconds.
    ``param``: the path of the field at fault (``messages[0].role``). ``code``: a word of the
    client's dialect where the kind alone is not enough. ``window``: the plan's window that is
    used up. ``cause``: what the log says instead of a message that quotes a client, the model or
    the upstream; ``None`` if it quotes nobody. ``spent``: tokens were spent on it, so that a retry
    would spend them twice.
    """

    kind: Kind
    message: str
    status: int
    retry_after: float | None = None
    param: str | None = None
    code: str | None = None
    window: str | None = None
    cause: str | None = None
    spent: bool = False


class FailureError(Exception):
    """Carries a :class:`Failure` to where it is rendered."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def invalid(
        cls, message: str, param: str | None = None, code: str | None = None
    ) -> FailureError:
        """A 400 that names the field at fault."""
        return cls(Failure(Kind.INVALID, message, 400, param=param, code=code))
