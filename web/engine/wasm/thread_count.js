/**
 * @file How many threads decode fastest here. All cores, mostly; but cores may be busy, slow, or two halves of one, and
 * then a thread more makes every launch wait for it. So some real steps are timed, for a few dozen milliseconds.
 */

import { trial } from "../core/trial.js";

/** Tokens before those that are decoded. */
const DEPTH = 31;
/** Of an encoder, the tokens of a text. */
const TEXT = 32;
/** Steps at a count before the clock runs, and with it. */
const SETTLE = 1;
const STEPS = 2;
/** So much slower than the best is not worth looking further down, and so much slower need not be timed again. */
const CLEARLY = 1.2;
/** As many threads as there are cores are given up for fewer only where they are so much slower. */
export const DOUBT = 1.3;

/**
 * Counts from `most` down.
 * @param {number} most
 * @returns {number[]}
 */
export function candidates(most) {
  return [most, ...[16, 12, 8, 6, 4, 3, 2, 1].filter((n) => n < most)];
}

/**
 * Time the candidates and compute on the fastest from now on; on all if there is no memory to time anything with.
 * @param {import("./executor.js").Executor} executor with its weights, and `most` threads
 * @param {number} most
 * @returns {Record<string, number> | null} steps a second by number of threads, as far as they were timed
 */
export function measureThreads(executor, most) {
  const { input, pages } = trial(executor.plan, executor.plan.paged ? 1 : Math.min(TEXT, executor.plan.maxima.context), DEPTH, executor.pages);
  if (executor.pages + pages > executor.maxPages) {
    executor.setThreads(most);
    return null;
  }
  /** @type {Map<number, number>} */
  const times = new Map();
  /** @param {number} threads @returns {number} milliseconds a step */
  const time = (threads) => {
    executor.setThreads(threads);
    for (let i = 0; i < SETTLE; i++) executor.step(input);
    const start = performance.now();
    for (let i = 0; i < STEPS; i++) executor.step(input);
    return (performance.now() - start) / STEPS;
  };
  const fastest = () => [...times].reduce((best, each) => (each[1] < best[1] ? each : best))[0];
  executor.withPages(pages, () => {
    for (const threads of candidates(most)) {
      times.set(threads, time(threads));
      if (/** @type {number} */ (times.get(threads)) > CLEARLY * /** @type {number} */ (times.get(fastest()))) break;
    }
    // What lies close together is timed once more: something else may have run.
    const best = /** @type {number} */ (times.get(fastest()));
    const close = [...times].filter(([, ms]) => ms <= CLEARLY * best);
    if (close.length > 1) for (const [threads, ms] of close) times.set(threads, Math.min(ms, time(threads)));
  });
  // A page that loads keeps cores busy that will soon be free, so fewer threads must be faster by more than that.
  const limit = /** @type {number} */ (times.get(fastest())) * DOUBT;
  executor.setThreads(Math.max(...[...times].filter(([, ms]) => ms <= limit).map(([threads]) => threads)));
  return Object.fromEntries([...times].map(([threads, ms]) => [threads, 1000 / Math.max(ms, 1e-3)]));
}
