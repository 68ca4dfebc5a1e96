/**
 * @file The real model on a WebGPU device in Node (Dawn), for variants that no adapter of Chromium's here runs, such as
 * webgpu-f16 on Mesa's lavapipe: the executor itself, teacher-forced, against float32's tokens and logits
 * (tests/reference). Not part of `make test`; exits with 1 where something differs, with 2 where there is no adapter:
 *
 *     npm install --no-save webgpu && node tests/support/gpu_model.mjs build/models/smollm2-135m-instruct webgpu-f16
 */

import { readFileSync } from "node:fs";

import { SCORE_WORDS } from "../../web/engine/format/abi.js";
import { dawnEngine } from "./dawn.mjs";

const [model, variant] = process.argv.slice(2);
const STEPS = 16;
/** By variant: the margin from which float32's choice must be chosen, and how far logits may be off, of the largest. */
const { clear, error } = variant === "webgpu-f32" ? { clear: 0.05, error: 2e-3 } : { clear: 0.5, error: 2e-2 };

const { feed: step, info, manifest, close } = await dawnEngine(model, variant);
console.log(`loaded in ${(info.load_ms / 1e3).toFixed(1)} s`);
const reference = JSON.parse(readFileSync(new URL(`../reference/${manifest.id}.json`, import.meta.url), "utf8"));

/** @param {number[]} ids @param {number} from @param {object} more */
async function feed(ids, from, more) {
  const began = performance.now();
  const result = await step(ids, from, more);
  return { ...result, ms: performance.now() - began };
}

let wrong = 0;
for (const [name, { ids, greedy_f32: greedy, margin }] of Object.entries(reference.prompts)) {
  const text = [...ids, ...greedy.slice(0, STEPS)];
  const from = ids.length - 1;
  let ms = 0;
  for (let at = 0; at < from; at += info.max_rows) ms += (await feed(text.slice(at, Math.min(from, at + info.max_rows)), at, { logitRows: new Int32Array(0) })).ms;
  await step([text[0]], 0, { logitRows: Int32Array.of(0), wantLogits: true });
  const rows = Int32Array.from({ length: STEPS }, (_, i) => i);
  const scored = await feed(text.slice(from, -1), from, { logitRows: rows, targets: Int32Array.from(text.slice(from + 1)) });
  const misses = rows.filter((i) => margin[i] >= clear && scored.scores[i * SCORE_WORDS] !== greedy[i]);
  const same = rows.filter((i) => scored.scores[i * SCORE_WORDS] === greedy[i]).length;
  wrong += misses.length;
  let off = "";
  if (name === reference.first_token_logits.prompt) {
    const { token_ids: tokens, logits: wanted } = reference.first_token_logits;
    const { logits } = await feed([text[from]], from, { logitRows: Int32Array.of(0), wantLogits: true });
    const largest = Math.max(...wanted.map(Math.abs));
    const worst = Math.max(...wanted.map((value, i) => Math.abs(logits[tokens[i]] - value))) / largest;
    off = `, logits off by ${worst.toExponential(1)} of the largest`;
    if (!(worst < error)) wrong++;
  }
  console.log(`${name}: ${same} of ${STEPS} tokens are float32's, ${misses.length} clear ones are not${off}; ${from} rows in ${(ms / 1e3).toFixed(1)} s`);
}
await close();
process.exit(wrong ? 1 : 0);
