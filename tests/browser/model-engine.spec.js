/**
 * @file What the engine says of itself with the real model: the memory that it takes, the number of threads that it
 * chose, and where the time of a step goes. Timing leaves no trace in what it answers.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { DOUBT } from "../../web/engine/wasm/thread_count.js";
import { expect, MODEL, REFERENCE, scattered, test, VARIANTS } from "./support/real.js";

const VARIANT = "wasm-relaxed";
const PAGES = 64; // 1,024 tokens
/** Half of what the weights take as 16-bit floats. */
const MOST_BYTES = 134e6;

const { ids } = Object.values(REFERENCE.prompts)[0];
const sequence = { ids, pages: scattered(ids.length + 16).map((page) => page % PAGES) };
const ANSWER = { sequences: [sequence], chunk: 128, decode: 16 };

/** @type {import("../../web/engine/core/protocol.js").Info} */
let info;

test.beforeAll(async ({ model }) => {
  expect(new Set(sequence.pages).size).toBe(sequence.pages.length);
  info = await model.call("load", "measured", { base: "/model", variant: VARIANT, threads: null, contextPages: 2 * PAGES }, 0);
});
test.afterAll(async ({ model }) => model.call("unload", "measured"));

test("memory grows with the conversation, and 1,024 tokens fit into 134 MB", async ({ model }) => {
  const { before, after } = await model.call("memory", "measured", PAGES);
  console.log(`${before} bytes, with ${PAGES} KV pages ${after}; weights ${info.weight_bytes}, arena ${info.arena_bytes}`);
  expect(before).toBeGreaterThanOrEqual(info.weight_bytes + info.arena_bytes);
  expect(after).toBeLessThan(info.weight_bytes + info.arena_bytes + PAGES * info.page_bytes + 2 * 65536);
  expect(after).toBeGreaterThan(info.weight_bytes + PAGES * info.page_bytes);
  expect(after - before).toBeLessThanOrEqual(PAGES * info.page_bytes + 65536);
  expect(after).toBeLessThanOrEqual(MOST_BYTES);
});

test("as many threads as no fewer clearly beat, and nothing of the timing is left", async ({ model }) => {
  const measured = /** @type {Record<string, number>} */ (info.threads_measured);
  expect(Object.keys(measured)).toContain(String(info.threads));
  expect(Object.keys(measured).length).toBeGreaterThan(1);
  const limit = Math.max(...Object.values(measured)) / DOUBT;
  expect(info.threads).toBe(Math.max(...Object.keys(measured).map(Number).filter((threads) => measured[threads] >= limit)));
  const pinned = await model.engine(VARIANT, 2);
  expect(model.info(pinned)).toMatchObject({ threads: 2, threads_measured: null });
  const trace = await model.call("trace", "measured", ANSWER);
  expect(trace).toEqual(await model.call("trace", pinned, ANSWER));
});

for (const variant of process.env.INPAGE_SLOW ? VARIANTS : [VARIANT]) {
  test(`${variant}: every alternative of every kernel leaves the same bits, on one thread and on two`, async ({ model }) => {
    const traces = new Set();
    for (const threads of [1, 2]) {
      const name = await model.engine(variant, threads);
      const { alternatives } = model.info(name);
      expect(alternatives.length).toBeGreaterThan(4);
      for (let k = 0; k < Math.max(...alternatives.map((names) => names.length)); k++) {
        await model.call("chooseKernels", name, alternatives.map((names) => names[k % names.length]));
        // 37 rows at once, then one by one; 5 together.
        const short = { ids: ids.slice(0, 38), pages: sequence.pages };
        const crowd = Array.from({ length: 5 }, (_, i) => ({ ids: ids.slice(i, i + 9), pages: [50 + i] }));
        traces.add(JSON.stringify([
          await model.call("trace", name, { sequences: [short], chunk: 37, decode: 3 }),
          await model.call("trace", name, { sequences: crowd, chunk: 128, decode: 3 }),
        ]));
      }
      await model.call("chooseKernels", name, alternatives.map(([first]) => first));
    }
    expect(traces.size).toBe(1);
  });
}

test("a profile has every launch of the plan, at each number of threads, and changes no answer", async ({ model }) => {
  const plan = JSON.parse(readFileSync(path.join(MODEL, VARIANT, "plan.json"), "utf8"));
  const before = await model.call("trace", "measured", ANSWER);
  for (const [rows, threads] of [[1, 1], [1, 2], [8, 2], [32, 2]]) {
    const { launches } = plan.functions.find((/** @type {{max_rows: number}} */ f) => f.max_rows >= rows);
    const profile = await model.call("profile", "measured", { rows, threads, depth: 40, repeats: 3 });
    expect(profile).toMatchObject({ rows, threads, depth: 40, sequences: rows <= 16 ? rows : 1 });
    expect(profile.launch_kernel).toEqual(launches.map((/** @type {{kernel: number}} */ { kernel }) => kernel));
    expect(profile.kernels).toEqual(plan.kernels.map((/** @type {{name: string}} */ { name }) => name));
    expect(profile.launch_us).toHaveLength(launches.length);
    expect(Math.min(...profile.launch_us)).toBeGreaterThanOrEqual(0);
    expect(profile.launch_us.reduce((sum, us) => sum + us, 0)).toBeGreaterThan(0);
    expect(profile.rounds).toBeGreaterThan(0);
  }
  expect(await model.call("trace", "measured", ANSWER)).toEqual(before);
  await expect(model.call("profile", "measured", { rows: 0 })).rejects.toThrow(/rows must be 1 to/);
});
