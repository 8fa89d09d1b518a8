"""Claude for Twisted programs: :func:`in_process` asks through a daemon that runs within the
program, without HTTP and without a socket, :func:`over_http` through one that runs anywhere, and
:class:`FakeClaude` answers in tests. All three are a :class:`Claude`.
"""

from claudeproxy.messages import (
    Document,
    Failure,
    Image,
    Kind,
    Message,
    SearchResult,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Usage,
)

from .answer import Answer, ClaudeError, Piece
from .claude import Claude
from .conversation import Conversation
from .fake import FakeClaude
from .in_process import in_process
from .over_http import over_http

__all__ = [
    "Answer",
    "Claude",
    "ClaudeError",
    "Conversation",
    "Document",
    "Failure",
    "FakeClaude",
    "Image",
    "Kind",
    "Message",
    "Piece",
    "SearchResult",
    "Text",
    "Thinking",
    "Tool",
    "ToolResult",
    "ToolUse",
    "Usage",
    "in_process",
    "over_http",
]
