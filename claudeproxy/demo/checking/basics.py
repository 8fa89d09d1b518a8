"""Small checks that raise `Refused` in the API's own words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


class Refused(Exception):
    """The API would refuse the request, with this message and HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def need(condition: object, message: str) -> None:
    """Refuse with the message unless the condition holds."""
    if not condition:
        raise Refused(message)


def fields(value: Any, path: str, required: Collection[str], optional: Collection[str]) -> None:
    """Refuse what is not an object, lacks a required field, or has one that is not listed."""
    need(isinstance(value, Mapping), f"{path or 'body'}: Input should be an object")
    prefix = f"{path}." if path else ""
    for name in required:
        need(name in value, f"{prefix}{name}: Field required")
    for name in value:
        allowed = name in required or name in optional
        need(allowed, f"{prefix}{name}: Extra inputs are not permitted")


def one_of(value: Any, path: str, allowed: Collection[str]) -> None:
    """Refuse a value that is not one of the allowed strings."""
    *head, last = (f"'{name}'" for name in allowed)
    wanted = f"{', '.join(head)} or {last}" if head else last
    need(isinstance(value, str) and value in allowed, f"{path}: Input should be {wanted}")


def string(value: Any, path: str) -> None:
    """Refuse what is not a string."""
    need(isinstance(value, str), f"{path}: Input should be a valid string")


def boolean(value: Any, path: str) -> None:
    """Refuse what is not a boolean."""
    need(isinstance(value, bool), f"{path}: Input should be a valid boolean")


def integer(value: Any, path: str, least: int) -> None:
    """Refuse what is not an integer of at least `least`."""
    valid = isinstance(value, int) and not isinstance(value, bool)
    need(valid, f"{path}: Input should be a valid integer")
    need(value >= least, f"{path}: Input should be greater than or equal to {least}")


def fraction(value: Any, path: str) -> None:
    """Refuse what is not a number from 0 to 1."""
    valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    need(valid, f"{path}: Input should be a valid number")
    need(value >= 0, f"{path}: Input should be greater than or equal to 0")
    need(value <= 1, f"{path}: Input should be less than or equal to 1")


def items(value: Any, path: str) -> list[Any]:
    """The value as a list; refuses anything else."""
    if not isinstance(value, list):
        raise Refused(f"{path}: Input should be a valid array")
    return value


def cache_control(value: Mapping[str, Any], path: str) -> None:
    """Refuse a `cache_control` of the wrong shape; absent and null are accepted."""
    control = value.get("cache_control")
    if control is not None:
        path = f"{path}.cache_control".lstrip(".")
        fields(control, path, ["type"], ["ttl"])
        one_of(control["type"], f"{path}.type", ["ephemeral"])
        if "ttl" in control:
            one_of(control["ttl"], f"{path}.ttl", ["5m", "1h"])
