"""Responses: ``/responses/compact``: a turn like any other, in which the model summarises.

Shapes: openai-python's ``CompactedResponse`` and ``ResponseCompactionItem``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from claudeproxy.messages import Assembly, Failure, Finished, Request

from . import responses
from .fields import Fields
from .responses_answer import usage_object
from .responses_input import Item, Past
from .responses_items import listed
from .shapes import Stream
from .summaries import sealed

ORDER = (
    "Summarise this conversation for yourself: the summary takes the place of all that was said "
    "by you, of the tools you called and of what they told, while the user's messages stay. Keep "
    "what is needed to go on: what was asked for and decided, facts, names, numbers and code as "
    "they are, what is done and what is left. Write the summary only."
)
"""What the model is asked for after the last message."""


@frozen
class Compaction:
    """A body of ``/responses/compact``, read: a :class:`~.shapes.ParsedBody`.

    ``kept``: the user's messages, which stay.
    """

    asked: responses.Responses
    kept: tuple[Item, ...]

    @property
    def requests(self) -> tuple[Request, ...]:
        """The one request: for a summary."""
        return self.asked.requests

    @property
    def ignored(self) -> tuple[str, ...]:
        """Fields of the body without effect."""
        return self.asked.ignored

    def stream(self) -> Stream:
        """There is none: :func:`read` asks for none."""
        raise NotImplementedError

    def complete(self, answers: Sequence[tuple[Assembly, Finished]]) -> dict[str, Any]:
        """The user's messages, and one item for all else."""
        (assembly, end), envelope = answers[0], self.asked.envelope
        item = {
            "id": f"cmp_{envelope.ident}",
            "type": "compaction",
            "encrypted_content": sealed(assembly.text()),
        }
        return {
            "id": f"resp_{envelope.ident}",
            "object": "response.compaction",
            "created_at": envelope.created,
            "output": [*listed(f"resp_{envelope.ident}", self.kept), item],
            "usage": usage_object(end.usage),
        }

    def refusal(self, failure: Failure) -> tuple[int, dict[str, Any]]:
        """Status and body of a failure."""
        return responses.refusal(failure)


def read(value: Any, ident: str, now: int, past: Past | None) -> Compaction:
    """Read a body; the arguments are those of :func:`.responses.read`.

    :raises FailureError: 400 with the path of the field at fault.
    """
    body = Fields(value)
    given = body.raw("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    if not isinstance(items, list):
        raise body.refuse("input", "must be a string or a list of items")
    history = list(past.history or ()) if past is not None else []
    if not items and not history and "previous_response_id" not in body:
        raise body.refuse("input", "is required: there is nothing to compact")
    asked = {name: body.raw(name) for name in _FIELDS}
    order = {"type": "message", "role": "user", "content": ORDER}
    parsed = responses.read({**asked, "input": [*items, order], "store": False}, ident, now, past)
    kept = [item for item in (*history, *parsed.items[:-1]) if item.get("role") == "user"]
    return Compaction(parsed, tuple(kept))


_FIELDS = ("model", "instructions", "previous_response_id", "service_tier")
"""The fields of a body, besides its input, that make a difference."""
