/**
 * @file Which of the kernels that do the same is fastest on this adapter: each is dispatched some dozens of times behind one
 * another, with the model's own weights, and the time until the GPU is done is taken. py/inpage/backends/kernel_choice.py
 * decides.
 */

/** Dispatches at most, and about how long they should take: what a wait takes by itself varies by some tenths of a millisecond. */
const MOST = 512;
const LONG_MS = 3;
/** Times that nothing is waited for, to know how long that takes: the shortest counts, as of what is timed. */
const WAITS = 5;
/** Of a wait for nothing: what is told apart from it must be longer. */
const CLEAR = 1 / 4;
/** Rows with which kernels for a prompt's rows are timed, and those for some streams. */
const ROWS = 128;
const STREAMS = 8;

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
 * @returns {Promise<Float64Array>} milliseconds a launch, in their order; NaN where the time was up, or too short to be told
 */
export async function timeKernels({ plan, replay, upload, run }, { kernels, budgetMs }) {
  const began = performance.now();
  const out = new Float64Array(kernels.length).fill(NaN);
  const measured = async (/** @type {(pass: GPUComputePassEncoder) => void} */ record) => {
    const start = performance.now();
    await run(record);
    return performance.now() - start;
  };
  let nothing = Infinity;
  for (let i = 0; i < WAITS; i++) nothing = Math.min(nothing, await measured(() => undefined));
  for (const [i, { name }] of kernels.entries()) {
    if (performance.now() - began >= budgetMs) break;
    const one = await replay.alone(name);
    if (!one) continue;
    const rows = Math.max(one.least, Math.min(one.fn.maxRows, one.fn.maxRows < ROWS ? STREAMS : ROWS));
    await upload(one.fn, [rows, 1, Math.min(rows, plan.maxima.logit_rows)]);
    const together = async (/** @type {number} */ times) => (await measured((pass) => replay.repeat(pass, one.fn, times))) - nothing;
    let times = 1;
    let took = await together(times); // which is how long a slow one takes
    if (took < LONG_MS) {
      times = Math.min(MOST, Math.max(2, Math.floor(LONG_MS / Math.max(took, LONG_MS / MOST))));
      took = await together(times);
    }
    if (took > nothing * CLEAR) out[i] = took / times;
  }
  await replay.choose([]); // the uniform blocks of what runs lie where these had theirs
  replay.bind();
  return out;
}
