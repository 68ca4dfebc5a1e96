/**
 * @file What JavaScript makes of documents that Python reads too, for agreement.py: each line of standard input is
 * `{kind, text, name}`, answered by a line `{accepted, code, field, message}`.
 */

import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

import { described, readManifest } from "../../../web/engine/format/manifest.js";
import { parseJson, readPlan } from "../../../web/engine/format/plan.js";

const { tensors } = JSON.parse(readFileSync(new URL("../../../format/corpus/plan.json", import.meta.url), "utf8"));
const known = new Map(tensors.map((/** @type {{name: string}} */ t) => [t.name, t]));

for await (const line of createInterface({ input: process.stdin })) {
  const { kind, text, name } = JSON.parse(line);
  const bytes = Buffer.from(text, "base64");
  /** @type {object} */
  let told = { accepted: true };
  try {
    if (kind === "manifest") readManifest(described(new TextDecoder().decode(bytes)), name);
    else readPlan(parseJson(bytes), known, name);
  } catch (error) {
    const { code = null, field = null, message } = /** @type {any} */ (error);
    told = { accepted: false, code, field, message: String(message).slice(0, 300) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
