/**
 * @file The real model on WebGPU, on the software adapter: float32's tokens and logits (tests/reference), and what a step
 * costs in passes, submits, dispatches, read-backs and bytes.
 */

import { COUNTERS } from "../../web/engine/webgpu/counters.js";
import { expect, REFERENCE, test } from "./support/real.js";
import { heapPeak, WITH_WEBGPU } from "./support/webgpu.js";

test.use(WITH_WEBGPU);
test.describe.configure({ timeout: 600_000 });

const VARIANT = "webgpu-f32";
const LAYERS = 30;
const SHARD = 16 * 2 ** 20;
/** What a step adds to its layers: embedding, rope table, where keys and values go, attention's state cleared, the last norm, head. */
const OTHER = 6;
/** Tokens of each prompt's answer that are looked at. */
const STEPS = process.env.INPAGE_SLOW ? 16 : 2;
/** Where the runner-up is at least this far behind in float32, float32 arithmetic in another order must choose the same. */
const CLEAR = 0.05;

/** @param {number[]} counters @returns {Record<keyof typeof COUNTERS, number>} */
const named = (counters) =>
  /** @type {Record<keyof typeof COUNTERS, number>} */ (Object.fromEntries(Object.entries(COUNTERS).map(([name, i]) => [name, counters[i]])));
/** Consecutive pages for so many tokens. @param {number} tokens */
const pages = (tokens) => Array.from({ length: Math.ceil(tokens / 16) }, (_, i) => i);

test("weights lie on the GPU once, and never in the JavaScript heap", async ({ model }) => {
  const peak = await heapPeak(model.page, () => model.engine(VARIANT, 1));
  const info = model.info(await model.engine(VARIANT, 1));
  expect(info).toMatchObject({ variant: VARIANT, adapter: { software: true }, warnings: [] });
  expect(peak.samples).toBeGreaterThan(5);
  expect(peak.bytes).toBeLessThan(2 * SHARD + 64 * 2 ** 20);
  const { buffer_bytes: bytes } = named(await model.call("counters", VARIANT + " on 1"));
  const kv = 288 * info.page_bytes;
  expect(info.arena_bytes).toBeLessThan(0.07 * info.weight_bytes); // most of it what 16 sequences' attention leaves
  // Inputs, logits, tables and staging are what is left.
  expect(bytes - kv - info.weight_bytes - info.arena_bytes).toBeLessThan(0.1 * info.weight_bytes);
  console.log(`heap at most ${(peak.bytes / 2 ** 20).toFixed(0)} MiB; GPU ${(bytes / 2 ** 20).toFixed(0)} MiB, of that weights ${(info.weight_bytes / 2 ** 20).toFixed(0)}, KV ${(kv / 2 ** 20).toFixed(0)}, arenas ${(info.arena_bytes / 2 ** 20).toFixed(1)}`);
});

test("a decode step is one pass and one submit, at most five dispatches a layer, four bytes read back", async ({ model }) => {
  const engine = await model.engine(VARIANT, 1);
  const { ids, greedy_f32: greedy } = REFERENCE.prompts.g1;
  const steps = 3;
  const burst = { ids, pages: pages(ids.length + steps), steps };
  const { tokens, counters } = await model.call("burst", engine, burst);
  expect(tokens).toEqual(greedy.slice(0, steps));
  const counted = named(counters);
  expect(counted).toMatchObject({
    steps, rows: steps, sampled: steps, passes: steps, submits: steps, readback_bytes: 4 * steps, buffers: 0, bind_groups: 0, buffer_bytes: 0,
  });
  expect(counted.launches).toBeLessThanOrEqual(steps * (5 * LAYERS + OTHER));
  expect(counted.dispatches - counted.launches).toBe(steps * 2); // a greedy token: statistics, choice
  expect(counted.readbacks).toBeLessThanOrEqual(steps);
});

// A software adapter takes its time, for half a thousand rows minutes: INPAGE_SLOW=1 has them all.
const USUAL = [REFERENCE.first_token_logits.prompt];
const PROMPTS = process.env.INPAGE_SLOW ? Object.keys(REFERENCE.prompts) : [...new Set(USUAL)];

for (const name of PROMPTS) {
  test(`${name}: teacher-forced, every clear greedy token is float32's, and logits to 2e-3 of the largest`, async ({ model }) => {
    const { ids, greedy_f32: greedy, margin } = REFERENCE.prompts[name];
    const engine = await model.engine(VARIANT, 1);
    const text = [...ids, ...greedy.slice(0, STEPS)];
    const { argmax } = await model.call("score", engine, { ids: text, from: ids.length - 1, pages: pages(text.length) });
    expect(argmax).toHaveLength(STEPS);
    const wrong = argmax.flatMap((token, i) => (margin[i] >= CLEAR && token !== greedy[i] ? [{ step: i, token, wanted: greedy[i], margin: margin[i] }] : []));
    expect(wrong).toEqual([]);

    const { prompt, token_ids: tokens, logits } = REFERENCE.first_token_logits;
    if (name !== prompt) return;
    const found = await model.call("lastLogits", engine, { ids, pages: pages(ids.length), tokens });
    const largest = Math.max(...logits.map(Math.abs));
    const worst = Math.max(...logits.map((wanted, i) => Math.abs(found[i] - wanted)));
    console.log(`logits after ${name}: off by ${(worst / largest).toExponential(1)} of the largest at most`);
    expect(worst).toBeLessThan(2e-3 * largest);
  });
}
