"""The common language of all packages: what a client asks for (:class:`Request`), what it gets
(:data:`Event`), and what goes wrong (:class:`Failure`).

This is the vocabulary of the Messages API, which the CLI relays. Nothing here does I/O or knows of
Twisted, HTTP, OpenAI or the CLI.
"""

from ._blocks import (
    Block,
    Document,
    Image,
    Message,
    SearchResult,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    block_to_wire,
    message_to_wire,
    normalise,
)
from ._efforts import BUDGETS, EFFORTS, MIN_BUDGET, Effort
from ._events import (
    ArgumentsDelta,
    Assembly,
    BlockStarted,
    BlockStopped,
    Event,
    Finished,
    SignatureDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
    parse_arguments,
    strict_json,
)
from ._failure import Failure, FailureError, Kind
from ._ids import normalise_tool_id, upstream_id
from ._json import MAX_VALUES, too_many, values
from ._request import Request, Tier, Tool, ToolChoice
from ._schemas import (
    COMBINERS,
    NAMED,
    lenient_schema,
    mapped,
    property_fits,
    subschemas,
    tool_schema,
)

__all__ = [
    "BUDGETS",
    "COMBINERS",
    "EFFORTS",
    "MAX_VALUES",
    "MIN_BUDGET",
    "NAMED",
    "ArgumentsDelta",
    "Assembly",
    "Block",
    "BlockStarted",
    "BlockStopped",
    "Document",
    "Effort",
    "Event",
    "Failure",
    "FailureError",
    "Finished",
    "Image",
    "Kind",
    "Message",
    "Request",
    "SearchResult",
    "SignatureDelta",
    "Started",
    "Text",
    "TextDelta",
    "Thinking",
    "ThinkingDelta",
    "Tier",
    "Tool",
    "ToolChoice",
    "ToolResult",
    "ToolUse",
    "Usage",
    "block_to_wire",
    "lenient_schema",
    "mapped",
    "message_to_wire",
    "normalise",
    "normalise_tool_id",
    "parse_arguments",
    "property_fits",
    "strict_json",
    "subschemas",
    "too_many",
    "tool_schema",
    "upstream_id",
    "values",
]
