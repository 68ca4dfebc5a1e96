/** @file The synthetic model with a tokenizer or a chat template that does not end, served in place of the whole one. */

import { execFileSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { MODEL } from "./router.js";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/**
 * @param {import("./server.js").FaultServer} server
 * @param {string} whole its folder
 * @param {{template?: string, pattern?: string}} what goes before the template; a regular expression of the tokenizer
 */
export function serveVariant(server, whole, what) {
  const script = path.join(ROOT, "tests/browser/support/variant.py");
  const written = execFileSync(path.join(ROOT, ".venv/bin/python"), [script, whole], { input: JSON.stringify(what), encoding: "utf8" });
  /** @type {Record<string, string>} */
  const { manifest, tokenizer } = JSON.parse(written);
  server.fault(`${MODEL}manifest.json`, { body: Buffer.from(manifest), always: true });
  server.fault(`${MODEL}tokenizer.json`, { body: Buffer.from(tokenizer), always: true });
}
