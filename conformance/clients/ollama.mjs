// Ollama's own client for JavaScript: two turns, stream, a tool, thought, a schema, models.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const ollama = new Ollama({ host: process.argv[2] });
const model = "claude-sonnet-4";
const { models } = await ollama.list();
assert(models.some(({ name }) => name === `${model}:latest`));
assert((await ollama.show({ model })).capabilities.includes("tools"));

const messages = [{ role: "user", content: "Hello" }];
const first = await ollama.chat({ model, messages });
assert.equal(first.message.content, "You said: Hello");
messages.push(first.message, { role: "user", content: "Again" });
let text = "";
let last;
for await (last of await ollama.chat({ model, messages, stream: true })) text += last.message.content;
assert.equal(text, "You said: Again");
assert(last.done && last.eval_count > 0);

messages.push({ role: "assistant", content: text });
messages.push({ role: "user", content: '[[call add {"a": 2, "b": 3}]]' });
const add = {
  type: "function",
  function: {
    name: "add",
    description: "Add two numbers",
    parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } },
  },
};
const called = await ollama.chat({ model, messages, tools: [add] });
const [{ function: call }] = called.message.tool_calls;
assert.deepEqual([call.name, call.arguments], ["add", { a: 2, b: 3 }]);
messages.push(called.message, { role: "tool", tool_name: "add", content: "5" });
const answer = await ollama.chat({ model, messages, tools: [add] });
assert.equal(answer.message.content, "The tool said: 5");

const thought = "[[think Hm]]Hello";
const thinking = await ollama.chat({ model, think: true, messages: [{ role: "user", content: thought }] });
assert.equal(thinking.message.thinking, "Hm");
const format = { type: "object", properties: { x: { type: "number" } }, required: ["x"] };
const point = await ollama.generate({ model, prompt: "A point", format });
assert.equal(typeof JSON.parse(point.response).x, "number");
