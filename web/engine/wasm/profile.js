/**
 * @file Where the time of a step goes: the same step launch by launch, a clock around each, many times over. The step
 * that answers are made with has no clock in it and calls nothing outside of the module.
 */

import { check, checkProfile, median, undisturbed } from "../core/profile.js";
import { trial } from "../core/trial.js";

/** Steps before the clock runs: as many as the browser needs to compile the kernels well. */
const WARM_UP = 8;
/** Calls that do nothing, to tell what a call costs: the best of so many times so many. */
const IDLE_ROUNDS = 20;
const IDLE_CALLS = 50;

/**
 * @param {import("./executor.js").Executor} executor
 * @param {import("../core/protocol.js").ProfileInput} input
 * @returns {import("../core/protocol.js").Profile}
 */
export function profile(executor, { rows, depth = 0, repeats = 20, threads = executor.threads }) {
  const { plan } = executor;
  checkProfile({ rows, depth, repeats }, plan.maxima);
  const started = /** @type {const} */ ([executor.threads, executor.promptThreads]);
  check(Number.isInteger(threads) && threads > 0 && threads <= executor.layout.stackTops.length + 1, "threads",
    `must be 1 to ${executor.layout.stackTops.length + 1}, got ${threads}`);
  try {
    executor.setThreads(threads);
    return executor.withPages(trial(plan, rows, depth, 0).pages, (first) => measure(executor, rows, depth, repeats, first));
  } finally {
    executor.setThreads(...started);
  }
}

/**
 * @param {import("./executor.js").Executor} executor
 * @param {number} rows
 * @param {number} depth
 * @param {number} repeats
 * @param {number} first page that may be used
 * @returns {import("../core/protocol.js").Profile}
 */
function measure(executor, rows, depth, repeats, first) {
  const { plan } = executor;
  const { input, sequences } = trial(plan, rows, depth, first);
  const launches = /** @type {import("../format/plan.js").PlanFunction} */ (plan.functions.find(({ maxRows }) => maxRows >= rows)).launches;
  for (let i = 0; i < WARM_UP; i++) executor.step(input);
  const steps = Float64Array.from({ length: repeats }, () => timed(() => executor.step(input)));

  const logitRows = input.logitRows.length;
  const call = (/** @type {number} */ launch) => executor.stepLaunch(rows, sequences, logitRows, launch);
  const idle = Math.min(
    ...Array.from({ length: IDLE_ROUNDS }, () =>
      timed(() => {
        for (let i = 0; i < IDLE_CALLS; i++) call(-1);
      }),
    ),
  );
  const times = Array.from({ length: repeats }, () => Float64Array.from(launches, (_, i) => timed(() => call(i))));
  const { rounds, means } = undisturbed(times);
  return {
    rows,
    sequences,
    depth,
    threads: executor.threads,
    step_us: median(steps) * 1e3,
    call_us: (idle / IDLE_CALLS) * 1e3,
    rounds,
    kernels: plan.kernels.map(({ name }) => name),
    launch_kernel: Int32Array.from(launches, ({ kernel }) => kernel),
    launch_us: means.map((ms) => ms * 1e3),
  };
}

/** @param {() => void} work @returns {number} milliseconds */
function timed(work) {
  const start = performance.now();
  work();
  return performance.now() - start;
}
