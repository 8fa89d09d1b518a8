"""Reads a client's JSON field by field; an error names the field at fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from claudeproxy.messages import FailureError


class Fields:
    """A JSON object together with its path in the body (``messages[0].content[1]``)."""

    def __init__(self, value: Any, path: str = "") -> None:
        """:raises FailureError: when ``value`` is not an object."""
        if not isinstance(value, dict):
            where = path or "the body"
            raise FailureError.invalid(f"{where} must be an object", path or None)
        self._value: dict[str, Any] = value
        self.path = path

    @property
    def value(self) -> dict[str, Any]:
        """The object itself."""
        return self._value

    def at(self, name: str) -> str:
        """The path of the field ``name``."""
        return f"{self.path}.{name}" if self.path else name

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def raw(self, name: str) -> Any:
        """The field as it is; ``None`` when absent."""
        return self._value.get(name)

    def refuse(self, name: str, message: str, code: str | None = None) -> FailureError:
        """The error for the field ``name``."""
        return FailureError.invalid(f"{self.at(name)}: {message}", self.at(name), code)

    def text(self, name: str, default: str | None = None) -> str:
        """A string, which is required if there is no default."""
        value = self._value.get(name)
        if value is None:
            if default is None:
                raise self.refuse(name, "is required")
            return default
        if not isinstance(value, str):
            raise self.refuse(name, "must be a string")
        check_text(value, self.at(name))
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """One of the strings ``allowed``."""
        value = self.text(name, default)
        if value not in allowed:
            raise self.refuse(name, f"must be one of {', '.join(allowed)}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "must be true or false")
        return value

    def integer(self, name: str, least: int, most: int | None = None) -> int | None:
        """An integer within bounds, or ``None`` when absent."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(name, "must be an integer")
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"between {least} and {most}"
            raise self.refuse(name, f"must be {bounds}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds, or ``None`` when absent."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, "must be a number")
        if not least <= value <= most:
            raise self.refuse(name, f"must be between {least:g} and {most:g}")
        return float(value)

    def object(self, name: str) -> Fields:
        """A required object."""
        value = self._value.get(name)
        if value is None:
            raise self.refuse(name, "is required")
        return Fields(value, self.at(name))

    def objects(self, name: str) -> Iterator[Fields]:
        """The objects of a list; none when it is absent."""
        value = self._value.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.refuse(name, "must be a list")
        for index, entry in enumerate(value):
            yield Fields(entry, f"{self.at(name)}[{index}]")

    def strings(self, name: str) -> tuple[str, ...]:
        """A string or a list of strings."""
        value = self._value.get(name)
        if value is None:
            return ()
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            raise self.refuse(name, "must be a string or a list of strings")
        for entry in entries:
            check_text(entry, self.at(name))
        return tuple(entries)


def check_text(value: str, path: str) -> None:
    """:raises FailureError: for text that is not Unicode (half of a surrogate pair)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FailureError.invalid(f"{path}: holds half of a surrogate pair", path) from None
