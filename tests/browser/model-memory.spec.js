/** @file An unloaded model's memory comes back: what the system counts for the page's process, with the real model. */

import { readFileSync } from "node:fs";

import { expect, SITE, test } from "./support/site.js";

/**
 * Bytes of the page's processes that lie in memory.
 * @param {import("@playwright/test").Page} page
 * @returns {Promise<number>}
 */
async function resident(page) {
  const session = await /** @type {import("@playwright/test").Browser} */ (page.context().browser()).newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const kilobytes = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1]));
  return kilobytes.reduce((sum, each) => sum + each * 1024, 0);
}

/** Stands in the run of all tests, INPAGE_SLOW=1. */
const slowTest = process.env.INPAGE_SLOW ? test : test.skip;

slowTest("an idle model gives its memory back, and answers again", async ({ page, serve }) => {
  test.skip(process.platform !== "linux", "reads /proc");
  const site = await serve(SITE);
  await page.goto(`${site.url}NOTICES.txt`);
  const weights = await page.evaluate(async (base) => {
    const { InPage } = await import(`${base}client/inpage.js`);
    const start = { base, model: "smollm2-135m-instruct", backend: "wasm", pinned: true };
    const scope = /** @type {any} */ (globalThis);
    scope.inpage = await InPage.start({ ...start, settings: { models: { idle_seconds: 1 } } });
    return scope.inpage.info.weight_bytes;
  }, site.url);
  const ask = () =>
    page.evaluate(async () => {
      const ids = [];
      for await (const piece of /** @type {any} */ (globalThis).inpage.chat("2+2=", { temperature: 0, max_tokens: 8 })) ids.push(...piece.token_ids);
      return ids;
    });
  const loaded = () => page.evaluate(async () => (await /** @type {any} */ (globalThis).inpage.loaded()).length);
  const first = await ask();
  const held = await resident(page);
  await page.evaluate(() => /** @type {any} */ (globalThis).inpage.pin("smollm2-135m-instruct", false));
  await expect.poll(loaded).toBe(0);
  await expect.poll(() => resident(page)).toBeLessThan(held - 0.9 * weights);
  console.log(`loaded ${(held / 1e6).toFixed(0)} MB, unloaded ${((await resident(page)) / 1e6).toFixed(0)} MB, weights ${(weights / 1e6).toFixed(0)} MB`);
  expect(await ask()).toEqual(first);
  await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
});
