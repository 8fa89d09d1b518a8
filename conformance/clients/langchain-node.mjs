// LangChain for JavaScript, with which n8n's agents speak: chat and Responses, streams, a tool, a schema.
import assert from "node:assert/strict";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

const add = tool(({ a, b }) => String(a + b), {
  name: "add",
  description: "Add two numbers",
  schema: z.object({ a: z.number(), b: z.number() }),
});
for (const useResponsesApi of [false, true]) {
  const configuration = { baseURL: `${process.argv[2]}/v1` };
  const model = new ChatOpenAI({ model: "sonnet", apiKey: "none", useResponsesApi, configuration });
  const said = [new HumanMessage("Hello")];
  const first = await model.invoke(said);
  assert.equal(first.text, "You said: Hello");
  said.push(first, new HumanMessage("Again"));
  let text = "";
  for await (const chunk of await model.stream(said)) text += chunk.text;
  assert.equal(text, "You said: Again");

  said.push(new HumanMessage('[[call add {"a": 2, "b": 3}]]'));
  const bound = model.bindTools([add]);
  const called = await bound.invoke(said);
  said.push(called, await add.invoke(called.tool_calls[0]));
  assert.equal((await bound.invoke(said)).text, "The tool said: 5");
  const point = await model.withStructuredOutput(z.object({ x: z.number() })).invoke("A point");
  assert.equal(typeof point.x, "number");
}
