/**
 * @file Kernels that do the same and leave the same bits: which of them runs is the device's choice. Timing them is done
 * here, with the model's own weights and on the threads that compute; what follows from the times is decided in Python
 * (py/inpage/backends/kernel_choice.py).
 */

import { EngineError } from "../format/errors.js";
import { trial } from "./trial.js";

/** Tokens before the rows that are timed. */
const DEPTH = 31;
/** Rows with which kernels for many rows are timed, where the plan takes so many. */
const MANY = 8;

/**
 * @param {import("../format/plan.js").Plan} plan
 * @returns {string[][]} the kernels' names; the first of each list is the one that runs until another is chosen
 */
export function namesOf({ kernels, alternatives }) {
  return alternatives.map((ids) => ids.map((id) => kernels[id].name));
}

/**
 * Whether each of these can be chosen, and each list has its one: what was remembered of another build need not fit.
 * @param {import("../format/plan.js").Plan} plan
 * @param {string[]} names
 * @returns {boolean}
 */
export function fits(plan, names) {
  return namesOf(plan).every((list) => list.filter((name) => names.includes(name)).length === 1) &&
    names.length === plan.alternatives.length;
}

/**
 * The kernel of that name and the others that could run in its place. `at`: its own place in their list.
 * @param {import("../format/plan.js").Plan} plan
 * @param {string} name
 * @returns {{id: number, at: number, others: number[], first: number}}
 */
export function find({ kernels, alternatives }, name) {
  for (const ids of alternatives) {
    const at = ids.findIndex((each) => kernels[each].name === name);
    if (at >= 0) return { id: ids[at], at, others: ids.filter((_, i) => i !== at), first: ids[0] };
  }
  throw new EngineError("invalid_request", `${JSON.stringify(name)} is no kernel that can be chosen`, "kernels");
}

/**
 * Choose and time kernels in turn. The one named last of each list keeps running.
 * @param {import("../wasm/executor.js").Executor} executor with its weights
 * @param {import("./protocol.js").KernelTiming} input
 * @returns {Float64Array} milliseconds a launch, in their order; NaN where the time was up
 */
export function timeKernels(executor, { kernels, budgetMs, threads }) {
  const computing = /** @type {const} */ ([executor.threads, executor.promptThreads]);
  try {
    if (threads) executor.setThreads(threads);
    const began = performance.now();
    return Float64Array.from(kernels, ({ name, most }) => {
      if (performance.now() - began >= budgetMs) return NaN;
      executor.chooseKernels([name]);
      return time(executor, find(executor.plan, name), most);
    });
  } finally {
    executor.setThreads(...computing);
  }
}

/**
 * The launches that last wrote what a launch reads: run before it, untimed, they leave in its inputs what would be there.
 * No more of the layer: for a large model that would take all the time there is.
 * @param {import("../format/plan.js").Plan} plan
 * @param {import("../format/plan.js").PlanFunction} fn
 * @param {number} launch
 * @returns {number[]} in order
 */
export function producers({ kernels, buffers }, fn, launch) {
  const touched = (/** @type {number} */ i, /** @type {string} */ ways) =>
    fn.launches[i].buffers.filter((id, at) => buffers[id].kind === "arena" && ways.includes(kernels[fn.launches[i].kernel].access[at]));
  const found = new Set();
  for (const id of touched(launch, "rx")) {
    let i = launch - 1;
    while (i >= 0 && !touched(i, "wx").includes(id)) i--;
    if (i >= 0) found.add(i);
  }
  return [...found].sort((a, b) => a - b);
}

/**
 * @param {import("../wasm/executor.js").Executor} executor
 * @param {{id: number, first: number}} kernel
 * @param {number} most launches
 * @returns {number} NaN where there is no memory to time anything with
 */
function time(executor, { id, first }, most) {
  const { plan } = executor;
  const uses = (/** @type {import("../format/plan.js").Launch} */ launch) => launch.kernel === first;
  const at = plan.functions.findIndex(({ launches }) => launches.some(uses));
  if (at < 0) return NaN;
  const fn = plan.functions[at];
  const before = plan.functions[at - 1]?.maxRows ?? 0; // with so many rows another function would run
  const rows = Math.max(before + 1, Math.min(fn.maxRows, MANY));
  if (DEPTH + rows > plan.maxima.context) return NaN;
  const { input, sequences, pages } = trial(plan, rows, DEPTH, executor.pages);
  if (executor.pages + pages > executor.maxPages) return NaN;
  return executor.withPages(pages, () => {
    executor.place(input);
    const logitRows = input.logitRows.length;
    const start = fn.launches.findIndex(uses);
    for (const i of producers(plan, fn, start)) executor.stepLaunch(rows, sequences, logitRows, i);
    const began = performance.now();
    const done = executor.stepKernel(rows, sequences, logitRows, id, most);
    return (performance.now() - began) / done;
  });
}
