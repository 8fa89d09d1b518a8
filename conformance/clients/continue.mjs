// Continue: its own schema on what connect writes, and on a file that had something before.
import assert from "node:assert";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configYamlSchema } from "@continuedev/config-yaml";
import { parse } from "yaml";

const before = `# mine
name: Mine
version: 1.0.0
schema: v1
models:
    - name: other   # stays
      provider: ollama
      model: llama

# and this
rules:
    - Be brief
`;
for (const text of [null, before]) {
  const directory = mkdtempSync(join(tmpdir(), "continue-"));
  const file = join(directory, "config.yaml");
  if (text !== null) writeFileSync(file, text);
  execFileSync(process.env.CLAUDEMAX, ["connect", "continue", "--url", process.argv[2], "--yes"], {
    env: { ...process.env, CONTINUE_GLOBAL_DIR: directory },
  });
  const { models, rules } = configYamlSchema.parse(parse(readFileSync(file, "utf8")));
  const ours = models.filter((model) => model.apiBase === `${process.argv[2]}/v1`);
  assert.deepEqual(ours.map((model) => model.model), ["sonnet", "opus", "haiku"]);
  if (text !== null) assert.deepEqual([models[0].name, rules], ["other", ["Be brief"]]);
}
