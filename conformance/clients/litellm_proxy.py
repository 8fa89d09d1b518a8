"""LiteLLM's proxy in front of the daemon, by chat and by Messages: two turns, stream, a tool."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from openai import OpenAI, OpenAIError

URL = sys.argv[1]
CONFIG = f"""
model_list:
  - model_name: chat
    litellm_params:
      model: openai/claude-sonnet-4
      api_base: {URL}/v1
      api_key: none
  - model_name: messages
    litellm_params:
      model: anthropic/claude-sonnet-4
      api_base: {URL}
      api_key: none
"""
OWN = {"LITELLM_MASTER_KEY": f"sk-{secrets.token_hex()}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}


def check(client: OpenAI, model: str) -> None:
    create = client.chat.completions.create
    said = [{"role": "user", "content": "Hello"}]
    first = create(model=model, messages=said).choices[0].message
    assert first.content == "You said: Hello", first
    said += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "Again"}]
    chunks = create(model=model, messages=said, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: Again", text
    said += [{"role": "user", "content": '[[call add {"a": 2, "b": 3}]]'}]
    answer = create(model=model, messages=said, tools=[ADD]).choices[0].message
    (call,) = answer.tool_calls
    assert call.function.name == "add", answer
    said += [answer.model_dump(exclude_none=True)]
    said += [{"role": "tool", "tool_call_id": call.id, "content": "5"}]
    last = create(model=model, messages=said, tools=[ADD]).choices[0].message
    assert last.content == "The tool said: 5", last


with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
with tempfile.TemporaryDirectory() as directory:
    config = Path(directory, "config.yaml")
    config.write_text(CONFIG)
    litellm = Path(sys.executable).with_name("litellm")
    command = [litellm, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    proxy = subprocess.Popen(command, env={**os.environ, **OWN})
    try:
        client = OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key=OWN["LITELLM_MASTER_KEY"], max_retries=0
        )
        for _ in range(120):
            try:
                names = {model.id for model in client.models.list()}
                break
            except OpenAIError:
                assert proxy.poll() is None, "it ends at once"
                time.sleep(1)
        assert names == {"chat", "messages"}, names
        for name in sorted(names):
            check(client, name)
    finally:
        proxy.terminate()
        proxy.wait()
