/** @file How many threads compute, chosen on machines that are made up: what a step costs is given, and the clock runs by it. */

import { expect, test } from "@playwright/test";

import { checkBatch } from "../../web/engine/core/batch.js";
import { measureThreads } from "../../web/engine/wasm/thread_count.js";

const BEGAN = 10; // ms that the first step costs more after threads were woken

/** @typedef {{rows: number, sequences: number, threads: number}} Step */

/** @param {number[]} functions the most rows of each @param {object} [rest] @returns {any} */
const planOf = (functions, rest = {}) => ({
  functions: functions.map((maxRows) => ({ maxRows })),
  maxima: { rows: functions[functions.length - 1], sequences: 16, logit_rows: 16, context: 256 },
  vocab: 50, paged: true, blocksPerSequence: 16, blockTables: [{ first: 0, pageTokens: 16 }], ...rest,
});

/**
 * Threads and steps as an executor has them.
 * @param {any} plan
 * @param {(step: Step) => number} cost milliseconds
 * @param {(before: number, now: number) => boolean} wakes whether a change of the count makes the next step start slowly
 */
function machine(plan, cost, wakes) {
  let [clock, begins] = [0, 0];
  const own = {
    plan, pages: 0, maxPages: 1000, most: 0, threads: 0, promptThreads: 0, steps: /** @type {Step[]} */ ([]), now: () => clock,
    /** @param {number} threads */
    setThreads(threads, prompt = threads) {
      if (wakes(own.promptThreads, prompt)) begins = BEGAN;
      Object.assign(own, { threads, promptThreads: prompt });
    },
    /** @param {number} pages @param {() => void} work */
    withPages(pages, work) {
      own.most = Math.max(own.most, (own.pages += pages));
      work();
      own.pages -= pages;
    },
    /** @param {any} input */
    step(input) {
      const sequences = checkBatch(input, plan, own.pages);
      const rows = input.tokenIds.length;
      const few = plan.functions.length > 1 && rows <= plan.functions[plan.functions.length - 2].maxRows; // inpage_threads_for
      const step = { rows, sequences, threads: few ? own.threads : own.promptThreads };
      own.steps.push(step);
      clock += cost(step) + begins;
      begins = 0;
    },
  };
  return own;
}

/** @param {ReturnType<typeof machine>} executor @param {number} most */
function measured(executor, most) {
  performance.now = executor.now;
  try {
    return measureThreads(/** @type {any} */ (executor), most);
  } finally {
    delete (/** @type {any} */ (performance).now); // the prototype's again
  }
}

test("an encoder computes on as many threads as were found fastest, and is timed for nothing else", () => {
  const plan = planOf([128], { paged: false, blocksPerSequence: 3, blockTables: [] });
  const executor = machine(plan, ({ threads }) => threads, (before, now) => before !== now);
  expect(measured(executor, 2)).toEqual({ 1: 1000, 2: 500 });
  expect([executor.threads, executor.promptThreads]).toEqual([1, 1]);
  expect(new Set(executor.steps.map(({ threads }) => threads))).toEqual(new Set([2, 1]));
  expect(executor.steps[executor.steps.length - 1].threads, "the last that was timed").toBe(1);
  expect(executor.steps.length).toBe(6);
});

test("what is timed for prompts is a prompt, on threads that are awake", () => {
  const executor = machine(
    planOf([1, 8, 128]),
    ({ rows, threads }) => (rows === 1 ? threads : 12 / threads),
    (before, now) => now > before,
  );
  expect(measured(executor, 4)).toEqual({ 4: 250, 3: 1000 / 3, 2: 500, 1: 1000 });
  expect([executor.threads, executor.promptThreads], "few for decoding, all for prompts").toEqual([1, 4]);
  const prompts = executor.steps.filter(({ rows }) => rows > 1);
  expect(prompts.length).toBeGreaterThan(2);
  for (const { rows, sequences } of prompts) expect([rows > 8, sequences]).toEqual([true, 1]);
  expect(executor.most, "pages for one sequence").toBeLessThanOrEqual(3);
});

test("where no context is left for a prompt, all threads read it", () => {
  const plan = planOf([1, 8, 128]);
  plan.maxima.context = 39; // DEPTH and 8 rows
  const executor = machine(plan, ({ threads }) => threads, () => false);
  measured(executor, 2);
  expect([executor.threads, executor.promptThreads]).toEqual([1, 2]);
  expect(executor.steps.every(({ rows }) => rows === 1)).toBe(true);
});
