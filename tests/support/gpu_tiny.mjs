/**
 * @file Tiny models on a WebGPU device in Node (Dawn), for variants that no adapter of Chromium's here runs: webgpu-f16, and
 * webgpu-matrix-8x8x8 on Mesa 26's lavapipe. The executor itself, fed with a text in pieces of many rows, few and one, against
 * what numpy says of each token in float32 (tests/browser/support/tiny_models.py); the load's exam comes first. Not part
 * of `make test`; exits with 1 where something differs, with 2 where there is no adapter:
 *
 *     PYTHONPATH=tests .venv/bin/python tests/browser/support/tiny_models.py build/tests/tiny-gpu \
 *       k_quants=webgpu-f32,webgpu-f16,webgpu-matrix-8x8x8 qwen3=webgpu-f32,webgpu-f16,webgpu-matrix-8x8x8
 *     npm install --no-save webgpu && node tests/support/gpu_tiny.mjs build/tests/tiny-gpu webgpu-matrix-8x8x8 k_quants qwen3
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { SCORE_WORDS } from "../../web/engine/format/abi.js";
import { dawnEngine } from "./dawn.mjs";

const [folder, variant, ...models] = process.argv.slice(2);
/** Nats that a token may be off: as CPU engines are that round activations to 8 bits, less where only halves are rounded. */
const OFF = variant === "webgpu-f32" ? 2e-3 : 0.03;

let wrong = models.length === 0 ? 1 : 0;
for (const model of models) {
  const { ids, nll } = JSON.parse(readFileSync(path.join(folder, `${model}.json`), "utf8"));
  const { info, feed, close } = await dawnEngine(path.join(folder, `tiny-${model}`), variant, { exam: true });
  /** @type {number[][]} */
  const pieces = [];
  for (const [first, most] of [[0, 1], [1, 18], [19, 3], [22, 1], [23, info.max_rows]]) {
    for (let at = first; at < ids.length - 1 && at < (first === 23 ? Infinity : first + most); at += most) pieces.push([at, Math.min(at + most, ids.length - 1)]);
  }
  let worst = 0;
  for (const [from, to] of pieces) {
    const rows = Array.from({ length: to - from }, (_, i) => from + i);
    const asked = rows.slice(-info.max_logit_rows);
    const { scores } = await feed(rows.map((at) => ids[at]), from, {
      logitRows: Int32Array.from(asked, (at) => at - from), targets: Int32Array.from(asked, (at) => ids[at + 1]),
    });
    const found = new Float32Array(scores.buffer);
    for (const [i, at] of asked.entries()) worst = Math.max(worst, Math.abs(found[i * SCORE_WORDS + 1] - nll[at]));
  }
  console.log(`${model}, ${variant}: passed the exam; ${ids.length - 1} tokens, off by ${worst.toExponential(1)} nats at most`);
  if (!(worst < OFF)) wrong++;
  await close();
}
process.exit(wrong ? 1 : 0);
