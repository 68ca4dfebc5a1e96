/**
 * @file What an earlier visit loaded is loaded while Python starts: taken over where Python asks for the same, loaded anew where
 * it asks for something else, and never tried again where it did not end well.
 */

import { BASE, expect, MODEL, prompt, test } from "./support/router.js";

/** @typedef {import("@playwright/test").Page} Page */

const PLAN = "plan.json";

/** The notes of earlier loads. @param {Page} page @returns {Promise<any[]>} */
const notes = (page) =>
  page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open("inpage-ahead");
        opening.onupgradeneeded = () => opening.result.createObjectStore("loads");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const reading = opening.result.transaction("loads").objectStore("loads").getAll();
          reading.onsuccess = () => resolve((opening.result.close(), reading.result));
        };
      }),
  );

/** Another engine than the one that was loaded. @param {Page} page @param {Record<string, unknown>} change */
const alter = (page, change) =>
  page.evaluate(
    (change) =>
      new Promise((resolve) => {
        const opening = indexedDB.open("inpage-ahead");
        opening.onsuccess = () => {
          const transaction = opening.result.transaction("loads", "readwrite");
          const store = transaction.objectStore("loads");
          store.openCursor().onsuccess = (/** @type {any} */ { target: { result: cursor } }) => {
            if (cursor) cursor.update({ ...cursor.value, options: { ...cursor.value.options, ...change } });
          };
          transaction.oncomplete = () => resolve(opening.result.close());
        };
      }),
    change,
  );

/** A visit whose Python does not come before `release`; the model's files must come over the network again. */
const visit = test.extend(
  /** @type {any} */ ({
    /** @param {{page: Page, start: any, server: import("./support/server.js").FaultServer}} fixtures @param {any} use */
    visit: async ({ page, start, server }, use) => {
      expect((await start({ threads: 1 })).error).toBeUndefined();
      await expect.poll(async () => (await notes(page)).length).toBe(1);
      await use(async (options = {}, change = {}) => {
        await page.evaluate(() => /** @type {any} */ (globalThis).inpage.unload());
        await page.reload();
        const cleared = () =>
          page.evaluate(async () => {
            const root = await navigator.storage.getDirectory();
            for await (const name of root.keys()) await root.removeEntry(name, { recursive: true });
            return true;
          });
        await expect.poll(() => cleared().catch(() => false)).toBe(true); // a worker that ended a moment ago may hold a file
        await alter(page, change);
        /** @type {(value?: unknown) => void} */
        let release = () => {};
        server.log = [];
        server.fault(`${BASE}inpage.zip`, { hold: new Promise((resolve) => (release = resolve)) });
        return { started: start({ threads: 1, ...options }), release };
      });
    },
  }),
);

/** @param {import("./support/server.js").FaultServer} server @returns {number} */
const plans = (server) => server.log.filter(({ path: name, status }) => name.startsWith(MODEL) && name.endsWith(PLAN) && status < 300).length;
/** @param {import("./support/server.js").FaultServer} server @param {any} model @returns {number} */
const shards = (server, model) => model.manifest.weights.shards.filter(({ file = "" }) => server.requests(MODEL + file).length > 0).length;

visit("the engine of the last visit loads while Python starts, and is taken over", async (/** @type {any} */ { page, server, model, visit }) => {
  const { started, release } = await visit();
  const { length } = model.manifest.weights.shards;
  await expect.poll(() => [plans(server), shards(server, model)]).toEqual([1, length]);
  expect(await notes(page)).toEqual([]); // until that load has ended well
  release();
  expect((await started).error).toBeUndefined();
  expect(plans(server)).toBe(1);
  const phases = await page.evaluate(() => /** @type {any} */ (globalThis).progress.map((/** @type {any} */ { phase }) => phase));
  expect([...new Set(phases)]).toEqual(["python", "manifest", "tokenizer", "kernels", "weights", "ready"]);
  const answered = await page.evaluate(async (/** @type {number[]} */ ids) => {
    let last;
    for await (const piece of /** @type {any} */ (globalThis).inpage.complete(ids, { temperature: 0, max_tokens: 4 })) last = piece;
    return last.completion.token_ids;
  }, prompt("hello"));
  expect(answered).toEqual(model.greedy(prompt("hello"), 4));
  await expect.poll(async () => (await notes(page)).length).toBe(1);
});

visit("another request loads nothing ahead but weights, and what Python does not ask for is loaded anew", async (/** @type {any} */ { page, server, model, visit }) => {
  const { length } = model.manifest.weights.shards;
  const other = await visit({ settings: { wasm: { memory_maximum: 1 << 30 } } });
  await expect.poll(() => shards(server, model)).toBe(length);
  expect(plans(server)).toBe(0);
  other.release();
  expect((await other.started).error).toBeUndefined();
  expect(plans(server)).toBe(1);

  // As if the last visit's engine were not this one's, or none at all.
  for (const change of [{ sliceMs: 7 }, { variant: "gone" }]) {
    await expect.poll(async () => (await notes(page)).length).toBe(1);
    const { started, release } = await visit({ settings: { wasm: { memory_maximum: 1 << 30 } } }, change);
    if (!change.variant) await expect.poll(() => plans(server)).toBe(1);
    release();
    expect((await started).error).toBeUndefined();
  }
});
