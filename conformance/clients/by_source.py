"""Requests as goose, Roo Code and Zed make them, by their source: no registry has any of them."""

import json
import sys
import urllib.request

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
PARAMETERS = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
ADD = {"name": "add", "description": "Add", "parameters": PARAMETERS}
CACHED = {"cache_control": {"type": "ephemeral"}}
ORDER = '[[think Hm]][[call add {"a": 2}]]'
BOTH = {"model": "claude-sonnet-4", "stream": True, "stream_options": {"include_usage": True}}


def goose(order: str, called: bool) -> dict:
    """A call without text has ``content: null``, thoughts go back, results are one string."""
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": order}]
    if called:
        reasoned = {"content": None, "tool_calls": [CALL], "reasoning_content": "Hm"}
        said.append({"role": "assistant", **reasoned})
        said.append({"role": "tool", "content": "5", "tool_call_id": "call_1"})
    tools = [{"type": "function", "function": ADD}]
    return {**BOTH, "messages": said, "tools": tools, "temperature": 0.5, "max_tokens": 4096}


def roo(order: str, called: bool) -> dict:
    """Marked for a cache, strict tools, one call at a time."""
    said = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", **CACHED}]},
        {"role": "user", "content": [{"type": "text", "text": order, **CACHED}]},
    ]
    if called:
        said.append({"role": "assistant", "content": "", "tool_calls": [CALL]})
        said.append({"role": "tool", "tool_call_id": "call_1", "content": "5"})
    tools = [{"type": "function", "function": {**ADD, "strict": True}}]
    asked = {"tools": tools, "tool_choice": "auto", "parallel_tool_calls": False}
    return {**BOTH, "messages": said, "temperature": 0, **asked}


def zed(order: str, called: bool) -> dict:
    """A key for the cache, thoughts go back."""
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": order}]
    if called:
        reasoned = {"content": None, "tool_calls": [CALL], "reasoning_content": "Hm"}
        said.append({"role": "assistant", **reasoned})
        said.append({"role": "tool", "content": "5", "tool_call_id": "call_1"})
    limits = {"max_completion_tokens": 32000, "temperature": 1.0, "prompt_cache_key": "a"}
    tools = [{"type": "function", "function": ADD}]
    return {**BOTH, "messages": said, "tools": tools, "tool_choice": "auto", **limits}


def ask(body: dict) -> tuple[str, list[str], str]:
    """Text, names of called tools and reason of the end, all of them as these clients read them."""
    headers = {"content-type": "application/json", "authorization": "Bearer none"}
    url = f"{sys.argv[1]}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    text, names, end, used = "", [], "", None
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            data = line.decode().removeprefix("data: ").strip()
            if not data.startswith("{"):
                continue
            chunk = json.loads(data)
            used = chunk.get("usage") or used
            for choice in chunk["choices"]:
                text += choice["delta"].get("content") or ""
                calls = choice["delta"].get("tool_calls") or []
                names += [call["function"]["name"] for call in calls if call.get("id")]
                end = choice["finish_reason"] or end
    assert used["prompt_tokens"] + used["completion_tokens"] == used["total_tokens"] > 0, used
    return text, names, end


for client in (goose, roo, zed):
    assert ask(client("Hello", called=False)) == ("You said: Hello", [], "stop")
    assert ask(client(ORDER, called=False))[1:] == (["add"], "tool_calls")
    assert ask(client(ORDER, called=True)) == ("The tool said: 5", [], "stop")
