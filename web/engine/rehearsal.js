/**
 * @file While weights arrive, compute threads have nothing to do and the browser has not yet compiled the kernels well:
 * it does that only for code that runs often. So one thread runs steps on whatever lies in memory, until the weights
 * are there. Without it the first prompt takes twice as long as the next.
 */

import { EngineError } from "./errors.js";
import { trial } from "./trial.js";

/** Rows of the prompt that is rehearsed, where the plan's functions leave the choice, and tokens before it. */
const PROMPT_ROWS = 33;
const DEPTH = 31;
/** Enough for every kernel to be compiled well. */
const ROUNDS = 4;
/** How many decode steps for one prompt: they are shorter by so much. */
const DECODE_STEPS = 4;
/** The current launch is all there is to wait for. */
const PATIENCE_MS = 30_000;

/**
 * @typedef {object} Score what the thread is told
 * @property {[rows: number, sequences: number, logitRows: number][]} batches to run in turn
 * @property {number} rounds
 * @property {number} stop address of two words: set the first to end it, the second says that it ended
 */

/**
 * Write the inputs; the thread that gets the score then begins.
 * @param {import("./wasm.js").Executor} executor started
 * @returns {Score}
 */
export function prepareRehearsal(executor) {
  const { plan, layout } = executor;
  const before = plan.functions[plan.functions.length - 2]?.maxRows ?? 0;
  const rows = Math.min(plan.maxima.rows, plan.maxima.context - DEPTH, Math.max(before + 1, PROMPT_ROWS));
  /** @type {Score} */
  const score = { batches: [], rounds: ROUNDS, stop: layout.rehearsal };
  if (rows < 1) return score;
  const { input, pages, sequences } = trial(plan, rows, DEPTH, 0);
  if (pages > executor.maxPages) return score;
  executor.withPages(pages, () => executor.place({ ...input, logitRows: Int32Array.of(0) }));
  for (let i = 0; i < DECODE_STEPS; i++) score.batches.push([1, 1, 1]);
  score.batches.push([rows, sequences, 1]);
  return score;
}

/**
 * What the thread does.
 * @param {import("./abi.js").KernelExports} exports
 * @param {WebAssembly.Memory} memory
 * @param {number} id of the thread
 * @param {Score} score
 */
export function rehearse(exports, memory, id, { batches, rounds, stop }) {
  const words = new Int32Array(memory.buffer, stop, 2);
  for (let round = 0; round < rounds; round++) {
    for (const [rows, sequences, logitRows] of batches) {
      if (Atomics.load(words, 0) !== 0) break;
      exports.inpage_rehearse(id, rows, sequences, logitRows, stop);
    }
  }
  Atomics.store(words, 1, 1);
  Atomics.notify(words, 1);
}

/**
 * End it; afterwards memory is the caller's alone.
 * @param {import("./wasm.js").Executor} executor
 * @param {Score} score
 */
export function endRehearsal({ memory }, { stop }) {
  const words = new Int32Array(memory.buffer, stop, 2);
  Atomics.store(words, 0, 1);
  if (Atomics.wait(words, 1, 0, PATIENCE_MS) === "timed-out") throw new EngineError("device_lost", "a compute thread hangs");
}
