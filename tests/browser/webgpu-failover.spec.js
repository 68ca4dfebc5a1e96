/**
 * @file WebGPU devices that are lost and WebGPU engines that are ended in mid-answer, on the software adapter: the answer
 * goes on, on the same engine with the same tokens or on WASM, and what was streamed stays.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

import { expect, greedy, test, weights } from "./support/failing.js";
import { random } from "./support/killer.js";
import { rememberFastest } from "./support/remembered.js";
import { MODEL } from "./support/router.js";
import { WITH_WEBGPU, withoutChoices } from "./support/webgpu.js";

test.use(WITH_WEBGPU);

test.beforeEach(({ server, whole }) => {
  server.fault(`${MODEL}manifest.json`, { body: readFileSync(path.join(whole, "manifest-webgpu.json")), always: true });
  withoutChoices(server, ["stats", "merge", "draw"]); // what the likeliest token takes
});

/** @param {any[]} failovers @returns {string[]} "from to", each once */
const ways = (failovers) => [...new Set(failovers.map(({ from, to }) => `${from} ${to}`))];

/** INPAGE_SLOW=1: twenty. */
const DEATHS = process.env.INPAGE_SLOW ? 20 : 2;

test(`${DEATHS} devices and engines that end at random tokens change no token`, async ({ start, killer, ask, server, model }) => {
  expect((await start({ backend: "webgpu" })).variant).toBe("webgpu-f32");
  server.log = [];
  const next = random(21);
  const after = Array.from({ length: DEATHS }, () => 2 + Math.floor(next() * 6));
  await killer.engines(after.map((answers, i) => (i % 2 ? answers : { device: answers })));
  const failovers = [];
  while ((await killer.deaths()) < DEATHS) {
    const answers = await Promise.all(["hello", "a b c"].map((text) => ask("chat", text)));
    expect(answers.map(({ ids }) => ids)).toEqual([greedy(model, "hello", 60), greedy(model, "a b c", 60)]);
    failovers.push(...answers.flatMap((answer) => answer.failovers));
  }
  expect(failovers.length).toBeGreaterThanOrEqual(DEATHS);
  expect(ways(failovers)).toEqual(["webgpu-f32 webgpu-f32"]);
  for (const reason of [/worker is gone: it ended without a word/, /device was lost/]) {
    expect(failovers.filter((each) => reason.test(each.reason)).length, String(reason)).toBeGreaterThanOrEqual(DEATHS / 2);
  }
  expect(weights(server)).toEqual([]);
});

test("where a device is lost twice, or takes long to open again, WASM goes on and fetches no weights", async ({ page, start, killer, ask, server, model }) => {
  const first = await start();
  expect(first.variant).toBe("wasm-simd"); // a software adapter is not expected to be faster
  await rememberFastest(page, "webgpu-f32");
  await page.reload();
  expect(await start()).toMatchObject({ backend: "webgpu", why: expect.stringContaining("measured") });
  server.log = [];
  await killer.engines([{ device: 3 }, { device: 2 }]);
  const { completion, ids, text, failovers } = await ask("chat", "hello");
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(completion).toMatchObject({ token_ids: ids, text, variant: "wasm-simd", why: expect.stringContaining("took over because webgpu-f32 failed") });
  expect(ways(failovers).at(-1)).toBe("webgpu-f32 wasm-simd");
  expect(weights(server)).toEqual([]);
});
