/**
 * @file While weights arrive, compute threads have nothing to do and the browser has not yet compiled the kernels well:
 * it does that only for code that runs often. So one thread runs steps on whatever lies in memory, until the weights
 * are there. Without it the first prompt takes twice as long as the next.
 */

import { trial } from "../core/trial.js";
import { EngineError } from "../format/errors.js";

/** Rows of the prompt that is rehearsed, where the plan's functions leave the choice, and tokens before it. */
const PROMPT_ROWS = 33;
const DEPTH = 31;
/** Enough for every kernel to be compiled well. */
const ROUNDS = 4;
/** How many decode steps for one prompt: they are shorter by so much. */
const DECODE_STEPS = 4;
/** Steps with kernels that may be chosen later. */
const OTHER_STEPS = 2;
/** How it ended. */
const [CUT_SHORT, COMPLETE] = [1, 2];
/** The current launch is all there is to wait for. */
const PATIENCE_MS = 30_000;

/**
 * @typedef {object} Score what the thread is told
 * @property {Scene[]} scenes to run in turn
 * @property {[now: number, then: number][]} last kernels to choose in the end
 * @property {number} rounds
 * @property {number} stop address of two words: set the first to end it, the second says how it ended
 * @typedef {object} Scene
 * @property {[now: number, then: number][]} kernels to choose before
 * @property {[rows: number, sequences: number, logitRows: number][]} batches
 */

/**
 * Write the inputs; the thread that gets the score then begins.
 * @param {import("./executor.js").Executor} executor started
 * @param {string[] | undefined} chosen kernels that were chosen already, and run now; else all that could be are rehearsed
 * @returns {Score}
 */
export function prepareRehearsal(executor, chosen) {
  const { plan, layout } = executor;
  const before = plan.functions[plan.functions.length - 2]?.maxRows ?? 0;
  const rows = Math.min(plan.maxima.rows, plan.maxima.context - (plan.paged ? DEPTH : 0), Math.max(before + 1, PROMPT_ROWS));
  /** @type {Score} */
  const score = { scenes: [], last: [], rounds: ROUNDS, stop: layout.rehearsal };
  if (rows < 1) return score;
  const { input, pages, sequences } = trial(plan, rows, DEPTH, 0);
  if (pages > executor.maxPages) return score;
  executor.withPages(pages, () => executor.place({ ...input, logitRows: Int32Array.of(0) }));
  const count = chosen ? 1 : Math.max(1, ...plan.alternatives.map((ids) => ids.length));
  for (let k = 0; k < count; k++) {
    /** @type {Scene} */
    const scene = { kernels: chosen ? [] : choices(plan, k), batches: [] };
    for (let i = 0; plan.paged && i < (k ? OTHER_STEPS : DECODE_STEPS); i++) scene.batches.push([1, 1, 1]);
    if (k < manyRows(plan)) scene.batches.push([rows, sequences, 1]);
    score.scenes.push(scene);
  }
  if (!chosen) score.last = choices(plan, 0);
  return score;
}

/**
 * The kth kernel of each list in the place of the others.
 * @param {import("../format/plan.js").Plan} plan
 * @param {number} k
 * @returns {[now: number, then: number][]}
 */
function choices({ alternatives }, k) {
  return alternatives.flatMap((ids) => {
    const then = ids[k % ids.length];
    return ids.filter((now) => now !== then).map((now) => /** @type {[number, number]} */ ([now, then]));
  });
}

/**
 * How many scenes need a prompt: as many as there are kernels that do the same in the function for most rows.
 * @param {import("../format/plan.js").Plan} plan
 */
function manyRows({ functions, alternatives }) {
  const used = new Set(functions[functions.length - 1].launches.map(({ kernel }) => kernel));
  return Math.max(1, ...alternatives.filter(([first]) => used.has(first)).map((ids) => ids.length));
}

/**
 * What the thread does.
 * @param {import("../format/abi.js").KernelExports} exports
 * @param {WebAssembly.Memory} memory
 * @param {number} id of the thread
 * @param {Score} score
 */
export function rehearse(exports, memory, id, { scenes, last, rounds, stop }) {
  const words = new Int32Array(memory.buffer, stop, 2);
  const stopped = () => Atomics.load(words, 0) !== 0;
  let complete = 0;
  for (let round = 0; round < rounds && !stopped(); round++) {
    for (const { kernels, batches } of scenes) {
      for (const [now, then] of kernels) exports.inpage_choose_kernel(now, then);
      for (const [rows, sequences, logitRows] of batches) {
        if (!stopped()) exports.inpage_rehearse(id, rows, sequences, logitRows, stop);
      }
    }
    if (!stopped()) complete++;
  }
  for (const [now, then] of last) exports.inpage_choose_kernel(now, then);
  Atomics.store(words, 1, complete > 0 ? COMPLETE : CUT_SHORT);
  Atomics.notify(words, 1);
}

/**
 * End it; afterwards memory is the caller's alone.
 * @param {import("./executor.js").Executor} executor
 * @param {Score} score
 * @returns {boolean} whether everything was rehearsed
 */
export function endRehearsal({ memory }, { stop }) {
  const words = new Int32Array(memory.buffer, stop, 2);
  Atomics.store(words, 0, 1);
  if (Atomics.wait(words, 1, 0, PATIENCE_MS) === "timed-out") throw new EngineError("device_lost", "a compute thread hangs");
  return Atomics.load(words, 1) === COMPLETE;
}
