"""A failure is a value, made where it is understood and rendered once per dialect."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Kind(Enum):
    """What went wrong, apart from how any dialect words it."""

    INVALID = "invalid"
    CONTEXT_LENGTH = "context_length"
    AUTHENTICATION = "authentication"
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

    ``status``: the HTTP status it has before the headers are out. ``retry_after``: seconds.
    ``param``: the path of the field at fault (``messages[0].role``). ``code``: a word of the
    client's dialect where the kind alone does not say it.
    """

    kind: Kind
    message: str
    status: int
    retry_after: float | None = None
    param: str | None = None
    code: str | None = None


class FailureError(Exception):
    """Carries a :class:`Failure` up to the one place that renders it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def invalid(
        cls, message: str, param: str | None = None, code: str | None = None
    ) -> FailureError:
        """A 400 that names the field at fault."""
        return cls(Failure(Kind.INVALID, message, 400, param=param, code=code))
