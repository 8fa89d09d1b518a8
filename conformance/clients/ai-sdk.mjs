// Vercel AI SDK with three providers (openai by Responses and by chat): two turns, stream, a tool
// loop, a structured output.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const settings = { baseURL: `${process.argv[2]}/v1`, apiKey: "none" };
const openai = createOpenAI(settings);
const compatible = createOpenAICompatible({
  name: "claudemax",
  supportsStructuredOutputs: true,
  includeUsage: true,
  ...settings,
});
const add = tool({
  description: "Add two numbers",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: ({ a, b }) => a + b,
});

for (const [name, model] of Object.entries({
  responses: openai("sonnet"),
  chat: openai.chat("sonnet"),
  compatible: compatible("sonnet"),
  anthropic: createAnthropic(settings)("sonnet"),
})) {
  const messages = [{ role: "user", content: "Hello" }];
  const first = await generateText({ model, messages });
  assert.equal(first.text, "You said: Hello", name);
  messages.push(...first.response.messages, { role: "user", content: "Again" });
  const second = streamText({ model, messages });
  assert.equal(await second.text, "You said: Again", name);
  assert((await second.usage).outputTokens > 0, name);

  messages.push({ role: "user", content: '[[call add {"a": 2, "b": 3}]]' });
  const loop = { model, messages, tools: { add }, stopWhen: stepCountIs(3) };
  assert.equal((await generateText(loop)).text, "The tool said: 5", name);
  assert.equal(await streamText(loop).text, "The tool said: 5", name);

  const output = Output.object({ schema: z.object({ x: z.number() }) });
  const point = await generateText({ model, prompt: "A point", output });
  assert.equal(typeof point.output.x, "number", name);
}
