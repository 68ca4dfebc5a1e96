/** @file The page that `inpage bench` measures in, over the synthetic model: what it counts and stamps, never how fast. */

import { BASE, expect, ids, MODEL, test } from "../browser/support/router.js";

/** @typedef {{ids: number[], at_ms: number[], begun_ms: number, done_ms: number, refused: number, error: string | null}} Timeline */

/**
 * @param {import("@playwright/test").Page} page
 * @param {string} method of the page's `bench`
 * @param {unknown} [argument]
 * @returns {Promise<any>}
 */
function call(page, method, argument) {
  return page.evaluate(([name, given]) => /** @type {any} */ (globalThis).bench[name](given), /** @type {const} */ ([method, argument]));
}

test.beforeEach(async ({ page, origin }) => {
  await page.goto(`${origin}${BASE}bench/bench.html`);
  const { info, ready_ms, phases } = await call(page, "load", { base: BASE, model: MODEL, backend: "wasm", threads: 2 });
  expect(info.backend).toBe("wasm");
  expect(Object.keys(phases)).toEqual(["python", "manifest", "tokenizer", "kernels", "weights", "ready"]);
  expect(Object.values(phases).reduce((sum, ms) => sum + ms, 0)).toBeLessThanOrEqual(ready_ms);
});

test("every token is stamped when it arrives, and the engine says what it did", async ({ page, model }) => {
  const prompt = ids("hello there");
  const before = await call(page, "counters");
  /** @type {Timeline} */
  const answer = await call(page, "generate", { prompt, maxTokens: 20 });
  const after = await call(page, "counters");

  const expected = model.greedy(prompt, 20);
  const stop = expected.indexOf(2);
  expect(answer.ids).toEqual(stop < 0 ? expected : expected.slice(0, stop + 1));
  expect(answer).toMatchObject({ refused: 0, error: null });
  expect(answer.at_ms).toHaveLength(answer.ids.length);
  expect(answer.at_ms).toEqual([...answer.at_ms].sort((a, b) => a - b));
  expect(answer.done_ms).toBeGreaterThanOrEqual(/** @type {number} */ (answer.at_ms.at(-1)));
  expect(after.steps - before.steps).toBe(answer.ids.length); // one for the prompt, which gives the first token
  expect(after.sampled - before.sampled).toBe(answer.ids.length);
});

test("many requests: a client asks again when it has its answer, each is answered once, in order", async ({ page, model }) => {
  const prompts = Array.from({ length: 12 }, (_, i) => ids(`number ${i}`));
  /** @type {Timeline[]} */
  const answers = await call(page, "serve", { prompts, maxTokens: 6, clients: 3 });
  expect(answers).toHaveLength(12);
  for (const [i, answer] of answers.entries()) {
    const expected = model.greedy(prompts[i], 6);
    const stop = expected.indexOf(2);
    expect(answer.ids).toEqual(stop < 0 ? expected : expected.slice(0, stop + 1));
    // At no time were more than three under way.
    const beside = answers.filter((other) => other.begun_ms < answer.done_ms && other.done_ms > answer.begun_ms);
    const last = Math.max(...beside.map(({ begun_ms }) => begun_ms));
    expect(answers.filter((other) => other.begun_ms <= last && other.done_ms > last).length).toBeLessThanOrEqual(3);
  }
});

test("what cannot be answered is an error of its own; the others are answered", async ({ page }) => {
  /** @type {Timeline[]} */
  const [fine, wrong] = await call(page, "serve", { prompts: [ids("hello"), []], maxTokens: 4, clients: 2 });
  expect(fine.error).toBe(null);
  expect(fine.ids.length).toBeGreaterThan(0);
  expect(wrong.error).toMatch(/^invalid_request: prompt/);
  expect(wrong.ids).toEqual([]);
});
