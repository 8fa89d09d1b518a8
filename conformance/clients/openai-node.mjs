// openai-node: chat and Responses: two turns, stream, its own tool runner.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const model = "sonnet";
const messages = [{ role: "user", content: "Hello" }];
const first = await client.chat.completions.create({ model, messages });
assert.equal(first.choices[0].message.content, "You said: Hello");
messages.push(first.choices[0].message, { role: "user", content: "Again" });
let text = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
  text += chunk.choices[0]?.delta.content ?? "";
assert.equal(text, "You said: Again");

messages.push({ role: "user", content: '[[call add {"a": 2, "b": 3}]]' });
const add = {
  type: "function",
  function: {
    name: "add",
    description: "Add two numbers",
    parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } },
    parse: JSON.parse,
    function: ({ a, b }) => String(a + b),
  },
};
for (const stream of [false, true]) {
  const runner = client.chat.completions.runTools({ model, messages, tools: [add], stream });
  assert.equal(await runner.finalContent(), "The tool said: 5");
}

const one = await client.responses.create({ model, input: "Hello" });
assert.equal(one.output_text, "You said: Hello");
const two = client.responses.stream({ model, input: "Again", previous_response_id: one.id });
assert.equal((await two.finalResponse()).output_text, "You said: Again");
