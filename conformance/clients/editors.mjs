// VS Code and Zed: VS Code's parser reads the files that connect writes.
import assert from "node:assert";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parse } from "jsonc-parser";

const home = mkdtempSync(join(tmpdir(), "editors-"));
const env = { ...process.env, HOME: home, XDG_CONFIG_HOME: join(home, ".config") };

function connected(client, file, before) {
  const path = join(home, ".config", file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, before);
  execFileSync(process.env.CLAUDEMAX, ["connect", client, "--url", process.argv[2], "--yes"], { env });
  const errors = [];
  const value = parse(readFileSync(path, "utf8"), errors, { allowTrailingComma: true });
  assert.deepEqual(errors, []);
  return value;
}

const groups = connected("vscode", "Code/User/chatLanguageModels.json", '[\n\t{ "name": "x" } // x\n]');
assert.deepEqual(groups.map((group) => group.name), ["x", "claudemax"]);
assert.equal(groups[1].models[0].url, `${process.argv[2]}/v1/chat/completions`);

const zed = connected("zed", "zed/settings.json", '// mine\n{\n  "theme": "One", // dark\n}\n');
assert.equal(zed.theme, "One");
assert.equal(zed.language_models.openai_compatible["claude-max"].api_url, `${process.argv[2]}/v1`);
