"""The common language of all rooms: what is asked (:class:`Request`), what comes back
(:data:`Event`), what goes wrong (:class:`Failure`).

It is the Messages API's own vocabulary, because that is what the CLI relays. Nothing here
does I/O or knows Twisted, HTTP, OpenAI or the CLI.
"""

from ._blocks import (
    Block,
    Document,
    Image,
    Message,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    block_to_wire,
    message_to_wire,
    normalise,
)
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
from ._ids import plain_id, upstream_id
from ._request import Effort, Request, Tool, ToolChoice

__all__ = [
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
    "SignatureDelta",
    "Started",
    "Text",
    "TextDelta",
    "Thinking",
    "ThinkingDelta",
    "Tool",
    "ToolChoice",
    "ToolResult",
    "ToolUse",
    "Usage",
    "block_to_wire",
    "message_to_wire",
    "normalise",
    "parse_arguments",
    "plain_id",
    "strict_json",
    "upstream_id",
]
