"""oterm, by its own screens: its list of models, two turns, a tool that it runs."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

MODEL = "claude-sonnet-4:latest"


async def check() -> None:
    from oterm.app.chat_edit import ChatEdit
    from oterm.app.oterm import OTerm
    from oterm.app.widgets.chat import ChatContainer
    from oterm.app.widgets.model_select import ModelSelect
    from oterm.config import appConfig
    from textual.css.query import NoMatches
    from textual.widgets import Checkbox

    appConfig.set("splash-screen", False)
    app = OTerm()
    async with app.run_test(size=(140, 60)) as pilot:

        async def until(found: Callable[[], Any]) -> Any:
            for _ in range(300):
                await pilot.pause(0.1)
                try:
                    if got := found():
                        return got
                except NoMatches:
                    pass
            raise AssertionError(f"{app.screen}: {[str(n) for n in app._notifications]}")

        await pilot.press("ctrl+n")
        edit = await until(lambda: isinstance(app.screen, ChatEdit) and app.screen)
        await until(lambda: MODEL in edit.models)
        edit.query_one(ModelSelect).post_message(ModelSelect.Submitted(MODEL))
        await until(lambda: not edit.query_one("#save-btn").disabled)
        assert {"tools", "vision", "thinking"} <= set(edit.model_info.capabilities)
        edit.query_one(ModelSelect).set_value(MODEL)
        edit.query_one("#builtin-date_time", Checkbox).value = True
        await pilot.pause()
        await pilot.click("#save-btn")
        chat = await until(lambda: app.screen.query_one(ChatContainer))
        await until(lambda: chat.agent)

        async def ask(text: str) -> str:
            before = len(chat.messages)
            prompt = app.screen.query_one("#promptArea")
            prompt.text = text
            prompt.action_submit()
            await until(lambda: len(chat.messages) == before + 2)
            return chat.messages[-1].text

        assert await ask("Hello") == "You said: Hello"
        assert await ask("Again") == "You said: Again"
        said = await ask("[[call date_time {}]]")
        assert said.startswith("The tool said: 20"), said


with tempfile.TemporaryDirectory() as directory:
    os.environ.update(OLLAMA_URL=sys.argv[1], OTERM_DATA_DIR=directory)
    asyncio.run(check())
