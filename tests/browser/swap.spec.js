/**
 * @file KV pages of preempted requests in a file of the origin private file system: they come back bit for bit, what the
 * disk damaged is computed again, and no file outlives the router that made it.
 */

import { BASE, expect, MODEL, prompt, test, text } from "./support/router.js";

/** @typedef {import("@playwright/test").Page} Page */

/** Six pages of 16 tokens for conversations of 80, and no memory beside them. */
const KV = { memory_bytes: 6 * 256, prefix_bytes: 0, swap_bytes: 0 };
const CONVERSATIONS = [..."abcd"];

/** A tab with a router of its own. @param {import("@playwright/test").BrowserContext} context @param {string} origin */
async function open(context, origin) {
  const tab = await context.newPage();
  await tab.addInitScript(() => {
    const scope = /** @type {any} */ (globalThis);
    scope.routers = [];
    scope.Worker = class extends Worker {
      /** @param {string | URL} url @param {WorkerOptions} options */
      constructor(url, options) {
        super(url, options);
        if (String(url).includes("router/worker")) scope.routers.push(this);
      }
    };
  });
  await tab.goto(`${origin}/tests/browser/support/blank.html`);
  await tab.evaluate(async ([base, model, kv]) => {
    const { InPage } = await import(`${base}client/inpage.js`);
    Object.assign(globalThis, { inpage: await InPage.start({ base, model, threads: 1, settings: { kv } }) });
  }, /** @type {const} */ ([BASE, MODEL, KV]));
  return tab;
}

/** All at once. `kill`: the router ends with the first piece of the last one. @param {Page} tab @param {boolean} [kill] @returns {Promise<string[]>} */
function ask(tab, kill = false) {
  return tab.evaluate(async ([contents, kill]) => {
    const { inpage, routers } = /** @type {any} */ (globalThis);
    const params = { temperature: 0, max_tokens: 60, logit_bias: { 2: -100 } };
    return Promise.all(contents.map(async (content, i) => {
      let said = "";
      for await (const piece of inpage.chat(content, params)) {
        said += piece.text;
        if (kill && i === contents.length - 1) {
          kill = false;
          routers.at(-1).terminate();
        }
      }
      return said;
    }));
  }, /** @type {const} */ ([CONVERSATIONS, kill]));
}

/** @param {Page} tab @param {string} way @returns {Promise<number>} pages that went to the file, came back, or were damaged */
async function pages(tab, way) {
  const metrics = await tab.evaluate(() => /** @type {any} */ (globalThis).inpage.metrics());
  return Number(new RegExp(`^inpage_swapped_pages_total\\{.*tier="file",way="${way}"\\} (\\d+)$`, "m").exec(metrics)?.[1] ?? 0);
}

/** @param {Page} tab @returns {Promise<string[]>} */
function files(tab) {
  return tab.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("inpage-swap", { create: true });
    const names = [];
    for await (const name of /** @type {any} */ (folder).keys()) names.push(name);
    return names.sort();
  });
}

test("swapped pages come back from OPFS, damaged ones never; a killed router's file goes, a living tab's stays", async ({ context, origin, start: _, model }) => {
  const right = CONVERSATIONS.map((content) => text(model.greedy(prompt(content), 60)));

  const other = await open(context, origin);
  await other.workers().find((worker) => worker.url().endsWith("router/worker.js"))?.evaluate(() => {
    const { prototype } = /** @type {any} */ (globalThis).FileSystemSyncAccessHandle;
    const { read } = prototype;
    prototype.read = function (/** @type {Uint8Array} */ target, /** @type {object} */ how) {
      const count = read.call(this, target, how);
      target[count >> 1] ^= 1;
      return count;
    };
  });
  expect(await ask(other)).toEqual(right);
  expect(await pages(other, "loaded")).toBe(0);
  expect(await pages(other, "lost")).toBeGreaterThan(0);
  const [living] = await files(other);

  const tab = await open(context, origin);
  expect(await files(tab)).toEqual([living]);
  expect(await ask(tab)).toEqual(right);
  expect(await pages(tab, "loaded")).toBeGreaterThan(0);
  const killed = (await files(tab)).find((name) => name !== living);
  expect(killed).toBeDefined();
  expect(await ask(tab, true)).toEqual(right);
  expect(await files(tab)).not.toContain(killed);
  await tab.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await files(other)).toEqual([living]);
  expect(await ask(other)).toEqual(right);
  await other.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
  expect(await files(other)).toEqual([]);
});
