"""What becomes of the fields of a body: each dialect has a table, and ``docs/fields.rst`` is made
from these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from .fields import Fields


class Effect(Enum):
    """What a field does."""

    HONOURED = "honoured"
    ECHOED = "echoed"
    IGNORED = "ignored"
    """No effect; the field is named in ``x-claudemax-ignored``."""
    SILENT = "accepted silently"
    """No effect, and not named: no answer could depend on it."""
    REFUSED = "refused"


HONOURED, ECHOED, IGNORED = Effect.HONOURED, Effect.ECHOED, Effect.IGNORED
SILENT, REFUSED = Effect.SILENT, Effect.REFUSED


@frozen
class Policy:
    """``effect``: what the field does; ``note``: what a user has to know beyond that."""

    effect: Effect
    note: str = ""


Policies = Mapping[str, Policy]
"""By the name of the field. Fields that are not in the table are accepted silently."""


def ignored_fields(body: Fields, policies: Policies) -> list[str]:
    """The fields of ``body`` that are ignored."""
    return [
        name
        for name, policy in policies.items()
        if policy.effect is IGNORED and body.raw(name) not in (None, False)
    ]


LIMIT = Policy(
    HONOURED,
    "0 is ignored and named; the model's own limit holds above that, and `max_tokens` is named",
)
"""Of a limit of tokens."""

TEMPERATURE = Policy(
    HONOURED, "up to 1, where thinking can be switched off; otherwise ignored and named"
)
"""Of OpenAI's ``temperature``."""

TOP_P = Policy(HONOURED, "as temperature is; together with a temperature it is ignored and named")

TIER = Policy(
    HONOURED, "flex waits for all others and leaves twice the reserve, priority goes first"
)
"""Of OpenAI's ``service_tier``."""

TOOLS = "functions (`strict` is ignored and named) and custom tools (a grammar is described to the \
model in words, and `format` is named)"
"""Of OpenAI's ``tools``."""

TOOL_CHOICE = Policy(HONOURED, "none, auto, required, a function, a custom tool, allowed_tools")
"""Of OpenAI's ``tool_choice``."""

VALIDATED = (
    "the daemon validates the answer, but for regular expressions and `format`. An answer that is "
    "not streamed and fails is asked for once more, unless `--no-repair` is given; what fails then "
    "is a 502 that must not be retried"
)
"""Of an answer that has to satisfy a schema."""

SCHEMAS = (
    "a schema that cannot be sent is refused, and its path named; text that arrives normalised is "
    "named as `tools.text`, integers beyond 2^53 as `tools.integers`"
)
"""Of the schemas of tools."""
