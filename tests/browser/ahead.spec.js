/**
 * @file What an earlier visit loaded is loaded while Python starts: taken over where Python asks for the same, loaded anew where
 * it asks for something else, and never tried again where it did not end well.
 */

import { readFileSync } from "node:fs";
import path from "node:path";

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

/** The page without Python: `ahead` and a load of its engines, as Python asks for one; notes are read behind what was written. */
const AHEAD = async (/** @type {readonly [string, string]} */ [base, model]) => {
  const scope = /** @type {any} */ (globalThis);
  const { newEngine, prepareLoad } = await import(`${base}router/ahead.js`);
  const { inStore } = await import(`${base}router/in_store.js`);
  const { EngineClient } = await import(`${base}engine/client.js`);
  const { begin } = EngineClient.prototype;
  EngineClient.prototype.begin = function (/** @type {any} */ options) {
    scope.begun = options;
    return begin.call(this, options);
  };
  const artifact = new URL(model, location.href).href;
  const manifest = await (await fetch(`${artifact}manifest.json`)).text();
  scope.prepare = () => prepareLoad({ artifact, id: 1 });
  scope.load = async (/** @type {string} */ variant, /** @type {number | null} */ threads) => {
    const engine = newEngine();
    await engine.load({ base: artifact, manifest, variant, threads });
    return engine;
  };
  scope.noted = async () => {
    const notes = await inStore("inpage-ahead", "loads", "readonly", (/** @type {IDBObjectStore} */ store) => store.getAll());
    return notes.map((/** @type {any} */ { options }) => options.variant);
  };
};

test("noted is the engine that runs, not one that was tried or took over, and it is taken over with any threads", async ({ page, origin, server, whole }) => {
  const manifest = JSON.parse(readFileSync(path.join(whole, "manifest.json"), "utf8"));
  const [variant] = manifest.variants;
  const other = structuredClone({ ...variant, name: "wasm-relaxed" });
  for (const entry of [other.plan, other.kernels]) {
    const body = readFileSync(path.join(whole, entry.file));
    server.fault(`${MODEL}${(entry.file = `other/${path.basename(entry.file)}`)}`, { always: true, status: 200, body });
  }
  server.fault(`${MODEL}manifest.json`, { always: true, body: Buffer.from(JSON.stringify({ ...manifest, variants: [variant, other] })) });
  let workers = 0;
  page.on("worker", (worker) => void (workers += Number(worker.url().endsWith("engine/worker.js"))));
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  await page.evaluate(AHEAD, /** @type {const} */ ([BASE, MODEL]));
  const found = await page.evaluate(async () => {
    const { prepare, load, noted } = /** @type {any} */ (globalThis);
    const found = [];
    prepare();
    const first = await load("wasm-simd", 2);
    found.push(await noted());
    const tried = await load("wasm-relaxed", 1);
    found.push(await noted());
    await tried.unload();
    found.push(await noted());
    const better = await load("wasm-relaxed", 2);
    await first.unload(); // it was adopted
    found.push(await noted());
    await better.unload();
    await (await load("wasm-relaxed", 2)).unload(); // its worker was lost, and started again
    found.push(await noted());
    await (await load("wasm-simd", 2)).unload(); // it took over
    found.push(await noted());
    prepare();
    await load("wasm-simd", 2);
    found.push(await noted());
    return found;
  });
  expect(found).toEqual([["wasm-simd"], ["wasm-simd"], ["wasm-simd"], ["wasm-relaxed"], ["wasm-relaxed"], [], ["wasm-simd"]]);

  // The next visit: as many threads as are the fastest are asked for, not those that it began with.
  await page.reload();
  await page.evaluate(AHEAD, /** @type {const} */ ([BASE, MODEL]));
  workers = 0;
  await page.evaluate(() => /** @type {any} */ (globalThis).prepare());
  await expect.poll(() => page.evaluate(() => /** @type {any} */ (globalThis).begun)).toMatchObject({ variant: "wasm-simd", threads: 2 });
  await page.evaluate(() => /** @type {any} */ (globalThis).load("wasm-simd", null));
  expect(workers).toBe(1);
});

test("nothing waits for an IndexedDB that does not answer", async ({ page, origin, server, model }) => {
  await page.clock.install();
  await page.goto(`${origin}/tests/browser/support/blank.html`);
  await page.evaluate(AHEAD, /** @type {const} */ ([BASE, MODEL]));
  await page.clock.pauseAt(Date.now() + 3_600_000);
  server.log = [];
  await page.evaluate(() => {
    const { open } = IDBFactory.prototype; // a worker, where this runs, has its files elsewhere
    IDBFactory.prototype.open = function (name, version) {
      return name === "inpage-ahead" ? /** @type {any} */ (new EventTarget()) : open.call(this, name, version);
    };
    /** @type {any} */ (globalThis).prepare();
  });
  await expect.poll(() => server.requests(`${MODEL}tokenizer.json`).length).toBe(1);
  expect(shards(server, model)).toBe(0);
  await page.clock.runFor(250);
  await expect.poll(() => shards(server, model)).toBe(model.manifest.weights.shards.length);
});
