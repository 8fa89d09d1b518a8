"""Home Assistant with its Ollama integration: set up as a user does, two turns, and a lamp that a
tool switches on."""

import os
import sys
from pathlib import Path

import pytest

MODEL = "claude-sonnet-4:latest"


async def test_ollama(hass, socket_enabled) -> None:
    from homeassistant.components.conversation import async_converse
    from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
    from homeassistant.core import Context
    from homeassistant.setup import async_setup_component

    lamp = {"lamp": {"name": "Lamp"}}
    for name, config in {"homeassistant": {}, "conversation": {}, "input_boolean": lamp}.items():
        assert await async_setup_component(hass, name, {name: config})
    async_expose_entity(hass, "conversation", "input_boolean.lamp", True)

    flows = hass.config_entries.flow
    flow = await flows.async_init("ollama", context={"source": "user"})
    flow = await flows.async_configure(flow["flow_id"], {"url": os.environ["DAEMON"]})
    flow = await flows.async_configure(flow["flow_id"], {"model": MODEL})
    assert flow["type"] == "create_entry", flow
    hass.config_entries.async_update_entry(flow["result"], options={"llm_hass_api": "assist"})
    await hass.async_block_till_done()

    talk = None

    async def ask(text: str) -> str:
        nonlocal talk
        agent = "conversation.claude_sonnet_4"
        answer = await async_converse(hass, text, talk, Context(), agent_id=agent)
        talk = answer.conversation_id
        return answer.response.speech["plain"]["speech"]

    assert await ask("Hello") == "You said: Hello"
    assert await ask("Again") == "You said: Again"
    assert hass.states.get("input_boolean.lamp").state == "off"
    assert (await ask('[[call HassTurnOn {"name": "Lamp"}]]')).startswith("The tool said: ")
    assert hass.states.get("input_boolean.lamp").state == "on"


if __name__ == "__main__":
    os.environ["DAEMON"] = sys.argv[1]
    os.chdir(Path(__file__).parent)
    here = [
        "-q",
        "-o",
        "asyncio_mode=auto",
        "--rootdir=.",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
    ]
    sys.exit(pytest.main([*here, __file__]))
