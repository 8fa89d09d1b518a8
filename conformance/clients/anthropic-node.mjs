// @anthropic-ai/sdk: two turns, stream, a tool loop.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none" });
const asked = { model: "sonnet", max_tokens: 1000 };
const messages = [{ role: "user", content: "Hello" }];
const first = await client.messages.create({ ...asked, messages });
assert.equal(first.content[0].text, "You said: Hello");
messages.push({ role: "assistant", content: first.content }, { role: "user", content: "Again" });
const second = await client.messages.stream({ ...asked, messages }).finalMessage();
assert.equal(second.content[0].text, "You said: Again");

messages.push({ role: "user", content: '[[call add {"a": 2, "b": 3}]]' });
const add = {
  name: "add",
  description: "Add two numbers",
  input_schema: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } },
  run: ({ a, b }) => String(a + b),
};
const last = await client.beta.messages.toolRunner({ ...asked, messages, tools: [add] });
assert.equal(last.content[0].text, "The tool said: 5");
