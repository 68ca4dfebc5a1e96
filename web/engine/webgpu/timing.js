/**
 * @file Which of the kernels that do the same is fastest on this adapter: each is dispatched some dozens of times behind one
 * another, with the model's own weights, and the time until the GPU is done is taken. py/inpage/backends/kernel_choice.py
 * decides.
 */

import { find } from "../core/alternatives.js";

/** Dispatches of the first look. */
const FEW = 4;
/** Dispatches at most, and about how long they should take: what a wait takes by itself varies by some tenths of that. */
const MOST = 64;
const LONG_MS = 1;
/** Rows with which kernels for many rows are timed. */
const ROWS = 128;

/**
 * @typedef {object} Timed what an executor gives for it
 * @property {import("../format/plan.js").Plan} plan
 * @property {import("./replay.js").Replay} replay
 * @property {(fn: import("./replay.js").ReplayFunction, variables: import("./uniforms.js").Variables) => Promise<void>} upload
 * @property {(record: (pass: GPUComputePassEncoder) => void) => Promise<void>} run until the GPU is done
 */

/**
 * @param {Timed} timed whose KV pages hold nothing that counts: the kernels write there
 * @param {import("../core/protocol.js").KernelTiming} input of how many launches is decided here
 * @returns {Promise<Float64Array>} milliseconds a launch, in their order; NaN where the time was up
 */
export async function timeKernels({ plan, replay, upload, run }, { kernels, budgetMs }) {
  const began = performance.now();
  const out = new Float64Array(kernels.length).fill(NaN);
  const measured = async (/** @type {(pass: GPUComputePassEncoder) => void} */ record) => {
    const start = performance.now();
    await run(record);
    return performance.now() - start;
  };
  await measured(() => undefined);
  const nothing = await measured(() => undefined);
  for (const [i, { name }] of kernels.entries()) {
    if (performance.now() - began >= budgetMs) break;
    const { id } = find(plan, name);
    await replay.choose([name]);
    replay.bind();
    const at = replay.functions.findIndex(({ launches }) => launches.some(({ kernel }) => kernel === id));
    if (at < 0) continue;
    const fn = replay.functions[at];
    const before = replay.functions[at - 1]?.maxRows ?? 0; // with so many rows another function would run
    const rows = Math.max(before + 1, Math.min(fn.maxRows, ROWS));
    await upload(fn, [rows, 1, Math.min(rows, plan.maxima.logit_rows)]);
    const launch = fn.launches.findIndex(({ kernel }) => kernel === id);
    const each = async (/** @type {number} */ times) => Math.max(0, (await measured((pass) => replay.repeat(pass, fn, launch, times))) - nothing) / times;
    const look = await each(FEW);
    const times = Math.min(MOST, Math.floor(LONG_MS / Math.max(look, 1e-6)));
    out[i] = times > FEW ? await each(times) : look;
  }
  return out;
}
