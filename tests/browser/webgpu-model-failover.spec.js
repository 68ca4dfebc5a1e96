/**
 * @file The real model's WebGPU device is lost in mid-answer: WASM goes on with the sentence at once, rather than to wait
 * for the kernels to compile again, and fetches no weights.
 */

import { REFERENCE } from "./support/real.js";
import { rememberFastest } from "./support/remembered.js";
import { disputed, expect, open, test, weights } from "./support/site_failing.js";
import { WITH_WEBGPU } from "./support/webgpu.js";

test.use(WITH_WEBGPU);
test.describe.configure({ timeout: 300_000 });

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("a lost device leaves the answer to WASM", async ({ page, site }) => {
  await open(page, site.url);
  await rememberFastest(page, "webgpu-f32");
  await page.reload();
  const killer = await open(page, site.url);
  expect(await page.evaluate(() => /** @type {any} */ (globalThis).inpage.info)).toMatchObject({ variant: "webgpu-f32" });
  const before = weights(site);
  await killer.engines([{ device: 3 }]);
  const { ids, greedy_f32: greedy } = REFERENCE.prompts.g1;
  const { answer, pieces } = await page.evaluate(async (ids) => {
    const pieces = [];
    for await (const piece of /** @type {any} */ (globalThis).inpage.complete(ids, { temperature: 0, max_tokens: 40 })) pieces.push(piece);
    return { answer: pieces.at(-1).completion, pieces };
  }, ids);
  expect(answer).toMatchObject({ variant: "wasm-relaxed", why: expect.stringMatching(/took over because webgpu-f32 failed .*device was lost/) });
  expect(answer.failovers).toMatchObject([{ from: "webgpu-f32", to: "wasm-relaxed" }]);
  expect(weights(site)).toBe(before);
  expect(pieces.flatMap(({ token_ids }) => token_ids)).toEqual(answer.token_ids);
  expect(answer.token_ids).toHaveLength(40);

  // What came before the loss is float32's, what came after it is what WASM chooses, wherever the choice is clear.
  const first = pieces.findIndex(({ failovers }) => failovers);
  const streamed = pieces.slice(0, first).flatMap(({ token_ids }) => token_ids);
  expect(streamed.length).toBeGreaterThanOrEqual(3);
  expect(streamed).toEqual(greedy.slice(0, streamed.length));
  expect(await disputed(page, answer)).toEqual([]);
  console.log(`from WebGPU to WASM after ${streamed.length} tokens: ${Math.round(answer.failovers[0].gap_ms)} ms`);
});
