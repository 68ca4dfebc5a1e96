/** @file What a small device takes back from a hidden page, over the synthetic model: the whole engine. */

import { expect, greedy, test, weights } from "./support/failing.js";

/** @param {import("@playwright/test").Page} page @param {number} gib that the device says it has */
async function device(page, gib) {
  await page.addInitScript((gib) => Object.defineProperty(Navigator.prototype, "deviceMemory", { get: () => gib }), gib);
  await page.reload();
}

/** As a browser tells it. @param {import("@playwright/test").Page} page @param {"hidden" | "visible"} state */
function show(page, state) {
  return page.evaluate((state) => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
    document.dispatchEvent(new Event("visibilitychange"));
  }, state);
}

/** @param {import("@playwright/test").Page} page @returns {Promise<string[]>} names of models in memory */
const loaded = (page) => page.evaluate(async () => (await /** @type {any} */ (globalThis).inpage.loaded()).map((/** @type {any} */ { name }) => name));

for (const how of /** @type {const} */ (["hidden", "frozen"])) {
  test(`a page that is ${how} on a small device gives its engine back, and loads it again when it is asked`, async ({ page, start, ask, server, model }) => {
    await device(page, 2);
    expect((await start({ threads: 1, settings: { kv: { hidden_seconds: how === "hidden" ? 0 : 3600 } } })).error).toBeUndefined();
    const engines = () => page.workers().filter((worker) => worker.url().endsWith("/engine/worker.js")).length;
    expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
    expect([(await loaded(page)).length, engines()]).toEqual([1, 1]);
    server.clear();
    if (how === "hidden") await show(page, "hidden");
    else await page.evaluate(() => document.dispatchEvent(new Event("freeze")));
    await expect.poll(() => loaded(page)).toEqual([]);
    await expect.poll(engines).toBe(0);
    await show(page, "visible");
    // Nothing is loaded before it is asked for, and then from storage.
    expect(await loaded(page)).toEqual([]);
    expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
    expect([(await loaded(page)).length, engines(), weights(server)]).toEqual([1, 1, []]);
  });
}

test("a device with plenty keeps its engine while the page is hidden", async ({ page, start, ask, model }) => {
  await device(page, 8);
  await start({ threads: 1, settings: { kv: { hidden_seconds: 0 } } });
  await ask("chat", "hello");
  await show(page, "hidden");
  // What was kept for prompts to come is given back all the same: by then it was seen that nobody looks.
  await expect.poll(() => page.evaluate(async () => (await /** @type {any} */ (globalThis).inpage.refresh()).kv_pages.kept)).toBe(0);
  expect(await loaded(page)).toHaveLength(1);
  expect((await ask("chat", "hello")).ids).toEqual(greedy(model, "hello", 60));
});
