// The version before of the Vercel AI SDK, which is stricter: /v1/messages, whole and streamed, a tool.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic-6";
import { generateText, stepCountIs, streamText, tool } from "ai-6";
import { z } from "zod";

const model = createAnthropic({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" })("sonnet");
const add = tool({
  description: "Add two numbers",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: ({ a, b }) => a + b,
});
assert.equal((await generateText({ model, prompt: "Hello" })).text, "You said: Hello");
assert.equal(await streamText({ model, prompt: "Hello" }).text, "You said: Hello");
const prompt = '[[call add {"a": 2, "b": 3}]]';
const loop = { model, prompt, tools: { add }, stopWhen: stepCountIs(3) };
assert.equal((await generateText(loop)).text, "The tool said: 5");
