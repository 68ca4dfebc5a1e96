/** @file Workers that die in mid-answer, over the synthetic model: answers go on, or end with a reason. */

import { expect, greedy, test, weights } from "./support/failing.js";
import { keptMemory, renewMemory } from "./support/kept_python.js";
import { inPython, showPython } from "./support/python.js";
import { BASE } from "./support/router.js";

test("an engine worker that is ended is started again, and the answer goes on", async ({ page, start, killer, ask, server, model }) => {
  await start({ threads: 2 });
  server.clear();
  await killer.engines([3, 2]);
  const { completion, ids, text, failovers } = await ask("chat", "hello");
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(completion).toMatchObject({ token_ids: ids, text, failovers });
  expect(failovers).toHaveLength(2);
  expect(failovers[0]).toMatchObject({ from: "wasm-simd", to: "wasm-simd", reason: expect.stringMatching(/^device_lost: /) });
  expect(failovers[0].gap_ms).toBeGreaterThan(0);
  expect(weights(server)).toEqual([]);
  expect(await page.evaluate(() => /** @type {any} */ (globalThis).inpage.explain())).toMatch(/wasm-simd: .*failed \d+ seconds ago/);
});

test("a router worker that is ended is started again, and answers go on", async ({ start, killer, ask, server, model }) => {
  await start({ threads: 2 });
  server.clear();
  await killer.routers([4]);
  const [{ completion, ids, text, failovers }, sampled] = await Promise.all([ask("chat", "hello"), ask("chat", "a b", { temperature: 1 })]);
  expect(ids).toEqual(greedy(model, "hello", 60));
  expect(completion).toMatchObject({ token_ids: ids, text, failovers });
  expect(failovers).toMatchObject([{ from: "router", to: "router" }]);
  expect(weights(server)).toEqual([]);
  // The seed that was drawn before the death still holds.
  const { seed } = sampled.completion;
  expect((await ask("chat", "a b", { temperature: 1, seed })).ids).toEqual(sampled.ids);
});

test("a request that ends every engine fails alone", async ({ start, ask, model }) => {
  await start({ threads: 2 });
  const [first, bad, second] = await Promise.all([ask("chat", "hello"), ask("complete", "^"), ask("chat", "a b c")]);
  expect([first.ids, bad, second.ids]).toEqual([greedy(model, "hello", 60), { code: "poison_request" }, greedy(model, "a b c", 60)]);
});

(process.env.INPAGE_SLOW ? test : test.skip)("a router that dies again and again with a request fails it, and nothing hangs", async ({ start, killer, ask, model }) => {
  await start({ threads: 1 });
  await killer.routers([1, 1]);
  expect(await ask("chat", "hello")).toEqual({ code: "poison_request" });
  expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
});

test.describe(() => {
  test.use({ snapshot: false });

  test("Python's memory is kept for the next start", async ({ page, start, ask, model, server }) => {
    await showPython(page);
    /** @type {string[]} */
    const warnings = [];
    page.on("console", (message) => message.text().startsWith("Python") && warnings.push(message.text()));
    /** @type {boolean[]} */
    const modules = [];
    const renewals = () => server.requests(`${BASE}router/memory_worker.js`).length;
    const answer = async (/** @type {number} */ renewed) => {
      const info = await start({ threads: 1 });
      expect(info.error).toBeUndefined();
      modules.push(await inPython(page, "import sys; json.dumps('jinja2' in sys.modules)", null));
      const { ids } = await ask("chat", "hello");
      expect(ids).toEqual(greedy(model, "hello", 60));
      const { seed } = (await ask("chat", "a", { temperature: 1, max_tokens: 1 })).completion;
      await expect.poll(renewals).toBe(renewed);
      await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
      return seed;
    };
    // Beside the first visit it is kept, then anew with what only chats need, which later visits have from the start.
    const seeds = [await answer(2)];
    await expect.poll(async () => Object.values(await keptMemory(page))).toEqual([expect.any(Number)]);
    expect(await renewMemory(page)).toBe(true);
    seeds.push(await answer(3)); // ours, and no other
    expect(modules).toEqual([false, true]);
    expect(new Set(seeds).size).toBe(2); // chance does not repeat itself
    expect(warnings).toEqual([]);
  });
});

test("two engines of one model share the requests; one that is ended is started again while the other goes on", async ({ page, start, killer, ask, model }) => {
  expect(await start({ replicas: 2, threads: 1 })).toMatchObject({ replicas: 2 });
  await killer.engines([3]);
  const asked = ["hello", "a b c", "who are you", "x", "the last one", "abc"];
  const answers = await Promise.all(asked.map((question) => ask("chat", question)));
  expect(answers.map(({ ids }) => ids)).toEqual(asked.map((question) => greedy(model, question, 60)));
  expect(await killer.deaths()).toBe(1);
  const hit = answers.filter(({ failovers }) => failovers.length);
  expect(hit.length).toBeGreaterThan(0);
  expect(hit.length).toBeLessThan(asked.length); // those of the other engine noticed nothing
  /** @type {string} */
  const metrics = await page.evaluate(() => /** @type {any} */ (globalThis).inpage.metrics());
  /** @param {string} name @returns {Record<string, number>} by replica */
  const by = (name) => Object.fromEntries([...metrics.matchAll(new RegExp(`^${name}\\{(?=[^}]*replica="(\\d)")[^}]*\\} (\\d+)`, "gm"))].map(([, replica, count]) => [replica, Number(count)]));
  const served = by("inpage_requests_total");
  expect(served[0] + served[1]).toBe(asked.length);
  expect(Math.min(served[0], served[1])).toBeGreaterThan(0); // how many each: who came after the death went to the other
  expect(Object.values(by("inpage_failovers_total"))).toEqual([1]);
});
